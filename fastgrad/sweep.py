"""Sweeps: a job at every point of a grid, which can grow, be interrupted, and be run again.

A point is a dict of every parameter that decides a job's result, defaults included, each in one canonical form. It is
known by a hash of these, the job, the kernels' version and their arithmetic, never by its place in a grid.
"""

from __future__ import annotations

import itertools
import math
import operator
import re
import time
import warnings
from collections import Counter
from collections.abc import Callable, Generator, Iterator, Mapping
from contextlib import ExitStack, closing
from dataclasses import dataclass, replace
from decimal import Decimal, InvalidOperation, localcontext
from functools import cache, lru_cache, partial
from typing import TYPE_CHECKING, Any, Literal, NamedTuple

from fastgrad import laws, theory
from fastgrad.chain import TooLargeError, integer, real_array, require_memory
from fastgrad.info import provenance
from fastgrad.kernels import KERNEL_VERSION, BackendName, load
from fastgrad.parallel import THREADS_MAX
from fastgrad.scaled import json_ready
from fastgrad.simulate import LINKS_MAX, RECORD_BYTES, Lyapunov, degrees_of_freedom, simulate
from fastgrad.train import STATUSES, train, train_drawn

if TYPE_CHECKING:
    import os
    from collections.abc import Iterable
    from concurrent.futures import Executor, Future

    from fastgrad.store import Store

Point = dict[str, Any]  # parameters
Result = dict[str, Any]  # plain values, ready for JSON
Identity = dict[str, Any]  # job, kernel_version and arithmetic: what the points of a store have in common
JobName = Literal["simulate", "train"]
JOBS: tuple[JobName, ...] = ("simulate", "train")
LAWS: dict[JobName, tuple[str, ...]] = {"simulate": ("weight", "bias"), "train": ("weight", "bias", "x", "target")}
HOW = ("backend", "threads", "progress")  # arguments that say how a job is run, and not what it gives
SIZES = ("depth", "ensemble", "steps")  # parameters whose product is the work
MEMORY_SIZES = ("depth", "ensemble", "record")  # parameters on which the memory of a point depends
WINDOW = 1000  # points that wait in an executor: enough for a cluster, and little memory for a huge grid
DIGITS = 60  # with which the values of a range are worked out, to be rounded once
WHOLE_MAX = 10**20  # of a whole number in a point; the job knows its own range
THEORY_DIGITS = 10  # that are kept: they do not depend on the threads of the linear algebra
PIECE_LINKS = 200_000  # that are timed for an estimate
COUNT_MAX = 10**6  # values in a range
ARITHMETICS = ("compiled", "numpy")
# Results that every table of points has; those of a newer version may be more.
RESULTS: dict[JobName, tuple[str, ...]] = {
    "simulate": (
        "lyapunov",
        "lyapunov_stderr",
        "bound_rate",
        "theory",
        "theory_bound",
        "zero_share",
        "float32_underflow",
    ),
    "train": (*STATUSES, "unchanged", "median_loss", "median_step"),
}
REQUIRED = object()  # in place of a default


@dataclass(frozen=True)
class Plan:
    """What a sweep is to run.

    Attributes
    ----------
    job : {"simulate", "train"}
    backend : str
        The backend that runs; never "auto".
    points : Points
        The parameters of each point by its key, in the grid's order, each point once.
    """

    job: JobName
    backend: BackendName
    points: Points

    @property
    def identity(self) -> Identity:
        """What the points of a store have in common."""
        return _identity(self.job, self.backend)

    @property
    def point_bytes(self) -> int:
        """Memory that the largest point takes."""
        sizes = self.points.counts(*MEMORY_SIZES)
        return max((_point_bytes(self.job, *of) for of in sizes), default=0)

    def shard(self, index: int, count: int) -> Plan:
        """Return one part of `count`: the points whose keys fall to it, wherever they are in the grid.

        Raises
        ------
        ValueError
            If `index` is not one of 1 … `count`.
        """
        if not 1 <= index <= count:
            raise ValueError(f"shard: expected i/n with i from 1 to n, got {index}/{count}")
        return replace(self, points=self.points.part(index - 1, count))


class Column(NamedTuple):
    """A parameter of the points of a grid: its values, and the axes of the grid that they vary along.

    An axis is its step and length, in points, and whether its values are names, as of laws, and not numbers.
    """

    values: list[Any]
    axes: list[tuple[int, int, bool]]

    def which(self, place: int) -> int:
        """Which of the values the point at a place of the grid has."""
        found = 0
        for step, length, _ in self.axes:
            found = found * length + place // step % length
        return found


