// The kernels for AVX-512 (F and DQ). The headers of the standard library come before the target: what they inline
// stays neutral.
#include "processor.h"

#if defined(FASTGRAD_X86_64_SETS)
#include <immintrin.h>

static bool runs_here() { return fastgrad::processor_has(fastgrad::AVX512F | fastgrad::AVX512DQ, fastgrad::ZMM_SAVED); }

#if defined(__clang__)
#pragma clang attribute push(__attribute__((target("avx512f,avx512dq"))), apply_to = function)
#else
#pragma GCC target("avx512f,avx512dq")
#endif

#define FASTGRAD_ISA avx512
#define FASTGRAD_VECTOR_LANES 8
#include "instruction_set.h"

#if defined(__clang__)
#pragma clang attribute pop
#else
#pragma GCC reset_options
#endif
#endif
