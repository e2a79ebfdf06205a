// The kernels for AVX2. The headers of the standard library come before the target: what they inline stays neutral.
#include "processor.h"

#if defined(FASTGRAD_X86_64_SETS)
#include <immintrin.h>

static bool runs_here() { return fastgrad::processor_has(fastgrad::AVX2, fastgrad::YMM_SAVED); }

#if defined(__clang__)
#pragma clang attribute push(__attribute__((target("avx2"))), apply_to = function)
#else
#pragma GCC target("avx2")
#endif

#define FASTGRAD_ISA avx2
#define FASTGRAD_VECTOR_LANES 4
#include "instruction_set.h"

#if defined(__clang__)
#pragma clang attribute pop
#else
#pragma GCC reset_options
#endif
#endif
