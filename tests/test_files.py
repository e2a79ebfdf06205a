"""Chains from files, honest and hostile; results into files, whole or not at all; and what all of it takes."""

import csv
import errno
import io
import json
import math
import os
import random
import re
import resource
import shlex
import signal
import struct
import subprocess
import sys
import time
import zipfile
from pathlib import Path

import numpy as np
import pytest

import fastgrad as fg
from fastgrad import files
from fastgrad.chain import Chain
from fastgrad.files import Derived, check_writable, load_chain, load_task, open_chain, replacing, write_json
from fastgrad.kernels import load
from fastgrad.report.backprop import gradients_bytes
from fastgrad.report.document import Curve, Figure
from fastgrad.report.figures import save
from fastgrad.report.tabular import write_csv
from fastgrad.summary import json_ready

W = np.arange(1.0, 7.0).reshape(3, 2)


def error_of(result, code):
    """The one line that a command ends with."""
    assert (result.exit_code, result.stdout) == (code, "")
    assert result.stderr.startswith("fastgrad: ")
    assert result.stderr.count("\n") == 1
    return result.stderr.strip().removeprefix("fastgrad: ")


# Chains


@pytest.mark.parametrize("weight", [W, W[:, 0]])
def test_a_saved_chain_loads_as_itself(tmp_path, weight):
    ensemble = weight.shape[1:]
    chain = Chain.of(weight, -weight, np.full(ensemble, 0.3), np.full(ensemble, -7.0))
    chain.save(tmp_path / "chain.npz")
    loaded = Chain.load(tmp_path / "chain.npz")
    assert loaded.single == chain.single
    for name in ("weight", "bias", "x", "cotangent"):
        assert np.array_equal(getattr(loaded, name), getattr(chain, name))


def test_an_npz_may_hold_weights_only(tmp_path):
    np.savez_compressed(tmp_path / "chain.npz", weight=W)
    chain = Chain.load(str(tmp_path / "chain.npz"))
    assert np.array_equal(chain.weight, W)
    assert (chain.bias.any(), chain.x.tolist(), chain.cotangent.tolist()) == (False, [0.5, 0.5], [1, 1])


def test_an_npy_holds_weights(tmp_path):
    np.save(tmp_path / "chain.npy", W[:, 0])
    chain = Chain.load(tmp_path / "chain.npy", bias=-1.0, x=0.25, cotangent=3.0)
    assert chain.single
    assert chain.bias.ravel().tolist() == [-1, -1, -1]
    assert (chain.x.tolist(), chain.cotangent.tolist()) == ([0.25], [3])


@pytest.mark.parametrize(
    ("text", "weight", "bias"),
    [
        ("weight,bias\n1,2\n3,4\n", [1, 3], [2, 4]),
        ("\ufeffbias, weight\r\n1,2\r\n3,4e-310", [2, 4e-310], [1, 3]),
        ("weight\n5\n", [5], [0]),
        ("weight,bias\n1,2\n\n3,4\n", [1, 3], [2, 4]),
    ],
)
def test_a_csv_has_one_row_a_link(tmp_path, text, weight, bias):
    path = tmp_path / "chain.CSV"
    path.write_bytes(text.encode())
    chain = Chain.load(path)
    assert chain.single
    assert chain.weight.ravel().tolist() == weight
    assert chain.bias.ravel().tolist() == bias


def test_what_is_given_takes_the_place_of_the_files(tmp_path):
    Chain.of([1.0, 2.0], 3.0, 0.1, 0.2).save(tmp_path / "chain.npz")
    chain = Chain.load(tmp_path / "chain.npz", bias=9.0, x=0.7, cotangent=-1.0)
    assert (chain.bias.ravel().tolist(), chain.x.tolist(), chain.cotangent.tolist()) == ([9, 9], [0.7], [-1])


def npz(**arrays):
    return lambda path: np.savez(path, **arrays)


def npy(array):
    return lambda path: np.save(path, array)


def text(content):
    return lambda path: path.write_bytes(content if isinstance(content, bytes) else content.encode())


def archive_without_arrays(path):
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("readme.txt", "no arrays here")


def truncated(write):
    def cut(path):
        write(path)
        path.write_bytes(path.read_bytes()[:-40])

    return cut


