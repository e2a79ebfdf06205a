"""Comparison of the backends: agreement is checked before anything is timed, and a wrong backend is caught."""

import csv
import io
import itertools
import re
import statistics
from functools import partial

import numpy as np
import pytest

import fastgrad as fg
from fastgrad.jobs import compare as comparing
from fastgrad.jobs.compare import BackendTimes, Comparison, compare
from fastgrad.kernels import BACKENDS, load

SIZE = ("--depth", "12", "--ensemble", "70", "--repeats", "3")
JOBS = ("backprop", "simulate")


@pytest.fixture
def run(cli):
    """Function that runs a small ``fastgrad compare``."""
    return partial(cli, "compare", *SIZE)


@pytest.fixture
def all_backends(compiled):
    """The names of all backends, which can all run."""
    return [*compiled, "numpy"]


@pytest.fixture
def only_numpy(monkeypatch):
    """No backend but the reference."""
    for name in ("cpp", "numba"):
        monkeypatch.setitem(
            BACKENDS, name, BACKENDS[name]._replace(module="fastgrad.kernels.absent", remedy="install it")
        )


# The fields of the kernels' jobs that a wrong kernel can spoil.
GRADIENTS = {
    "backprop": ("output", "grad_weight", "grad_bias", "grad_x"),
    "simulate": ("activation", "weight", "input", "slope", "product", "bound"),
}
CARRIES = ("product_before", "bound_before")
KERNELS = {"backprop": "backprop", "simulate": "propagate"}


def slightly(array):
    array.flat[-1] *= 1 + 1e-6


def by_one_bit(array):
    array.flat[-1] = np.nextafter(array.flat[-1], 2.0)


def in_sign(array):
    array.flat[-1] *= -1


def zero(array):
    array.flat[-1] = 0.0


def not_a_number(array):
    array.flat[-1] = np.nan


def field(arguments, name):
    """A field of the job or the state that a kernel is called with; of scaled numbers the mantissas."""
    value = next(getattr(of, name) for of in arguments if hasattr(of, name))
    return getattr(value, "mantissa", value)


def make_wrong(monkeypatch, backend, job, place, how):
    """Make one number of a kernel's results wrong; returns the list of the calls."""
    kernels = load(backend)[1]
    right = getattr(kernels, KERNELS[job])
    calls = []

    def wrong(*arguments):
        calls.append(arguments)
        returned = right(*arguments)
        if arguments[-1] == 70:  # the slice with the last member
            how(field(arguments, place))
        return returned

    monkeypatch.setattr(kernels, KERNELS[job], wrong)
    return calls


# The function


@pytest.mark.parametrize("job", JOBS)
def test_backends_agree(job, all_backends):
    comparison = compare(job, 50, 70, repeats=3)
    assert comparison.agree
    assert (comparison.job, comparison.links) == (job, 50 * 70)
    assert [row.backend for row in comparison.backends] == all_backends == fg.available_backends()
    cpp, numba, numpy = comparison.backends
    assert "numba" in cpp.same_bits_as
    assert "cpp" in numba.same_bits_as
    assert numpy.distance == 0.0
    assert 0 < cpp.distance == numba.distance < 1  # NumPy rounds exp differently somewhere
    for row in comparison.backends:
        assert row.warm_up > 0
        assert len(row.seconds) == 3
        assert min(row.seconds) > 0


@pytest.mark.parametrize("job", JOBS)
def test_backends_take_turns(job, all_backends, monkeypatch):
    real, order = getattr(comparing, job), []

    def watch(*arguments, backend, **keywords):
        order.append(backend)
        return real(*arguments, backend=backend, **keywords)

    monkeypatch.setattr(comparing, job, watch)
    compare(job, 5, 3, repeats=4)
    assert order == all_backends * 5  # one round to compare results, four to time


def test_progress(only_numpy):
    seen = []
    compare("backprop", 5, 3, repeats=4, progress=lambda done, total: seen.append((done, total)))
    assert seen == [(1, 4), (2, 4), (3, 4), (4, 4)]


def test_times_are_those_of_the_clock(only_numpy, monkeypatch):
    clock = iter([0.0, 8.0, 10.0, 11.0, 20.0, 22.0, 30.0, 33.0])
    monkeypatch.setattr(comparing.time, "perf_counter", lambda: next(clock))
    (row,) = compare("backprop", 5, 3, repeats=3).backends
    assert (row.warm_up, row.seconds) == (8.0, [1.0, 2.0, 3.0])


