"""Chains from and to files, and results into files: whole or not at all, in bounded memory."""

from __future__ import annotations

import contextlib
import csv
import io
import json
import math
import os
import secrets
import stat
import struct
import tempfile
import warnings
import zipfile
from array import array
from dataclasses import dataclass
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any, NamedTuple

import numpy as np

from fastgrad.chain import Chain
from fastgrad.checks import one_line, per_member, require_memory
from fastgrad.summary import json_ready

if TYPE_CHECKING:
    from collections.abc import Callable, Generator, Iterator, Mapping, Sequence

    from numpy.typing import NDArray

    Floats = NDArray[np.float64]

CHAIN_FIELDS = ("weight", "bias", "x", "cotangent")
TASK_FIELDS = (*CHAIN_FIELDS, "target")

# Limits of what is read on trust, before a size is known.
DIRECTORY_BYTES_MAX = 2**20  # of a zip archive; that of a chain has some hundred
HEADER_BYTES_MAX = 10_000  # of an array, as for numpy.load
LINE_CHARACTERS_MAX = 2**16  # of a .csv
QUOTED_CHARACTERS_MAX = 60  # of a file's own text in a message
READ_BYTES = 2**20  # at a time
WRITE_ELEMENTS = 2**16  # at a time

MAGIC = b"\x93NUMPY"
ENCRYPTED = 0x1  # flag of a zip archive's member


# Chains from files


class Header(NamedTuple):
    """Shape and type that a stored array declares; what it says was compared with the bytes that are there."""

    shape: tuple[int, ...]
    fortran_order: bool
    dtype: np.dtype[Any]
    offset: int  # bytes before the values

    @property
    def size(self) -> int:
        """Number of values."""
        return math.prod(self.shape)


@dataclass(frozen=True)
class ChainFile:
    """A chain in a file of which only the headers were read.

    Attributes
    ----------
    path : Path
    arrays : dict of Header
        By name. In a .csv each column is as long as the file has lines: some may turn out to be blank.
    """

    path: Path
    arrays: Mapping[str, Header]
    _read: Callable[[Path, Mapping[str, Header]], Mapping[str, Floats]]

    @property
    def links(self) -> int:
        """Links of all chains together."""
        return self.arrays["weight"].size

    @property
    def ensemble(self) -> int:
        """Number of chains."""
        shape = self.arrays["weight"].shape
        return shape[1] if len(shape) == 2 else 1

    @property
    def kept_bytes(self) -> int:
        """Memory of the chain: a weight and a bias for each link, an input and a cotangent for each member."""
        return 16 * self.links + 16 * self.ensemble

    @property
    def load_bytes(self) -> int:
        """Memory that `load` takes at its height."""
        relaid = [of.size for of in self.arrays.values() if of.fortran_order and min(of.shape, default=1) > 1]
        read = sum(8 * of.size for of in self.arrays.values())
        constant = 0 if "bias" in self.arrays else 8 * self.links
        # A pass for values that are not finite takes a byte a value; a column-major array is laid out again.
        return read + constant + self.links + 8 * max(relaid, default=0) + 2 * READ_BYTES

    def load(self, **override: float) -> Chain:
        """Read the arrays that `override` does not replace. Raises ValueError and OSError as `load_chain` does."""
        with _naming(self.path):
            return Chain.of(**self._arrays(override))

    def load_task(self, **override: float) -> tuple[Chain, Floats]:
        """Read the chain and its target, for training. Raises ValueError and OSError as `load_chain` does."""
        if "target" not in self.arrays and "target" not in override:
            raise ValueError(f"{self.path}: has no array 'target', expected one or --target VALUE")
        with _naming(self.path):
            arrays = self._arrays(override)
            target = arrays.pop("target")
            chain = Chain.of(**arrays)
            return chain, per_member("target", target, chain.ensemble)

    def _arrays(self, override: Mapping[str, float]) -> dict[str, Any]:
        read = self._read(self.path, {name: of for name, of in self.arrays.items() if name not in override})
        return {"bias": 0.0, **read, **override}


