"""The laws that weights and biases are drawn from.

A law is given as a string or as the object of the same name here: ``"normal:std=4"`` is ``normal(std=4)``.

==================  ==========================================================================
``constant:VALUE``  always VALUE
``zero``            always 0
``normal``          ``mean=`` (default 0), ``std=`` (default 1); or ``gain=``, the std times sqrt(fan_in)
``uniform``         ``low=``, ``high=``
``glorot_normal``   normal, variance 2 / (fan_in + fan_out) (Glorot and Bengio, AISTATS 2010)
``glorot_uniform``  uniform, the same variance
``he_normal``       normal, variance 2 / fan_in (He et al., ICCV 2015)
``he_uniform``      uniform, the same variance
``lecun_normal``    normal, variance 1 / fan_in (LeCun et al., Efficient BackProp, 1998)
``torch_default``   uniform within ±1 / sqrt(fan_in), as ``torch.nn.Linear`` draws weight and bias
``orthogonal``      for the weights of layers only: ``gain=`` (default 1) times a Haar-distributed orthogonal matrix
``centered``        for the bias of chains only: -w/2, so that the input 1/2 keeps every preactivation at 0
==================  ==========================================================================

In a chain fan_in = fan_out = 1, in layers of n units both are n. Each named scheme takes ``gain=`` (default 1), a
factor on its standard deviation.

All draws are independent of each other, also the weight and the bias of one link, whatever their laws.
"""

from __future__ import annotations

import contextlib
import inspect
import math
import numbers
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cache
from typing import Literal

Family = Literal["constant", "normal", "uniform", "centered", "orthogonal"]

# The numbers by which the kernels know the families.
FAMILY_CODES: dict[Family, int] = {"constant": 0, "normal": 1, "uniform": 2, "centered": 3, "orthogonal": 4}

# The largest standard normal that can be drawn is sqrt(-2 ln 2^-54) = 8.65.
LARGEST_NORMAL = 8.7
ONLY_FOR = {"centered": "bias", "orthogonal": "weight"}
GAIN_MAX = 1e300  # with which no scheme draws values beyond float64


@dataclass(frozen=True)
class Law:
    """A law of weights or biases: ``location + scale * variate``.

    Attributes
    ----------
    family : str
        Which variate: none (``constant``), standard normal, uniform on (0, 1), ``centered``, or ``orthogonal``, which
        is a law of a whole layer.
    location, scale : float
        Mean and standard deviation of a normal; lower end and width of a uniform; the value of a constant; 0 and the
        gain of an orthogonal one.
    text : str
        The law as a user writes it.
    fan_in : int, optional
        That for which location and scale are; they go with 1/√fan_in. None for a law that does not depend on it.
    """

    family: Family
    location: float
    scale: float
    text: str
    fan_in: int | None = None

    def __post_init__(self) -> None:
        """Refuse an unknown family, and parameters that are not finite numbers."""
        if not isinstance(self.family, str) or self.family not in FAMILY_CODES:
            raise ValueError(f"law {self.text}: unknown family {self.family!r}, expected {', '.join(FAMILY_CODES)}")
        for number in (self.location, self.scale):
            if type(number) is not float and (isinstance(number, bool) or not isinstance(number, numbers.Real)):
                raise TypeError(f"law {self.text}: expected numbers for location and scale, got {number!r}")
        if not isinstance(self.text, str):
            raise TypeError(f"law: expected a text, got {self.text!r}")
        if not (math.isfinite(self.location) and math.isfinite(self.scale)):
            raise ValueError(f"law {self.text}: expected finite parameters, got {self.location!r} and {self.scale!r}")

    def __str__(self) -> str:
        return self.text

    def at_width(self, width: int) -> Law:
        """Return the law of layers of so many units, with the location and scale it has there."""
        if self.fan_in is None or self.fan_in == width:
            return self
        factor = math.sqrt(self.fan_in / width)
        return Law(self.family, self.location * factor, self.scale * factor, self.text, width)

    @property
    def mean(self) -> float:
        """Mean of a draw; 0 for an orthogonal law, and nan for ``centered``."""
        means = {"uniform": self.location + self.scale / 2, "orthogonal": 0.0, "centered": math.nan}
        return means.get(self.family, self.location)

    @property
    def std(self) -> float:
        """Standard deviation of a draw; nan for ``centered`` and ``orthogonal``, which are no laws of one number."""
        stds = {"constant": 0.0, "normal": self.scale, "uniform": self.scale / math.sqrt(12)}
        return stds.get(self.family, math.nan)

    @property
    def code(self) -> tuple[int, float, float]:
        """The law as the kernels take it: family number, location, scale; one without width is a constant to them."""
        family = "constant" if self.family in ("normal", "uniform") and not self.scale else self.family
        return FAMILY_CODES[family], self.location, self.scale


