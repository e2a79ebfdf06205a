"""The store of a sweep: an SQLite file with one row a point, each written in a transaction of its own.

In WAL mode, so that it can be read while a sweep writes it, and with every transaction flushed to the disk: what was
finished stays, whatever ends the process. The file belongs on a local disk, as WAL asks for.
"""

from __future__ import annotations

import errno
import json
import os
import time
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple, Self

if TYPE_CHECKING:
    import sqlite3
    from collections.abc import Iterable, Iterator
    from types import TracebackType

SCHEMA = "fastgrad/1"
BUSY_SECONDS = 10.0  # how long to wait for another writer
TABLES = """
CREATE TABLE IF NOT EXISTS meta (name TEXT PRIMARY KEY, value);
CREATE TABLE IF NOT EXISTS points (
    key TEXT PRIMARY KEY, parameters TEXT, result TEXT, provenance TEXT, seconds REAL, finished TEXT
)
"""
# What to say for the errors that a user can meet; SQLite's names begin so.
REASONS = {
    "SQLITE_FULL": "the disk is full; what was finished before is kept",
    "SQLITE_READONLY": "is read-only",
    "SQLITE_BUSY": f"is being written by another process (waited {BUSY_SECONDS:g} s)",
    "SQLITE_CANTOPEN": "can't be opened; is its folder there, and writable?",
    "SQLITE_IOERR": "can't be read or written; is the disk full?",
    "SQLITE_CORRUPT": "is damaged",
}

Identity = dict[str, str | int]


class Row(NamedTuple):
    """A point as it is stored; the dicts are JSON."""

    key: str
    parameters: str
    result: str
    provenance: str
    seconds: float
    finished: str


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

    @classmethod
    def write(cls, path: str | os.PathLike[str], identity: Identity) -> Self:
        """Open a store to add points of this identity to it; make it if there is none.

        Raises
        ------
        ValueError
            If the file is no store, or one of another identity: the message says which.
        OSError
            If it can't be written.
        """
        if Path(path).exists() and not (os.access(path, os.W_OK) and os.access(_real(path).parent, os.W_OK)):
            raise OSError(f"{path}: is read-only, or its folder is")
        store = cls(os.fspath(path), _connect(path, "mode=rwc"))
        with store._closed_on_error(), _clear_errors(store.path):
            store._connection.execute("PRAGMA synchronous = FULL")
            if store._is_new():  # nothing is written to a file that turns out to be something else
                store._make_wal()
                with store._transaction() as cursor:
                    for table in TABLES.split(";"):
                        cursor.execute(table)
                    meta = {"schema": SCHEMA, **identity}
                    cursor.executemany("INSERT INTO meta VALUES (?, ?) ON CONFLICT DO NOTHING", meta.items())
            store._identify()
            store.require(identity)
            with store._transaction():  # to learn now, not after the first point, that it can't be written
                pass
        return store

    @classmethod
    def read(cls, path: str | os.PathLike[str], identity: Identity | None = None) -> Self:
        """Open a store for the points it has, of this identity if one is given; another process may be writing it.

        Raises
        ------
        ValueError
            If the file is no store, or one of another identity.
        OSError
            If it can't be read.
        """
        if not Path(path).exists():
            raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT), os.fspath(path))
        real = _real(path)
        # SQLite keeps two files beside a WAL store while it is open. Where it can't make them, nobody writes either.
        alone = not os.access(real.parent, os.W_OK) and not real.with_name(f"{real.name}-wal").exists()
        store = cls(os.fspath(path), _connect(path, "immutable=1" if alone else "mode=rw"))
        with store._closed_on_error(), _clear_errors(store.path):
            if store._is_new():
                raise ValueError(f"{path}: holds no sweep yet")
            store._identify()
            store.require(identity or {})
        return store

    def _make_wal(self) -> None:
        """Switch to WAL, which the file keeps. Here SQLite does not wait for another process that does the same."""
        import sqlite3  # here: import fastgrad stays light

        deadline = time.monotonic() + BUSY_SECONDS
        while True:
            try:
                self._connection.execute("PRAGMA journal_mode = WAL")
                return
            except sqlite3.OperationalError as error:
                if error.sqlite_errorcode & 0xFF != sqlite3.SQLITE_BUSY or time.monotonic() > deadline:
                    raise
                time.sleep(0.01)

    def _is_new(self) -> bool:
        found = {name for (name,) in self._connection.execute("SELECT name FROM sqlite_master WHERE type = 'table'")}
        if found and not {"meta", "points"} <= found:
            raise ValueError(f"{self.path}: is no store of a sweep, but another SQLite file")
        return not found

    def _identify(self) -> None:
        self.identity = dict(self._connection.execute("SELECT name, value FROM meta"))
        schema = self.identity.pop("schema", None)
        if schema != SCHEMA:
            raise ValueError(f"{self.path}: is of schema {schema}, expected {SCHEMA}")

    def require(self, identity: Identity) -> None:
        """Raise ValueError, with both, if the store holds points of another identity."""
        different = [name for name in identity if identity[name] != self.identity.get(name)]
        if different:
            held, expected = (
                ", ".join(f"{name.replace('_', ' ')} {of.get(name)}" for name in different)
                for of in (self.identity, identity)
            )
            raise ValueError(f"{self.path}: holds points of {held}, expected {expected}; use another file")

    def __len__(self) -> int:
        with _clear_errors(self.path):
            (count,) = self._connection.execute("SELECT count(*) FROM points").fetchone()
        return int(count)

    def rows(self) -> Iterator[Row]:
        """All points, in the order of their keys."""
        with _clear_errors(self.path):
            yield from map(Row._make, self._connection.execute("SELECT * FROM points ORDER BY key"))

    def points(self) -> Iterator[tuple[str, dict[str, Any], dict[str, Any]]]:
        """Key, parameters and result of each point, in the order of their keys."""
        for row in self.rows():
            yield row.key, json.loads(row.parameters), json.loads(row.result)

    def seconds(self) -> list[float]:
        """How long each point took."""
        with _clear_errors(self.path):
            return [seconds for (seconds,) in self._connection.execute("SELECT seconds FROM points")]

    def add(
        self,
        key: str,
        parameters: dict[str, Any],
        result: dict[str, Any],
        provenance: dict[str, Any],
        seconds: float,
    ) -> None:
        """Write a point; one that is there already stays as it is.

        Raises
        ------
        OSError
            If it can't be written; the points before it are kept.
        """
        finished = datetime.now(UTC).isoformat(timespec="seconds")
        texts = [json.dumps(part, allow_nan=False) for part in (parameters, result, provenance)]
        self.add_rows([Row(key, texts[0], texts[1], texts[2], seconds, finished)])

    def add_rows(self, rows: Iterable[Row]) -> None:
        """Write points in one transaction: all of them or none."""
        with _clear_errors(self.path), self._transaction() as cursor:
            cursor.executemany("INSERT INTO points VALUES (?, ?, ?, ?, ?, ?) ON CONFLICT DO NOTHING", rows)

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


