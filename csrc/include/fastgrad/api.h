/* The kernels as plain data and functions, for C and C++: what fastgrad/kernels/contract.py says, in its names.
 *
 * Two ways to them: <fastgrad/fastgrad.h> compiles them into a C++ program; <fastgrad/capsule.h> calls those of the
 * installed Python package, for the best instruction set of the processor, and needs no compile flags.
 *
 * A job is filled by the caller, and a kernel checks nothing: arrays have the sizes that are written there, links first,
 * members side by side. Kernels are serial, and touch nothing but a job's arrays and memory of their own: threads may
 * run slices of one job at the same time. */
#ifndef FASTGRAD_API_H
#define FASTGRAD_API_H

#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

/* Of the structs and functions below. Increment it when any of them changes. */
#define FASTGRAD_API_VERSION 1

enum fastgrad_code {
    FASTGRAD_CONSTANT = 0, /* families of laws */
    FASTGRAD_NORMAL = 1,
    FASTGRAD_UNIFORM = 2,
    FASTGRAD_CENTERED = 3,
    FASTGRAD_ORTHOGONAL = 4,
    FASTGRAD_SIGMOID = 0, /* nonlinearities; chains have the sigmoid alone */
    FASTGRAD_TANH = 1,
    FASTGRAD_RELU = 2,
    FASTGRAD_LINEAR = 3,
    FASTGRAD_SQUARED = 0, /* losses */
    FASTGRAD_CROSS_ENTROPY = 1
};

enum fastgrad_status {
    FASTGRAD_OK = 0,
    FASTGRAD_NOT_FINITE = 1, /* some weight or bias; the results mean nothing */
    FASTGRAD_NO_MEMORY = 2,
    FASTGRAD_NO_KERNEL = 3 /* for the nonlinearity of the job */
};

enum fastgrad_stage { FASTGRAD_GUESS = 0, FASTGRAD_FORWARD = 1, FASTGRAD_ADJOINTS = 2, FASTGRAD_BACKWARD = 3 };

/* value = location + scale * variate; a constant is its location; centered biases are such that units rest. */
typedef struct fastgrad_law {
    int family;
    double location, scale;
} fastgrad_law;

/* value = mantissa * 2^exponent, with 1/2 <= |mantissa| < 1, or 0 and 0. */
typedef struct fastgrad_scaled {
    double* mantissa;
    int64_t* exponent;
} fastgrad_scaled;

/* The fields that jobs have in Python, as lists: structs are made of them here, and bindings.cpp reads them by name. */
/* clang-format off */
/* The sizes of the job's arrays, and the slice of a call: members start to stop - 1. */
#define FASTGRAD_SLICE_FIELDS(FIELD) FIELD(int64_t, depth) FIELD(int64_t, ensemble) FIELD(int64_t, start) FIELD(int64_t, stop)
/* The page of a call too, links or steps first to last - 1; `row` is that of the first of the `record` recorded links or
 * steps that is not below `first`. */
#define FASTGRAD_PAGE_FIELDS(FIELD)                                                                                    \
    FASTGRAD_SLICE_FIELDS(FIELD)                                                                                       \
    FIELD(int64_t, first) FIELD(int64_t, last) FIELD(int64_t, record) FIELD(int64_t, row)
#define FASTGRAD_BACKPROP_FIELDS(FIELD)                                                                                \
    FIELD(const double*, weight) FIELD(const double*, bias) FIELD(int, nonlinearity) FIELD(const double*, x)           \
    FIELD(const double*, cotangent) FIELD(double*, output) FIELD(fastgrad_scaled, grad_weight)                         \
    FIELD(fastgrad_scaled, grad_bias) FIELD(fastgrad_scaled, grad_x)
#define FASTGRAD_SEGMENTS_FIELDS(FIELD)                                                                                \
    FIELD(double*, activation) FIELD(fastgrad_scaled, scaled) FIELD(double*, end_activation)                           \
    FIELD(fastgrad_scaled, end_scaled) FIELD(fastgrad_scaled, product) FIELD(fastgrad_scaled, adjoint)
#define FASTGRAD_STATE_FIELDS(FIELD)                                                                                   \
    FIELD(double*, activation) FIELD(fastgrad_scaled, scaled) FIELD(fastgrad_scaled, product_before)                   \
    FIELD(fastgrad_scaled, bound_before)
#define FASTGRAD_PROPAGATE_FIELDS(FIELD)                                                                               \
    FIELD(fastgrad_law, weight_law) FIELD(fastgrad_law, bias_law) FIELD(uint64_t, seed) FIELD(int, nonlinearity)       \
    FIELD(const int64_t*, recorded_links) FIELD(double*, weight) FIELD(fastgrad_scaled, input)                         \
    FIELD(fastgrad_scaled, slope) FIELD(fastgrad_scaled, product) FIELD(fastgrad_scaled, bound)
