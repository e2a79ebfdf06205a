// The instruction sets of an x86-64 processor, asked for directly: __builtin_cpu_supports needs the compiler's runtime
// library, which clang-cl does not link.
#pragma once

#include "jobs.h"

#if defined(FASTGRAD_X86_64_SETS)
#include <cpuid.h>

namespace fastgrad {

// Intel's manual, volume 2, CPUID and XGETBV: bits of leaf 7's ebx, and of the registers that the system saves.
constexpr unsigned AVX2 = 1u << 5, AVX512F = 1u << 16, AVX512DQ = 1u << 17;
constexpr unsigned YMM_SAVED = 0x6, ZMM_SAVED = 0xe6;

static inline bool processor_has(unsigned sets, unsigned saved) {
    constexpr unsigned OSXSAVE_AND_AVX = 1u << 27 | 1u << 28;
    unsigned eax, ebx, ecx, edx, low, high;
    if (!__get_cpuid(1, &eax, &ebx, &ecx, &edx) || (ecx & OSXSAVE_AND_AVX) != OSXSAVE_AND_AVX) return false;
    asm volatile("xgetbv" : "=a"(low), "=d"(high) : "c"(0));
    if ((low & saved) != saved) return false;
    return __get_cpuid_count(7, 0, &eax, &ebx, &ecx, &edx) && (ebx & sets) == sets;
}

}  // namespace fastgrad
#endif
