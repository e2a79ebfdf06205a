"""The store of a sweep: an SQLite file with one row a point, each written in a transaction of its own.

In WAL mode, so that it can be read while a sweep writes it, and with every transaction flushed to the disk: what was
finished stays, whatever ends the process. The file belongs on a local disk, as WAL asks for.

Damage is noticed at every read. A row has a SHA-256 over all that is stored of its point, and its key is the hash of
its parameters; the table meta has a checksum of its own, and keeps the number of points and the sum of their keys,
from which a lost row is missing. A store of schema fastgrad/1 has none of these but the keys: it is read with a
warning, and gets them when it is first written to.
"""

from __future__ import annotations

import errno
import hashlib
import json
import math
import os
import re
import sqlite3
import stat
import time
import warnings
from contextlib import closing, contextmanager, suppress
from datetime import UTC, datetime
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple, Self

from fastgrad.sweeps.plan import point_key, point_text, stored_form
from fastgrad.sweeps.points import check_identity, check_result, checked_point

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator
    from types import TracebackType

    from fastgrad.sweeps.plan import Identity

STORE_SCHEMA, UNCHECKED_STORE_SCHEMA = "fastgrad/2", "fastgrad/1"
APPLICATION_ID = int.from_bytes(b"fgrd")  # in the header of an SQLite file, for `file` and for us
BUSY_SECONDS = 10.0  # how long to wait for another writer
TEXT_MAX = 10**6  # bytes of a text in a store; a point has about a thousand
META = "CREATE TABLE meta (name TEXT PRIMARY KEY, value)"
COLUMNS = "key TEXT PRIMARY KEY, parameters TEXT, result TEXT, provenance TEXT, seconds REAL, finished TEXT"
POINTS = f"CREATE TABLE points ({COLUMNS}, checksum TEXT)"
UNCHECKED_POINTS = f"CREATE TABLE points ({COLUMNS})"
SELECT = "SELECT rowid, key, parameters, result, provenance, seconds, finished, {} FROM points NOT INDEXED"
INSERT = "INSERT INTO points VALUES (?, ?, ?, ?, ?, ?, ?) ON CONFLICT DO NOTHING"
KEYS = 2**256  # of which the sum of keys is a remainder
SALVAGE_ROWS = 10**6  # that are looked for one by one where SQLite can't read on
MEND = "run the same sweep again, which does this point alone again, or `fastgrad merge COPY -o {0}`"
SALVAGE = "`fastgrad merge --salvage {0} -o NEW` writes what is sound in it to a new store, and the sweep goes on there"
# Words for the errors that a user can meet, by how SQLite's names of them begin.
REASONS = {
    "SQLITE_FULL": "the disk is full; what was finished before is kept",
    "SQLITE_READONLY": "is read-only",
    "SQLITE_BUSY": f"is being written by another process (waited {BUSY_SECONDS:g} s)",
    "SQLITE_CANTOPEN": "can't be opened; is its folder there, and writable?",
    "SQLITE_IOERR": "can't be read or written; is the disk full?",
    "SQLITE_CORRUPT": "is damaged",
}


class DamagedStoreError(OSError):
    """A store holds something that was not written so; the message says what, and what mends it."""


class Row(NamedTuple):
    """A point as it is stored; the dicts are JSON."""

    key: str
    parameters: str
    result: str
    provenance: str
    seconds: float
    finished: str

    @property
    def checksum(self) -> str:
        """SHA-256 of all the rest."""
        return _digest(list(self))


class StoredPoint(NamedTuple):
    """A point that was found sound, as it is stored and as it is read."""

    row: Row
    parameters: dict[str, Any]
    result: dict[str, Any]


class Damage(NamedTuple):
    """A row that is damaged: the keys of the points that it may have been, and a text that names it."""

    rowid: int
    keys: frozenset[str]
    text: str


