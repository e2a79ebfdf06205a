// Vectors of FASTGRAD_VECTOR_LANES doubles, and the few operations on them that the kernels need. Included, like
// everything below it, once per instruction set into a namespace of its own (FASTGRAD_ISA): no function here may be
// shared, or the linker could hand code for a newer processor to an older one. Hence no templates of the standard
// library either.
#pragma once

#if !defined(FASTGRAD_ISA) || !defined(FASTGRAD_VECTOR_LANES)
#error "include this from one of the isa_*.cpp files"
#endif

#include <cstdint>

#define FASTGRAD_INLINE static inline __attribute__((always_inline))

namespace fastgrad {
namespace FASTGRAD_ISA {

constexpr int VECTOR_LANES = FASTGRAD_VECTOR_LANES;
constexpr int BLOCK = 32;                      // chains, or segments of one chain, side by side
constexpr int VECTORS = BLOCK / VECTOR_LANES;  // in flight together: they hide the latency of exp and division

constexpr int64_t PREFETCH_LINKS = 16;  // links
constexpr int64_t TILE = 8;             // links of a copy, or of draws, in the first-level cache

// A row of lanes is written out where there are registers enough, so that its state stays in them.
#define FASTGRAD_ROW(N) _Pragma("GCC unroll 4") for (int j = 0; j < N; ++j)

// Vector extensions of GCC and Clang: operators work lane by lane, a comparison gives -1 or 0 in each.
typedef double Floats __attribute__((vector_size(8 * FASTGRAD_VECTOR_LANES)));
typedef int64_t Ints __attribute__((vector_size(8 * FASTGRAD_VECTOR_LANES)));
typedef uint64_t UInts __attribute__((vector_size(8 * FASTGRAD_VECTOR_LANES)));

FASTGRAD_INLINE Ints bits_of(Floats v) { return (Ints)v; }
FASTGRAD_INLINE Floats float_of(Ints v) { return (Floats)v; }
FASTGRAD_INLINE Floats broadcast(double value) { return value - Floats{}; }  // not Floats{} + value: that loses -0.0
FASTGRAD_INLINE Ints broadcast(int64_t value) { return value - Ints{}; }
FASTGRAD_INLINE Floats select(Ints mask, Floats a, Floats b) { return mask ? a : b; }
FASTGRAD_INLINE Ints select(Ints mask, Ints a, Ints b) { return mask ? a : b; }
FASTGRAD_INLINE Floats abs(Floats v) { return float_of(bits_of(v) & INT64_MAX); }

FASTGRAD_INLINE int64_t min(int64_t a, int64_t b) { return a < b ? a : b; }

FASTGRAD_INLINE Floats load(const double* from) {
    Floats v;
    __builtin_memcpy(&v, from, sizeof v);
    return v;
}

FASTGRAD_INLINE Ints load(const int64_t* from) {
    Ints v;
    __builtin_memcpy(&v, from, sizeof v);
    return v;
}

// The first n lanes; the others become `rest`.
FASTGRAD_INLINE Floats load(const double* from, int n, double rest) {
    if (n == VECTOR_LANES) return load(from);
    Floats v = broadcast(rest);
    for (int i = 0; i < n; ++i) v[i] = from[i];
    return v;
}

FASTGRAD_INLINE Ints load(const int64_t* from, int n) {
    if (n == VECTOR_LANES) return load(from);
    Ints v{};
    for (int i = 0; i < n; ++i) v[i] = from[i];
    return v;
}

template <typename T, typename V>
FASTGRAD_INLINE void store(T* to, V v, int n = VECTOR_LANES) {
    if (n == VECTOR_LANES) {
        __builtin_memcpy(to, &v, sizeof v);
    } else {
        for (int i = 0; i < n; ++i) to[i] = v[i];
    }
}

// Integers below 2^53, exactly. Without an instruction for it: the low 32 bits and the high 21 as doubles of their own.
FASTGRAD_INLINE Floats to_floats(UInts i) {
#if FASTGRAD_VECTOR_LANES == 8
    return __builtin_convertvector((Ints)i, Floats);
#else
    const Floats low = float_of((Ints)((i & 0xFFFFFFFFu) | 0x4330000000000000u));
    const Floats high = float_of((Ints)((i >> 32) | 0x4530000000000000u));
    return (high - (0x1p84 + 0x1p52)) + low;
#endif
}

// Operations for which there is no operator: is any lane set; square root; 32 x 32 -> 64 bit product of the low halves; the high half
// of each lane in the low one, and two low halves in one lane, by shuffles, for which Intel has more room than for
// shifts; a store that bypasses the cache (the address must be a multiple of the vector's size).
#if defined(__x86_64__) && FASTGRAD_VECTOR_LANES == 8
FASTGRAD_INLINE bool any(Ints mask) { return _mm512_test_epi64_mask((__m512i)mask, (__m512i)mask) != 0; }
// Masks stay masks: GCC would make vectors of them, and masks again.
typedef __mmask8 Mask;
constexpr Mask ALL = 0xFF;
FASTGRAD_INLINE bool all(Mask mask) { return mask == ALL; }
FASTGRAD_INLINE Mask at_most(Mask mask, Floats v, double high) {
    return _mm512_mask_cmp_pd_mask(mask, (__m512d)v, (__m512d)broadcast(high), _CMP_LE_OQ);
}
FASTGRAD_INLINE Mask at_least(Mask mask, Floats v, double low) {
    return _mm512_mask_cmp_pd_mask(mask, (__m512d)v, (__m512d)broadcast(low), _CMP_GE_OQ);
}
FASTGRAD_INLINE Mask zero_or_at_least(Mask mask, Floats v, double low) {
    const Mask below = _mm512_mask_cmp_pd_mask(mask, (__m512d)v, (__m512d)broadcast(low), _CMP_LT_OQ);
    return mask & ~_mm512_mask_cmp_pd_mask(below, (__m512d)v, (__m512d)Floats{}, _CMP_NEQ_OQ);
}
FASTGRAD_INLINE Floats square_root(Floats v) { return (Floats)_mm512_sqrt_pd((__m512d)v); }
FASTGRAD_INLINE UInts multiply_low(UInts a, UInts b) { return (UInts)_mm512_mul_epu32((__m512i)a, (__m512i)b); }
FASTGRAD_INLINE UInts high_words(UInts v) { return (UInts)_mm512_shuffle_epi32((__m512i)v, (_MM_PERM_ENUM)0xF5); }
FASTGRAD_INLINE UInts join_words(UInts high, UInts low) {
    return (UInts)_mm512_mask_shuffle_epi32((__m512i)low, (__mmask16)0xAAAA, (__m512i)high, (_MM_PERM_ENUM)0xA0);
}
FASTGRAD_INLINE void stream(double* to, Floats v) { _mm512_stream_pd(to, (__m512d)v); }
FASTGRAD_INLINE void stream(int64_t* to, Ints v) { _mm512_stream_si512((__m512i*)to, (__m512i)v); }
FASTGRAD_INLINE void stream_end() { _mm_sfence(); }
#elif defined(__x86_64__) && FASTGRAD_VECTOR_LANES == 4
FASTGRAD_INLINE bool any(Ints mask) { return _mm256_movemask_pd((__m256d)mask) != 0; }
FASTGRAD_INLINE Floats square_root(Floats v) { return (Floats)_mm256_sqrt_pd((__m256d)v); }
FASTGRAD_INLINE UInts multiply_low(UInts a, UInts b) { return (UInts)_mm256_mul_epu32((__m256i)a, (__m256i)b); }
FASTGRAD_INLINE void stream(double* to, Floats v) { _mm256_stream_pd(to, (__m256d)v); }
FASTGRAD_INLINE void stream(int64_t* to, Ints v) { _mm256_stream_si256((__m256i*)to, (__m256i)v); }
FASTGRAD_INLINE void stream_end() { _mm_sfence(); }
#elif defined(__x86_64__) && FASTGRAD_VECTOR_LANES == 2
FASTGRAD_INLINE bool any(Ints mask) { return _mm_movemask_pd((__m128d)mask) != 0; }
FASTGRAD_INLINE Floats square_root(Floats v) { return (Floats)_mm_sqrt_pd((__m128d)v); }
FASTGRAD_INLINE UInts multiply_low(UInts a, UInts b) { return (UInts)_mm_mul_epu32((__m128i)a, (__m128i)b); }
FASTGRAD_INLINE void stream(double* to, Floats v) { _mm_stream_pd(to, (__m128d)v); }
FASTGRAD_INLINE void stream(int64_t* to, Ints v) { _mm_stream_si128((__m128i*)to, (__m128i)v); }
FASTGRAD_INLINE void stream_end() { _mm_sfence(); }
#else
FASTGRAD_INLINE bool any(Ints mask) {
    int64_t set = 0;
    for (int i = 0; i < VECTOR_LANES; ++i) set |= mask[i];
    return set != 0;
}
FASTGRAD_INLINE Floats square_root(Floats v) {
    for (int i = 0; i < VECTOR_LANES; ++i) v[i] = __builtin_sqrt(v[i]);
    return v;
}
FASTGRAD_INLINE UInts multiply_low(UInts a, UInts b) { return (a & 0xFFFFFFFFu) * (b & 0xFFFFFFFFu); }
template <typename T, typename V>
FASTGRAD_INLINE void stream(T* to, V v) {
    store(to, v);
}
FASTGRAD_INLINE void stream_end() {}
#endif

#if !defined(__x86_64__) || FASTGRAD_VECTOR_LANES != 8
FASTGRAD_INLINE UInts high_words(UInts v) { return v >> 32; }
FASTGRAD_INLINE UInts join_words(UInts high, UInts low) { return (high << 32) | (low & 0xFFFFFFFFu); }
typedef Ints Mask;
constexpr Mask ALL = ~Mask{};
FASTGRAD_INLINE bool all(Mask mask) { return !any(~mask); }
// The lanes of `mask` where the condition holds too; it never holds for what is not a number.
FASTGRAD_INLINE Mask at_most(Mask mask, Floats v, double high) { return mask & (v <= high); }
FASTGRAD_INLINE Mask at_least(Mask mask, Floats v, double low) { return mask & (v >= low); }
FASTGRAD_INLINE Mask zero_or_at_least(Mask mask, Floats v, double low) { return mask & ((v >= low) | (v == 0.0)); }
#endif

// Rows of a block lie pages apart, where no prefetcher of the processor looks. Into the second-level cache: where the
// ensemble is a power of two, the few ways of the first would lose rows before their turn.
FASTGRAD_INLINE void prefetch(const double* from) { __builtin_prefetch(from, 0, 2); }

// Swaps blocks of `STEP` lanes between rows `STEP` apart.
template <int STEP>
FASTGRAD_INLINE void swap_blocks(Floats* row) {
    Ints lane;
    for (int k = 0; k < VECTOR_LANES; ++k) lane[k] = k;
    const Ints upper = (lane & STEP) != 0;
    const Ints first = select(upper, lane - STEP + VECTOR_LANES, lane),
               second = select(upper, lane + VECTOR_LANES, lane + STEP);
#pragma GCC unroll 8
    for (int k = 0; k < VECTOR_LANES; ++k) {
        if (k & STEP) continue;
        const Floats a = row[k], b = row[k + STEP];
#if defined(__clang__)
        for (int i = 0; i < VECTOR_LANES; ++i) {
            row[k][i] = first[i] < VECTOR_LANES ? a[first[i] % VECTOR_LANES] : b[first[i] % VECTOR_LANES];
            row[k + STEP][i] = second[i] < VECTOR_LANES ? a[second[i] % VECTOR_LANES] : b[second[i] % VECTOR_LANES];
        }
#else
        row[k] = __builtin_shuffle(a, b, first);
        row[k + STEP] = __builtin_shuffle(a, b, second);
#endif
    }
}

// VECTOR_LANES rows of VECTOR_LANES: row i, lane k becomes row k, lane i.
FASTGRAD_INLINE void transpose(Floats* row) {
    if (VECTOR_LANES > 4) swap_blocks<4 % VECTOR_LANES>(row);
    if (VECTOR_LANES > 2) swap_blocks<2 % VECTOR_LANES>(row);
    swap_blocks<1>(row);
}

}  // namespace FASTGRAD_ISA
}  // namespace fastgrad