class Points(Mapping[str, Point]):
    """Points of a grid by their keys, in the grid's order, each made when it is asked for: 10^6 take 200 MB.

    Parameters
    ----------
    columns : dict
        The parameters by name, in the job's order.
    places : dict
        The place in the grid by the bytes of the key.
    """

    def __init__(self, columns: dict[str, Column], places: dict[bytes, int]) -> None:
        self.columns, self._places = columns, places

    @classmethod
    def of(cls, columns: dict[str, Column], size: int, identity: Identity) -> Points:
        """Work out the keys of a grid of this size: those of `point_key`, whose text is put together from pieces."""
        import hashlib  # here: import fastgrad stays light
        import json

        names = sorted(columns)
        head = json.dumps({**identity, "parameters": {}}, sort_keys=True)[:-2]  # without the two closing braces
        pieces = [
            f"{'' if name == names[0] else ', '}{json.dumps(name)}: "
            + ("" if columns[name].axes else json.dumps(columns[name].values[0]))
            for name in names
        ]
        varying = [
            (i, columns[name], [pieces[i] + json.dumps(value) for value in columns[name].values])
            for i, name in enumerate(names)
            if columns[name].axes
        ]
        places: dict[bytes, int] = {}
        for place in range(size):
            for i, column, texts in varying:
                pieces[i] = texts[column.which(place)]
            places.setdefault(hashlib.sha256(f"{head}{''.join(pieces)}}}}}".encode()).digest(), place)
        return cls(columns, places)

    def __getitem__(self, key: str) -> Point:
        return self._at(self._places[bytes.fromhex(key)])

    def __contains__(self, key: object) -> bool:
        return isinstance(key, str) and bytes.fromhex(key) in self._places

    def __iter__(self) -> Iterator[str]:
        return (digest.hex() for digest in self._places)

    def __len__(self) -> int:
        return len(self._places)

    def _at(self, place: int) -> Point:
        return {name: column.values[column.which(place)] for name, column in self.columns.items()}

    def part(self, index: int, count: int) -> Points:
        """Points whose keys have the remainder `index`."""
        places = {key: place for key, place in self._places.items() if int.from_bytes(key) % count == index}
        return Points(self.columns, places)

    def counts(self, *names: str, without: frozenset[str] = frozenset()) -> Counter[tuple[Any, ...]]:
        """How many points there are of each combination of these parameters, leaving out some keys."""
        columns = [self.columns[name] for name in names]
        places: Iterable[int] = self._places.values()
        if without:
            places = (place for key, place in self._places.items() if key.hex() not in without)
        elif not any(column.axes for column in columns):
            return Counter({tuple(column.values[0] for column in columns): len(self)} if self else {})
        return Counter(tuple(column.values[column.which(place)] for column in columns) for place in places)

    def varied(self) -> list[Point]:
        """Points of the whole grid, few, that differ in whatever differs in it: along each of its axes from the first.

        The laws of an axis are all among them, as they may be of many kinds; of other axes, the first two values.
        """
        places = {0: None}
        for column in self.columns.values():
            for step, length, of_names in column.axes:
                places |= {step * i: None for i in range(length if of_names else min(2, length))}
        return [self._at(place) for place in places]


