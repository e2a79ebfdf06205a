"""Laws: from text and from objects, their moments, and what is said about a wrong one."""

import math

import numpy as np
import pytest

import fastgrad as fg
from fastgrad import laws
from fastgrad.laws import parse

COUNT = 400_000

# What is asked for; family; mean and standard deviation in a chain, where fan_in = fan_out = 1.
MOMENTS = [
    ("normal", "normal", 0, 1),
    ("normal:std=4", "normal", 0, 4),
    ("normal:mean=-3,std=0.5", "normal", -3, 0.5),
    ("uniform:low=-1,high=3", "uniform", 1, 4 / math.sqrt(12)),
    ("glorot_normal", "normal", 0, 1),
    ("glorot_uniform", "uniform", 0, 1),
    ("he_normal", "normal", 0, math.sqrt(2)),
    ("he_uniform", "uniform", 0, math.sqrt(2)),
    ("lecun_normal", "normal", 0, 1),
    ("torch_default", "uniform", 0, 1 / math.sqrt(3)),
    ("glorot_normal:gain=3", "normal", 0, 3),
    ("glorot_uniform:gain=0.5", "uniform", 0, 0.5),
    ("he_normal:gain=2", "normal", 0, 2 * math.sqrt(2)),
    ("he_uniform:gain=2", "uniform", 0, 2 * math.sqrt(2)),
    ("lecun_normal:gain=4", "normal", 0, 4),
    ("torch_default:gain=3", "uniform", 0, math.sqrt(3)),
]


def moments(law):
    """Mean and standard deviation from location and scale."""
    if law.family == "uniform":
        return law.location + law.scale / 2, law.scale / math.sqrt(12)
    return law.location, law.scale


@pytest.mark.parametrize(("text", "family", "mean", "std"), MOMENTS)
def test_a_law_has_its_mean_and_deviation(text, family, mean, std):
    law = parse(text, "weight")
    assert law.family == family
    assert moments(law) == pytest.approx((mean, std), rel=2**-51, abs=0)


