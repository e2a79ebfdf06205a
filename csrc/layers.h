// layers: drawn dense layers, forward and backward. The contract and the formulas are in fastgrad/kernels/contract.py;
// the stages and names are those of kernels/reference/layers.py and kernels/jit/layers.py.
//
// Vectors of activations and adjoints lie in rows of N vectors of lanes. The lanes are the units of one member, or else
// the same unit of several members: `ACROSS` says that a sum or maximum over units goes across lanes. Each sum over
// units has one order, that of their index, so that the bits don't depend on which it is. Nearly all time goes into
// drawing weights.
#pragma once

#include "arena.h"
#include "draws.h"
#include "nonlinearity.h"

namespace fastgrad {
namespace FASTGRAD_ISA {

constexpr int LAYER_VECTORS = 4;  // of draws that are in flight together

// A law scaled by a power of two, so that no sum of its numbers leaves the range of doubles: see `Drawn` in
// reference/layers.py.
struct ScaledLaw {
    Law law;
    int64_t exponent;
};

FASTGRAD_INLINE ScaledLaw scaled_law(const Law& law) {
    const double location = __builtin_fabs(law.location), size = location > law.scale ? location : law.scale;
    if (size == 0.0) return {law, ZERO_EXPONENT};
    int64_t exponent = to_scaled(broadcast(size)).exponent[0];
    if (exponent > LAW_EXPONENT_MAX) exponent = LAW_EXPONENT_MAX;
    if (exponent < -LAW_EXPONENT_MAX) exponent = -LAW_EXPONENT_MAX;
    const double factor = power_of_two(broadcast(-exponent))[0];
    return {{law.family, law.location * factor, law.scale * factor}, exponent};
}

// 2^k, and 0 where that is no normal number; 2^1023 above.
FASTGRAD_INLINE Floats clipped_power(Ints k) {
    const Ints high = select(k < 1023, k, broadcast((int64_t)1023));
    return select(k < -1022, Floats{}, power_of_two(select(high < -1022, broadcast((int64_t)-1022), high)));
}

// Which layer of which members is drawn. The counter's second word, the pair, is all that changes from block to block: of the
// first three rounds, the rest is done once.
template <int N>
struct LayerDraws {
    Law law;
    double factor;  // -2 scale²; of an orthogonal layer, whose normals are standard, -2
    Keys keys;
    UInts r0_1[N];                 // r0 after the first round, before the pair comes to it
    UInts r2_2;                    // r2 after the second, before the pair's product comes to it
    UInts r0_3, r2_3[N], r3_3[N];  // after the third, likewise

    LayerDraws(const Law& of, uint64_t seed, int64_t layer, const UInts* member) : law(of), keys(keys_of(seed)) {
        factor = law.family == ORTHOGONAL ? -2.0 : -2.0 * (law.scale * law.scale);
        const UInts first = UInts{} + (uint64_t)layer,
                    fourth = UInts{} + (STREAM_LAYERS + 256 * ((uint64_t)layer >> 32));
        const UInts first_product = multiply_low(first, UInts{} + MULTIPLIER_0);
        const UInts r2_1 = high_words(first_product) ^ fourth ^ keys.second[0];
        const UInts second_product = multiply_low(r2_1, UInts{} + MULTIPLIER_1);
        r2_2 = first_product ^ keys.second[1];
        r0_3 = second_product ^ keys.first[2];
        for (int j = 0; j < N; ++j) {
            const UInts third_product = multiply_low(member[j], UInts{} + MULTIPLIER_1);
            r0_1[j] = high_words(third_product) ^ keys.first[0];
            const UInts r0_2 = high_words(second_product) ^ third_product ^ keys.first[1];
            r3_3[j] = multiply_low(r0_2, UInts{} + MULTIPLIER_0);
            r2_3[j] = high_words(r3_3[j]) ^ keys.second[2];
        }
    }