def sweep(
    grid: Mapping[str, Iterable[Any]],
    *,
    job: JobName = "simulate",
    store: str | os.PathLike[str] | None = None,
    executor: Executor | None = None,
    **job_arguments: Any,
) -> list[dict[str, Any]]:
    """Run a job at every point of a grid.

    Parameters
    ----------
    grid : dict
        The values of each parameter that varies; the points are their Cartesian product. A key is a parameter of the
        job (``depth``, ``weight`` …), or of one of its laws (``weight.std``, ``bias.mean``), which changes the law that
        is given otherwise. Points with equal parameters are one point.
    job : {"simulate", "train"}
        `simulate` or `train_drawn`.
    store : path, optional
        An SQLite file that keeps the results. What it has already is not run again: an interrupted sweep goes on, and a
        grid can grow.
    executor : concurrent.futures.Executor, optional
        What runs the points: ``ProcessPoolExecutor`` (with the start method "spawn"), or
        ``dask.distributed.Client(…).get_executor()``; each point then has one thread. By default the points run here,
        one after the other, each on all threads.
    **job_arguments
        What the job takes; but ``progress`` is called as ``progress(points_done, points)``.

    Returns
    -------
    list of dict
        One for each point, in the grid's order: its parameters, those of its laws (``weight.std``), and its results.
        What is not finite or has no value is None, with ``<key>_why`` beside it where there is more to say.

        simulate: ``lyapunov`` and ``lyapunov_stderr`` (finite-depth), ``stationary``, ``stationary_stderr`` and
        ``stationary_link`` (after the start is forgotten), and ``bound_rate``; ``theory`` and ``theory_bound``, which
        are what `theory.predict` says of the two rates (all in nats per link); ``zero_share``, ``float32_underflow``
        and the like as in `Growth.summary`.

        train: the shares of the chains by status, and ``unchanged``, as in `Training.summary`; ``median_loss``, after
        the last step; and ``median_step``, since which the converged chains have been so.

    Raises
    ------
    TypeError, ValueError
        For bad input, with the parameter's name; for a store of another job, kernel version or arithmetic; and where
        the job raises one at a point, which is then named.
    BackendUnavailableError
        If the backend that was named can't run here.
    OSError
        If the store can't be read or written. The points that were finished before are kept.

    Examples
    --------
    >>> import fastgrad as fg
    >>> rows = fg.sweep({"weight.std": [1, 4, 16]}, depth=1000, ensemble=100)
    >>> [round(row["lyapunov"], 2) for row in rows]
    [-2.08, -1.62, -4.53]
    """
    from fastgrad.store import Store  # here: import fastgrad stays light

    how = {name: job_arguments.pop(name) for name in HOW if name in job_arguments}
    if executor is not None and not callable(getattr(executor, "submit", None)):
        raise TypeError(f"executor: expected a concurrent.futures.Executor, got {executor!r}")
    if how.get("progress") is not None and not callable(how["progress"]):
        raise TypeError(f"progress: expected a function of two numbers, got {how['progress']!r}")
    if how.get("threads") is not None:
        integer("threads", how["threads"], 1, THREADS_MAX)
    planned = plan(grid, job, how.pop("backend", "auto"), **job_arguments)
    with ExitStack() as stack:
        kept = None if store is None else stack.enter_context(Store.write(store, planned.identity))
        return run(planned, kept, executor, **how)


# What is run


def plan(grid: Mapping[str, Iterable[Any]], job: JobName, backend: str = "auto", **arguments: Any) -> Plan:
    """Work out the points of a sweep, and check them before the first is run. Input and errors are those of `sweep`."""
    if not isinstance(job, str):
        raise TypeError(f"job: expected {' or '.join(JOBS)}, got {job!r}")
    takes = job_parameters(job)
    if not isinstance(grid, Mapping):
        raise TypeError(f"grid: expected a dict of values, got {grid!r}")
    for key in grid:
        if not isinstance(key, str):
            raise TypeError(f"grid: expected names of parameters as keys, got {key!r}")
    axes = {key: _axis(job, key, values) for key, values in grid.items()}
    if not axes:
        raise ValueError(f"grid: is empty, expected values of one of {', '.join(takes)}")
    for name in arguments:
        if name not in takes:
            raise ValueError(f"{name}: no parameter of {job}, which takes {', '.join(takes)}")
        if name in axes:
            raise ValueError(f"{name}: is given twice, in the grid and beside it")
    base = {}
    for name, default in takes.items():
        if name not in axes:
            value = arguments.get(name, default)
            if value is REQUIRED:
                raise ValueError(f"{name}: is missing, expected in the grid or beside it")
            base[name] = _canonical(job, name, value)

    loaded, _ = load(backend)
    size = math.prod(map(len, axes.values()))
    steps = dict(zip(axes, _steps([len(values) for values in axes.values()]), strict=True))
    columns = {}
    for name in takes:
        mine = [key for key in axes if key == name or key.partition(".")[0] == name]
        chosen = ({name: base.get(name), **dict(zip(mine, of, strict=True))} for of in _product(axes, mine))
        columns[name] = Column(
            [_changed_law(name, of) if name in LAWS[job] else of[name] for of in chosen],
            [(steps[key], len(axes[key]), isinstance(axes[key][0], str)) for key in mine],
        )
    planned = Plan(job, loaded, Points.of(columns, size, _identity(job, loaded)))
    _check(planned)
    return planned