LawLike = str | Law | Callable[[], Law]


def _number(name: str, value: float) -> float:
    try:
        number = float(value)
    except (TypeError, ValueError):
        raise ValueError(f"{name}: expected a number, got {value!r}") from None
    if not math.isfinite(number):
        raise ValueError(f"{name}: expected a finite number, got {value!r}")
    return number + 0.0  # -0.0 is 0


def _text(number: float) -> str:
    """Write a number so that it reads back as itself, and a whole one without its point."""
    short = f"{number:g}"
    return short if float(short) == number else repr(number)


def constant(value: float) -> Law:
    """Every draw is `value`."""
    value = _number("value", value)
    return Law("constant", value, 0.0, f"constant:{_text(value)}")


def zero() -> Law:
    """Every draw is 0."""
    return Law("constant", 0.0, 0.0, "zero")


def normal(mean: float = 0.0, std: float | None = None, gain: float | None = None) -> Law:
    """Gaussian with the given mean and standard deviation.

    Parameters
    ----------
    mean : float
    std : float, optional
        By default 1.
    gain : float, optional
        In place of a standard deviation, and with mean 0: sqrt(fan_in) times it.

    Raises
    ------
    ValueError
        If a parameter is not finite, `std` is negative or given together with `gain`, or a draw could leave float64.
    """
    mean = _number("mean", mean)
    if gain is not None:
        if std is not None or mean != 0:
            raise ValueError(f"gain: expected no std and no mean beside it, got mean={mean!r} and std={std!r}")
        return _scheme("normal", "normal", 1.0, gain)
    std = _number("std", 1.0 if std is None else std)
    if std < 0:
        raise ValueError(f"std: expected at least 0, got {std!r}")
    if not math.isfinite(abs(mean) + LARGEST_NORMAL * std):
        raise ValueError(f"std: mean={mean!r}, std={std!r} would draw values beyond float64")
    return Law(
        "normal", mean, std, f"normal:mean={_text(mean)},std={_text(std)}" if mean else f"normal:std={_text(std)}"
    )


def uniform(low: float, high: float) -> Law:
    """Uniform between `low` and `high`.

    Raises
    ------
    ValueError
        If a parameter is not finite, `high` is below `low`, or their difference leaves float64.
    """
    low, high = _number("low", low), _number("high", high)
    if high < low:
        raise ValueError(f"high: expected at least low={low!r}, got {high!r}")
    if not math.isfinite(high - low):
        raise ValueError(f"high: high - low must be within float64, got low={low!r}, high={high!r}")
    return Law("uniform", low, high - low, f"uniform:low={_text(low)},high={_text(high)}")


def _checked_gain(gain: float) -> float:
    gain = _number("gain", gain)
    if not 0 <= gain <= GAIN_MAX:
        raise ValueError(f"gain: expected 0 to {GAIN_MAX:g}, got {gain!r}")
    return gain


def _scheme(name: str, family: Literal["normal", "uniform"], std: float, gain: float) -> Law:
    gain = _checked_gain(gain)
    std *= gain
    law = normal(std=std) if family == "normal" else uniform(low=-math.sqrt(3) * std, high=math.sqrt(3) * std)
    text = f"normal:gain={_text(gain)}" if name == "normal" else _with_gain(name, gain)  # "normal" has std 1
    return Law(law.family, law.location, law.scale, text, fan_in=1)


def _with_gain(name: str, gain: float) -> str:
    return name if gain == 1 else f"{name}:gain={_text(gain)}"


def glorot_normal(gain: float = 1.0) -> Law:
    """Normal with variance ``gain² 2 / (fan_in + fan_out)`` = gain² in a chain (Glorot and Bengio 2010)."""
    return _scheme("glorot_normal", "normal", 1.0, gain)


def glorot_uniform(gain: float = 1.0) -> Law:
    """Uniform with the variance of `glorot_normal`: within ±gain sqrt(3) in a chain (Glorot and Bengio 2010)."""
    return _scheme("glorot_uniform", "uniform", 1.0, gain)


