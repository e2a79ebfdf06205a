"""Reports: the JSON, the CSV and the tables hold the same numbers, all of them, in the promised form."""

import csv
import errno
import io
import json
import math
import platform
import re
import sys
from importlib import metadata

import mpmath
import numpy as np
import pytest

import fastgrad as fg
from fastgrad.report.document import Report, Text
from fastgrad.report.text import power_of_ten, seconds_text, with_thin_spaces
from fastgrad.report.writing import write

COMMANDS = {
    "example": ("example",),
    "simulate": ("simulate", "--depth", "40", "--ensemble", "5"),
    "one chain": ("simulate", "--depth", "40", "--ensemble", "1"),
    "backprop": ("backprop", "{folder}/chain.npz"),
    "compare": ("compare", "--depth", "10", "--ensemble", "3", "--repeats", "2"),
    "info": ("info",),
}
EXTREMES = [
    ("simulate", "--weight", "zero", "--depth", "5", "--ensemble", "3"),
    ("simulate", "--weight", "zero", "--depth", "1", "--ensemble", "1"),
    ("simulate", "--weight", "constant:1e300", "--depth", "5", "--ensemble", "3"),
    ("simulate", "--weight", "constant:1e-300", "--depth", "5", "--ensemble", "1"),
    ("simulate", "--depth", "1", "--ensemble", "1"),
    ("simulate", "--depth", "1", "--ensemble", "2"),
    ("simulate", "--depth", "1e5", "--ensemble", "1"),
    ("simulate", "--weight", "constant:8", "--bias", "centered", "--depth", "1e4", "--ensemble", "2"),
    ("backprop", "{folder}/dead.npz"),
    ("backprop", "{folder}/silent.npz"),
    ("example", "--weight", "0"),
    ("example", "--weight", "1e300"),
    ("example", "--learning-rate", "1e308"),
    ("compare", "--weight", "zero", "--depth", "4", "--ensemble", "2", "--repeats", "2"),
]


@pytest.fixture(autouse=True)
def folder(tmp_path):
    """A folder with chains: an ordinary one, one with a dead link, and one with cotangent 0."""
    np.savez(tmp_path / "chain.npz", weight=np.linspace(-9, 7, 40), bias=np.linspace(2, -3, 40))
    np.savez(tmp_path / "dead.npz", weight=[[1.0, 2.0], [0.0, 3.0], [2.0, 4.0]])
    np.savez(tmp_path / "silent.npz", weight=[1.0, 2.0], cotangent=0.0)
    return tmp_path


@pytest.fixture
def output(output, folder):
    """Function that returns what a command prints, with files of `folder`."""
    return lambda *arguments, **environment: output(*(str(a).format(folder=folder) for a in arguments), **environment)


@pytest.fixture
def document(output, strict_json):
    """Function that returns the JSON of a command, parsed strictly."""
    return lambda *arguments: strict_json(output(*arguments, "--format", "json"))


@pytest.fixture
def table(output):
    """Function that returns the rows of a command's CSV."""
    return lambda *arguments: list(csv.DictReader(io.StringIO(output(*arguments, "--format", "csv"))))


# JSON


@pytest.mark.parametrize("command", COMMANDS)
def test_json_schema(command, document):
    arguments = COMMANDS[command]
    found = document(*arguments)
    assert list(found) == ["schema", "command", "parameters", "provenance", "result"]
    assert found["schema"] == "fastgrad/1"
    assert found["command"] == arguments[0]
    assert isinstance(found["result"], dict)


@pytest.mark.parametrize("command", ["example", "simulate", "backprop"])
def test_provenance(command, backend, document):
    found = document(*COMMANDS[command], "--backend", backend)["provenance"]
    assert found["fastgrad"] == fg.__version__
    assert found["python"] == platform.python_version()
    assert found["numpy"] == np.__version__
    assert found["numba"] == metadata.version("numba")
    assert found["backend"] == backend
    assert (found["instruction_set"] is not None) == (backend == "cpp")
    if backend == "cpp":
        assert found["instruction_set"] == fg._cpp.chosen()
    assert found["seed"] == (0 if command == "simulate" else None)
    assert found["cpu"]
    assert found["platform"] == platform.platform()