@pytest.mark.parametrize(
    ("name", "write", "message"),
    [
        ("a.npz", npz(bias=W), "no array 'weight'"),
        ("a.npz", npz(weight=W, wieght=W), "unknown array 'wieght'; expected weight, and bias, x and cotangent"),
        ("a.npz", npz(weight=[1.0, math.nan]), r"weight: expected finite numbers, got nan at index \[1\]"),
        ("a.npz", npz(weight=W, bias=[1, 2, 3, 4]), "bias: expected the shape of weight"),
        ("a.npz", npz(weight=["a"]), "weight: expected real numbers"),
        ("a.npz", npz(weight=np.array([None, 1])), "not a readable .npz file"),  # would need pickle
        ("a.npz", npz(weight=W, x=[1, 2, 3]), "x: expected a number or shape"),
        ("a.npz", npz(weight=[]), "weight: expected at least one link"),
        ("a.npz", text(""), "not a readable .npz file"),
        ("a.npz", text("weight,bias\n1,2\n"), "not a readable .npz file"),
        ("a.npz", archive_without_arrays, "unknown array 'readme.txt'"),
        ("a.npz", truncated(npz(weight=W)), "not a readable .npz file"),
        ("a.npz", npy(W), "not a readable .npz file"),
        ("a.npy", text(""), "not a readable .npy file"),
        ("a.npy", text(b"\x93NUMPY\x01\x00"), "not a readable .npy file"),
        ("a.npy", truncated(npy(W)), "not a readable .npy file"),
        ("a.npy", npy(np.array([None])), "not a readable .npy file"),
        ("a.npy", npy(np.float64(3)), r"weight: expected shape"),
        ("a.csv", text(""), "expected the header weight,bias, got ''"),
        ("a.csv", text("1,2\n3,4\n"), "expected the header weight,bias, got '1,2'"),
        ("a.csv", text("weight,offset\n1,2\n"), "expected the header weight,bias, got 'weight,offset'"),
        ("a.csv", text("bias\n1\n"), "expected the header weight,bias, got 'bias'"),
        ("a.csv", text("weight,bias\n"), "no links below the header"),
        ("a.csv", text("weight,bias\n\n\n"), "no links below the header"),
        ("a.csv", text("weight,weight\n1,2\n"), "expected the header weight,bias, got 'weight,weight'"),
        ("a.csv", text("weight,bias,bias\n1,2,3\n"), "expected the header weight,bias, got 'weight,bias,bias'"),
        ("a.csv", text("weight,bias\n1\n2\n"), "line 2: expected 2 values, got 1"),
        ("a.csv", text("weight,bias\n1,2\n\n3\n"), "line 4: expected 2 values, got 1"),
        ("a.csv", text("weight\n1,2\n"), "line 2: expected 1 values, got 2"),
        ("a.csv", text("weight,bias\n1,two\n"), "line 2: expected a number, got 'two'"),
        ("a.csv", text("weight,bias\n1,\n"), "line 2: expected a number, got ''"),
        ("a.csv", text("weight,bias\n1,nan\n"), r"bias: expected finite numbers, got nan at index \[0\]"),
        ("a.csv", text(b"\xff\xfe\x00weight"), "decode|header"),
        ("a.txt", text("weight\n1\n"), r"expected a file ending in .npz, .npy or .csv"),
        ("chain", text("weight\n1\n"), r"expected a file ending in .npz, .npy or .csv"),
    ],
)
def test_a_broken_file_is_a_value_error_that_names_it(tmp_path, name, write, message):
    path = tmp_path / name
    with path.open("wb"):
        pass
    write(path)
    with pytest.raises(ValueError, match=message) as info:
        Chain.load(path)
    assert str(info.value).startswith(f"{path}: ")
    assert "\n" not in str(info.value)


@pytest.mark.parametrize("name", ["a.npz", "a.npy", "a.csv"])
def test_a_missing_file_is_an_os_error(tmp_path, name):
    with pytest.raises(FileNotFoundError, match=name):
        Chain.load(tmp_path / name)
    (tmp_path / name).mkdir()
    with pytest.raises(IsADirectoryError, match=name):
        Chain.load(tmp_path / name)


def test_a_wrong_override_is_named(tmp_path):
    np.save(tmp_path / "a.npy", W)
    with pytest.raises(ValueError, match=r"a\.npy: x: expected finite"):
        Chain.load(tmp_path / "a.npy", x=math.nan)


def test_a_task_has_a_target(tmp_path):
    np.savez(tmp_path / "a.npz", weight=W, target=[0.5, 0.25])
    chain, target = load_task(tmp_path / "a.npz")
    assert (chain.ensemble, target.tolist()) == (2, [0.5, 0.25])
    assert load_task(tmp_path / "a.npz", target=0.1)[1].tolist() == [0.1, 0.1]
    np.savez(tmp_path / "b.npz", weight=W)
    with pytest.raises(ValueError, match=r"b\.npz: has no array 'target', expected one or --target VALUE$"):
        load_task(tmp_path / "b.npz")
    with pytest.raises(ValueError, match=r"a\.npz: unknown array 'target'"):
        load_chain(tmp_path / "a.npz")


@pytest.mark.parametrize("kind", ["f2", "f4", ">f8", "g", "i1", "u8", ">i4"])
@pytest.mark.parametrize("order", ["C", "F"])
@pytest.mark.parametrize("write", [np.savez, np.savez_compressed])
def test_any_type_and_layout_is_read(kind, order, write, rng, tmp_path):
    weight = np.asarray(rng.integers(0, 100, (300, 400)), dtype=kind, order=order)  # several parts
    write(tmp_path / "a.npz", weight=weight, bias=weight[:, :1])
    np.save(tmp_path / "a.npy", weight)
    for name in ("a.npz", "a.npy"):
        chain = load_chain(tmp_path / name)
        assert np.array_equal(chain.weight, weight.astype(float))
        assert chain.weight.flags.c_contiguous
    assert np.array_equal(load_chain(tmp_path / "a.npz").bias, np.broadcast_to(weight[:, :1], (300, 400)))


