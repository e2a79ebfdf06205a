"""Scaled: mantissa and exponent, what becomes of them in floats and in text, and their distance."""

import json
import math
import re
import sys
from fractions import Fraction

import mpmath as mp
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import fastgrad as fg
from fastgrad.scaled import FLOAT_LIMITS
from fastgrad.summary import json_ready

FINITE = st.floats(allow_nan=False, allow_infinity=False)
MANTISSAS = st.floats(0.5, 1, exclude_max=True) | st.floats(-1, -0.5, exclude_min=True)
SMALLEST = 5e-324
HUGE = 2**62

# Bits after the point, and the exponents of the smallest normal and of what overflows.
FORMATS = {
    "float16": (10, -14, 16),
    "bfloat16": (7, -126, 128),
    "float32": (23, -126, 128),
    "float64": (52, -1022, 1024),
}


def exact(scaled):
    return Fraction(scaled.mantissa.item()) * Fraction(2) ** scaled.exponent.item()


def nearest(value, name):
    """A fraction rounded to nearest even in integer arithmetic."""
    bits, smallest, beyond = FORMATS[name]
    if value == 0:
        return 0.0
    size = abs(value)
    power = size.numerator.bit_length() - size.denominator.bit_length()
    power -= size < Fraction(2) ** power
    quantum = Fraction(2) ** (max(power, smallest) - bits)
    rounded = round(value / quantum) * quantum
    if abs(rounded) < Fraction(2) ** beyond:
        return float(rounded)
    return math.inf if value > 0 else -math.inf


@given(FINITE, st.integers(-HUGE, HUGE))
def test_mantissa_and_exponent_are_normalized(value, power):
    mantissa, exponent = math.frexp(value)
    if value and exponent + power > HUGE:
        with pytest.raises(OverflowError, match=r"beyond 2\^\(2\^62\)"):
            fg.Scaled(value, power)
        return
    scaled = fg.Scaled(value, power)
    nonzero = value != 0 and exponent + power >= -HUGE
    assert scaled.mantissa == (mantissa if nonzero else 0)
    assert scaled.exponent == (exponent + power if nonzero else 0)
    assert scaled.mantissa.dtype == np.float64
    assert scaled.exponent.dtype == np.int64


NEAR_THE_ENDS = st.integers(-HUGE, -HUGE + 2200) | st.integers(HUGE - 2200, HUGE) | st.integers(-HUGE, HUGE)


@given(FINITE, NEAR_THE_ENDS, FINITE, NEAR_THE_ENDS)
def test_no_exponent_passes_2_to_62(a, power, b, other):
    """Neither by renormalization nor by a product: below a number becomes 0, above it is refused."""

    def rounded(value, shift):
        mantissa, exponent = math.frexp(nearest(value, "float64"))
        if mantissa and exponent + shift > HUGE:
            return OverflowError
        return (mantissa, exponent + shift) if mantissa and exponent + shift >= -HUGE else (0, 0)

    def made(make):
        try:
            scaled = make()
        except OverflowError:
            return OverflowError
        return scaled.mantissa.item(), scaled.exponent.item()

    factors = (a, power), (b, other)
    for value, shift in factors:
        assert made(lambda value=value, shift=shift: fg.Scaled(value, shift)) == rounded(Fraction(value), shift)
    if all(rounded(Fraction(value), shift) is not OverflowError for value, shift in factors):
        left, right = (fg.Scaled(value, shift) for value, shift in factors)
        fraction = Fraction(left.mantissa.item()) * Fraction(right.mantissa.item())
        assert made(lambda: left * right) == rounded(fraction, left.exponent.item() + right.exponent.item())


def test_squares_at_the_ends():
    for small in (1e-300, SMALLEST, 0.25):
        tiny = fg.Scaled(small, -HUGE)
        assert (tiny.mantissa, tiny.exponent) == (0, 0)
        assert (tiny * tiny).mantissa == 0
    least = fg.Scaled(0.5, -HUGE)
    assert (least.mantissa, least.exponent) == (0.5, -HUGE)
    assert (least * least).mantissa == 0


@given(FINITE)
def test_from_float_is_exact(value):
    assert fg.Scaled.from_float(value).to_float() == value
    assert exact(fg.Scaled.from_float(value)) == Fraction(value)


