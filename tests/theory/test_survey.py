"""What theory knows of given laws, and the command that says it."""

import json
import math

import mpmath
import numpy as np
import pytest

import fastgrad as fg
from fastgrad.scaled import FLOAT_LIMITS
from fastgrad.theory import survey


def test_chains():
    known = survey("normal:std=4", "normal:std=1")
    assert known.prediction == fg.theory.predict("normal:std=4", "normal:std=1")
    assert known.ln_weight == fg.theory.ln_weight("normal:std=4")
    of_layers = (known.sigma_w, known.mean_field, known.critical_sigma_w, known.layer_growth, known.spectrum)
    assert of_layers == (None,) * 5
    assert known.fixed_points is None
    assert survey("constant:8", "constant:-4").fixed_points == fg.theory.fixed_points(8, -4)
    assert survey("constant:8", "centered").fixed_points == fg.theory.fixed_points(8, -4)


def test_an_input_of_one_half_decides_centered_chains():
    at_half, beside = (survey("normal:std=12", "centered", x).prediction.lyapunov for x in (0.5, 0.3))
    assert at_half == fg.theory.bound("normal:std=12").mean > 0 > beside
    assert survey("normal:std=12", "centered", "uniform:low=0,high=1").prediction.lyapunov == beside


@pytest.mark.parametrize("nonlinearity", ["sigmoid", "tanh", "relu", "linear"])
def test_layers(nonlinearity):
    known = survey("normal:gain=1.5", "normal:std=0.5", width=32, nonlinearity=nonlinearity)
    assert (known.sigma_w, known.sigma_b) == (pytest.approx(1.5, rel=1e-15), 0.5)
    assert known.mean_field.chi_1 == pytest.approx(fg.theory.mean_field(1.5, 0.5, nonlinearity).chi_1, rel=1e-12)
    assert known.critical_sigma_w == fg.theory.critical_sigma_w(0.5, nonlinearity)
    exact = nonlinearity in ("relu", "linear")
    assert (known.layer_growth is not None, known.spectrum is not None) == (exact, exact)
    assert (known.dead_probability is not None) == (nonlinearity == "relu")


def test_what_is_not_known_is_none():
    known = survey("uniform:low=0,high=1", width=4)
    assert known.prediction.why_not == "the weights have a mean"
    assert (known.mean_field, known.critical_sigma_w, known.layer_growth) == (None, None, None)
    assert known.lost_after == dict.fromkeys(FLOAT_LIMITS)
    assert survey("normal:gain=1", "uniform:low=-1,high=1", width=4).mean_field is None


def test_formats_lose_a_gradient_where_powers_of_the_factor_leave_them():
    for law, more in (("normal:std=4", {}), ("normal:gain=20", {"width": 64}), ("constant:500", {"bias": "centered"})):
        known = survey(law, **more)
        with mpmath.workdps(40):
            factor = mpmath.exp(mpmath.mpf(known.prediction.best))
            for name, links in known.lost_after.items():
                if name == "bfloat16":
                    continue  # NumPy has no such type
                after, before = (mpmath.frexp(factor**n) for n in (links, links - 1))
                with np.errstate(over="ignore"):
                    lost, kept = (np.ldexp(np.longdouble(float(m)), int(e)).astype(name) for m, e in (after, before))
                assert lost in (0, math.inf)
                assert 0 < kept < math.inf


def test_a_steady_gradient_is_never_lost():
    assert set(survey("orthogonal", width=8, nonlinearity="linear").lost_after.values()) == {None}
    assert set(survey("zero").lost_after.values()) == {1}


