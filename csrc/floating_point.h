// The processor's floating-point arithmetic as IEEE 754 has it, for the time of a call. XLA, and libraries that were
// linked with -ffast-math, let a thread take subnormal numbers for 0, and others change its rounding.
#pragma once

#include <cstdint>

namespace fastgrad {
namespace FASTGRAD_ISA {

class IeeeArithmetic {
public:
#if defined(__x86_64__)
    IeeeArithmetic() : before(__builtin_ia32_stmxcsr()) { set(0x1f80); }  // to nearest, nothing flushed, no traps
#elif defined(__aarch64__)
    IeeeArithmetic() {
        asm volatile("mrs %0, fpcr" : "=r"(before));
        set(0);
    }
#else
    IeeeArithmetic() : before(0) {}
#endif
    ~IeeeArithmetic() { set(before); }
    IeeeArithmetic(const IeeeArithmetic&) = delete;
    IeeeArithmetic& operator=(const IeeeArithmetic&) = delete;

private:
#if defined(__aarch64__)
    using Control = uint64_t;
    static void set(Control control) { asm volatile("msr fpcr, %0" : : "r"(control) : "memory"); }
#else
    using Control = unsigned;
    static void set(Control control) {
#if defined(__x86_64__)
        __builtin_ia32_ldmxcsr(control);
        asm volatile("" : : : "memory");  // no arithmetic moves across: what it works on is read after this
#else
        (void)control;
#endif
    }
#endif
    Control before;
};

}  // namespace FASTGRAD_ISA
}  // namespace fastgrad
