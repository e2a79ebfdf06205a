// train: gradient descent on chains. The contract and the formulas are in fastgrad/kernels/contract.py; the stages and
// names are those of fastgrad/kernels/reference and fastgrad/kernels/jit.
//
// A block of lanes is copied, and takes all the steps of the page before the next block: what it needs stays in the
// cache. A step is a segment of backprop.h, the whole depth long, forward and back; then every parameter moves.
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

// -y ln o - (1 - y) ln(1 - o) for o = sigmoid(z). It goes with that nonlinearity: dloss/dz is o - y, as if sigmoid'
// were 1.
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

    explicit Rule(const TrainJob& job)
        : rate(to_scaled(broadcast(job.learning_rate))),
          clip_value(to_scaled(broadcast(job.clip_value <= __DBL_MAX__ ? job.clip_value : 1.0))),
          clip_norm(to_scaled(broadcast(job.clip_norm <= __DBL_MAX__ ? job.clip_norm : 1.0))),
          clips_value(job.clip_value <= __DBL_MAX__),
          clips_norm(job.clip_norm <= __DBL_MAX__) {}
};

FASTGRAD_INLINE Scaled clipped(const Rule& rule, Scaled gradient) {
    if (!rule.clips_value) return gradient;
    const Ints large = exceeds({abs(gradient.mantissa), gradient.exponent}, rule.clip_value);
    const Floats limit = select(gradient.mantissa < 0.0, -rule.clip_value.mantissa, rule.clip_value.mantissa);
    return select(large, Scaled{limit, rule.clip_value.exponent}, gradient);
}

// A block of lanes: parameters and what a step makes of them, links first. Gradients lie where the next parameters
// will.
struct TrainBlock {
    double *weight, *bias;                // (depth, block)
    ScaledArrays next_weight, next_bias;  // (depth, block)   gradients, and then parameters as their mantissas
    TapedSegment at;
    Floats target[VECTORS], min_loss[VECTORS], loss[VECTORS];
    Ints last_update[VECTORS], converged_at[VECTORS], diverged_at[VECTORS];

    Links links() const { return {weight, bias, next_weight, next_bias, BLOCK}; }
};

// Runs forward: the loss of the parameters as they are, and the adjoint from which the way back begins.
template <class Phi>
static void evaluate(const TrainJob& job, TrainBlock& block, LaneStates start) {
    TapedSegment none{};
    TapedSegment& at = block.at;
    at.links = block.links();
    start_segment(at, start);
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
        at.adjoint[j] = to_scaled(error);
        if (job.loss_code == SQUARED) {
            block.loss[j] = 0.5 * error * error;
        } else {  // delta_L = o_L - y
            store(at.tape.row + last * TAPE_DOUBLES + BLOCK + j * VECTOR_LANES, broadcast(1.0));
            store(at.tape.exponent + last * BLOCK + j * VECTOR_LANES, Ints{});
        }
    }
    mark_extended(at);
}

// The factor by which the gradients of a chain are multiplied, so that their norm is at most clip_norm.
FASTGRAD_INLINE Scaled norm_factor(const TrainJob& job, const Rule& rule, const TrainBlock& block, int j) {
    Squares sum{Floats{}, broadcast(EXPONENT_MIN)};
    for (int64_t cell = j * VECTOR_LANES; cell < job.depth * BLOCK; cell += BLOCK) {
        add_square(sum, clipped(rule, load(block.next_weight + cell)));
        add_square(sum, clipped(rule, load(block.next_bias + cell)));
    }
    const Floats root = square_root(sum.value);
    const Ints zero = root == 0.0;
    const Scaled norm = renormalize(root, select(zero, Ints{}, sum.exponent));
    const Floats divisor = select(zero, broadcast(0.5), norm.mantissa);
    const Scaled factor = renormalize(rule.clip_norm.mantissa / divisor, rule.clip_norm.exponent - norm.exponent);
    const Ints large = exceeds(norm, rule.clip_norm);
    return select(large, factor, one());
}

// Parameters after a step, in the place of their gradients; marks the lanes that move, and those that leave float64.
//
// from     (vector,)   in        parameters before
// to       (vector,)   in, out   gradients, and then the parameters after
FASTGRAD_INLINE void move(const Rule& rule, Scaled factor, const double* from, ScaledArrays to, Ints& moves,
                          Ints& leaves) {
    const Scaled gradient = clipped(rule, load(to));
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
    store(to.mantissa, after);
}

// Takes the lanes of `kept` back to the parameters before the step.
FASTGRAD_INLINE void take_back(Ints kept, const double* from, double* to) {
    store(to, select(kept, load(from), load(to)));
}

FASTGRAD_INLINE void swap(double*& a, double*& b) {
    double* const first = a;
    a = b;
    b = first;
}

// One step of a block. Returns whether any chain has moved.
template <class Phi>
static bool descend(const TrainJob& job, const Rule& rule, TrainBlock& block, int64_t step, int lanes) {
    TapedSegment none{};
    run_rows<Phi, false, true, false>(none, block.at, 0, job.depth);
    Ints any_moves{};
    for (int j = 0; j < VECTORS; ++j) {
        const Scaled factor = rule.clips_norm ? norm_factor(job, rule, block, j) : one();
        Ints moves{}, leaves{};
        for (int64_t cell = j * VECTOR_LANES; cell < job.depth * BLOCK; cell += BLOCK) {
            move(rule, factor, block.weight + cell, block.next_weight + cell, moves, leaves);
            move(rule, factor, block.bias + cell, block.next_bias + cell, moves, leaves);
        }
        leaves |= block.diverged_at[j] != 0;
        if (any(leaves)) {  // they keep what they had
            for (int64_t cell = j * VECTOR_LANES; cell < job.depth * BLOCK; cell += BLOCK) {
                take_back(leaves, block.weight + cell, block.next_weight.mantissa + cell);
                take_back(leaves, block.bias + cell, block.next_bias.mantissa + cell);
            }
            block.diverged_at[j] =
                select(leaves & (block.diverged_at[j] == 0), broadcast(step + 1), block.diverged_at[j]);
            moves &= ~leaves;
        }
        block.last_update[j] = select(moves, broadcast(step + 1), block.last_update[j]);
        for (int i = 0; i < VECTOR_LANES; ++i)
            if (j * VECTOR_LANES + i >= lanes) moves[i] = 0;
        any_moves |= moves;
    }
    swap(block.weight, block.next_weight.mantissa);
    swap(block.bias, block.next_bias.mantissa);
    return any(any_moves);
}

