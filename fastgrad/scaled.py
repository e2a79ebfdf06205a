"""Numbers far outside float64, as mantissa and exponent."""

from __future__ import annotations

import decimal
import math
import re
from typing import TYPE_CHECKING, Any, NamedTuple, Self

import numpy as np

from fastgrad.checks import has_masked, real_array

if TYPE_CHECKING:
    from collections.abc import Iterator

    from numpy.typing import ArrayLike, DTypeLike, NDArray


LN_2 = 0.6931471805599453
LOG10_2 = 0.3010299956639812

EXPONENT_MIN = -(2**62)  # below it a number becomes 0, so that exponents can't overflow


class Scaled:
    """An array of numbers ``mantissa * 2**exponent`` that neither overflow nor underflow.

    The mantissa is float64 with ``1/2 <= |mantissa| < 1`` and the exponent int64 (the ``frexp`` convention); zero is
    mantissa 0 and exponent 0. So 1e-300000 is an ordinary value with full relative precision. An exponent is at most
    2^62 in magnitude: a smaller number is 0.

    Parameters
    ----------
    mantissa : array_like of real numbers
        Any finite values; they are renormalized.
    exponent : array_like of int, broadcastable with `mantissa`
        Powers of two.

    Raises
    ------
    ValueError
        If a mantissa is NaN or infinite, or an exponent beyond ±2^62, or their shapes do not broadcast.
    TypeError
        If a mantissa is not a real number, an exponent not an integer, or either is masked.
    OverflowError
        If a number is 2^(2^62) or more.

    Examples
    --------
    >>> import fastgrad as fg
    >>> tiny = fg.Scaled(0.75, -6963)
    >>> tiny
    6.356e-2097
    >>> tiny.to_float()
    np.float64(0.0)
    >>> (tiny * tiny).log10()
    np.float64(-4192.39359...)
    """

    __slots__ = ("exponent", "mantissa")
    # NumPy must not take the values apart behind our back: there is no float64 that holds them.
    __array_ufunc__ = None
    __hash__ = None  # type: ignore[assignment]  # compared elementwise, as arrays are

    mantissa: NDArray[np.float64]
    exponent: NDArray[np.int64]

    def __init__(self, mantissa: ArrayLike, exponent: ArrayLike = 0) -> None:
        powers = _powers_of_two(exponent)
        fraction, shift = np.frexp(real_array("mantissa", mantissa))
        try:
            fraction, total = np.broadcast_arrays(fraction, shift + powers)
        except ValueError:
            shapes = f"{np.shape(fraction)}, got {np.shape(powers)}"
            raise ValueError(f"exponent: expected a shape that broadcasts with the mantissa's {shapes}") from None
        zero = (fraction == 0) | (total < EXPONENT_MIN)
        if np.any(~zero & (total > -EXPONENT_MIN)):
            raise OverflowError("a number beyond 2^(2^62) has no exponent")
        # Copies, with one form of zero and no negative one.
        self.mantissa = np.asarray(np.where(zero, 0.0, fraction))
        self.exponent = np.asarray(np.where(zero, 0, total))

    @classmethod
    def of_parts(cls, mantissa: NDArray[np.float64], exponent: NDArray[np.int64]) -> Self:
        """Wrap arrays that are normalized already, without a copy or a check."""
        scaled = cls.__new__(cls)
        scaled.mantissa = mantissa
        scaled.exponent = exponent
        return scaled

    @classmethod
    def empty(cls, shape: tuple[int, ...]) -> Self:
        """Make an array to be filled; it begins where a cache line does, which lets kernels store past the cache."""
        return cls.of_parts(aligned_empty(shape, np.float64), aligned_empty(shape, np.int64))

    @classmethod
    def from_float(cls, values: ArrayLike) -> Self:
        """Convert floats exactly, subnormals included.

        Raises
        ------
        ValueError
            If a value is NaN or infinite.
        """
        return cls(values, 0)

    @property
    def shape(self) -> tuple[int, ...]:
        """Shape of the array; () for a single number."""
        return self.mantissa.shape

    @property
    def ndim(self) -> int:
        """Number of axes."""
        return self.mantissa.ndim

    @property
    def size(self) -> int:
        """Number of values."""
        return self.mantissa.size

    def __len__(self) -> int:
        return len(self.mantissa)

    def __iter__(self) -> Iterator[Self]:
        if self.ndim == 0:
            raise TypeError("a single number can't be iterated over")
        return (self[index] for index in range(len(self)))

    def __bool__(self) -> bool:
        """Tell if a single number is not zero."""
        if self.size != 1:
            raise ValueError(f"only a single number is true or false, got shape {self.shape}; compare, then all()")
        return bool(self.mantissa.item() != 0)

    def __getitem__(self, index: Any) -> Self:
        return type(self).of_parts(np.asarray(self.mantissa[index]), np.asarray(self.exponent[index]))

    def flat(self, index: int) -> Self:
        """Return one value by its place in row-major order."""
        return type(self).of_parts(
            np.asarray(self.mantissa.reshape(-1)[index]), np.asarray(self.exponent.reshape(-1)[index])
        )

    def __ne__(self, other: object) -> Any:
        """Compare elementwise and exactly, with another Scaled."""
        equal = self.__eq__(other)
        return equal if equal is NotImplemented else ~equal

    def __setitem__(self, index: Any, values: Scaled | ArrayLike) -> None:
        """Assign a Scaled, or real numbers, which are converted exactly."""
        if not isinstance(values, Scaled):
            values = Scaled.from_float(real_array("assigned value", values))
        self.mantissa[index] = values.mantissa
        self.exponent[index] = values.exponent

    def sign(self) -> NDArray[np.float64]:
        """Return -1, 0 or 1 for each value."""
        return np.sign(self.mantissa)

    def log2(self) -> NDArray[np.float64]:
        """Base-2 logarithm of the magnitude; -inf for zero."""
        with np.errstate(divide="ignore"):
            return np.log2(np.abs(self.mantissa)) + self.exponent

    def log10(self) -> NDArray[np.float64]:
        """Base-10 logarithm of the magnitude (decades); -inf for zero."""
        with np.errstate(divide="ignore"):
            log10: NDArray[np.float64] = np.log10(np.abs(self.mantissa)) + self.exponent * LOG10_2
        return log10

    def ln(self) -> NDArray[np.float64]:
        """Natural logarithm of the magnitude (nats); -inf for zero."""
        with np.errstate(divide="ignore"):
            ln: NDArray[np.float64] = np.log(np.abs(self.mantissa)) + self.exponent * LN_2
        return ln

    def to_float(self, dtype: DTypeLike = np.float64) -> NDArray[Any]:
        """Round to a floating-point type; inf and 0 where it can't hold the value.

        Raises
        ------
        TypeError
            If `dtype` is not a real floating-point type.
        """
        kind = np.dtype(dtype)
        if kind.kind != "f":
            raise TypeError(f"dtype: expected a floating-point type, got {kind}")
        # Types up to float64 are rounded once from the exact float64, wider ones hold every mantissa.
        wide = kind if kind.itemsize > 8 else np.dtype(np.float64)
        limit = 40_000  # beyond the range of every IEEE type
        power = np.clip(self.exponent, -limit, limit).astype(np.int32)
        with np.errstate(over="ignore", under="ignore"):
            return np.ldexp(self.mantissa.astype(wide), power).astype(kind)[()]  # type: ignore[no-any-return]

    def __float__(self) -> float:
        if self.size != 1:
            raise TypeError(f"only a single number becomes a float, got shape {self.shape}; use to_float()")
        return float(self.to_float().reshape(())[()])

    def __mul__(self, other: Scaled) -> Scaled:
        """Multiply elementwise; the product is renormalized, and 0 where its exponent falls below -2^62."""
        if not isinstance(other, Scaled):
            return NotImplemented
        fraction, small_shift = np.frexp(self.mantissa * other.mantissa)
        shift = np.asarray(small_shift, dtype=np.int64)
        exponent = self.exponent + other.exponent
        wrapped = (self.exponent > 0) & (other.exponent > 0) & (exponent < 0)  # 2^62 + 2^62
        zero = (fraction == 0) | ((exponent < EXPONENT_MIN - shift) & ~wrapped)
        if np.any(~zero & (wrapped | (exponent > -EXPONENT_MIN - shift))):
            raise OverflowError("a product beyond 2^(2^62) has no exponent")
        return Scaled.of_parts(
            np.asarray(np.where(zero, 0.0, fraction)), np.asarray(np.where(zero, 0, exponent + shift))
        )

    def __neg__(self) -> Scaled:
        return Scaled.of_parts(np.asarray(0.0 - self.mantissa), self.exponent.copy())

    def __abs__(self) -> Scaled:
        return Scaled.of_parts(np.asarray(np.abs(self.mantissa)), self.exponent.copy())

    def __eq__(self, other: object) -> Any:
        """Compare elementwise and exactly, with another Scaled."""
        if not isinstance(other, Scaled):
            return NotImplemented
        return (self.mantissa == other.mantissa) & (self.exponent == other.exponent)

    def __array__(self, *_: Any, **__: Any) -> NDArray[Any]:
        raise TypeError("a Scaled is no float array: take .log10(), .to_float() or .mantissa and .exponent")

    def __format__(self, spec: str) -> str:
        """Format a single number as a float: ``f"{g:+12.3e}"``, with any fill, alignment, sign, width and precision.

        The decimal exponent has as many digits as it needs: ``1.234e-2096``. Without a type, as in ``f"{g:>12}"``, four
        digits are shown, and 0 as ``0``.

        Raises
        ------
        TypeError
            If there are several numbers.
        ValueError
            If the type is none of e and E, or more than 999 digits are asked for.
        """
        if self.size != 1:
            raise TypeError(f"only a single number can be formatted, got shape {self.shape}")
        return _formatted(self.mantissa.item(), self.exponent.item(), spec)

    def __repr__(self) -> str:
        if self.ndim == 0:
            return format(self)
        # NumPy lays the text out; an index array stands for the values, which it could not hold.
        flat = self.mantissa.reshape(-1), self.exponent.reshape(-1)
        index = np.arange(self.size).reshape(self.shape)
        text = np.array2string(
            index,
            separator=", ",
            formatter={"int": lambda i: _formatted(flat[0][i].item(), flat[1][i].item(), "")},
            threshold=20,
            edgeitems=3,
            prefix="Scaled(",
        )
        return f"Scaled({text})"


