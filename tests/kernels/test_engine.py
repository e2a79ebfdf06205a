"""The engines, Numba and each instruction set of C++: equal bits on all of them, and the bits that were pinned here."""

import contextlib
import hashlib
import json
import os
import platform
import re
import subprocess
import sys
from functools import cache
from importlib import import_module
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

import fastgrad as fg
from fastgrad.kernels import BackendUnavailableError, load

SETS = ("baseline", "avx2", "avx512")
ENGINES = ("numba", *(f"cpp {name}" for name in SETS))
THREADS = (1, 2, 3)
X86 = platform.machine() in ("x86_64", "AMD64")


@contextlib.contextmanager
def instruction_set(name):
    """The cpp backend on another instruction set, for a while."""
    from fastgrad import _cpp

    before = _cpp.chosen()
    _cpp.choose(name)
    try:
        assert _cpp.chosen() == name
        yield
    finally:
        _cpp.choose(before)


def available_sets():
    """Instruction sets of cpp that this machine has."""
    try:
        load("cpp")
    except BackendUnavailableError:
        return []
    return fg._cpp.instruction_sets()


@pytest.fixture(params=ENGINES)
def engine(request, compiled):
    """Each engine in turn; the name of its backend."""
    backend, _, name = request.param.partition(" ")
    if not name:
        yield backend
        return
    if name not in available_sets():
        pytest.skip(f"this processor has no {name}")
    with instruction_set(name):
        yield backend


# Pinned bits
#
# The jobs use nothing but IEEE operations and the kernels' own functions, so that their bits are the same on every
# machine and with every version of NumPy: given chains have uniform draws, which take no logarithm or cosine. Where a
# formula of the kernels is changed on purpose, the tests that fail show what to pin instead.


@cache
def chains(shape, weight, bias="uniform:low=-2,high=2", seed=0):
    """Drawn chains, x and cotangent; read-only."""
    depth, ensemble = (*shape, 1)[:2]
    w, b = fg.draw(depth, ensemble, weight, bias, seed=seed)
    member = np.arange(ensemble)
    x, cotangent = (member + 0.5) / ensemble, (1.0 - 2.0 * (member % 2)) / (member + 1)
    made = [w, b, x, cotangent] if len(shape) > 1 else [w[:, 0], b[:, 0], x[0], cotangent[0]]
    return tuple(read_only(np.asarray(array)) for array in made)


def read_only(array):
    array.flags.writeable = False
    return array


def symmetric(high):
    return f"uniform:low=-{high},high={high}"


def backprops(*given):
    """Run backprop of each of these chains."""
    return lambda **how: [fg.backprop(*arguments, **how) for arguments in given]


def with_zeros(weight, bias, x, cotangent):
    """Some links of some chains dead, and some cotangents 0."""
    weight, cotangent = weight.copy(), cotangent.copy()
    weight[::7, 1::3] = 0.0
    weight[3::11, 2::5] = -0.0
    cotangent[4::9] = 0.0
    return weight, bias, x, cotangent


def with_wide_links(weight, bias, x, cotangent):
    """Links that fit no plain float beside links that do."""
    weight, bias = weight.copy(), bias.copy()
    values = [1e-310, 2.0**-401, 2.0**-400, 2.0**400, 2.0**401, 1e308, 340.0, 341.0, 1e5]
    for i, value in enumerate(values):
        weight[i :: len(values) * 5, i::7] = value
        bias[i + 3 :: len(values) * 5, (i + 2) % 7 :: 7] = -value if i % 2 else value
    return weight, bias, x, cotangent


def simulations(*given):
    """Simulate each of these: depth, ensemble, record, weight, bias, x."""

    return lambda **how: [
        fg.simulate(depth, ensemble, weight, bias, x, seed=2**64 - 3, record=record, **how)
        for depth, ensemble, record, weight, bias, x in given
    ]


