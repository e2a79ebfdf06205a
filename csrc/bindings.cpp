// The module fastgrad._cpp: registers the kernels. It takes the jobs of fastgrad/kernels/contract.py, with arrays of
// exactly the right type, C-contiguous, and checks no shapes: the jobs that call it have made or checked all arrays.
#include <pybind11/numpy.h>
#include <pybind11/pybind11.h>
#include <pybind11/stl.h>

#include <algorithm>
#include <string>
#include <tuple>
#include <type_traits>
#include <vector>

#include "jobs.h"
#include "xla_ffi.h"

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

// The kernels of the instruction set that was chosen: what the capsule points to, and so never moves.
fastgrad_api chosen{};

std::vector<std::string> available() {
    std::vector<std::string> names;
    for (const auto* set : instruction_sets)
        if (set->runs_here()) names.emplace_back(set->api.instruction_set);
    return names;
}

void choose(const std::string& name) {
    for (const auto* set : instruction_sets)
        if (name == set->api.instruction_set && set->runs_here()) {
            chosen = set->api;
            return;
        }
    throw py::value_error("instruction set " + name + " does not run here");
}

// Reads the fields of a job by name. The job keeps their arrays alive: it is a tuple.
struct Reader {
    py::handle job;

    template <typename T>
    Array<T> array(const char* name) const {
        const py::object field = job.attr(name);
        if (!Array<T>::check_(field))
            throw py::type_error(std::string(name) + ": expected a C-contiguous array of " +
                                 (std::is_floating_point_v<T> ? "float64" : "int64"));
        return py::reinterpret_borrow<Array<T>>(field);
    }

    template <typename T>
    void read(const char* name, T& field) const {
        using Value = std::remove_pointer_t<T>;
        if constexpr (!std::is_pointer_v<T>)
            field = job.attr(name).cast<T>();
        else if constexpr (std::is_const_v<Value>)
            field = array<std::remove_const_t<Value>>(name).data();
        else
            field = array<Value>(name).mutable_data();
    }
    void read(const char* name, fastgrad::Law& law) const {
        std::tie(law.family, law.location, law.scale) = job.attr(name).cast<std::tuple<int, double, double>>();
    }
    void read(const char* name, fastgrad::ScaledArrays& field) const {
        const py::object pair = job.attr(name);
        Reader{pair}.read("mantissa", field.mantissa);
        Reader{pair}.read("exponent", field.exponent);
    }
};
#define FASTGRAD_READ(type, name) reader.read(#name, job.name);

template <typename Job>
void set_slice(Job& job, int64_t depth, int64_t ensemble, int64_t start, int64_t stop) {
    job.depth = depth, job.ensemble = ensemble, job.start = start, job.stop = stop;
}

template <typename Job>
void set_slice(Job& job, const Reader& reader, int64_t start, int64_t stop) {
    const Floats weight = reader.array<double>("weight");
    set_slice(job, weight.shape(0), weight.shape(1), start, stop);
}

template <typename Job>
void set_page(Job& job, const Ints& recorded, int64_t first, int64_t last) {
    job.first = first, job.last = last, job.record = recorded.shape(0);
    job.row = std::lower_bound(recorded.data(), recorded.data() + job.record, first) - recorded.data();
}

// Returns whether every weight and bias was finite.
template <typename Job>
bool run(int (*kernel)(const Job*), const Job& job) {
    int status;
    {
        py::gil_scoped_release released;  // the kernel sees only raw memory that the caller's arguments keep alive
        status = kernel(&job);
    }
    if (status == fastgrad::NO_MEMORY) throw std::bad_alloc();
    if (status == fastgrad::NO_KERNEL) throw py::value_error("nonlinearity: no kernel for this code");
    return status == fastgrad::OK;
}

bool backprop(py::handle given, int64_t start, int64_t stop) {
    const Reader reader{given};
    fastgrad::BackpropJob job{};
    set_slice(job, reader, start, stop);
    FASTGRAD_BACKPROP_FIELDS(FASTGRAD_READ)
    return run(chosen.backprop, job);
}

bool backprop_segments(py::handle given, py::handle segments, int stage, int64_t first, int64_t last, int64_t member) {
    fastgrad::SegmentsJob stages{};
    {
        const Reader reader{given};
        fastgrad::BackpropJob& job = stages.chains;
        set_slice(job, reader, member, member + 1);
        FASTGRAD_BACKPROP_FIELDS(FASTGRAD_READ)
    }
    {
        const Reader reader{segments};
        fastgrad_segments& job = stages.segments;
        FASTGRAD_SEGMENTS_FIELDS(FASTGRAD_READ)
    }
    stages.stage = stage, stages.first = first, stages.last = last;
    return run(chosen.backprop_segments, stages);
}

fastgrad::State read_state(const Reader& reader) {
    fastgrad::State job{};
    FASTGRAD_STATE_FIELDS(FASTGRAD_READ)
    return job;
}

void propagate(py::handle given, py::handle state, int64_t first, int64_t last, int64_t start, int64_t stop) {
    const Reader reader{given};
    fastgrad::PropagateJob job{};
    set_slice(job, reader, start, stop);
    set_page(job, reader.array<int64_t>("recorded_links"), first, last);
    FASTGRAD_PROPAGATE_FIELDS(FASTGRAD_READ)
    job.state = read_state({state});
    run(chosen.propagate, job);
}

