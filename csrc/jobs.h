// The kernels' arguments, and the table of instruction sets. Plain data only: this is shared by code for different
// instruction sets. Shapes, units and formulas: fastgrad/kernels/__init__.py.
#pragma once

#include <cstddef>
#include <cstdint>

// Kernels for newer processors are compiled by target attributes, which GCC and Clang have; clang-cl defines no __GNUC__.
#if defined(__x86_64__) && (defined(__GNUC__) || defined(__clang__))
#define FASTGRAD_X86_64_SETS
#endif

namespace fastgrad {

struct BackpropJob {
    const double *weight, *bias;                        // (depth, ensemble)
    const double *x, *cotangent;                        // (ensemble,)
    double* output;                                     // (ensemble,)
    double* grad_weight_mantissa;                       // (depth, ensemble)
    int64_t* grad_weight_exponent;
    double* grad_bias_mantissa;                         // (depth, ensemble)
    int64_t* grad_bias_exponent;
    double* grad_x_mantissa;                            // (ensemble,)
    int64_t* grad_x_exponent;
    int64_t depth, ensemble, start, stop;               // members start to stop - 1 are run
};

// value = location + scale * variate; a constant is its location; centered is -weight / 2.
enum Family : int { CONSTANT = 0, NORMAL = 1, UNIFORM = 2, CENTERED = 3 };

struct Law {
    int family;
    double location, scale;
};

struct ScaledPointer {
    double* mantissa;
    int64_t* exponent;
};

struct GrowJob {
    Law weight_law, bias_law;
    uint64_t seed;
    int64_t first, last;                                // links first to last - 1, counted from 1
    const int64_t* marks;                               // (record,) links to record, ascending
    int64_t record, row;                                // row: the first mark that is not below `first`
    double* activation;                                 // (ensemble,) state: o before the call, and after it
    ScaledPointer scaled;                               // (ensemble,) state: the same as mantissa and exponent
    double* weight;                                     // (record, ensemble) w at each mark
    ScaledPointer input, derivative;                    // (record, ensemble) o_{l-1} and sigmoid' at each mark
    ScaledPointer gap, bound;                           // (record, ensemble) products between a mark and the next one
    ScaledPointer carry_gap, carry_bound;               // (ensemble,) products before the first mark of the call
    int64_t ensemble, start, stop;                      // members start to stop - 1 are run
};

enum Loss : int { SQUARED = 0, CROSS_ENTROPY = 1 };

struct TrainJob {
    double *weight, *bias;                              // (depth, ensemble) trained in place
    const double *x, *target, *least_loss;              // (ensemble,)
    int loss;
    double learning_rate, clip_value, clip_norm;        // infinite: no clipping
    double tolerance;
    int64_t first, last, steps;                         // first to last - 1 are run; after `steps` the loss is looked at, no more
    const int64_t* marks;                               // (record,) steps to record, ascending
    int64_t record, row;                                // row: the first mark that is not below `first`
    double* loss_at;                                    // (record, ensemble) the loss after so many steps
    int64_t *moved, *under, *left;                      // (ensemble,) state: see the contract
    int64_t depth, ensemble, start, stop;               // members start to stop - 1 are run
};

enum Outcome { DONE, NOT_FINITE, NO_MEMORY };  // NOT_FINITE: some weight or bias; the results mean nothing

struct InstructionSet {
    const char* name;
    bool (*runs_here)();
    Outcome (*backprop)(const BackpropJob&);
    Outcome (*grow)(const GrowJob&);
    Outcome (*train)(const TrainJob&);
};

extern const InstructionSet baseline;
#if defined(FASTGRAD_X86_64_SETS)
extern const InstructionSet avx2, avx512;
#endif

}  // namespace fastgrad
