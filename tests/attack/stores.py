"""Stores that are damaged, edited, foreign, or no stores: the numbers of the whole one, or an error."""

from __future__ import annotations

import contextlib
import csv
import io
import json
import re
import shutil
import sqlite3
from typing import TYPE_CHECKING

from attack.files import damage
from attack.shared import SWEEPS, store

if TYPE_CHECKING:
    import random
    from collections.abc import Callable
    from pathlib import Path

    from attack.core import Attempt, Done

DEEP = "[" * 100_000
VALUES = [None, "", "{}", "[]", "null", "1", "x", b"\x00\xff", DEEP, '{"a": ' * 50_000, 0, -1, 1e308, "NaN"]
VALUES += ['{"lyapunov": null}', '{"depth": 50}', '{"weight": 5}', '{"lyapunov": {}}', '"\\ud800"', "9" * 5000]
VALUES += ['{"lyapunov": NaN}', '{"lyapunov": 1e999}']
COLUMNS = ("key", "parameters", "result", "provenance", "seconds", "finished")


def bits(attempt: Attempt) -> None:
    """Damage anywhere in the file."""
    path = _copy(attempt)
    path.write_bytes(damage(attempt.rng, path.read_bytes()))
    _read(attempt)


def text_bits(attempt: Attempt) -> None:
    """One flipped bit within the numbers of a point, which leaves the file a whole SQLite file."""
    path, rng = _copy(attempt), attempt.rng
    data = bytearray(path.read_bytes())
    starts = [found.start() for found in re.finditer(rb'{"(lyapunov|depth|converged|fastgrad)"', data)]
    at = rng.choice(starts) + rng.randrange(120)
    data[at] ^= 1 << rng.randrange(7)
    path.write_bytes(data)
    _read(attempt)


def edits(attempt: Attempt) -> None:
    """Rows and columns changed by hand."""
    path, rng = _copy(attempt), attempt.rng
    with contextlib.closing(sqlite3.connect(path, isolation_level=None)) as db, contextlib.suppress(sqlite3.Error):
        for _ in range(rng.choice([1, 1, 2, 5])):
            rng.choice(EDITS)(db, rng)
    with contextlib.closing(sqlite3.connect(path)) as db:  # nothing is left beside the store
        db.execute("PRAGMA wal_checkpoint(TRUNCATE)")
    _read(attempt)


def foreign(attempt: Attempt) -> None:
    """Files that are no stores of ours: refused, and left as they are."""
    rng, path = attempt.rng, attempt.folder / "study.db"
    job = _prepare(attempt)
    kind = rng.choice(
        ["text", "header", "no tables", "other tables", "folder", "view", "columns", "meta only", "junk", "newer"]
    )
    if kind == "folder":
        path.mkdir()
    elif kind in ("text", "header", "junk"):
        content = {
            "text": b"hello\n" * 50,
            "header": b"SQLite format 3\0" + rng.randbytes(500),
            "junk": rng.randbytes(5000),
        }
        path.write_bytes(content[kind])
    else:
        with contextlib.closing(sqlite3.connect(path)) as db, db:
            db.execute("PRAGMA user_version = 7")
            if kind == "other tables":
                db.execute("CREATE TABLE people (name)")
            elif kind == "view":
                db.execute("CREATE TABLE meta (name TEXT PRIMARY KEY, value)")
                db.execute("CREATE VIEW points AS SELECT 1")
            elif kind in ("columns", "newer"):
                db.execute("CREATE TABLE meta (name TEXT PRIMARY KEY, value)")
                db.execute(
                    "CREATE TABLE points (key)" if kind == "columns" else "CREATE TABLE points (a, b, c, d, e, f, g, h)"
                )
                if rng.random() < 0.7:
                    db.execute(
                        f"INSERT INTO meta VALUES ('schema', '{'fastgrad/1' if kind == 'columns' else 'fastgrad/99'}')"
                    )
            elif kind == "meta only":
                db.execute("CREATE TABLE meta (name TEXT PRIMARY KEY, value)")
    done = _reader(attempt, job, rng.choice(["csv", "plot", "merge", "resume", "resume", "resume", "dry"]), writes=())
    attempt.check(not done.ok, f"{kind} was taken for a store")