def test_a_long_csv_is_read_in_parts(rng, tmp_path):
    table = rng.normal(size=(files.WRITE_ELEMENTS, 2))
    lines = [f"{w!r},{b!r}" + ("\n\n" if i % 1000 == 0 else "\r\n") for i, (w, b) in enumerate(table.tolist())]
    (tmp_path / "a.csv").write_text("weight,bias\n" + "".join(lines), newline="")
    chain = load_chain(tmp_path / "a.csv")
    assert np.array_equal(chain.weight[:, 0], table[:, 0])
    assert np.array_equal(chain.bias[:, 0], table[:, 1])
    assert len(table) <= open_chain(tmp_path / "a.csv").links <= len(table) + 70  # blank lines count there


# Hostile files: one line each, and nothing is unpacked on trust


def npy_bytes(header, data=b"", version=(1, 0), length=None):
    """An .npy with a header of one's own."""
    text = header if isinstance(header, bytes) else header.encode("latin1")
    size = struct.pack("<H" if version == (1, 0) else "<I", len(text) if length is None else length)
    return b"\x93NUMPY" + bytes(version) + size + text + data


def header(shape="(2,)", descr="'<f8'", fortran="False"):
    return f"{{'descr': {descr}, 'fortran_order': {fortran}, 'shape': {shape}, }}\n"


TWO = np.array([1.0, 2.0]).tobytes()
HOSTILE_HEADERS = {
    "huge shape": (npy_bytes(header("(200000000000,)"), TWO), "declares 1600000000000 bytes, and there are 16"),
    "shape beyond 2^64": (npy_bytes(header("(99999999999999999999,9999999999)"), TWO), "declares"),
    "shape that wraps to 2": (npy_bytes(header(f"({2**62 + 1},4)"), TWO), "declares"),
    "fewer values": (npy_bytes(header("(1,)"), TWO), "declares 8 bytes, and there are 16"),
    "negative": (npy_bytes(header("(-2,)"), TWO), "not a readable"),
    "negative twice": (npy_bytes(header("(-2,-1)"), TWO), "not a readable"),
    "bool": (npy_bytes(header("(True,2)"), TWO), "not a readable"),
    "float shape": (npy_bytes(header("(2.0,)"), TWO), "not a readable"),
    "list shape": (npy_bytes(header("[2]"), TWO), "not a readable"),
    "object": (npy_bytes(header(descr="'|O'"), TWO), "not a readable"),
    "no literal": (npy_bytes(header("(print('owned'),)"), TWO), "not a readable"),
    "parentheses": (npy_bytes("(" * 9000), "not a readable"),
    "minus signs": (npy_bytes(header("(" + "-" * 9000 + "2,)"), TWO), "not a readable"),
    "brackets": (npy_bytes("{" * 300 + "[" * 5000), "not a readable"),
    "no dict": (npy_bytes("2"), "not a readable"),
    "empty header": (npy_bytes(""), "not a readable"),
    "NUL": (npy_bytes(header().replace("2", "2\0"), TWO), "not a readable"),
    "cut off": (npy_bytes(header()[:20]), "not a readable"),
    "length 4 GB": (npy_bytes(header(), TWO, (2, 0), 2**32 - 1), "not a readable"),
    "length 2^16": (npy_bytes(header(), TWO, length=2**16 - 1), "not a readable"),
    "version 9": (npy_bytes(header(), TWO, (9, 0)), "not a readable"),
    "magic": (b"\x93NUMPI" + npy_bytes(header(), TWO)[6:], "not a readable"),
    "only magic": (b"\x93NUMPY", "not a readable"),
    "structured": (npy_bytes(header(descr="[('a', '<f8'), ('b', '<f8')]", shape="(1,)"), TWO), "expected real numbers"),
    "field name": (
        npy_bytes(header(descr="[('a\xff', '<f8')]"), TWO, (3, 0)),
        "weight.npy|not a readable|real numbers",
    ),
    "text": (npy_bytes(header(descr="'<U2'"), TWO), "expected real numbers, got <U2"),
    "no size": (npy_bytes(header(descr="'|V0'", shape="(99999999999,)")), "expected real numbers"),
    "date": (npy_bytes(header(descr="'<M8[s]'"), TWO), "expected real numbers"),
    "unknown type": (npy_bytes(header(descr="'<q9'"), TWO), "not a readable"),
    "no type": (npy_bytes(header(descr="None"), TWO), "not a readable|expected real numbers|declares"),
    "pickle": (b"\x80\x04cos\nsystem\n(S'touch owned'\ntR.", "not a readable"),
}