@pytest.mark.parametrize("argument", ["weight", "bias"])
@pytest.mark.parametrize(("text", "family", "mean", "std"), MOMENTS)
def test_draws_have_the_moments_of_their_law(text, family, mean, std, argument):
    draws = fg.draw(COUNT // 8, 8, **{"weight": "zero", "bias": "zero", argument: text}, seed=7)
    values = draws[argument == "bias"].ravel()
    kurtosis = {"normal": 3, "uniform": 1.8}[family]
    standard = (values - mean) / std
    # Four standard errors of each sample moment, by the moments of the law itself.
    assert abs(standard.mean()) < 4 / math.sqrt(COUNT)
    assert abs((standard**2).mean() - 1) < 4 * math.sqrt((kurtosis - 1) / COUNT)
    fourth_variance = {"normal": 105 - 9, "uniform": 9 - 1.8**2}[family]
    assert abs((standard**4).mean() - kurtosis) < 4 * math.sqrt(fourth_variance / COUNT)
    if family == "uniform":
        assert np.abs(standard).max() <= math.sqrt(3) * (1 + 2**-51)


@pytest.mark.parametrize(
    ("text", "made"),
    [
        ("constant:2.5", laws.constant(2.5)),
        ("constant:value=2.5", laws.constant(2.5)),
        (" constant : -1e300".replace(" :", ":"), laws.constant(-1e300)),
        ("zero", laws.zero()),
        ("normal:std=4", laws.normal(std=4)),
        ("normal: mean = 1 , std = 4 ", laws.normal(1, 4)),
        ("uniform:high=2,low=-1", laws.uniform(-1, 2)),
        ("he_uniform:gain=2", laws.he_uniform(gain=2)),
    ],
)
def test_text_and_object_are_the_same_law(text, made):
    assert parse(text, "weight") == parse(made, "weight") == made


@pytest.mark.parametrize("name", sorted(set(laws.LAWS) - {"constant", "uniform", "centered"}))
def test_a_maker_without_parentheses_is_its_default(name):
    width = 2 if name == "orthogonal" else 1
    maker = getattr(laws, name)
    assert parse(maker, "weight", width) == parse(name, "weight", width) == maker().at_width(width)


@pytest.mark.parametrize(
    ("text", "std"),
    [
        ("normal:gain=20", 5),
        ("normal:std=3", 3),
        ("uniform:low=-1,high=1", 1 / math.sqrt(3)),
        ("glorot_normal", 1 / 4),
        ("glorot_uniform:gain=2", 1 / 2),
        ("he_normal", math.sqrt(2) / 4),
        ("he_uniform", math.sqrt(2) / 4),
        ("lecun_normal", 1 / 4),
        ("torch_default", 1 / math.sqrt(3) / 4),
    ],
)
def test_schemes_of_layers_go_by_their_width(text, std):
    law = parse(text, "weight", 16)
    assert law.std == pytest.approx(std, rel=1e-15)
    assert law.mean == pytest.approx(0, abs=1e-15)
    assert law.text == text
    assert parse(law, "weight", 16) == law
    assert parse(law, "weight", 4).std == pytest.approx(std * (2 if law.fan_in else 1), rel=1e-15)


def test_a_gain_is_a_deviation_in_a_chain():
    assert parse("normal:gain=4", "weight").code == parse("normal:std=4", "weight").code
    assert laws.replace(laws.normal(gain=4), {"gain": 2.0}, "weight") == laws.normal(gain=2)


@pytest.mark.parametrize(
    ("law", "argument", "width", "message"),
    [
        ("orthogonal", "weight", 1, "weight: orthogonal is a law of layers, expected a width of at least 2, got 1"),
        ("orthogonal", "bias", 8, "bias: orthogonal is a law of the weights of a layer; expected another law"),
        ("centered", "bias", 2, r"bias: centered is a law of chains \(width 1\), got width 2; expected another law"),
        ("normal:gain=2,std=1", "weight", 2, "weight: normal: gain: expected no std and no mean beside it"),
        ("normal:gain=-1", "weight", 2, "weight: normal: gain: expected 0 to 1e\\+300, got -1.0"),
    ],
)
def test_laws_of_chains_and_of_layers(law, argument, width, message):
    with pytest.raises(ValueError, match=message):
        parse(law, argument, width)


@pytest.mark.parametrize(
    "law",
    [
        laws.constant(0.1),
        laws.normal(std=1 / 3),
        laws.normal(1e-9, 1e300),
        laws.uniform(-1, 0.1 + 0.2),
        laws.he_normal(1 / 7),
        laws.zero(),
        laws.torch_default(3),
    ],
)
def test_text_of_a_law_reads_back_as_itself(law):
    assert parse(str(law), "weight") == law


@pytest.mark.parametrize(
    ("law", "text"),
    [
        (laws.constant(500), "constant:500"),
        (laws.normal(std=4.0), "normal:std=4"),
        (laws.normal(-1.5, 4), "normal:mean=-1.5,std=4"),
        (laws.normal(gain=20), "normal:gain=20"),
        (laws.normal(gain=1), "normal:gain=1"),
        (laws.orthogonal(), "orthogonal"),
        (laws.orthogonal(1.5), "orthogonal:gain=1.5"),
        (laws.uniform(0, 1), "uniform:low=0,high=1"),
        (laws.he_normal(), "he_normal"),
        (laws.he_normal(2), "he_normal:gain=2"),
        (laws.zero(), "zero"),
        (laws.centered(), "centered"),
    ],
)
def test_text_of_a_law_is_what_a_user_writes(law, text):
    assert str(law) == text


def test_constant_and_zero_are_drawn_as_they_are():
    w, b = fg.draw(3, 2, weight="constant:0.1", bias="zero")
    assert np.array_equal(w, np.full((3, 2), 0.1))
    assert np.array_equal(b, np.zeros((3, 2)))


@pytest.mark.parametrize("weight", ["normal:mean=1,std=4", "uniform:low=-1,high=9", "constant:3"])
def test_centered_is_minus_half_the_weight(weight):
    w, b = fg.draw(1000, 3, weight=weight, bias="centered")
    assert np.array_equal(b, -w / 2)


def test_no_deviation_is_a_constant():
    w, b = fg.draw(50, 2, weight="normal:mean=3,std=0", bias="normal:std=0")
    assert np.array_equal(w, np.full((50, 2), 3.0))
    assert np.array_equal(b, np.zeros((50, 2)))


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("gauss", "unknown law 'gauss', expected one of constant, zero, normal"),
        ("normall:std=1", r"did you mean normal\?"),
        ("", "unknown law ''"),
        (":std=1", "unknown law ''"),
        ("he", r"unknown law 'he'.*; did you mean he_normal\?$"),
        ("4", r"unknown law '4'.*; did you mean constant:4\?$"),
        ("-0.5", r"did you mean constant:-0\.5\?$"),
        ("4 5", r"unknown law '4 5', [^;]*$"),
        ("nan", r"unknown law 'nan', [^;]*$"),
        ("normal:", "expected normal:mean=,std=,gain=, got"),
        ("normal:4", "expected normal:mean=,std=,gain=, got 'normal:4'"),
        ("he_normal:2", "expected he_normal:gain=, got 'he_normal:2'"),
        ("normal:std=4,std=4", "std is given twice in 'normal:std=4,std=4'"),
        ("normal:sd=4", "the law normal takes mean=, std=, gain=; got sd=4"),
        ("normal:std=four", "normal: std: expected a number, got 'four'"),
        ("normal:std=", "normal: std: expected a number, got ''"),
        ("normal:std=-1", "normal: std: expected at least 0, got -1"),
        ("normal:std=nan", "normal: std: expected a finite number"),
        ("normal:std=inf", "normal: std: expected a finite number"),
        ("normal:mean=inf", "normal: mean: expected a finite number"),
        ("normal:std=1e308", "would draw values beyond float64"),
        ("normal:mean=1.7e308,std=1e307", "would draw values beyond float64"),
        ("uniform", "the law uniform takes low=, high=; got none"),
        ("uniform:low=0", "the law uniform takes low=, high=; got low=0"),
        ("uniform:low=1,high=0", "uniform: high: expected at least low=1.0, got 0.0"),
        ("uniform:low=-1e308,high=1e308", "high - low must be within float64"),
        ("uniform:low=nan,high=1", "uniform: low: expected a finite number"),
        ("constant", "the law constant takes value=; got none"),
        ("constant:1,2", "the law constant takes value=; got 1, 2"),
        ("constant:inf", "constant: value: expected a finite number"),
        ("zero:1", "the law zero takes no parameters; got 1"),
        ("zero:gain=1", "the law zero takes no parameters; got gain=1"),
        ("torch_default:gain=x", "torch_default: gain: expected a number, got 'x'"),
    ],
)
@pytest.mark.parametrize("argument", ["weight", "bias"])
def test_a_wrong_law_is_named(text, message, argument):
    with pytest.raises(ValueError, match=f"^{argument}: .*{message}"):
        parse(text, argument)
    with pytest.raises(ValueError, match=f"^{argument}: "):
        fg.simulate(2, 1, **{argument: text})
    with pytest.raises(ValueError, match=f"^{argument}: "):
        fg.draw(2, 1, **{argument: text})