    // The two numbers that the block of each lane's pair gives: W[i, 2p] and W[i, 2p + 1], or two biases. Of an
    // orthogonal layer, standard normals.
    FASTGRAD_INLINE void draw(const LayerDraws& at, const UInts* pair, Pair* drawn) {
        if (at.law.family == CONSTANT) {
            FASTGRAD_ROW(N) drawn[j] = {broadcast(at.law.location), broadcast(at.law.location)};
            return;
        }
        UInts r0[N], r1[N], r2[N], r3[N];
        FASTGRAD_ROW(N) {
            const UInts product0 = multiply_low(pair[j] ^ at.r0_1[j], UInts{} + MULTIPLIER_0);
            r1[j] = multiply_low(high_words(product0) ^ at.r2_2, UInts{} + MULTIPLIER_1);
            r0[j] = high_words(r1[j]) ^ at.r0_3;
            r2[j] = product0 ^ at.r2_3[j];
            r3[j] = at.r3_3[j];
        }
        run_rounds<N, 3>(at.keys, r0, r1, r2, r3);
        FASTGRAD_ROW(N) drawn[j] = {half_integer(r0[j], r1[j]), half_integer(r2[j], r3[j])};
        if (at.law.family == UNIFORM) {
            const double scale = 0x1p-53 * at.law.scale;
            FASTGRAD_ROW(N) drawn[j] = {scale * drawn[j].first, scale * drawn[j].second};
        } else {
            scaled_normals<N>(at.factor, drawn);
        }
        if (at.law.location == 0.0) return;
        FASTGRAD_ROW(N) drawn[j] = {at.law.location + drawn[j].first, at.law.location + drawn[j].second};
    }
};

// Sizes of a block of members, and where its numbers lie. ACROSS: one member, and the lanes are units.
template <bool ACROSS>
struct LayerLayout {
    static constexpr int N = ACROSS ? 1 : LAYER_VECTORS;
    static constexpr int64_t LANES = N * VECTOR_LANES;

    int64_t width, pairs, rows, cells;
    explicit LayerLayout(int64_t units)
        : width(units),
          pairs((units + 1) / 2),
          rows(ACROSS ? (units + LANES - 1) / LANES : units),
          cells(ACROSS ? (units + 2 * REFLECTION_LANES - 1) / (2 * REFLECTION_LANES) * (2 * REFLECTION_LANES)
                       : 2 * pairs * LANES) {}

    // The place of a unit of the member in a lane.
    int64_t cell(int64_t unit, int64_t lane) const { return ACROSS ? unit : unit * LANES + lane; }
};

// Gives mantissa * 2^shift of each unit one exponent, the largest of theirs: see `common_exponent` in
// reference/layers.py. `base` is added to it. The values take the places of the mantissas; what lies beyond the units
// becomes 0.
template <bool ACROSS>
static void common_exponent(const LayerLayout<ACROSS>& at, double* mantissa, const int64_t* shift, Ints* base) {
    constexpr int N = LayerLayout<ACROSS>::N;
    constexpr int64_t NONE = ZERO_EXPONENT / 2;  // below every shift
    for (int64_t cell = ACROSS ? at.width : at.width * at.LANES; cell < at.cells; ++cell) mantissa[cell] = 0.0;
    const auto exponent_of = [&](Floats value, int64_t cell) {
        const Ints field = (Ints)((UInts)(bits_of(value) << 1) >> 53);
        const Ints exponent = field - 1022 + (shift ? load(shift + cell) : Ints{});
        return select(field == 0, broadcast(NONE), exponent);
    };
    Ints top[N];
    for (int j = 0; j < N; ++j) top[j] = broadcast(NONE);
    for (int64_t row = 0; row < at.rows; ++row)
        for (int j = 0; j < N; ++j) {
            const int64_t cell = row * at.LANES + j * VECTOR_LANES;
            const Ints exponent = exponent_of(load(mantissa + cell), cell);
            top[j] = select(exponent > top[j], exponent, top[j]);
        }
    if (ACROSS) {
        int64_t largest = NONE;
        for (int i = 0; i < VECTOR_LANES; ++i) largest = top[0][i] > largest ? top[0][i] : largest;
        top[0] = broadcast(largest);
    }
    Ints is_zero[N];
    for (int j = 0; j < N; ++j) {
        is_zero[j] = (top[j] == NONE) | (base[j] + top[j] <= ZERO_EXPONENT);
        base[j] = select(is_zero[j], broadcast(ZERO_EXPONENT), base[j] + top[j]);
    }
    for (int64_t row = 0; row < at.rows; ++row)
        for (int j = 0; j < N; ++j) {
            const int64_t cell = row * at.LANES + j * VECTOR_LANES;
            const Floats value = load(mantissa + cell);
            const Ints exponent = exponent_of(value, cell);
            const Floats fraction = float_of((bits_of(value) & SIGN_AND_FRACTION) | EXPONENT_OF_HALF);
            const Ints lost = is_zero[j] | (exponent == NONE);
            store(mantissa + cell, select(lost, Floats{}, fraction * clipped_power(exponent - top[j])));
        }
}

// W o, drawn: one sum for each row, over the columns in order. `products` begins as zeros.
template <int N>
static void multiply_rows(const LayerDraws<N>& draws, const LayerLayout<true>& at, int64_t row, const double* values,
                          double* products, int64_t vectors) {
    UInts pair[N];
    for (int j = 0; j < N; ++j)
        for (int i = 0; i < VECTOR_LANES; ++i) pair[j][i] = (uint64_t)(((row + j) * VECTOR_LANES + i) * at.pairs);
    for (int64_t p = 0; p < at.pairs; ++p) {
        Pair drawn[N];
        LayerDraws<N>::draw(draws, pair, drawn);
        for (int64_t v = 0; v < vectors; ++v) {
            const double even = values[v * at.cells + 2 * p], odd = values[v * at.cells + 2 * p + 1];
            for (int j = 0; j < N; ++j) {
                double* const to = products + v * at.cells + (row + j) * VECTOR_LANES;
                store(to, (load(to) + drawn[j].first * even) + drawn[j].second * odd);
            }
        }
        for (int j = 0; j < N; ++j) pair[j] += 1;
    }
}

// W^T delta, drawn: one sum for each column, over the rows in order. `evens` and `odds`, for each pair of columns,
// begin as zeros.
template <int N>
static void multiply_columns(const LayerDraws<N>& draws, const LayerLayout<true>& at, int64_t column,
                             const double* values, double* evens, double* odds, int64_t vectors) {
    UInts pair[N];
    for (int j = 0; j < N; ++j)
        for (int i = 0; i < VECTOR_LANES; ++i) pair[j][i] = (uint64_t)((column + j) * VECTOR_LANES + i);
    for (int64_t row = 0; row < at.width; ++row) {
        Pair drawn[N];
        LayerDraws<N>::draw(draws, pair, drawn);
        for (int64_t v = 0; v < vectors; ++v) {
            const double value = values[v * at.cells + row];
            for (int j = 0; j < N; ++j) {
                const int64_t cell = v * at.cells + (column + j) * VECTOR_LANES;
                store(evens + cell, load(evens + cell) + drawn[j].first * value);
                store(odds + cell, load(odds + cell) + drawn[j].second * value);
            }
        }
        for (int j = 0; j < N; ++j) pair[j] += (uint64_t)at.pairs;
    }
}

// One reflection of an orthogonal layer: the vector u of `reflect` in reference/layers.py, drawn, for even and odd
// units. Sums are taken over units with equal parity and pair modulo 8 first.
struct ReflectionSum {
    Floats even[REFLECTION_LANES / VECTOR_LANES], odd[REFLECTION_LANES / VECTOR_LANES];

