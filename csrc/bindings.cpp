// The module fastgrad._cpp: registers the kernels. It takes arrays of exactly the right type, C-contiguous, and checks
// no shapes: fastgrad/kernels/native.py is its one caller, and hands over what chain.py and simulate.py have checked.
#include <pybind11/numpy.h>
#include <pybind11/pybind11.h>
#include <pybind11/stl.h>

#include <string>
#include <tuple>
#include <vector>

#include "jobs.h"

namespace py = pybind11;

namespace {

template <typename T>
using Array = py::array_t<T, py::array::c_style>;
using Floats = Array<double>;
using Ints = Array<int64_t>;
using LawTuple = std::tuple<int, double, double>;

// Slowest first.
const fastgrad::InstructionSet* const instruction_sets[] = {
    &fastgrad::baseline,
#if defined(FASTGRAD_X86_64_SETS)
    &fastgrad::avx2,
    &fastgrad::avx512,
#endif
};

const fastgrad::InstructionSet* chosen = nullptr;

std::vector<std::string> available() {
    std::vector<std::string> names;
    for (const auto* set : instruction_sets)
        if (set->runs_here()) names.emplace_back(set->name);
    return names;
}

void choose(const std::string& name) {
    for (const auto* set : instruction_sets)
        if (name == set->name && set->runs_here()) {
            chosen = set;
            return;
        }
    throw py::value_error("instruction set " + name + " does not run here");
}

fastgrad::Law law(const LawTuple& fields) { return {std::get<0>(fields), std::get<1>(fields), std::get<2>(fields)}; }

fastgrad::ScaledPointer scaled(Floats& mantissa, Ints& exponent) {
    return {mantissa.mutable_data(), exponent.mutable_data()};
}

// Returns whether every weight and bias was finite.
template <typename Job>
bool run(fastgrad::Outcome (*kernel)(const Job&), const Job& job) {
    fastgrad::Outcome outcome;
    {
        py::gil_scoped_release released;  // the kernel sees only raw memory that the caller's arguments keep alive
        outcome = kernel(job);
    }
    if (outcome == fastgrad::NO_MEMORY) throw std::bad_alloc();
    return outcome == fastgrad::DONE;
}

bool backprop(const Floats& weight, const Floats& bias, const Floats& x, const Floats& cotangent, Floats output,
              Floats grad_weight_mantissa, Ints grad_weight_exponent, Floats grad_bias_mantissa, Ints grad_bias_exponent,
              Floats grad_x_mantissa, Ints grad_x_exponent, int64_t start, int64_t stop) {
    return run(chosen->backprop,
        fastgrad::BackpropJob{weight.data(), bias.data(), x.data(), cotangent.data(), output.mutable_data(),
                              grad_weight_mantissa.mutable_data(), grad_weight_exponent.mutable_data(),
                              grad_bias_mantissa.mutable_data(), grad_bias_exponent.mutable_data(),
                              grad_x_mantissa.mutable_data(), grad_x_exponent.mutable_data(), weight.shape(0),
                              weight.shape(1), start, stop});
}

void grow(const LawTuple& weight_law, const LawTuple& bias_law, uint64_t seed, int64_t first, int64_t last,
          const Ints& marks, int64_t row, Floats activation, Floats scaled_mantissa, Ints scaled_exponent, Floats weight,
          Floats input_mantissa, Ints input_exponent, Floats derivative_mantissa, Ints derivative_exponent,
          Floats gap_mantissa, Ints gap_exponent, Floats bound_mantissa, Ints bound_exponent, Floats carry_gap_mantissa,
          Ints carry_gap_exponent, Floats carry_bound_mantissa, Ints carry_bound_exponent, int64_t start, int64_t stop) {
    run(chosen->grow,
        fastgrad::GrowJob{law(weight_law), law(bias_law), seed, first, last, marks.data(), marks.shape(0), row,
                          activation.mutable_data(), scaled(scaled_mantissa, scaled_exponent), weight.mutable_data(),
                          scaled(input_mantissa, input_exponent), scaled(derivative_mantissa, derivative_exponent),
                          scaled(gap_mantissa, gap_exponent), scaled(bound_mantissa, bound_exponent),
                          scaled(carry_gap_mantissa, carry_gap_exponent),
                          scaled(carry_bound_mantissa, carry_bound_exponent), activation.shape(0), start, stop});
}

void train(Floats weight, Floats bias, const Floats& x, const Floats& target, const Floats& least_loss, int loss,
           double learning_rate, double clip_value, double clip_norm, double tolerance, int64_t first, int64_t last,
           int64_t steps, const Ints& marks, int64_t row, Floats loss_at, Ints moved, Ints under, Ints left, int64_t start,
           int64_t stop) {
    run(chosen->train,
        fastgrad::TrainJob{weight.mutable_data(), bias.mutable_data(), x.data(), target.data(), least_loss.data(), loss,
                           learning_rate, clip_value, clip_norm, tolerance, first, last, steps, marks.data(),
                           marks.shape(0), row, loss_at.mutable_data(), moved.mutable_data(), under.mutable_data(),
                           left.mutable_data(), weight.shape(0), weight.shape(1), start, stop});
}

}  // namespace

