// The module fastgrad._cpp: registers the kernels. It takes arrays of exactly the right type, C-contiguous, and checks
// no shapes: fastgrad/kernels/native.py is its one caller, and hands over what chain.py and simulate.py have checked.
#include <pybind11/numpy.h>
#include <pybind11/pybind11.h>

#include <tuple>

#include "backprop.h"
#include "grow.h"

namespace py = pybind11;

namespace {

template <typename T>
using Array = py::array_t<T, py::array::c_style>;
using Floats = Array<double>;
using Ints = Array<int64_t>;
using LawTuple = std::tuple<int, double, double>;

fastgrad::Law law(const LawTuple& fields) { return {std::get<0>(fields), std::get<1>(fields), std::get<2>(fields)}; }

void backprop(const Floats& weight, const Floats& bias, const Floats& x, const Floats& cotangent, Floats output,
              Floats grad_weight_mantissa, Ints grad_weight_exponent, Floats grad_bias_mantissa, Ints grad_bias_exponent,
              Floats grad_x_mantissa, Ints grad_x_exponent, int64_t start, int64_t stop) {
    const int64_t depth = weight.shape(0), ensemble = weight.shape(1);
    const double *w = weight.data(), *b = bias.data(), *in = x.data(), *c = cotangent.data();
    double *out = output.mutable_data(), *gw = grad_weight_mantissa.mutable_data(),
           *gb = grad_bias_mantissa.mutable_data(), *gx = grad_x_mantissa.mutable_data();
    int64_t *gw_exponent = grad_weight_exponent.mutable_data(), *gb_exponent = grad_bias_exponent.mutable_data(),
            *gx_exponent = grad_x_exponent.mutable_data();
    py::gil_scoped_release released;  // from here on only raw memory that the arguments keep alive
    fastgrad::backprop(w, b, in, c, out, gw, gw_exponent, gb, gb_exponent, gx, gx_exponent, depth, ensemble, start, stop);
}

void grow(const LawTuple& weight_law, const LawTuple& bias_law, uint64_t seed, int64_t first, int64_t last,
          const Ints& marks, Floats activation, Floats scaled_mantissa, Ints scaled_exponent, Floats weight,
          Floats input_mantissa, Ints input_exponent, Floats derivative_mantissa, Ints derivative_exponent,
          Floats gap_mantissa, Ints gap_exponent, Floats bound_mantissa, Ints bound_exponent, int64_t start,
          int64_t stop) {
    const int64_t record = marks.shape(0), ensemble = activation.shape(0);
    const int64_t* mark = marks.data();
    double *o = activation.mutable_data(), *scaled = scaled_mantissa.mutable_data(), *w = weight.mutable_data(),
           *input = input_mantissa.mutable_data(), *derivative = derivative_mantissa.mutable_data(),
           *gap = gap_mantissa.mutable_data(), *bound = bound_mantissa.mutable_data();
    int64_t *scaled_e = scaled_exponent.mutable_data(), *input_e = input_exponent.mutable_data(),
            *derivative_e = derivative_exponent.mutable_data(), *gap_e = gap_exponent.mutable_data(),
            *bound_e = bound_exponent.mutable_data();
    py::gil_scoped_release released;  // from here on only raw memory that the arguments keep alive
    fastgrad::grow(law(weight_law), law(bias_law), seed, first, last, mark, record, o, scaled, scaled_e, w, input, input_e,
                   derivative, derivative_e, gap, gap_e, bound, bound_e, ensemble, start, stop);
}

}  // namespace

PYBIND11_MODULE(_cpp, module, py::mod_gil_not_used()) {
    const auto exactly = [](const char* name) { return py::arg(name).noconvert(); };
    module.doc() = "The C++ kernels; use them through fastgrad.backprop and fastgrad.simulate.";
#if defined(__clang__)
    module.attr("compiler") = "Clang " __clang_version__;
#elif defined(__GNUC__)
    module.attr("compiler") = "GCC " __VERSION__;
#elif defined(_MSC_VER)
    module.attr("compiler") = "MSVC " + std::to_string(_MSC_FULL_VER);
#else
    module.attr("compiler") = "unknown";
#endif
    module.attr("compile_flags") = FASTGRAD_COMPILE_FLAGS;
    module.def("backprop", &backprop, exactly("weight"), exactly("bias"), exactly("x"), exactly("cotangent"),
               exactly("output"), exactly("grad_weight_mantissa"), exactly("grad_weight_exponent"),
               exactly("grad_bias_mantissa"), exactly("grad_bias_exponent"), exactly("grad_x_mantissa"),
               exactly("grad_x_exponent"), py::arg("start"), py::arg("stop"));
    module.def("grow", &grow, py::arg("weight_law"), py::arg("bias_law"), py::arg("seed"), py::arg("first"),
               py::arg("last"), exactly("marks"), exactly("activation"), exactly("scaled_mantissa"),
               exactly("scaled_exponent"), exactly("weight"), exactly("input_mantissa"), exactly("input_exponent"),
               exactly("derivative_mantissa"), exactly("derivative_exponent"), exactly("gap_mantissa"),
               exactly("gap_exponent"), exactly("bound_mantissa"), exactly("bound_exponent"), py::arg("start"),
               py::arg("stop"));
}