def trainings(*given):
    """Train each of these: a chain's weight and bias, its inputs for targets too, and how."""

    def run(**how):
        return [
            fg.train(weight, bias, x, np.abs(np.asarray(x)) / 4, record=50, **more, **how)
            for (weight, bias, x, _), more in given
        ]

    return run


ODD = (1, 2, 3, 31, 32, 33, 63, 64, 65, 131, 257)
LAWS = [
    ("normal:std=4", "zero"),
    ("normal:std=4", "normal:std=1"),
    ("normal:mean=1,std=3", "centered"),
    ("uniform:low=-6,high=6", "uniform:low=-1,high=1"),
    ("torch_default", "torch_default"),
    ("he_normal:gain=3", "zero"),
    ("constant:-3", "constant:0.5"),
    ("constant:2", "normal"),
    ("zero", "normal"),
    ("normal:std=500", "normal:std=100"),
    ("normal:std=1e9", "normal:std=1e6"),
    ("normal:std=1e18", "normal:std=1e18"),
    ("constant:1e300", "normal"),
    ("constant:1e-300", "zero"),
]
# The bias has a block of random words of its own.
MIXED_FAMILIES = [
    ("normal:std=4", "uniform:low=-1,high=3"),
    ("uniform:low=-6,high=6", "normal:mean=1,std=2"),
    ("torch_default", "normal:std=1e6"),
]
WITHOUT_WIDTH = [
    ("normal:mean=3,std=0", "uniform:low=-1,high=2"),
    ("uniform:low=-6,high=6", "normal:mean=0.5,std=0"),
    ("uniform:low=2,high=2", "normal:std=3"),
    ("normal:std=3", "uniform:low=-1,high=-1"),
]
# Neither forgets where it began: the first has two attractors that mirror each other, the second is critical.
NEVER_FORGET = [("normal:std=12", "centered", 0.3), ("constant:4", "constant:-2", 0.9)]