def beside(attempt: Attempt) -> None:
    """Junk in the files that SQLite keeps beside a store."""
    path, rng = _copy(attempt), attempt.rng
    size = rng.choice([0, 1, 32, 512, 50_000])
    ending = rng.choice(["-wal", "-shm", "-journal"])
    path.with_name(f"study.db{ending}").write_bytes(rng.choice([rng.randbytes(size), bytes(size)]))
    _read(attempt)


# Edits


def _set(column: str) -> Callable[[sqlite3.Connection, random.Random], None]:
    def edit(db: sqlite3.Connection, rng: random.Random) -> None:
        value = rng.choice(VALUES)
        where = "" if rng.random() < 0.2 else f" WHERE rowid = {rng.randint(1, 6)}"
        db.execute(f"UPDATE points SET {column} = ?{where}", (value,))

    return edit


def _change_value(db: sqlite3.Connection, rng: random.Random) -> None:
    """One value in the JSON of a point, or one name."""
    row, column = rng.randint(1, 6), rng.choice(["parameters", "result", "provenance"])
    (text,) = db.execute(f"SELECT {column} FROM points WHERE rowid = {row}").fetchone()
    try:
        content = json.loads(text)
    except (TypeError, ValueError):  # an edit before this one has damaged it
        return
    if not isinstance(content, dict) or not content:
        return
    name = rng.choice(list(content))
    how = rng.choice(["value", "value", "number", "number", "drop", "rename", "add"])
    if how in ("drop", "rename"):
        old = content.pop(name)
        content |= {"renamed": old} if how == "rename" else {}
    elif how == "number" and isinstance(content[name], float | int):
        content[name] = rng.choice(
            [content[name] * 2, content[name] + 1e-3, -content[name], int(content[name]), 10**400]
        )
    else:
        new = rng.choice([None, "x", [], {}, 1, -1.5, True, "normal:std=4", "normal:std=-4", [[]]])
        content[name if how != "add" else "added"] = new
    db.execute(f"UPDATE points SET {column} = ? WHERE rowid = {row}", (json.dumps(content),))


def _exchange(db: sqlite3.Connection, rng: random.Random) -> None:
    """The results, parameters or keys of two points."""
    column = rng.choice(COLUMNS[:3])
    a, b = rng.sample(range(1, 7), 2)
    rows = dict(db.execute(f"SELECT rowid, {column} FROM points"))
    db.execute(f"UPDATE points SET {column} = ? WHERE rowid = {a}", ("",))
    db.execute(f"UPDATE points SET {column} = ? WHERE rowid = {b}", (rows[a],))
    db.execute(f"UPDATE points SET {column} = ? WHERE rowid = {a}", (rows[b],))


def _add_row(db: sqlite3.Connection, rng: random.Random) -> None:
    row = list(db.execute(f"SELECT {', '.join(COLUMNS)} FROM points LIMIT 1").fetchone())
    row[0] = rng.choice(["f" * 64, "", "zz", None, str(row[0])[::-1]])
    if rng.random() < 0.4:
        row[rng.randrange(1, 6)] = rng.choice(VALUES)
    db.execute(f"INSERT INTO points ({', '.join(COLUMNS)}) VALUES (?, ?, ?, ?, ?, ?)", row)


def _change_meta(db: sqlite3.Connection, rng: random.Random) -> None:
    names = [name for (name,) in db.execute("SELECT name FROM meta")]
    name, value = rng.choice(names), rng.choice([*VALUES, "train", "simulate", "numpy", 2, "1", "fastgrad/2"])
    if rng.random() < 0.3:
        db.execute("DELETE FROM meta WHERE name = ?", (name,))
    else:
        db.execute("UPDATE meta SET value = ? WHERE name = ?", (value, name))