def test_provenance_of_a_comparison(compiled, document):
    found = document(*COMMANDS["compare"])["provenance"]
    assert found["backend"] is None  # several ran
    assert found["instruction_set"] == fg._cpp.chosen()
    assert found["seed"] == 0


def test_parameters(folder, document):
    arguments = (
        "--depth",
        "30",
        "--ensemble",
        "2",
        "--weight",
        "normal",
        "--bias",
        "centered",
        "--x",
        "0.25",
        "--seed",
        "7",
    )
    assert document("simulate", *arguments, "--record", "9")["parameters"] == {
        "depth": 30,
        "ensemble": 2,
        "weight": "normal",
        "bias": "centered",
        "x": 0.25,
        "seed": 7,
        "record": 9,
        "width": 1,
        "nonlinearity": "sigmoid",
        "inputs": 1,
    }
    assert document("example", "--weight", "8")["parameters"] == {"weight": 8.0, "learning_rate": 0.01}
    compared = document(*COMMANDS["compare"])["parameters"]
    assert {name: compared[name] for name in ("job", "depth", "ensemble", "repeats", "seed")} == {
        "job": "backprop",
        "depth": 10,
        "ensemble": 3,
        "repeats": 2,
        "seed": 0,
    }
    path = f"{folder}/chain.npz"
    assert document("backprop", path)["parameters"] == {
        "file": path,
        "bias": None,
        "x": [0.5],  # what was used
        "cotangent": [1.0],
    }


def nulls(value, path=()):
    """Paths of what is null, or has a null in it, without a reason beside it."""
    if isinstance(value, dict):
        for key, item in value.items():
            lost = item is None or "null" in json.dumps(item) if not isinstance(item, dict) else False
            if lost and not value.get(f"{key}_why"):
                yield (*path, key)
            yield from nulls(item, (*path, key))


@pytest.mark.parametrize("arguments", EXTREMES, ids=" ".join)
def test_what_is_not_finite_is_null_with_a_reason(arguments, document):
    result = document(*arguments)["result"]  # parsed strictly
    unexplained = list(nulls(result))
    # That a format never fails within the depth is no missing number.
    never = ("first_depth", "framework_depth", "float32_links")
    assert [path for path in unexplained if path[0] not in never] == []


@pytest.mark.parametrize("arguments", EXTREMES, ids=" ".join)
def test_extremes_have_a_csv(arguments, output):
    lines = list(csv.reader(io.StringIO(output(*arguments, "--format", "csv"))))
    assert len(lines) >= 2
    assert {len(line) for line in lines} == {len(lines[0])}


def test_zero_weights(document):
    result = document(*EXTREMES[0])["result"]
    assert result["lyapunov"]["mean"] is None
    assert result["lyapunov"]["mean_why"] == "minus infinity"
    assert result["lyapunov"]["stderr"] is None
    assert result["lyapunov"]["stderr_why"] == "undefined for these data"
    assert result["bound_rate"] is None
    assert result["bound_rate_why"] == "minus infinity"
    assert result["zero_share"] == 1.0
    assert result["curve"]["adjoint"]["q50"] == [None] * 5
    assert result["curve"]["adjoint"]["q50_why"] == "minus infinity"
    # The last link's own gradients do not go through a weight: log10(1/8) and log10(1/4).
    assert result["curve"]["grad_weight"]["q50"] == [None] * 4 + [math.log10(0.125)]
    assert result["curve"]["grad_bias"]["mean"] == [None] * 4 + [math.log10(0.25)]
    assert "link_why" not in result["curve"]


@pytest.mark.parametrize("weight", ["normal:std=10", "zero", "constant:5"])
def test_json_is_the_summary_in_full_precision(weight, backend, document):
    arguments = ("--depth", "300", "--ensemble", "6", "--weight", weight, "--bias", "normal:std=1", "--seed", "3")
    result = document("simulate", *arguments, "--backend", backend)["result"]
    growth = fg.simulate(300, 6, weight, "normal:std=1", seed=3, backend=backend)
    theory = result.pop("theory")
    assert result.pop("framework_depth") == growth.framework_depth
    assert result == growth.summary()
    predicted = fg.theory.predict(weight, "normal:std=1")
    assert theory["lyapunov"] == (None if weight == "zero" else predicted.lyapunov)
    assert theory["bound_rate"] == (None if weight == "zero" else predicted.bound.mean)
    assert result["curve"]["link"] == growth.link.tolist()
    if weight != "zero":
        assert result["lyapunov"] == {"mean": growth.lyapunov.mean, "stderr": growth.lyapunov.stderr}
        assert result["curve"]["adjoint"]["mean"] == growth.adjoint.log10().mean(axis=1).tolist()