def he_normal(gain: float = 1.0) -> Law:
    """Normal with variance ``gain² 2 / fan_in`` = 2 gain² in a chain (He et al. 2015)."""
    return _scheme("he_normal", "normal", math.sqrt(2), gain)


def he_uniform(gain: float = 1.0) -> Law:
    """Uniform with the variance of `he_normal`: within ±gain sqrt(6) in a chain (He et al. 2015)."""
    return _scheme("he_uniform", "uniform", math.sqrt(2), gain)


def lecun_normal(gain: float = 1.0) -> Law:
    """Normal with variance ``gain² / fan_in`` = gain² in a chain (LeCun et al. 1998)."""
    return _scheme("lecun_normal", "normal", 1.0, gain)


def torch_default(gain: float = 1.0) -> Law:
    """Uniform within ``±gain / sqrt(fan_in)`` = ±gain in a chain, the default of ``torch.nn.Linear``."""
    gain = _checked_gain(gain)
    law = uniform(low=-gain, high=gain)
    return Law("uniform", law.location, law.scale, _with_gain("torch_default", gain), fan_in=1)


def orthogonal(gain: float = 1.0) -> Law:
    """``gain`` times a random orthogonal matrix of Haar's law: it keeps every norm, but for the gain.

    Raises
    ------
    ValueError
        If the gain is out of its range.
    """
    gain = _checked_gain(gain)
    return Law("orthogonal", 0.0, gain, _with_gain("orthogonal", gain))


def centered() -> Law:
    """Bias -w/2: the input 1/2 then keeps every preactivation at exactly 0."""
    return Law("centered", 0.0, 0.0, "centered")


LAWS: dict[str, Callable[..., Law]] = {
    maker.__name__: maker
    for maker in (
        constant,
        zero,
        normal,
        uniform,
        glorot_normal,
        glorot_uniform,
        he_normal,
        he_uniform,
        lecun_normal,
        torch_default,
        orthogonal,
        centered,
    )
}


def parse(law: LawLike, argument: Literal["weight", "bias", "x", "target"], width: int = 1) -> Law:
    """Turn a string, a law, or a maker of a law into a law.

    Parameters
    ----------
    law : str, Law or callable
        ``"normal:std=4"``, ``normal(std=4)``, or ``glorot_normal`` without parentheses.
    argument : {"weight", "bias", "x", "target"}
        What it is for: named in errors; ``centered`` is a law of the bias only, and ``orthogonal`` of weights.
    width : int
        Units of a layer: the law that is returned is that at this width.

    Raises
    ------
    ValueError
        If the name or a parameter is unknown, missing, out of range, or no law of chains, or of layers.
    TypeError
        If `law` is none of the three.
    """
    found = read(law, argument)
    if found.family == "centered" and width > 1:
        raise ValueError(f"bias: centered is a law of chains (width 1), got width {width}; expected another law")
    if found.family == "orthogonal" and width == 1:
        raise ValueError("weight: orthogonal is a law of layers, expected a width of at least 2, got 1")
    return found.at_width(width)


def read(law: LawLike, argument: Literal["weight", "bias", "x", "target"]) -> Law:
    """Turn a string, a law, or a maker of a law into a law, of whatever width. Arguments and errors as of `parse`."""
    if isinstance(law, str):
        found = _parse_text(law, argument)
    elif isinstance(law, Law):
        found = law
    elif callable(law) and law in LAWS.values():
        found = _call(law, [], {}, argument)
    else:
        raise TypeError(f"{argument}: expected a law such as 'normal:std=4', got {type(law).__name__}")
    if found.family == "centered" and argument != "bias":
        raise ValueError(f"{argument}: centered is a law of the bias (-w/2); expected another law")
    if found.family == "orthogonal" and argument != "weight":
        raise ValueError(f"{argument}: orthogonal is a law of the weights of a layer; expected another law")
    return found


def law_or_number(law: LawLike | float, argument: Literal["x", "target"]) -> Law:
    """Parse what may also be a number, which is then the same for every chain.

    Raises
    ------
    ValueError, TypeError
        As `parse` does.
    """
    try:
        number = float(law)  # type: ignore[arg-type]  # what is no number is a law
    except (TypeError, ValueError):
        return parse(law, argument)  # type: ignore[arg-type]  # which says what is wrong with it
    try:
        return constant(number)
    except ValueError as error:
        raise ValueError(f"{argument}: {error}") from None