    FASTGRAD_INLINE double total(const ReflectionSum& sum) {
        double t[REFLECTION_LANES];
        for (int i = 0; i < REFLECTION_LANES; ++i)
            t[i] = sum.even[i / VECTOR_LANES][i % VECTOR_LANES] + sum.odd[i / VECTOR_LANES][i % VECTOR_LANES];
        return ((t[0] + t[4]) + (t[2] + t[6])) + ((t[1] + t[5]) + (t[3] + t[7]));
    }
};

// LayerDraws u of row k: its first element is unit k; returns 2 / (u^T u). `is_negative` tells the sign of x_0.
static double draw_reflection(const LayerDraws<1>& draws, const LayerLayout<true>& at, int64_t k, double* evens,
                              double* odds, bool& is_negative) {
    const int64_t padded = (at.pairs + REFLECTION_LANES - 1) / REFLECTION_LANES * REFLECTION_LANES;
    const int64_t begin = k / 2 / REFLECTION_LANES * REFLECTION_LANES;
    ReflectionSum squares{};
    for (int64_t p = begin; p < padded; p += VECTOR_LANES) {
        UInts pair;
        for (int i = 0; i < VECTOR_LANES; ++i) pair[i] = (uint64_t)(k * at.pairs + p + i);
        Pair drawn;
        LayerDraws<1>::draw(draws, &pair, &drawn);
        for (int i = 0; i < VECTOR_LANES; ++i) {
            const int64_t unit = 2 * (p + i);
            if (unit < k || unit >= at.width) drawn.first[i] = 0.0;
            if (unit + 1 < k || unit + 1 >= at.width) drawn.second[i] = 0.0;
        }
        store(evens + p, drawn.first);
        store(odds + p, drawn.second);
        const int64_t strand = p % REFLECTION_LANES / VECTOR_LANES;
        squares.even[strand] += drawn.first * drawn.first;
        squares.odd[strand] += drawn.second * drawn.second;
    }
    double& first = (k % 2 ? odds : evens)[k / 2];
    const double length = square_root(broadcast(ReflectionSum::total(squares)))[0];
    is_negative = first < 0.0;
    const double factor = 1.0 / (length * (length + __builtin_fabs(first)));
    first += is_negative ? -length : length;
    return factor;
}

// Reflects one vector, given by its even and odd units, in place.
static void reflect(const LayerLayout<true>& at, int64_t k, const double* u_evens, const double* u_odds, double factor,
                    double* evens, double* odds) {
    const int64_t padded = (at.pairs + REFLECTION_LANES - 1) / REFLECTION_LANES * REFLECTION_LANES;
    const int64_t begin = k / 2 / REFLECTION_LANES * REFLECTION_LANES;
    ReflectionSum sum{};
    for (int64_t p = begin; p < padded; p += VECTOR_LANES) {
        const int64_t strand = p % REFLECTION_LANES / VECTOR_LANES;
        sum.even[strand] += load(u_evens + p) * load(evens + p);
        sum.odd[strand] += load(u_odds + p) * load(odds + p);
    }
    const double times = factor * ReflectionSum::total(sum);
    for (int64_t p = begin; p < padded; p += VECTOR_LANES) {
        store(evens + p, load(evens + p) - times * load(u_evens + p));
        store(odds + p, load(odds + p) - times * load(u_odds + p));
    }
}

// Workspace of one block of members.
struct LayerWorkspace {
    double *values, *products;                  // (vectors, cells): what is multiplied, and W times it
    double *evens, *odds;                       // (vectors, cells): the same for even and odd columns
    double *biases, *even_biases, *odd_biases;  // (cells,)
    double* preactivation;                      // (2, cells): of the first two inputs
    double* slope;                              // (cells,): phi', with the exponents `shift`
    int64_t* shift;                             // (cells,)
    double* scratch;                            // (2, cells)
    Ints* exponent;                             // (vectors, N)
};

static void make_zero(double* values, int64_t count) {
    for (int64_t i = 0; i < count; ++i) values[i] = 0.0;
}

static void split(const LayerLayout<true>& at, const double* values, double* evens, double* odds) {
    for (int64_t p = 0; p < at.pairs; ++p) {
        evens[p] = values[2 * p];
        odds[p] = values[2 * p + 1];
    }
    for (int64_t p = at.pairs; p < at.cells; ++p) evens[p] = odds[p] = 0.0;
}

static void interleave(const LayerLayout<true>& at, const double* evens, const double* odds, double* values) {
    for (int64_t p = 0; p < at.pairs; ++p) {
        values[2 * p] = evens[p];
        values[2 * p + 1] = odds[p];
    }
}

// Q o or Q^T delta: see `multiply` in reference/layers.py.
static void multiply_orthogonal(const LayerDraws<1>& draws, const LayerLayout<true>& at, LayerWorkspace& work,
                                int64_t vectors, bool transposed) {
    for (int64_t v = 0; v < vectors; ++v)
        split(at, work.values + v * at.cells, work.evens + v * at.cells, work.odds + v * at.cells);
    double *const u_evens = work.scratch, *const u_odds = work.scratch + at.cells;
    for (int64_t step = 0; step < at.width; ++step) {
        const int64_t k = transposed ? step : at.width - 1 - step;
        bool is_negative;
        const double factor = draw_reflection(draws, at, k, u_evens, u_odds, is_negative);
        for (int64_t v = 0; v < vectors; ++v) {
            double *const evens = work.evens + v * at.cells, *const odds = work.odds + v * at.cells;
            double& unit = (k % 2 ? odds : evens)[k / 2];
            if (!transposed && !is_negative) unit = -unit;
            reflect(at, k, u_evens, u_odds, factor, evens, odds);
            if (transposed && !is_negative) unit = -unit;
        }
    }
    for (int64_t v = 0; v < vectors; ++v) {
        interleave(at, work.evens + v * at.cells, work.odds + v * at.cells, work.products + v * at.cells);
        for (int64_t cell = 0; cell < at.width; ++cell) work.products[v * at.cells + cell] *= draws.law.scale;
    }
}

// W o of each vector, or W^T delta, with the weights of one layer of one member.
static void multiply_layer(const Law& law, uint64_t seed, int64_t layer, const UInts* member,
                           const LayerLayout<true>& at, LayerWorkspace& work, int64_t vectors, bool transposed) {
    const UInts members[LAYER_VECTORS] = {member[0], member[0], member[0], member[0]};
    const auto one = LayerDraws<1>(law, seed, layer, members);
    const auto two = LayerDraws<2>(law, seed, layer, members);
    const auto all = LayerDraws<LAYER_VECTORS>(law, seed, layer, members);
    if (law.family == ORTHOGONAL) return multiply_orthogonal(one, at, work, vectors, transposed);
    make_zero(work.products, vectors * at.cells);
    make_zero(work.evens, vectors * at.cells);
    make_zero(work.odds, vectors * at.cells);
    // As many vectors of rows, or of pairs of columns, at a time as are left.
    const int64_t end = transposed ? (at.pairs + VECTOR_LANES - 1) / VECTOR_LANES : at.rows;
    for (int64_t begin = 0; begin < end;) {
        const int64_t left = end - begin;
        const auto run = [&](const auto& draws) {
            if (transposed)
                multiply_columns(draws, at, begin, work.values, work.evens, work.odds, vectors);
            else
                multiply_rows(draws, at, begin, work.values, work.products, vectors);
        };
        if (left >= LAYER_VECTORS)
            run(all);
        else if (left >= 2)
            run(two);
        else
            run(one);
        begin += left >= LAYER_VECTORS ? LAYER_VECTORS : left >= 2 ? 2 : 1;
    }
    if (!transposed) return;
    for (int64_t v = 0; v < vectors; ++v)
        interleave(at, work.evens + v * at.cells, work.odds + v * at.cells, work.products + v * at.cells);
}

// The same for several members, in lanes.
static void multiply_layer(const Law& law, uint64_t seed, int64_t layer, const UInts* member,
                           const LayerLayout<false>& at, LayerWorkspace& work, int64_t vectors, bool transposed) {
    constexpr int N = LAYER_VECTORS;
    const LayerDraws<N> draws = LayerDraws<N>(law, seed, layer, member);
    make_zero(work.products, vectors * at.cells);
    for (int64_t row = 0; row < at.width; ++row)
        for (int64_t p = 0; p < at.pairs; ++p) {
            UInts pair[N];
            for (int j = 0; j < N; ++j) pair[j] = UInts{} + (uint64_t)(row * at.pairs + p);
            Pair drawn[N];
            LayerDraws<N>::draw(draws, pair, drawn);
            for (int64_t v = 0; v < vectors; ++v)
                for (int j = 0; j < N; ++j) {
                    const double* const values = work.values + v * at.cells + j * VECTOR_LANES;
                    double* const products = work.products + v * at.cells + j * VECTOR_LANES;
                    const int64_t of_row = row * at.LANES, even = 2 * p * at.LANES, odd = even + at.LANES;
                    if (transposed) {
                        const Floats delta = load(values + of_row);
                        store(products + even, load(products + even) + drawn[j].first * delta);
                        store(products + odd, load(products + odd) + drawn[j].second * delta);
                    } else {
                        const Floats sum = load(products + of_row) + drawn[j].first * load(values + even);
                        store(products + of_row, sum + drawn[j].second * load(values + odd));
                    }
                }
        }
}

// The biases of one layer.
static void draw_biases(const Law& law, uint64_t seed, int64_t layer, const UInts* member, const LayerLayout<true>& at,
                        LayerWorkspace& work) {
    const LayerDraws<1> draws = LayerDraws<1>(law, seed, layer, member);
    for (int64_t p = 0; p < at.pairs; p += VECTOR_LANES) {
        UInts pair;
        for (int i = 0; i < VECTOR_LANES; ++i) pair[i] = (uint64_t)(at.width * at.pairs + p + i);
        Pair drawn;
        LayerDraws<1>::draw(draws, &pair, &drawn);
        store(work.even_biases + p, drawn.first);
        store(work.odd_biases + p, drawn.second);
    }
    interleave(at, work.even_biases, work.odd_biases, work.biases);
}

static void draw_biases(const Law& law, uint64_t seed, int64_t layer, const UInts* member, const LayerLayout<false>& at,
                        LayerWorkspace& work) {
    constexpr int N = LAYER_VECTORS;
    const LayerDraws<N> draws = LayerDraws<N>(law, seed, layer, member);
    for (int64_t p = 0; p < at.pairs; ++p) {
        UInts pair[N];
        for (int j = 0; j < N; ++j) pair[j] = UInts{} + (uint64_t)(at.width * at.pairs + p);
        Pair drawn[N];
        LayerDraws<N>::draw(draws, pair, drawn);
        for (int j = 0; j < N; ++j) {
            store(work.biases + 2 * p * at.LANES + j * VECTOR_LANES, drawn[j].first);
            store(work.biases + (2 * p + 1) * at.LANES + j * VECTOR_LANES, drawn[j].second);
        }
    }
}

// Records: sums over the units of one member, in the order of their index.
template <bool ACROSS, typename Term>
FASTGRAD_INLINE double sum_units(const LayerLayout<ACROSS>& at, int64_t lane, Term term) {
    double sum = 0.0;
    for (int64_t unit = 0; unit < at.width; ++unit) sum += term(at.cell(unit, lane));
    return sum;
}

FASTGRAD_INLINE void store_number(ScaledArrays to, int64_t cell, double value, int64_t exponent) {
    const bool is_small = __builtin_fabs(value) < 0x1p-1022;
    const Scaled scaled =
        renormalize(broadcast(is_small ? value * 0x1p64 : value), broadcast(is_small ? exponent - 64 : exponent));
    to.mantissa[cell] = scaled.mantissa[0];
    to.exponent[cell] = scaled.exponent[0];
}

template <bool ACROSS>
static void record_norm(ScaledArrays to, int64_t cell, const LayerLayout<ACROSS>& at, const double* values,
                        int64_t exponent, int64_t lane) {
    const double squares = sum_units(at, lane, [=](int64_t of) { return values[of] * values[of]; });
    store_number(to, cell, square_root(broadcast(squares))[0], exponent);
}

// Members of a block that begins at `begin`; lanes beyond are copies of the last one, and never stored.
template <bool ACROSS>
struct LayerBlock {
    static constexpr int N = LayerLayout<ACROSS>::N;
    const LayersJob& job;
    LayerLayout<ACROSS> at;
    LayerWorkspace& work;
    int64_t begin, count;
    UInts member[N];

