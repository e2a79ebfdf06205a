// The kernels for one instruction set, and its row of the table. The isa_*.cpp files include this once each; they set
// the target of the compiler, and define FASTGRAD_ISA (the name), FASTGRAD_VECTOR_LANES (doubles of a vector) and
// runs_here().
#pragma once

#include "backprop.h"
#include "layers.h"
#include "propagate.h"
#include "train.h"

#define FASTGRAD_NAME_OF(name) #name
#define FASTGRAD_NAME(name) FASTGRAD_NAME_OF(name)

namespace fastgrad {
namespace FASTGRAD_ISA {

// A constant: no code for a newer processor runs when the module is loaded.
const InstructionSet instruction_set{FASTGRAD_NAME(FASTGRAD_ISA),
                                     runs_here,
                                     backprop<Sigmoid>,
                                     propagate<Sigmoid>,
                                     train<Sigmoid>,
                                     layers_forward,
                                     layers_backward};

}  // namespace FASTGRAD_ISA
}  // namespace fastgrad
