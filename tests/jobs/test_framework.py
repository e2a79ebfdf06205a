"""Backpropagation in a float format: PyTorch's own results, and what can be counted by hand."""

import importlib.util
import json
import math
import time
from pathlib import Path

import numpy as np
import pytest

import fastgrad as fg
from fastgrad.jobs import framework
from fastgrad.jobs.framework import FORMATS, LINKS_MAX, _to_bfloat16, framework_depths
from fastgrad.laws import parse

GOLDEN = Path(__file__).parents[1] / "golden"
PINNED = json.loads((GOLDEN / "framework.json").read_text(encoding="utf-8"))


def depths(weight, bias="zero", x=0.5, depth=1000, ensemble=51, seed=5, **formats):
    return framework_depths(
        depth, parse(weight, "weight"), parse(bias, "bias"), np.full(ensemble, float(x)), seed, **formats
    )


def lost_after(count, event="underflow"):
    return {"underflow": None, "overflow": None, event: count}


@pytest.mark.parametrize("pinned", PINNED, ids=[" ".join(map(str, pinned["case"])) for pinned in PINNED])
def test_numbers_are_those_of_pytorch(pinned):
    weight, bias, x, depth = pinned["case"]
    assert depths(weight, bias, x, depth) == pinned["found"]


def test_pinned_numbers_are_pytorchs():
    pytest.importorskip("torch")
    spec = importlib.util.spec_from_file_location("make_framework", GOLDEN / "make_framework.py")
    maker = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(maker)
    assert [tuple(pinned["case"]) for pinned in PINNED] == maker.CASES
    for pinned in PINNED:
        assert pinned["found"] == maker.found(*pinned["case"])


def test_every_step_is_pytorchs():
    torch = pytest.importorskip("torch")
    rng = np.random.default_rng(0)
    for name, of in FORMATS.items():
        dtype = getattr(torch, name)
        z, gradient = (torch.tensor(rng.standard_normal(20_000) * size).to(dtype) for size in (6, 1))
        o = torch.sigmoid(z.requires_grad_())
        o.backward(gradient)
        ours = framework._times_slope(
            of, *(v.detach().to(torch.float64).numpy().astype(of.dtype) for v in (gradient, o))
        )
        assert np.array_equal(ours, z.grad.to(torch.float64).numpy().astype(of.dtype))
        sigmoid = framework._sigmoid(of, z.detach().to(torch.float64).numpy().astype(of.dtype))
        # Two exponentials differ in the last place, which 16 bits do not see.
        assert np.allclose(
            sigmoid, o.detach().to(torch.float64).numpy(), rtol=4e-7 if name == "float32" else 1e-15, atol=0
        )


def test_bfloat16_is_rounded_to_nearest_even():
    one = np.float32(1)
    values = np.array(
        [1 + 2**-9, 1 + 2**-8, 1 + 3 * 2**-8, 1 + 2**-8 + 2**-20, 3.4e38, np.inf, -0.0, 2**-134], np.float32
    )
    expected = [1, 1, 1 + 2**-6, 1 + 2**-7, np.inf, np.inf, 0, 0]
    assert _to_bfloat16(values).tolist() == expected
    assert np.isnan(_to_bfloat16(one * np.nan * np.ones(1, np.float32)))[0]


def test_quarters_are_lost_where_the_format_ends():
    # 0.25^k: the least subnormals are 2^-24, 2^-133, 2^-149 and 2^-1074, and a tie goes to 0.
    found = depths("constant:1", "centered")
    assert found == {
        "float16": lost_after(13),
        "bfloat16": lost_after(67),
        "float32": lost_after(75),
        "float64": lost_after(538),
    }


def test_a_factor_above_one_half_stays_at_the_least_subnormal_for_ever():
    # 3/4 of the least subnormal is rounded back to it; the exact gradient would be rounded to 0.
    growth = fg.simulate(3000, 3, "constant:3", "centered")
    assert all(events["underflow"] for events in growth.summary()["first_depth"].values())
    assert depths("constant:3", "centered", depth=3000) == {name: lost_after(None) for name in FORMATS}


