// train: gradient descent on chains. The contract and the formulas are in fastgrad/kernels/contract.py; the stages and
// names are those of reference.py and jit.py.
//
// A block of lanes is copied, and takes all the steps of the call before the next block: what it needs stays in the cache.
// A step is a stretch of backprop.h forward and back, the whole depth long; then every parameter moves.
#pragma once

#include "backprop.h"

namespace fastgrad {
namespace FASTGRAD_ISA {

// ln(1 + exp(-|z|)).
FASTGRAD_INLINE Floats softplus_rest(Floats z) {
    const Floats size = select(abs(z) < 1000.0, abs(z), broadcast(1000.0));  // where exp(-|z|) is 0
    const ExpArgument argument = reduce_exp_argument(size);
    const Quotient p = exp_reduced(argument.r);
    const Floats e = to_float(0.5 * (p.numerator / p.denominator), 1 - argument.k);
    const Ints large = e > 0.4;  // 1 + e = 2 (1 + f)
    return log_reduced(select(large, broadcast(1.0), Floats{}), select(large, 0.5 * (e - 1.0), e));
}

// -y ln o - (1 - y) ln(1 - o) for o = sigmoid(z).
FASTGRAD_INLINE Floats cross_entropy(Floats z, Floats y) {
    const Floats share = select(z < 0.0, y, 1.0 - y);
    return select(share == 0.0, Floats{}, share * abs(z)) + softplus_rest(z);  // z may be infinite
}

FASTGRAD_INLINE Ints exceeds(Scaled a, Scaled b) {
    return (a.mantissa != 0.0) & ((a.exponent > b.exponent) | ((a.exponent == b.exponent) & (a.mantissa > b.mantissa)));
}

// value * 4^exponent, a sum of squares.
struct Squares {
    Floats value;
    Ints exponent;
};

FASTGRAD_INLINE void add_square(Squares& sum, Scaled a) {
    const Ints higher = select(a.mantissa == 0.0, Ints{}, a.exponent - sum.exponent);
    const Ints up = higher > 0;
    const Ints distance = select(up, higher, -higher);
    const Floats lower = power_of_two(-2 * select(distance < 500, distance, broadcast((int64_t)500)));
    const Floats square = a.mantissa * a.mantissa;
    sum.value = select(up, sum.value * lower + square, sum.value + square * lower);
    sum.exponent = select(up, a.exponent, sum.exponent);
}

// How a gradient becomes a step.
struct Rule {
    Scaled rate, clip_value, clip_norm;
    bool clips_value, clips_norm;
};

FASTGRAD_INLINE Scaled clipped(const Rule& rule, Scaled gradient) {
    if (!rule.clips_value) return gradient;
    const Ints large = exceeds({abs(gradient.mantissa), gradient.exponent}, rule.clip_value);
    const Floats limit = select(gradient.mantissa < 0.0, -rule.clip_value.mantissa, rule.clip_value.mantissa);
    return {select(large, limit, gradient.mantissa), select(large, rule.clip_value.exponent, gradient.exponent)};
}

// A block of lanes: the packed parameters, what they become, and what backprop keeps and makes of each link.
struct TrainBlock {
    double *weight, *bias, *next_weight, *next_bias;
    int64_t *grad_weight_exponent, *grad_bias_exponent;
    TapedSegment at;
    Floats target[VECTORS], min_loss[VECTORS], loss[VECTORS];
    Ints last_update[VECTORS], converged_at[VECTORS], diverged_at[VECTORS];
};

FASTGRAD_INLINE Links links_of(const TrainBlock& block) {
    return {block.weight, block.bias, block.next_weight, block.grad_weight_exponent, block.next_bias, block.grad_bias_exponent, BLOCK};
}

// The loss of the parameters as they are, and what the way back begins with.
template <class Phi>
static void evaluate(const TrainJob& job, TrainBlock& block, LaneStates start) {
    TapedSegment none{};
    TapedSegment& at = block.at;
    at.links = links_of(block);
    start_stretch(at, start);
    const int64_t last = job.depth - 1;
    if (job.loss_code == SQUARED) {
        run_rows<Phi, true, false, false>(at, none, 0, job.depth);
    } else {
        run_rows<Phi, true, false, false>(at, none, 0, last);
        for (int j = 0; j < VECTORS; ++j) {
            const int64_t cell = last * BLOCK + j * VECTOR_LANES;
            const Floats z = load(block.weight + cell) * at.activation[j] + load(block.bias + cell);
            block.loss[j] = cross_entropy(z, block.target[j]);
        }
        run_rows<Phi, true, false, false>(at, none, last, job.depth);
    }
    for (int j = 0; j < VECTORS; ++j) {
        const Floats error = at.activation[j] - block.target[j];
        const Scaled adjoint = to_scaled(error);
        at.adjoint[j] = adjoint.mantissa;
        at.exponent[j] = adjoint.exponent;
        if (job.loss_code == SQUARED) {
            block.loss[j] = 0.5 * error * error;
        } else {  // delta_L = o_L - y: as if sigmoid' were 1
            store(at.tape.row + last * TAPE_DOUBLES + BLOCK + j * VECTOR_LANES, broadcast(1.0));
            store(at.tape.exponent + last * BLOCK + j * VECTOR_LANES, Ints{});
        }
    }
    mark_extended(at);
}

// Factors by which the gradients of a chain are multiplied, so that their norm is at most clip_norm.
FASTGRAD_INLINE Scaled norm_factor(const TrainJob& job, const Rule& rule, const TrainBlock& block, int j) {
    Squares sum{Floats{}, broadcast(EXPONENT_MIN)};
    for (int64_t cell = j * VECTOR_LANES; cell < job.depth * BLOCK; cell += BLOCK) {
        add_square(sum, clipped(rule, {load(block.next_weight + cell), load(block.grad_weight_exponent + cell)}));
        add_square(sum, clipped(rule, {load(block.next_bias + cell), load(block.grad_bias_exponent + cell)}));
    }
    const Floats root = square_root(sum.value);
    const Ints zero = root == 0.0;
    const Scaled norm = renormalize(root, select(zero, Ints{}, sum.exponent));
    const Floats divisor = select(zero, broadcast(0.5), norm.mantissa);
    const Scaled factor = renormalize(rule.clip_norm.mantissa / divisor, rule.clip_norm.exponent - norm.exponent);
    const Ints large = exceeds(norm, rule.clip_norm);
    return {select(large, factor.mantissa, broadcast(0.5)), select(large, factor.exponent, broadcast((int64_t)1))};
}

// Parameters after a step, in the place of their gradients; marks the lanes that move, and those that leave float64.
FASTGRAD_INLINE void move(const Rule& rule, Scaled factor, const double* from, double* to, const int64_t* exponents,
                          Ints& moves, Ints& leaves) {
    const Scaled gradient = clipped(rule, {load(to), load(exponents)});
    Floats mantissa = gradient.mantissa;
    Ints exponent = gradient.exponent + rule.rate.exponent;
    if (rule.clips_norm) {
        mantissa = mantissa * factor.mantissa;
        exponent = exponent + factor.exponent;
    }
    const Floats before = load(from);
    const Floats after = before - to_float(rule.rate.mantissa * mantissa, exponent);
    moves |= after != before;
    leaves |= ~(abs(after) <= __DBL_MAX__);
    store(to, after);
}

// One step of every lane. Returns whether any chain has moved.
template <class Phi>
static bool descend(const TrainJob& job, const Rule& rule, TrainBlock& block, int64_t step, int lanes) {
    TapedSegment none{};
    run_rows<Phi, false, true, false>(none, block.at, 0, job.depth);
    Ints any_moves{};
    for (int j = 0; j < VECTORS; ++j) {
        const Scaled factor = rule.clips_norm ? norm_factor(job, rule, block, j) : one();
        Ints moves{}, leaves{};
        for (int64_t cell = j * VECTOR_LANES; cell < job.depth * BLOCK; cell += BLOCK) {
            move(rule, factor, block.weight + cell, block.next_weight + cell, block.grad_weight_exponent + cell, moves, leaves);
            move(rule, factor, block.bias + cell, block.next_bias + cell, block.grad_bias_exponent + cell, moves, leaves);
        }
        leaves |= block.diverged_at[j] != 0;
        if (any(leaves)) {  // they keep what they had
            for (int64_t cell = j * VECTOR_LANES; cell < job.depth * BLOCK; cell += BLOCK) {
                store(block.next_weight + cell, select(leaves, load(block.weight + cell), load(block.next_weight + cell)));
                store(block.next_bias + cell, select(leaves, load(block.bias + cell), load(block.next_bias + cell)));
            }
            block.diverged_at[j] = select(leaves & (block.diverged_at[j] == 0), broadcast(step + 1), block.diverged_at[j]);
            moves &= ~leaves;
        }
        block.last_update[j] = select(moves, broadcast(step + 1), block.last_update[j]);
        for (int i = 0; i < VECTOR_LANES; ++i)
            if (j * VECTOR_LANES + i >= lanes) moves[i] = 0;
        any_moves |= moves;
    }
    double* const weight = block.weight;
    double* const bias = block.bias;
    block.weight = block.next_weight;
    block.bias = block.next_bias;
    block.next_weight = weight;
    block.next_bias = bias;
    return any(any_moves);
}

template <class Phi>
static void train_block(const TrainJob& job, const Rule& rule, TrainBlock& block, LaneStates start, int64_t begin, int lanes) {
    int64_t row = job.row;
    for (int64_t step = job.first; step < job.last; ++step) {
        evaluate<Phi>(job, block, start);
        for (int j = 0; j < VECTORS; ++j) {
            const Ints low = block.loss[j] - block.min_loss[j] <= job.tolerance;
            block.converged_at[j] = select(low, select(block.converged_at[j] < 0, broadcast(step), block.converged_at[j]), broadcast((int64_t)-1));
        }
        const bool moves = step < job.steps && descend<Phi>(job, rule, block, step, lanes);
        // A block that stands still stays as it is: the recorded steps that are left get the same loss.
        const int64_t known = moves ? step + 1 : job.last;
        for (; row < job.record && job.recorded_steps[row] < known; ++row)
            for (int i = 0; i < lanes; ++i) {
                const int64_t diverged_at = block.diverged_at[i / VECTOR_LANES][i % VECTOR_LANES];
                const bool is_out = diverged_at != 0 && diverged_at <= job.recorded_steps[row];
                job.loss[row * job.ensemble + begin + i] = is_out ? __builtin_inf() : block.loss[i / VECTOR_LANES][i % VECTOR_LANES];
            }
        if (!moves) break;
    }
}

template <class Phi>
static Status train(const TrainJob& job) {
    const int64_t cells = job.depth * BLOCK;
    Arena arena(Arena::tape_bytes(job.depth + 1) + Arena::states_bytes(BLOCK) + 6 * Arena::size(cells * 8));
    if (!arena.memory) return NO_MEMORY;
    const Tape tape = arena.take_tape(job.depth + 1);
    const LaneStates start = arena.take_states(BLOCK);
    TrainBlock block{};
    block.weight = arena.take<double>(cells);
    block.bias = arena.take<double>(cells);
    block.next_weight = arena.take<double>(cells);
    block.next_bias = arena.take<double>(cells);
    block.grad_weight_exponent = arena.take<int64_t>(cells);
    block.grad_bias_exponent = arena.take<int64_t>(cells);
    const Rule rule{to_scaled(broadcast(job.learning_rate)), to_scaled(broadcast(job.clip_value <= __DBL_MAX__ ? job.clip_value : 1.0)),
                    to_scaled(broadcast(job.clip_norm <= __DBL_MAX__ ? job.clip_norm : 1.0)), job.clip_value <= __DBL_MAX__,
                    job.clip_norm <= __DBL_MAX__};
    for (int64_t begin = job.start; begin < job.stop; begin += BLOCK) {
        const int lanes = (int)min(job.stop - begin, BLOCK);
        Mask input_in_range = ALL;
        for (int i = 0; i < BLOCK; ++i) {
            const int j = i / VECTOR_LANES, k = i % VECTOR_LANES;
            const bool used = i < lanes;
            for (int64_t link = 0; link < job.depth; ++link) {
                block.weight[link * BLOCK + i] = used ? job.weight[link * job.ensemble + begin + i] : 1.0;
                block.bias[link * BLOCK + i] = used ? job.bias[link * job.ensemble + begin + i] : 0.0;
            }
            set_state(start, i, used ? job.x[begin + i] : 0.5);
            block.target[j][k] = used ? job.target[begin + i] : 0.5;
            block.min_loss[j][k] = used ? job.min_loss[begin + i] : 0.0;
            block.last_update[j][k] = used ? job.last_update[begin + i] : 0;
            block.converged_at[j][k] = used ? job.converged_at[begin + i] : 0;
            block.diverged_at[j][k] = used ? job.diverged_at[begin + i] : 0;
        }
        // The input lies where the activation before link 0 would be, if it is a number of that kind.
        for (int j = 0; j < VECTORS; ++j) {
            const Floats x = load(start.activation + j * VECTOR_LANES);
            input_in_range = in_range<Phi>(input_in_range, Floats{}, x);
            store(tape.row + j * VECTOR_LANES, x);
        }
        tape.extended[0] = 0;
        block.at.tape = tape_at(tape, 1);
        block.at.input_on_tape = all(input_in_range);
        block.at.count = job.depth;
        train_block<Phi>(job, rule, block, start, begin, lanes);
        for (int i = 0; i < lanes; ++i) {
            const int j = i / VECTOR_LANES, k = i % VECTOR_LANES;
            for (int64_t link = 0; link < job.depth; ++link) {
                job.weight[link * job.ensemble + begin + i] = block.weight[link * BLOCK + i];
                job.bias[link * job.ensemble + begin + i] = block.bias[link * BLOCK + i];
            }
            job.last_update[begin + i] = block.last_update[j][k];
            job.converged_at[begin + i] = block.converged_at[j][k];
            job.diverged_at[begin + i] = block.diverged_at[j][k];
        }
    }
    return OK;
}

}  // namespace FASTGRAD_ISA
}  // namespace fastgrad
