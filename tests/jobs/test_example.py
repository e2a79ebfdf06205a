"""The worked example: exact on every backend, and true to the oracle after the step."""

import csv
import io
import math
import re
from functools import partial

import mpmath
import pytest
from hypothesis import given
from hypothesis import strategies as st

import fastgrad as fg
from fastgrad.jobs.example import LESSON, worked_example


@pytest.fixture(autouse=True)
def _without_lesson(monkeypatch):
    """Leave out the lesson, which takes longest and which nothing else depends on."""
    monkeypatch.setattr("fastgrad.jobs.example.LESSON", ())


@pytest.fixture
def lesson(_without_lesson, monkeypatch):
    """Leave it in after all."""
    monkeypatch.setattr("fastgrad.jobs.example.LESSON", LESSON)


@pytest.fixture
def run(cli):
    """Function that runs ``fastgrad example``."""
    return partial(cli, "example")


@pytest.fixture
def document(document):
    """Function that returns the JSON of ``fastgrad example``."""
    return partial(document, "example")


def oracle(weight, bias):
    """d loss / d w11, the slopes of the three sigmoids and the loss at 60 digits, for x = 200 and y = -149.5."""
    with mpmath.workdps(60):
        inputs, slopes, o = [], [], mpmath.mpf(200)
        for w, b in zip(weight, bias, strict=True):
            inputs.append(o)
            z = mpmath.mpf(w) * o + mpmath.mpf(b)
            o = 1 / (1 + mpmath.exp(-z))
            slopes.append(mpmath.exp(-abs(z)) / (1 + mpmath.exp(-abs(z))) ** 2)
        error = o + mpmath.mpf("149.5")
        gradient = error * slopes[2] * mpmath.mpf(weight[2]) * slopes[1] * mpmath.mpf(weight[1]) * slopes[0] * 200
        return gradient, slopes, error**2 / 2


def close(scaled, exact, weight, bias):
    """Whether a Scaled is a number of mpmath, but for the rounding of each preactivation: see `fg.agreement_rtol`."""
    size = 200 * abs(weight[0]) + abs(weight[1]) + abs(weight[2]) + sum(map(abs, bias))  # the input is 200
    rtol = 2.0**-52 * (16 * 3 + 4 * size)
    with mpmath.workdps(60):
        value = mpmath.ldexp(mpmath.mpf(float(scaled.mantissa)), int(scaled.exponent))
        return abs(value - exact) <= rtol * abs(exact)


# The numbers


def test_numbers_are_exact(backend):
    example = worked_example(backend=backend)
    assert example.backend == backend
    assert example.weight == (500.0, 500.0, 400.0)
    assert example.bias == (-100_000.0, -250.0, -200.0)
    assert {name: float(factor) for name, factor in example.factors.items()} == {
        "dloss/do31": 150.0,
        "do31/do21": 100.0,
        "do21/do11": 125.0,
        "do11/dw11": 50.0,
    }
    assert float(example.gradient) == 93_750_000.0
    assert [float(each) for each in example.grad_bias] == [468_750.0, 3750.0, 37.5]
    assert float(example.bound) == 93_750_000.0
    assert example.step == 937_500.0
    assert example.weight_after == -937_000.0
    assert example.preactivation_after == -187_500_000.0
    assert example.loss == 11_250.0


def test_numbers_are_those_of_the_library(backend):
    weight, bias = (500.0, 500.0, 400.0), (-100_000.0, -250.0, -200.0)
    gradients = fg.backprop(weight, bias, 200.0, 150.0, backend=backend)
    example = worked_example(backend=backend)
    assert bool(gradients.grad_weight[0] == example.gradient)
    assert [bool(of == each) for of, each in zip(gradients.grad_bias, example.grad_bias, strict=True)] == [True] * 3
    after = fg.backprop((-937_000.0, *weight[1:]), bias, 200.0, 149.5, backend=backend)
    assert bool(after.grad_weight[0] == example.gradient_after)


def test_after_the_step(backend):
    example = worked_example(backend=backend)
    weight = (-937_000.0, *example.weight[1:])
    gradient, slopes, loss = oracle(weight, example.bias)
    assert int(example.slope_after.exponent) == -270_505_320
    assert close(example.slope_after, slopes[0], weight, example.bias)
    assert close(example.gradient_after, gradient, weight, example.bias)
    assert example.loss_after == float(loss) == 11_175.125


def test_with_zero_biases(backend):
    example = worked_example(backend=backend)
    bias = (0.0, 0.0, 0.0)
    assert close(example.zero_bias_gradient, oracle(example.weight, bias)[0], example.weight, bias)
    assert float(example.zero_bias_bound) == 150.5 * 100 * 125 * 50