    LayerBlock(const LayersJob& of, LayerWorkspace& in, int64_t first, int64_t members)
        : job(of), at(of.width), work(in), begin(first), count(members) {
        for (int j = 0; j < N; ++j)
            for (int i = 0; i < VECTOR_LANES; ++i) {
                const int64_t lane = ACROSS ? 0 : j * VECTOR_LANES + i;
                member[j][i] = (uint64_t)(begin + (lane < count ? lane : count - 1));
            }
    }

    int64_t exponent(const Ints* of, int64_t lane) const { return of[lane / VECTOR_LANES][lane % VECTOR_LANES]; }

    // Calls `visit` with the member and the lane of each.
    template <typename Visit>
    FASTGRAD_INLINE void each(const LayerBlock& block, Visit visit) {
        for (int64_t lane = 0; lane < block.count; ++lane) visit(block.begin + lane, lane);
    }

    // Vectors of the job into the rows of the block, and back.
    void load_vectors(const ScaledVectors& from) {
        make_zero(work.values, from.vectors * at.cells);
        for (int64_t v = 0; v < from.vectors; ++v) {
            Ints* const exponents = work.exponent + v * N;
            for (int j = 0; j < N; ++j) exponents[j] = broadcast(ZERO_EXPONENT);
            each(*this, [&](int64_t of, int64_t lane) {
                const int64_t vector = of * from.vectors + v;
                exponents[lane / VECTOR_LANES][lane % VECTOR_LANES] = from.exponent[vector];
                if (ACROSS) exponents[0] = broadcast(from.exponent[vector]);
                for (int64_t unit = 0; unit < at.width; ++unit)
                    work.values[v * at.cells + at.cell(unit, lane)] = from.value[vector * at.width + unit];
            });
        }
    }

