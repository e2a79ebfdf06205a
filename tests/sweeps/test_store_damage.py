"""A fuzz of damaged stores: whatever is broken in the file, nobody is given another number, or a traceback."""

import collections
import contextlib
import json
import random
import shutil
import sqlite3
import subprocess
import sys
import warnings

import pytest

import fastgrad as fg
from fastgrad.sweeps.plan import Plan, plan
from fastgrad.sweeps.run import run
from fastgrad.sweeps.store import Row, Store

GRID = {"weight.value": [0.5, 2.0, 8.0, 20.0, 1e300], "seed": range(8)}
GIVEN = {"depth": 20, "ensemble": 8, "weight": "zero"}
SWEEP = ("sweep", "--grid", "weight.value=0.5,2,8,20,1e300", "--grid", "seed=0:7:8", "--depth", "20", "--ensemble", "8")
SWEEP += ("--weight", "zero", "--store")


def flip_bits(path, generator):
    data = bytearray(path.read_bytes())
    for _ in range(generator.randint(1, 20)):
        data[generator.randrange(len(data))] ^= 1 << generator.randrange(8)
    path.write_bytes(data)


def flip_bits_in_a_page(path, generator):
    """Where the b-tree is described, and the schema: at the start of a page."""
    data = bytearray(path.read_bytes())
    start = 4096 * generator.randrange(len(data) // 4096)
    for _ in range(generator.randint(1, 4)):
        data[start + generator.randrange(120)] ^= 1 << generator.randrange(8)
    path.write_bytes(data)


def truncate(path, generator):
    path.write_bytes(path.read_bytes()[: generator.randrange(path.stat().st_size)])


def swap_pages(path, generator):
    data = path.read_bytes()
    pages = [data[i : i + 4096] for i in range(0, len(data), 4096)]
    one, other = generator.sample(range(len(pages)), 2)
    pages[one], pages[other] = pages[other], pages[one]
    path.write_bytes(b"".join(pages))


def overwrite(path, generator):
    data = bytearray(path.read_bytes())
    start, length = generator.randrange(len(data)), generator.randint(1, 6000)
    data[start : start + length] = generator.choice([bytes(length), generator.randbytes(length)])[: len(data) - start]
    path.write_bytes(data)


def sql(path, *statements):
    with contextlib.closing(sqlite3.connect(path)) as connection, connection:
        for statement, values in statements:
            connection.execute(statement, values)


def swap_values(path, generator):
    """Of one column, between two points."""
    column = generator.choice([*Row._fields[:4], "checksum"])
    with contextlib.closing(sqlite3.connect(path)) as connection:
        rows = connection.execute(f"SELECT rowid, {column} FROM points").fetchall()
    (one, first), (other, second) = generator.sample(rows, 2)
    change = f"UPDATE points SET {column} = ? WHERE rowid = ?"
    sql(path, (change, ("between", one)), (change, (first, other)), (change, (second, one)))


def edit_json(path, generator):
    column = generator.choice(["parameters", "result"])
    with contextlib.closing(sqlite3.connect(path)) as connection:
        rows = connection.execute(f"SELECT rowid, {column} FROM points").fetchall()
    rowid, text = generator.choice(rows)
    read = json.loads(text)
    name = generator.choice(list(read))
    values = [None, 0, 1.5, -1, 2**70, True, "x", "nan", [], {}, float("nan"), float("inf")]
    if generator.random() < 0.2:
        del read[name]
    else:
        read[name] = generator.choice(values)
    sql(path, (f"UPDATE points SET {column} = ? WHERE rowid = ?", (json.dumps(read), rowid)))


def put_other_value(path, generator):
    column = generator.choice([*Row._fields, "checksum"])
    rowid = generator.randint(1, 40)
    values = [None, b"\xff\x00", "", "x", 7, 1e300, "{}", "[" * 50_000, '{"lyapunov": NaN}', "9" * 5000]
    with contextlib.suppress(sqlite3.IntegrityError):
        sql(path, (f"UPDATE points SET {column} = ? WHERE rowid = ?", (generator.choice(values), rowid)))


def edit_meta(path, generator):
    name = generator.choice(["schema", "job", "kernel_version", "arithmetic", "points", "checksum"])
    if generator.random() < 0.3:
        sql(path, ("DELETE FROM meta WHERE name = ?", (name,)))
    else:
        value = generator.choice([None, 1, 2**40, "train", "numpy", b"\xff", "fastgrad/1", "40 0", 1.5])
        sql(path, ("UPDATE meta SET value = ? WHERE name = ?", (value, name)))


def delete_rows(path, generator):
    sql(path, ("DELETE FROM points WHERE rowid % 7 = ?", (generator.randrange(7),)))


def change_tables(path, generator):
    statement = generator.choice(
        [
            "DROP TABLE points",
            "DROP TABLE meta",
            "ALTER TABLE points ADD COLUMN more",
            "ALTER TABLE points DROP COLUMN checksum",
            "CREATE TRIGGER t AFTER INSERT ON points BEGIN UPDATE points SET result = '{}'; END",
            "CREATE VIEW v AS SELECT * FROM points",
            "CREATE INDEX i ON points (seconds)",
            "PRAGMA application_id = 5",
            "PRAGMA user_version = 5",
            "VACUUM",
        ]
    )
    with contextlib.closing(sqlite3.connect(path, isolation_level=None)) as connection:
        connection.execute(statement)


DAMAGES = [
    flip_bits,
    flip_bits,
    flip_bits,
    flip_bits_in_a_page,
    truncate,
    swap_pages,
    overwrite,
    swap_values,
    edit_json,
]
DAMAGES += [put_other_value, edit_meta, delete_rows, change_tables]


@pytest.fixture(scope="module")
def sound(tmp_path_factory, read):
    """A store of 40 points, and all that is read from it."""
    path = tmp_path_factory.mktemp("sound") / "study.db"
    fg.sweep(GRID, store=path, **GIVEN)
    told = {how: read(path, how) for how in READS}
    assert all(code == 0 and not stderr for code, _, stderr in told.values())
    return path, {how: result for how, (_, result, _) in told.items()}


READS = ("csv", "json", "plot", "merge")


@pytest.fixture(scope="module")
def read(cli):
    """Function that runs a command that reads a store: its exit code, what it gives, and its stderr."""

    def run(path, how):
        merged = path.with_name("merged.db")
        arguments = {
            "csv": ("export", path, "--format", "csv"),
            "json": ("export", path, "--format", "json"),
            "plot": ("plot", path, "--x", "weight.value", "--where", "seed=3", "--format", "json"),
            "merge": ("merge", path, "-o", merged),
            "salvage": ("merge", "--salvage", path, "-o", merged),
            "dry run": (*SWEEP, path, "--dry-run", "--format", "csv"),
        }[how]
        merged.unlink(missing_ok=True)
        result = cli(*arguments)
        given = result.stdout
        if how in ("merge", "salvage"):
            assert merged.exists() == (result.exit_code == 0)
            given = rows(merged) if merged.exists() else None
        elif how == "plot" and given:
            given = json.loads(given)["result"]
        return result.exit_code, given, result.stderr

    return run


def rows(path):
    """All points of a store, however it was made."""
    with Store.read(path) as store:
        return {row.key: row for row in store.rows()}


def resume(path, planned):
    """Results of the same sweep, in a store that may be damaged, and what was said; None where it was refused."""
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        try:
            with Store.write(path, planned.identity) as store:
                found = run(planned, store)
        except (OSError, ValueError) as error:
            return None, [str(error)]
    return found, [str(warning.message) for warning in caught]


def attack(sound, folder, seed, copies, read):
    """Damage copies, one after the other; what came of it, as counts by the way of reading."""
    path, expected = sound
    planned: Plan = plan(GRID, "simulate", **GIVEN)
    results = run(planned)
    counts = collections.Counter()
    generator = random.Random(seed)
    for i in range(copies):
        damage = DAMAGES[i % len(DAMAGES)]
        copy = shutil.copy(path, folder / f"{i}.db")
        damage(copy, generator)
        context = f"seed {seed}, copy {i}, {damage.__name__}"
        for how in (*READS, "salvage", "dry run"):
            code, given, stderr = read(copy, how)
            if how in READS and code == 0:
                assert given == expected[how], context
                assert stderr == "", context
            elif how == "salvage" and code == 0:
                assert given.items() <= expected["merge"].items(), context
            if code:
                assert (code in (1, 2), stderr.count("\n"), given or "") == (True, 1, ""), context
                assert stderr.startswith("fastgrad: "), context
            assert stderr.count("\n") <= 1, (context, stderr)
            counts[
                how, "sound" if code == 0 and not stderr else "sound, with a warning" if code == 0 else "refused"
            ] += 1
        found, told = resume(copy, planned)
        assert found in (None, results), context
        assert len(told) <= 1, (context, told)
        counts["resume", "refused" if found is None else "sound, with a warning" if told else "sound"] += 1
        if found is not None:  # then it is mended, but for what no point of this sweep explains
            code, given, stderr = read(copy, "csv")
            assert (given, stderr) == (expected["csv"], "") if code == 0 else "is damaged: row" in stderr, (
                context,
                stderr,
            )
            counts["export after it", "sound" if code == 0 else "refused"] += 1
        for file in folder.iterdir():
            file.unlink()
    return counts


def test_damaged_stores(sound, tmp_path, read):
    counts = attack(sound, tmp_path, 20260101, 26, read)
    assert counts["csv", "refused"] > 13
    assert counts["resume", "sound, with a warning"] > 6


@pytest.mark.slow
def test_many_damaged_stores(sound, tmp_path, read):
    attack(sound, tmp_path, 20260102, 40, read)


def test_a_damaged_store_on_the_command_line(sound, tmp_path):
    """With Python's own streams: one line, and no traceback."""
    path = shutil.copy(sound[0], tmp_path / "study.db")
    sql(path, ("UPDATE points SET result = ? WHERE rowid = 3", ("[" * 100_000,)))

    def command(*arguments):
        done = subprocess.run(
            [sys.executable, "-m", "fastgrad", *arguments], capture_output=True, text=True, timeout=60
        )
        return done.returncode, done.stdout, done.stderr

    code, stdout, stderr = command("export", str(path))
    assert (code, stdout, stderr.count("\n")) == (1, "", 1)
    assert "point depth 20, ensemble 8, weight constant:0.5, bias zero, x 0.5, seed 2" in stderr
    code, stdout, stderr = command(*SWEEP, str(path))
    assert (code, stderr.count("\n")) == (0, 1)
    assert stdout.startswith("simulate, 40 points: 39 done before, 1 now")
    assert stderr.startswith(f"fastgrad: warning: {path}: is damaged: point depth 20")
    assert command("export", str(path), "--format", "csv") == (0, sound[1]["csv"], "")