def test_speedup_is_of_each_round():
    reference = BackendTimes("numpy", 0.0, [], 1.0, [8.0, 6.0])
    fast = BackendTimes("cpp", 0.0, [], 1.0, [2.0, 3.0])
    comparison = Comparison("backprop", 10, [fast, reference])
    assert comparison.speedup(fast) == [4.0, 2.0]
    assert comparison.speedup(reference) == [1.0, 1.0]


@pytest.mark.parametrize(
    ("cpp", "numba", "agree"),
    [
        ((1.0, ["numba"]), (1.0, ["cpp"]), True),
        ((1.5, ["numba"]), (1.5, ["cpp"]), False),
        ((0.5, []), (0.4, []), False),  # within the bound, but not the same bits
        ((np.inf, ["numba"]), (0.0, ["cpp"]), False),
        ((0.5, []), None, True),
    ],
)
def test_what_agreement_means(cpp, numba, agree):
    rows = [BackendTimes("cpp", *cpp, 1.0, [])]
    rows += [BackendTimes("numba", *numba, 1.0, [])] if numba else []
    assert Comparison("backprop", 1, [*rows, BackendTimes("numpy", 0.0, [], 1.0, [])]).agree is agree


WRONG = [
    (job, place, how)
    for job in JOBS
    for place in GRADIENTS[job]
    for how in (slightly, in_sign, zero, not_a_number)
    # Bounds are magnitudes, and a drawn weight that is not a number stops simulate itself.
    if (how, place) not in {(in_sign, "bound"), (not_a_number, "weight")}
]


@pytest.mark.parametrize(("job", "place", "how"), WRONG)
def test_wrong_kernel_is_caught(job, place, how, compiled, monkeypatch):
    calls = make_wrong(monkeypatch, "cpp", job, place, how)
    with np.errstate(all="ignore"):
        comparison = compare(job, 12, 70, threads=1)
    assert not comparison.agree
    found = {row.backend: row for row in comparison.backends}
    assert found["cpp"].distance > 1
    assert found["cpp"].same_bits_as == []
    assert found["numba"].distance < 1
    assert [row.seconds for row in comparison.backends] == [[], [], []]
    assert len(calls) == 1


@pytest.mark.parametrize("place", CARRIES)
@pytest.mark.parametrize("how", [slightly, zero])
def test_wrong_carry_is_caught(place, how, compiled, monkeypatch):
    kernels = load("cpp")[1]
    right = kernels.propagate

    def wrong(*arguments):
        right(*arguments)
        if arguments[2] > 1:  # the first page has none
            how(field(arguments, place))

    monkeypatch.setattr(kernels, "propagate", wrong)
    monkeypatch.setattr(kernels, "LIMITS", kernels.LIMITS._replace(links=1024))
    assert not compare("simulate", 1500, 3, threads=1).agree
    monkeypatch.setattr(kernels, "propagate", right)
    assert compare("simulate", 1500, 3, threads=1, repeats=2).agree


ONE_BIT = [("backprop", "grad_weight"), ("backprop", "output"), ("simulate", "slope"), ("simulate", "activation")]


@pytest.mark.parametrize(("job", "place"), ONE_BIT)
@pytest.mark.parametrize("backend", ["cpp", "numba"])
def test_one_wrong_bit_is_caught(job, place, backend, compiled, monkeypatch):
    make_wrong(monkeypatch, backend, job, place, by_one_bit)
    comparison = compare(job, 12, 70, threads=1)
    assert not comparison.agree
    assert max(row.distance for row in comparison.backends) < 1
    assert [row.seconds for row in comparison.backends] == [[], [], []]


@pytest.mark.parametrize("place", ["grad_x", "output"])
def test_wrong_reference_is_caught(place, compiled, monkeypatch):
    make_wrong(monkeypatch, "numpy", "backprop", place, slightly)
    comparison = compare("backprop", 12, 70, threads=1)
    assert not comparison.agree
    assert [row.distance > 1 for row in comparison.backends] == [True, True, False]


@pytest.mark.parametrize("job", JOBS)
def test_only_numpy(job, only_numpy):
    comparison = compare(job, 12, 3, repeats=2)
    assert comparison.agree
    assert [(row.backend, row.same_bits_as, row.distance) for row in comparison.backends] == [("numpy", [], 0.0)]