# CSV


@pytest.mark.parametrize("arguments", [COMMANDS["simulate"], COMMANDS["one chain"], EXTREMES[0]], ids=" ".join)
def test_csv_of_simulate_equals_the_json(arguments, table, document):
    curve = document(*arguments)["result"]["curve"]
    rows = table(*arguments)
    assert [int(row["link"]) for row in rows] == curve.pop("link")
    expected = {
        f"log10_{name}_{key}": [-math.inf if value is None else value for value in values]
        for name, of in curve.items()
        for key, values in of.items()
        if not key.endswith("_why")
    }
    assert set(rows[0]) == {"link", *expected}
    assert len(expected) == 4 * 6
    for name, values in expected.items():
        assert [float(row[name]) for row in rows] == values, name


def test_csv_of_example_equals_the_json(document, table):
    result = document("example")["result"]
    found = {row["quantity"]: row["value"] for row in table("example")}
    for name, factor in result["factors"].items():
        assert float(found[name]) == factor
    assert float(found["dloss/dw11"]) == result["gradient"]
    assert float(found["w11 before"]) == result["weight_before"]
    assert float(found["w11 after"]) == result["weight_after"]
    assert float(found["loss before"]) == result["loss_before"]
    assert float(found["loss after"]) == result["after_step"]["loss"]
    mantissa, exponent = found["dloss/dw11 after"].split("e")
    assert float(exponent) + math.log10(float(mantissa)) == pytest.approx(
        result["after_step"]["gradient"]["log10"], rel=1e-15
    )


def test_csv_of_compare_equals_the_json(monkeypatch, table, document):
    from fastgrad.jobs import compare

    clock = iter(np.arange(10_000) ** 1.5)  # the same times twice
    monkeypatch.setattr(compare.time, "perf_counter", lambda: float(next(clock)))
    backends = document(*COMMANDS["compare"])["result"]["backends"]
    clock = iter(np.arange(10_000) ** 1.5)
    rows = table(*COMMANDS["compare"])
    assert [row["backend"] for row in rows] == [row["backend"] for row in backends]
    for name in (
        "distance",
        "warm_up_s",
        "median_s",
        "min_s",
        "max_s",
        "ns_per_link",
        "speedup",
        "speedup_low",
        "speedup_high",
    ):
        assert [float(row[name]) for row in rows] == [row[name] for row in backends], name


def test_csv_of_info_equals_the_json(document, table):
    result = document("info")["result"]
    found = {row["what"]: row["value"] for row in table("info")}
    assert found["fastgrad"] == result["fastgrad"]
    assert found["packages.numpy"] == result["packages"]["numpy"]
    assert found["threads"] == str(result["threads"])
    assert len(found) == sum(len(value) if isinstance(value, dict) else 1 for value in result.values())


# Tables


def cells(text):
    """Rows of the first table below its rule, as lists of cells."""
    lines = iter(text.splitlines())
    for line in lines:
        if set(line.strip()) == {"─"}:
            break
    rows = []
    for line in lines:
        if not line.strip():
            break
        rows.append(re.split(r" {2,}", line.strip()))
    return rows


def power(log10):
    """A magnitude in decades, which are never -0.0."""
    return f"10^{log10:.1f}".replace("^-0.0", "^0.0")


@pytest.mark.parametrize("depth", [40, 1000, 10**6])
def test_table_of_one_chain(depth, output, document):
    arguments = ("simulate", "--depth", depth, "--ensemble", "1")
    rows = cells(output(*arguments))
    result = document(*arguments)["result"]
    curve = result["curve"]
    links = [int(row[0]) for row in rows]
    assert (len(links), links[0], links[-1]) == (10, 1, depth)
    assert max(np.diff(links)) - min(np.diff(links)) <= max(2, depth / 50)
    for link, (_, gradient, bound) in zip(links, rows, strict=True):
        at = curve["link"].index(link)
        assert gradient == power(curve["adjoint"]["q50"][at])
        assert bound == power(curve["bound"]["q50"][at])