def open_chain(path: str | Path, fields: Sequence[str] = CHAIN_FIELDS) -> ChainFile:
    """Read the headers of a chain's file: what it holds and how large that is, before any of it is unpacked.

    Parameters
    ----------
    path : path
        ``.npz``, ``.npy`` or ``.csv``; see `load_chain`.
    fields : sequence of str
        Names of the arrays that an .npz may have.

    Raises
    ------
    ValueError
        If the file can't be understood, or a header lies about a size; the message names the file.
    OSError
        If it can't be opened.
    """
    path = Path(path)
    if path.suffix.lower() not in KINDS:
        raise ValueError(f"{path}: expected a file ending in .npz, .npy or .csv")
    if _is_special(path):  # opening a pipe would wait for a writer
        raise ValueError(f"{path}: is a pipe or a device, expected a file")
    headers, read = KINDS[path.suffix.lower()]
    with _naming(path):
        arrays = headers(path, fields)
        if "weight" not in arrays:
            raise ValueError(f"no array 'weight'; {_expected(fields)}")
    return ChainFile(path, arrays, read)


def load_chain(path: str | Path, **override: float) -> Chain:
    """Read a chain from a file.

    Parameters
    ----------
    path : path
        ``.npz`` with the arrays weight, bias, x and cotangent, ``.npy`` with the weights, or ``.csv`` with a header
        and the columns weight and bias, one row a link.
    **override : float
        bias, x or cotangent, in place of what the file has. What neither has is 0, 0.5 and 1.

    Raises
    ------
    ValueError
        If the file can't be understood, or its arrays do not make a chain; the message names the file.
    OSError
        If it can't be opened.
    TooLargeError
        If the chain would not fit in memory; nothing is unpacked then.
    """
    file = open_chain(path)
    _require_room(file)
    return file.load(**override)


def load_task(path: str | Path, **override: float) -> tuple[Chain, Floats]:
    """Read a chain and its target, for training: the array ``target`` of an ``.npz`` file, or of `override`.

    Raises
    ------
    ValueError, OSError, TooLargeError
        As `load_chain` does; and if neither has a target.
    """
    file = open_chain(path, TASK_FIELDS)
    _require_room(file)
    return file.load_task(**override)


def save_chain(chain: Chain, path: str | Path) -> None:
    """Write a chain to a ``.npz`` file that `load_chain` reads, whole or not at all."""
    weight, bias = (chain.weight[:, 0], chain.bias[:, 0]) if chain.single else (chain.weight, chain.bias)
    x, cotangent = (chain.x[0], chain.cotangent[0]) if chain.single else (chain.x, chain.cotangent)
    with replacing(path) as part:
        write_npz({"weight": weight, "bias": bias, "x": x, "cotangent": cotangent}, part)


def _require_room(file: ChainFile) -> None:
    require_memory(f"{file.path}: {file.links} links", file.load_bytes)


def _is_special(path: Path) -> bool:
    mode = path.stat().st_mode
    return not (stat.S_ISREG(mode) or stat.S_ISDIR(mode))  # opening a folder says that it is one


def _expected(fields: Sequence[str]) -> str:
    return f"expected weight, and {', '.join(fields[1:-1])} and {fields[-1]} if wanted"


def _quoted(text: str) -> str:
    """Write a file's own text for a message: one line, and not all of a long one."""
    return repr(text if len(text) <= QUOTED_CHARACTERS_MAX else text[:QUOTED_CHARACTERS_MAX] + "…")


class UnreadableError(ValueError):
    """A file is not what it should be, for a reason that is known."""


@contextlib.contextmanager
def _naming(path: Path) -> Iterator[None]:
    """Begin the message of every error of a file's content with its name."""
    try:
        yield
    except (ValueError, TypeError) as error:
        raise ValueError(f"{path}: {one_line(error)}") from None


class _Directory(io.BufferedReader):
    """A zip archive whose directory zipfile reads at once: no read is larger than that of a chain could be."""

    def read(self, size: int | None = -1, /) -> bytes:
        part = super().read(DIRECTORY_BYTES_MAX + 1 if size is None or size < 0 else min(size, DIRECTORY_BYTES_MAX + 1))
        if len(part) > DIRECTORY_BYTES_MAX:
            raise zipfile.BadZipFile("too large a directory")
        return part