class Contents(NamedTuple):
    """All that a store holds.

    Attributes
    ----------
    points : dict
        The points that are sound, by key and in the order of their keys.
    damaged : list of Damage
    lost : bool
        Whether points are missing that were there, beside those that are damaged.
    """

    points: dict[str, StoredPoint]
    damaged: list[Damage]
    lost: bool

    @property
    def damage(self) -> str | None:
        """Damage in a few words; None if all is sound."""
        if self.damaged:
            more = f" (and {len(self.damaged) - 1} more)" if len(self.damaged) > 1 else ""
            return self.damaged[0].text + more
        return "points that were written are no longer there" if self.lost else None


class Store:
    """A store that is open; a context manager. Use `write` or `read` to open one.

    Attributes
    ----------
    path : str
    identity : dict
        What all its points have in common: ``job``, ``kernel_version`` and ``arithmetic``.
    """

    def __init__(self, path: str, connection: sqlite3.Connection) -> None:
        self.path, self._connection = path, connection
        self.identity: Identity = {}
        self._checked = True  # whether it has checksums

    @classmethod
    def write(cls, path: str | os.PathLike[str], identity: Identity) -> Self:
        """Open a store to add points of this identity to it; make it if there is none.

        Damaged points stay until they are added again. Warns of them, and of a store without checksums, which gets
        them. Damage to the identity is mended where points prove it by their keys.

        Raises
        ------
        ValueError
            If the file is no store, or one of another identity: the message says which.
        OSError
            If it can't be written, or is damaged as an SQLite file.
        """
        path = _path(path)
        _require_store(path)
        if Path(path).exists() and not (os.access(path, os.W_OK) and os.access(_real(path).parent, os.W_OK)):
            raise OSError(f"{path}: is read-only, or its folder is")
        store = cls(path, _connect(path, "mode=rwc"))
        with store._closed_on_error(), _clear_errors(store.path):
            store._connection.execute("PRAGMA synchronous = FULL")
            if store._is_empty():  # one transaction, so that a file is empty or a store
                with store._transaction() as cursor:
                    if store._is_empty():
                        cursor.execute(f"PRAGMA application_id = {APPLICATION_ID}")
                        cursor.execute(META)
                        cursor.execute(POINTS)
                        store._write_meta(identity, {})
            damage = store._identify(identity)
            store.require(identity)
            store._require_sqlite_sound()
            store._make_wal()
            store._mend(damage)
            with store._transaction():  # to learn now, not after the first point, that it can't be written
                pass
        return store

    @classmethod
    def read(cls, path: str | os.PathLike[str], identity: Identity | None = None) -> Self:
        """Open a store for the points it has, of this identity if one is given; another process may be writing it.

        Warns of a store without checksums.

        Raises
        ------
        ValueError
            If the file is no store, or one of another identity.
        OSError
            If it can't be read, or its identity is damaged.
        """
        path = _path(path)
        if not Path(path).exists():
            raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT), path)
        if not _require_store(path):
            raise ValueError(f"{path}: holds no sweep yet")
        real = _real(path)
        # SQLite keeps two files beside a WAL store while it is open. Where it can't make them, nobody writes either.
        alone = not os.access(real.parent, os.W_OK) and not real.with_name(f"{real.name}-wal").exists()
        store = cls(path, _connect(path, "immutable=1" if alone else "mode=rw"))
        with store._closed_on_error(), _clear_errors(store.path):
            damage = store._identify(None)
            if damage is not None:
                raise DamagedStoreError(f"{path}: {damage}; run the same sweep again, which mends it")
            store.require(identity or {})
            if not store._checked:
                store._require_sqlite_sound()
                store._warn("is of an older version, without checksums: damage to its numbers can't be noticed")
        return store

    # Its frame: tables and identity

    def _make_wal(self) -> None:
        """Switch to WAL, which the file keeps. Here SQLite does not wait for another process that does the same."""
        deadline = time.monotonic() + BUSY_SECONDS
        while True:
            try:
                self._connection.execute("PRAGMA journal_mode = WAL")
                return
            except sqlite3.OperationalError as error:
                if error.sqlite_errorcode & 0xFF != sqlite3.SQLITE_BUSY or time.monotonic() > deadline:
                    raise
                time.sleep(0.01)

    def _is_empty(self) -> bool:
        (tables,) = self._connection.execute("SELECT count(*) FROM sqlite_master").fetchone()
        return int(tables) == 0

    def _identify(self, expected: Identity | None) -> str | None:
        """Read what all points have in common, or take it as `expected`; return what is damaged in it."""
        with self._snapshot():
            self._checked = _has_checksums(self.path, self._connection)
            meta = self._meta()
        schema = STORE_SCHEMA if self._checked else UNCHECKED_STORE_SCHEMA
        schema_found = meta.get("schema")
        if schema_found != schema and isinstance(schema_found, str) and schema_found.startswith("fastgrad/"):
            raise ValueError(f"{self.path}: is of schema {schema_found}, expected {schema}")
        self.identity = {name: meta.get(name) for name in ("job", "kernel_version", "arithmetic")}
        if self._checked:
            sound = meta.get("checksum") == _meta_checksum(meta) and _tally(meta) is not None
        else:
            sound = meta.keys() == {"schema", *self.identity}
        if sound and schema_found == schema and check_identity(self.identity):
            return None
        self.identity = dict(expected or {})
        return "what its points have in common is damaged"

    def _meta(self) -> dict[Any, Any]:
        return dict(self._connection.execute("SELECT name, value FROM meta NOT INDEXED").fetchall())

    def _write_meta(self, identity: Identity, keys: Iterable[str]) -> None:
        """Write the table meta for points of these keys; in a transaction."""
        keys = list(keys)
        meta = {"schema": STORE_SCHEMA, **identity, "points": _tally_text(len(keys), sum(int(key, 16) for key in keys))}
        self._connection.execute("DELETE FROM meta")
        self._connection.executemany(
            "INSERT INTO meta VALUES (?, ?)", [*meta.items(), ("checksum", _meta_checksum(meta))]
        )

    def _keys(self) -> list[str]:
        """Keys as they are in the table; 0 for one that is none."""
        keys = self._connection.execute("SELECT key FROM points NOT INDEXED")
        return [key if _is_key(key) else "0" for (key,) in keys]

    def require(self, identity: Identity) -> None:
        """Raise ValueError, with both, if the store holds points of another identity."""
        different = [name for name in identity if identity[name] != self.identity.get(name)]
        if different:
            held, expected = (
                ", ".join(f"{name.replace('_', ' ')} {of.get(name)}" for name in different)
                for of in (self.identity, identity)
            )
            raise ValueError(f"{self.path}: holds points of {held}, expected {expected}; use another file")

    def _require_sqlite_sound(self) -> None:
        """Let SQLite look at its own structure: a write to a broken tree would lose more. About 1 s for 10^5 points."""
        (verdict,) = self._connection.execute("PRAGMA integrity_check(1)").fetchone()
        if verdict != "ok":
            raise DamagedStoreError(
                f"{self.path}: is damaged as an SQLite file ({' '.join(verdict.split())}); {SALVAGE.format(self.path)}"
            )

    def _mend(self, damage: str | None) -> None:
        """Give it checksums if it has none, and a sound table meta; warn of what is damaged."""
        contents = self.contents
        if damage is not None and not contents.points:
            raise DamagedStoreError(f"{self.path}: {damage}, and no sound point tells it; use another file")
        if damage is not None or contents.lost or not self._checked:
            with self._transaction() as cursor:
                if not self._checked:
                    cursor.execute("ALTER TABLE points ADD COLUMN checksum TEXT")
                    cursor.executemany(
                        "UPDATE points SET checksum = ? WHERE key = ?",
                        ((point.row.checksum, key) for key, point in contents.points.items()),
                    )
                    cursor.execute(f"PRAGMA application_id = {APPLICATION_ID}")
                self._write_meta(self.identity, self._keys())
        if not self._checked:
            self._checked = True
            self._warn("had no checksums, being of an older version, and has them from now on")
        self.warn_of_damage(damage)

    def warn_of_damage(self, damage: str | None = None) -> None:
        """Warn of what is damaged, if anything is, in a sweep, which can mend it."""
        damage = damage if damage is not None else self.contents.damage
        if damage is not None:
            self._warn(f"is damaged: {damage}; points of this sweep that are not sound are done again")

    def _warn(self, text: str) -> None:
        warnings.warn(f"{self.path}: {text}", stacklevel=4)

    # Its points

    def __len__(self) -> int:
        with _clear_errors(self.path):
            (count,) = self._connection.execute("SELECT count(*) FROM points").fetchone()
        return int(count)

    @cached_property
    def contents(self) -> Contents:
        """All that it held when this was first asked for, each row checked."""
        with _clear_errors(self.path), self._snapshot():
            return self._read_contents(self._stored(), _tally(self._meta()) if self._checked else None)

    def salvaged(self) -> Contents:
        """Return what can still be read, on both sides of what SQLite can't read."""
        with _clear_errors(self.path):
            return self._read_contents(self._salvaged(), _tally(self._meta()) if self._checked else None)

    def _read_contents(self, stored: Iterable[tuple[Any, ...]], tally: tuple[int, int] | None) -> Contents:
        points: dict[str, StoredPoint] = {}
        damaged = []
        for row in stored:
            point = self._checked_point(*row)
            if isinstance(point, Damage):
                damaged.append(point)
            elif point.row.key in points:
                damaged.append(Damage(row[0], frozenset(), f"{point_text(point.parameters)}: is there twice"))
            else:
                points[point.row.key] = point
        lost = False
        if tally is not None:
            count, total = tally
            rest = (total - sum(int(key, 16) for key in points)) % KEYS
            lost = len(points) + len(damaged) != count or (not damaged and rest != 0)
        return Contents(dict(sorted(points.items())), damaged, lost)

    def _stored(self, more: str = "") -> Iterator[tuple[Any, ...]]:
        """Rows as they are, in the order of the table itself: an index that is damaged would lose some."""
        yield from self._connection.execute(f"{SELECT.format('checksum' if self._checked else 'NULL')} {more}")

    def _salvaged(self) -> Iterator[tuple[Any, ...]]:
        """Rows from both ends up to what SQLite can't read, and then one by one between."""
        low = 0
        try:
            for row in self._stored("ORDER BY rowid"):
                low = row[0]
                yield row
            return
        except sqlite3.DatabaseError:
            high = low + SALVAGE_ROWS
        with suppress(sqlite3.DatabaseError):
            for row in self._stored(f"WHERE rowid > {low} ORDER BY rowid DESC"):
                high = row[0]
                yield row
        for rowid in range(low + 1, min(high, low + SALVAGE_ROWS)):
            with suppress(sqlite3.DatabaseError):
                yield from self._stored(f"WHERE rowid = {rowid}")

    def _checked_point(self, rowid: int, *columns: Any) -> StoredPoint | Damage:
        """Check a row: the one place where that is done."""
        row, checksum = Row._make(columns[:-1]), columns[-1]
        job = self.identity["job"]
        keys = {row.key}
        name = f"point {row.key}" if _is_key(row.key) else f"row {rowid}"
        try:
            parameters = checked_point(job, _json_object("parameters", row.parameters))
            keys.add(point_key(self.identity, parameters))
            name = point_text(parameters)
            if self._checked and (any(isinstance(value, bytes) for value in row) or checksum != row.checksum):
                raise ValueError("its checksum does not fit")
            if not (isinstance(row.seconds, float) and 0 <= row.seconds < math.inf and isinstance(row.finished, str)):
                raise ValueError("seconds, finished: expected a number and a date")
            if len(keys) > 1:
                raise ValueError("its key is not the hash of its parameters")
            result = _json_object("result", row.result)
            check_result(job, result)
            _json_object("provenance", row.provenance)
        except ValueError as error:
            return Damage(rowid, frozenset(filter(_is_key, keys)), f"{name}: {error}")
        return StoredPoint(row, parameters, result)

    def rows(self) -> list[Row]:
        """All points, in the order of their keys.

        Raises
        ------
        DamagedStoreError
            If one is damaged or lost.
        """
        return [point.row for point in self._sound().values()]

    def points(self) -> Iterator[tuple[str, dict[str, Any], dict[str, Any]]]:
        """Key, parameters and result of each point, in the order of their keys; errors as of `rows`."""
        for key, point in self._sound().items():
            yield key, point.parameters, point.result

    def _sound(self) -> dict[str, StoredPoint]:
        if self.contents.damage is not None:
            raise DamagedStoreError(f"{self.path}: is damaged: {self.contents.damage}; {MEND.format(self.path)}")
        return self.contents.points

    def origins(self) -> list[dict[str, Any]]:
        """Provenances of the points, but for their seeds, each with the number of its points and their dates."""
        found: dict[str, dict[str, Any]] = {}
        for point in self.contents.points.values():
            made = {name: value for name, value in json.loads(point.row.provenance).items() if name != "seed"}
            finished = point.row.finished
            of = found.setdefault(json.dumps(made), {"points": 0, "first": finished, "last": finished, **made})
            of["points"] += 1
            of["first"], of["last"] = min(of["first"], finished), max(of["last"], finished)
        return list(found.values())

    def seconds(self) -> list[float]:
        """Seconds that each sound point took."""
        return [point.row.seconds for point in self.contents.points.values()]

    def add(
        self,
        key: str,
        parameters: dict[str, Any],
        result: dict[str, Any],
        provenance: dict[str, Any],
        seconds: float,
    ) -> None:
        """Write a point; one that is there already stays as it is, unless it was found damaged.

        Raises
        ------
        OSError
            If it can't be written; the points before it are kept.
        """
        finished = datetime.now(UTC).isoformat(timespec="seconds")
        parts = stored_form(self.identity["job"], parameters), result, provenance
        texts = [json.dumps(part, allow_nan=False) for part in parts]
        self.add_rows([Row(key, texts[0], texts[1], texts[2], float(seconds), finished)])

    def add_rows(self, rows: Iterable[Row]) -> None:
        """Write points in one transaction: all of them or none."""
        with _clear_errors(self.path), self._transaction() as cursor:
            meta = self._meta()
            tally = _tally(meta)
            if tally is None or meta.get("checksum") != _meta_checksum(meta):
                raise DamagedStoreError(f"{self.path}: was damaged while it was open")
            count, total = tally
            replaced = False
            for row in rows:
                replaced |= self._remove_damaged(row.key)
                cursor.execute(INSERT, (*row, row.checksum))
                if cursor.rowcount:
                    count, total = count + 1, total + int(row.key, 16)
            if replaced:  # of what key was it when it was counted?
                self._write_meta(self.identity, self._keys())
                return
            meta["points"] = _tally_text(count, total)
            changed = [("points", meta["points"]), ("checksum", _meta_checksum(meta))]
            cursor.executemany("UPDATE meta SET value = ?2 WHERE name = ?1", changed)

    def _remove_damaged(self, key: str) -> bool:
        """Remove a row that was found damaged and may have been this point; unless another process has done it."""
        removed = False
        for rowid in (of.rowid for of in self.contents.damaged if key in of.keys):
            for row in list(self._stored(f"WHERE rowid = {rowid}")):
                if isinstance(self._checked_point(*row), Damage):
                    self._connection.execute("DELETE FROM points WHERE rowid = ?", (rowid,))
                    removed = True
        return removed

    @contextmanager
    def _transaction(self) -> Iterator[sqlite3.Cursor]:
        cursor = self._connection.execute("BEGIN IMMEDIATE")
        try:
            yield cursor
            cursor.execute("COMMIT")
        except BaseException:
            if self._connection.in_transaction:  # SQLite has rolled back already where the disk is full
                cursor.execute("ROLLBACK")
            raise

    @contextmanager
    def _snapshot(self) -> Iterator[None]:
        """Read as it is now, whatever another process writes meanwhile."""
        self._connection.execute("BEGIN")
        try:
            yield
        finally:
            if self._connection.in_transaction:
                self._connection.execute("ROLLBACK")

    @contextmanager
    def _closed_on_error(self) -> Iterator[None]:
        try:
            yield
        except BaseException:
            self._connection.close()
            raise

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, _: TracebackType | None) -> None:
        self._connection.close()