    void store_vectors(const ScaledVectors& to) const {
        for (int64_t v = 0; v < to.vectors; ++v)
            each(*this, [&](int64_t of, int64_t lane) {
                const int64_t vector = of * to.vectors + v;
                to.exponent[vector] = exponent(work.exponent + v * N, lane);
                for (int64_t unit = 0; unit < at.width; ++unit)
                    to.value[vector * at.width + unit] = work.values[v * at.cells + at.cell(unit, lane)];
            });
    }

    // The place on the tape of a layer's preactivations of one member.
    double* tape_at(int64_t layer, int64_t of) const {
        return job.tape + ((layer - job.first) * (job.stop - job.start) + of - job.start) * at.width;
    }

    void forward(int64_t layer, const ScaledLaw& weight, const ScaledLaw& bias, int64_t recorded) {
        const int64_t vectors = job.state.vectors;
        if (recorded >= 0)
            each(*this, [&](int64_t of, int64_t lane) {
                record_norm(job.input_norm, recorded * job.ensemble + of, at, work.values,
                            exponent(work.exponent, lane), lane);
            });
        multiply_layer(weight.law, job.seed, layer, member, at, work, vectors, false);
        if (bias.law.family != CONSTANT) draw_biases(bias.law, job.seed, layer, member, at, work);
        const bool homogeneous = is_homogeneous(job.nonlinearity);
        Ints z_exponent[2][N];
        for (int64_t v = 0; v < vectors; ++v) {
            Ints* const exponents = work.exponent + v * N;
            double *const values = work.values + v * at.cells, *const products = work.products + v * at.cells;
            double* const z_kept = work.preactivation + (v < 2 ? v : 1) * at.cells;
            Ints common[N], base[N];
            Floats factor[N], bias_factor[N], argument_factor[N];
            for (int j = 0; j < N; ++j) {
                const Ints of_products = exponents[j] + weight.exponent, of_bias = broadcast(bias.exponent);
                common[j] = select(of_products > of_bias, of_products, of_bias);
                factor[j] = clipped_power(of_products - common[j]);
                bias_factor[j] = clipped_power(of_bias - common[j]);
                argument_factor[j] = homogeneous ? broadcast(1.0) : clipped_power(common[j]);
                base[j] = homogeneous ? common[j] : Ints{};
                if (job.nonlinearity == TANH) base[j] = select(common[j] < LINEAR_EXPONENT, common[j], Ints{});
                if (v < 2) z_exponent[v][j] = common[j];
            }
            for (int64_t row = 0; row < at.rows; ++row)
                for (int j = 0; j < N; ++j) {
                    const int64_t cell = row * at.LANES + j * VECTOR_LANES;
                    const Floats b =
                        bias.law.family == CONSTANT ? broadcast(bias.law.location) : load(work.biases + cell);
                    const Floats z = load(products + cell) * factor[j] + b * bias_factor[j];
                    Floats argument = z * argument_factor[j];
                    argument = select(argument > LARGEST_Z, broadcast(LARGEST_Z), argument);
                    argument = select(argument < -LARGEST_Z, broadcast(-LARGEST_Z), argument);
                    Scaled next = activation_of(job.nonlinearity, argument);
                    if (job.nonlinearity == TANH) next.mantissa = select(common[j] < LINEAR_EXPONENT, z, next.mantissa);
                    store(z_kept + cell, z);
                    store(values + cell, next.mantissa);
                    store(work.shift + cell, next.exponent);
                    if (v == 0) store(work.scratch + cell, argument);
                }
            if (v == 0 && job.tape)
                each(*this, [&](int64_t of, int64_t lane) {
                    double* const tape = tape_at(layer, of);
                    for (int64_t unit = 0; unit < at.width; ++unit) tape[unit] = work.scratch[at.cell(unit, lane)];
                });
            common_exponent(at, values, work.shift, base);
            for (int j = 0; j < N; ++j) exponents[j] = base[j];
        }
        if (recorded >= 0) record(recorded, vectors, z_exponent);
    }