STATEMENTS = """DROP TABLE points
DROP TABLE meta
DELETE FROM meta
CREATE TABLE more (a)
ALTER TABLE points RENAME COLUMN result TO results
ALTER TABLE points RENAME TO others
ALTER TABLE points ADD COLUMN more
ALTER TABLE points DROP COLUMN seconds
CREATE TRIGGER t AFTER INSERT ON points BEGIN DELETE FROM points; END
PRAGMA journal_mode = DELETE
PRAGMA user_version = 99"""


def _change_tables(db: sqlite3.Connection, rng: random.Random) -> None:
    db.execute(rng.choice(STATEMENTS.splitlines()))


EDITS = (*map(_set, COLUMNS), _change_value, _change_value, _change_value, _exchange, _exchange, _add_row)
EDITS += (_change_meta, _change_tables)


# Reading


def _copy(attempt: Attempt) -> Path:
    """A copy of the whole store in the attempt's folder."""
    job = _prepare(attempt)
    path = attempt.folder / "study.db"
    shutil.copy(store(attempt, job) / "study.db", path)
    return path


def _prepare(attempt: Attempt) -> str:
    attempt.job = attempt.rng.choice(list(SWEEPS))
    return attempt.job


def _read(attempt: Attempt) -> None:
    """Read the copy in two ways, and compare what is given with the whole store."""
    for way in attempt.rng.sample(["csv", "json", "plot", "merge", "resume", "dry"], 2):
        before = (attempt.folder / "study.db").read_bytes()
        done = _reader(
            attempt, attempt.job, way, writes=("study.db", "study.db-wal", "study.db-shm", "study.db-journal")
        )
        if done.ok:
            _compare(attempt, done, way)
        if way in ("csv", "json", "plot", "dry"):
            (attempt.folder / "study.db").write_bytes(before)


def _reader(attempt: Attempt, job: str, way: str, writes: tuple[str, ...]) -> Done:
    whole = store(attempt, job) / "study.db"
    commands = {
        "csv": ["export", "study.db", "--format", "csv"],
        "json": ["export", "study.db", "--format", "json"],
        "plot": ["plot", "study.db", "--format", "csv"],
        "merge": ["merge", *attempt.rng.sample(["study.db", str(whole)], 2), "-o", "merged.db"],
        "resume": ["sweep", *SWEEPS[job], "--backend", "cpp", "--store", "study.db", "--format", "csv"],
        "dry": ["sweep", *SWEEPS[job], "--backend", "cpp", "--store", "study.db", "--dry-run", "--format", "csv"],
    }
    return attempt.run(*commands[way], named=["study.db"], writes=(*writes, "merged.db"), timeout=60)


def _compare(attempt: Attempt, done: Done, way: str) -> None:
    """Every point that is shown must be one of the whole store's, and a sweep or merge must give all of them."""
    whole = store(attempt, attempt.job)
    if way == "json":
        known = json.loads((whole / "study.json").read_text())["result"]["points"]
        attempt.check(all(point in known for point in done.json()["result"]["points"]), "a point that there is not")
        return
    if way == "dry":
        return
    known_rows = _rows((whole / "study.csv").read_text())
    if way == "plot":
        for row in _rows(done.text()):
            held = any(all(item in known.items() for item in row.items()) for known in known_rows)
            attempt.check(held, f"a point that there is not: {row}")
        return
    if way == "merge":
        done = attempt.run("export", "merged.db", "--format", "csv")
        attempt.check(done.ok, "merge wrote what can't be read")
        (attempt.folder / "merged.db").unlink(missing_ok=True)
    rows = _rows(done.text())
    attempt.check(all(row in known_rows for row in rows), f"{way} shows a point that there is not")
    if way in ("merge", "resume"):
        attempt.check(len(rows) == len(known_rows), f"{way} gives {len(rows)} of {len(known_rows)} points")


def _rows(text: str) -> list[dict[str, str]]:
    return list(csv.DictReader(io.StringIO(text)))


ATTACKS = (bits, bits, text_bits, text_bits, edits, edits, edits, foreign, beside)