def merge(sources: Iterable[str | os.PathLike[str]], target: str | os.PathLike[str], *, salvage: bool = False) -> int:
    """Write the points of several stores into one, which is made, or extended if it is there.

    A point that is damaged in one of them is taken from another that has it, also in `target`.

    Parameters
    ----------
    salvage : bool
        Leave out, with a warning, what is damaged or lost and in no other store, instead of failing; `target` must
        be new then.

    Returns
    -------
    int
        How many points `target` then holds.

    Raises
    ------
    ValueError
        If a file is no store, if they differ in job, kernel version or arithmetic, or if a point has different results;
        nothing is written then.
    OSError
        If a file can't be read, or `target` not be written; DamagedStoreError, which is one, for damage that nothing
        mends. Nothing is written then either.
    """
    identity: Identity = {}
    merged: dict[str, tuple[StoredPoint, str]] = {}
    stores: list[tuple[str, Contents]] = []
    if salvage and Path(target).exists():
        raise ValueError(f"{target}: is there already, expected a new store for what is salvaged")
    for path in [*sources, *([target] if Path(target).exists() else [])]:
        with Store.read(path, identity) as store:
            identity = store.identity
            contents = store.salvaged() if salvage else store.contents
            stores.append((store.path, contents))
            for key, point in contents.points.items():
                first, first_path = merged.setdefault(key, (point, store.path))
                if first.row.result != point.row.result:
                    raise ValueError(
                        f"{path}: has another result than {first_path} for the {point_text(point.parameters)}"
                    )
    for path, contents in stores:
        left = [of for of in contents.damaged if not of.keys & merged.keys()]
        told = Contents({}, left, contents.lost).damage
        if told is not None and not salvage:
            raise DamagedStoreError(f"{path}: is damaged: {told}; {MEND.format(path)}, or {SALVAGE.format(path)}")
        if told is not None:
            warnings.warn(f"{path}: is damaged, and left out is: {told}", stacklevel=2)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # what is damaged in the target is replaced
        with Store.write(target, identity) as store:
            store.add_rows(point.row for point, _ in merged.values())
            return len(store)


