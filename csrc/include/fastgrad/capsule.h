/* The kernels of the installed Python package, for C and C++ extensions: no compile flags, and the best instruction set of
 * the processor. Call fastgrad_import() once, with the GIL held, and keep what it returns. */
#ifndef FASTGRAD_CAPSULE_H
#define FASTGRAD_CAPSULE_H

#include <Python.h>

#include "api.h"

/* Returns NULL with a Python exception set where the package has no C++ kernels, or those of another interface. */
static inline const fastgrad_api* fastgrad_import(void) {
    /* This module looks at FASTGRAD_ISA, and compares the versions of package and kernels. */
    PyObject* module = PyImport_ImportModule("fastgrad.kernels.native");
    const fastgrad_api* api;
    if (module == NULL) return NULL;
    Py_DECREF(module);
    api = (const fastgrad_api*)PyCapsule_Import("fastgrad._cpp._C_API", 0);
    if (api != NULL && api->version != FASTGRAD_API_VERSION) {
        PyErr_Format(PyExc_ImportError,
                     "the C interface of fastgrad has version %d, and this extension was compiled for version %d: "
                     "compile it again with the headers of the fastgrad that is installed",
                     api->version, FASTGRAD_API_VERSION);
        return NULL;
    }
    return api;
}

#endif