void suffix_products(py::handle given, int64_t start, int64_t stop) {
    const Reader reader{given};
    fastgrad::PropagateJob job{};
    set_slice(job, reader, start, stop);
    set_page(job, reader.array<int64_t>("recorded_links"), 0, 0);
    FASTGRAD_PROPAGATE_FIELDS(FASTGRAD_READ)
    run(chosen.suffix_products, job);
}

void train(py::handle given, int64_t first, int64_t last, int64_t start, int64_t stop) {
    const Reader reader{given};
    fastgrad::TrainJob job{};
    set_slice(job, reader, start, stop);
    set_page(job, reader.array<int64_t>("recorded_steps"), first, last);
    FASTGRAD_TRAIN_FIELDS(FASTGRAD_READ)
    run(chosen.train, job);
}

void layers(int (*kernel)(const fastgrad::LayersJob*), py::handle given, py::handle vectors, Floats tape, int64_t first,
            int64_t last, int64_t start, int64_t stop) {
    const Reader reader{given}, state{vectors};
    const Floats value = state.array<double>("value");
    fastgrad::LayersJob job{};
    set_slice(job, 0, value.shape(0), start, stop);
    set_page(job, reader.array<int64_t>("recorded_layers"), first, last);
    FASTGRAD_LAYERS_FIELDS(FASTGRAD_READ)
    job.state = {state.array<double>("value").mutable_data(), state.array<int64_t>("exponent").mutable_data(),
                 value.shape(1)};
    job.width = value.shape(2);
    job.tape = tape.shape(0) ? tape.mutable_data() : nullptr;
    run(kernel, job);
}

// For those who have no struct at hand: the arguments are the fields of a job, and members 0 to ensemble - 1 are run.
int backprop_arrays(int64_t depth, int64_t ensemble, const double* weight, const double* bias, const double* x,
                    const double* cotangent, double* output, double* grad_weight, int64_t* grad_weight_exponent,
                    double* grad_bias, int64_t* grad_bias_exponent, double* grad_x, int64_t* grad_x_exponent) {
    fastgrad::BackpropJob job{};
    set_slice(job, depth, ensemble, 0, ensemble);
    job.weight = weight, job.bias = bias, job.nonlinearity = fastgrad::SIGMOID, job.x = x, job.cotangent = cotangent;
    job.output = output;
    job.grad_weight = {grad_weight, grad_weight_exponent};
    job.grad_bias = {grad_bias, grad_bias_exponent};
    job.grad_x = {grad_x, grad_x_exponent};
    return chosen.backprop(&job);
}

void* xla_backprop(const fastgrad::xla::CallFrame* frame) { return fastgrad::xla::backprop(frame, chosen.backprop); }

int backprop_job(const fastgrad_backprop_job* job) { return chosen.backprop(job); }
int propagate_job(const fastgrad_propagate_job* job) { return chosen.propagate(job); }
int train_job(const fastgrad_train_job* job) { return chosen.train(job); }

// The functions as Cython exports its own: each a capsule that is named as its type in C.
void export_functions(py::module_& module) {
    py::dict functions;
    const auto add = [&](const char* name, auto* function, const char* type) {
        functions[name] = py::capsule(reinterpret_cast<void*>(function), type);
    };
    add("backprop", &backprop_job, "int (fastgrad_backprop_job const *)");
    add("propagate", &propagate_job, "int (fastgrad_propagate_job const *)");
    add("train", &train_job, "int (fastgrad_train_job const *)");
    add("backprop_arrays", &backprop_arrays,
        "int (int64_t, int64_t, double const *, double const *, double const *, double const *, double *, double *, "
        "int64_t *, double *, int64_t *, double *, int64_t *)");
    module.attr("__pyx_capi__") = functions;
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
    module.attr("kernel_version") = int{fastgrad::KERNEL_VERSION};
    choose(available().back());
    module.def("instruction_sets", &available, "Names of the instruction sets that run here, slowest first.");
    module.def("choose", &choose, py::arg("instruction_set"), "Choose the instruction set; before any kernel runs.");
    module.def("chosen", [] { return chosen.instruction_set; });
    module.def("backprop", &backprop, "A slice, with (job, start, stop): fastgrad/kernels/contract.py.");
    module.def("backprop_segments", &backprop_segments,
               "A stage of a deep chain, with (job, segments, stage, first, last, member).");
    module.def("propagate", &propagate, "A page, with (job, state, first, last, start, stop).");
    module.def("suffix_products", &suffix_products,
               "Recorded gradients of a slice, in place, with (job, start, stop).");
    module.def("train", &train, "A page, with (job, first, last, start, stop).");
    const auto def_layers = [&](const char* name, auto kernel) {
        module.def(
            name,
            [kernel](py::handle job, py::handle state, Floats tape, int64_t first, int64_t last, int64_t start,
                     int64_t stop) { layers(chosen.*kernel, job, state, tape, first, last, start, stop); },
            py::arg("job"), py::arg("state"), py::arg("tape").noconvert(), py::arg("first"), py::arg("last"),
            py::arg("start"), py::arg("stop"));
    };
    def_layers("layers_forward", &fastgrad_api::layers_forward);
    def_layers("layers_backward", &fastgrad_api::layers_backward);
    module.attr("_C_API") = py::capsule(&chosen, "fastgrad._cpp._C_API");
    module.attr("xla_backprop") = py::capsule(reinterpret_cast<void*>(&xla_backprop), "xla._CUSTOM_CALL_TARGET");
    export_functions(module);
}