def _real(path: str | os.PathLike[str]) -> Path:
    try:
        return Path(os.path.realpath(path))
    except FileNotFoundError:
        raise FileNotFoundError(errno.ENOENT, "the working folder is no longer there", os.fspath(path)) from None


def _path(path: Any) -> str:
    """Check the name of a store."""
    try:
        text = os.fspath(path)
    except TypeError:
        text = path
    if not isinstance(text, str):
        raise TypeError(f"store: expected a path, got {path!r}")
    if not text or "\0" in text:
        raise ValueError(f"store: expected the name of a file, got {text!r}")
    return text


def _require_store(path: str) -> bool:
    """Refuse a file that is no store, without a change to it; False if it is empty, or not there."""
    real = _real(path)
    try:
        mode = real.stat().st_mode
    except OSError:
        return False
    if stat.S_ISDIR(mode):  # of which SQLite says that it can't be opened
        return False
    if not stat.S_ISREG(mode):
        raise OSError(f"{path}: is a pipe or a device, expected a file")
    with real.open("rb") as file:
        header = file.read(72)
    if not header:
        return False
    if header.startswith(b"SQLite format 3\0") and int.from_bytes(header[68:]) == APPLICATION_ID:
        return True
    # An older store, or no store. SQLite itself reads no more than it must if there is no WAL to look into.
    query = "mode=ro" if real.with_name(f"{real.name}-wal").exists() else "immutable=1"
    with _clear_errors(path), closing(_connect(path, query)) as connection:
        _has_checksums(path, connection)
    return True


