// The kernels for one instruction set, and its row of the table. The isa_*.cpp files include this once each; they set
// the target of the compiler, and define FASTGRAD_ISA (the name), FASTGRAD_VECTOR_LANES (doubles of a vector) and
// runs_here().
#pragma once

#include "backprop.h"
#include "floating_point.h"
#include "layers.h"
#include "propagate.h"
#include "train.h"

#define FASTGRAD_NAME_OF(name) #name
#define FASTGRAD_NAME(name) FASTGRAD_NAME_OF(name)

namespace fastgrad {
namespace FASTGRAD_ISA {

template <class Job>
static int nonlinearity_of(const Job& job) {
    return job.nonlinearity;
}
[[maybe_unused]] static int nonlinearity_of(const SegmentsJob& job) { return job.chains.nonlinearity; }

// Runs a kernel of chains with the nonlinearity whose code the job has.
template <class Kernel, class Job, class... Phis>
static Status run_chains(Kernel kernel, const Job& job, Nonlinearities<Phis...>) {
    Status status{};
    const bool has_kernel = ((nonlinearity_of(job) == Phis::CODE && (status = kernel(Phis{}, job), true)) || ...);
    return has_kernel ? status : NO_KERNEL;
}

#define FASTGRAD_CHAINS(kernel, Job)                                                             \
    [](const Job* given) -> int {                                                                \
        const IeeeArithmetic arithmetic;                                                         \
        const auto chosen = [](auto phi, const Job& job) { return kernel<decltype(phi)>(job); }; \
        return run_chains(chosen, *given, ChainNonlinearities{});                                \
    }
#define FASTGRAD_LAYERS(kernel)          \
    [](const LayersJob* job) -> int {    \
        const IeeeArithmetic arithmetic; \
        return kernel(*job);             \
    }

// A constant: no code for a newer processor runs when the module is loaded.
const InstructionSet instruction_set{runs_here,
                                     {
                                         FASTGRAD_API_VERSION,
                                         KERNEL_VERSION,
                                         FASTGRAD_NAME(FASTGRAD_ISA),
                                         FASTGRAD_CHAINS(backprop, BackpropJob),
                                         FASTGRAD_CHAINS(backprop_segments, SegmentsJob),
                                         FASTGRAD_CHAINS(propagate, PropagateJob),
                                         FASTGRAD_CHAINS(suffix_products, PropagateJob),
                                         FASTGRAD_CHAINS(train, TrainJob),
                                         FASTGRAD_LAYERS(layers_forward),
                                         FASTGRAD_LAYERS(layers_backward),
                                     }};

}  // namespace FASTGRAD_ISA
}  // namespace fastgrad