@pytest.mark.parametrize("case", HOSTILE_HEADERS)
@pytest.mark.parametrize("kind", ["npy", "npz", "packed npz"])
def test_a_hostile_header_is_refused(case, kind, tmp_path, monkeypatch):
    content, message = HOSTILE_HEADERS[case]
    monkeypatch.chdir(tmp_path)
    path = tmp_path / f"a.{kind[-3:]}"
    if kind == "npy":
        path.write_bytes(content)
    else:
        with zipfile.ZipFile(
            path, "w", zipfile.ZIP_DEFLATED if kind == "packed npz" else zipfile.ZIP_STORED
        ) as archive:
            archive.writestr("weight.npy", content)
    with pytest.raises(ValueError, match=message) as info:
        load_chain(path)
    assert str(info.value).startswith(f"{path}: ")
    assert "\n" not in str(info.value)
    assert len(str(info.value)) < len(str(path)) + 200
    assert list(tmp_path.iterdir()) == [path]


@pytest.mark.parametrize("version", [(1, 0), (2, 0), (3, 0)])
def test_every_version_of_an_honest_header_is_read(version, tmp_path):
    (tmp_path / "a.npy").write_bytes(npy_bytes(header(), TWO, version))
    assert load_chain(tmp_path / "a.npy").weight.ravel().tolist() == [1, 2]


def archive_of(path, members, compression=zipfile.ZIP_STORED):
    with zipfile.ZipFile(path, "w", compression) as archive:
        for name, content in members:
            archive.writestr(name, content)


def honest(path):
    archive_of(path, [("weight.npy", npy_bytes(header(), TWO))])


def twice(path):
    with pytest.warns(UserWarning, match="Duplicate name"):
        archive_of(path, [("weight.npy", npy_bytes(header(), TWO))] * 2)


def with_and_without_ending(path):
    archive_of(path, [("weight.npy", npy_bytes(header(), TWO)), ("weight", npy_bytes(header(), TWO))])


def changed(at, value, signature=b"PK\x01\x02"):
    """An archive of which some bytes of the directory, or of another record, are others."""

    def write(path):
        honest(path)
        content = bytearray(path.read_bytes())
        start = content.index(signature) + at
        content[start : start + len(value)] = value
        path.write_bytes(content)

    return write


def many_members(path):
    archive_of(path, [(f"member {i}" * 20, b"") for i in range(10_000)])


def lzma(path):
    archive_of(path, [("weight.npy", npy_bytes(header(), TWO))], zipfile.ZIP_LZMA)


def large_and_unknown(path):
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("weight.npy", npy_bytes(header(), TWO))
        with archive.open("gain.npy", "w", force_zip64=True) as member:
            member.write(npy_bytes(header("(8000000,)")))
            for _ in range(64):
                member.write(bytes(10**6))


FULL = struct.pack("<I", 2**32 - 1)
HOSTILE_ARCHIVES = {
    "twice": (twice, "has 2 arrays 'weight'"),
    "with and without .npy": (with_and_without_ending, "has 2 arrays 'weight'"),
    "encrypted": (changed(8, b"\x01"), "array 'weight' is encrypted"),
    "lzma": (lzma, "array 'weight' is compressed in a way that NumPy does not use"),
    "method 99": (changed(10, b"\x63"), "compressed in a way"),
    "size declared larger": (changed(24, struct.pack("<I", 10**9)), "not a readable"),
    "sizes declared larger": (changed(20, struct.pack("<II", 10**9, 10**9)), "declares 16 bytes, and there are 999"),
    "size declared smaller": (changed(24, struct.pack("<I", 20)), "not a readable|declares"),
    "packed size larger": (changed(20, struct.pack("<I", 10**9)), "not a readable"),
    "both sizes of zip64, without them": (changed(20, FULL + FULL), "not a readable"),
    "checksum": (changed(16, b"\0\0\0\0"), "not a readable"),
    "offset": (changed(42, struct.pack("<I", 10**6)), "not a readable"),
    "offset beyond 2 GB": (changed(42, struct.pack("<I", 2**31 + 5)), "not a readable"),
    "other name in the archive": (changed(30, b"w3ight", b"PK\x03\x04"), "not a readable"),
    "directory at 4 GB": (changed(16, struct.pack("<I", 2**32 - 2), b"PK\x05\x06"), "not a readable"),
    "directory of 4 GB": (changed(12, struct.pack("<I", 2**32 - 2), b"PK\x05\x06"), "not a readable"),
    "name": (changed(46, b"w\xff\n\x1b[3", b"PK\x01\x02"), "unknown array"),
    "NUL in the name": (changed(46, b"we\0ght", b"PK\x01\x02"), "unknown array 'we'|not a readable"),
    "many": (many_members, "not a readable|unknown array"),
    "many names": (lambda path: archive_of(path, [("x" * 60_000, b"")]), "unknown array 'xxx"),
    "unknown and large": (large_and_unknown, "unknown array 'gain'"),
    "a folder in it": (lambda path: archive_of(path, [("weight.npy/", b"")]), "unknown array 'weight.npy/'"),
    "nothing in it": (lambda path: archive_of(path, []), "no array 'weight'"),
}


@pytest.mark.parametrize("case", HOSTILE_ARCHIVES)
def test_a_hostile_archive_is_refused(case, tmp_path):
    write, message = HOSTILE_ARCHIVES[case]
    path = tmp_path / "a.npz"
    write(path)
    with pytest.raises(ValueError, match=message) as info:
        load_chain(path)
    assert str(info.value).startswith(f"{path}: ")
    assert str(info.value).isprintable()
    assert len(str(info.value)) < len(str(path)) + 250


