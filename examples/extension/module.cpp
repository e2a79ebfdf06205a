// A Python extension that calls the kernels of the installed fastgrad: python setup.py build_ext --inplace
#include <fastgrad/capsule.h>
#include <pybind11/numpy.h>
#include <pybind11/pybind11.h>

#include <vector>

namespace py = pybind11;
using Floats = py::array_t<double, py::array::c_style | py::array::forcecast>;

static const fastgrad_api* kernels;

// Mantissas and exponents of do_L/dx, of each member's chain; weight and bias have the shape (depth, ensemble).
static py::tuple gradient(Floats weight, Floats bias, double x) {
    if (weight.ndim() != 2 || bias.ndim() != 2 || weight.shape(0) != bias.shape(0) || weight.shape(1) != bias.shape(1))
        throw py::value_error("weight, bias: expected arrays of one shape (depth, ensemble)");
    const py::ssize_t members = weight.shape(1), links = weight.shape(0) * members;
    const std::vector<double> input(members, x), one(members, 1.0);
    std::vector<double> output(members), mantissa(2 * links);  // of all weights and biases: not wanted here
    std::vector<int64_t> exponent(2 * links);
    py::array_t<double> mantissa_x(members);
    py::array_t<int64_t> exponent_x(members);
    fastgrad_backprop_job job{};
    job.depth = weight.shape(0), job.ensemble = job.stop = members;
    job.weight = weight.data(), job.bias = bias.data(), job.nonlinearity = FASTGRAD_SIGMOID;
    job.x = input.data(), job.cotangent = one.data(), job.output = output.data();
    job.grad_weight = {mantissa.data(), exponent.data()};
    job.grad_bias = {mantissa.data() + links, exponent.data() + links};
    job.grad_x = {mantissa_x.mutable_data(), exponent_x.mutable_data()};
    int status;
    {
        py::gil_scoped_release released;  // kernels touch nothing but the job's arrays
        status = kernels->backprop(&job);
    }
    if (status != FASTGRAD_OK) throw py::value_error("weight or bias: expected finite numbers");
    return py::make_tuple(mantissa_x, exponent_x);
}

PYBIND11_MODULE(chains, module) {
    kernels = fastgrad_import();
    if (kernels == nullptr) throw py::error_already_set();
    module.def("gradient", &gradient, py::arg("weight"), py::arg("bias"), py::arg("x"));
    module.def("instruction_set", [] { return kernels->instruction_set; });
}