@contextlib.contextmanager
def _archive(path: Path) -> Iterator[zipfile.ZipFile]:
    """Open an .npz; the many kinds of error that zipfile and zlib raise on a damaged one become one."""
    with _Directory(io.FileIO(path)) as file:
        try:
            with zipfile.ZipFile(file) as archive:
                yield archive
        except (UnreadableError, MemoryError):
            raise
        except Exception:
            raise UnreadableError("not a readable .npz file of number arrays") from None


def _npz_headers(path: Path, fields: Sequence[str]) -> dict[str, Header]:
    with _archive(path) as archive:
        members = archive.infolist()
        names = [member.filename.removesuffix(".npy") for member in members]
        for name, member in zip(names, members, strict=True):  # all of them, before anything is unpacked
            if name not in fields:
                raise UnreadableError(f"unknown array {_quoted(name)}; {_expected(fields)}")
            if names.count(name) > 1:
                raise UnreadableError(f"has {names.count(name)} arrays {name!r}")
            if member.flag_bits & ENCRYPTED:
                raise UnreadableError(f"array {name!r} is encrypted")
            if member.compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
                raise UnreadableError(f"array {name!r} is compressed in a way that NumPy does not use")
            if member.compress_type == zipfile.ZIP_STORED and member.compress_size != member.file_size:
                raise UnreadableError("not a readable .npz file of number arrays")
        headers = {}
        for name, member in zip(names, members, strict=True):
            with archive.open(member) as stream:
                headers[name] = _header(stream, name, member.file_size, ".npz")
        return headers


def _read_npz(path: Path, headers: Mapping[str, Header]) -> dict[str, Floats]:
    arrays = {}
    with _archive(path) as archive:
        for member in archive.infolist():
            name = member.filename.removesuffix(".npy")
            if name in headers:
                with archive.open(member) as stream:
                    arrays[name] = _values(stream, headers[name])
    return arrays


def _npy_headers(path: Path, _: Sequence[str]) -> dict[str, Header]:
    with path.open("rb") as file:
        return {"weight": _header(file, "weight", os.fstat(file.fileno()).st_size, ".npy")}


def _read_npy(path: Path, headers: Mapping[str, Header]) -> dict[str, Floats]:
    with path.open("rb") as file:
        return {name: _values(file, header) for name, header in headers.items()}


def _header(stream: IO[bytes], name: str, size: int, kind: str) -> Header:
    """Read an array's header, and compare what it declares with the `size` in bytes that is there.

    The header is bounded before it is read, and NumPy reads it as a literal: nothing is ever unpickled.
    """
    unreadable = f"not a readable {kind} file of {'number arrays' if kind == '.npz' else 'numbers'}"
    start = stream.read(len(MAGIC) + 2)
    version = tuple(start[len(MAGIC) :])
    if start[: len(MAGIC)] != MAGIC or version not in ((1, 0), (2, 0), (3, 0)):
        raise UnreadableError(unreadable)
    length_format = "<H" if version == (1, 0) else "<I"
    given_length = stream.read(struct.calcsize(length_format))
    if len(given_length) != struct.calcsize(length_format):
        raise UnreadableError(unreadable)
    (length,) = struct.unpack(length_format, given_length)
    text = b"" if length > HEADER_BYTES_MAX else stream.read(length)
    if len(text) != length:
        raise UnreadableError(unreadable)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # an old spelling of a header is no news to who reads a chain
            # Versions differ in the length's width, and in the encoding of field names that no number has.
            again = io.BytesIO(struct.pack("<I", length) + text)
            shape, fortran_order, dtype = np.lib.format.read_array_header_2_0(again)
    except Exception:  # the literal's parser raises many kinds
        raise UnreadableError(unreadable) from None
    if dtype.hasobject or any(isinstance(n, bool) or n < 0 for n in shape):
        raise UnreadableError(unreadable)
    if dtype.kind not in "iuf":
        raise UnreadableError(
            f"{name}: expected real numbers, got {one_line(Exception(str(dtype)[:QUOTED_CHARACTERS_MAX]))}"
        )
    offset = len(start) + len(given_length) + length
    declared, held = math.prod(shape) * dtype.itemsize, size - offset
    if declared != held:
        raise UnreadableError(
            f"{unreadable}: the header of {name} declares {declared} bytes, and there are {max(held, 0)}"
        )
    return Header(shape, fortran_order, dtype, offset)


