// Lanes on their way forward, nothing kept: what backprop, where it looks for the start of a stretch, and propagate have
// in common. The lanes are chains, or segments of one chain.
#pragma once

#include "nonlinearity.h"

namespace fastgrad {
namespace FASTGRAD_ISA {

// Lanes on their way forward: the state o, and the product of w sigmoid' since the stretch began. Nothing is kept.
// With centered biases the state is the offset d = o - 1/2: see fastgrad/kernels/contract.py.
struct ForwardState {
    Floats activation[VECTORS];
    Scaled product[VECTORS];
    Scaled scaled[VECTORS];  // the activation, after a link that took the general path; or a tiny offset
    Scaled bound[VECTORS];   // the product of |w| / 4, which propagate alone looks at
    uint32_t extended;           // bit j where product j has a zero, or nears the smallest exponent
    uint32_t extended_bound;     // and bound j
};

FASTGRAD_INLINE void begin_product(ForwardState& front) {
    for (int j = 0; j < VECTORS; ++j) front.product[j] = one();
    front.extended = 0;
}

// One link with centered biases where every offset is below TINY_OFFSET: they are multiplied by w / 4, and the slope is 1/4.
// The bits are those of the general path. False, and nothing done, where that does not hold.
template <class Phi, int N>
FASTGRAD_INLINE bool advance_tiny(ForwardState& front, const double* weight) {
    Mask is_tiny = ALL;
    for (int j = 0; j < N; ++j) {
        const Floats size = abs(load(weight + j * VECTOR_LANES));
        is_tiny = at_most(at_least(is_tiny, size, IN_RANGE_MIN), size, IN_RANGE_MAX);
        is_tiny = at_most(is_tiny, abs(front.activation[j]), 0x1.fffffffffffffp-901);  // below TINY_OFFSET
    }
    if (!all(is_tiny) || front.extended) return false;
    FASTGRAD_ROW(N) {
        const Floats w = load(weight + j * VECTOR_LANES);
        const Scaled z = renormalize(front.scaled[j].mantissa * w, front.scaled[j].exponent);
        front.activation[j] = Phi::SLOPE * stand_in(z);
        const Ints tiny = abs(front.activation[j]) < TINY_OFFSET;
        front.scaled[j] = {select(tiny, z.mantissa, broadcast(0.5)),
                           select(tiny & (z.mantissa != 0.0), z.exponent + Phi::SLOPE_EXPONENT, Ints{})};
        front.product[j] = renormalize_in_range((front.product[j].mantissa * Phi::SLOPE) * w, front.product[j].exponent);
    }
    return true;
}

// `end` links of N vectors forward. With `scaled` the last one takes the general path, which gives the scaled activation too.
// CENTERED: every bias is -w/2, and the activations are offsets.
template <class Phi, bool PRODUCT, int N, bool CENTERED = false>
static void advance_rows(ForwardState& front, const double* weights, const double* biases, int64_t stride, int64_t end,
                         bool scaled) {
    int64_t step = 0;
    for (; step < end; ++step) {
        Floats activation[N];
        Scaled product[N];
        FASTGRAD_ROW(N) {
            activation[j] = front.activation[j];
            product[j] = front.product[j];
        }
        for (; step < end - scaled && !(PRODUCT && front.extended); ++step) {
            const double* const weight = weights + step * stride;
            const double* const bias = biases + step * stride;
            Floats w[N], z[N];
            Mask is_in_range = ALL;
            FASTGRAD_ROW(N) {
                if (stride != BLOCK) {  // a copy is in the cache already
                    prefetch(weight + PREFETCH_LINKS * stride + j * VECTOR_LANES);
                    prefetch(bias + PREFETCH_LINKS * stride + j * VECTOR_LANES);
                }
                w[j] = load(weight + j * VECTOR_LANES);
                z[j] = CENTERED ? w[j] * activation[j] : w[j] * activation[j] + load(bias + j * VECTOR_LANES);
                if (CENTERED) is_in_range = zero_or_at_least(is_in_range, abs(activation[j]), IN_RANGE_MIN);
                is_in_range = PRODUCT ? in_range<Phi>(is_in_range, z[j], w[j]) : Phi::covers(is_in_range, z[j]);
            }
            if (!all(is_in_range)) break;
            FASTGRAD_ROW(N) {
                const Values next = CENTERED ? Phi::offset_in_range(z[j]) : Phi::in_range(z[j]);
                activation[j] = next.activation;
                if (PRODUCT)
                    product[j] =
                        renormalize_in_range((product[j].mantissa * next.derivative) * w[j], product[j].exponent);
            }
        }
        FASTGRAD_ROW(N) {
            front.activation[j] = activation[j];
            front.product[j] = product[j];
        }
        if (step == end) break;
        if (PRODUCT && CENTERED && advance_tiny<Phi, N>(front, weights + step * stride)) continue;
        for (int j = 0; j < N; ++j) {
            const Floats w = load(weights + step * stride + j * VECTOR_LANES);
            ExtendedValues next;
            if (CENTERED) {
                const Preactivation at = preactivation(w, activation[j], front.scaled[j]);
                next = Phi::extended(at.z);
                front.activation[j] = Phi::offset(at.z);
                const Ints tiny = abs(front.activation[j]) < TINY_OFFSET;  // and then d is SLOPE z
                front.scaled[j] = renormalize(select(tiny, at.scaled.mantissa, next.mantissa),
                                            select(tiny, at.scaled.exponent + Phi::SLOPE_EXPONENT, next.exponent));
            } else {
                next = Phi::extended(w * activation[j] + load(biases + step * stride + j * VECTOR_LANES));
                front.activation[j] = next.activation;
                front.scaled[j] = renormalize(next.mantissa, next.exponent);
            }
            if (!PRODUCT) continue;
            const Scaled factor = to_scaled(w), delta = times(product[j], next.derivative, next.derivative_exponent);
            front.product[j] = times(delta, factor.mantissa, factor.exponent);
            front.extended = (front.extended & ~(1u << j)) | (uint32_t)needs_extended(front.product[j]) << j;
        }
    }
}

}  // namespace FASTGRAD_ISA
}  // namespace fastgrad