def test_only_a_bias_is_told_of_centered():
    for argument, expected in (("weight", False), ("bias", True)):
        with pytest.raises(ValueError, match="unknown law 'centred'") as caught:
            parse("centred", argument)
        assert ("centered" in str(caught.value)) is expected


@pytest.mark.parametrize("text", ["he_normal:gain=-1", "glorot_uniform:gain=-1", "he_uniform:gain=1e308"])
def test_a_wrong_gain_is_named(text):
    with pytest.raises(ValueError, match=f"^weight: {text.partition(':')[0]}: gain"):
        parse(text, "weight")


@pytest.mark.parametrize("law", [4, None, 4.0, b"zero", ["zero"], max, lambda: laws.zero()])
def test_what_is_no_law_is_a_type_error(law):
    with pytest.raises(TypeError, match=r"^weight: expected a law such as 'normal:std=4', got"):
        parse(law, "weight")


@pytest.mark.parametrize("law", ["centered", laws.centered, laws.centered()])
def test_centered_is_for_the_bias_only(law):
    assert parse(law, "bias").family == "centered"
    with pytest.raises(ValueError, match=r"^weight: centered is a law of the bias"):
        parse(law, "weight")


@pytest.mark.parametrize("parameters", [(math.nan, 1.0), (0.0, math.inf)])
def test_no_law_has_parameters_that_are_not_finite(parameters):
    with pytest.raises(ValueError, match="expected finite parameters"):
        fg.Law("normal", *parameters, "my law")


def test_makers_check_their_parameters():
    with pytest.raises(ValueError, match="std: expected at least 0"):
        laws.normal(std=-1)
    with pytest.raises(ValueError, match="value: expected a number, got None"):
        laws.constant(None)
    with pytest.raises(ValueError, match="high: expected at least low"):
        laws.uniform(2, 1)


@pytest.mark.parametrize("law", ["normal", "uniform:low=-1,high=1"])
def test_weight_and_bias_of_like_laws_are_independent(law):
    w, b = (values.ravel() for values in fg.draw(COUNT // 8, 8, weight=law, bias=law))
    for p, q in ((w, b), (w**2, b**2), (w[1:], w[:-1]), (w[1:], b[:-1])):
        assert abs(np.corrcoef(p, q)[0, 1]) < 4 / math.sqrt(COUNT)


@pytest.mark.parametrize(
    ("error", "message", "given"),
    [
        (ValueError, "law mine: unknown family 'bogus', expected constant, normal", ("bogus", 0.0, 1.0, "mine")),
        (ValueError, "law mine: unknown family None, expected constant, normal", (None, 0.0, 1.0, "mine")),
        (TypeError, "law mine: expected numbers for location and scale, got '1'", ("normal", "1", 1.0, "mine")),
        (TypeError, "law mine: expected numbers for location and scale, got True", ("normal", 0.0, True, "mine")),
        (TypeError, "law: expected a text, got 5", ("normal", 0.0, 1.0, 5)),
    ],
)
def test_a_law_that_was_made_wrong_by_hand(error, message, given):
    with pytest.raises(error) as caught:
        fg.Law(*given)
    assert str(caught.value).startswith(message)


@pytest.mark.parametrize(
    "text",
    [
        "constant:0",
        "he_normal:gain=0",
        "glorot_uniform:gain=0",
        "torch_default:gain=0",
        "normal:std=0",
        "uniform:low=0,high=0",
    ],
)
def test_zero_has_one_text(text):
    negative = laws.parse(text.replace("0", "-0.0"), "weight")
    assert negative == laws.parse(text, "weight")
    assert str(negative) == text
    assert math.copysign(1, negative.location) == 1
