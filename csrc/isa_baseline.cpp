// What every processor of the architecture runs: SSE2 on x86-64, NEON on arm64.
#include "jobs.h"

#if defined(__x86_64__)
#include <immintrin.h>
#endif

#define FASTGRAD_ISA isa_baseline
#define FASTGRAD_LANES 2
#include "backprop.h"
#include "propagate.h"
#include "train.h"

namespace fastgrad {
const InstructionSet baseline{"baseline", [] { return true; }, isa_baseline::backprop, isa_baseline::propagate, isa_baseline::train};
}