JOBS = {
    "backprop, odd ensembles": lambda: backprops(*(chains((40, n), symmetric(7), seed=n) for n in ODD)),
    "backprop, one link": lambda: backprops(*(chains(shape, symmetric(7)) for shape in ((1,), (1, 1), (1, 700)))),
    "backprop, one chain": lambda: backprops(*(chains((n,), symmetric(7), seed=n) for n in (2, 1000, 8191, 8192))),
    "backprop, deep chains": lambda: backprops(*(chains(s, symmetric(7)) for s in ((20_000,), (20_000, 3), (8200, 9)))),
    "backprop, too deep for the cache": lambda: backprops(chains((8200, 37), symmetric(7))),
    "backprop, never forgetting": lambda: backprops(
        *(
            (*chains((depth,), *laws)[:2], x, 1.0)
            for depth in (300, 20_000)
            for *laws, x in [(symmetric(20.8), "centered", 0.3), NEVER_FORGET[1]]
        )
    ),
    "backprop, wide": lambda: backprops(
        *(
            chains(shape, symmetric(high), symmetric(high))
            for shape in ((60, 67), (9000,))
            for high in (866, 1.7e9, 1.7e18)
        )
    ),
    "backprop, zeros": lambda: backprops(
        with_zeros(*chains((60, 67), symmetric(7))), (np.zeros((5, 3)), 0.5, 0.5), (np.zeros(9000), 0.5, 0.5)
    ),
    "backprop, mixed": lambda: backprops(with_wide_links(*chains((200, 67), symmetric(7)))),
    "simulate, laws": lambda: simulations(*((37, 67, 64, *laws, 0.5) for laws in LAWS)),
    "simulate, mixed families": lambda: simulations(
        *((depth, n, 64, *laws, 0.5) for depth, n in ((37, 67), (1500, 3), (20_000, 1)) for laws in MIXED_FAMILIES)
    ),
    "simulate, laws without width": lambda: simulations(*((37, 67, 64, *laws, 0.5) for laws in WITHOUT_WIDTH)),
    "simulate, one chain": lambda: simulations(*((1500, 1, 64, *laws, 0.25) for laws in LAWS)),
    "simulate, shapes": lambda: simulations(
        *((depth, n, record, *LAWS[1], 0.5) for depth, n, record in ((1, 1, 2), (2, 3, 2), (2049, 3, 500), (9, 500, 4)))
    ),
    "simulate, deep": lambda: simulations(
        *((depth, n, record, *LAWS[1], 0.5) for depth, n, record in ((9000, 16, 64), (9000, 17, 50), (9000, 1, 2000)))
    ),
    "simulate, 300 000 links": lambda: simulations((300_000, 1, 64, *LAWS[0], 0.5)),
    "simulate, never forgetting": lambda: simulations(*((40_000, 2, 100, *laws) for laws in NEVER_FORGET)),
    "simulate, centered": lambda: simulations(
        *(
            (depth, n, 50, law, "centered", x)
            for law in (symmetric(12), symmetric(10.873127), symmetric(4), symmetric(1e20), symmetric(1e-150))
            for depth, n in ((40, 67), (9000, 1), (9000, 3))
            for x in (0.3, 0.5, -1e200)
        )
    ),
    "simulate, deep and wide": lambda: simulations(
        *((20_000, 1, 64, *laws, 0.5) for laws in LAWS if "500" in laws[0] or "1e" in laws[0] or laws[0] == "zero")
    ),
    "train, odd ensembles": lambda: trainings(
        *((chains((10, n), symmetric(3), seed=n), {"steps": 60, "learning_rate": 2.0}) for n in (1, 33, 200))
    ),
    "train, cross entropy": lambda: trainings(
        *((chains((5, 67), symmetric(high)), {"steps": 40, "loss": "cross_entropy"}) for high in (2, 50, 1e4))
    ),
    "train, clipped": lambda: trainings(
        *(
            (
                chains((6, 67), symmetric(high)),
                {"steps": 30, "learning_rate": 1e6, "clip_value": 1e-3, "clip_norm": 2e-3},
            )
            for high in (3, 866)
        )
    ),
    "train, deep and wide": lambda: trainings(
        (with_wide_links(*chains((300, 67), symmetric(7))), {"steps": 5, "learning_rate": 1e300})
    ),
}

PINNED = {
    "backprop, odd ensembles": "4a5aa307c39a3919e2dc441df67916db09959eb4074c536c4a93c60d376d7ac4",
    "backprop, one link": "18d95a17b5cf98fea311053b0e4ef2a1bd69d1f863b8b7c646b0a378f32200bb",
    "backprop, one chain": "98be825a2e7bb3c2b894779d8ab263ea5752f166e95628e4aca9016fa2ef71fe",
    "backprop, deep chains": "3ccde0d591871018af261f9cb5c2e89803afa8230f2a4e74a5de35d98ee00e18",
    "backprop, too deep for the cache": "08b3ef5e1c604eb6ec42f5eafde1069294ba4045c1698d4c362c6c35093ce671",
    "backprop, never forgetting": "3c42b0d629a8839384523f1ec3bf7a5e7bc1845e12ecd740305c757bc572bb32",
    "backprop, wide": "6df7d809cf5b7f2e85f226ff73e7b70669d17e0c949146c735e3735911a7543c",
    "backprop, zeros": "7943a7ed38358803fb356a3e18c8c4b1f09a8cb2c8d17befc4c023906c46742b",
    "backprop, mixed": "851afb637c224841216e690d99ef1a52cc491a1aab4042fc3ae16d4bae5f9980",
    "simulate, laws": "cd03f9297957bc6d8a69e373a39cb86ca4d2c42ad891be8ee28e2f2794175b14",
    "simulate, mixed families": "18bae4257ce04ffa85b65c565c38c3f8232b490115a605c2c0661b31e15412b7",
    "simulate, laws without width": "3c8ca6d21108c042d8c488917c60a8951c80c05d563cc89393b38d17b87278e5",
    "simulate, one chain": "54ab582e9d484c3b9815f1a4447eb3fe70346671dcddcbd0b3bd3b6f5b137b8a",
    "simulate, shapes": "51b8f75c5ed9eb178b249f0d7c936807314f085643b4a0c01cf28aa0e6b41f50",
    "simulate, deep": "0d05a5c6a4bb0b22934f98fa175aa9caa08a7361fcee7772beb1205882c96076",
    "simulate, 300 000 links": "2e06edd1265561f359fd1de320343b0f7d3176961985747958d00c8b1ca069ad",
    "simulate, never forgetting": "441b231df67fd19e8b1a466b6aa86325597d872fb4787f702eb9e2aa8186bcd2",
    "simulate, centered": "e6b3628c2028cf53c234d04b4ed6a7e9f3011eff191267af48db36b0ee4b0780",
    "simulate, deep and wide": "496ccc8e2c337cc384ddaedba68ab680d8582e47579719a29722175c1a6113b3",
    "train, odd ensembles": "102599db0351b59127ce51580cb9581f1fec06221ffa614bfbb2b25afcec551d",
    "train, cross entropy": "b2ccded62bf09528d4d2a9bc60de13b313ad7680c80c4d2cbf76be75babe1c14",
    "train, clipped": "c507a422fac3cf8b845f8cc53e478902a2364bdcba1f3678b6d211b71f9cd19e",
    "train, deep and wide": "3ef516397933b22fda084f15aceec3c16de4fc0847d6fc109b331813813f066a",
}


