// Memory of a kernel's own.
#pragma once

#include "jobs.h"
#include "simd.h"

namespace fastgrad {
namespace FASTGRAD_ISA {

// One piece of memory for a call, handed out in cache lines. What will be asked for must be known beforehand.
struct Arena {
    char *memory, *next;

    explicit Arena(int64_t bytes) : memory((char*)__builtin_malloc((size_t)bytes + 64)) {
        next = (char*)(((uintptr_t)memory + 63) / 64 * 64);
    }
    Arena(const Arena&) = delete;
    Arena& operator=(const Arena&) = delete;
    ~Arena() { __builtin_free(memory); }

    static int64_t size(int64_t bytes) { return (bytes + 63) / 64 * 64; }
    template <typename T>
    T* take(int64_t count) {
        T* const taken = (T*)next;
        next += size(count * (int64_t)sizeof(T));
        return taken;
    }

    static int64_t scaled_bytes(int64_t count) { return 2 * size(count * 8); }
    ScaledArrays take_scaled(int64_t count) {
        double* const mantissa = take<double>(count);
        return {mantissa, take<int64_t>(count)};
    }
};

}  // namespace FASTGRAD_ISA
}  // namespace fastgrad
