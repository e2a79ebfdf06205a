"""Settings of a page: from and to its address, and as the command that gives the same numbers."""

from __future__ import annotations

import shlex
from typing import TYPE_CHECKING, Any
from urllib.parse import quote

from fastgrad.jobs.parameters import parameters_of
from fastgrad.sweeps.grid import canonical, read_values

if TYPE_CHECKING:
    from collections.abc import Mapping

    Settings = dict[str, Any]

# What the page shows at first: enough chains for a smooth figure, in a few milliseconds.
DEFAULTS: dict[str, Any] = {
    "depth": 100,
    "ensemble": 1000,
    "weight": "normal:std=4",
    "bias": "zero",
    "seed": 0,
    "width": 1,
    "nonlinearity": "sigmoid",
}
PRESETS: dict[str, dict[str, Any]] = {
    "The lecture's 500": {"weight": "normal:std=500"},
    "Glorot": {"weight": "glorot_normal", "width": 64, "nonlinearity": "tanh", "ensemble": 50},
    "He": {"weight": "he_normal", "width": 64, "nonlinearity": "relu", "ensemble": 50},
    "Critical": {"weight": "orthogonal:gain=1", "width": 64, "nonlinearity": "tanh", "ensemble": 50},
    "Exploding": {"weight": "normal:gain=3", "width": 64, "nonlinearity": "tanh", "ensemble": 50},
}


def read(key: str, text: str) -> Any:
    """Read a setting as a user writes it.

    Raises
    ------
    ValueError
        With the setting's name, if it is none or out of its range.
    """
    if key not in DEFAULTS:
        raise ValueError(f"{key}: no setting of this page, expected one of {', '.join(DEFAULTS)}")
    try:
        values = read_values("simulate", key, text.strip())
        if len(values) != 1:
            raise ValueError(f"{key}: expected one value, got {len(values)}")
        value = canonical("simulate", key, values[0])
    except TypeError as error:
        raise ValueError(str(error)) from None
    choices = parameters_of("simulate")[key].choices
    if choices and value not in choices:
        raise ValueError(f"{key}: expected one of {', '.join(choices)}, got {value!r}")
    return value


def from_address(arguments: Mapping[str, list[bytes]]) -> Settings:
    """Read the settings of a page's address; those that it does not name have their defaults.

    Raises
    ------
    ValueError
        With the name of what is wrong.
    """
    settings = dict(DEFAULTS)
    for key, texts in arguments.items():
        if len(texts) != 1:
            raise ValueError(f"{key}: expected once in the address, got {len(texts)} times")
        try:
            text = texts[0].decode()
        except UnicodeDecodeError:
            raise ValueError(f"{key}: expected UTF-8") from None
        settings[key] = read(key, text)
    return settings


def address_of(settings: Settings) -> str:
    """Return the part of the address that restores the settings: what differs from the defaults."""
    changed = {key: value for key, value in settings.items() if value != DEFAULTS[key]}
    return "&".join(f"{key}={quote(str(value), safe=':=,.-')}" for key, value in changed.items())


def command_of(settings: Settings) -> str:
    """Return the command that shows the same numbers."""
    options = [text for key, value in settings.items() for text in (f"--{key}", str(value))]
    return shlex.join(["fastgrad", "simulate", *options])