def _product(axes: dict[str, list[Any]], keys: list[str]) -> Iterator[tuple[Any, ...]]:
    return itertools.product(*(axes[key] for key in keys))


def _steps(lengths: list[int]) -> list[int]:
    """By how many points a value of each axis is from the next: the last axis runs fastest."""
    return [math.prod(lengths[i + 1 :]) for i in range(len(lengths))]


@cache
def job_parameters(job: JobName) -> dict[str, Any]:
    """What decides a job's result: its parameters with their defaults, as in its signature.

    One without a default has `REQUIRED`.

    Raises
    ------
    ValueError
        If there is no such job.
    """
    if job not in JOBS:
        raise ValueError(f"job: unknown job {job!r}, expected {' or '.join(JOBS)}")
    import inspect  # here: import fastgrad stays light

    taken = dict(inspect.signature(_function(job)).parameters)
    if taken.pop("how", None) is not None:  # what train_drawn hands on to train
        inner = inspect.signature(train).parameters
        taken |= {name: of for name, of in inner.items() if of.kind is of.KEYWORD_ONLY and name not in taken}
    return {name: REQUIRED if of.default is of.empty else of.default for name, of in taken.items() if name not in HOW}


def _function(job: JobName) -> Callable[..., Any]:
    return simulate if job == "simulate" else train_drawn


@cache
def _kind(job: JobName, key: str) -> Literal["law", "text", "whole", "number", "optional"]:
    """What the values of a grid's key are: its default tells, and the parameters of laws are numbers."""
    takes = job_parameters(job)
    name, of_law, part = key.partition(".")
    parts = sorted({part for maker in laws.LAWS.values() for part in laws.takes(maker)})
    if name not in takes or (of_law and not (name in LAWS[job] and part in parts)):
        raise ValueError(
            f"grid: unknown key {key!r}, expected one of {', '.join(takes)}, or {' or '.join(LAWS[job])} with one of "
            f".{', .'.join(parts)}"
        )
    if of_law:
        return "number"
    if name in LAWS[job]:
        return "law"
    if takes[name] is None:
        return "optional"
    return "text" if isinstance(takes[name], str) else "number" if isinstance(takes[name], float) else "whole"


def _axis(job: JobName, key: str, values: Iterable[Any]) -> list[Any]:
    """Check a key of a grid and its values."""
    _kind(job, key)
    if isinstance(values, str) or not hasattr(values, "__iter__"):
        raise TypeError(f"{key}: expected a list of values, got {values!r}")
    found = list(dict.fromkeys(_canonical(job, key, value) for value in values))
    if not found:
        raise ValueError(f"{key} has no values")
    return found


def _canonical(job: JobName, key: str, value: Any) -> Any:
    """Write a value in the one form in which it enters a point."""
    kind = _kind(job, key)
    if kind == "law":
        argument: Any = key
        law = (laws.law_or_number if key in ("x", "target") else laws.parse)(value, argument)
        if law != laws.parse(str(law), argument):
            raise ValueError(f"{key}: expected a law of fastgrad.laws, got {law!r}")
        return str(law)
    if kind == "whole":
        return integer(key, value, -WHOLE_MAX, WHOLE_MAX)
    if kind == "text":
        if not isinstance(value, str):
            raise TypeError(f"{key}: expected a name, got {value!r}")
        return value
    if kind == "optional" and value is None:
        return None
    number = real_array(key, value)
    if number.shape != ():
        raise ValueError(f"{key}: expected one number for all chains, got an array of shape {number.shape}")
    return float(number) + 0.0  # -0.0 is 0


def _changed_law(name: str, chosen: dict[str, Any]) -> str:
    """The law of this name, with what the grid changes in it."""
    changes = {key.partition(".")[2]: value for key, value in chosen.items() if key.startswith(f"{name}.")}
    law: str = chosen[name]
    return str(laws.replace(_law(law, name), changes, name)) if changes else law


def _arithmetic(backend: BackendName) -> str:
    """The compiled backends return equal bits."""
    return "numpy" if backend == "numpy" else "compiled"


def _identity(job: JobName, backend: BackendName) -> Identity:
    return {"job": job, "kernel_version": KERNEL_VERSION, "arithmetic": _arithmetic(backend)}


def point_key(identity: Identity, point: Point) -> str:
    """Return what a point is known by: SHA-256 of all that decides its result."""
    import hashlib  # here: import fastgrad stays light
    import json

    text = json.dumps({**identity, "parameters": point}, sort_keys=True, allow_nan=False)
    return hashlib.sha256(text.encode()).hexdigest()