def test_table_of_an_ensemble(output, document):
    text = output(*COMMANDS["simulate"])
    curve = document(*COMMANDS["simulate"])["result"]["curve"]
    for link, gradient, band, bound in cells(text):
        at = curve["link"].index(int(link))
        adjoint = curve["adjoint"]
        assert gradient == power(adjoint["q50"][at])
        assert band == f"{power(adjoint['q05'][at])} … {power(adjoint['q95'][at])}"
        assert bound == power(curve["bound"]["q50"][at])


def test_table_of_zeros(output):
    rows = cells(output("simulate", "--weight", "zero", "--depth", "5", "--ensemble", "3"))
    assert rows == [[str(link), "0", "0 … 0", "0"] for link in range(1, 6)]


def test_table_of_backprop(folder, output):
    text = output(*COMMANDS["backprop"])
    with np.load(folder / "chain.npz") as file:
        gradients = fg.backprop(file["weight"], file["bias"], 0.5)
    for link, grad_weight, grad_bias, bound in cells(text):
        at = int(link) - 1
        assert grad_weight == f"{gradients.grad_weight[at]:.4e}"
        assert grad_bias == f"{gradients.grad_bias[at]:.4e}"
        assert bound.startswith("10^")
    assert "-" in {cell[0] for row in cells(text) for cell in row}  # signs are shown
    assert f"output {gradients.output:.6g}" in text
    assert "bound" in text
    assert f"backend {gradients.backend}" in text


def student_tail(t, freedom):
    """Probability that Student's law exceeds t, by its incomplete beta function."""
    return float(mpmath.betainc(freedom / 2, 0.5, 0, freedom / (freedom + t * t), regularized=True) / 2)


def test_exponent_and_formats_are_those_of_the_json(output, document):
    arguments = ("simulate", "--weight", "normal:std=10", "--depth", "500", "--ensemble", "7")
    text, result = output(*arguments), document(*arguments)["result"]
    mean, stderr = re.search(r"Lyapunov exponent (\S+) ± (\S+) nats per link", text).groups()
    assert stderr == f"{result['stationary']['stderr']:#.2g}"
    decimals = len(stderr.partition(".")[2])
    assert mean == f"{result['stationary']['mean']:.{decimals}f}"
    assert f"a factor {math.exp(result['stationary']['mean']):.3g} a link" in text
    from_link, finite = re.search(r"from link (\d+) on, the start forgotten; finite-depth: (\S+) ±", text).groups()
    assert int(from_link) == result["stationary"]["link"]
    assert float(finite) == pytest.approx(result["lyapunov"]["mean"], rel=1e-2)
    away = re.search(r"theory of an endless chain \S+, (\S+) standard errors away", text).group(1)
    assert float(away) == pytest.approx(abs(result["theory"]["standard_errors"]), abs=0.051)
    measured = result["stationary"]["mean"], result["stationary"]["stderr"]
    t = (measured[0] - result["theory"]["lyapunov"]) / measured[1]
    share = 2 * student_tail(abs(t), 6)  # of seven chains' distances: Student's law, as that of a normal variate
    assert math.erfc(abs(result["theory"]["standard_errors"]) / math.sqrt(2)) == pytest.approx(share, rel=2e-3)
    assert (result["theory"]["standard_errors"] > 0) == (t > 0)
    assert f"{result['bound_rate']:.6g} nats per link" in text
    shown = lost(text)
    assert list(shown) == ["float16", "bfloat16", "float32", "float64"]
    for name, cells_of in shown.items():
        expected = [str(result[key][name]["underflow"]) for key in ("first_depth", "framework_depth")]
        assert cells_of == expected


def lost(text):
    """The table of the float formats: after how many links the exact gradient is lost, and a framework's."""
    rows = re.findall(r"^ (b?float\d\d)  +(\S.*?)  +(\S.*?) *$", text, flags=re.MULTILINE)
    return {name: [exact, framework] for name, exact, framework in rows}


