// The C++ kernel as a function that XLA calls, for fastgrad/jax.py.
//
// The structs are those of XLA's C interface for foreign functions, xla/ffi/api/c_api.h, as far as they are read here:
// the interface is binary and has a version, and only grows at the end. Built against XLA's own headers, the extension
// would be tied to the version of one jaxlib.
#pragma once

#include <cstddef>
#include <cstdint>

#include "jobs.h"

namespace fastgrad {
namespace xla {

constexpr int MAJOR = 0, MINOR = 1;  // the first that has all that is used here
constexpr int METADATA = 1, EXECUTE = 3, INVALID_ARGUMENT = 3, RESOURCE_EXHAUSTED = 8, FLOAT64 = 12, INT64 = 5;

struct Extension {
    size_t size;
    int type;
    Extension* next;
};
struct Version {
    size_t size;
    Extension* extension;
    int major, minor;
};
struct Metadata {
    size_t size;
    Version version;
};
struct MetadataExtension {
    Extension base;
    Metadata* metadata;
};
struct ErrorArguments {
    size_t size;
    Extension* extension;
    const char* message;
    int code;
};
struct Api {
    size_t size;
    Extension* extension;
    Version version;
    const void* internal;
    void* (*create_error)(ErrorArguments*);
};
struct Buffer {
    size_t size;
    Extension* extension;
    int type;
    void* data;
    int64_t rank;
    int64_t* dimensions;
};
struct Buffers {
    size_t size;
    Extension* extension;
    int64_t count;
    const int* kinds;
    Buffer** buffers;
};
struct CallFrame {
    size_t size;
    Extension* extension;
    const Api* api;
    void* context;
    int stage;
    Buffers arguments, results;
};

inline void* error(const CallFrame* frame, int code, const char* message) {
    ErrorArguments arguments{sizeof(ErrorArguments), nullptr, message, code};
    return frame->api->create_error(&arguments);
}

// Runs `kernel` for every chain or ensemble of a batch. XLA makes the buffers; their types and shapes are compared all
// the same, for memory is at stake.
//
// arguments  weight, bias    (..., depth, ensemble)     x, cotangent  (..., ensemble)
// results    output          (..., ensemble)
//            grad_weight, grad_bias  (..., depth, ensemble) and grad_x (..., ensemble), each mantissa and exponent
inline void* backprop(const CallFrame* frame, int (*kernel)(const BackpropJob*)) {
    for (const Extension* of = frame->extension; of != nullptr; of = of->next) {
        if (of->type != METADATA) continue;
        Version& version = reinterpret_cast<const MetadataExtension*>(of)->metadata->version;
        version.major = MAJOR, version.minor = MINOR;
        return nullptr;
    }
    if (frame->stage != EXECUTE) return nullptr;
    const Buffers &given = frame->arguments, &made = frame->results;
    if (given.count != 4 || made.count != 7) return error(frame, INVALID_ARGUMENT, "expected 4 arguments, 7 results");
    const Buffer& weight = *given.buffers[0];
    if (weight.rank < 2) return error(frame, INVALID_ARGUMENT, "weight: expected the shape (..., depth, ensemble)");
    const int64_t depth = weight.dimensions[weight.rank - 2], ensemble = weight.dimensions[weight.rank - 1];
    const auto count = [](const Buffer& buffer) {
        int64_t elements = 1;
        for (int64_t i = 0; i < buffer.rank; ++i) elements *= buffer.dimensions[i];
        return elements;
    };
    if (depth < 1 || ensemble < 1)
        return error(frame, INVALID_ARGUMENT, "weight: expected at least one link and chain");
    const int64_t batch = count(weight) / (depth * ensemble);
    const auto fits = [&](const Buffer* buffer, int64_t elements, int type) {
        return buffer->type == type && count(*buffer) == batch * elements;
    };
    const int64_t links = depth * ensemble, sizes[] = {links, links, ensemble};
    bool all = true;
    for (int i = 0; i < 4; ++i) all &= fits(given.buffers[i], i < 2 ? links : ensemble, FLOAT64);
    all &= fits(made.buffers[0], ensemble, FLOAT64);
    for (int i = 0; i < 3; ++i) {
        all &= fits(made.buffers[1 + 2 * i], sizes[i], FLOAT64);
        all &= fits(made.buffers[2 + 2 * i], sizes[i], INT64);
    }
    if (!all) return error(frame, INVALID_ARGUMENT, "arrays of other types or shapes than fastgrad.jax hands over");
    for (int64_t b = 0; b < batch; ++b) {
        const auto in = [&](int i, int64_t elements) {
            return static_cast<const double*>(given.buffers[i]->data) + b * elements;
        };
        const auto out = [&](int i, int64_t elements) {
            return ScaledArrays{static_cast<double*>(made.buffers[i]->data) + b * elements,
                                static_cast<int64_t*>(made.buffers[i + 1]->data) + b * elements};
        };
        BackpropJob job{};
        job.depth = depth, job.ensemble = job.stop = ensemble, job.nonlinearity = SIGMOID;
        job.weight = in(0, links), job.bias = in(1, links), job.x = in(2, ensemble), job.cotangent = in(3, ensemble);
        job.output = static_cast<double*>(made.buffers[0]->data) + b * ensemble;
        job.grad_weight = out(1, links), job.grad_bias = out(3, links), job.grad_x = out(5, ensemble);
        const int status = kernel(&job);
        if (status == NO_MEMORY) return error(frame, RESOURCE_EXHAUSTED, "no memory for the kernel's tape");
        if (status != OK) return error(frame, INVALID_ARGUMENT, "weight or bias: expected finite numbers");
    }
    return nullptr;
}

}  // namespace xla
}  // namespace fastgrad