def bits(results):
    """SHA-256 over everything in results."""
    made = hashlib.sha256()
    for result in results:
        fields = (
            "output",
            "grad_x",
            "grad_weight",
            "grad_bias",
            "adjoint",
            "bound",
            "loss",
            "weight",
            "bias",
            "last_step",
        )
        for name in ("link", *fields):
            value = getattr(result, name, None)
            for array in [value.mantissa, value.exponent] if isinstance(value, fg.Scaled) else [value]:
                if isinstance(array, np.ndarray | np.generic):
                    made.update(str(array.shape).encode() + array.tobytes())
    return made.hexdigest()


@pytest.mark.parametrize("job", JOBS)
def test_bits_are_those_that_were_pinned(job, engine):
    run = JOBS[job]()
    assert {bits(run(backend=engine, threads=threads)) for threads in THREADS} == {PINNED[job]}


def test_every_job_is_pinned():
    assert list(PINNED) == list(JOBS)


# Any bits


EDGES = [0.0, 5e-324, 1e-310, 2.0**-401, 2.0**-400, 339.9, 340.0, 340.1, 745.2, 2.0**50, 2.0**60, 2.0**400, 1e308]
FLOATS = (
    st.floats(allow_nan=False, allow_infinity=False)
    | st.floats(-30, 30)
    | st.sampled_from(EDGES + [-edge for edge in EDGES])
)


@st.composite
def given_chains(draw):
    """Weight, bias, x and cotangent: small arrays of anything, or deep chains that repeat it."""
    shape = draw(st.tuples(st.integers(1, 6), st.sampled_from([1, 2, 5, 33, 67])))
    weight, bias = (draw(arrays(float, shape, elements=FLOATS)) for _ in range(2))
    x, cotangent = (draw(arrays(float, shape[1:], elements=FLOATS)) for _ in range(2))
    if draw(st.booleans()):
        depth = draw(st.sampled_from([8191, 8192, 9001]))
        weight, bias = (np.resize(array[:, :1], (depth, 1)) for array in (weight, bias))
        x, cotangent = x[:1], cotangent[:1]
    return weight, bias, x, cotangent


@given(given_chains())
def test_any_given_chain_has_equal_bits_on_every_engine(compiled, same_bits, chain):
    expected = fg.backprop(*chain, backend="numba", threads=1)
    for name in available_sets():
        with instruction_set(name):
            same_bits(fg.backprop(*chain, backend="cpp", threads=1), expected)