def test_zeros_agree(all_backends):
    assert compare("backprop", 12, 3, weight="zero", repeats=2).agree


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"job": "train"}, r"^job: expected backprop or simulate, got 'train'$"),
        ({"repeats": 1}, r"^repeats: expected 2 to "),
        ({"depth": 0}, r"^depth: "),
        ({"weight": "normall"}, r"^weight: unknown law 'normall'"),
    ],
)
def test_bad_arguments(wrong, message):
    with pytest.raises(ValueError, match=message):
        compare(**wrong)


# The command


@pytest.mark.parametrize("job", JOBS)
def test_json(job, all_backends, run, strict_json):
    result = run("--job", job, "--format", "json")
    assert (result.exit_code, result.stderr) == (0, "")
    document = strict_json(result.stdout)
    assert document["parameters"]["job"] == document["result"]["job"] == job
    assert document["result"]["agree"] is True
    assert document["result"]["links"] == 12 * 70
    assert document["provenance"]["backend"] is None
    assert document["provenance"]["instruction_set"] == fg._cpp.chosen()
    rows = document["result"]["backends"]
    assert [row["backend"] for row in rows] == all_backends
    assert [row["same_bits_as"] for row in rows] == [["numba"], ["cpp"], []]
    reference = rows[-1]["seconds"]
    for row in rows:
        seconds = row["seconds"]
        assert len(seconds) == 3
        assert row["median_s"] == statistics.median(seconds)
        assert (row["min_s"], row["max_s"]) == (min(seconds), max(seconds))
        assert row["ns_per_link"] == pytest.approx(1e9 * statistics.median(seconds) / (12 * 70), rel=1e-15)
        ratios = [r / s for r, s in zip(reference, seconds, strict=True)]
        assert row["speedup"] == statistics.median(ratios)
        assert (row["speedup_low"], row["speedup_high"]) == (min(ratios), max(ratios))
        assert row["warm_up_s"] > 0
        assert row["distance"] <= 1


def test_table(all_backends, run):
    result = run()
    assert (result.exit_code, result.stderr) == (0, "")
    lines = result.stdout.splitlines()
    assert lines[0] == "backprop: 12 links x 70 chains"
    agreement = next(i for i, line in enumerate(lines) if line.startswith("Agreement with the reference"))
    times = next(i for i, line in enumerate(lines) if line.startswith("Time, 3 interleaved rounds"))
    assert agreement < times  # check, then time
    for start, stop in ((agreement, times), (times, len(lines))):
        names = [line.split()[0] for line in lines[start + 4 : stop] if re.match(r" \w", line)]
        assert names[:3] == all_backends
    assert "speedup: t_numpy / t_backend" in result.stdout
    assert "first call" in result.stdout


def test_csv(all_backends, run):
    rows = list(csv.DictReader(io.StringIO(run("--format", "csv").stdout)))
    assert [row["backend"] for row in rows] == all_backends
    assert [row["same_bits_as"] for row in rows] == ["numba", "cpp", ""]
    assert float(rows[-1]["speedup"]) == 1.0
    assert all(float(row["min_s"]) <= float(row["median_s"]) <= float(row["max_s"]) for row in rows)


@pytest.mark.parametrize("job", JOBS)
def test_disagreement_exits_3_and_times_nothing(job, compiled, monkeypatch, run):
    place = next(iter(GRADIENTS[job]))
    calls = make_wrong(monkeypatch, "numba", job, place, slightly)
    result = run("--job", job, "--threads", "1")
    assert result.exit_code == 3
    assert result.stderr == "fastgrad: the backends disagree\n"
    assert "The backends disagree" in result.stdout
    assert "nothing was timed" in result.stdout
    assert "interleaved" not in result.stdout
    assert len(calls) == 1


@pytest.mark.parametrize("how", [in_sign, not_a_number, zero])
def test_disagreement_in_json(how, compiled, monkeypatch, tmp_path, run, strict_json):
    make_wrong(monkeypatch, "cpp", "backprop", "grad_bias", how)
    with np.errstate(all="ignore"):
        result = run("-o", tmp_path / "comparison.json")
    assert (result.exit_code, result.stdout) == (3, "")
    assert result.stderr == "fastgrad: the backends disagree\n"
    found = strict_json((tmp_path / "comparison.json").read_text())["result"]
    assert found["agree"] is False
    cpp, numba, numpy = found["backends"]
    assert (cpp["distance"], cpp["distance_why"]) == (None, "infinity")
    assert (numba["distance"] < 1, numpy["distance"]) == (True, 0.0)
    for row in found["backends"]:
        assert row["seconds"] == []
        assert "median_s" not in row
        assert "speedup" not in row


