"""Which backends can run: absence of each, what an import loads, places without a cache, and forks."""

import itertools
import multiprocessing
import re
import shutil
import subprocess
import sys
import time
from pathlib import Path

import pytest

import fastgrad as fg
from fastgrad import kernels

ROOT = Path(__file__).parents[2]
MODULES = {"numba": "numba", "cpp": "fastgrad._cpp"}
REMEDIES = {"numba": "pip install numba", "cpp": r"pip install \."}


@pytest.fixture
def hide(monkeypatch):
    """Function that makes the modules of these backends impossible to import, for one test."""

    def hidden(*names):
        for name in names:
            monkeypatch.setitem(sys.modules, MODULES[name], None)
            package = kernels.BACKENDS[name].module
            for module in [of for of in sys.modules if of == package or of.startswith(f"{package}.")]:
                monkeypatch.delitem(sys.modules, module)
        if "cpp" in names:
            monkeypatch.delattr(fg, "_cpp", raising=False)

    return hidden


def run(backend):
    """A small job of each kind; the backends that ran."""
    return {
        fg.backprop([500.0], -250.0, 0.5, backend=backend).backend,
        fg.simulate(3, 2, backend=backend).backend,
    }


@pytest.mark.parametrize(
    ("hidden", "left"),
    [
        ((), ["cpp", "numba", "numpy"]),
        (("numba",), ["cpp", "numpy"]),
        (("cpp",), ["numba", "numpy"]),
        (("cpp", "numba"), ["numpy"]),
    ],
)
def test_auto_takes_the_fastest_that_is_left(hide, compiled, hidden, left):
    hide(*hidden)
    assert fg.available_backends() == left
    assert run("auto") == {left[0]}
    for name in left:
        assert run(name) == {name}


@pytest.mark.parametrize("name", ["numba", "cpp"])
def test_a_missing_backend_says_why_and_what_mends_it(hide, name):
    hide(name)
    message = rf"^backend: {name} is not available \(.*{MODULES[name]}.*\); to mend it: .*{REMEDIES[name]}$"
    with pytest.raises(fg.BackendUnavailableError, match=message) as info:
        fg.backprop([1.0], 0, 0.5, backend=name)
    assert isinstance(info.value.__cause__, ImportError)
    assert "\n" not in str(info.value)
    with pytest.raises(fg.BackendUnavailableError, match=message):
        fg.simulate(3, 2, backend=name)


def test_a_missing_extension_asks_whether_it_was_compiled(hide):
    hide("cpp")
    with pytest.raises(fg.BackendUnavailableError) as info:
        kernels.load("cpp")
    assert any("was the package compiled?" in note for note in info.value.__cause__.__notes__)


@pytest.mark.parametrize("name", ["numba", "cpp"])
def test_a_broken_backend_is_as_one_that_is_missing(hide, compiled, monkeypatch, name):
    hide(name)
    monkeypatch.delitem(sys.modules, MODULES[name])

    class Broken:
        def find_spec(self, module, path, target=None):
            if module == MODULES[name]:
                raise ImportError("libfoo.so.6: cannot open\nshared object file")

    monkeypatch.setattr(sys, "meta_path", [Broken(), *sys.meta_path])
    assert name not in fg.available_backends()
    with pytest.raises(fg.BackendUnavailableError, match=r"libfoo\.so\.6: cannot open shared object file"):
        kernels.load(name)
    assert name not in run("auto")


@pytest.mark.parametrize("version", [kernels.KERNEL_VERSION + 1, kernels.KERNEL_VERSION - 1, None])
def test_an_extension_that_is_out_of_date_is_refused(compiled, monkeypatch, version):
    extension = fg._cpp
    monkeypatch.delitem(sys.modules, kernels.BACKENDS["cpp"].module)
    if version is None:  # older than the number itself
        monkeypatch.delattr(extension, "kernel_version")
    else:
        monkeypatch.setattr(extension, "kernel_version", version)
    message = rf"has kernels of version {version or 'none'}, .* version {kernels.KERNEL_VERSION}: .*pip install -e \."
    with pytest.raises(fg.BackendUnavailableError, match=message):
        fg.simulate(3, 2, backend="cpp")
    assert "cpp" not in fg.available_backends()
    assert re.search(message, fg.build_info()["backends"]["cpp"])