def _has_checksums(path: str, connection: sqlite3.Connection) -> bool:
    """Tell if the tables are those of a store with checksums, or of one without; refuse others."""
    objects = connection.execute("SELECT type, name, sql FROM sqlite_master").fetchall()
    tables = {name: "".join(sql.split()) for kind, name, sql in objects if name in ("meta", "points")}
    if not any(kind == "trigger" for kind, _, _ in objects) and tables.keys() == {"meta", "points"}:
        for points, checked in ((POINTS, True), (UNCHECKED_POINTS, False)):
            if tables == {"meta": "".join(META.split()), "points": "".join(points.split())}:
                return checked
    if connection.execute("PRAGMA application_id").fetchone() == (APPLICATION_ID,):
        raise DamagedStoreError(f"{path}: is damaged as an SQLite file (its tables are others)")
    raise ValueError(f"{path}: is no store of a sweep, but another SQLite file")


def _connect(path: str, query: str) -> sqlite3.Connection:
    with _clear_errors(path):
        # Without an isolation level Python opens no transactions of its own.
        connection = sqlite3.connect(
            f"{_real(path).as_uri()}?{query}", uri=True, timeout=BUSY_SECONDS, isolation_level=None
        )
        connection.text_factory = lambda text: text.decode("utf-8", "surrogateescape")  # damaged text is no error yet
        connection.setlimit(sqlite3.SQLITE_LIMIT_LENGTH, TEXT_MAX)
        connection.execute("PRAGMA cell_size_check = ON")
        connection.execute("PRAGMA trusted_schema = OFF")
        return connection