def aligned_empty(shape: tuple[int, ...], dtype: type[np.generic]) -> NDArray[Any]:
    """Make an array that begins where a cache line does: vectors are then loaded and stored in one piece.

    One that is smaller than a page of memory begins anywhere: there it gains nothing.
    """
    line, page = 64, 4096
    n_bytes = math.prod(shape) * np.dtype(dtype).itemsize
    if n_bytes < page:
        return np.empty(shape, dtype)
    memory = np.empty(n_bytes + line, dtype=np.uint8)
    first = -memory.ctypes.data % line
    return memory[first : first + n_bytes].view(dtype).reshape(shape)


def _powers_of_two(exponent: ArrayLike) -> NDArray[np.int64]:
    """Check the exponents that someone has given."""
    if has_masked(exponent):
        raise TypeError("exponent: has masked entries, expected an integer everywhere")
    given = np.asarray(exponent)
    beyond = given.dtype == object and all(type(power) is int for power in given.flat)  # 64 bits
    if given.dtype.kind not in "iu" and not beyond:
        raise TypeError(f"exponent: expected integers, got {given.dtype}")
    if given.size and not EXPONENT_MIN <= int(given.min()) <= int(given.max()) <= -EXPONENT_MIN:
        raise ValueError("exponent: expected at most 2^62 in magnitude")
    return given.astype(np.int64)