#define FASTGRAD_TRAIN_FIELDS(FIELD)                                                                                   \
    FIELD(double*, weight) FIELD(double*, bias) FIELD(int, nonlinearity) FIELD(const double*, x)                       \
    FIELD(const double*, target) FIELD(const double*, min_loss) FIELD(int, loss_code) FIELD(double, learning_rate)     \
    FIELD(double, clip_value) FIELD(double, clip_norm) FIELD(double, tolerance) FIELD(int64_t, steps)                  \
    FIELD(const int64_t*, recorded_steps) FIELD(double*, loss) FIELD(int64_t*, last_update)                            \
    FIELD(int64_t*, converged_at) FIELD(int64_t*, diverged_at)
#define FASTGRAD_LAYERS_FIELDS(FIELD)                                                                                  \
    FIELD(fastgrad_law, weight_law) FIELD(fastgrad_law, bias_law) FIELD(uint64_t, seed) FIELD(int, nonlinearity)       \
    FIELD(const int64_t*, recorded_layers) FIELD(fastgrad_scaled, length) FIELD(fastgrad_scaled, mean_activation)      \
    FIELD(double*, saturated) FIELD(double*, dead) FIELD(double*, correlation) FIELD(fastgrad_scaled, input_norm)      \
    FIELD(fastgrad_scaled, delta_norm) FIELD(fastgrad_scaled, adjoint_norm)
#define FASTGRAD_SCALEDVECTORS_FIELDS(FIELD)                                                                           \
    FIELD(double*, value) FIELD(int64_t*, exponent)
/* clang-format on */
#define FASTGRAD_DECLARE(type, name) type name;

typedef struct fastgrad_backprop_job {
    FASTGRAD_SLICE_FIELDS(FASTGRAD_DECLARE)
    FASTGRAD_BACKPROP_FIELDS(FASTGRAD_DECLARE)
} fastgrad_backprop_job;

typedef struct fastgrad_segments {
    FASTGRAD_SEGMENTS_FIELDS(FASTGRAD_DECLARE)
} fastgrad_segments;

/* A stage of one deep chain, member `chains.start`, over its segments first to last - 1. */
typedef struct fastgrad_segments_job {
    fastgrad_backprop_job chains;
    fastgrad_segments segments;
    int stage; /* a fastgrad_stage */
    int64_t first, last;
} fastgrad_segments_job;

typedef struct fastgrad_state {
    FASTGRAD_STATE_FIELDS(FASTGRAD_DECLARE)
} fastgrad_state;

typedef struct fastgrad_propagate_job {
    FASTGRAD_PAGE_FIELDS(FASTGRAD_DECLARE)
    FASTGRAD_PROPAGATE_FIELDS(FASTGRAD_DECLARE)
    fastgrad_state state;
} fastgrad_propagate_job;

typedef struct fastgrad_train_job {
    FASTGRAD_PAGE_FIELDS(FASTGRAD_DECLARE)
    FASTGRAD_TRAIN_FIELDS(FASTGRAD_DECLARE)
} fastgrad_train_job;

typedef struct fastgrad_scaled_vectors {
    FASTGRAD_SCALEDVECTORS_FIELDS(FASTGRAD_DECLARE)
    int64_t vectors;
} fastgrad_scaled_vectors;

typedef struct fastgrad_layers_job {
    FASTGRAD_PAGE_FIELDS(FASTGRAD_DECLARE)
    FASTGRAD_LAYERS_FIELDS(FASTGRAD_DECLARE)
    fastgrad_scaled_vectors state; /* activations, or adjoints */
    double* tape;                  /* (last - first, stop - start, width), or null where nothing is kept */
    int64_t width;
} fastgrad_layers_job;

/* Each returns a fastgrad_status. */
typedef struct fastgrad_api {
    int version;                 /* FASTGRAD_API_VERSION when it was compiled */
    int kernel_version;          /* of the bits of all results */
    const char* instruction_set; /* of the kernels */
    int (*backprop)(const fastgrad_backprop_job* job);
    int (*backprop_segments)(const fastgrad_segments_job* job);
    int (*propagate)(const fastgrad_propagate_job* job);
    int (*suffix_products)(const fastgrad_propagate_job* job);
    int (*train)(const fastgrad_train_job* job);
    int (*layers_forward)(const fastgrad_layers_job* job);
    int (*layers_backward)(const fastgrad_layers_job* job);
} fastgrad_api;

#ifdef __cplusplus
}
#endif
#endif