def test_zero_has_one_form():
    scaled = fg.Scaled([0.0, -0.0], [7, -7])
    assert scaled.mantissa.tobytes() == np.zeros(2).tobytes()
    assert scaled.exponent.tolist() == [0, 0]
    assert not np.signbit((-scaled).mantissa).any()


def test_arguments_broadcast_and_are_copied():
    values = np.full((3, 1), 0.75)
    scaled = fg.Scaled(values, np.arange(2))
    values[:] = 0
    assert scaled.shape == (3, 2)
    assert (scaled.ndim, scaled.size, len(scaled)) == (2, 6, 3)
    assert np.array_equal(scaled.to_float(), np.full((3, 1), 0.75) * [1, 2])


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf, [1.0, math.nan]])
def test_no_scaled_of_what_is_not_finite(value):
    with pytest.raises(ValueError, match="mantissa: expected finite"):
        fg.Scaled(value)
    with pytest.raises(ValueError, match="mantissa: expected finite"):
        fg.Scaled.from_float(value)


@pytest.mark.parametrize(
    "value", ["1.5", b"1.5", True, [True, False], 1 + 0j, None, [None], ["1", "2"], Fraction(1, 3)]
)
def test_mantissas_are_real_numbers(value):
    with pytest.raises(TypeError, match="mantissa: expected real numbers, got"):
        fg.Scaled(value)
    with pytest.raises(TypeError, match="mantissa: expected real numbers, got"):
        fg.Scaled.from_float(value)


def test_masked_values_are_refused():
    masked = np.ma.masked_array([1.0, 2.0], [False, True])
    for value in (masked, [masked], np.ma.masked):
        with pytest.raises(TypeError, match="mantissa: has masked entries"):
            fg.Scaled(value)
    for exponent in (np.ma.masked_array([1, 2], [False, True]), [np.ma.masked_array([1, 2], [False, True])]):
        with pytest.raises(TypeError, match="exponent: has masked entries"):
            fg.Scaled(0.5, exponent)
    assert fg.Scaled(np.ma.masked_array([1.0, 2.0], False)).to_float().tolist() == [1, 2]


def test_shapes_that_do_not_broadcast():
    with pytest.raises(ValueError, match=r"exponent: expected a shape that broadcasts .* \(3,\), got \(2,\)"):
        fg.Scaled([1.0, 2.0, 3.0], [1, 2])


@pytest.mark.parametrize("exponent", [1.0, True, "1", [1.5], None, 1j])
def test_exponents_are_integers(exponent):
    with pytest.raises(TypeError, match="exponent: expected integers"):
        fg.Scaled(0.5, exponent)


@pytest.mark.parametrize("exponent", [HUGE + 1, -HUGE - 1, np.uint64(2**63), [0, 2**63 - 1], 2**64, -(10**30)])
def test_exponents_are_at_most_2_to_62(exponent):
    with pytest.raises(ValueError, match=r"exponent: expected at most 2\^62"):
        fg.Scaled(0.5, exponent)


@pytest.mark.parametrize(("method", "base"), [("log2", 2), ("log10", 10), ("ln", mp.e)])
@pytest.mark.parametrize("power", [0, 1, -1074, 1023, -6963, 10**15 + 1, -HUGE, HUGE])
@pytest.mark.parametrize("mantissa", [0.5, -0.7071067811865476, 1 - 2**-53])
def test_logarithms(method, base, power, mantissa):
    with mp.workdps(40):
        expected = mp.log(mp.ldexp(mp.mpf(abs(mantissa)), power), base)
        got = getattr(fg.Scaled(mantissa, power), method)()
        # log of the mantissa, the exponent's product with log 2 (and that constant), and their sum: half an ulp each.
        size = abs(expected) + 2 * mp.log(2, base)
        assert abs(mp.mpf(float(got)) - expected) <= mp.ldexp(size, -51)


@pytest.mark.parametrize("method", ["log2", "log10", "ln"])
def test_logarithm_of_zero_is_minus_infinity(method):
    logs = getattr(fg.Scaled([0.0, 1.0]), method)()
    assert logs.tolist() == [-math.inf, 0.0]