def _check(planned: Plan) -> None:
    """Let the job itself judge what is in the points, in one link of one chain: the ends of each range, every name."""
    first = next(iter(planned.points.values()))
    for name, column in planned.points.columns.items():
        values = sorted({value for value in column.values if value is not None})
        if values and isinstance(values[0], str):
            tried = list({text.partition(":")[0]: text for text in reversed(values)}.values())  # a law of each name
        else:
            tried = values[:: max(1, len(values) - 1)]
        for value in tried:
            point = {**first, name: value}
            least = {size: min(point[size], 1) for size in SIZES if size in point}
            _function(planned.job)(**{**point, **least}, backend=planned.backend, threads=1)
    if planned.job == "simulate":
        depths, ensembles = (planned.points.columns[name].values for name in ("depth", "ensemble"))
        if max(depths) * max(ensembles) > LINKS_MAX:  # which the grid has as a point
            point = next(of for of in planned.points.values() if of["depth"] * of["ensemble"] > LINKS_MAX)
            raise TooLargeError(f"{point_text(point)}: expected at most {LINKS_MAX:.0e} links in all chains")


def point_text(point: Point) -> str:
    """Name a point by its parameters."""
    return "point " + ", ".join(f"{name} {value}" for name, value in point.items())


def _links(point: Point) -> int:
    return math.prod(point[size] for size in SIZES if size in point)


def _point_bytes(job: JobName, depth: int, ensemble: int, record: int) -> int:
    """Memory that a point takes."""
    if job == "simulate":
        return int(RECORD_BYTES * (min(record, depth) + 1) * ensemble)
    return int((48 * depth + 16 * record) * ensemble)


# What is read from a store


def check_identity(identity: Identity) -> bool:
    """Whether this is what points of a store can have in common."""
    job, version, arithmetic = (identity.get(name) for name in ("job", "kernel_version", "arithmetic"))
    return job in JOBS and arithmetic in ARITHMETICS and type(version) is int and version > 0


def check_point(job: JobName, point: Point) -> None:
    """Raise ValueError if these are not the parameters of a point, in the types that `plan` gives them."""
    if list(point) != list(job_parameters(job)):
        raise ValueError(f"its parameters are not those of {job}")
    for name, value in point.items():
        kind = _kind(job, name)
        if kind in ("law", "text"):
            if type(value) is not str:
                raise ValueError(f"its {name} is no text")
            if kind == "law":
                _law_parameters(value, name)
        elif kind == "whole":
            if type(value) is not int or not 0 <= value < 2 ** (64 if name == "seed" else 63):
                raise ValueError(f"its {name} is no whole number in range")
        elif not (kind == "optional" and value is None) and not (type(value) is float and math.isfinite(value)):
            raise ValueError(f"its {name} is no finite number")


def check_result(job: JobName, result: Result) -> None:
    """Raise ValueError if this is not the result of a point: all that tables need, and nothing but plain values."""
    for name in RESULTS[job]:
        if name not in result:
            raise ValueError(f"its result has no {name}")
    for name, value in result.items():
        if name.partition(".")[0] in job_parameters(job):
            raise ValueError(f"its result has a parameter's name, {name}")
        if name not in RESULTS[job] and type(value) in (str, bool):
            continue  # a reason, beside a number
        if not (value is None and name not in STATUSES) and not _is_plain_number(value):
            raise ValueError(f"its {name} is no number")


def _is_plain_number(value: Any) -> bool:
    return (type(value) is float and math.isfinite(value)) or (type(value) is int and -(2**63) <= value < 2**63)


# How it is run


def stored(planned: Plan, store: Store | None) -> dict[str, Result]:
    """Results that a store has of the points of a sweep, by key; those that are damaged are not among them."""
    if store is None:
        return {}
    return {key: point.result for key, point in store.found.points.items() if key in planned.points}