def test_damaged_archives_are_never_other_numbers(tmp_path):
    """Random bytes changed, cut or doubled: the chain that was written, or one line."""
    source = random.Random(5)
    path = tmp_path / "a.npz"
    weight = np.random.default_rng(1).normal(size=100)
    found = []
    for write in (np.savez, np.savez_compressed):
        write(path, weight=weight, bias=1.0, x=0.25)
        whole = path.read_bytes()
        for _ in range(400):
            content = bytearray(whole)
            for _ in range(source.randint(1, 5)):
                content[source.randrange(len(content))] = source.randrange(256)
            if source.random() < 0.2:
                del content[source.randrange(len(content)) :]
            path.write_bytes(content)
            try:
                chain = load_chain(path)
            except ValueError as error:
                found.append("refused" if re.match(rf"{path}: .*$", str(error)) else str(error))
            else:
                assert np.array_equal(chain.weight[:, 0], weight)
                found.append("read")
    assert {"refused", "read"} == set(found)


def peak_of(code, *arguments, cwd, limit=None):
    """What a fresh interpreter takes in memory at its height, in bytes, and the process that ended."""
    tell = "import atexit; atexit.register(lambda: open('peak', 'w').write(open('/proc/self/status').read()))\n"
    done = subprocess.run(
        [sys.executable, "-c", f"{tell}{code}", *map(str, arguments)],
        cwd=cwd,
        env={**os.environ, "OPENBLAS_NUM_THREADS": "1", "FASTGRAD_THREADS": "2"},
        capture_output=True,
        text=True,
        timeout=120,
        preexec_fn=None if limit is None else lambda: resource.setrlimit(resource.RLIMIT_AS, (limit, limit)),
    )
    lines = (cwd / "peak").read_text().splitlines()
    return 1024 * int(next(line for line in lines if line.startswith("VmHWM")).split()[1]), done


COMMAND = "import sys; from fastgrad.cli import main; main(sys.argv[1:])"
on_linux = pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="reads /proc")