    // Records lengths, means and shares of a layer's preactivations and activations.
    void record(int64_t row, int64_t vectors, const Ints z_exponent[2][N]) {
        const int64_t kept = vectors < 2 ? vectors : 2;
        const bool saturates = !is_homogeneous(job.nonlinearity);
        const double width = (double)at.width;
        double* const z = work.preactivation;
        double saturated[LayerLayout<ACROSS>::LANES], dead[LayerLayout<ACROSS>::LANES];
        each(*this, [&](int64_t, int64_t lane) {
            const double power = clipped_power(broadcast(exponent(z_exponent[0], lane)))[0];
            const auto is_saturated = [&](int64_t of) {
                return __builtin_fabs(z[of] * power) > SATURATED_Z ? 1.0 : 0.0;
            };
            saturated[lane] = saturates ? sum_units(at, lane, is_saturated) : 0.0;
            dead[lane] = job.nonlinearity == RELU
                             ? sum_units(at, lane, [&](int64_t of) { return z[of] <= 0.0 ? 1.0 : 0.0; })
                             : 0.0;
        });
        Ints exponents[2][N];
        for (int64_t v = 0; v < kept; ++v) {
            for (int j = 0; j < N; ++j) exponents[v][j] = z_exponent[v][j];
            common_exponent(at, z + v * at.cells, nullptr, exponents[v]);
        }
        each(*this, [&](int64_t of, int64_t lane) {
            const int64_t cell = row * job.ensemble + of;
            const double* const other = z + at.cells;
            const double squares = sum_units(at, lane, [&](int64_t at_) { return z[at_] * z[at_]; });
            const double mean = sum_units(at, lane, [&](int64_t at_) { return work.values[at_]; });
            store_number(job.length, cell, squares / width, 2 * exponent(exponents[0], lane));
            store_number(job.mean_activation, cell, mean / width, exponent(work.exponent, lane));
            job.saturated[cell] = saturated[lane] / width;
            job.dead[cell] = dead[lane] / width;
            if (kept == 2) {
                const double others = sum_units(at, lane, [&](int64_t at_) { return other[at_] * other[at_]; });
                const double product = sum_units(at, lane, [&](int64_t at_) { return z[at_] * other[at_]; });
                job.correlation[cell] = product / square_root(broadcast(squares * others))[0];
            }
        });
    }

