// The jobs of api.h under the names that kernels have for them, and the table of instruction sets.
// Plain data only: this is shared by code for different instruction sets.
//
// Six words for parts of a job, here and in fastgrad/:
//   slice    members of a call: `start` to `stop` - 1. Threads take slices.
//   page     links, or steps of training, of a call: `first` to `last` - 1.
//   block    members, or segments of one chain, that a kernel runs side by side: BLOCK. Each is a lane; a vector holds
//            VECTOR_LANES of them.
//   group    GROUP_LINKS links of drawn chains, whose product is taken first: 1 to 1024, and so on.
//   segment  links of a lane that are run in one go, forward or back.
//   tile     links of a block that are copied to the first-level cache: TILE.
#pragma once

#include <cstddef>

#include "constants.h"
#if __has_include("api.h")  // as they are installed, side by side
#include "api.h"
#else
#include "include/fastgrad/api.h"
#endif

// Kernels for newer processors are compiled by target attributes, which GCC and Clang have; clang-cl does not define
// __GNUC__.
#if defined(__x86_64__) && (defined(__GNUC__) || defined(__clang__))
#define FASTGRAD_X86_64_SETS
#endif

namespace fastgrad {

using Law = fastgrad_law;
using ScaledArrays = fastgrad_scaled;
using State = fastgrad_state;
using BackpropJob = fastgrad_backprop_job;
using SegmentsJob = fastgrad_segments_job;
using PropagateJob = fastgrad_propagate_job;
using TrainJob = fastgrad_train_job;
using ScaledVectors = fastgrad_scaled_vectors;
using LayersJob = fastgrad_layers_job;

enum Status { OK = FASTGRAD_OK, NOT_FINITE, NO_MEMORY, NO_KERNEL };

static_assert(int{FASTGRAD_NO_KERNEL} == NO_KERNEL && int{FASTGRAD_ORTHOGONAL} == ORTHOGONAL &&
                  int{FASTGRAD_CENTERED} == CENTERED && int{FASTGRAD_UNIFORM} == UNIFORM &&
                  int{FASTGRAD_NORMAL} == NORMAL && int{FASTGRAD_CONSTANT} == CONSTANT &&
                  int{FASTGRAD_SIGMOID} == SIGMOID && int{FASTGRAD_TANH} == TANH && int{FASTGRAD_RELU} == RELU &&
                  int{FASTGRAD_LINEAR} == LINEAR && int{FASTGRAD_SQUARED} == SQUARED &&
                  int{FASTGRAD_CROSS_ENTROPY} == CROSS_ENTROPY && int{FASTGRAD_GUESS} == GUESS &&
                  int{FASTGRAD_FORWARD} == FORWARD && int{FASTGRAD_ADJOINTS} == ADJOINTS &&
                  int{FASTGRAD_BACKWARD} == BACKWARD,
              "api.h has the codes of constants.h");

struct InstructionSet {
    bool (*runs_here)();
    fastgrad_api api;
};

#if !defined(FASTGRAD_HEADER_ONLY)  // there each file has a set of its own
namespace baseline {
extern const InstructionSet instruction_set;
}
#if defined(FASTGRAD_X86_64_SETS)
namespace avx2 {
extern const InstructionSet instruction_set;
}
namespace avx512 {
extern const InstructionSet instruction_set;
}
#endif
#endif

}  // namespace fastgrad
