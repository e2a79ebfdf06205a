// The kernels for what every processor of the architecture runs: SSE2 on x86-64, NEON on arm64.
#include "jobs.h"

#if defined(__x86_64__)
#include <immintrin.h>
#endif

static bool runs_here() { return true; }

#define FASTGRAD_ISA baseline
#define FASTGRAD_VECTOR_LANES 2
#include "instruction_set.h"