def _values(stream: IO[bytes], header: Header) -> Floats:
    """Read an array's values as float64, part after part: no second array of its own type lies beside."""
    _exactly(stream, header.offset)
    values = np.empty(header.size)
    item, done = header.dtype.itemsize, 0
    while done < header.size:
        count = min(READ_BYTES // item, header.size - done)
        part = _exactly(stream, count * item)
        with np.errstate(over="ignore"):  # a long double beyond float64 becomes inf, and is refused as such
            values[done : done + count] = np.frombuffer(part, header.dtype)
        done += count
    if stream.read(1):  # also makes zipfile compare the checksum
        raise UnreadableError("has more bytes than its header declares")
    return values.reshape(header.shape[::-1]).T if header.fortran_order else values.reshape(header.shape)


def _exactly(stream: IO[bytes], size: int) -> bytes:
    parts = []
    while size:
        part = stream.read(size)
        if not part:
            raise UnreadableError("is cut off")
        parts.append(part)
        size -= len(part)
    return b"".join(parts)


def _csv_headers(path: Path, _: Sequence[str]) -> dict[str, Header]:
    with path.open("rb") as file:
        lines, last = 0, b""
        while part := file.read(READ_BYTES):  # \n, \r\n and \r end a line
            lines += part.count(b"\n") + part.count(b"\r") - part.count(b"\r\n") - (last + part[:1] == b"\r\n")
            last = part[-1:]
        lines += last not in (b"", b"\n", b"\r")
        file.seek(0)
        with _text(file) as text:
            names = _csv_columns(csv.reader(_lines(text)))
    return {name: Header((max(lines - 1, 0),), False, np.dtype(float), 0) for name in names}


def _text(file: IO[bytes]) -> io.TextIOWrapper:
    return io.TextIOWrapper(file, encoding="utf-8-sig", newline="")


def _csv_columns(reader: Iterator[list[str]]) -> list[str]:
    try:
        columns = [name.strip() for name in next(reader, [])]
    except csv.Error as error:
        raise ValueError(str(error)) from None
    if sorted(columns) not in (["weight"], ["bias", "weight"]):
        raise ValueError(f"expected the header weight,bias, got {_quoted(','.join(columns))}")
    return columns


def _lines(file: IO[str]) -> Iterator[str]:
    """Lines of a text, none of which is longer than it should be."""
    number = 0
    while line := file.readline(LINE_CHARACTERS_MAX + 1):
        number += 1
        if len(line) > LINE_CHARACTERS_MAX:
            raise ValueError(f"line {number}: longer than {LINE_CHARACTERS_MAX} characters")
        yield line


def _read_csv(path: Path, headers: Mapping[str, Header]) -> dict[str, Floats]:
    with path.open("rb") as file, _text(file) as text:
        reader = csv.reader(_lines(text))
        columns = _csv_columns(reader)
        table = np.empty((len(columns), headers["weight"].size))
        done = 0
        for values in _csv_values(reader, len(columns)):
            part = np.frombuffer(values).reshape(-1, len(columns)).T
            if done + part.shape[1] > table.shape[1]:
                raise ValueError("has grown while it was read")
            table[:, done : done + part.shape[1]] = part
            done += part.shape[1]
    if not done:
        raise ValueError("no links below the header")
    return {name: table[i, :done] for i, name in enumerate(columns) if name in headers}


def _csv_values(reader: Any, columns: int) -> Iterator[array[float]]:
    """Values of a .csv below its header, row after row, some thousand rows at a time."""
    values = array("d")
    try:
        for row in reader:
            if not row:
                continue
            if len(row) != columns:
                raise ValueError(f"line {reader.line_num}: expected {columns} values, got {len(row)}")
            try:
                values.extend(map(float, row))
            except ValueError:
                wrong = next(cell for cell in row if not _is_number(cell))
                raise ValueError(f"line {reader.line_num}: expected a number, got {_quoted(wrong)}") from None
            if len(values) >= WRITE_ELEMENTS:
                yield values
                values = array("d")
    except csv.Error as error:
        raise ValueError(f"line {reader.line_num}: {error}") from None
    if values:
        yield values


def _is_number(text: str) -> bool:
    try:
        float(text)
    except ValueError:
        return False
    return True


KINDS: dict[str, tuple[Callable[..., dict[str, Header]], Callable[..., dict[str, Floats]]]] = {
    ".npz": (_npz_headers, _read_npz),
    ".npy": (_npy_headers, _read_npy),
    ".csv": (_csv_headers, _read_csv),
}


# Results into files


def check_writable(option: str, path: str | None) -> None:
    """Find out before a long job that its result has no place to go; None and ``-`` are stdout.

    Raises
    ------
    ValueError
        If `path` is no name of a file. The message begins with `option` and the path.
    OSError
        If no file can be written there.
    """
    if path is None or path == "-":
        return
    if not path:
        raise ValueError(f"{option}: expected the name of a file, got ''")
    if "\0" in path:
        raise ValueError(f"{option}: expected the name of a file, got {_quoted(path)}")
    shown = path if len(path) < 1000 else f"{path[:QUOTED_CHARACTERS_MAX]}…"
    try:
        if _is_kept(Path(path)):
            return
        target = Path(os.path.realpath(path))
        if target.is_symlink():
            raise OSError(f"{option}: {shown}: is a symbolic link to itself")
        if not target.parent.is_dir():
            raise OSError(f"{option}: {shown}: there is no folder {target.parent}")
        if target.is_dir():
            raise OSError(f"{option}: {shown}: is a folder, expected a file")
        if not os.access(target.parent, os.W_OK):
            raise OSError(f"{option}: {shown}: no permission to write there")
        with tempfile.TemporaryFile(dir=target.parent):  # without a name; some folders deny it unlike their permissions
            pass
    except OSError as error:
        if error.errno is None:
            raise
        why = error.strerror if _has_working_folder() else "the working folder is gone"
        raise OSError(f"{option}: {shown}: {why}") from None


def _has_working_folder() -> bool:
    try:
        Path.cwd()
    except OSError:
        return False
    return True


def _is_kept(path: Path) -> bool:
    """Tell if a path is a pipe or a device, which is written to, and never replaced by a file."""
    return path.exists() and not path.is_file() and not path.is_dir()


@contextlib.contextmanager
def replacing(path: str | Path) -> Iterator[Path]:
    """Yield the path of a new file that takes the place of `path` at the end, and is gone if anything fails.

    A symbolic link stays one, an old file's permissions stay; a pipe or a device is yielded itself.

    Raises
    ------
    OSError
        What goes wrong with the file, naming `path`.
    """
    kept = Path(path)
    try:
        if _is_kept(kept):
            yield kept
            return
        target = Path(os.path.realpath(path))
        part = _part_name(target)
        try:
            yield part
            if target.exists():
                part.chmod(target.stat().st_mode & 0o7777)
            part.replace(target)
        finally:
            part.unlink(missing_ok=True)
    except BrokenPipeError:
        raise
    except OSError as error:
        if error.errno is None:
            raise
        raise OSError(error.errno, error.strerror, str(path)) from None


def _part_name(target: Path) -> Path:
    """Name a hidden file beside another, which nobody else uses; a long name is not made longer."""
    return target.with_name(f".{target.name[:40]}.{secrets.token_hex(6)}")


def write_npz(arrays: Mapping[str, Any], path: Path) -> None:
    """Write arrays one after the other; in memory is a part of one."""
    with zipfile.ZipFile(path, "w") as archive:  # which np.savez of NumPy 2.0 leaves open where writing fails
        for name, array in arrays.items():
            with archive.open(f"{name}.npy", "w", force_zip64=True) as part:
                np.lib.format.write_array(part, np.asanyarray(array), allow_pickle=False)


@dataclass(frozen=True)
class Derived:
    """An array that is made part after part while it is written.

    Attributes
    ----------
    shape : tuple of int
    part : callable
        ``part(slice)`` returns these items of the first axis.
    """

    shape: tuple[int, ...]
    part: Callable[[slice], NDArray[Any]]

    @property
    def ndim(self) -> int:
        """Number of axes."""
        return len(self.shape)

    def __getitem__(self, items: slice) -> NDArray[Any]:
        return self.part(items)


def write_json(document: Mapping[str, Any], file: IO[str]) -> None:
    """Write a document as `json.dump` writes its `json_ready` form with an indent of 2; arrays part after part."""
    for text in _json(document, ""):
        file.write(text)
    file.write("\n")


def _json(value: Any, pad: str) -> Generator[str, None, set[str]]:
    """Yield a value's text in parts, at the indent `pad`; return why numbers in it, outside of dicts, are null."""
    inner = f"{pad}  "
    lost: set[str] = set()
    opened = False
    if isinstance(value, dict):
        for key, item in value.items():
            yield f"{',' if opened else '{'}\n{inner}{json.dumps(key)}: "
            why = yield from _json(item, inner)
            if why:
                yield f",\n{inner}{json.dumps(f'{key}_why')}: {json.dumps('; '.join(sorted(why)))}"
            opened = True
        yield f"\n{pad}}}" if opened else "{}"
        return set()
    if isinstance(value, list | tuple | Derived) or (isinstance(value, np.ndarray) and value.ndim):
        for items in _parts(value):
            text, why = _flat_json(items, inner)
            if text is not None:
                yield f"{',' if opened else '['}\n{inner}{text}"
                opened, lost = True, lost | why
                continue
            for item in items:
                yield f"{',' if opened else '['}\n{inner}"
                opened, lost = True, lost | (yield from _json(item, inner))
        yield f"\n{pad}]" if opened else "[]"
        return lost
    plain = json_ready({"": value})
    yield json.dumps(plain[""], allow_nan=False)
    return {plain["_why"]} if "_why" in plain else set()


def _parts(values: Any) -> Iterator[Any]:
    """Parts of a list or an array, along its first axis."""
    count = len(values) if not isinstance(values, Derived) else values.shape[0]
    step = max(1, WRITE_ELEMENTS // max(1, math.prod(getattr(values, "shape", (count,))[1:])))
    for first in range(0, count, step):
        yield values[first : min(first + step, count)]


def _flat_json(items: Any, pad: str) -> tuple[str | None, set[str]]:
    """Write numbers by the encoder that is made for speed; None for what holds more than numbers and texts."""
    separators = f",\n{pad}", ": "
    if isinstance(items, np.ndarray):
        if items.ndim > 2 or items.dtype.kind not in "iuf" or not items.size:
            return None, set()
        plain, lost = items.tolist(), set()
        if items.dtype.kind == "f" and not np.isfinite(items).all():
            plain, lost = json_ready(plain), {why for why, of in _REASONS.items() if of(items).any()}
        if items.ndim == 1:
            return json.dumps(plain, separators=separators, allow_nan=False)[1:-1], lost
        deeper = f",\n{pad}  "
        text = json.dumps(plain, separators=(deeper, ": "), allow_nan=False)[2:-2]
        return f"[\n{pad}  " + text.replace(f"]{deeper}[", f"\n{pad}],\n{pad}[\n{pad}  ") + f"\n{pad}]", lost
    if not all(type(item) in (int, float, str, bool, type(None)) for item in items):
        return None, set()
    plain = json_ready({"": items})
    why = set(plain["_why"].split("; ")) if "_why" in plain else set()
    return json.dumps(plain[""], separators=separators, allow_nan=False)[1:-1], why


_REASONS: dict[str, Callable[[NDArray[Any]], NDArray[np.bool_]]] = {
    "infinity": np.isposinf,
    "minus infinity": np.isneginf,
    "undefined for these data": np.isnan,
}