SCALES = st.floats(0, 1e300) | st.floats(0, 20) | st.sampled_from([edge for edge in EDGES if edge < 1e300])
FAMILIES = st.sampled_from(["normal:std={}", "uniform:low=-{0},high={0}", "constant:{}", "zero", "centered"])


@settings(max_examples=60)
@given(
    FAMILIES.filter(lambda family: family != "centered"),
    SCALES,
    FAMILIES,
    SCALES,
    st.floats(-1e3, 1e3) | FLOATS,
    st.integers(0, 2**64 - 1),
    st.sampled_from([(1, 1), (7, 3), (40, 33), (40, 67), (1025, 2), (9001, 1), (9001, 3)]),
    st.integers(2, 70),
)
def test_any_drawn_chain_has_equal_bits_on_every_engine(
    compiled, same_bits, weight, scale, bias, bias_scale, x, seed, shape, record
):
    laws = weight.format(scale), bias.format(bias_scale)
    expected = fg.simulate(*shape, *laws, x, seed, record, backend="numba", threads=1)
    for name in available_sets():
        with instruction_set(name):
            found = fg.simulate(*shape, *laws, x, seed, record, backend="cpp", threads=1)
        same_bits(found, expected)
        assert np.array_equal(found.lyapunov, expected.lyapunov, equal_nan=True)


# A deep chain, cut and whole


DEEPEST = 10**7
DEEP = 3 * 10**6
FIELDS = ("adjoint", "grad_weight", "grad_bias", "bound")


@pytest.mark.slow
@pytest.mark.parametrize(("weight", "bias", "x"), [("normal:std=4", "zero", 0.5), *NEVER_FORGET])
def test_ten_million_links_have_equal_bits_on_any_threads(weight, bias, x, compiled_backend, same_bits):
    one, two = (
        fg.simulate(DEEPEST, 1, weight, bias, x, seed=1, backend=compiled_backend, threads=threads)
        for threads in (1, 2)
    )
    same_bits(one, two)
    assert one.lyapunov == two.lyapunov


@pytest.mark.slow
@pytest.mark.parametrize(("weight", "bias", "x"), [("normal:std=4", "zero", 0.5), NEVER_FORGET[0]])
def test_a_deep_chain_has_equal_bits_cut_and_whole(weight, bias, x, compiled_backend, same_bits):
    # Two chains are cut in depth; forty run side by side, each in the order of its links.
    two, forty = (
        fg.simulate(DEEP, ensemble, weight, bias, x, seed=1, backend=compiled_backend) for ensemble in (2, 40)
    )
    same_bits(two.output, forty.output[:2])
    for name in FIELDS:
        same_bits(getattr(two, name), getattr(forty, name)[:, :2])


@pytest.mark.slow
@pytest.mark.parametrize(("weight", "bias", "x"), [("normal:std=4", "zero", 0.5), NEVER_FORGET[0]])
def test_a_deep_chain_in_pages_too_short_to_be_cut(weight, bias, x, compiled_backend, agree, monkeypatch):
    cut = fg.simulate(DEEP, 1, weight, bias, x, seed=1, backend=compiled_backend)
    # Pages of fewer than 8 blocks of 1024 links run in the order of their links. Where they begin decides how the
    # products between two recorded links are rounded, and nothing else.
    kernels = load(compiled_backend)[1]
    monkeypatch.setattr(kernels, "LIMITS", kernels.LIMITS._replace(links=4 * 1024))
    whole = fg.simulate(DEEP, 1, weight, bias, x, seed=1, backend=compiled_backend, threads=1)
    assert whole.output.tobytes() == cut.output.tobytes()
    rounding_alone = 2.0**-52 * 16 * DEEP
    for name in FIELDS:
        agree(getattr(whole, name), getattr(cut, name), rounding_alone)