def test_a_width_too_narrow_for_the_mean_field_is_called_so(cli):
    known = survey("normal:gain=1000", width=64)  # drawn: -9.4 nats a layer
    assert known.prediction.lyapunov > 2
    assert (known.prediction.is_too_narrow, known.prediction.best) == (True, None)
    assert set(known.lost_after.values()) == {None}
    shown = cli("theory", "--width", "64", "--weight", "normal:gain=1000").stdout
    assert "explode as n -> infinity, for which 64 units are too few" in " ".join(shown.split())
    assert fg.theory.predict("uniform:low=-200,high=200", width=64).is_too_narrow
    assert not fg.theory.predict("normal:gain=20", width=64).is_too_narrow
    assert not fg.theory.predict("zero", width=2).is_too_narrow
    growth = fg.simulate(50, 3, "normal:gain=1000", width=64)
    assert growth.lyapunov.mean < -5
    assert "too few" in cli("simulate", "--width", "64", "--depth", "50", "--weight", "normal:gain=1000").stdout


def test_the_verdict_is_that_of_the_width(cli):
    shown = cli("theory", "--width", "64", "--weight", "normal:gain=10.3").stdout
    assert "Gradients vanish at 64 units, and explode as n -> infinity." in shown
    assert fg.simulate(400, 40, "normal:gain=10.3", width=64).lyapunov.mean < -0.03
    for law, nonlinearity in (("he_uniform:gain=2", "relu"), ("glorot_uniform:gain=0.5", "linear")):
        shown = cli("theory", "--width", "64", "--weight", law, "--nonlinearity", nonlinearity).stdout
        assert "inputs" not in shown.partition("Gradients")[2]
        assert "bound explodes" not in shown


def test_weights_near_the_end_of_float64(cli):
    """sigma_w and the bound's factor pass every double, their logarithms do not."""
    known = survey("normal:std=2e307", width=64, nonlinearity="relu")
    ln_std, of_one = math.log(2e307), survey("normal:std=1", width=64, nonlinearity="relu")
    assert known.prediction.lyapunov == pytest.approx(of_one.prediction.lyapunov + ln_std, rel=1e-14)
    assert known.prediction.bound.mean == pytest.approx(math.log(2 * 8) + ln_std, rel=1e-14)
    assert known.spectrum == pytest.approx(of_one.spectrum + ln_std, rel=1e-14)
    assert known.layer_growth.variance == of_one.layer_growth.variance
    assert known.lost_after["float64"] == 2
    for law, width, nonlinearity in (("normal:std=2e307", 65536, "relu"), ("constant:1e308", 2, "linear")):
        shown = cli("theory", "--weight", law, "--width", str(width), "--nonlinearity", nonlinearity)
        assert shown.exit_code == 0
        assert "10^inf" not in shown.stdout
    growth = fg.simulate(2, 2, "constant:1e308", width=2, nonlinearity="linear")
    assert growth.bound.log10()[0] == pytest.approx([2 * (308 + math.log10(2))] * 2, rel=1e-12)


def test_a_network_of_zeros_is_dead():
    assert survey("zero", width=4, nonlinearity="relu").dead_probability == 1
    assert survey("normal:std=0", "zero", width=4, nonlinearity="relu").dead_probability == 1
    assert survey("zero", "normal:std=1", width=4, nonlinearity="relu").dead_probability == 2.0**-4


def test_bad_input(cli):
    for given, message in (
        ({"weight": "normal:sd=1"}, "weight: the law normal"),
        ({"bias": "orthogonal"}, "bias: orthogonal is a law of the weights"),
        ({"width": 0}, "width: expected 1 to 65536, got 0"),
        ({"nonlinearity": "gelu"}, "nonlinearity: unknown nonlinearity 'gelu'"),
        ({"x": "normal:sd=1"}, "x: the law normal"),
    ):
        with pytest.raises(ValueError, match=message):
            survey(**given)
    refused = cli("theory", "--weight", "orthogonal")
    assert (refused.exit_code, refused.stdout) == (2, "")
    assert refused.stderr.startswith("fastgrad: weight: orthogonal is a law of layers")