def test_lesson_is_what_simulate_finds(backend, lesson):
    example = worked_example(backend=backend)
    assert example.lesson_depth == 200
    assert example.float32_links[("constant:4", "centered")] is None
    for (weight, bias), links in example.float32_links.items():
        growth = fg.simulate(200, 1000, weight, bias, record=200, backend=backend)
        assert growth.summary()["first_depth"]["float32"] == {"underflow": links, "overflow": None}
        median = growth.adjoint.log2()[::-1]
        median.sort(axis=1)
        failed = median[:, 499] <= -150  # what float32 rounds to 0
        assert links == (int(failed.argmax()) + 1 if failed.any() else None)
        assert example.framework_float32_links[weight, bias] == growth.framework_depth["float32"]["underflow"]


def test_lesson_says_that_weights_of_4_keep_the_gradient_at_1(backend):
    growth = fg.simulate(200, 2, "constant:4", "centered", backend=backend)
    assert growth.adjoint.to_float().tolist() == [[1.0, 1.0]] * 64


@given(st.integers(-(2**20), 2**20))
def test_any_whole_weight(weight):
    example = worked_example(float(weight), backend="numpy")
    assert float(example.factors["do21/do11"]) == weight / 4
    assert float(example.gradient) == 187_500 * weight
    assert float(example.bound) == abs(187_500 * weight)
    assert [float(each) for each in example.grad_bias] == [937.5 * weight, 3750.0, 37.5]
    assert example.step == 0.01 * (187_500 * weight)
    assert example.weight_after == weight - 0.01 * (187_500 * weight)


@pytest.mark.parametrize("learning_rate", [0.5, 3.0])
def test_learning_rate(learning_rate, backend):
    example = worked_example(8.0, learning_rate, backend)
    assert float(example.gradient) == 1_500_000.0
    assert example.weight_after == 8.0 - learning_rate * 1_500_000.0
    weight = (example.weight_after, 8.0, 400.0)
    gradient, _, loss = oracle(weight, example.bias)
    assert close(example.gradient_after, gradient, weight, example.bias)
    assert example.loss_after == pytest.approx(float(loss), rel=1e-15)


@pytest.mark.parametrize("weight", [math.nan, math.inf, -math.inf, 1e307, -1e308])
def test_weight_that_is_refused(weight):
    with pytest.raises(ValueError, match=r"^weight: expected "):
        worked_example(weight)


@pytest.mark.parametrize("learning_rate", [0.0, -1.0, math.nan, math.inf])
def test_learning_rate_that_is_refused(learning_rate):
    with pytest.raises(ValueError, match=r"^learning_rate: expected a positive number, got "):
        worked_example(500.0, learning_rate)


# The command


def test_json(backend, lesson, document):
    found = document("--backend", backend)
    assert found["parameters"] == {"weight": 500.0, "learning_rate": 0.01}
    assert found["provenance"]["backend"] == backend
    result = found["result"]
    assert result["factors"] == {"dloss/do31": 150, "do31/do21": 100, "do21/do11": 125, "do11/dw11": 50}
    assert list(result["factors"]) == ["dloss/do31", "do31/do21", "do21/do11", "do11/dw11"]
    assert (result["gradient"], result["bound"]) == (93_750_000, 93_750_000)
    assert (result["grad_bias"], result["step"]) == ([468_750, 3750, 37.5], 937_500)
    assert (result["weight_before"], result["weight_after"]) == (500, -937_000)
    assert (result["x"], result["target"]) == (200, -149.5)
    assert (result["weight"], result["bias"]) == ([500, 500, 400], [-100_000, -250, -200])
    assert (result["loss_before"], result["after_step"]["loss"]) == (11_250, 11_175.125)
    assert result["after_step"]["slope"]["exponent"] == -270_505_320
    assert result["float32_links"] == [
        {"weight": "normal:std=500", "bias": "zero", "links": 2, "framework_links": 1},
        {"weight": "glorot_normal", "bias": "zero", "links": 50, "framework_links": 50},
        {"weight": "he_normal", "bias": "zero", "links": 58, "framework_links": 58},
        {"weight": "normal:std=3", "bias": "zero", "links": 73, "framework_links": 72},
        {"weight": "constant:4", "bias": "centered", "links": None, "framework_links": None},
    ]
    assert result["after_step"]["gradient"]["text"] == "9.712356e-81430402"
    assert result["zero_bias"]["gradient"]["text"] == "2.926661e-43811"
    assert result["zero_bias"]["bound"]["log10"] == pytest.approx(math.log10(94_062_500), rel=1e-15)


