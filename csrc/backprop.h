// backprop: the gradients of given chains. The contract and the formulas are in fastgrad/kernels/__init__.py; the
// stages and names are those of reference.py and jit.py.
#pragma once

#include <algorithm>
#include <cstdint>

#include "scaled.h"

namespace fastgrad {

// weight, bias                    (depth, ensemble), links first
// x, cotangent, output            (ensemble,)
// grad_weight, grad_bias          mantissa and exponent of (depth, ensemble)
// grad_x                          mantissa and exponent of (ensemble,)
// Members start to stop - 1 are run. Between the two passes the gradients' memory holds what reverse mode needs:
// grad_weight the scaled o_{l-1}, grad_bias the scaled sigmoid'(z_l); nothing else grows with depth.
inline void backprop(const double* weight, const double* bias, const double* x, const double* cotangent, double* output,
                     double* grad_weight_mantissa, int64_t* grad_weight_exponent, double* grad_bias_mantissa,
                     int64_t* grad_bias_exponent, double* grad_x_mantissa, int64_t* grad_x_exponent, int64_t depth,
                     int64_t ensemble, int64_t start, int64_t stop) {
    constexpr int64_t BLOCK = 64;  // chains side by side: their state stays in the first-level cache
    double activation[BLOCK];
    Scaled scaled[BLOCK];  // the activation again, where a double may have underflowed; then the adjoint
    for (int64_t begin = start; begin < stop; begin += BLOCK) {
        const int64_t lanes = std::min(BLOCK, stop - begin);

        // forward: z_l = w_l o_{l-1} + b_l,  o_l = sigmoid(z_l)
        for (int64_t lane = 0; lane < lanes; ++lane) {
            activation[lane] = x[begin + lane];
            scaled[lane] = split(x[begin + lane]);
        }
        for (int64_t link = 0; link < depth; ++link) {
            const int64_t row = link * ensemble + begin;
            for (int64_t lane = 0; lane < lanes; ++lane) {
                const Link next = sigmoid(weight[row + lane] * activation[lane] + bias[row + lane]);
                grad_weight_mantissa[row + lane] = scaled[lane].mantissa;
                grad_weight_exponent[row + lane] = scaled[lane].exponent;
                grad_bias_mantissa[row + lane] = next.derivative;
                grad_bias_exponent[row + lane] = next.derivative_exponent;
                activation[lane] = next.activation;
                scaled[lane] = {next.mantissa, next.exponent};
            }
        }

        // backward: delta_l = a_l sigmoid'(z_l),  a_{l-1} = delta_l w_l
        for (int64_t lane = 0; lane < lanes; ++lane) {
            output[begin + lane] = activation[lane];
            scaled[lane] = split(cotangent[begin + lane]);
        }
        for (int64_t link = depth - 1; link >= 0; --link) {
            const int64_t row = link * ensemble + begin;
            for (int64_t lane = 0; lane < lanes; ++lane) {
                const Scaled delta = times(scaled[lane], grad_bias_mantissa[row + lane], grad_bias_exponent[row + lane]);
                const Scaled grad_weight =
                    times(delta, grad_weight_mantissa[row + lane], grad_weight_exponent[row + lane]);
                const Scaled factor = split(weight[row + lane]);
                grad_bias_mantissa[row + lane] = delta.mantissa;
                grad_bias_exponent[row + lane] = delta.exponent;
                grad_weight_mantissa[row + lane] = grad_weight.mantissa;
                grad_weight_exponent[row + lane] = grad_weight.exponent;
                scaled[lane] = times(delta, factor.mantissa, factor.exponent);
            }
        }
        for (int64_t lane = 0; lane < lanes; ++lane) {
            grad_x_mantissa[begin + lane] = scaled[lane].mantissa;
            grad_x_exponent[begin + lane] = scaled[lane].exponent;
        }
    }
}

}  // namespace fastgrad
