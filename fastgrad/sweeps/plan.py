"""Points of a sweep: each known by a hash of its parameters, checked before the first is run."""

from __future__ import annotations

import hashlib
import itertools
import json
import math
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, NamedTuple

from fastgrad.checks import TooLargeError
from fastgrad.jobs.layers import layers_bytes
from fastgrad.jobs.parameters import JOBS, REQUIRED, JobName, added_defaults, job_parameters, law_names, require_job
from fastgrad.jobs.simulate import LINKS_MAX, simulate, simulation_bytes
from fastgrad.jobs.threads import default_threads
from fastgrad.jobs.train import drawn_training_bytes, train_drawn
from fastgrad.kernels import BACKENDS, KERNEL_VERSION, BackendName, load
from fastgrad.laws import parse
from fastgrad.nonlinearities import is_chain
from fastgrad.sweeps.grid import canonical, changed_law, checked_axis
from fastgrad.theory.linear import WIDTH_MAX

if TYPE_CHECKING:
    from collections.abc import Iterable


Point = dict[str, Any]  # parameters
Result = dict[str, Any]  # plain values, ready for JSON
Identity = dict[str, Any]  # job, kernel_version and arithmetic: what the points of a store have in common
WORK_PARAMETERS = ("depth", "ensemble", "steps")  # parameters whose product is the work, with the square of the width
# Parameters on which the memory of a point depends.
MEMORY_PARAMETERS = ("depth", "ensemble", "steps", "record", "width", "nonlinearity")
ADDED = {name: default for job in JOBS for name, default in added_defaults(job).items()}
ARITHMETICS = tuple(dict.fromkeys(entry.arithmetic for entry in BACKENDS.values()))