def test_command(cli):
    shown = cli("theory", "--width", "256", "--weight", "normal:gain=20")
    assert (shown.exit_code, shown.stderr) == (0, "")
    assert "Chaotic: gradients explode" in shown.stdout
    assert "10.1492637" in shown.stdout
    assert max(map(len, shown.stdout.splitlines())) <= 80
    assert "Ordered: gradients vanish" in cli("theory", "--width", "256", "--weight", "he_normal").stdout
    assert "Gradients vanish, while the bound explodes." in cli("theory", "--weight", "normal:std=10").stdout
    result = json.loads(cli("theory", "--width", "8", "--nonlinearity", "relu", "--format", "json").stdout)["result"]
    known = survey(width=8, nonlinearity="relu")
    assert result["lyapunov"] == known.prediction.lyapunov
    assert result["spectrum"] == list(known.spectrum)
    assert result["mean_field"]["xi_1"] == known.mean_field.xi_1
    rows = cli("theory", "--format", "csv").stdout.splitlines()
    assert rows[0] == "what,value"
    assert float(rows[1].rpartition(",")[2]) == survey().prediction.lyapunov


def test_relu_layers_whose_biases_have_a_mean_have_no_exact_law():
    """Drawn: -0.72 nats a layer, and not the -1.06 of biases without one."""
    known = survey("normal:gain=0.5", "constant:1", width=64, nonlinearity="relu")
    assert (known.layer_growth, known.spectrum, known.dead_probability) == (None, None, None)
    linear = survey("normal:gain=0.5", "constant:1", width=64, nonlinearity="linear")
    assert linear.layer_growth == pytest.approx(
        fg.theory.layer_growth(64, 0.5), rel=1e-13
    )  # in which biases have no part


def test_critical_networks_are_called_so(cli):
    for law in ("orthogonal", "glorot_uniform"):
        known = survey(law, width=256, nonlinearity="tanh")
        assert known.prediction.lyapunov == 0
        assert set(known.lost_after.values()) == {None}
        shown = cli("theory", "--width", "256", "--weight", law, "--nonlinearity", "tanh").stdout
        assert "Critical: gradients stay of their size." in shown
    shown = cli("theory", "--width", "256", "--weight", "lecun_normal", "--nonlinearity", "tanh").stdout
    assert "Gradients vanish at 256 units, and stay as n -> infinity." in shown
    critical = f"orthogonal:gain={fg.theory.critical_sigma_w()!r}"
    assert survey(critical, width=256).prediction.lyapunov == pytest.approx(0, abs=1e-12)


def test_dead_layers_of_narrow_relu_networks_are_told(cli):
    narrow = ("theory", "--width", "2", "--weight", "normal:gain=20", "--nonlinearity", "relu")
    shown = cli(*narrow).stdout
    assert "One layer in 4 is dead: every gradient before it is exactly zero." in shown
    assert "exact at every width, while a unit is alive in each layer" in shown


def test_subnormal_laws_have_exact_exponents():
    for law, width in (("normal:std=5e-324", 2), ("normal:std=1e-310", 7)):
        std = mpmath.mpf(float(law.partition("=")[2]))
        expected = float(mpmath.log(std) + mpmath.log(width) / 2) + fg.theory.layer_growth(width).mean
        found = fg.theory.predict(law, width=width, nonlinearity="linear")
        assert found.lyapunov == pytest.approx(expected, abs=1e-9)
        assert found.bound.mean == pytest.approx(float(mpmath.log(2 * std) + mpmath.log(width) / 2), abs=1e-9)
    uniform = fg.theory.predict("uniform:low=0,high=5e-324", width=4, nonlinearity="linear")
    assert uniform.why_not == "the weights have a mean"


def test_linear_layers_have_an_exponent_whatever_their_biases_are():
    plain, biased = (
        fg.theory.predict("uniform:low=-1,high=1", bias, width=8, nonlinearity="linear")
        for bias in ("constant:1", "uniform:low=-1,high=1")
    )
    assert biased.lyapunov == plain.lyapunov == pytest.approx(math.log(8 / 3) / 2)
