// The jobs of fastgrad/kernels/contract.py as the kernels see them, in its names, and the table of instruction sets.
// Plain data only: this is shared by code for different instruction sets.
#pragma once

#include <cstddef>
#include <cstdint>

// Kernels for newer processors are compiled by target attributes, which GCC and Clang have; clang-cl defines no __GNUC__.
#if defined(__x86_64__) && (defined(__GNUC__) || defined(__clang__))
#define FASTGRAD_X86_64_SETS
#endif

namespace fastgrad {

// value = mantissa * 2^exponent
struct ScaledArrays {
    double* mantissa;
    int64_t* exponent;
};

struct BackpropJob {
    const double *weight, *bias;                        // (depth, ensemble)
    const double *x, *cotangent;                        // (ensemble,)
    double* output;                                     // (ensemble,)
    ScaledArrays grad_weight, grad_bias;                // (depth, ensemble)
    ScaledArrays grad_x;                                // (ensemble,)
    // of the call
    int64_t depth, ensemble, start, stop;               // members start to stop - 1 are run
};

// value = location + scale * variate; a constant is its location; centered is -weight / 2.
enum Family : int { CONSTANT = 0, NORMAL = 1, UNIFORM = 2, CENTERED = 3 };

struct Law {
    int family;
    double location, scale;
};

struct State {
    double* activation;                                 // (ensemble,)
    ScaledArrays scaled;                                // (ensemble,)
    ScaledArrays product_before, bound_before;          // (ensemble,)
};

struct PropagateJob {
    Law weight_law, bias_law;
    uint64_t seed;
    const int64_t* recorded_links;                      // (record,)
    double* weight;                                     // (record, ensemble)
    ScaledArrays input, slope;                          // (record, ensemble)
    ScaledArrays product, bound;                        // (record, ensemble)
    // of the call
    State state;
    int64_t first, last;                                // links first to last - 1 are run
    int64_t record, row;                                // row: of the first recorded link that is not below `first`
    int64_t ensemble, start, stop;
};

enum Loss : int { SQUARED = 0, CROSS_ENTROPY = 1 };

struct TrainJob {
    double *weight, *bias;                              // (depth, ensemble)
    const double *x, *target, *min_loss;                // (ensemble,)
    int loss_code;
    double learning_rate, clip_value, clip_norm, tolerance;
    int64_t steps;
    const int64_t* recorded_steps;                      // (record,)
    double* loss;                                       // (record, ensemble)
    int64_t *last_update, *converged_at, *diverged_at;  // (ensemble,)
    // of the call
    int64_t first, last;                                // steps first to last - 1 are taken
    int64_t record, row;                                // row: of the first recorded step that is not below `first`
    int64_t depth, ensemble, start, stop;
};

enum Outcome { DONE, NOT_FINITE, NO_MEMORY };  // NOT_FINITE: some weight or bias; the results mean nothing

struct InstructionSet {
    const char* name;
    bool (*runs_here)();
    Outcome (*backprop)(const BackpropJob&);
    Outcome (*propagate)(const PropagateJob&);
    Outcome (*train)(const TrainJob&);
};

extern const InstructionSet baseline;
#if defined(FASTGRAD_X86_64_SETS)
extern const InstructionSet avx2, avx512;
#endif

}  // namespace fastgrad