@pytest.mark.parametrize("name", ["fortran", "", "NumPy", "cpp ", None, 3, []])
def test_an_unknown_backend_is_a_value_error(name):
    with pytest.raises(ValueError, match=r"^backend: unknown backend .*, expected auto, cpp, numba, numpy$"):
        fg.backprop([1.0], 0, 0.5, backend=name)


@pytest.mark.parametrize(("hidden", "left"), [("numba", "cpp numpy"), ("fastgrad._cpp", "numba numpy")])
def test_import_works_where_a_backend_was_never_there(python, compiled, hidden, left):
    printed = python(
        f"import sys; sys.modules[{hidden!r}] = None\n"
        "import fastgrad as fg\n"
        "print(*fg.available_backends())\n"
        "print(*(fg.simulate(3, 2, backend=name).backend for name in fg.available_backends()))"
    )
    assert printed.splitlines() == [left, left]


def test_import_loads_nothing_that_is_not_needed_yet(python):
    loaded = python("import sys, fastgrad; print(*sys.modules)").split()
    assert not {"numpy", "fastgrad.jobs"} & set(loaded)
    heavy = {"numba", "llvmlite", "matplotlib", "rich", "click", "plotille", "psutil", "torch", "fastgrad._cpp"}
    everything = "import sys, fastgrad as fg; [getattr(fg, name) for name in fg.__all__]; print(*sys.modules)"
    assert not heavy & set(python(everything).split())


def test_a_job_on_one_backend_does_not_load_the_others(python):
    for name, absent in (("numpy", {"numba", "fastgrad._cpp"}), ("cpp", {"numba"}), ("auto", {"numba"})):
        code = f"import sys, fastgrad as fg; fg.simulate(3, 2, backend={name!r}); print(*sys.modules)"
        assert not absent & set(python(code).split())


def test_import_takes_a_fraction_of_the_time_of_numpy(python):
    codes = ("import numpy", "import fastgrad", "from fastgrad import *")
    seconds = {code: [] for code in codes}
    for _ in range(5):
        for code in codes:  # in turns: a busy machine then slows down all of them
            timed = f"import time; start = time.process_time(); {code}; print(time.process_time() - start)"
            seconds[code].append(float(python(timed)))
    numpy, package, everything = (min(seconds[code]) for code in codes)
    assert package < numpy / 2  # a quarter of it on a quiet machine
    assert everything < 5 * numpy  # twice as long


def test_numba_works_where_it_can_cache_nothing(python, compiled, tmp_path):
    # No home, and files where the folders for the cache would be: as a read-only install is to one who is not root.
    shutil.copytree(ROOT / "fastgrad", tmp_path / "fastgrad", ignore=shutil.ignore_patterns("__pycache__"))
    (tmp_path / "fastgrad/kernels/jit/__pycache__").write_text("")
    printed = python(
        "import warnings\n"
        "import fastgrad as fg\n"
        "with warnings.catch_warnings(record=True) as caught:\n"
        "    warnings.simplefilter('always')\n"
        "    g = fg.backprop([500.0, 1.0], [-250.0, -0.5], 0.5, backend='numba')\n"
        "print(fg.__file__, g.backend, g.grad_x.to_float())\n"
        "print(*(w.message for w in caught), sep='\\n')",
        cwd=tmp_path,
        PYTHONPATH=str(tmp_path),
        PYTHONDONTWRITEBYTECODE="1",
        NUMBA_CACHE_DIR=None,
        HOME="/dev/null",
        XDG_CACHE_HOME=None,
    )
    first, *warned = printed.splitlines()
    assert first == f"{tmp_path / 'fastgrad/__init__.py'} numba {125 * 0.25}"
    assert len(warned) == 1  # and not one for each compiled function
    assert "set NUMBA_CACHE_DIR to a folder that can be written" in warned[0]


def test_numba_compiles_again_what_a_changed_file_is_part_of(python, compiled, tmp_path):
    shutil.copytree(ROOT / "fastgrad", tmp_path / "fastgrad", ignore=shutil.ignore_patterns("__pycache__"))

    def hits():
        code = (
            "from fastgrad.kernels.jit import draws\n"
            "assert -0.694 < draws.log_of(0.5) < -0.693\n"
            "print(sum(draws.log_of.stats.cache_hits.values()), draws.__file__)"
        )
        found, file = python(code, cwd=tmp_path, PYTHONPATH=str(tmp_path), NUMBA_CACHE_DIR=str(tmp_path)).split()
        assert file == str(tmp_path / "fastgrad/kernels/jit/draws.py")
        return int(found)

    assert [hits(), hits()] == [0, 1]
    for name in ("contract.py", "constants.py", "jit/numbers.py"):
        with (tmp_path / "fastgrad/kernels" / name).open("a") as file:
            file.write("\n")
        assert [hits(), hits()] == [0, 1]