@dataclass(frozen=True)
class Plan:
    """Points that a sweep is to run.

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
        """Job, kernel version and arithmetic, which the points of a store have in common."""
        return identity_of(self.job, self.backend)

    def point_bytes(self, threads: int | None = None) -> int:
        """Memory that the largest point takes on so many threads; None for all processors."""
        names = [name for name in MEMORY_PARAMETERS if name in self.points.columns]
        return max(
            (self.bytes_of(dict(zip(names, of, strict=True)), threads) for of in self.points.counts(*names)), default=0
        )

    def bytes_of(self, point: Point, threads: int | None) -> int:
        """Memory that a point takes; of its parameters, only those of `MEMORY_PARAMETERS` need be there."""
        depth, ensemble, record = point["depth"], point["ensemble"], point["record"]
        count = default_threads() if threads is None else threads
        limits = load(self.backend)[1].LIMITS
        if self.job == "train":
            return drawn_training_bytes(depth, ensemble, point["steps"], record, limits, count)
        if is_chain(point["width"], point["nonlinearity"]):
            return simulation_bytes(min(record, depth), ensemble)
        return layers_bytes(depth, ensemble, point["width"], min(record, depth), 1, count, limits)

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
        """Index of the value that the point at a place of the grid has."""
        index = 0
        for step, length, _ in self.axes:
            index = index * length + place // step % length
        return index


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
        names = sorted(columns)
        head = json.dumps({**identity, "parameters": {}}, sort_keys=True)[:-2]  # without the two closing braces
        left_out = added_defaults(identity["job"])

        def piece(name: str, value: Any) -> str:
            if name in left_out and value == left_out[name]:
                return ""
            return f"{'' if name == names[0] else ', '}{json.dumps(name)}: {json.dumps(value)}"

        pieces = [piece(name, columns[name].values[0]) for name in names]
        varying = [
            (i, columns[name], [piece(name, value) for value in columns[name].values])
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
        """Numbers of points with each combination of these parameters, leaving out some keys."""
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


def plan(grid: Mapping[str, Iterable[Any]], job: JobName, backend: str = "auto", **arguments: Any) -> Plan:
    """Work out the points of a sweep, and check them before the first is run. Input and errors are those of `sweep`."""
    require_job(job)
    takes = job_parameters(job)
    if not isinstance(grid, Mapping):
        raise TypeError(f"grid: expected a dict of values, got {grid!r}")
    for key in grid:
        if not isinstance(key, str):
            raise TypeError(f"grid: expected names of parameters as keys, got {key!r}")
    axes = {key: checked_axis(job, key, values) for key, values in grid.items()}
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
            base[name] = canonical(job, name, value)

    loaded, _ = load(backend)
    size = math.prod(map(len, axes.values()))
    steps = dict(zip(axes, _steps([len(values) for values in axes.values()]), strict=True))
    columns = {}
    for name in takes:
        mine = [key for key in axes if key == name or key.partition(".")[0] == name]
        chosen = ({name: base.get(name), **dict(zip(mine, of, strict=True))} for of in _product(axes, mine))
        columns[name] = Column(
            [changed_law(name, of) if name in law_names(job) else of[name] for of in chosen],
            [(steps[key], len(axes[key]), isinstance(axes[key][0], str)) for key in mine],
        )
    planned = Plan(job, loaded, Points.of(columns, size, identity_of(job, loaded)))
    _check(planned)
    return planned


def _product(axes: dict[str, list[Any]], keys: list[str]) -> Iterator[tuple[Any, ...]]:
    return itertools.product(*(axes[key] for key in keys))


def _steps(lengths: list[int]) -> list[int]:
    """By how many points a value of each axis is from the next: the last axis runs fastest."""
    return [math.prod(lengths[i + 1 :]) for i in range(len(lengths))]


def arithmetic_of(backend: BackendName) -> str:
    """Backends of one arithmetic return equal bits."""
    return BACKENDS[backend].arithmetic


def job_function(job: JobName) -> Callable[..., Any]:
    """Return what runs the job."""
    return simulate if job == "simulate" else train_drawn


def identity_of(job: JobName, backend: BackendName) -> Identity:
    """Return what the points of a store have in common."""
    return {"job": job, "kernel_version": KERNEL_VERSION, "arithmetic": arithmetic_of(backend)}


def stored_form(job: JobName, point: Point) -> Point:
    """Leave out what came after the first stores, where it has its default: their points keep their keys."""
    left_out = added_defaults(job)
    return {name: value for name, value in point.items() if not (name in left_out and value == left_out[name])}


def point_key(identity: Identity, point: Point) -> str:
    """Return what a point is known by: SHA-256 of all that decides its result."""
    text = json.dumps({**identity, "parameters": stored_form(identity["job"], point)}, sort_keys=True, allow_nan=False)
    return hashlib.sha256(text.encode()).hexdigest()


def _check(planned: Plan) -> None:
    """Let the job itself judge what is in the points, in one link of one chain: the ends of each range, every name.

    Some laws are of chains, or of layers, only: of those each name is tried with each kind of unit that the grid has.
    """
    first = next(iter(planned.points.values()))
    tried = {name: _examples(column) for name, column in planned.points.columns.items()}
    for name, values in tried.items():
        for value in values:
            _run_least(planned, {**first, name: value})
    if planned.job == "simulate":
        widths = {min(width, 2): width for width in planned.points.columns["width"].values}.values()
        for weight, bias, width, nonlinearity in itertools.product(
            tried["weight"], tried["bias"], widths, tried["nonlinearity"]
        ):
            together = {"weight": weight, "bias": bias, "width": width, "nonlinearity": nonlinearity}
            _run_least(planned, first | together)
        columns = [planned.points.columns[name].values for name in ("depth", "ensemble", "width")]
        if math.prod(map(max, columns)) * max(columns[2]) > LINKS_MAX:  # which the grid has as a point
            point = next(of for of in planned.points.values() if work_of(of) > LINKS_MAX)
            what = "links in all chains" if point["width"] == 1 else "weights in all networks"
            raise TooLargeError(f"{point_text(point)}: expected at most {LINKS_MAX:.0e} {what}")


def _examples(column: Column) -> list[Any]:
    """Ends of a range of numbers, or a law, or another text, of each name."""
    values = sorted({value for value in column.values if value is not None})
    if values and isinstance(values[0], str):
        return list({text.partition(":")[0]: text for text in reversed(values)}.values())
    return values[:: max(1, len(values) - 1)]


def _run_least(planned: Plan, point: Point) -> None:
    """Run one link of one chain of a point, or one layer of two units."""
    least = {size: min(point[size], 1) for size in WORK_PARAMETERS if size in point}
    if 2 < point.get("width", 1) <= WIDTH_MAX:
        parse(point["weight"], "weight", point["width"])  # an error names the width itself
        parse(point["bias"], "bias", point["width"])
        least["width"] = 2
    job_function(planned.job)(**{**point, **least}, backend=planned.backend, threads=1)


def point_text(point: Point) -> str:
    """Name a point by its parameters; those that came later only where they have not their default."""
    return "point " + ", ".join(f"{name} {value}" for name, value in point.items() if value != ADDED.get(name))


def work_of(point: Point) -> int:
    """Count the links of all chains and steps of a point, or the weights of all networks."""
    links = math.prod(int(point[size]) for size in WORK_PARAMETERS if size in point)
    return links * int(point.get("width", 1)) ** 2