_SPEC = re.compile(
    r"(?:(?P<fill>.)?(?P<align>[<>=^]))?(?P<sign>[-+ ]?)z?(?P<zeros>0?)(?P<width>[0-9]{0,18})"
    r"(?:\.(?P<precision>[0-9]{1,3}))?(?P<type>[eE]?)",
    flags=re.DOTALL,
)


def _formatted(mantissa: float, exponent: int, spec: str) -> str:
    """Write mantissa * 2**exponent as Python writes a float (its Format Specification Mini-Language)."""
    parts = _SPEC.fullmatch(spec)
    if parts is None:
        raise ValueError(f"format: expected a spec like .3e, of at most 999 digits, got {spec!r}")
    letter, precision = parts["type"] or "e", parts["precision"]
    if not math.isfinite(mantissa):  # as a faulty kernel would leave it
        body = str(abs(mantissa))
    elif mantissa == 0 and not parts["type"] and precision is None:
        body = "0"
    else:
        body = _digits(abs(mantissa), exponent, int(precision or (6 if parts["type"] else 3))).replace("e", letter)
    sign = "-" if mantissa < 0 else parts["sign"].replace("-", "")
    width = int(parts["width"] or 0)
    fill = parts["fill"] or ("0" if parts["zeros"] else " ")
    align = parts["align"] or ("=" if parts["zeros"] else ">")
    if align == "=":  # between the sign and the digits
        return sign + format(body, f"{fill}>{max(0, width - len(sign))}")
    return format(sign + body, f"{fill}{align}{width}")


