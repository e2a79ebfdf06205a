// fastgrad for C++17 programs: the kernels, compiled into them for the instruction set of the compiler's flags (-mavx2,
// -march=native), with the same bits on each. The flags that keep the bits come from
//
//     python -m fastgrad --cflags          pkg-config --cflags fastgrad          target_link_libraries(... fastgrad::fastgrad)
//
// Functions and structs of the header are those of the file that includes it: files with different flags can be linked.
#pragma once

#if !defined(__GNUC__) && !defined(__clang__)
#error "fastgrad: the kernels are written in the vector extensions of GCC and Clang; on Windows that is clang-cl"
#endif
#if defined(__FAST_MATH__)
#error "fastgrad: -ffast-math changes the bits of every result; compile without it"
#endif
#if !defined(FASTGRAD_STRICT)
#error "fastgrad: the flags that keep the bits are missing; add what `python -m fastgrad --cflags` prints"
#endif

#include <cmath>
#include <cstdint>
#include <new>
#include <stdexcept>
#include <string>
#include <utility>
#include <vector>

#include "api.h"

#if defined(__x86_64__)
#include <immintrin.h>
#endif

#define FASTGRAD_HEADER_ONLY
#if defined(__AVX512F__) && defined(__AVX512DQ__)
#define FASTGRAD_ISA avx512
#define FASTGRAD_VECTOR_LANES 8
#elif defined(__AVX2__)
#define FASTGRAD_ISA avx2
#define FASTGRAD_VECTOR_LANES 4
#else
#define FASTGRAD_ISA baseline
#define FASTGRAD_VECTOR_LANES 2
#endif

namespace fastgrad {
namespace FASTGRAD_ISA {
static inline bool runs_here() { return true; }
}  // namespace FASTGRAD_ISA
}  // namespace fastgrad

#if __has_include("instruction_set.h")  // as they are installed, side by side
#include "instruction_set.h"
#else
#include "../../instruction_set.h"
#endif

namespace fastgrad {

// mantissa * 2^exponent with 1/2 <= |mantissa| < 1, or 0 and 0.
struct Number {
    double mantissa;
    int64_t exponent;

    // The nearest double: infinite or 0 where none holds it.
    double to_double() const {
        return std::ldexp(mantissa, exponent > 5000 ? 5000 : exponent < -5000 ? -5000 : static_cast<int>(exponent));
    }
    // log10 of the magnitude; -inf for 0.
    double log10() const { return std::log10(std::fabs(mantissa)) + static_cast<double>(exponent) * std::log10(2.0); }
};

struct Numbers {
    std::vector<double> mantissa;
    std::vector<int64_t> exponent;

    explicit Numbers(int64_t size) : mantissa(static_cast<size_t>(size)), exponent(static_cast<size_t>(size)) {}
    Number operator[](int64_t i) const { return {mantissa[static_cast<size_t>(i)], exponent[static_cast<size_t>(i)]}; }
    fastgrad_scaled arrays() { return {mantissa.data(), exponent.data()}; }
};

// Gradients of chains. Those of link l (from 0) of a member lie at [l * ensemble + member].
struct Gradients {
    int64_t depth, ensemble;
    std::vector<double> output;  // (ensemble)         o_L
    Numbers weight, bias;        // (depth, ensemble)
    Numbers x;                   // (ensemble)

    Gradients(int64_t links, int64_t members)
        : depth(links),
          ensemble(members),
          output(static_cast<size_t>(members)),
          weight(links * members),
          bias(links * members),
          x(members) {}
};

// The kernels: see api.h.
static inline const fastgrad_api& kernels() { return FASTGRAD_ISA::instruction_set.api; }

// Fills the gradients of given chains: o_l = sigmoid(w_l o_{l-1} + b_l), and cotangent = dloss/do_L.
//
// weight, bias    (depth, ensemble)  links first
// x, cotangent    (ensemble)
//
// Throws std::invalid_argument where a weight or bias is not finite, and std::bad_alloc.
static inline void backprop(const double* weight, const double* bias, const double* x, const double* cotangent,
                            Gradients& out) {
    fastgrad_backprop_job job{};
    job.depth = out.depth, job.ensemble = job.stop = out.ensemble;
    job.weight = weight, job.bias = bias, job.nonlinearity = SIGMOID, job.x = x, job.cotangent = cotangent;
    job.output = out.output.data();
    job.grad_weight = out.weight.arrays(), job.grad_bias = out.bias.arrays(), job.grad_x = out.x.arrays();
    const int status = kernels().backprop(&job);
    if (status == NO_MEMORY) throw std::bad_alloc();
    if (status != OK) throw std::invalid_argument("weight or bias: expected finite numbers");
}

// The same for vectors: as many members as inputs. Throws std::invalid_argument where their sizes do not go together.
static inline Gradients backprop(const std::vector<double>& weight, const std::vector<double>& bias,
                                 const std::vector<double>& x, const std::vector<double>& cotangent) {
    const size_t ensemble = x.size();
    if (ensemble == 0 || cotangent.size() != ensemble)
        throw std::invalid_argument("cotangent: expected one for each of " + std::to_string(ensemble) +
                                    " inputs, got " + std::to_string(cotangent.size()));
    if (weight.empty() || weight.size() % ensemble != 0 || bias.size() != weight.size())
        throw std::invalid_argument("weight, bias: expected as many of both, a multiple of " +
                                    std::to_string(ensemble) + ", got " + std::to_string(weight.size()) + " and " +
                                    std::to_string(bias.size()));
    Gradients out(static_cast<int64_t>(weight.size() / ensemble), static_cast<int64_t>(ensemble));
    backprop(weight.data(), bias.data(), x.data(), cotangent.data(), out);
    return out;
}

}  // namespace fastgrad
