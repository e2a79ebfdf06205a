// grow: drawn chains, streamed forward in O(record) memory. The contract and the formulas are in
// fastgrad/kernels/__init__.py; the stages and names are those of reference.py and jit.py.
#pragma once

#include <algorithm>
#include <cmath>
#include <cstdint>

#include "draws.h"
#include "scaled.h"

namespace fastgrad {

// marks                           (record,) the recorded links, counted from 1, ascending, the first is 1
// activation                      (ensemble,) state: o_{link-1}, before the call and after it
// scaled                          mantissa and exponent of the same
// weight                          (record, ensemble) w at each mark
// input, derivative, gap, bound   mantissa and exponent of (record, ensemble): o_{l-1} and sigmoid'(z_l) at each mark,
//                                 the products of w sigmoid' and of |w|/4 over the links between it and the next
// Members start to stop - 1 of links first to last - 1 are run.
inline void grow(Law weight_law, Law bias_law, uint64_t seed, int64_t first, int64_t last, const int64_t* marks,
                 int64_t record, double* activation, double* scaled_mantissa, int64_t* scaled_exponent, double* weight,
                 double* input_mantissa, int64_t* input_exponent, double* derivative_mantissa,
                 int64_t* derivative_exponent, double* gap_mantissa, int64_t* gap_exponent, double* bound_mantissa,
                 int64_t* bound_exponent, int64_t ensemble, int64_t start, int64_t stop) {
    constexpr int64_t BLOCK = 64;
    const int64_t row_before = std::lower_bound(marks, marks + record, first) - marks - 1;
    for (int64_t begin = start; begin < stop; begin += BLOCK) {
        const int64_t end = std::min(begin + BLOCK, stop);
        int64_t row = row_before;
        for (int64_t link = first; link < last; ++link) {
            const bool marked = row + 1 < record && marks[row + 1] == link;
            if (marked) ++row;
            for (int64_t member = begin; member < end; ++member) {
                const int64_t cell = row * ensemble + member;
                const Pair drawn = draw(weight_law, bias_law, seed, link, static_cast<uint32_t>(member));
                const double w = drawn.first;
                const Link next = sigmoid(w * activation[member] + drawn.second);
                if (marked) {
                    const Scaled derivative = normalize(next.derivative, next.derivative_exponent);
                    const Scaled before = normalize(scaled_mantissa[member], scaled_exponent[member]);
                    weight[cell] = w;
                    input_mantissa[cell] = before.mantissa;
                    input_exponent[cell] = before.exponent;
                    derivative_mantissa[cell] = derivative.mantissa;
                    derivative_exponent[cell] = derivative.exponent;
                    gap_mantissa[cell] = bound_mantissa[cell] = ONE.mantissa;
                    gap_exponent[cell] = bound_exponent[cell] = ONE.exponent;
                } else {
                    const Scaled factor = split(w);
                    const Scaled delta = times({gap_mantissa[cell], gap_exponent[cell]}, next.derivative,
                                               next.derivative_exponent);
                    const Scaled gap = times(delta, factor.mantissa, factor.exponent);
                    const Scaled bound = times({bound_mantissa[cell], bound_exponent[cell]},
                                               std::fabs(factor.mantissa), factor.exponent - 2);
                    gap_mantissa[cell] = gap.mantissa;
                    gap_exponent[cell] = gap.exponent;
                    bound_mantissa[cell] = bound.mantissa;
                    bound_exponent[cell] = bound.exponent;
                }
                activation[member] = next.activation;
                scaled_mantissa[member] = next.mantissa;
                scaled_exponent[member] = next.exponent;
            }
        }
    }
}

}  // namespace fastgrad
