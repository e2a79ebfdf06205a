"""Settings of the page: from and to its address, and as the command that gives the same numbers."""

from __future__ import annotations

import math
import shlex
from typing import TYPE_CHECKING, Any, NamedTuple
from urllib.parse import quote

from fastgrad.jobs.parameters import JobName, parameters_of
from fastgrad.sweeps.grid import canonical, read_values

if TYPE_CHECKING:
    from collections.abc import Mapping

    Settings = dict[str, Any]

TAB = "tab"  # key of an address that names the tab; without it is the first one


class Form(NamedTuple):
    """Settings of a tab, and the command that they are of.

    Attributes
    ----------
    title : str
        Of the tab.
    command : str
        Of fastgrad, that shows the same numbers.
    defaults : dict of str to object
        What the tab begins with, by the names of the command's parameters.
    """

    title: str
    command: str
    defaults: dict[str, Any]


# Enough chains for a smooth figure, in a few milliseconds.
FORMS = {
    "depth": Form(
        "Depth",
        "simulate",
        {
            "depth": 100,
            "ensemble": 1000,
            "weight": "normal:std=4",
            "bias": "zero",
            "seed": 0,
            "width": 1,
            "nonlinearity": "sigmoid",
        },
    ),
    "lecture": Form("The lecture", "example", {"weight": 500.0, "learning_rate": 0.01}),
    "training": Form(
        "Training",
        "train",
        {
            "depth": 3,
            "ensemble": 1000,
            "weight": "normal:std=4",
            "bias": "zero",
            "learning_rate": 1.0,
            "steps": 1000,
            "seed": 0,
        },
    ),
    "schemes": Form(
        "Schemes", "schemes", {"depth": 10, "ensemble": 200, "width": 1, "nonlinearity": "sigmoid", "seed": 0}
    ),
}
PRESETS: dict[str, dict[str, Any]] = {
    "The lecture's 500": {"weight": "normal:std=500"},
    "Glorot": {"weight": "glorot_normal", "width": 64, "nonlinearity": "tanh", "ensemble": 50},
    "He": {"weight": "he_normal", "width": 64, "nonlinearity": "relu", "ensemble": 50},
    "Critical": {"weight": "orthogonal:gain=1", "width": 64, "nonlinearity": "tanh", "ensemble": 50},
    "Exploding": {"weight": "normal:gain=3", "width": 64, "nonlinearity": "tanh", "ensemble": 50},
}


def read(tab: str, key: str, text: str) -> Any:
    """Read a setting of a tab as a user writes it.

    Raises
    ------
    ValueError
        With the setting's name, if it is none or out of its range.
    """
    form = FORMS[tab]
    if key not in form.defaults:
        raise ValueError(f"{key}: no setting of the tab {tab}, expected one of {', '.join(form.defaults)}")
    if isinstance(form.defaults[key], float):
        return _number(key, text)
    job: JobName = "train" if form.command == "train" else "simulate"
    try:
        values = read_values(job, key, text.strip())
        if len(values) != 1:
            raise ValueError(f"{key}: expected one value, got {len(values)}")
        value = canonical(job, key, values[0])
    except TypeError as error:
        raise ValueError(str(error)) from None
    choices = parameters_of(job)[key].choices
    if choices and value not in choices:
        raise ValueError(f"{key}: expected one of {', '.join(choices)}, got {value!r}")
    return value


def _number(key: str, text: str) -> float:
    try:
        value = float(text)
    except ValueError:
        value = math.nan
    if not math.isfinite(value):
        raise ValueError(f"{key}: expected a finite number, got {text!r}")
    return value


def from_address(arguments: Mapping[str, list[bytes]]) -> tuple[str, Settings]:
    """Read the tab and the settings of a page's address; what it does not name has its default.

    Raises
    ------
    ValueError
        With the name of what is wrong.
    """
    texts = {}
    for key, values in arguments.items():
        if len(values) != 1:
            raise ValueError(f"{key}: expected once in the address, got {len(values)} times")
        try:
            texts[key] = values[0].decode()
        except UnicodeDecodeError:
            raise ValueError(f"{key}: expected UTF-8") from None
    tab = texts.pop(TAB, next(iter(FORMS)))
    if tab not in FORMS:
        raise ValueError(f"{TAB}: expected one of {', '.join(FORMS)}, got {tab!r}")
    return tab, FORMS[tab].defaults | {key: read(tab, key, text) for key, text in texts.items()}


def address_of(tab: str, settings: Settings) -> str:
    """Return the part of the address that restores a tab's settings: what differs from the defaults."""
    defaults = FORMS[tab].defaults
    changed = {key: value for key, value in settings.items() if value != defaults[key]}
    if tab != next(iter(FORMS)):
        changed = {TAB: tab, **changed}
    return "&".join(f"{key}={quote(str(value), safe=':=,.-')}" for key, value in changed.items())


def command_of(tab: str, settings: Settings) -> str:
    """Return the command that shows the same numbers."""
    options = [text for key, value in settings.items() for text in (f"--{key.replace('_', '-')}", str(value))]
    return shlex.join(["fastgrad", FORMS[tab].command, *options])