@pytest.mark.parametrize("dtype", ["float16", "float32", "float64"])
@given(MANTISSAS, st.integers(-1200, 1200) | st.integers(-160, 135) | st.integers(-30, 20))
def test_floats_are_correctly_rounded(dtype, mantissa, power):
    scaled = fg.Scaled(mantissa, power)
    got = scaled.to_float(dtype)
    assert got.dtype == dtype
    assert float(got) == nearest(exact(scaled), dtype)


@pytest.mark.parametrize("dtype", ["float16", "float32", "float64"])
def test_ties_go_to_even(dtype):
    bits, smallest, _ = FORMATS[dtype]
    subnormal = [(2 * odd + 1) * 2.0**-4 for odd in range(4)], smallest - bits + 3  # 1/2, 3/2, 5/2, 7/2 of the smallest
    scaled = fg.Scaled(*subnormal)
    units = [float(Fraction(float(value)) / Fraction(2) ** (smallest - bits)) for value in scaled.to_float(dtype)]
    assert units == [0, 2, 2, 4]


@pytest.mark.parametrize("dtype", ["float16", "float32"])
def test_nothing_is_rounded_twice(dtype):
    bits = FORMATS[dtype][0]
    for above in (2.0**-52, 2.0**-30, -(2.0**-51)):  # beside a tie, by less than other formats in between would keep
        value = 1 + 2.0 ** -(bits + 1) + above
        assert fg.Scaled(value).to_float(dtype) == (1 if above < 0 else 1 + 2.0**-bits)


@pytest.mark.parametrize("dtype", [np.float16, np.float32, np.float64, np.longdouble])
@pytest.mark.parametrize("power", [20_000, 10**9, HUGE])
def test_beyond_a_float_is_infinity_or_zero(dtype, power):
    values = fg.Scaled([0.5, -0.5, 0.5], [power, power, -power]).to_float(dtype)
    assert values.tolist() == [math.inf, -math.inf, 0]


@pytest.mark.skipif(np.finfo(np.longdouble).maxexp <= 1024, reason="long double is float64 here")
@pytest.mark.parametrize("power", [-16_000, -1100, 0, 1100, 16_000])
def test_a_longdouble_holds_every_mantissa(power):
    scaled = fg.Scaled([1 - 2**-53, -0.6], power)
    back = np.ldexp(scaled.to_float(np.longdouble), -power)
    assert back.tolist() == scaled.mantissa.tolist()


def test_byte_order_is_kept():
    assert fg.Scaled([3.0]).to_float(">f4").tobytes() == np.array([3.0], dtype=">f4").tobytes()


@pytest.mark.parametrize("dtype", [int, bool, complex, str, object])
def test_to_float_takes_real_floating_types(dtype):
    with pytest.raises(TypeError, match="dtype: expected a floating-point type"):
        fg.Scaled(1.0).to_float(dtype)


def test_a_single_number_becomes_a_float():
    assert float(fg.Scaled([[3.0]])) == 3.0
    with pytest.raises(TypeError, match=r"shape \(2,\)"):
        float(fg.Scaled([1.0, 2.0]))


def test_no_array_is_made_behind_our_back():
    with pytest.raises(TypeError, match="no float array"):
        np.asarray(fg.Scaled([1.0]))
    with pytest.raises(TypeError):
        np.float64(2) * fg.Scaled([1.0])
    with pytest.raises(TypeError):
        fg.Scaled(1.0) * 2.0


