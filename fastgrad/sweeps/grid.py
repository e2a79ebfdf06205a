"""Grids: names of parameters, and their values from text and from Python."""

from __future__ import annotations

import itertools
import math
import operator
import re
from decimal import Decimal, InvalidOperation, localcontext
from functools import cache, lru_cache
from typing import TYPE_CHECKING, Any

from fastgrad import laws
from fastgrad.checks import integer, real_array
from fastgrad.jobs.parameters import JobName, Parameter, law_names, swept_parameters

if TYPE_CHECKING:
    from collections.abc import Iterable


DIGITS = 60  # with which the values of a range are worked out, to be rounded once
WHOLE_MAX = 10**20  # of a whole number in a point; the job knows its own range
COUNT_MAX = 10**6  # values in a range


@cache
def parameter_of(job: JobName, key: str) -> Parameter:
    """Find what a grid's key stands for: a parameter of the job, or a number that is one of a law."""
    rows = swept_parameters(job)
    name, of_law, part = key.partition(".")
    parts = sorted({part for maker in laws.LAWS.values() for part in laws.takes(maker)})
    if name not in rows or (of_law and not (rows[name].is_law and part in parts)):
        raise ValueError(
            f"grid: unknown key {key!r}, expected one of {', '.join(rows)}, or {' or '.join(law_names(job))} with one "
            f"of .{', .'.join(parts)}"
        )
    return Parameter(key, "number", f"{part} of the law {name}", {}) if of_law else rows[name]


def checked_axis(job: JobName, key: str, values: Iterable[Any]) -> list[Any]:
    """Check a key of a grid and its values."""
    parameter_of(job, key)
    if isinstance(values, str) or not hasattr(values, "__iter__"):
        raise TypeError(f"{key}: expected a list of values, got {values!r}")
    written = list(dict.fromkeys(canonical(job, key, value) for value in values))
    if not written:
        raise ValueError(f"{key} has no values")
    return written


def canonical(job: JobName, key: str, value: Any) -> Any:
    """Write a value in the one form in which it enters a point."""
    parameter = parameter_of(job, key)
    if parameter.is_law:
        argument: Any = key
        law = (laws.read if parameter.kind == "law" else laws.law_or_number)(value, argument)
        if law != laws.read(str(law), argument):
            raise ValueError(f"{key}: expected a law of fastgrad.laws, got {law!r}")
        return str(law)
    if parameter.kind == "whole":
        return integer(key, value, -WHOLE_MAX, WHOLE_MAX)
    if parameter.kind == "name":
        if not isinstance(value, str):
            raise TypeError(f"{key}: expected a name, got {value!r}")
        return value
    if parameter.is_optional and value is None:
        return None
    number = real_array(key, value)
    if number.shape != ():
        raise ValueError(f"{key}: expected one number for all chains, got an array of shape {number.shape}")
    return float(number) + 0.0  # -0.0 is 0


def changed_law(name: str, chosen: dict[str, Any]) -> str:
    """The law of this name, with what the grid changes in it."""
    changes = {key.partition(".")[2]: value for key, value in chosen.items() if key.startswith(f"{name}.")}
    law: str = chosen[name]
    return str(laws.replace(parsed_law(law, name), changes, name)) if changes else law


def read_values(job: JobName, key: str, text: str) -> list[Any]:
    """Values of a grid as they are written: a comma list, or ``LOW:HIGH:COUNT`` with ``:log`` for equal ratios.

    Both ends of a range are among its values, and each value is the float nearest to the exact one. Whole numbers may
    be written as 1e3. In a list of laws, commas also separate a law's parameters.

    Raises
    ------
    ValueError
        With the key, what was wrong, and what was expected.
    """
    parameter = parameter_of(job, key)
    pieces = [piece.strip() for piece in text.split(",")]
    if "" in pieces:
        raise ValueError(f"{key} has no value, or an empty one, in {text!r}")
    if parameter.kind == "name":
        return pieces
    if parameter.is_law and not re.fullmatch("[^:=,]+:[^:=,]+:[^=,]+", text):  # a range of numbers is no law
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
        exact = [None if parameter.is_optional and piece == "none" else _decimal(key, piece) for piece in pieces]
    if parameter.kind != "whole":
        return [None if value is None else float(value) for value in exact]
    for value in exact:
        if value is None or value.copy_abs() > WHOLE_MAX or value != value.to_integral_value():
            raise ValueError(f"{key}: expected whole numbers, got {value:.6g} from {text!r}")
    return [int(value) for value in exact if value is not None]


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


@lru_cache(maxsize=10_000)
def parsed_law(text: str, name: str) -> laws.Law:
    """Read a law once: a grid has the same one at many points."""
    return laws.read(text, name)  # type: ignore[arg-type]


@lru_cache(maxsize=10_000)
def law_parameters(text: str, name: str) -> tuple[tuple[str, float], ...]:
    """Return the parameters of a law by name, once for many points."""
    return tuple(laws.parameters(parsed_law(text, name)).items())