def test_o_times_one_minus_o_reads_0_before_the_format_ends():
    exact = fg.simulate(1000, 500, "normal:std=10").summary()["first_depth"]["bfloat16"]["underflow"]
    found = depths("normal:std=10", ensemble=500, seed=0)["bfloat16"]["underflow"]
    assert 5 <= found <= 8 < 30 < exact


def test_overflow():
    assert depths("constant:500", "centered")["float64"] == lost_after(148, "overflow")  # 125^147 is the last
    # A weight that the format can't hold is inf, and so is what it multiplies.
    assert depths("constant:1e300", "centered", depth=3)["float32"]["underflow"] is None


def test_a_format_that_holds_to_the_end():
    assert depths("constant:4", "centered", depth=10**12) == {name: lost_after(None) for name in FORMATS}
    assert depths("normal:std=4", depth=3)["float64"] == lost_after(None)


def test_what_is_lost_last_is_looked_for_among_1024_links():
    weight = 4 * 2 ** (-1075 / 1000)  # after 1000 links the product is half the least subnormal of float64
    assert depths(f"constant:{weight}", "centered", depth=10**6)["float64"]["underflow"] == pytest.approx(1000, abs=2)
    weight = 4 * 2 ** (-1075 / 1100)
    assert depths(f"constant:{weight}", "centered", depth=10**6)["float64"]["underflow"] is None
    assert LINKS_MAX == 1024


def test_a_deep_chain_is_that_of_all_its_links(monkeypatch):
    drawn = []
    original = framework.draw
    monkeypatch.setattr(framework, "draw", lambda *given: drawn.append(given[3]) or original(*given))
    deep = depths("normal:std=4", "normal:std=1", depth=2000)
    # Each link once, and 128 more than those that float64 needs, for the chain to forget where it was entered.
    assert np.array_equal(np.sort(np.concatenate(drawn)), np.arange(2000 - 512 - 128, 2000) + 1)
    assert 256 < deep["float64"]["underflow"] <= 512
    monkeypatch.setattr(framework, "LEAD_LINKS", 2000)
    assert deep == depths("normal:std=4", "normal:std=1", depth=2000)


@pytest.mark.parametrize(
    ("weight", "bias", "x"),
    [
        ("normal:std=18", "centered", 0.9),  # remembers its side of 1/2
        ("uniform:low=-19,high=-18", "constant:9", 0.5),  # alternates
        ("normal:mean=8,std=1.8", "normal:mean=-3.6,std=0.5", 0.5),  # two wells
    ],
)
@pytest.mark.parametrize("depth", [200, 401, 1152])
def test_chains_that_remember_their_input_are_run_from_it(weight, bias, x, depth):
    for seed in range(8):
        w, b = (values.astype(np.float32) for values in fg.draw(depth, 3, weight, bias, seed))
        o = [np.full(3, x, np.float32)]
        for link in range(depth):
            o.append(1 / (1 + np.exp(-(w[link] * o[-1] + b[link]))))
        gradient, lost = np.ones(3, np.float32), 0
        while lost < depth and np.count_nonzero(gradient == 0) < 2:
            lost += 1
            gradient = gradient * (1 - o[-lost]) * o[-lost] * w[-lost]
        expected = lost_after(lost if np.count_nonzero(gradient == 0) >= 2 else None)
        assert depths(weight, bias, x, depth, 3, seed)["float32"] == expected


def test_results_have_it_once():
    growth = fg.simulate(1000, 1000, "normal:std=10")
    start = time.perf_counter()
    found = growth.framework_depth
    assert time.perf_counter() - start < 5  # some 0.1 s
    assert growth.framework_depth is found
    assert found == depths("normal:std=10", ensemble=1000, seed=0)
    for name, events in found.items():
        exact = growth.summary()["first_depth"][name]["underflow"]
        assert math.isclose(events["underflow"], exact, rel_tol=0.15) or (name == "bfloat16")
    assert json.loads(json.dumps(found)) == found