def run(
    planned: Plan,
    store: Store | None = None,
    executor: Executor | None = None,
    threads: int | None = None,
    progress: Callable[[int, int], None] | None = None,
) -> list[dict[str, Any]]:
    """Run the points of a sweep that the store does not have, and write each as soon as it is finished.

    Only this process writes the store. Parameters, rows and errors are those of `sweep`.
    """
    results = stored(planned, store)
    waiting = [key for key in planned.points if key not in results]
    calls = _here(planned, waiting, threads) if executor is None else _on(executor, planned, waiting)

    def tell() -> None:
        if progress is not None:
            progress(len(results), len(planned.points))

    tell()
    with closing(calls):
        for key, call in calls:
            point = planned.points[key]
            try:
                outcome = call()
            except (ValueError, TypeError, MemoryError) as error:
                kinds = (TooLargeError, ValueError, TypeError, MemoryError)
                raise next(kind for kind in kinds if isinstance(error, kind))(
                    f"{point_text(point)}: {error}"
                ) from error
            if store is not None:
                store.add(key, point, **outcome)
            results[key] = outcome["result"]
            tell()
    return [flat_row(planned.job, point, results[key]) for key, point in planned.points.items()]


Calls = Generator[tuple[str, Callable[[], dict[str, Any]]], None, None]


def _here(planned: Plan, keys: list[str], threads: int | None) -> Calls:
    """Calls of `work` one after the other: a point has all threads, and Ctrl-C reaches it."""
    if keys:
        taken, largest = max(
            (_point_bytes(planned.job, *map(planned.points[key].__getitem__, MEMORY_SIZES)), key) for key in keys
        )
        require_memory(point_text(planned.points[largest]), taken)

    def quiet(key: str) -> dict[str, Any]:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # those of the backend: the check has shown them
            return work(planned.job, planned.backend, key, planned.points[key], threads)

    for key in keys:
        yield key, partial(quiet, key)


def _on(executor: Executor, planned: Plan, keys: list[str]) -> Calls:
    """What an executor made of calls of `work`, as they are finished; those that still wait at the end are canceled."""
    from queue import SimpleQueue  # here: import fastgrad stays light

    running: dict[Future[dict[str, Any]], str] = {}
    finished: SimpleQueue[Future[dict[str, Any]]] = SimpleQueue()
    waiting = iter(keys)

    def submit(count: int) -> None:
        for key in itertools.islice(waiting, count):
            future = executor.submit(work, planned.job, planned.backend, key, planned.points[key], 1)
            running[future] = key
            future.add_done_callback(finished.put)

    try:
        submit(WINDOW)
        while running:
            future = finished.get()
            yield running.pop(future), future.result
            submit(1)
    finally:
        for future in running:
            future.cancel()


def work(
    job: JobName,
    backend: BackendName,
    key: str,
    point: Point,
    threads: int | None,
) -> dict[str, Any]:
    """Run one point, in whatever process: plain values in and out.

    Returns
    -------
    dict
        ``result``, ``provenance`` and ``seconds``.

    Raises
    ------
    ValueError
        If this process has another version of the kernels.
    """
    if key != point_key(_identity(job, backend), point):
        raise ValueError(f"this worker's fastgrad has kernels of another version ({KERNEL_VERSION}) than the sweep")
    start = time.perf_counter()
    measured = _function(job)(**point, backend=backend, threads=threads)
    result = _growth_result(measured, point["x"]) if job == "simulate" else _training_result(measured)
    seconds = time.perf_counter() - start
    return {"result": result, "provenance": {**_provenance(backend), "seed": point["seed"]}, "seconds": seconds}


@cache
def _provenance(backend: BackendName) -> dict[str, Any]:
    return provenance(backend, None)


# What comes out


def _growth_result(growth: Any, x: float) -> Result:
    summary = growth.summary()
    return json_ready(  # type: ignore[no-any-return]
        {
            "lyapunov": growth.lyapunov.mean,
            "lyapunov_stderr": growth.lyapunov.stderr,
            **_flat("stationary", summary["stationary"]),
            **{key: value for key, value in summary.items() if key in ("bound_rate", "bound_rate_why")},
            **_theory(str(growth.weight), str(growth.bias), x),
            "zero_share": summary["zero_share"],
            **{
                f"{name}_{event}": links
                for name, events in summary["first_depth"].items()
                for event, links in events.items()
            },
        }
    )


def _flat(name: str, measured: dict[str, Any]) -> Result:
    """Columns of a measured exponent, whose mean has its name; the reason once, where they are None."""
    why = measured.get("mean_why")
    return {
        name: measured["mean"],
        **({} if why is None else {f"{name}_why": why}),
        f"{name}_stderr": measured["stderr"],
        f"{name}_link": measured["link"],
    }