def test_too_few_links_are_not_compared_with_theory(output, document):
    arguments = ("simulate", "--depth", "40", "--ensemble", "9")
    text, theory = output(*arguments), document(*arguments)["result"]["theory"]
    assert "finite-depth, over all 40 links" in text
    assert "not compared: the start is not forgotten within half of the links" in text
    assert "standard errors away" not in text.partition("Textbook")[0]
    assert theory["standard_errors"] is None
    assert theory["standard_errors_why"] == "the start is not forgotten within half of the links"


def test_formats_that_overflow(output):
    text = output("simulate", "--weight", "constant:8", "--bias", "centered", "--depth", "2000", "--ensemble", "3")
    links = {"float16": 16, "bfloat16": 128, "float32": 128, "float64": 1024}  # a factor 2 a link
    assert lost(text) == {name: [f"{count} (inf)"] * 2 for name, count in links.items()}


def test_formats_that_hold(output):
    text = output("simulate", "--weight", "constant:4", "--bias", "centered", "--depth", "2000", "--ensemble", "3")
    assert set(map(tuple, lost(text).values())) == {("not in 2000", "not in 1024")}


def test_a_framework_can_stay_at_the_least_subnormal(output):
    text = output("simulate", "--weight", "constant:3", "--bias", "centered", "--depth", "900", "--ensemble", "3")
    assert lost(text)["float32"] == ["362", "not in 900"]  # 0.75^362 < 2^-150


def test_exact_zeros_are_told(output):
    text = output("simulate", "--weight", "constant:1e300", "--depth", "5", "--ensemble", "2")
    assert "minus infinity" in text
    assert "100 %" in text
    assert "±" not in text


def test_one_short_chain_has_no_error(output):
    text = output("simulate", "--depth", "3", "--ensemble", "1")
    assert "Lyapunov exponent" in text
    assert "±" not in text
    assert "nan" not in text


WIDE = [
    *COMMANDS.values(),
    *EXTREMES,
    ("simulate", "--depth", "1e6", "--ensemble", "1"),
    ("simulate", "--depth", "1e5", "--ensemble", "2", "--weight", "normal:std=300"),
]


@pytest.mark.parametrize("columns", [60, 80, 120])
@pytest.mark.parametrize("arguments", WIDE, ids=" ".join)
def test_tables_fit_the_terminal(arguments, columns, output):
    text = output(*arguments, COLUMNS=str(columns))
    # Narrower than 80 columns, a terminal wraps by itself, and nothing is lost.
    assert max(len(line.rstrip()) for line in text.splitlines()) <= max(columns, 80)
    assert "\x1b" not in text
    assert ("(link)" in text) is (arguments[0] in ("simulate", "backprop"))  # the end of the plot's axis


@pytest.mark.parametrize("arguments", [each for each in WIDE if each[0] != "info"], ids=" ".join)
def test_nothing_is_cut_off_at_80_columns(arguments, output):
    narrow, wide = (output(*arguments, COLUMNS=columns) for columns in ("80", "300"))
    assert not re.search(r"\S…|…\S", narrow)  # where rich cuts a cell, the ellipsis touches what is left
    if arguments[0] == "simulate":
        assert cells(narrow) == cells(wide)


@pytest.mark.parametrize(
    ("log10", "expected"),
    [(-243.7412, "10^-243.7"), (0.25, "10^0.2"), (-1227791.84, "10^-1227791.8"), (-np.inf, "0"), (np.nan, "undefined")],
)
def test_decades(log10, expected):
    assert power_of_ten(log10) == expected


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        (93_750_000.0, "93 750 000"),
        (-937_000.0, "-937 000"),
        (0.0, "0"),
        (-0.0, "0"),
        (500, "500"),
        (11175.125, "11 175.125"),
        (0.25, "0.25"),
        (0.1, "0.1"),
        (999_999_999_999_999.0, "999 999 999 999 999"),
        (1e300, "1e+300"),
        (1.5e-7, "1.5e-07"),
        (np.inf, "beyond float64"),
        (-np.inf, "beyond float64"),
    ],
)
def test_grouped(value, expected):
    assert with_thin_spaces(value) == expected