@cache
def takes(maker: Callable[..., Law]) -> Mapping[str, float | None]:
    """Return the parameters that a maker of a law takes, with their defaults; None where it has none."""
    found = inspect.signature(maker).parameters
    return {name: None if of.default is of.empty else of.default for name, of in found.items()}


def parameters(law: Law) -> dict[str, float]:
    """Return the parameters of a law of this module by name: ``normal:std=4`` has ``mean`` 0 and ``std`` 4."""
    name, _, rest = law.text.partition(":")
    given = dict(part.rpartition("=")[::2] for part in rest.split(",") if rest)  # a constant's value has no name
    found = {key: given.get(key, given.get("", default)) for key, default in takes(LAWS[name]).items()}
    return {key: float(value) for key, value in found.items() if value is not None}


def replace(law: Law, changes: Mapping[str, float], argument: str) -> Law:
    """Return the law with some parameters changed: ``normal:std=4`` and ``std`` 2 give ``normal:std=2``.

    A constant also takes ``mean`` and ``std``, which make it a normal law around its value (of no width without
    ``std``), or ``low`` and ``high`` together, which make it a uniform one.

    Raises
    ------
    ValueError
        If the law takes no such parameter, or not this value; the message names both, and `argument`.
    """
    name, has = law.text.partition(":")[0], parameters(law)
    expected = ", ".join(f"{key}=" for key in has) or "no parameters"
    if name in ("constant", "zero"):
        value = law.location
        expected = "value=, or mean= and std=, or low= and high= together"
        if changes.keys() <= {"mean", "std"}:
            name, has = "normal", {"mean": value, "std": 0.0}
        elif changes.keys() == {"low", "high"}:
            name, has = "uniform", {"low": value, "high": value}
        else:
            name, has = "constant", {"value": value}
    for key in changes:
        if key not in has:
            raise ValueError(f"{argument}.{key}: the law {law} takes {expected}")
    try:
        return LAWS[name](**{**has, **changes})
    except ValueError as error:
        raise ValueError(f"{argument}: {name}: {error}") from None


def _parse_text(text: str, argument: str) -> Law:
    name, colon, rest = text.strip().partition(":")
    if name not in LAWS:
        known = [law for law in LAWS if ONLY_FOR.get(law, argument) == argument]
        close = _closest(name, known)
        hint = f"; did you mean {close}?" if close else ""
        raise ValueError(f"{argument}: unknown law {name!r}, expected one of {', '.join(known)}{hint}")
    positional: list[str] = []
    keywords: dict[str, str] = {}
    for part in rest.split(",") if colon else []:
        key, equals, value = part.partition("=")
        if not equals:
            positional.append(part.strip())
        elif key.strip() in keywords:
            raise ValueError(f"{argument}: {key.strip()} is given twice in {text!r}")
        else:
            keywords[key.strip()] = value.strip()
    names = takes(LAWS[name])
    if positional and name != "constant" and names:
        raise ValueError(f"{argument}: expected {name}:{','.join(f'{key}=' for key in names)}, got {text!r}")
    return _call(LAWS[name], positional, keywords, argument)


def _closest(name: str, known: list[str]) -> str | None:
    """Law that was meant: a constant by its bare value, another by its beginning or with a letter mistaken."""
    with contextlib.suppress(ValueError):
        return f"constant:{name}" if math.isfinite(float(name)) else None
    import difflib  # here: only a mistake needs it

    begun = [law for law in known if name and law.startswith(name)]
    return next(iter(begun or difflib.get_close_matches(name, known, n=1)), None)


def _call(maker: Callable[..., Law], positional: list[str], keywords: dict[str, str], argument: str) -> Law:
    try:
        return maker(*positional, **keywords)
    except TypeError:
        names = list(maker.__annotations__)[:-1]
        takes = f"takes {', '.join(name + '=' for name in names)}" if names else "takes no parameters"
        given = ", ".join([*positional, *(f"{key}={value}" for key, value in keywords.items())]) or "none"
        raise ValueError(f"{argument}: the law {maker.__name__} {takes}; got {given}") from None
    except ValueError as error:
        raise ValueError(f"{argument}: {maker.__name__}: {error}") from None