def test_numba_compiles_again_what_names_a_type_that_is_gone(python, compiled, tmp_path):
    shutil.copytree(ROOT / "fastgrad", tmp_path / "fastgrad", ignore=shutil.ignore_patterns("__pycache__"))
    code = (
        "import numpy as np\n"
        "from fastgrad.kernels.jit.nonlinearity import CHAIN_NONLINEARITIES, is_outside\n"
        "print(is_outside(CHAIN_NONLINEARITIES[0], 0.5, 1e-300), sum(is_outside.stats.cache_hits.values()))"
    )
    printed = [python(code, cwd=tmp_path, PYTHONPATH=str(tmp_path), NUMBA_CACHE_DIR=str(tmp_path)) for _ in range(2)]
    file = tmp_path / "fastgrad/kernels/jit/nonlinearity.py"
    file.write_text(file.read_text().replace("Sigmoid(", "Logistic("))
    printed += [python(code, cwd=tmp_path, PYTHONPATH=str(tmp_path), NUMBA_CACHE_DIR=str(tmp_path)) for _ in range(2)]
    assert [line.split() for line in printed] == [["1", "0"], ["1", "1"]] * 2


def test_constants_are_what_their_program_makes():
    script = ROOT / "csrc/constants.py"
    done = subprocess.run([sys.executable, script, "--check"], capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    assert done.stdout.count("relative error 2^-") == 4


@pytest.mark.skipif("fork" not in multiprocessing.get_all_start_methods(), reason="no fork here")
def test_a_job_runs_in_a_fork_after_a_job(python, backend):
    printed = python(
        "import multiprocessing, warnings, fastgrad as fg\n"
        "warnings.simplefilter('ignore', DeprecationWarning)\n"  # of fork beside threads: there are none left
        f"job = lambda: fg.simulate(50, 200, backend={backend!r}, threads=2).lyapunov.mean\n"
        "def child(queue): queue.put(job())\n"
        "before = job()\n"
        "context = multiprocessing.get_context('fork')\n"
        "queue = context.SimpleQueue()\n"
        "process = context.Process(target=child, args=(queue,))\n"
        "process.start()\n"
        "process.join(60)\n"
        "print(process.exitcode, queue.get() == before == job())"
    )
    assert printed.split() == ["0", "True"]


def test_no_thread_outlives_its_job(python, backend):
    code = (
        "import threading, fastgrad as fg\n"
        f"fg.simulate(50, 200, backend={backend!r}, threads=2)\n"
        f"fg.backprop([1.0], 0, 0.5, backend={backend!r})\n"
        "print(threading.active_count())"
    )
    assert python(code).strip() == "1"


def test_every_backend_states_its_numbers(backend):
    limits = kernels.load(backend)[1].LIMITS
    assert limits.links >= 1024
    assert limits.links % 1024 == 0  # whole blocks
    assert min(limits.elements, limits.members) >= 1
    assert min(limits.lanes, limits.work_bytes) >= 0


def test_a_call_is_short(backend):
    # Progress and Ctrl-C work between calls: each lasts a fraction of a second.
    fg.simulate(2, 1, backend=backend)
    depth = 3 * kernels.load(backend)[1].LIMITS.links
    times = []
    fg.simulate(depth, 1, backend=backend, threads=1, progress=lambda *_: times.append(time.perf_counter()))
    assert min(later - earlier for earlier, later in itertools.pairwise(times)) < 1


@pytest.mark.parametrize("name", ["auto", "cpp", "numba", "numpy"])
def test_first_calls_from_many_threads_at_once(python, name):
    """None of them gets a backend that another is still importing."""
    code = (
        "import sys, concurrent.futures as f, threading; sys.setswitchinterval(1e-6); import fastgrad as fg\n"
        "fg.backprop; start = threading.Barrier(8)\n"
        f"def run(_): start.wait(); return fg.backprop([2.0], [0.1], 0.5, backend={name!r}).output.item()\n"
        "with f.ThreadPoolExecutor(8) as pool: print(len(set(pool.map(run, range(8)))))"
    )
    assert python(code).split() == ["1"]
