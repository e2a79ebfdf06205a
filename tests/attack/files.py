"""Files of chains: damaged, hostile, huge, and things that are no files."""

from __future__ import annotations

import contextlib
import io
import os
import pickle
import signal
import struct
import threading
import zipfile
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from attack.core import BUDGET, listed
from attack.oracle import gradients_agree

if TYPE_CHECKING:
    import random

    from attack.core import Attempt, Done


SHAPES = listed("""
(3,) (0,) (-1,) (10**12,) (2000000000000,) (9223372036854775808,) (1000000,1000000) () (3,1) (1,3) (1,1,3) (3 3 None
(True,) (3.0,) 'abc' (200000000,) (4294967296,4294967296) (2,)""")
DTYPES = [*listed("<f8 >f8 <f4 <f2 <i8 |b1 |O <c16 <U9 |S8 <M8[s] <f16 |V8 junk"), ""]


def damaged(attempt: Attempt) -> None:
    """Flip bits of a good file, cut it, or write junk into it."""
    rng, kind = attempt.rng, attempt.rng.choice(["npz", "npy", "csv"])
    path = attempt.folder / f"chain.{kind}"
    arrays = chain(rng)
    write(path, arrays, rng)
    path.write_bytes(damage(rng, path.read_bytes()))
    done = attempt.run(*command(rng, path.name), budget=BUDGET, named=[path.name])
    if done.ok:
        # An archive has checksums: it is whole, or refused. The others are another chain then, if they are one.
        judge_result(attempt, done, arrays if kind == "npz" else read(path))


def random_bytes(attempt: Attempt) -> None:
    """A file of junk, perhaps with a good beginning."""
    rng = attempt.rng
    name = "chain." + rng.choice(["npz", "npy", "csv", "CSV", "txt", "", "npz.npy"])
    start = rng.choice(
        [b"", b"\x93NUMPY\x01\x00", b"PK\x03\x04", b"weight\n", b"weight,bias\n", b"\xef\xbb\xbfweight\n"]
    )
    (attempt.folder / name).write_bytes(start + rng.randbytes(rng.choice([0, 1, 10, 1000, 100_000])))
    attempt.run(*command(rng, name), budget=BUDGET, named=[name])


def headers(attempt: Attempt) -> None:
    """An .npy whose header lies, alone or in an archive."""
    rng = attempt.rng
    long = ["(" * 5000, "-" * 9000 + "1", "(" + "1," * 70 + ")"]
    shape = rng.choice([*SHAPES, *long])
    dtype = rng.choice([*DTYPES, *["<f8"] * 9])
    text = f"{{'descr': {dtype!r}, 'fortran_order': {rng.choice(['False', 'True', '1', 'x'])}, 'shape': {shape}, }}"
    text = rng.choice([text] * 6 + [text[:-3], text + "x", "{}", "[]", "{'descr': [('a', '<f8')]}", "\x00" * 50])
    header = text.encode().ljust(117) + b"\n"
    length = rng.choice([len(header)] * 8 + [0, 1, 65535, 4_000_000_000])
    version = rng.choice([1] * 6 + [2, 3, 9])
    size = struct.pack("<H", length & 0xFFFF) if version == 1 else struct.pack("<I", length)
    content = (
        b"\x93NUMPY" + bytes([version, 0]) + size + header + struct.pack("<3d", 1, 2, 3)[: rng.choice([24, 24, 23, 0])]
    )
    name = "chain." + rng.choice(["npy", "npz"])
    if name.endswith("npy"):
        (attempt.folder / name).write_bytes(content)
    else:
        with zipfile.ZipFile(
            attempt.folder / name, "w", rng.choice([zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED])
        ) as archive:
            archive.writestr("weight.npy", content)
    done = attempt.run(*command(rng, name), budget=BUDGET, named=[name])
    if done.ok:
        found = np.load(attempt.folder / name)
        judge_result(attempt, done, {"weight": found if isinstance(found, np.ndarray) else found["weight"]})


