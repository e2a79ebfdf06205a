"""Sweeps: a job at every point of a grid, which can grow, be interrupted, and be run again.

A point is a dict of every parameter that decides a job's result, defaults included, each in one canonical form. It is
known by a hash of these, the job, the kernels' version and their arithmetic, never by its place in a grid.
"""

from __future__ import annotations

import itertools
import math
import re
import time
import warnings
from collections.abc import Callable, Generator
from contextlib import ExitStack, closing
from dataclasses import dataclass, replace
from decimal import Decimal, InvalidOperation, localcontext
from functools import cache, partial
from typing import TYPE_CHECKING, Any, Literal, NamedTuple

from fastgrad import laws, theory
from fastgrad.chain import TooLargeError, integer, real_array, require_memory
from fastgrad.info import provenance
from fastgrad.kernels import KERNEL_VERSION, BackendName, load
from fastgrad.scaled import json_ready
from fastgrad.simulate import LINKS_MAX, RECORD_BYTES, Lyapunov, simulate
from fastgrad.train import train, train_drawn

if TYPE_CHECKING:
    import os
    from collections.abc import Iterable, Mapping
    from concurrent.futures import Executor, Future

    from fastgrad.store import Identity, Store

    Point = dict[str, Any]  # parameters
    Result = dict[str, Any]  # plain values, ready for JSON

JobName = Literal["simulate", "train"]
JOBS: tuple[JobName, ...] = ("simulate", "train")
LAWS: dict[JobName, tuple[str, ...]] = {"simulate": ("weight", "bias"), "train": ("weight", "bias", "x", "target")}
HOW = ("backend", "threads", "progress")  # arguments that say how a job is run, and not what it gives
SIZES = ("depth", "ensemble", "steps")  # parameters whose product is the work
WINDOW = 1000  # points that wait in an executor: enough for a cluster, and little memory for a huge grid
DIGITS = 40  # with which the values of a range are worked out, to be rounded once
WHOLE_MAX = 10**20  # of a whole number in a point; the job knows its own range
THEORY_DIGITS = 10  # that are kept: they do not depend on the threads of the linear algebra
PIECE_LINKS = 200_000  # that are timed for an estimate
COUNT_MAX = 10**6  # values in a range
REQUIRED = object()  # in place of a default


@dataclass(frozen=True)
class Plan:
    """What a sweep is to run.

    Attributes
    ----------
    job : {"simulate", "train"}
    backend : str
        The backend that runs; never "auto".
    points : dict
        The parameters of each point by its key, in the grid's order, each point once.
    """

    job: JobName
    backend: BackendName
    points: dict[str, Point]

    @property
    def identity(self) -> Identity:
        """What the points of a store have in common."""
        return {"job": self.job, "kernel_version": KERNEL_VERSION, "arithmetic": _arithmetic(self.backend)}

    @property
    def point_bytes(self) -> int:
        """Memory that the largest point takes."""
        return max((_point_bytes(self.job, point) for point in self.points.values()), default=0)

    def shard(self, index: int, count: int) -> Plan:
        """Return one part of `count`: the points whose keys fall to it, wherever they are in the grid.

        Raises
        ------
        ValueError
            If `index` is not one of 1 … `count`.
        """
        if not 1 <= index <= count:
            raise ValueError(f"shard: expected i/n with i from 1 to n, got {index}/{count}")
        mine = {key: point for key, point in self.points.items() if int(key, 16) % count == index - 1}
        return replace(self, points=mine)


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
    planned = plan(grid, job, how.pop("backend", "auto"), **job_arguments)
    with ExitStack() as stack:
        kept = None if store is None else stack.enter_context(Store.write(store, planned.identity))
        return run(planned, kept, executor, **how)


# What is run


def plan(grid: Mapping[str, Iterable[Any]], job: JobName, backend: str = "auto", **arguments: Any) -> Plan:
    """Work out the points of a sweep, and check them before the first is run. Input and errors are those of `sweep`."""
    takes = job_parameters(job)
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
    points: dict[str, Point] = {}
    for values in itertools.product(*axes.values()):
        chosen = {**base, **dict(zip(axes, values, strict=True))}
        point = {name: _changed_law(name, chosen) if name in LAWS[job] else chosen[name] for name in takes}
        points.setdefault(_key(job, point, loaded), point)
    planned = Plan(job, loaded, points)
    _check(planned)
    return planned


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
    found = [_canonical(job, key, value) for value in values]
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
    return str(laws.replace(laws.parse(law, name), changes, name)) if changes else law  # type: ignore[arg-type]


def _arithmetic(backend: BackendName) -> str:
    """The compiled backends return equal bits."""
    return "numpy" if backend == "numpy" else "compiled"


def _key(job: JobName, point: Point, backend: BackendName) -> str:
    import hashlib  # here: import fastgrad stays light
    import json

    what = {
        "job": job,
        "parameters": point,
        "kernel_version": KERNEL_VERSION,
        "arithmetic": _arithmetic(backend),
    }
    return hashlib.sha256(json.dumps(what, sort_keys=True, allow_nan=False).encode()).hexdigest()