def _digits(mantissa: float, exponent: int, precision: int) -> str:
    """Write a magnitude in decimal, as 1.234e-2096; the decimal exponent is an integer of any size.

    Up to 2^±4000 the number is written out and rounded once. Beyond, it comes from its logarithm with 40 digits to
    spare: 19 for the exponent, and the rest for what a rounding in between could cost.
    """
    if mantissa == 0:
        return f"{0.0:.{precision}e}".replace("e+00", "e+0")
    bits = 53
    near = abs(exponent) <= 4000
    with decimal.localcontext(decimal.Context(prec=6000 if near else precision + 40)):
        if near:
            whole, power = int(math.ldexp(mantissa, bits)), exponent - bits
            exact = decimal.Decimal(whole << power if power >= 0 else whole * 5**-power)
            text = format(exact.scaleb(min(power, 0)), f".{precision}e")
            decades = 0
        else:
            log10 = decimal.Decimal(mantissa).log10() + exponent * decimal.Decimal(2).log10()
            decades = int(log10.to_integral_value(rounding=decimal.ROUND_FLOOR))
            text = format(decimal.Decimal(10) ** (log10 - decades), f".{precision}e")
    digits, _, power_of_ten = text.partition("e")  # 1 beyond, where the digits were rounded up to ten
    return f"{digits}e{int(power_of_ten) + decades:+d}"


def log2_distance(a: Scaled, b: Scaled) -> NDArray[np.float64]:
    """Distance ``|log2 |a/b||`` of each pair of values; inf where signs differ or only one is zero or not finite.

    The exponents are subtracted before any logarithm is taken: log2 of each value alone would lose the digits that
    tell them apart.

    Parameters
    ----------
    a, b : Scaled of equal shape

    Returns
    -------
    ndarray of float64
        In bits (log base 2).
    """
    both_zero = (a.mantissa == 0) & (b.mantissa == 0)
    with np.errstate(divide="ignore", invalid="ignore"):
        ratio = a.mantissa / b.mantissa
        distance = np.abs(np.log2(ratio) + (a.exponent - b.exponent))
    distance = np.where(np.isfinite(distance) & (ratio > 0), distance, np.inf)
    return np.where(both_zero, 0.0, distance)


class FloatLimits(NamedTuple):
    """log2 of the magnitudes at which a format fails when rounding to nearest.

    A magnitude of `underflow` or less becomes 0 (half the smallest subnormal; the tie goes to zero), one of `overflow`
    or more becomes inf.
    """

    underflow: float
    overflow: float


FLOAT_LIMITS = {
    "float16": FloatLimits(-25.0, math.log2(65520)),
    "bfloat16": FloatLimits(-134.0, 128 + math.log2(1 - 2**-9)),
    "float32": FloatLimits(-150.0, 128 + math.log2(1 - 2**-25)),
    "float64": FloatLimits(-1075.0, 1024.0),
}