def test_flat_is_row_major():
    scaled = fg.Scaled(np.arange(6.0).reshape(2, 3), 5000)
    assert all(scaled.flat(i) == scaled[i // 3, i % 3] for i in range(6))
    assert fg.Scaled(3.0).flat(0) == fg.Scaled(3.0)


def test_assignment_is_numpys():
    scaled = fg.Scaled(np.ones((3, 2)), 5)
    scaled[1] = fg.Scaled([2.0, 0.0])
    assert scaled.to_float().tolist() == [[32, 32], [2, 0], [32, 32]]


def test_numbers_are_assigned_exactly():
    scaled = fg.Scaled(np.ones((3, 2)), 5000)
    scaled[0] = 1.5
    scaled[1] = [0, -SMALLEST]
    scaled[2, 1] = np.float32(3)
    scaled[2, 0] = fg.Scaled(0.75, -9999)
    assert scaled[:2].to_float().tolist() == [[1.5, 1.5], [0, -SMALLEST]]
    assert (scaled[2, 0] == fg.Scaled(0.75, -9999), scaled[2, 1] == fg.Scaled(3.0)) == (True, True)
    single = fg.Scaled(2.0)
    for value in (single, -single, abs(single)):
        value[...] = -4
        assert value == fg.Scaled(-4.0)


@pytest.mark.parametrize("value", ["1", True, None, 1j, [1, "2"], np.ma.masked])
def test_what_is_no_number_is_not_assigned(value):
    scaled = fg.Scaled([1.0, 2.0])
    with pytest.raises(TypeError, match="assigned value: "):
        scaled[0] = value
    with pytest.raises(ValueError, match="assigned value: expected finite"):
        scaled[0] = math.nan
    with pytest.raises(ValueError, match="could not broadcast"):
        scaled[:] = [1.0, 2.0, 3.0]
    assert scaled.to_float().tolist() == [1, 2]


def test_iteration_is_numpys():
    values = np.arange(6.0).reshape(2, 3)
    assert [row.to_float().tolist() for row in fg.Scaled(values)] == values.tolist()
    assert [float(value) for value in fg.Scaled(values[1])] == [3, 4, 5]
    assert list(fg.Scaled(np.zeros((0, 3)))) == []
    for single in (fg.Scaled(2.0), fg.Scaled([2.0])[0]):
        with pytest.raises(TypeError, match="can't be iterated over"):
            iter(single)


def test_truth_is_numpys():
    assert bool(fg.Scaled(SMALLEST, -HUGE + 2000)) is True
    assert [bool(fg.Scaled(value)) for value in (0.0, [0.0], [[-0.0]], -2.0, [3.0])] == [False] * 3 + [True] * 2
    for several in ([0.0, 0.0], [1.0, 2.0], []):
        with pytest.raises(ValueError, match="only a single number is true or false"):
            bool(fg.Scaled(several))


def test_an_empty_array_of_a_page_or_more_is_aligned_to_a_cache_line():
    for shape in ((), (3,), (2, 5), (512,), (300, 3)):
        scaled = fg.Scaled.empty(shape)
        assert scaled.shape == shape
        assert (scaled.mantissa.dtype, scaled.exponent.dtype) == (np.float64, np.int64)
        for array in (scaled.mantissa, scaled.exponent):
            assert array.nbytes < 4096 or array.ctypes.data % 64 == 0
            assert array.flags.c_contiguous
            assert array.flags.writeable


def test_indexing_is_numpys():
    scaled = fg.Scaled(np.arange(12.0).reshape(3, 4), 5)
    values = scaled.to_float()
    for index in (1, (1, 2), slice(None, None, 2), [2, 0], (slice(None), -1), values > 96):
        assert np.array_equal(scaled[index].to_float(), values[index])
    assert scaled[1, 2].shape == ()
    with pytest.raises(IndexError):
        scaled[3]
    with pytest.raises(TypeError):
        len(scaled[1, 2])


@given(MANTISSAS, MANTISSAS, st.integers(-(2**60), 2**60), st.integers(-(2**60), 2**60))
def test_products_are_correctly_rounded(a, b, power, other):
    product = fg.Scaled(a, power) * fg.Scaled(b, other)
    mantissa, exponent = math.frexp(nearest(Fraction(a) * Fraction(b), "float64"))
    assert (product.mantissa, product.exponent) == (mantissa, exponent + power + other)


def test_products_broadcast_and_keep_the_form_of_zero():
    product = fg.Scaled([[1.0], [0.0]], [[9], [9]]) * fg.Scaled([2.0, -3.0, 0.0])
    assert product.to_float().tolist() == [[1024, -1536, 0], [0, 0, 0]]
    assert product.exponent[product.mantissa == 0].tolist() == [0] * 4


def test_products_below_2_to_minus_2_to_62_are_zero():
    tiny = fg.Scaled([0.5, -0.5, 0.5], [-HUGE, -HUGE, -HUGE + 1])
    product = tiny * fg.Scaled([0.5, 0.5, 0.5], [-HUGE, -5, 0])
    assert product.mantissa.tobytes() == np.array([0.0, 0.0, 0.5]).tobytes()
    assert product.exponent.tolist() == [0, 0, -HUGE]


def test_products_beyond_2_to_2_to_62_are_an_error():
    large = fg.Scaled(0.75, HUGE)
    assert (large * fg.Scaled(0.75)).exponent == HUGE
    with pytest.raises(OverflowError, match=r"beyond 2\^\(2\^62\)"):
        large * fg.Scaled(1.5)


def test_the_largest_product_is_an_error():
    large = fg.Scaled(0.75, HUGE)
    with pytest.raises(OverflowError, match=r"beyond 2\^\(2\^62\)"):
        large * large


def test_sign_negation_and_magnitude():
    scaled = fg.Scaled([-3.0, 0.0, 5.0], 2000)
    assert scaled.sign().tolist() == [-1, 0, 1]
    assert (-scaled).sign().tolist() == [1, 0, -1]
    assert abs(scaled).sign().tolist() == [1, 0, 1]
    assert np.array_equal((-scaled).exponent, scaled.exponent)
    assert np.array_equal(abs(scaled).exponent, scaled.exponent)


def test_results_share_no_memory_with_operands():
    scaled = fg.Scaled([-3.0], 5)
    for other in (-scaled, abs(scaled), scaled * scaled):
        assert not np.shares_memory(other.exponent, scaled.exponent)
        assert not np.shares_memory(other.mantissa, scaled.mantissa)


def test_equality_is_elementwise_and_exact():
    a, b = fg.Scaled([1.0, 1.0, 0.0], [5000, 5000, 0]), fg.Scaled([1.0, 1.0, 0.0], [5000, 5001, 0])
    assert (a == b).tolist() == [True, False, True]
    assert (a == a[0]).tolist() == [True, True, False]
    assert (a == "1") is False
    with pytest.raises(TypeError, match="unhashable"):
        hash(a)


def test_inequality_is_elementwise():
    assert (fg.Scaled([1.0, 1.0]) != fg.Scaled([1.0, 2.0])).tolist() == [False, True]
    assert (fg.Scaled([1.0, 0.0], [9, 0]) != fg.Scaled(1.0, 9)).tolist() == [False, True]
    assert (fg.Scaled(1.0) != "1") is True


@pytest.mark.parametrize(
    ("scaled", "text"),
    [
        (fg.Scaled(0.75, -6963), "6.356e-2097"),
        (fg.Scaled(-1.0), "-1.000e+0"),
        (fg.Scaled(0.0), "0"),
        (fg.Scaled(9.9996), "1.000e+1"),
        (fg.Scaled(93_750_000.0), "9.375e+7"),
        (fg.Scaled(SMALLEST), "4.941e-324"),
        (fg.Scaled([1.0, -2.0]), "Scaled([1.000e+0, -2.000e+0])"),
        (fg.Scaled([[0.5], [0.0]], -10), "Scaled([[4.883e-4],\n        [0]])"),
        (fg.Scaled([]), "Scaled([])"),
    ],
)
def test_repr(scaled, text):
    assert repr(scaled) == text


@pytest.mark.parametrize("power", [HUGE, -HUGE, 10**15, -270_505_320, 12345])
@pytest.mark.parametrize("mantissa", [0.5, -0.875, 1 - 2**-53])
def test_repr_of_any_exponent_is_right_to_the_last_digit(mantissa, power):
    with mp.workdps(60):
        decades = mp.log10(abs(mantissa)) + power * mp.log10(2)
        whole = int(mp.floor(decades))
        digits = mp.sign(mantissa) * mp.power(10, decades - whole)
        text = repr(fg.Scaled(mantissa, power))
        shown, _, exponent = text.partition("e")
        assert int(exponent) == whole
        assert abs(mp.mpf(shown) - digits) <= mp.mpf("0.0005")


def test_repr_of_many_is_abbreviated():
    text = repr(fg.Scaled(np.ones((50, 60)), -9999))
    assert text.count("e-") == 36
    assert text.count("...") == 7
    assert repr(fg.Scaled(np.arange(21.0))).count("...") == 1
    assert "..." not in repr(fg.Scaled(np.arange(20.0)))


def test_format_is_decimals():
    scaled = fg.Scaled(0.75, -6963)
    assert f"{scaled}" == "6.356e-2097"
    assert f"{scaled:.1e}" == "6.4e-2097"
    assert f"{scaled:.6E}" == "6.356257E-2097"
    assert f"{scaled:+.2e}" == "+6.36e-2097"
    assert f"{fg.Scaled([2.0])}" == "2.000e+0"


SPECS = st.builds(
    "".join,
    st.tuples(
        st.sampled_from(["", "<", ">", "^", "=", "*<", "e>", "E^", "0=", "é^", "\n>"]),
        st.sampled_from(["", "+", "-", " "]),
        st.sampled_from(["", "z"]),
        st.sampled_from(["", "0"]),
        st.sampled_from(["", "1", "7", "20", "300"]),
        st.sampled_from(["", ".0", ".1", ".3", ".17", ".60"]),
        st.sampled_from(["e", "E"]),
    ),
)


@given(FINITE, SPECS)
def test_format_is_that_of_floats(value, spec):
    """A float has two digits in its exponent at least; with one, the same text is a character shorter."""

    def unpadded(text):
        return re.sub(r"([eE][+-])0([0-9])(?![0-9])", r"\1\2", text)

    parts = re.fullmatch(r"(.?[<>=^])?([-+ ]?)(z?)(0?)([0-9]*)(\.[0-9]+)?([eE])", spec, flags=re.DOTALL)
    align, sign, _, zeros, width, precision, letter = parts.groups(default="")
    body = unpadded(format(value + 0.0, f"{sign}z{precision}{letter}"))
    fill, align = (align[:-1], align[-1]) if align else ("", "=" if zeros else ">")
    fill = fill or ("0" if zeros else " ")
    if align == "=":
        cut = not body[0].isdigit()
        expected = body[:cut] + body[cut:].rjust(int(width or 0) - cut, fill)
    else:
        expected = format(body, f"{fill}{align}{width}")
    assert format(fg.Scaled(value), spec) == expected


@given(MANTISSAS, st.integers(-6000, 6000), st.integers(0, 40))
def test_format_is_rounded_once(mantissa, power, precision):
    """The shown decimal is the nearest to the exact value, ties to even, be it written out or beyond 2^±4000."""
    digits, _, decades = format(fg.Scaled(mantissa, power), f".{precision}e").partition("e")
    shown = int(digits.replace(".", ""))
    unit = Fraction(10) ** (int(decades) - precision)
    assert round(Fraction(mantissa) * Fraction(2) ** power / unit) == shown


def test_format_of_zero_honors_the_spec():
    zero = fg.Scaled(0.0)
    assert [format(zero, spec) for spec in ("", ".3e", "+12.3e", "<9.1E", "*^11.0e", "08.1e", ">4", " e")] == [
        "0",
        "0.000e+0",
        "   +0.000e+0",
        "0.0E+0   ",
        "***0e+0****",
        "000.0e+0",
        "   0",
        " 0.000000e+0",
    ]


def test_format_without_a_type_is_the_repr_padded():
    assert f"{fg.Scaled(0.75, -6963):>14}" == "   6.356e-2097"
    assert f"{fg.Scaled(-1.0):<12.1}" == "-1.0e+0     "


def test_a_broken_mantissa_can_be_printed():
    exponent = np.zeros(3, dtype=np.int64)
    value = fg.Scaled.of_parts(np.array([math.nan, math.inf, -math.inf]), exponent)  # as a faulty kernel would leave it
    assert repr(value) == "Scaled([nan, inf, -inf])"


def test_format_refuses_what_it_cannot_show():
    for spec in (".3f", "g", "s", "%", "d", ",.3e", "_.2e", "#.3e", ".e", ".1000e", "1" * 19 + "e", "++e", ".3e "):
        with pytest.raises(
            ValueError, match=rf"expected a spec like \.3e, of at most 999 digits, got '{re.escape(spec)}'"
        ):
            format(fg.Scaled(1.0), spec)
    with pytest.raises(TypeError, match=r"shape \(2,\)"):
        f"{fg.Scaled([1.0, 2.0]):.3e}"


def test_log2_distance_tells_neighbors_apart_at_any_exponent():
    a = fg.Scaled([0.5, 0.5, 1 - 2**-53], [2**60, -(2**60), 7])
    b = fg.Scaled([0.5 + 2**-53, 0.5 + 2**-53, 0.5], [2**60, -(2**60), 8])
    for distance in (fg.log2_distance(a, b), fg.log2_distance(b, a)):
        ulps = distance * math.log(2) * 2**52
        assert ulps[:2].round(9).tolist() == [1, 1]
        assert 0 < ulps[2] < 2  # half an ulp apart across a power of two, where log2 of the ratio is near 1, not 0


def test_log2_distance_is_infinite_for_another_sign_or_zero():
    a = fg.Scaled([1.0, 1.0, 0.0, 0.0, -2.0])
    b = fg.Scaled([-1.0, 0.0, 1.0, 0.0, -4.0])
    assert fg.log2_distance(a, b).tolist() == [math.inf, math.inf, math.inf, 0.0, 1.0]


@pytest.mark.parametrize("broken", [math.nan, math.inf, -math.inf])
def test_log2_distance_of_a_broken_mantissa_is_infinite(broken):
    exponent = np.zeros(1, dtype=np.int64)
    value = fg.Scaled.of_parts(np.array([broken]), exponent)  # as a faulty kernel would leave it
    for other in (value, fg.Scaled([1.0]), fg.Scaled([0.0])):
        assert fg.log2_distance(value, other).tolist() == [math.inf]
        assert fg.log2_distance(other, value).tolist() == [math.inf]


def neighbor(scaled, up):
    return fg.Scaled(np.nextafter(scaled.mantissa, 2.0 if up else 0.0), scaled.exponent)


@pytest.mark.parametrize("name", FORMATS)
def test_float_limits_are_where_rounding_fails(name):
    limits = FLOAT_LIMITS[name]
    bits, _, beyond = FORMATS[name]
    underflow = fg.Scaled(1.0, int(limits.underflow))
    assert nearest(exact(underflow), name) == 0
    assert nearest(exact(neighbor(underflow, up=True)), name) > 0
    # The tie between the largest number and what would be the next one.
    overflow = Fraction(2) ** beyond * (1 - Fraction(1, 2 ** (bits + 2)))
    assert limits.overflow == (1024.0 if name == "float64" else math.log2(overflow))
    assert nearest(overflow, name) == math.inf
    assert nearest(overflow * (1 - Fraction(1, 2**60)), name) < math.inf


@pytest.mark.parametrize(("dtype", "depth"), [(np.float16, 13), (np.float32, 75), (np.float64, 538)])
def test_a_product_of_quarters_underflows_at_its_depth(dtype, depth):
    product = np.cumprod(np.full(depth, 0.25, dtype=dtype), dtype=dtype)
    assert product[depth - 2] > 0
    assert product[depth - 1] == 0
    limit = FLOAT_LIMITS[np.dtype(dtype).name].underflow
    assert -2 * depth <= limit < -2 * (depth - 1)


def test_125_to_the_147_is_the_last_that_float64_holds():
    assert math.isfinite(float(125**147))
    assert 147 * math.log2(125) < FLOAT_LIMITS["float64"].overflow < 148 * math.log2(125)
    assert np.isfinite(np.prod(np.full(147, 125.0)))
    with pytest.raises(OverflowError):
        float(125**148)


def test_json_ready_makes_plain_values():
    plain = json_ready(
        {"n": np.int64(3), "x": np.float64(0.1), "yes": np.True_, "list": (1, np.float32(0.5)), "a": np.eye(2)}
    )
    assert plain == {"n": 3, "x": 0.1, "yes": True, "list": [1, 0.5], "a": [[1, 0], [0, 1]]}
    assert {type(value) for value in plain.values()} == {int, float, bool, list}
    assert json.loads(json.dumps(plain, allow_nan=False)) == plain


def test_json_ready_says_why_a_value_is_missing():
    plain = json_ready({"deep": {"a": -math.inf, "b": [math.nan, 1.0, math.inf]}, "c": None, "d": np.float64("nan")})
    assert plain == {
        "deep": {
            "a": None,
            "a_why": "minus infinity",
            "b": [None, 1.0, None],
            "b_why": "infinity; undefined for these data",
        },
        "c": None,
        "d": None,
        "d_why": "undefined for these data",
    }
    json.dumps(plain, allow_nan=False)


def test_json_ready_keeps_full_precision():
    for value in (0.1 + 0.2, sys.float_info.min, SMALLEST, 1e308):
        assert json.loads(json.dumps(json_ready({"v": np.float64(value)})))["v"] == value