def merge(sources: Iterable[str | os.PathLike[str]], target: str | os.PathLike[str]) -> int:
    """Write the points of several stores into one, which is made, or extended if it is there.

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
        If a file can't be read, or `target` not be written.
    """
    identity: Identity = {}
    found: dict[str, tuple[Row, str]] = {}
    for path in [*sources, *([target] if Path(target).exists() else [])]:
        with Store.read(path, identity) as store:
            identity = store.identity
            for row in store.rows():
                first, first_path = found.setdefault(row.key, (row, store.path))
                if first.result != row.result:
                    raise ValueError(f"{path}: has another result than {first_path} for the point {row.parameters}")
    with Store.write(target, identity) as store:
        store.add_rows(row for row, _ in found.values())
        return len(store)


def _real(path: str | os.PathLike[str]) -> Path:
    return Path(os.path.realpath(path))


def _connect(path: str | os.PathLike[str], how: str) -> sqlite3.Connection:
    import sqlite3  # here: import fastgrad stays light

    with _clear_errors(os.fspath(path)):
        # Without an isolation level Python opens no transactions of its own.
        uri = f"{Path(path).absolute().as_uri()}?{how}"
        return sqlite3.connect(uri, uri=True, timeout=BUSY_SECONDS, isolation_level=None)


@contextmanager
def _clear_errors(path: str) -> Iterator[None]:
    """Say what SQLite's errors mean for a store."""
    import sqlite3

    try:
        yield
    except sqlite3.Error as error:
        name = getattr(error, "sqlite_errorname", None) or ""
        if name == "SQLITE_NOTADB":
            raise ValueError(f"{path}: is no store of a sweep, but another kind of file") from None
        reason = next((text for prefix, text in REASONS.items() if name.startswith(prefix)), str(error))
        raise OSError(f"{path}: {reason}") from error