@pytest.mark.parametrize(
    ("seconds", "expected"),
    [(61.25, "61.2 s"), (1.0, "1 s"), (0.0125, "12.5 ms"), (0.001, "1 ms"), (2.5e-6, "2.5 µs"), (1e-9, "0.001 µs")],
)
def test_seconds(seconds, expected):
    assert seconds_text(seconds) == expected


# Writing


def report(rows, **more):
    return Report("simulate", {}, {"value": 1.5}, rows, [Text("a line")], **more)


FAILURES = [OSError(errno.ENOSPC, "no more"), OSError("no more"), ValueError("no more"), KeyboardInterrupt("no more")]


@pytest.mark.parametrize("error", FAILURES, ids=repr)
def test_file_is_written_whole_or_not_at_all(error, tmp_path):
    def broken():
        yield {"link": 1}
        raise error

    path = tmp_path / "a.csv"
    path.write_text("old")
    before = sorted(tmp_path.iterdir())
    with pytest.raises(type(error), match="no more"):
        write(report(broken()), "csv", str(path), None)
    assert path.read_text() == "old"
    assert sorted(tmp_path.iterdir()) == before


@pytest.mark.parametrize("error", FAILURES, ids=repr)
def test_text_file_is_written_whole_or_not_at_all(error, tmp_path):
    class Broken(Text):
        def __getattribute__(self, name):
            if name == "words":
                raise error
            return super().__getattribute__(name)

    with pytest.raises(type(error), match="no more"):
        write(Report("simulate", {}, {}, [], [Text("a line"), Broken("")]), "table", str(tmp_path / "a.txt"), None)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["chain.npz", "dead.npz", "silent.npz"]


def test_what_fails_names_the_file_that_was_asked_for(tmp_path):
    def broken():
        yield {"link": 1}
        raise OSError(errno.ENOSPC, "no more", str(tmp_path / ".a.csv.temporary"))

    with pytest.raises(OSError, match="no more") as info:
        write(report(broken()), "csv", str(tmp_path / "a.csv"), None)
    assert info.value.filename == str(tmp_path / "a.csv")


def test_npz_on_stdout_is_refused():
    with pytest.raises(ValueError, match=r"npz is written to a file only"):
        write(report([]), "npz", None, None)


def test_npz_holds_the_arrays(tmp_path):
    write(report([], arrays={"output": np.arange(3.0)}), "npz", str(tmp_path / "a.npz"), None)
    with np.load(tmp_path / "a.npz") as file:
        assert file["output"].tolist() == [0, 1, 2]


def test_rows_are_written_as_they_are_made(monkeypatch):
    class Reader(io.StringIO):
        lines = 0

        def write(self, text):
            self.lines += text.count("\n")
            return super().write(text)

    reader, ahead = Reader(), []
    monkeypatch.setattr(sys, "stdout", reader)

    def rows():
        for link in range(5000):
            ahead.append(link + 1 - reader.lines)
            yield {"link": link, "value": link / 2}

    write(report(rows()), "csv", None, None)
    assert reader.getvalue().splitlines() == ["link,value", *(f"{link},{link / 2}" for link in range(5000))]
    assert max(ahead) <= 1


@pytest.mark.parametrize("arguments", [*COMMANDS.values(), *EXTREMES], ids=" ".join)
def test_all_rows_of_a_report_have_the_same_keys(arguments, monkeypatch, output):
    from fastgrad.report import writing as module

    seen, real = [], module.write

    def watch(report, *rest):
        report.rows = list(report.rows)
        seen.extend(list(row) for row in report.rows)
        real(report, *rest)

    monkeypatch.setattr(module, "write", watch)
    output(*arguments, "--format", "csv")
    assert seen
    assert seen == [seen[0]] * len(seen)


def test_text_file_has_no_color_unless_asked(folder, output):
    for color, colored in (("auto", False), ("never", False), ("always", True)):
        output(*COMMANDS["simulate"], "-o", folder / "a.txt", "--color", color, FORCE_COLOR="1")
        text = (folder / "a.txt").read_text(encoding="utf-8")
        assert ("\x1b[" in text) is colored
        assert "±" in text