@contextmanager
def _clear_errors(path: str) -> Iterator[None]:
    """Say what SQLite's errors mean for a store."""
    try:
        yield
    except sqlite3.Error as error:
        name = getattr(error, "sqlite_errorname", None) or ""
        if name == "SQLITE_NOTADB":
            raise ValueError(f"{path}: is no store of a sweep, but another kind of file") from None
        reason = next((text for prefix, text in REASONS.items() if name.startswith(prefix)), None)
        if reason is None or name.startswith("SQLITE_CORRUPT"):
            raise DamagedStoreError(
                f"{path}: is damaged as an SQLite file ({error}); {SALVAGE.format(path)}"
            ) from error
        raise OSError(f"{path}: {reason}") from error


def _digest(values: Any) -> str:
    return hashlib.sha256(json.dumps(values, sort_keys=True).encode()).hexdigest()


def _meta_checksum(meta: dict[str, Any]) -> str | None:
    """SHA-256 of the table meta; None where it holds what can't be a store's."""
    try:
        return _digest({name: value for name, value in meta.items() if name != "checksum"})
    except (TypeError, ValueError):
        return None


def _tally(meta: dict[str, Any]) -> tuple[int, int] | None:
    """Number of points that were written, and the sum of their keys."""
    matched = re.fullmatch("([0-9]{1,18}) ([0-9a-f]{64})", str(meta.get("points")))
    return None if matched is None else (int(matched[1]), int(matched[2], 16))


def _tally_text(count: int, total: int) -> str:
    return f"{count} {total % KEYS:064x}"


def _is_key(text: Any) -> bool:
    return isinstance(text, str) and re.fullmatch("[0-9a-f]{64}", text) is not None


def _json_object(name: str, text: Any) -> dict[str, Any]:
    """Read a dict of plain values that was written as JSON."""
    try:
        value = json.loads(text)
    except (TypeError, ValueError, RecursionError):
        value = None
    if not isinstance(text, str) or not isinstance(value, dict):
        raise ValueError(f"its {name} can't be read")
    return value