def _check(planned: Plan) -> None:
    """Let the job itself judge what is in the points, in one link of one chain: the ends of each range, every name."""
    points = list(planned.points.values())
    for name in points[0]:
        values = sorted({point[name] for point in points if point[name] is not None})
        if values and isinstance(values[0], str):
            tried = list({text.partition(":")[0]: text for text in reversed(values)}.values())  # a law of each name
        else:
            tried = values[:: max(1, len(values) - 1)]
        for value in tried:
            point = {**points[0], name: value}
            least = {size: min(point[size], 1) for size in SIZES if size in point}
            _function(planned.job)(**{**point, **least}, backend=planned.backend, threads=1)
    for point in points:
        if planned.job == "simulate" and point["depth"] * point["ensemble"] > LINKS_MAX:
            raise TooLargeError(f"{_text(point)}: expected at most {LINKS_MAX:.0e} links in all chains")


def _text(point: Point) -> str:
    return "point " + ", ".join(f"{name} {value}" for name, value in point.items())


def _links(point: Point) -> int:
    return math.prod(point[size] for size in SIZES if size in point)


def _point_bytes(job: JobName, point: Point) -> int:
    depth, ensemble, record = point["depth"], point["ensemble"], point["record"]
    if job == "simulate":
        return int(RECORD_BYTES * (min(record, depth) + 1) * ensemble)
    return int((48 * depth + 16 * record) * ensemble)


# How it is run


def stored(planned: Plan, store: Store | None) -> dict[str, Result]:
    """Results that a store has of the points of a sweep, by key."""
    return {} if store is None else {key: result for key, _, result in store.points() if key in planned.points}


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
                raise next(kind for kind in kinds if isinstance(error, kind))(f"{_text(point)}: {error}") from error
            if store is not None:
                store.add(key, point, **outcome)
            results[key] = outcome["result"]
            tell()
    return [flat_row(planned.job, point, results[key]) for key, point in planned.points.items()]


Calls = Generator[tuple[str, Callable[[], dict[str, Any]]], None, None]


def _here(planned: Plan, keys: list[str], threads: int | None) -> Calls:
    """Calls of `work` one after the other: a point has all threads, and Ctrl-C reaches it."""
    if keys:
        largest = max((planned.points[key] for key in keys), key=partial(_point_bytes, planned.job))
        require_memory(_text(largest), _point_bytes(planned.job, largest))

    def quiet(key: str) -> dict[str, Any]:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # the check has shown them
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
    if key != _key(job, point, backend):
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
            of_law = laws.parameters(laws.parse(value, name))  # type: ignore[arg-type]
            flat |= {f"{name}.{part}": number for part, number in of_law.items()}
    return flat | result


def stored_rows(store: Store) -> list[dict[str, Any]]:
    """All points of a store as rows, ordered by their parameters: the same for every way to the same points."""
    job: Any = store.identity["job"]

    def order(item: tuple[str, Point, Result]) -> list[tuple[str, tuple[float, ...]]]:
        def of(name: str, value: Any) -> tuple[str, tuple[float, ...]]:
            if name in LAWS[job]:
                return value.partition(":")[0], tuple(laws.parameters(laws.parse(value, name)).values())  # type: ignore
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
    return Lyapunov(mean, stderr).deviation(expected)


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
    waiting = [point for key, point in planned.points.items() if key not in done]
    known = [] if store is None else store.seconds()
    if not waiting:
        seconds, source = 0.0, "nothing that is left to do"
    elif known:
        seconds = len(waiting) * statistics.median(known)
        source = f"the median of {len(known)} points in the store"
    else:
        a_link, beside, links = _timed_piece(planned)
        seconds = sum(beside + a_link * _links(point) for point in waiting)
        source = f"{links} links of the first point"
    return Cost(done, together * planned.point_bytes, together, seconds / together, source)


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
        whole = work(planned.job, planned.backend, _key(planned.job, piece, planned.backend), piece, 1)["seconds"]
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
        if value is None or value != value.to_integral_value() or abs(value) > WHOLE_MAX:
            raise ValueError(f"{key}: expected whole numbers, got {value:.6g} from {text!r}")
    return [int(value) for value in exact if value is not None]


def _range(key: str, text: str) -> list[Decimal]:
    parts = text.split(":")
    if len(parts) not in (3, 4) or parts[3:] not in ([], ["log"]):
        raise ValueError(f"{key}: expected LOW:HIGH:COUNT or LOW:HIGH:COUNT:log, got {text!r}")
    low, high, count = (_decimal(key, part) for part in parts[:3])
    if not 2 <= count <= COUNT_MAX or count != int(count):
        raise ValueError(f"{key}: expected a COUNT from 2 to {COUNT_MAX}, got {parts[2]!r} in {text!r}")
    if parts[3:] and not (low > 0 and high > 0):
        raise ValueError(f"{key}: expected LOW and HIGH above 0 for :log, got {text!r}")
    with localcontext(prec=DIGITS):
        shares = [Decimal(i) / (int(count) - 1) for i in range(1, int(count) - 1)]
        between = [low * (high / low) ** share if parts[3:] else low + (high - low) * share for share in shares]
    with localcontext(prec=DIGITS - 10):  # what is exact, as the 100 between 10 and 1000, is so again
        return [low, *(+value for value in between), high]


def _decimal(key: str, text: str) -> Decimal:
    try:
        value = Decimal(text)
        if math.isfinite(float(value)):
            return value
    except (InvalidOperation, ValueError):  # not a number; a signaling NaN
        pass
    raise ValueError(f"{key}: expected finite numbers, got {text!r}")