    void backward(int64_t layer, const ScaledLaw& weight, int64_t recorded) {
        const int64_t vectors = job.state.vectors;
        make_zero(work.slope, at.cells);
        each(*this, [&](int64_t of, int64_t lane) {
            const double* const tape = tape_at(layer, of);
            for (int64_t unit = 0; unit < at.width; ++unit) work.slope[at.cell(unit, lane)] = tape[unit];
        });
        for (int64_t cell = 0; cell < at.rows * at.LANES; cell += VECTOR_LANES) {
            const Scaled slope = slope_of(job.nonlinearity, load(work.slope + cell));
            store(work.slope + cell, slope.mantissa);
            store(work.shift + cell, slope.exponent);
        }
        for (int64_t v = 0; v < vectors; ++v) {  // delta_l = a_l phi'(z_l)
            double* const values = work.values + v * at.cells;
            for (int64_t cell = 0; cell < at.rows * at.LANES; cell += VECTOR_LANES)
                store(values + cell, load(values + cell) * load(work.slope + cell));
            common_exponent(at, values, work.shift, work.exponent + v * N);
        }
        if (recorded >= 0)
            each(*this, [&](int64_t of, int64_t lane) {
                record_norm(job.delta_norm, recorded * job.ensemble + of, at, work.values,
                            exponent(work.exponent, lane), lane);
            });
        multiply_layer(weight.law, job.seed, layer, member, at, work, vectors, true);  // a_{l-1} = W_l^T delta_l
        for (int64_t v = 0; v < vectors; ++v) {
            Ints* const exponents = work.exponent + v * N;
            for (int j = 0; j < N; ++j) exponents[j] += weight.exponent;
            common_exponent(at, work.products + v * at.cells, nullptr, exponents);
        }
        double* const products = work.products;
        work.products = work.values;
        work.values = products;
        if (recorded >= 0)
            each(*this, [&](int64_t of, int64_t lane) {
                record_norm(job.adjoint_norm, recorded * job.ensemble + of, at, work.values,
                            exponent(work.exponent, lane), lane);
            });
    }
};

template <bool ACROSS>
static LayerWorkspace take_workspace(Arena& arena, const LayerLayout<ACROSS>& at, int64_t vectors) {
    const int64_t cells = at.cells;
    LayerWorkspace work;
    work.values = arena.take<double>(vectors * cells);
    work.products = arena.take<double>(vectors * cells);
    work.evens = arena.take<double>(vectors * cells);
    work.odds = arena.take<double>(vectors * cells);
    work.biases = arena.take<double>(cells);
    work.even_biases = arena.take<double>(cells);
    work.odd_biases = arena.take<double>(cells);
    work.preactivation = arena.take<double>(2 * cells);
    work.slope = arena.take<double>(cells);
    work.shift = arena.take<int64_t>(cells);
    work.scratch = arena.take<double>(2 * cells);
    work.exponent = arena.take<Ints>(vectors * LAYER_VECTORS);
    return work;
}

template <bool ACROSS>
static int64_t workspace_bytes(const LayerLayout<ACROSS>& at, int64_t vectors) {
    const int64_t cells = at.cells;
    return 4 * Arena::size(vectors * cells * 8) + 9 * Arena::size(cells * 8) + 64 * 12 +
           Arena::size(vectors * 64 * LAYER_VECTORS);
}

template <bool ACROSS, bool BACKWARD>
static Status run_layers(const LayersJob& job) {
    const LayerLayout<ACROSS> at(job.width);
    Arena arena(workspace_bytes(at, job.state.vectors));
    if (!arena.memory) return NO_MEMORY;
    LayerWorkspace work = take_workspace(arena, at, job.state.vectors);
    const ScaledLaw weight = scaled_law(job.weight_law), bias = scaled_law(job.bias_law);
    const int64_t together = ACROSS ? 1 : LayerLayout<ACROSS>::LANES;
    for (int64_t begin = job.start; begin < job.stop; begin += together) {
        LayerBlock<ACROSS> block(job, work, begin, min(job.stop - begin, together));
        block.load_vectors(job.state);
        int64_t row = job.row;
        while (BACKWARD && row < job.record && job.recorded_layers[row] < job.last) ++row;
        row -= BACKWARD;
        for (int64_t step = 0; step < job.last - job.first; ++step) {
            const int64_t layer = BACKWARD ? job.last - 1 - step : job.first + step;
            const bool is_recorded = row >= 0 && row < job.record && job.recorded_layers[row] == layer;
            if (BACKWARD)
                block.backward(layer, weight, is_recorded ? row-- : -1);
            else
                block.forward(layer, weight, bias, is_recorded ? row++ : -1);
        }
        block.store_vectors(job.state);
    }
    return OK;
}

template <bool BACKWARD>
static Status run_layers_in_lanes(const LayersJob& job) {
    const bool units =
        job.width >= WIDE_LAYER || job.stop - job.start < job.width || job.weight_law.family == ORTHOGONAL;
    return units ? run_layers<true, BACKWARD>(job) : run_layers<false, BACKWARD>(job);
}

static Status layers_forward(const LayersJob& job) { return run_layers_in_lanes<false>(job); }
static Status layers_backward(const LayersJob& job) { return run_layers_in_lanes<true>(job); }

}  // namespace FASTGRAD_ISA
}  // namespace fastgrad
