// The jobs of fastgrad/kernels/contract.py as the kernels see them, in its names, and the table of instruction sets.
// Plain data only: this is shared by code for different instruction sets.
//
// Five words for parts of a job, here and in fastgrad/:
//   slice    members of a call: `start` to `stop` - 1. Threads take slices.
//   page     links, or steps of training, of a call: `first` to `last` - 1.
//   block    members, or segments of one chain, that a kernel runs side by side: BLOCK. Each is a lane; a vector holds
//            VECTOR_LANES of them.
//   segment  links of a lane that are run in one go, forward or back.
//   tile     links of a block that are copied to the first-level cache: TILE.
#pragma once

#include <cstddef>

#include "constants.h"

// Kernels for newer processors are compiled by target attributes, which GCC and Clang have; clang-cl does not define
// __GNUC__.
#if defined(__x86_64__) && (defined(__GNUC__) || defined(__clang__))
#define FASTGRAD_X86_64_SETS
#endif

namespace fastgrad {

// value = location + scale * variate; a constant is its location; centered biases are such that units rest.
struct Law {
    int family;  // of enum Family
    double location, scale;
};

// value = mantissa * 2^exponent
struct ScaledArrays {
    double* mantissa;
    int64_t* exponent;
};

// The fields that jobs have in Python, as lists: structs are made of them here, and bindings.cpp reads them by name.
// clang-format off
#define FASTGRAD_BACKPROP_FIELDS(FIELD)                                                                                \
    FIELD(const double*, weight) FIELD(const double*, bias) FIELD(int, nonlinearity) FIELD(const double*, x)           \
    FIELD(const double*, cotangent) FIELD(double*, output) FIELD(ScaledArrays, grad_weight)                            \
    FIELD(ScaledArrays, grad_bias) FIELD(ScaledArrays, grad_x)
#define FASTGRAD_STATE_FIELDS(FIELD)                                                                                   \
    FIELD(double*, activation) FIELD(ScaledArrays, scaled) FIELD(ScaledArrays, product_before)                         \
    FIELD(ScaledArrays, bound_before)
#define FASTGRAD_PROPAGATE_FIELDS(FIELD)                                                                               \
    FIELD(Law, weight_law) FIELD(Law, bias_law) FIELD(uint64_t, seed) FIELD(int, nonlinearity)                         \
    FIELD(const int64_t*, recorded_links) FIELD(double*, weight) FIELD(ScaledArrays, input)                            \
    FIELD(ScaledArrays, slope) FIELD(ScaledArrays, product) FIELD(ScaledArrays, bound)
#define FASTGRAD_TRAIN_FIELDS(FIELD)                                                                                   \
    FIELD(double*, weight) FIELD(double*, bias) FIELD(int, nonlinearity) FIELD(const double*, x)                       \
    FIELD(const double*, target) FIELD(const double*, min_loss) FIELD(int, loss_code) FIELD(double, learning_rate)     \
    FIELD(double, clip_value) FIELD(double, clip_norm) FIELD(double, tolerance) FIELD(int64_t, steps)                  \
    FIELD(const int64_t*, recorded_steps) FIELD(double*, loss) FIELD(int64_t*, last_update)                            \
    FIELD(int64_t*, converged_at) FIELD(int64_t*, diverged_at)
#define FASTGRAD_LAYERS_FIELDS(FIELD)                                                                                  \
    FIELD(Law, weight_law) FIELD(Law, bias_law) FIELD(uint64_t, seed) FIELD(int, nonlinearity)                         \
    FIELD(const int64_t*, recorded_layers) FIELD(ScaledArrays, length) FIELD(ScaledArrays, mean_activation)            \
    FIELD(double*, saturated) FIELD(double*, dead) FIELD(double*, correlation) FIELD(ScaledArrays, input_norm)         \
    FIELD(ScaledArrays, delta_norm) FIELD(ScaledArrays, adjoint_norm)
#define FASTGRAD_SCALEDVECTORS_FIELDS(FIELD) FIELD(double*, value) FIELD(int64_t*, exponent)
// clang-format on
#define FASTGRAD_DECLARE(type, name) type name;

// Sizes of the job's arrays, and the slice of a call.
struct Slice {
    int64_t depth, ensemble, start, stop;
};

// The page of a call too; `row` is that of the first of the `record` recorded links or steps that is not below `first`.
struct Page : Slice {
    int64_t first, last, record, row;
};

struct State {
    FASTGRAD_STATE_FIELDS(FASTGRAD_DECLARE)
};

struct BackpropJob : Slice {
    FASTGRAD_BACKPROP_FIELDS(FASTGRAD_DECLARE)
};

struct PropagateJob : Page {
    FASTGRAD_PROPAGATE_FIELDS(FASTGRAD_DECLARE)
    State state;
};

struct TrainJob : Page {
    FASTGRAD_TRAIN_FIELDS(FASTGRAD_DECLARE)
};

struct ScaledVectors {
    FASTGRAD_SCALEDVECTORS_FIELDS(FASTGRAD_DECLARE)
    int64_t vectors;
};

struct LayersJob : Page {
    FASTGRAD_LAYERS_FIELDS(FASTGRAD_DECLARE)
    ScaledVectors state;  // activations, or adjoints
    double* tape;         // (last - first, stop - start, width), or null where nothing is kept
    int64_t width;
};

// NOT_FINITE: some weight or bias; the results mean nothing. NO_KERNEL: for a job's nonlinearity.
enum Status { OK, NOT_FINITE, NO_MEMORY, NO_KERNEL };

struct InstructionSet {
    const char* name;
    bool (*runs_here)();
    Status (*backprop)(const BackpropJob&);
    Status (*propagate)(const PropagateJob&);
    Status (*train)(const TrainJob&);
    Status (*layers_forward)(const LayersJob&);
    Status (*layers_backward)(const LayersJob&);
};

namespace baseline {
extern const InstructionSet instruction_set;
}
#if defined(FASTGRAD_X86_64_SETS)
namespace avx2 {
extern const InstructionSet instruction_set;
}
namespace avx512 {
extern const InstructionSet instruction_set;
}
#endif

}  // namespace fastgrad