def pickles(attempt: Attempt) -> None:
    """Arrays of objects, which would run code when they are read: the new file would be noticed."""
    rng = attempt.rng
    marker = str(attempt.folder / "it-ran")

    class Hostile:
        def __reduce__(self) -> tuple[Any, ...]:
            return os.mkfifo, (marker,)

    name = "chain." + rng.choice(["npy", "npz", "csv"])
    with (attempt.folder / name).open("wb") as file:
        if name.endswith("npy"):
            np.save(file, np.array([Hostile()]), allow_pickle=True)
        elif name.endswith("npz"):
            np.savez(file, weight=np.ones(3), **{rng.choice(["bias", "x", "other"]): np.array([Hostile()])})
        else:
            file.write(pickle.dumps(Hostile()))
    done = attempt.run(*command(rng, name), budget=BUDGET, named=[name])
    attempt.check(not Path(marker).exists(), "pickled code was run", "left behind")
    attempt.check(not done.ok, "objects were taken for numbers")


def bombs(attempt: Attempt) -> None:
    """Archives that unpack to more memory than there is, where a chain is read or where none is."""
    rng = attempt.rng
    name = rng.choice(["weight", "bias", "other", "x"])
    links = rng.choice([60_000_000, 200_000_000])
    with zipfile.ZipFile(attempt.folder / "chain.npz", "w", zipfile.ZIP_DEFLATED, compresslevel=1) as archive:
        if name != "weight":
            archive.writestr("weight.npy", npy(np.ones(3)))
        with archive.open(f"{name}.npy", "w", force_zip64=True) as file:
            np.lib.format.write_array_header_1_0(file, {"descr": "<f8", "fortran_order": False, "shape": (links,)})
            block = bytes(8_000_000)
            for _ in range(links // 1_000_000):
                file.write(block)
    done = attempt.run(*command(rng, "chain.npz"), budget=BUDGET, named=["chain.npz", "memory"], timeout=180)
    attempt.check(not done.ok, "a bomb gave a result")


def lying_archives(attempt: Attempt) -> None:
    """Archives whose directory says other sizes, names or methods than there are."""
    rng = attempt.rng
    path = attempt.folder / "chain.npz"
    arrays = chain(rng)
    write(path, arrays, rng)
    data = bytearray(path.read_bytes())
    signature, offsets = rng.choice(
        [(b"PK\x01\x02", (8, 10, 20, 24, 28, 30, 42)), (b"PK\x03\x04", (6, 8, 18, 22, 26, 28))]
    )
    at = data.find(signature) + rng.choice(offsets)
    data[at : at + 4] = struct.pack(
        "<I", rng.choice([0, 1, 7, 100, 0xFFFF, 0x7FFFFFFF, 0xFFFFFFFF, rng.getrandbits(32)])
    )
    path.write_bytes(data)
    done = attempt.run(*command(rng, path.name), budget=BUDGET, named=[path.name])
    if done.ok:
        judge_result(attempt, done, arrays)


def wrong_arrays(attempt: Attempt) -> None:
    """Readable archives of what is no chain."""
    rng = attempt.rng
    name, value = rng.choice(
        [
            ("weight", np.array([1, np.nan])),
            ("weight", np.array([np.inf])),
            ("weight", np.empty(0)),
            ("weight", np.ones((2, 2, 2))),
            ("weight", np.array(3.0)),
            ("weight", np.ones(3) > 0),
            ("weight", np.ones(3) * 1j),
            ("weight", np.array(["1", "2"])),
            ("bias", np.ones(7)),
            ("bias", np.array([[np.nan]])),
            ("x", np.ones(2)),
            ("x", np.array(np.inf)),
            ("cotangent", np.ones((1, 1))),
            ("unknown", np.ones(1)),
            ("Weight", np.ones(3)),
            ("", np.ones(3)),
            ("../weight", np.ones(3)),
        ]
    )
    with zipfile.ZipFile(attempt.folder / "chain.npz", "w") as archive:
        for array, content in {"weight": np.ones(3), name: value}.items():
            archive.writestr(f"{array}.npy", npy(content))
    done = attempt.run(*command(rng, "chain.npz"), named=["chain.npz"])
    attempt.check(not done.ok, f"{name} = {value!r} was taken")


def tables(attempt: Attempt) -> None:
    """CSV as programs and people write it, and as they should not."""
    rng = attempt.rng
    cells = ["1", "-2.5", " 3 ", "1e308", "1e-320", "1_0", '"4"', "٣", "+1", "5."]
    bad = ["nan", "inf", "1e309", "", "x", "0x10", "1,5", "\0", "1;2", '"', "9" * 200_000, "1" * 5000, "'1'"]
    rows = [",".join(rng.choice(cells) for _ in range(2)) for _ in range(rng.randint(1, 5))]
    if rng.random() < 0.6:
        rows[rng.randrange(len(rows))] = ",".join(
            rng.choice([rng.choice(cells), rng.choice(bad)]) for _ in range(rng.choice([1, 2, 2, 3]))
        )
    head = rng.choice(
        ["weight,bias"] * 5 + ["bias,weight", "weight", "Weight,bias", "a,b", "", "weight,weight", '"weight","bias"']
    )
    end = rng.choice(["\n", "\r\n", "\r"])
    text = end.join([head, *rows]) + rng.choice(["", end, end * 5])
    path = attempt.folder / "chain.csv"
    path.write_bytes(text.encode(rng.choice(["utf-8"] * 6 + ["utf-8-sig", "utf-16", "utf-32"])))
    done = attempt.run(*command(rng, path.name), named=[path.name])
    if done.ok:
        judge_result(attempt, done, read(path))


def no_files(attempt: Attempt) -> None:
    """Folders, links that go round, pipes, devices, and names that are none."""
    rng, folder = attempt.rng, attempt.folder
    ending = rng.choice([".npz", ".npy", ".csv"])
    name = f"chain{ending}"
    kind = rng.choice(
        ["folder", "loop", "dangling", "pipe", "null", "zero", "random", "missing", "long", "odd", "empty", "stdin"]
    )
    if kind == "folder":
        (folder / name).mkdir()
    elif kind in ("loop", "dangling"):
        (folder / name).symlink_to(name if kind == "loop" else "nothing")
    elif kind == "pipe":
        os.mkfifo(folder / name)
        threading.Thread(target=feed, args=(folder / name, b"weight,bias\n1,2\n"), daemon=True).start()
    elif kind in ("null", "zero", "random"):
        (folder / name).symlink_to(f"/dev/{'urandom' if kind == 'random' else kind}")
    else:
        name = {"missing": name, "long": "x" * 300 + ending, "empty": "", "stdin": "-"}.get(
            kind, f"a\nb \udcff→{ending}"
        )
    done = attempt.run(*command(rng, name), budget=BUDGET, timeout=60)
    attempt.check(not done.ok or kind == "pipe", f"{kind} gave a result")


def feed(path: Path, content: bytes) -> None:
    """Write into a pipe that may be read."""
    with contextlib.suppress(OSError):
        path.write_bytes(content)


def huge(attempt: Attempt) -> None:
    """Honest chains that need more memory than is free, or nearly so: refused, or done within it."""
    rng = attempt.rng
    links = rng.choice([300_000, 2_000_000, 4_000_000])
    shape = rng.choice([(links,), (links // 1000, 1000), (10, links // 10)])
    path = attempt.folder / f"chain.{rng.choice(['npy', 'npz'])}"
    with path.open("wb") as file:
        weight = np.ones(shape)
        if path.suffix == ".npy":
            np.save(file, weight)
        else:
            np.savez_compressed(file, weight=weight)
        del weight
    form = rng.choice(["table", "json", "csv", "npz"])
    output = f"out.{form if form != 'table' else 'txt'}"
    attempt.run(
        "backprop",
        path.name,
        "--threads",
        2,
        "-o",
        output,
        budget=BUDGET // 4,
        timeout=300,
        stop=signal.SIGINT,  # to write so much takes long where others work too
        writes=[output],
        named=["memory", path.name],
    )


# What they are made of


def chain(rng: random.Random) -> dict[str, Any]:
    """A small chain, or a few of them."""
    depth, ensemble = rng.randint(1, 6), rng.choice([None, None, 1, 3])
    shape = (depth,) if ensemble is None else (depth, ensemble)
    draw = np.random.default_rng(rng.getrandbits(64))
    arrays: dict[str, Any] = {"weight": draw.normal(0, 3, shape)}
    for name, size in {"bias": shape, "x": shape[1:], "cotangent": shape[1:]}.items():
        if rng.random() < 0.6:
            arrays[name] = draw.normal(0, 2, size)
    return arrays


def npy(array: Any) -> bytes:
    """An array as the content of an .npy."""
    file = io.BytesIO()
    np.save(file, array, allow_pickle=False)
    return file.getvalue()


def write(path: Path, arrays: dict[str, Any], rng: random.Random) -> None:
    """Write a chain; of what its format can't hold only the weights, and of an ensemble one."""
    if path.suffix == ".npz":
        (np.savez_compressed if rng.random() < 0.5 else np.savez)(path, **arrays)
    elif path.suffix == ".npy":
        path.write_bytes(npy(arrays["weight"]))
    else:
        columns = {name: np.atleast_2d(arrays[name].T)[0] for name in ("weight", "bias") if name in arrays}
        rows = zip(*columns.values(), strict=True)
        path.write_text("\n".join([",".join(columns), *(",".join(map(repr, map(float, row))) for row in rows)]))


def read(path: Path) -> dict[str, Any]:
    """Read a chain from what need not be an archive, on our own."""
    if path.suffix == ".npy":
        return {"weight": np.load(path)}
    lines = path.read_text("utf-8-sig").replace("\r", "\n").replace('"', "").split("\n")
    head = [cell.strip() for cell in lines[0].split(",")]
    rows = [[float(cell) for cell in line.split(",")] for line in lines[1:] if line.strip()]
    return {name: np.array(column) for name, column in zip(head, zip(*rows, strict=True), strict=True)}


def damage(rng: random.Random, data: bytes) -> bytes:
    """Do one of the things that happen to files."""
    changed = bytearray(data)
    kind = rng.choice(["flip"] * 4 + ["cut", "junk", "zero", "double", "drop", "add"])
    at = rng.randrange(len(changed))
    to = min(len(changed), at + rng.choice([1, 8, 512]))
    if kind == "flip":
        for _ in range(rng.choice([1, 1, 2, 20])):
            changed[rng.randrange(len(changed))] ^= 1 << rng.randrange(8)
    elif kind == "cut":
        del changed[at:]
    elif kind == "add":
        changed += rng.randbytes(rng.choice([1, 100, 5000]))
    else:
        part = changed[at:to]
        changed[at:to] = {"junk": rng.randbytes(len(part)), "zero": bytes(len(part)), "double": part * 2, "drop": b""}[
            kind
        ]
    return bytes(changed)


def command(rng: random.Random, name: str) -> list[str]:
    """A command that reads a chain and shows what it found."""
    backend = ["--backend", rng.choice(["cpp", "cpp", "numpy"])]
    if rng.random() < 0.2:
        return ["train", name, "--target", "0.5", "--steps", "3", "--format", "json", *backend]
    return ["backprop", name, "--format", "json", *backend]


def judge_result(attempt: Attempt, done: Done, arrays: dict[str, Any]) -> None:
    """Compare what was shown with the oracle."""
    if "backprop" in done.command:
        attempt.check(gradients_agree(done.json()["result"], arrays), "the gradient of another chain")


ATTACKS = (damaged, damaged, damaged, random_bytes, headers, headers, pickles, lying_archives, lying_archives)
ATTACKS += (wrong_arrays, tables, tables)
ATTACKS += (no_files, no_files, bombs, huge)