def test_csv(backend, run):
    text = run("--backend", backend, "--format", "csv").stdout
    rows = list(csv.DictReader(io.StringIO(text)))
    found = {row["quantity"]: row["value"] for row in rows}
    assert len(found) == len(rows)
    assert float(found["dloss/dw11"]) == 93_750_000
    assert float(found["w11 after"]) == -937_000
    assert [float(found[f"dloss/db{unit}1"]) for unit in (1, 2, 3)] == [468_750, 3750, 37.5]
    assert float(found["step"]) == 937_500
    assert (float(found["loss before"]), float(found["loss after"])) == (11_250, 11_175.125)


def test_table(backend, lesson, run):
    lines = run("--backend", backend).stdout.splitlines()
    values = {line.split()[0]: line[line.rindex("  ") :].strip() for line in lines if re.match(r" (do|dloss)", line)}
    assert values == {
        "dloss/do31": "150",
        "do31/do21": "100",
        "do21/do11": "125",
        "do11/dw11": "50",
        "dloss/dw11": "93 750 000",
        "dloss/db11": "468 750",
        "dloss/db21": "3 750",
        "dloss/db31": "37.5",
    }
    assert "The biases' gradients explode as well." in lines
    assert "   a step of 937 500, 1 875 times the weight itself" in lines
    assert "   w11 = 500 - 0.01 x 93 750 000 = -937 000" in lines
    assert "   gradient   93 750 000 -> 9.712e-81430402" in lines
    shown = {
        line.split()[0]: re.split("  +", line.strip())[2:]
        for line in lines
        if re.match(r" \S+ +(zero|centered) ", line)
    }
    assert shown == {
        "normal:std=500": ["2", "1"],
        "glorot_normal": ["50", "50"],
        "he_normal": ["58", "58"],
        "normal:std=3": ["73", "72"],
        "constant:4": ["more than 200"] * 2,
    }
    assert "   loss       11 250 -> 11 175.125" in lines
    assert "   The loss falls by 0.67 % and stays high: no further step moves this weight." in lines
    assert f"backend {backend}" in lines


def test_options(document, run):
    result = document("--weight", "8", "--learning-rate", "0.5")["result"]
    assert result["gradient"] == 1_500_000
    assert result["weight_after"] == 8 - 750_000
    text = run("--weight", "8", "--learning-rate", "0.5").stdout
    assert "w11 = 8 - 0.5 x 1 500 000 = -749 992" in text
    assert "   a step of 750 000, 93 750 times the weight itself" in text


def test_zero_weight(document, run):
    result = document("--weight", "0")["result"]
    assert result["gradient"] == 0
    assert result["weight_after"] == 0
    text = run("--weight", "0").stdout
    assert "w11 = 0 - 0.01 x 0 = 0" in text
    assert "The loss stays high: no further step moves this weight." in text
    assert "explode as well" not in text
    assert "   a step of 0\n" in text
    assert "-0" not in re.findall(r"(?<!\S)-0(?!\S)", text)


def test_negative_weight(run, document):
    assert document("--weight", "-5")["result"]["weight_after"] == -5 + 9375
    text = run("--weight", "-5").stdout
    assert "-937 500" in text
    assert "9 370" in text


def test_huge_weight(document, run):
    result = document("--weight", "1e300")["result"]
    assert result["gradient"] == pytest.approx(1.875e305, rel=1e-15)
    assert result["weight_after"] == pytest.approx(-1.874e303, rel=1e-12)
    assert result["after_step"]["gradient"]["mantissa"] == 0.0  # |z| is beyond 2^60
    assert result["after_step"]["gradient"]["log10"] is None
    assert "1.875e+305" in run("--weight", "1e300").stdout


def test_weight_that_still_moves(run):
    text = run("--weight", "8", "--learning-rate", "1e-12").stdout
    assert "The weight still moves." in text
    assert "no further step" not in text


def test_step_that_leaves_float64(document, run):
    result = document("--learning-rate", "1e308")["result"]
    assert result["weight_after"] is None
    assert result["weight_after_why"]
    assert result["after_step"]["loss"] is None
    text = run("--learning-rate", "1e308").stdout
    assert "= beyond float64" in text
    assert "nan" not in text


@pytest.mark.parametrize(
    ("option", "value"),
    [
        ("weight", "nan"),
        ("weight", "inf"),
        ("weight", "-inf"),
        ("weight", "1e308"),
        ("weight", "1e3000"),
        ("weight", "five"),
        ("learning-rate", "0"),
        ("learning-rate", "-0.01"),
        ("learning-rate", "nan"),
        ("learning-rate", "inf"),
    ],
)
def test_values_that_are_refused(option, value, run):
    result = run(f"--{option}", value)
    assert (result.exit_code, result.stdout) == (2, "")
    assert result.stderr.startswith("fastgrad: ")
    assert result.stderr.count("\n") == 1
    assert option.replace("-", "_") in result.stderr.replace("-", "_")