@cache
def _theory(weight: str, bias: str, x: float) -> Result:
    """What theory says, which neither depth nor seed changes."""
    found = theory.predict(weight, bias, x)
    rate, why = found.lyapunov, found.why_not
    return {
        "theory": None if rate is None else float(f"{rate:.{THEORY_DIGITS}g}"),
        # Without the numbers of the message, which may be those that could not be resolved.
        **({} if why is None else {"theory_why": why.partition(" (")[0]}),
        "theory_bound": found.bound.mean,
    }


def _training_result(training: Any) -> Result:
    summary = training.summary()
    loss = summary["loss"]["q50"][-1]
    return json_ready(  # type: ignore[no-any-return]
        {
            **summary["share"],
            "unchanged": summary["unchanged"],
            "median_loss": math.inf if loss is None else loss,  # which only a chain that left float64 has
            "median_step": summary["last_step"]["converged"],
        }
    )


def flat_row(job: JobName, point: Point, result: Result) -> dict[str, Any]:
    """A point and its result in one flat dict; after each law its parameters, as ``weight.std``."""
    flat: dict[str, Any] = {}
    for name, value in point.items():
        flat[name] = value
        if name in LAWS[job]:
            flat |= {f"{name}.{part}": number for part, number in _law_parameters(value, name)}
    return flat | result


@lru_cache(maxsize=10_000)
def _law(text: str, name: str) -> laws.Law:
    return laws.parse(text, name)  # type: ignore[arg-type]


@lru_cache(maxsize=10_000)
def _law_parameters(text: str, name: str) -> tuple[tuple[str, float], ...]:
    return tuple(laws.parameters(_law(text, name)).items())


def stored_rows(store: Store) -> list[dict[str, Any]]:
    """All points of a store as rows, ordered by their parameters: the same for every way to the same points."""
    job: Any = store.identity["job"]

    def order(item: tuple[str, Point, Result]) -> list[tuple[str, tuple[float, ...]]]:
        def of(name: str, value: Any) -> tuple[str, tuple[float, ...]]:
            if name in LAWS[job]:
                return value.partition(":")[0], tuple(number for _, number in _law_parameters(value, name))
            return (value, ()) if isinstance(value, str) else ("", () if value is None else (value,))

        return [of(name, value) for name, value in item[1].items()]

    return [flat_row(job, point, result) for _, point, result in sorted(store.points(), key=order)]


def deviation(row: dict[str, Any]) -> float | None:
    """By how many standard errors the stationary exponent differs from the theory's.

    None without a theory, an error, or links after the start is forgotten; also for points that were stored before the
    stationary exponent was.
    """
    expected, mean, stderr = (row.get(name) for name in ("theory", "stationary", "stationary_stderr"))
    if expected is None or mean is None or stderr is None:
        return None
    freedom = degrees_of_freedom(row["ensemble"], row["depth"] - row["stationary_link"] + 1)
    return Lyapunov(mean, stderr).deviation(expected, freedom)


# What it would take, and how a grid is written


class Cost(NamedTuple):
    """What a sweep would take.

    Attributes
    ----------
    done : set of str
        Keys of the points that the store has.
    memory : int
        Bytes, for the points that run at the same time.
    together : int
        How many those are.
    seconds : float
        For the points that the store does not have.
    source : str
        What the seconds are estimated from.
    """

    done: set[str]
    memory: int
    together: int
    seconds: float
    source: str


def cost(planned: Plan, store: Store | None, together: int = 1) -> Cost:
    """Estimate what a sweep would take: from the points of its store, or from a piece of its first point."""
    import statistics  # here: import fastgrad stays light

    done = set(stored(planned, store))
    known = [] if store is None else store.seconds()
    sizes = [name for name in SIZES if name in planned.points.columns]
    waiting = planned.points.counts(*sizes, without=frozenset(done))
    if not waiting:
        seconds, source = 0.0, "nothing that is left to do"
    elif known:
        seconds = sum(waiting.values()) * statistics.median(known)
        source = f"the median of {len(known)} points in the store"
    else:
        a_link, beside, links = _timed_piece(planned)
        seconds = sum(count * (beside + a_link * math.prod(of)) for of, count in waiting.items())
        source = f"{links} links of the first point"
    return Cost(done, together * planned.point_bytes, together, seconds / together, source)


def planned_rows(planned: Plan, done: set[str]) -> Iterator[dict[str, Any]]:
    """Rows of the points of a sweep before it is run, with ``done`` in place of a result."""
    for key, point in planned.points.items():
        yield flat_row(planned.job, point, {"done": key in done})