def bomb(path, count, value=1.0):
    """An .npz of some kilobytes that unpacks to `count` weights."""
    block = np.full(10**6, value).tobytes()
    with (
        zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED, compresslevel=9) as archive,
        archive.open("weight.npy", "w", force_zip64=True) as member,
    ):
        member.write(npy_bytes(header(f"({count},)")))
        for _ in range(count // 10**6):
            member.write(block)


@on_linux
def test_a_small_file_of_many_links_is_refused_at_once_with_its_size(tmp_path):
    bomb(tmp_path / "a.npz", 50 * 10**6)
    assert (tmp_path / "a.npz").stat().st_size < 10**6
    peak, done = peak_of(COMMAND, "backprop", "a.npz", cwd=tmp_path, limit=2 * 10**9)
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr.startswith("fastgrad: a.npz: the gradients of 50000000 links would take 2.")
    assert done.stderr.endswith(" are free\n")
    assert peak < 150e6
    start = time.perf_counter()
    file = open_chain(tmp_path / "a.npz")
    assert time.perf_counter() - start < 5  # reading all of it takes much longer
    assert (file.links, file.ensemble) == (50 * 10**6, 1)


@on_linux
def test_unknown_arrays_are_not_unpacked(tmp_path):
    large_and_unknown(tmp_path / "a.npz")
    peak, done = peak_of(COMMAND, "backprop", "a.npz", cwd=tmp_path)
    assert "unknown array 'gain'" in done.stderr
    assert peak < 60e6  # the array has 64 MB


@pytest.mark.parametrize("kind", ["npz", "npy", "csv"])
@pytest.mark.parametrize("place", ["a folder", "a pipe", "a device", "a link to nothing", "a link to itself"])
@pytest.mark.skipif(os.name == "nt", reason="places of POSIX")
def test_what_is_no_file_is_refused(kind, place, tmp_path, cli):
    path = tmp_path / f"a.{kind}"
    if place == "a folder":
        path.mkdir()
    elif place == "a pipe":
        os.mkfifo(path)
    elif place == "a device":
        path.symlink_to("/dev/zero")
    else:
        path.symlink_to(path.name if "itself" in place else "absent")
    special = place in ("a pipe", "a device")
    with pytest.raises(ValueError if special else OSError, match="is a pipe or a device" if special else path.name):
        load_chain(path)
    result = cli("backprop", path)
    assert result.exit_code in (1, 2)
    assert str(path) in error_of(result, result.exit_code)


HOSTILE_TEXTS = {
    "a long line": (b"weight\n" + b"1" * 10**6, "line 2: longer than 65536 characters"),
    "a long header": (b"weight" * 10**5, "line 1: longer than 65536 characters"),
    "a wide header": (b"weight," * 9000, "expected the header weight,bias, got 'weight,weight"),
    "a long number": (b"weight\n" + b"1" * 60_000 + b"x", "line 2: expected a number, got '1111"),
    "NUL": (b"weight\n1\0\n", r"line 2: expected a number, got '1\\x00'"),
    "NUL in the header": (b"wei\0ght\n1\n", "expected the header weight,bias, got"),
    "UTF-16": ("weight\n1\n".encode("utf-16"), "utf-8"),
    "Latin-1": (b"weight\n1\n\xe9\n", "utf-8"),
    "an open quote": (b'weight\n"1\n2\n' + b"3\n" * 100_000, "field larger than|line "),
    "escape": (b"weight\n\x1b[31m\n", r"line 2: expected a number, got '\\x1b\[31m'"),
    "late": (b"weight\n" + b"1\n" * 70_000 + b"x\n", "line 70002: expected a number, got 'x'"),
}


@pytest.mark.parametrize("case", HOSTILE_TEXTS)
def test_a_hostile_csv_is_refused(case, tmp_path):
    content, message = HOSTILE_TEXTS[case]
    path = tmp_path / "a.csv"
    path.write_bytes(content)
    with pytest.raises(ValueError, match=message) as info:
        load_chain(path)
    assert str(info.value).startswith(f"{path}: ")
    assert str(info.value).isprintable()
    assert len(str(info.value)) < len(str(path)) + 200


# What is taken


@on_linux
@pytest.mark.parametrize("form", ["table", "npz", "csv", "json"])
def test_a_command_stays_within_what_is_counted(form, rng, tmp_path):
    output = ("-o", "out.npz") if form == "npz" else ("--format", form, "-o", "out")
    work = load("auto")[1].LIMITS.work_bytes
    peaks, counted = [], []
    for links in (1, *((200_000, 1_500_000) if form in ("table", "npz") else (100_000, 900_000))):
        np.savez(tmp_path / "a.npz", weight=rng.normal(0, 5, links).astype("f4"), bias=rng.normal(size=links))
        peak, done = peak_of(COMMAND, "backprop", "a.npz", *output, cwd=tmp_path)
        assert (done.returncode, done.stderr) == (0, "")
        peaks.append(peak)
        counted.append(gradients_bytes(open_chain(tmp_path / "a.npz"), form, False, work))
    assert peaks[2] - peaks[0] < counted[2]
    taken, said = peaks[2] - peaks[1], counted[2] - counted[1]  # what is constant cancels
    assert taken < 1.05 * said + 16e6  # a buffer need not be full at the smaller size
    assert said < 1.25 * taken + 16e6


@pytest.mark.parametrize("shape", [(70_000,), (7000, 30), (3, 40_000)])
def test_reading_is_counted(shape, rng, tmp_path):
    np.savez(tmp_path / "a.npz", weight=np.asfortranarray(rng.normal(size=shape)))
    file = open_chain(tmp_path / "a.npz")
    assert file.links == math.prod(shape)
    assert file.load_bytes >= 17 * file.links + (8 * file.links if len(shape) == 2 else 0)


# JSON and CSV


def random_document(source, depth=0):
    """A document of what results are made of."""
    floats = np.array([0.5, -1e300, 5e-324, math.inf, -math.inf, math.nan, 1 / 3, 0.0, -0.0])
    scalars = [
        None,
        True,
        7,
        2**64 - 1,
        -0.0,
        1e-310,
        math.inf,
        math.nan,
        "text",
        'ä"\n',
        np.float64(1.5),
        np.int64(-3),
    ]
    arrays = [
        np.arange(source.randint(0, 5)),
        source.choice([floats, floats[:3]]),
        np.resize(floats, (source.randint(0, 3), source.randint(0, 4))),
        np.resize(np.arange(5), (2, 3, 2)),
        np.resize(floats, (2, 0, 2)),
        np.array(["a", "b"]),
        np.array(2.5),
        np.array([True, False]),
    ]
    kind = source.randint(0, 5 if depth < 3 else 2)
    if kind == 0:
        return source.choice(scalars)
    if kind in (1, 2):
        return source.choice(arrays)
    inner = [random_document(source, depth + 1) for _ in range(source.randint(0, 4))]
    if kind == 3:
        return inner
    if kind == 4:
        return tuple(inner)
    return {f"key {i} é": value for i, value in enumerate(inner)}


def test_json_is_that_of_the_standard_library_byte_for_byte(monkeypatch):
    monkeypatch.setattr(files, "WRITE_ELEMENTS", 3)
    source = random.Random(3)
    for _ in range(2000):
        document = {"a": random_document(source), "b": random_document(source)}
        text = io.StringIO()
        write_json(document, text)
        assert text.getvalue() == json.dumps(json_ready(document), indent=2, allow_nan=False) + "\n"


@pytest.mark.parametrize("shape", [(0,), (10,), (5, 3), (5, 1)])
def test_derived_arrays_are_written_as_arrays(shape, rng, monkeypatch):
    monkeypatch.setattr(files, "WRITE_ELEMENTS", 4)
    values = rng.normal(size=shape)
    if values.size:
        values.flat[-1] = -math.inf
    made = []

    def part(items):
        made.append(len(values[items]))
        return values[items]

    derived, plain = io.StringIO(), io.StringIO()
    write_json({"v": Derived(shape, part)}, derived)
    write_json({"v": values}, plain)
    assert derived.getvalue() == plain.getvalue()
    assert max(made, default=0) <= 4
    assert ("minus infinity" in derived.getvalue()) is bool(values.size)


def test_blocks_of_rows_are_written_as_rows(rng, monkeypatch):
    monkeypatch.setattr(files, "WRITE_ELEMENTS", 20)
    block = {"link": np.arange(100), "value": np.resize([1 / 3, math.inf, -math.inf, math.nan, -0.0, 1e-320], 100)}
    block["listed"] = [None if i % 3 == 0 else i / 7 for i in range(100)]
    rows = [
        {name: values[i] if isinstance(values, list) else values[i].item() for name, values in block.items()}
        for i in range(100)
    ]
    together, apart = io.StringIO(), io.StringIO()
    write_csv([block, block], together)
    write_csv(rows * 2, apart)
    assert together.getvalue() == apart.getvalue()
    assert next(csv.reader(io.StringIO(together.getvalue()))) == ["link", "value", "listed"]
    write_csv([], empty := io.StringIO())
    assert empty.getvalue() == ""


# Where results go


@pytest.mark.parametrize("option", ["-o", "--plot"])
def test_an_empty_name_is_refused(option, cli):
    result = cli("simulate", "--depth", "5", "--format", "json", option, "")
    assert error_of(result, 2) == f"{'output' if option == '-o' else 'plot'}: expected the name of a file, got ''"


@pytest.mark.parametrize(
    ("path", "message"),
    [
        ("a\0b.json", r"^output: expected the name of a file, got 'a\\x00b.json'$"),
        ("a" * 300 + ".json", "^output: a+.json: File name too long$"),
        ("b/" * 3000 + "a.json", "^output: (b/)+…: File name too long$"),
        ("file/a.json", "^output: file/a.json: there is no folder .*file$"),
        ("loop.json", "^output: loop.json: is a symbolic link to itself$"),
        ("hangs.json", "^output: hangs.json: there is no folder .*absent$"),
        (".", r"^output: \.: is a folder, expected a file$"),
    ],
)
def test_a_place_where_no_file_can_be_is_named(path, message, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "file").touch()
    (tmp_path / "loop.json").symlink_to("loop.json")
    (tmp_path / "hangs.json").symlink_to("absent/a.json")
    with pytest.raises((OSError, ValueError), match=message):
        check_writable("output", path)


def test_a_name_that_is_long_enough_is_written(tmp_path, cli):
    path = tmp_path / ("é" * 125 + ".json")  # 255 bytes
    assert cli("info", "-o", path).exit_code == 0
    assert json.loads(path.read_text())["command"] == "info"


@pytest.mark.skipif(not Path("/proc/self").exists(), reason="needs a folder that takes no files")
def test_a_folder_that_takes_no_files_is_found_out_before_the_job(monkeypatch, cli):
    monkeypatch.setattr(fg, "simulate", lambda **_: pytest.fail("the job ran"))
    result = cli("simulate", "-o", "/proc/a.json")
    assert error_of(result, 1).startswith("output: /proc/a.json: ")


def process(*arguments, cwd, shell=None):
    command = [sys.executable, "-m", "fastgrad", *arguments]
    if shell is not None:
        command = ["sh", "-c", shell.format(shlex.join(command))]
    return subprocess.run(command, cwd=cwd, capture_output=True, text=True, timeout=60)


@pytest.mark.skipif(os.name == "nt", reason="a working folder can't be deleted there")
@pytest.mark.parametrize("option", ["-o", "--plot"])
def test_a_working_folder_that_is_gone(option, tmp_path):
    (tmp_path / "gone").mkdir()
    arguments = ("simulate", "--depth", "5", option, "a.json" if option == "-o" else "a.png")
    done = process(*arguments, cwd=tmp_path, shell="cd gone && rmdir ../gone && {}")
    assert (done.returncode, done.stdout) == (1, "")
    name = "output: a.json" if option == "-o" else "plot: a.png"
    assert done.stderr == f"fastgrad: {name}: the working folder is gone\n"


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs /dev/full")
@pytest.mark.parametrize("form", ["json", "csv", "table"])
def test_a_full_device_is_named(form, tmp_path):
    done = process("info", "--format", form, "-o", "/dev/full", cwd=tmp_path)
    assert (done.returncode, done.stdout, done.stderr) == (1, "", "fastgrad: /dev/full: No space left on device\n")
    done = process("info", "--format", form, cwd=tmp_path, shell="{} >/dev/full")
    assert (done.returncode, done.stderr) == (1, "fastgrad: stdout: No space left on device\n")


def test_output_and_figure_in_one_file_are_refused(tmp_path, cli):
    result = cli("simulate", "--format", "json", "-o", tmp_path / "a.png", "--plot", tmp_path / "." / "a.png")
    assert error_of(result, 2) == f"plot: {tmp_path / 'a.png'} is the file of --output too"


@pytest.mark.parametrize(
    "error", [OSError(errno.ENOSPC, "no more"), ValueError("no more"), KeyboardInterrupt("no more")]
)
def test_figures_and_chains_are_written_whole_or_not_at_all(error, tmp_path, monkeypatch):
    from matplotlib.figure import Figure as Canvas

    def broken(target, *_, **__):
        if isinstance(target, Path):
            target.write_text("half")
        else:
            target.write(b"half")
        raise error

    (tmp_path / "a.png").write_text("old")
    (tmp_path / "a.npz").write_text("old")
    monkeypatch.setattr(Canvas, "savefig", lambda self, target, **more: broken(target))
    monkeypatch.setattr(np.lib.format, "write_array", broken)
    figure = Figure("", "x", "y", np.arange(3.0), [Curve("bound", "b", np.arange(3.0))])
    with pytest.raises(type(error), match="no more"):
        save(figure, tmp_path / "a.png")
    with pytest.raises(type(error), match="no more"):
        Chain.of(W, 0).save(tmp_path / "a.npz")
    assert {path.name: path.read_text() for path in tmp_path.iterdir()} == {"a.png": "old", "a.npz": "old"}


def test_replacing_keeps_links_and_permissions(tmp_path):
    (tmp_path / "a").write_text("old")
    (tmp_path / "a").chmod(0o640)
    (tmp_path / "link").symlink_to("a")
    with replacing(tmp_path / "link") as part:
        part.write_text("new")
        assert (tmp_path / "a").read_text() == "old"
    assert (tmp_path / "link").is_symlink()
    assert (tmp_path / "a").read_text() == "new"
    assert (tmp_path / "a").stat().st_mode & 0o777 == 0o640
    assert len(list(tmp_path.iterdir())) == 2


WRITES_FOR_LONG = """
import sys, time
import fastgrad.files as files
def slow(document, file):
    file.write("{")
    file.flush()
    print("writing", flush=True)
    time.sleep(60)
import fastgrad.report.writing
fastgrad.report.writing.write_json = slow
from fastgrad.cli import main
main(["info", "-o", "a.json"])
"""


@pytest.mark.skipif(os.name == "nt", reason="signals of POSIX")
@pytest.mark.parametrize("name", ["SIGTERM", "SIGHUP", "SIGINT"])
def test_a_signal_leaves_no_hidden_file(name, tmp_path):
    (tmp_path / "a.json").write_text("old")
    job = subprocess.Popen(
        [sys.executable, "-c", WRITES_FOR_LONG], cwd=tmp_path, stdout=subprocess.PIPE, stderr=subprocess.PIPE
    )
    try:
        assert job.stdout.readline() == b"writing\n"
        assert len(list(tmp_path.iterdir())) == 2  # the old one, and the one that is being written
        job.send_signal(getattr(signal, name))
        output, errors = job.communicate(timeout=20)
    finally:
        job.kill()
        job.communicate()
    assert job.returncode == 128 + getattr(signal, name)
    assert output == b""
    assert b"Traceback" not in errors
    assert [path.name for path in tmp_path.iterdir()] == ["a.json"]
    assert (tmp_path / "a.json").read_text() == "old"


def test_statistics_of_too_many_recorded_links_are_refused_before_the_job(monkeypatch, cli):
    monkeypatch.setattr("fastgrad.checks.free_memory", lambda: 10**9)
    monkeypatch.setattr(fg, "simulate", lambda **_: pytest.fail("the job ran"))
    message = error_of(cli("simulate", "--depth", "1e9", "--ensemble", "1", "--record", "1e6"), 2)
    assert message == "the statistics of 1000000 recorded links would take 1.86 GiB of memory, and 954 MiB are free"


@pytest.mark.parametrize("option", ["-o", "--plot"])
@pytest.mark.parametrize("command", ["backprop", "train"])
def test_a_chain_is_not_replaced_by_what_is_made_of_it(command, option, tmp_path, cli):
    path, link = tmp_path / "a.npz", tmp_path / ("b.npz" if option == "-o" else "b.png")
    np.savez(path, weight=W[:, 0])
    before = path.read_bytes()
    link.symlink_to("a.npz")
    more = ("--target", "0.5") if command == "train" else ()
    assert error_of(cli(command, path, *more, option, link), 2).endswith("is the file that is read")
    assert path.read_bytes() == before


@pytest.mark.parametrize("option", ["-o", "--plot"])
def test_a_store_is_not_replaced_by_its_table(option, tmp_path, cli):
    store = tmp_path / ("study.csv" if option == "-o" else "study.png")
    sweep = ("sweep", "--grid", "depth=5,6", "--ensemble", "3", "--store", store)
    if option == "-o":
        assert error_of(cli(*sweep, option, store), 2).endswith("is the file that is read")
        assert not store.exists()
    assert cli(*sweep).exit_code == 0
    before = store.read_bytes()
    commands = [("plot", store, option, store)]
    if option == "-o":
        commands += [("export", store, option, store), (*sweep, option, store)]
    for command in commands:
        assert error_of(cli(*command), 2).endswith("is the file that is read")
        assert store.read_bytes() == before
