"""The kernels' contract: one file states it, C++ spells the same names, and takes nothing else."""

import platform
import re
import subprocess
from pathlib import Path

import numpy as np
import pytest

import fastgrad as fg
from fastgrad.kernels import (
    BackpropJob,
    LayersJob,
    PropagateJob,
    ScaledArrays,
    ScaledVectors,
    Segments,
    State,
    TrainJob,
    load,
)

ROOT = Path(__file__).parents[2]
CONST = {  # the arrays that are only read
    "BackpropJob": {"weight", "bias", "x", "cotangent"},
    "PropagateJob": {"recorded_links"},
    "TrainJob": {"x", "target", "min_loss", "recorded_steps"},
    "State": set(),
    "Segments": set(),
    "LayersJob": {"recorded_layers"},
    "ScaledVectors": set(),
}


def declarations(job):
    """Field names that api.h has for a job, in its order, with their types."""
    text = (ROOT / "csrc/include/fastgrad/api.h").read_text(encoding="utf-8").replace("\\\n", "")
    (fields,) = re.findall(rf"define FASTGRAD_{job.__name__.removesuffix('Job').upper()}_FIELDS\(FIELD\)(.*)", text)
    return {name: kind for kind, name in re.findall(r"FIELD\((.*?), (\w+)\)", fields)}


@pytest.mark.parametrize("job", [BackpropJob, Segments, PropagateJob, TrainJob, State, LayersJob, ScaledVectors])
def test_structs_have_the_fields_of_the_contract(job):
    assert list(declarations(job)) == list(job._fields)


@pytest.mark.parametrize("job", [BackpropJob, Segments, PropagateJob, TrainJob, State, LayersJob, ScaledVectors])
def test_structs_have_the_types_of_the_contract(job):
    kinds = {"Floats": "double*", "Ints": "int64_t*", "ScaledArrays": "fastgrad_scaled", "LawCode": "fastgrad_law"}
    kinds |= {"float": "double"}
    found = declarations(job)
    for field, kind in job.__annotations__.items():
        kind = getattr(kind, "__forward_arg__", kind)
        const = "const " * (field in CONST[job.__name__])
        expected = {"int", "int64_t", "uint64_t"} if kind == "int" else {const + kinds[kind]}
        assert found[field] in expected, field


def small_job():
    """A backprop job of 3 links in 2 chains."""
    out = [ScaledArrays.of(fg.Scaled.empty(shape)) for shape in ((3, 2), (3, 2), (2,))]
    return BackpropJob(np.ones((3, 2)), np.zeros((3, 2)), 0, np.full(2, 0.5), np.ones(2), np.empty(2), *out)


READ_ONLY = np.ones(2)
READ_ONLY.flags.writeable = False


@pytest.mark.parametrize(
    ("field", "value", "error"),
    [
        ("weight", np.ones((3, 2), dtype=np.float32), "weight: expected a C-contiguous array of float64"),
        ("bias", np.ones((2, 3)).T, "bias: expected a C-contiguous array of float64"),
        ("x", [0.5, 0.5], "x: expected a C-contiguous array of float64"),
        ("grad_x", ScaledArrays(np.ones(2), np.ones(2)), "exponent: expected a C-contiguous array of int64"),
        ("output", READ_ONLY, "not writeable"),
    ],
)
def test_cpp_takes_arrays_of_exactly_the_right_kind(field, value, error, compiled):
    backprop = load("cpp")[1].backprop
    assert backprop(small_job(), 0, 2)
    with pytest.raises((TypeError, ValueError), match=error):
        backprop(small_job()._replace(**{field: value}), 0, 2)


def test_cpp_reads_a_read_only_input(compiled):
    assert load("cpp")[1].backprop(small_job()._replace(x=READ_ONLY), 0, 2)


@pytest.mark.parametrize("field", BackpropJob._fields)
def test_cpp_misses_no_field(field, compiled):
    class Without:
        def __init__(self):
            for name, value in small_job()._asdict().items():
                if name != field:
                    setattr(self, name, value)

    with pytest.raises(AttributeError, match=field):
        load("cpp")[1].backprop(Without(), 0, 2)


def test_an_unknown_nonlinearity_is_refused(compiled):
    for name, error in (("cpp", ValueError), ("numba", KeyError), ("numpy", KeyError)):
        with pytest.raises(error):
            load(name)[1].backprop(small_job()._replace(nonlinearity=99), 0, 2)


def test_cpp_computes_as_ieee_has_it_whatever_the_thread_does(python, compiled, tmp_path):
    # A library that is linked with -ffast-math lets the thread that loads it take subnormal numbers for 0.
    source = tmp_path / "flush.c"
    source.write_text(
        "#include <xmmintrin.h>\nvoid flush(void) { _mm_setcsr(_mm_getcsr() | 0x8040 | 0x2000); }\n"
        if platform.machine() in ("x86_64", "AMD64")
        else "void flush(void) {}\n"
    )
    subprocess.run(["cc", "-shared", "-fPIC", source, "-o", tmp_path / "flush.so"], check=True, timeout=60)
    code = (
        "import ctypes, numpy as np, fastgrad as fg\n"
        "given = [5e-324, -3.0, 2.0], [1e-320, 0.3, -0.1], 0.3, 1e-310\n"
        "before = fg.backprop(*given, backend='cpp')\n"
        f"ctypes.CDLL({str(tmp_path / 'flush.so')!r}).flush()\n"
        "after = fg.backprop(*given, backend='cpp')\n"
        "same = lambda a, b: np.array_equal(a.mantissa, b.mantissa) and np.array_equal(a.exponent, b.exponent)\n"
        "print(all(same(getattr(before, n), getattr(after, n)) for n in ('grad_weight', 'grad_bias', 'grad_x')))"
    )
    assert python(code).strip() == "True"