def _timed_piece(planned: Plan) -> tuple[float, float, int]:
    """Run a piece of the first point: its seconds a link, its seconds beside the kernel, and its links."""
    piece = dict(next(iter(planned.points.values())))
    for size in reversed(SIZES):
        if size in piece:
            piece[size] = max(1, min(piece[size], piece[size] * PIECE_LINKS // _links(piece)))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        start = time.perf_counter()
        _function(planned.job)(**piece, backend=planned.backend, threads=1)
        kernel = time.perf_counter() - start
        whole = work(planned.job, planned.backend, point_key(planned.identity, piece), piece, 1)["seconds"]
    return kernel / _links(piece), max(0.0, whole - kernel), _links(piece)


def read_values(job: JobName, key: str, text: str) -> list[Any]:
    """Values of a grid as they are written: a comma list, or ``LOW:HIGH:COUNT`` with ``:log`` for equal ratios.

    Both ends of a range are among its values, and each value is the float nearest to the exact one. Whole numbers may
    be written as 1e3. In a list of laws, commas also separate a law's parameters.

    Raises
    ------
    ValueError
        With the key, what was wrong, and what was expected.
    """
    kind = _kind(job, key)
    pieces = [piece.strip() for piece in text.split(",")]
    if "" in pieces:
        raise ValueError(f"{key} has no value, or an empty one, in {text!r}")
    if kind == "text":
        return pieces
    if kind == "law" and not re.fullmatch("[^:=,]+:[^:=,]+:[^=,]+", text):  # a range of numbers is no law
        listed: list[Any] = []
        for piece in pieces:
            if listed and "=" in piece and piece.partition(":")[0] not in laws.LAWS:
                listed[-1] += f",{piece}"
            else:
                listed.append(piece)
        return listed
    if ":" in text:
        exact: list[Decimal | None] = [*_range(key, text)]
    else:
        exact = [None if kind == "optional" and piece == "none" else _decimal(key, piece) for piece in pieces]
    if kind != "whole":
        return [None if value is None else float(value) for value in exact]
    for value in exact:
        if value is None or value.copy_abs() > WHOLE_MAX or value != value.to_integral_value():
            raise ValueError(f"{key}: expected whole numbers, got {value:.6g} from {text!r}")
    return [int(value) for value in exact if value is not None]


def whole(text: str) -> int:
    """Read a whole number that may be written as 1e6 or 12345678901234567.0, exactly.

    Raises
    ------
    ValueError
        If it is none.
    """
    try:
        value = Decimal(text)
    except InvalidOperation:
        raise ValueError(text) from None
    if (
        not value.is_finite() or value.adjusted() > 308 or value != value.to_integral_value()
    ):  # no integer of 10^9 digits
        raise ValueError(text)
    return int(value)


def _range(key: str, text: str) -> list[Decimal]:
    parts = text.split(":")
    if len(parts) not in (3, 4) or parts[3:] not in ([], ["log"]):
        raise ValueError(f"{key}: expected LOW:HIGH:COUNT or LOW:HIGH:COUNT:log, got {text!r}")
    low, high, count = (_decimal(key, part) for part in parts[:3])
    if not 2 <= count <= COUNT_MAX or count != int(count):
        raise ValueError(f"{key}: expected a COUNT from 2 to {COUNT_MAX}, got {parts[2]!r} in {text!r}")
    if parts[3:] and not (float(low) > 0 and float(high) > 0):
        raise ValueError(f"{key}: expected LOW and HIGH above 0 for :log, got {text!r}")
    steps = int(count) - 1
    with localcontext(prec=DIGITS):
        if parts[3:]:  # one power, and products: each adds a rounding, of the 10^6 that there may be
            ratio = (high / low) ** (1 / Decimal(steps))
            between = [*itertools.accumulate(itertools.repeat(ratio, steps - 1), operator.mul, initial=low)][1:]
        else:
            between = [low + (high - low) * i / steps for i in range(1, steps)]
    with localcontext(prec=DIGITS - 20):  # what is exact, as the 100 between 10 and 1000, is so again
        return [low, *(+value for value in between), high]


def _decimal(key: str, text: str) -> Decimal:
    try:
        value = Decimal(text)
        if math.isfinite(float(value)):
            return value
    except (InvalidOperation, ValueError):  # not a number; a signaling NaN
        pass
    raise ValueError(f"{key}: expected finite numbers, got {text!r}")