// All steps of the page for one block: members begin to begin + lanes - 1.
template <class Phi>
static void train_block(const TrainJob& job, const Rule& rule, TrainBlock& block, LaneStates start, int64_t begin,
                        int lanes) {
    int64_t row = job.row;
    for (int64_t step = job.first; step < job.last; ++step) {
        evaluate<Phi>(job, block, start);
        for (int j = 0; j < VECTORS; ++j) {
            const Ints low = block.loss[j] - block.min_loss[j] <= job.tolerance;
            const Ints since = select(block.converged_at[j] < 0, broadcast(step), block.converged_at[j]);
            block.converged_at[j] = select(low, since, broadcast((int64_t)-1));
        }
        const bool moves = step < job.steps && descend<Phi>(job, rule, block, step, lanes);
        // A block that stands still stays as it is: the recorded steps that are left get the same loss.
        const int64_t known = moves ? step + 1 : job.last;
        for (; row < job.record && job.recorded_steps[row] < known; ++row)
            for (int i = 0; i < lanes; ++i) {
                const int64_t diverged_at = lane(block.diverged_at, i);
                const bool is_out = diverged_at != 0 && diverged_at <= job.recorded_steps[row];
                job.loss[row * job.ensemble + begin + i] = is_out ? __builtin_inf() : lane(block.loss, i);
            }
        if (!moves) break;
    }
}

// Copies the parameters of a block in. Lanes without a member get a chain that stands still.
static void load_block(const TrainJob& job, TrainBlock& block, LaneStates start, int64_t begin, int lanes) {
    for (int i = 0; i < BLOCK; ++i) {
        const bool used = i < lanes;
        const int64_t member = begin + i;
        for (int64_t link = 0; link < job.depth; ++link) {
            block.weight[link * BLOCK + i] = used ? job.weight[link * job.ensemble + member] : 1.0;
            block.bias[link * BLOCK + i] = used ? job.bias[link * job.ensemble + member] : 0.0;
        }
        set_state(start, i, used ? job.x[member] : 0.5);
        set_lane(block.target, i, used ? job.target[member] : 0.5);
        set_lane(block.min_loss, i, used ? job.min_loss[member] : 0.0);
        set_lane(block.last_update, i, used ? job.last_update[member] : 0);
        set_lane(block.converged_at, i, used ? job.converged_at[member] : 0);
        set_lane(block.diverged_at, i, used ? job.diverged_at[member] : 0);
    }
}

static void store_block(const TrainJob& job, const TrainBlock& block, int64_t begin, int lanes) {
    for (int i = 0; i < lanes; ++i) {
        const int64_t member = begin + i;
        for (int64_t link = 0; link < job.depth; ++link) {
            job.weight[link * job.ensemble + member] = block.weight[link * BLOCK + i];
            job.bias[link * job.ensemble + member] = block.bias[link * BLOCK + i];
        }
        job.last_update[member] = lane(block.last_update, i);
        job.converged_at[member] = lane(block.converged_at, i);
        job.diverged_at[member] = lane(block.diverged_at, i);
    }
}

// The steps first to last - 1 of the members start to stop - 1.
template <class Phi>
static Status train(const TrainJob& job) {
    const int64_t cells = job.depth * BLOCK;
    Arena arena(tape_bytes(job.depth + 1) + states_bytes(BLOCK) + 2 * Arena::size(cells * 8) +
                2 * Arena::scaled_bytes(cells));
    if (!arena.memory) return NO_MEMORY;
    const Tape tape = take_tape(arena, job.depth + 1);
    const LaneStates start = take_states(arena, BLOCK);
    TrainBlock block{};
    block.weight = arena.take<double>(cells);
    block.bias = arena.take<double>(cells);
    block.next_weight = arena.take_scaled(cells);
    block.next_bias = arena.take_scaled(cells);
    const Rule rule(job);
    for (int64_t begin = job.start; begin < job.stop; begin += BLOCK) {
        const int lanes = (int)min(job.stop - begin, BLOCK);
        load_block(job, block, start, begin, lanes);
        // The input lies where the activation before link 0 would be, if it is a number of that kind.
        Mask input_in_range = ALL;
        for (int j = 0; j < VECTORS; ++j) {
            const Floats x = load(start.activation + j * VECTOR_LANES);
            input_in_range = in_range(input_in_range, x);
            store(tape.row + j * VECTOR_LANES, x);
        }
        tape.extended[0] = 0;
        block.at.tape = tape_at(tape, 1);
        block.at.input_on_tape = all(input_in_range);
        block.at.count = job.depth;
        train_block<Phi>(job, rule, block, start, begin, lanes);
        store_block(job, block, begin, lanes);
    }
    return OK;
}

}  // namespace FASTGRAD_ISA
}  // namespace fastgrad