PYBIND11_MODULE(_cpp, module, py::mod_gil_not_used()) {
    const auto exactly = [](const char* name) { return py::arg(name).noconvert(); };
    module.doc() = "The C++ kernels; use them through fastgrad.backprop, fastgrad.simulate and fastgrad.train.";
#if defined(__clang__)
    module.attr("compiler") = "Clang " __clang_version__;
#elif defined(__GNUC__)
    module.attr("compiler") = "GCC " __VERSION__;
#else
    module.attr("compiler") = "unknown";
#endif
    module.attr("compile_flags") = FASTGRAD_COMPILE_FLAGS;
    choose(available().back());
    module.def("instruction_sets", &available, "Names of the instruction sets that run here, slowest first.");
    module.def("choose", &choose, py::arg("instruction_set"), "Choose the instruction set; before any kernel runs.");
    module.def("chosen", [] { return chosen->name; });
    module.def("backprop", &backprop, exactly("weight"), exactly("bias"), exactly("x"), exactly("cotangent"),
               exactly("output"), exactly("grad_weight_mantissa"), exactly("grad_weight_exponent"),
               exactly("grad_bias_mantissa"), exactly("grad_bias_exponent"), exactly("grad_x_mantissa"),
               exactly("grad_x_exponent"), py::arg("start"), py::arg("stop"));
    module.def("grow", &grow, py::arg("weight_law"), py::arg("bias_law"), py::arg("seed"), py::arg("first"),
               py::arg("last"), exactly("marks"), py::arg("row"), exactly("activation"), exactly("scaled_mantissa"),
               exactly("scaled_exponent"), exactly("weight"), exactly("input_mantissa"), exactly("input_exponent"),
               exactly("derivative_mantissa"), exactly("derivative_exponent"), exactly("gap_mantissa"),
               exactly("gap_exponent"), exactly("bound_mantissa"), exactly("bound_exponent"),
               exactly("carry_gap_mantissa"), exactly("carry_gap_exponent"), exactly("carry_bound_mantissa"),
               exactly("carry_bound_exponent"), py::arg("start"), py::arg("stop"));
    module.def("train", &train, exactly("weight"), exactly("bias"), exactly("x"), exactly("target"),
               exactly("least_loss"), py::arg("loss"), py::arg("learning_rate"), py::arg("clip_value"),
               py::arg("clip_norm"), py::arg("tolerance"), py::arg("first"), py::arg("last"), py::arg("steps"),
               exactly("marks"), py::arg("row"), exactly("loss_at"), exactly("moved"), exactly("under"),
               exactly("left"), py::arg("start"), py::arg("stop"));
}