# Weights and biases that are not finite, which only the kernels look for


SHAPES = [(1,), (40,), (8192,), (20_000,), (9000, 3), (40, 1), (40, 5), (40, 32), (40, 67), (40, 300), (8200, 9)]


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf], ids=str)
@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_what_is_not_finite_is_found_wherever_it_stands(shape, value, engine, rng):
    places = [0, -1, *rng.integers(np.prod(shape), size=6)]
    for name, argument in (("weight", 0), ("bias", 1)):
        for place in places:
            given = [array.copy() for array in chains(shape, symmetric(7))]
            given[argument].flat[place] = value
            index = ", ".join(str(i) for i in np.unravel_index(range(np.prod(shape))[place], shape))
            with pytest.raises(
                ValueError, match=rf"^{name}: expected finite numbers, got {value} at index \[{index}\]$"
            ):
                fg.backprop(*given, backend=engine)


def test_what_is_not_finite_is_found_where_nothing_depends_on_it(engine):
    # A dead link before it, a weight that multiplies an activation of 0, a gradient that is 0 already.
    for weight, bias, cotangent in (
        ([0.0, np.nan], [0.0, 0.0], 1.0),
        ([1.0, np.inf], [-1e308, 0.0], 1.0),
        ([1.0, 1.0], [np.inf, 0.0], 0.0),
        ([np.inf, 0.0], [0.0, 1.0], 1.0),
        ([np.inf, 1.0], [-np.inf, 1.0], 1.0),
    ):
        with pytest.raises(ValueError, match=r"^(weight|bias): expected finite numbers, got (nan|inf|-inf) at index"):
            fg.backprop(weight, bias, 0.0, cotangent, backend=engine)


@given(given_chains())
def test_what_is_finite_is_never_refused(compiled, chain):
    for name in available_sets():
        with instruction_set(name):
            fg.backprop(*chain, backend="cpp", threads=1)
    fg.backprop(*chain, backend="numba", threads=1)


# The choice of an instruction set


def test_instruction_sets_are_those_of_the_processor(compiled):
    found = fg._cpp.instruction_sets()
    assert found == [name for name in SETS if name in found]  # slowest first
    assert found[0] == "baseline"
    assert not X86 or sys.platform != "linux" or set(found) == processor_sets()


def processor_sets():
    """What the system says that the processor has."""
    flags = set(re.search(r"^flags\s*:(.*)$", Path("/proc/cpuinfo").read_text(), flags=re.MULTILINE)[1].split())
    needed = {"baseline": set(), "avx2": {"avx2"}, "avx512": {"avx512f", "avx512dq"}}
    return {name for name, of in needed.items() if of <= flags}


@pytest.mark.parametrize("name", ["", "mmx", "AVX2", "avx2 ", "baseline,avx2"])
def test_choosing_what_does_not_run_here_changes_nothing(name, compiled):
    before = fg._cpp.chosen()
    with pytest.raises(ValueError, match=f"instruction set {name} does not run here"):
        fg._cpp.choose(name)
    assert fg._cpp.chosen() == before


def test_what_is_chosen_is_told(compiled):
    for name in available_sets():
        with instruction_set(name):
            assert fg.build_info()["instruction_set"] == name


SHOW = """
import fastgrad as fg
print(fg.available_backends(), fg.build_info()["instruction_set"], fg._cpp.chosen())
"""


@pytest.mark.parametrize("name", SETS)
def test_the_environment_chooses(name, python, compiled):
    if name not in available_sets():
        pytest.skip(f"this processor has no {name}")
    assert python(SHOW, FASTGRAD_ISA=name) == f"['cpp', 'numba', 'numpy'] {name} {name}\n"
    document = json.loads(command("simulate", "--depth", "9", "--format", "json", FASTGRAD_ISA=name).stdout)
    assert document["provenance"]["backend"] == "cpp"
    assert document["provenance"]["instruction_set"] == name


