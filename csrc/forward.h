// The forward pass without a tape. `backprop` uses it to find the state at each segment's start, `propagate` for
// everything.
#pragma once

#include "nonlinearity.h"

namespace fastgrad {
namespace FASTGRAD_ISA {

// The state o of a block's lanes, and products over the links since the state was begun. With centered biases the state
// is the offset d = o - phi(0): see fastgrad/kernels/contract.py.
struct ForwardState {
    Floats activation[VECTORS];
    Scaled product[VECTORS];  // of w phi'
    Scaled scaled[VECTORS];   // the activation, after a link that was run in extended range; or a tiny offset
    Scaled bound[VECTORS];    // product of |w| MAX_SLOPE: for `propagate` alone
    uint32_t extended;        // bit j where product j needs extended range
    uint32_t extended_bound;  // bit j where bound j does
};

FASTGRAD_INLINE void begin_product(ForwardState& forward) {
    for (int j = 0; j < VECTORS; ++j) forward.product[j] = one();
    forward.extended = 0;
}

// phi(0) + d of an offset far below phi(0), which is nothing beside it, unless that is 0.
template <class Phi>
FASTGRAD_INLINE Scaled beside_rest(Scaled offset) {
    return Phi::REST == 0.0 ? offset : to_scaled(broadcast(Phi::REST));
}

// One link with centered biases where every offset is below TINY_OFFSET: it is multiplied by w MAX_SLOPE, and phi' is
// MAX_SLOPE. The bits are those of the general path. Returns false, and does nothing, where that does not hold.
//
// forward    the block's state      in, out
// weight     (block,)               in       w of the link
template <class Phi, int N>
FASTGRAD_INLINE bool advance_tiny(ForwardState& forward, const double* weight) {
    Mask is_tiny = ALL;
    for (int j = 0; j < N; ++j) {
        is_tiny = in_range(is_tiny, load(weight + j * VECTOR_LANES));
        is_tiny = at_most(is_tiny, abs(forward.activation[j]), 0x1.fffffffffffffp-901);  // below TINY_OFFSET
    }
    if (!all(is_tiny) || forward.extended) return false;
    FASTGRAD_ROW(N) {
        const Floats w = load(weight + j * VECTOR_LANES);
        const Scaled z = renormalize(forward.scaled[j].mantissa * w, forward.scaled[j].exponent);
        forward.activation[j] = Phi::MAX_SLOPE * stand_in(z);
        const Ints tiny = abs(forward.activation[j]) < TINY_OFFSET;
        const Scaled offset = {z.mantissa, select(z.mantissa != 0.0, z.exponent + Phi::MAX_SLOPE_EXPONENT, Ints{})};
        forward.scaled[j] = select(tiny, offset, beside_rest<Phi>(offset));
        forward.product[j] =
            renormalize_in_range((forward.product[j].mantissa * Phi::MAX_SLOPE) * w, forward.product[j].exponent);
    }
    return true;
}

// `end` links of N vectors. With `scaled` the last one is run in extended range, which gives the scaled activation too.
// PRODUCT: products of w phi' are taken. CENTERED: every bias is -w phi(0), and the activations are offsets.
//
// forward    the block's state      in, out
// weights    (end, block)           in       w of the links, `stride` doubles from link to link
// biases     (end, block)           in       b, likewise
template <class Phi, bool PRODUCT, int N, bool CENTERED = false>
static void advance_rows(ForwardState& forward, const double* weights, const double* biases, int64_t stride,
                         int64_t end, bool scaled) {
    int64_t step = 0;
    for (; step < end; ++step) {
        Floats activation[N];
        Scaled product[N];
        FASTGRAD_ROW(N) {
            activation[j] = forward.activation[j];
            product[j] = forward.product[j];
        }
        for (; step < end - scaled && !(PRODUCT && forward.extended); ++step) {
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
            forward.activation[j] = activation[j];
            forward.product[j] = product[j];
        }
        if (step == end) break;
        if (PRODUCT && CENTERED && advance_tiny<Phi, N>(forward, weights + step * stride)) continue;
        for (int j = 0; j < N; ++j) {
            const Floats w = load(weights + step * stride + j * VECTOR_LANES);
            ExtendedValues next;
            if (CENTERED) {
                const Preactivation at = preactivation(w, activation[j], forward.scaled[j]);
                next = Phi::extended(at.z);
                forward.activation[j] = Phi::offset(at.z);
                const Ints tiny = abs(forward.activation[j]) < TINY_OFFSET;  // and then d is MAX_SLOPE z
                forward.scaled[j] =
                    renormalize(select(tiny, at.scaled.mantissa, next.mantissa),
                                select(tiny, at.scaled.exponent + Phi::MAX_SLOPE_EXPONENT, next.exponent));
            } else {
                next = Phi::extended(w * activation[j] + load(biases + step * stride + j * VECTOR_LANES));
                forward.activation[j] = next.activation;
                forward.scaled[j] = renormalize(next.mantissa, next.exponent);
            }
            if (!PRODUCT) continue;
            const Scaled delta = times(product[j], next.derivative, next.derivative_exponent);
            forward.product[j] = times(delta, to_scaled(w));
            forward.extended = (forward.extended & ~(1u << j)) | (uint32_t)needs_extended(forward.product[j]) << j;
        }
    }
}

}  // namespace FASTGRAD_ISA
}  // namespace fastgrad
