// The module fastgrad._cpp: registers the kernels. It takes the jobs of fastgrad/kernels/contract.py, with arrays of
// exactly the right type, C-contiguous, and checks no shapes: the jobs that call it have made or checked all arrays.
#include <pybind11/numpy.h>
#include <pybind11/pybind11.h>
#include <pybind11/stl.h>

#include <algorithm>
#include <string>
#include <tuple>
#include <type_traits>
#include <utility>
#include <vector>

#include "jobs.h"

namespace py = pybind11;

namespace {

template <typename T>
using Array = py::array_t<T, py::array::c_style>;
using Floats = Array<double>;
using Ints = Array<int64_t>;

// Slowest first.
const fastgrad::InstructionSet* const instruction_sets[] = {
    &fastgrad::baseline::instruction_set,
#if defined(FASTGRAD_X86_64_SETS)
    &fastgrad::avx2::instruction_set,
    &fastgrad::avx512::instruction_set,
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

// Reads the fields of a job by name. The job keeps their arrays alive: it is a tuple.
struct Fields {
    py::handle job;

    template <typename T>
    Array<std::remove_const_t<T>> array(const char* name) const {
        const py::object field = job.attr(name);
        if (!Array<std::remove_const_t<T>>::check_(field))
            throw py::type_error(std::string(name) + ": expected a C-contiguous array of " +
                                 (std::is_floating_point<T>::value ? "float64" : "int64"));
        return py::reinterpret_borrow<Array<std::remove_const_t<T>>>(field);
    }

    std::pair<int64_t, int64_t> shape(const char* name) const {
        const Floats field = array<double>(name);
        return {field.shape(0), field.shape(1)};
    }

    template <typename T>
    void read(const char* name, T& field) const { field = job.attr(name).cast<T>(); }
    template <typename T>
    void read(const char* name, const T*& field) const { field = array<T>(name).data(); }
    template <typename T>
    void read(const char* name, T*& field) const { field = array<T>(name).mutable_data(); }
    void read(const char* name, fastgrad::Law& field) const {
        const auto law = job.attr(name).cast<std::tuple<int, double, double>>();
        field = {std::get<0>(law), std::get<1>(law), std::get<2>(law)};
    }
    void read(const char* name, fastgrad::ScaledArrays& field) const {
        const py::object pair = job.attr(name);
        Fields{pair}.read("mantissa", field.mantissa);
        Fields{pair}.read("exponent", field.exponent);
    }
};

#define FASTGRAD_READ(type, name) fields.read(#name, job.name);

// Says which members to run, over which links or steps, and which row is the first to be recorded.
template <typename Job>
void set_range(Job& job, int64_t start, int64_t stop) {
    job.start = start;
    job.stop = stop;
}

template <typename Job>
void set_range(Job& job, int64_t start, int64_t stop, int64_t first, int64_t last, const Ints& recorded) {
    set_range(job, start, stop);
    job.first = first;
    job.last = last;
    job.record = recorded.shape(0);
    job.row = std::lower_bound(recorded.data(), recorded.data() + job.record, first) - recorded.data();
}

// Returns whether every weight and bias was finite.
template <typename Job>
bool run(fastgrad::Status (*kernel)(const Job&), const Job& job) {
    fastgrad::Status status;
    {
        py::gil_scoped_release released;  // the kernel sees only raw memory that the caller's arguments keep alive
        status = kernel(job);
    }
    if (status == fastgrad::NO_MEMORY) throw std::bad_alloc();
    return status == fastgrad::OK;
}

bool backprop(py::handle given, int64_t start, int64_t stop) {
    const Fields fields{given};
    fastgrad::BackpropJob job{};
    FASTGRAD_BACKPROP_FIELDS(FASTGRAD_READ)
    std::tie(job.depth, job.ensemble) = fields.shape("weight");
    set_range(job, start, stop);
    return run(chosen->backprop, job);
}

fastgrad::State state_of(py::handle given) {
    const Fields fields{given};
    fastgrad::State job{};
    FASTGRAD_STATE_FIELDS(FASTGRAD_READ)
    return job;
}

void propagate(py::handle given, py::handle state, int64_t first, int64_t last, int64_t start, int64_t stop) {
    const Fields fields{given};
    fastgrad::PropagateJob job{};
    FASTGRAD_PROPAGATE_FIELDS(FASTGRAD_READ)
    job.state = state_of(state);
    job.ensemble = fields.shape("weight").second;
    set_range(job, start, stop, first, last, fields.array<int64_t>("recorded_links"));
    run(chosen->propagate, job);
}

void train(py::handle given, int64_t first, int64_t last, int64_t start, int64_t stop) {
    const Fields fields{given};
    fastgrad::TrainJob job{};
    FASTGRAD_TRAIN_FIELDS(FASTGRAD_READ)
    std::tie(job.depth, job.ensemble) = fields.shape("weight");
    set_range(job, start, stop, first, last, fields.array<int64_t>("recorded_steps"));
    run(chosen->train, job);
}

void layers(fastgrad::Status (*kernel)(const fastgrad::LayersJob&), py::handle given, py::handle vectors, Floats tape,
            int64_t first, int64_t last, int64_t start, int64_t stop) {
    const Fields fields{given}, state{vectors};
    fastgrad::LayersJob job{};
    FASTGRAD_LAYERS_FIELDS(FASTGRAD_READ)
    const Floats value = state.array<double>("value");
    job.state = {state.array<double>("value").mutable_data(), state.array<int64_t>("exponent").mutable_data(), value.shape(1)};
    job.ensemble = value.shape(0);
    job.width = value.shape(2);
    job.tape = tape.shape(0) ? tape.mutable_data() : nullptr;
    set_range(job, start, stop, first, last, fields.array<int64_t>("recorded_layers"));
    run(kernel, job);
}

}  // namespace

PYBIND11_MODULE(_cpp, module, py::mod_gil_not_used()) {
    module.doc() = "The C++ kernels; use them through fastgrad.backprop, fastgrad.simulate and fastgrad.train.";
#if defined(__clang__)
    module.attr("compiler") = "Clang " __clang_version__;
#elif defined(__GNUC__)
    module.attr("compiler") = "GCC " __VERSION__;
#else
    module.attr("compiler") = "unknown";
#endif
    module.attr("compile_flags") = FASTGRAD_COMPILE_FLAGS;
    module.attr("kernel_version") = (int)fastgrad::KERNEL_VERSION;
    choose(available().back());
    module.def("instruction_sets", &available, "Names of the instruction sets that run here, slowest first.");
    module.def("choose", &choose, py::arg("instruction_set"), "Choose the instruction set; before any kernel runs.");
    module.def("chosen", [] { return chosen->name; });
    module.def("backprop", &backprop, py::arg("job"), py::arg("start"), py::arg("stop"));
    module.def("propagate", &propagate, py::arg("job"), py::arg("state"), py::arg("first"), py::arg("last"),
               py::arg("start"), py::arg("stop"));
    const auto def_layers = [&](const char* name, auto kernel) {
        module.def(
            name,
            [kernel](py::handle job, py::handle state, Floats tape, int64_t first, int64_t last, int64_t start, int64_t stop) {
                layers(chosen->*kernel, job, state, tape, first, last, start, stop);
            },
            py::arg("job"), py::arg("state"), py::arg("tape").noconvert(), py::arg("first"), py::arg("last"),
            py::arg("start"), py::arg("stop"));
    };
    def_layers("layers_forward", &fastgrad::InstructionSet::layers_forward);
    def_layers("layers_backward", &fastgrad::InstructionSet::layers_backward);
    module.def("train", &train, py::arg("job"), py::arg("first"), py::arg("last"), py::arg("start"), py::arg("stop"));
}