def test_disagreement_in_csv(compiled, monkeypatch, run):
    make_wrong(monkeypatch, "cpp", "backprop", "grad_bias", in_sign)
    result = run("--format", "csv")
    assert result.exit_code == 3
    rows = list(csv.DictReader(io.StringIO(result.stdout)))
    assert [row["distance"] for row in rows[::2]] == ["inf", "0.0"]
    assert "median_s" not in rows[0]


def test_command_with_only_numpy(only_numpy, run, strict_json):
    result = run("--format", "json")
    assert result.exit_code == 0
    document = strict_json(result.stdout)
    (row,) = document["result"]["backends"]
    assert (row["backend"], row["speedup"], row["same_bits_as"]) == ("numpy", 1.0, [])
    assert "numpy" in run().stdout


def test_command_passes_its_options_on(only_numpy, monkeypatch, run):
    real, seen = compare, {}

    def watch(**given):
        seen.update(given)
        return real(**given)

    monkeypatch.setattr(comparing, "compare", watch)
    options = {
        "job": "simulate",
        "depth": 6,
        "ensemble": 4,
        "weight": "normal:std=2",
        "bias": "centered",
        "seed": 9,
        "repeats": 2,
        "threads": 2,
    }
    result = run(*itertools.chain(*((f"--{name}", value) for name, value in options.items())))
    assert result.exit_code == 0
    assert seen == options | {"width": 1, "nonlinearity": "sigmoid", "progress": None}


@pytest.mark.parametrize("nonlinearity", ["sigmoid", "tanh", "relu", "linear"])
@pytest.mark.parametrize("weight", ["normal:gain=1", "normal:gain=20", "orthogonal:gain=1.5"])
def test_layers_agree(nonlinearity, weight):
    found = compare("simulate", 30, 3, weight, "normal:std=1", 4, 9, nonlinearity, repeats=2, threads=1)
    assert found.agree
    assert found.links == 30 * 3 * 9**2
    assert (found.width, found.compared_depth) == (9, 30)


def test_chaotic_layers_are_compared_as_far_as_rounding_allows():
    found = compare("simulate", 200, 2, "normal:gain=20", "zero", width=48, repeats=2, threads=1)
    assert found.agree
    assert found.compared_depth in (12, 25, 50)
    ordered = compare("simulate", 200, 2, "normal:gain=5", "zero", width=48, repeats=2, threads=1)
    assert (ordered.agree, ordered.compared_depth) == (True, 200)


def test_outputs_beyond_float64_are_compared():
    found = compare("simulate", 5, 3, "normal:std=1e200", "zero", width=3, nonlinearity="linear", repeats=2)
    assert found.agree
    assert np.isinf(fg.simulate(5, 3, "normal:std=1e200", "zero", width=3, nonlinearity="linear").output).all()


def test_weights_at_the_end_of_float64_are_compared():
    largest = "constant:1.7976931348623157e308"
    assert compare("simulate", 5, 2, largest, "zero", width=4, repeats=2).agree


def test_a_layer_that_rounding_decides_has_no_distance():
    """7 * 0.1 * 0.5 - 0.35 is 0 but for rounding, and decides if every unit of the layer is alive."""
    found = compare("simulate", 1, 3, "constant:0.1", "constant:-0.35", width=7, nonlinearity="relu", repeats=2)
    assert found.compared_depth == 0
    assert found.agree == all("cpp" in row.same_bits_as for row in found.backends if row.backend == "numba")


def test_layers_that_are_off_by_a_little_disagree(monkeypatch):
    def off(depth, *more, backend="auto", **options):
        growth = fg.simulate(depth, *more, backend=backend, **options)
        if backend != "numpy":
            growth.adjoint.mantissa[0, 0] *= 1 + 1e-8
        return growth

    monkeypatch.setattr(comparing, "simulate", off)
    found = compare("simulate", 30, 2, "normal:gain=2", width=9, repeats=2, threads=1)
    assert not found.agree
    assert all(not row.seconds for row in found.backends)


def test_layers_on_the_command_line(cli):
    arguments = ("compare", "--job", "simulate", "--width", "8", "--depth", "20", "--ensemble", "4", "--repeats", "2")
    shown = cli(*arguments)
    assert (shown.exit_code, shown.stderr) == (0, "")
    assert "simulate: 20 layers of 8 units x 4 networks" in shown.stdout
    assert "ns/weight" in shown.stdout
    refused = cli("compare", "--width", "8")
    assert (refused.exit_code, refused.stderr) == (
        2,
        "fastgrad: job: backprop is of chains, got width 8 and sigmoid; expected simulate for layers\n",
    )