@pytest.mark.parametrize("value", [None, ""])
def test_without_a_choice_the_newest_runs(value, python, compiled):
    newest = available_sets()[-1]
    assert python(SHOW, FASTGRAD_ISA=value) == f"['cpp', 'numba', 'numpy'] {newest} {newest}\n"


def command(*arguments, **environment):
    """Run fastgrad in a process of its own."""
    variables = {**os.environ, "COLUMNS": "80", "PYTHONIOENCODING": "utf-8", **environment}
    return subprocess.run(
        [sys.executable, "-m", "fastgrad", *arguments],
        env=variables,
        capture_output=True,
        encoding="utf-8",
        timeout=120,
    )


@pytest.mark.parametrize("arguments", [("--backend", "cpp"), ()], ids=["cpp", "auto"])
@pytest.mark.parametrize("value", ["mmx", "AVX2", "avx2 "])
def test_an_unknown_choice_is_refused_by_name(value, arguments, compiled):
    done = command("simulate", "--depth", "9", *arguments, FASTGRAD_ISA=value)
    sets = ", ".join(available_sets())
    message = f"FASTGRAD_ISA: expected one of {sets}, which run on this processor, got {value!r}"
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr == f"fastgrad: {message}\n"


def test_an_unknown_choice_is_refused_from_python(python, compiled):
    code = """
import fastgrad as fg
for job in (fg.available_backends, lambda: fg.simulate(9, 1), lambda: fg.backprop([1.0], 0, 0.5, backend="cpp")):
    try:
        job()
    except ValueError as error:
        print(error)
print(fg.backprop([1.0], 0, 0.5, backend="numpy").backend)
"""
    *errors, last = python(code, FASTGRAD_ISA="mmx").splitlines()
    assert len(errors) == 3
    assert all(
        line.startswith("FASTGRAD_ISA: expected one of baseline") and line.endswith("got 'mmx'") for line in errors
    )
    assert last == "numpy"


# Machine code


@pytest.fixture(scope="module")
def machine_code(compiled):
    """Function that gives the assembly of a function of the numba backend, which it compiles once more.

    What comes from the cache on disk can't be inspected.
    """
    from numba import njit

    modules = {name: import_module(f"fastgrad.kernels.jit.{name}") for name in ("backprop", "propagate")}

    def again(function):
        options = {key: value for key, value in function.targetoptions.items() if key != "nopython"}
        fresh = njit(**options)(function.py_func)
        fresh.compile(function.signatures[0])
        return fresh

    fg.backprop(np.ones((3, 2)), 0, 0.5, backend="numba")
    fg.simulate(3, 2, backend="numba")
    for caller in ("backprop_blocks", "run_taped"):
        again(getattr(modules["backprop"], caller))  # makes the signatures of what it calls known
    return lambda module, name: next(iter(again(getattr(modules[module], name)).inspect_asm().values()))


@pytest.mark.slow
@pytest.mark.parametrize(
    ("module", "name", "multiplications", "words"),
    [
        ("backprop", "forward_row", 13, 0),  # w o, and in the sigmoid: nine for exp, three after it
        ("backprop", "backward_in_range", 3, 0),  # delta, grad_weight and the adjoint
        ("propagate", "propagate_compiled", 46, 20),  # also three for the products, 30 for the draws; Philox's rounds
    ],
)
def test_hot_loops_of_numba_are_vectorized(module, name, multiplications, words, machine_code):
    from llvmlite import binding

    if not (X86 and binding.get_host_cpu_features().get("avx2")):
        pytest.skip("needs AVX2")
    asm = machine_code(module, name)
    assert len(re.findall(r"^\s*vmulpd\s.*%[yz]mm", asm, flags=re.MULTILINE)) >= multiplications
    assert len(re.findall(r"^\s*vpmuludq\s.*%[yz]mm", asm, flags=re.MULTILINE)) >= words
    assert not re.search(r"\bvfn?m(add|sub)", asm)  # nothing is contracted
