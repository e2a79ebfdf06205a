"""The store of a sweep: what is finished stays, and what can't be written or read is said in one line."""

import contextlib
import hashlib
import json
import os
import resource
import shutil
import sqlite3
import subprocess
import threading
import warnings
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest

from fastgrad.sweeps import store as module
from fastgrad.sweeps.plan import point_key
from fastgrad.sweeps.store import DamagedStoreError, Store, merge

IDENTITY = {"job": "simulate", "kernel_version": 1, "arithmetic": "compiled"}
POINT = {"depth": 10, "ensemble": 8, "weight": "normal:std=0.1", "bias": "zero", "x": 0.5, "seed": 0, "record": 64}
RESULT = {
    "lyapunov": -0.1,
    "lyapunov_stderr": 0.25,
    "bound_rate": 1 / 3,
    "theory": None,
    "theory_why": "minus infinity",
}
RESULT |= {"theory_bound": 5e-324, "zero_share": 0.0, "float32_underflow": 2**63 - 1}


def point(name):
    """The point of a name, which stands for its seed."""
    return {**POINT, "seed": int(name, 36)}


def key_of(name, **identity):
    return point_key({**IDENTITY, **identity}, point(name))


def add(store, name, **result):
    store.add(point_key(store.identity, point(name)), point(name), {**RESULT, **result}, {"cpu": "any"}, 0.25)


@pytest.fixture
def path(tmp_path):
    """A store with the points a and b."""
    with Store.write(tmp_path / "study.db", IDENTITY) as store:
        add(store, "a")
        add(store, "b", lyapunov=-0.2)
    return tmp_path / "study.db"


def points(path):
    """Results by the names of the points."""
    with Store.read(path) as store:
        return {np.base_repr(point["seed"], 36).lower(): result for _, point, result in store.points()}


def query(path, sql):
    with contextlib.closing(sqlite3.connect(path)) as connection:
        return connection.execute(sql).fetchall()


@contextlib.contextmanager
def small_disk(folder, size):
    """A file system of its own; skips the test where none can be mounted."""
    folder.mkdir()
    if os.geteuid() or subprocess.run(["mount", "-t", "tmpfs", "-o", f"size={size}", "none", folder]).returncode:
        pytest.skip("needs the right to mount a file system")
    try:
        yield folder
    finally:
        subprocess.run(["umount", folder], check=True)


def remount(folder, options):
    subprocess.run(["mount", "-o", f"remount,{options}", folder], check=True)


# What is kept


def test_what_is_read_is_what_was_written(path):
    with Store.read(path) as store:
        assert store.identity == IDENTITY
        assert len(store) == 2
        expected = [(key_of("a"), point("a"), RESULT), (key_of("b"), point("b"), {**RESULT, "lyapunov": -0.2})]
        filled = [(key, {**of, "width": 1, "nonlinearity": "sigmoid"}, result) for key, of, result in expected]
        assert list(store.points()) == sorted(filled, key=lambda of: of[0])
        assert store.seconds() == [0.25, 0.25]
        assert [row.key for row in store.rows()] == sorted(map(key_of, "ab"))


def test_what_came_later_is_stored_only_where_it_has_not_its_default(tmp_path):
    path = tmp_path / "layers.db"
    chain, layers = point("a"), {**point("a"), "width": 8, "nonlinearity": "tanh"}
    sigmoid_layers = {**layers, "nonlinearity": "sigmoid"}
    with Store.write(path, IDENTITY) as store:
        for of in (chain, {**chain, "width": 1, "nonlinearity": "sigmoid"}, layers, sigmoid_layers):
            store.add(point_key(IDENTITY, of), of, RESULT, {"cpu": "any"}, 0.25)
    texts = {json.dumps(of) for of in (chain, layers, {**chain, "width": 8})}
    assert {text for (text,) in query(path, "SELECT parameters FROM points")} == texts
    with Store.read(path) as store:
        assert sorted(of["width"] for _, of, _ in store.points()) == [1, 8, 8]


@pytest.mark.parametrize("more", [{"width": 1}, {"nonlinearity": "tanh", "width": 8}, {"width": 8.0}, {"units": 8}])
def test_parameters_in_another_form_are_damage(more, tmp_path):
    with Store.write(tmp_path / "odd.db", IDENTITY) as store:
        add(store, "a")
    with contextlib.closing(sqlite3.connect(tmp_path / "odd.db")) as connection:
        connection.execute("UPDATE points SET parameters = ?", (json.dumps({**point("a"), **more}),))
        connection.commit()
    with Store.read(tmp_path / "odd.db") as store:
        assert len(store.contents.damaged) == 1


def test_every_transaction_is_flushed_to_the_disk(path):
    assert query(path, "PRAGMA journal_mode") == [("wal",)]
    with Store.write(path, IDENTITY) as store:
        assert store._connection.execute("PRAGMA synchronous").fetchall() == [(2,)]  # FULL


def test_a_point_can_be_read_as_soon_as_it_is_added(path):
    with Store.write(path, IDENTITY) as store, Store.read(path) as reader:
        assert len(reader) == 2
        add(store, "c")
        assert len(reader) == 3


def test_a_point_stays_as_it_was_first(path):
    with Store.write(path, IDENTITY) as store:
        add(store, "a", lyapunov=7)
    assert points(path)["a"] == RESULT


def test_rows_are_written_together_or_not_at_all(path):
    with Store.read(path) as store:
        row = store.rows()[0]

    def interrupted():
        yield row._replace(key=key_of("c"))
        raise KeyboardInterrupt

    with Store.write(path, IDENTITY) as store, pytest.raises(KeyboardInterrupt):
        store.add_rows(interrupted())
    assert points(path).keys() == {"a", "b"}


def test_two_writers_take_turns(path):
    with Store.write(path, IDENTITY) as one, Store.write(path, IDENTITY) as other:
        for i in range(20):
            add(one if i % 2 else other, f"1{i:02}")
            add(one, "both")
            add(other, "both")
    assert len(points(path)) == 2 + 20 + 1


def test_a_store_that_was_just_created(tmp_path):
    """As kill -9 leaves it before the tables are there: the first transaction makes them all."""
    (tmp_path / "empty.db").touch()
    with pytest.raises(ValueError, match=r"empty\.db: holds no sweep yet"):
        Store.read(tmp_path / "empty.db")
    with Store.write(tmp_path / "empty.db", IDENTITY) as store:
        add(store, "a")
    assert points(tmp_path / "empty.db") == {"a": RESULT}


@pytest.mark.parametrize("name", ["a b.db", "100%.db", "what?.db", "a#b.db", "é.db"])
def test_any_name(name, tmp_path):
    with Store.write(tmp_path / name, IDENTITY) as store:
        add(store, "a")
    assert points(tmp_path / name) == {"a": RESULT}
    assert [file.name for file in tmp_path.iterdir()] == [name]


# What is no store, or another one


@pytest.mark.parametrize(
    ("name", "value"), [("job", "train"), ("kernel_version", 2), ("arithmetic", "numpy"), ("kernel_version", "1")]
)
def test_another_identity(name, value, path):
    before = path.read_bytes()
    for opened in (Store.write, Store.read):
        with pytest.raises(ValueError) as caught:
            opened(path, {**IDENTITY, name: value})
        text = name.replace("_", " ")
        assert str(caught.value) == (
            f"{path}: holds points of {text} {IDENTITY[name]}, expected {text} {value}; use another file"
        )
    assert path.read_bytes() == before


def test_another_schema(path):
    with contextlib.closing(sqlite3.connect(path)) as connection, connection:
        connection.execute("UPDATE meta SET value = 'fastgrad/3' WHERE name = 'schema'")
    with pytest.raises(ValueError, match=r"study\.db: is of schema fastgrad/3, expected fastgrad/2"):
        Store.write(path, IDENTITY)


@pytest.mark.parametrize("opened", [lambda path: Store.write(path, IDENTITY), Store.read], ids=["write", "read"])
def test_files_that_are_no_store_are_left_alone(opened, path, tmp_path):
    (tmp_path / "text.db").write_text("weight,bias\n" * 1000)
    query(tmp_path / "other.db", "CREATE TABLE points (x)")
    query(tmp_path / "bare.db", "PRAGMA user_version = 7")  # an SQLite file without tables
    query(tmp_path / "wal.db", "PRAGMA journal_mode = WAL")
    (tmp_path / "view.db").write_bytes(path.read_bytes())
    query(tmp_path / "view.db", "PRAGMA application_id = 0")
    query(tmp_path / "view.db", "CREATE TRIGGER more AFTER INSERT ON points BEGIN DELETE FROM points; END")
    (tmp_path / "column.db").write_bytes(path.read_bytes())
    query(tmp_path / "column.db", "PRAGMA application_id = 0")
    query(tmp_path / "column.db", "ALTER TABLE points ADD COLUMN more")
    path.unlink()
    sqlite = ("other.db", "bare.db", "wal.db", "view.db", "column.db")
    for name, reason in (("text.db", "another kind of file"), *((name, "another SQLite file") for name in sqlite)):
        before = (tmp_path / name).read_bytes()
        with pytest.raises(ValueError, match=rf"{name}: is no store of a sweep, but {reason}"):
            opened(tmp_path / name)
        assert (tmp_path / name).read_bytes() == before
    assert len(list(tmp_path.iterdir())) == 6


def test_another_sqlite_file_that_is_being_written_is_left_alone(tmp_path):
    """With a WAL beside it, which is part of it."""
    with contextlib.closing(sqlite3.connect(tmp_path / "other.db")) as other:
        other.execute("PRAGMA journal_mode = WAL")
        other.execute("CREATE TABLE mine (x)")
        other.commit()
        before = {file.name: file.read_bytes() for file in tmp_path.iterdir() if not file.name.endswith("-shm")}
        assert before.keys() == {"other.db", "other.db-wal"}
        for opened in (lambda path: Store.write(path, IDENTITY), Store.read):
            with pytest.raises(ValueError, match=r"other\.db: is no store of a sweep, but another SQLite file"):
                opened(tmp_path / "other.db")
        assert before == {file.name: file.read_bytes() for file in tmp_path.iterdir() if not file.name.endswith("-shm")}


@pytest.mark.parametrize(
    ("error", "message", "path"),
    [
        (TypeError, "store: expected a path, got b'study.db'", b"study.db"),
        (TypeError, "store: expected a path, got 5", 5),
        (ValueError, "store: expected the name of a file, got ''", ""),
        (ValueError, r"store: expected the name of a file, got 'a\x00b'", "a\0b"),
        (OSError, "/dev/null: is a pipe or a device, expected a file", "/dev/null"),
    ],
)
def test_a_name_that_is_none(error, message, path):
    for opened in (lambda path: Store.write(path, IDENTITY), Store.read):
        with pytest.raises(error) as caught:
            opened(path)
        assert str(caught.value) == message


def test_a_working_folder_that_is_gone(python, tmp_path):
    (tmp_path / "gone").mkdir()
    code = f"""
import os
os.rmdir(os.getcwd())
from fastgrad.sweeps.store import Store
try:
    Store.write("study.db", {IDENTITY})
except OSError as error:
    print(error)
"""
    assert python(code, cwd=tmp_path / "gone") == "[Errno 2] the working folder is no longer there: 'study.db'\n"


def test_a_store_that_is_not_there(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"study\.db"):
        Store.read(tmp_path / "study.db")
    with pytest.raises(OSError, match=r"study\.db: can't be opened; is its folder there"):
        Store.write(tmp_path / "nowhere/study.db", IDENTITY)
    assert not list(tmp_path.iterdir())


# What can't be written


def test_another_writer_is_waited_for_and_then_named(path, monkeypatch):
    monkeypatch.setattr(module, "BUSY_SECONDS", 0.1)
    with Store.write(path, IDENTITY) as store, contextlib.closing(sqlite3.connect(path)) as other:
        other.execute("BEGIN IMMEDIATE")
        with pytest.raises(OSError, match=r"study\.db: is being written by another process"):
            add(store, "c")
        with pytest.raises(OSError, match=r"study\.db: is being written by another process"):
            Store.write(path, IDENTITY)
        other.execute("ROLLBACK")
        add(store, "c")
    assert points(path).keys() == {"a", "b", "c"}


def test_a_read_only_store_is_read_and_not_written(path, tmp_path):
    with small_disk(tmp_path / "disk", "1m") as disk:
        (disk / "study.db").write_bytes(path.read_bytes())
        remount(disk, "ro")
        assert points(disk / "study.db") == points(path)
        with pytest.raises(OSError, match=r"study\.db: is read-only, or its folder is"):
            Store.write(disk / "study.db", IDENTITY)
        with pytest.raises(OSError, match=r"new\.db: can't be opened; is its folder there, and writable"):
            Store.write(disk / "new.db", IDENTITY)


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write everywhere")
def test_a_store_without_permission_to_write(path):
    path.chmod(0o444)
    assert points(path).keys() == {"a", "b"}
    with pytest.raises(OSError, match=r"study\.db: is read-only"):
        Store.write(path, IDENTITY)


def test_a_full_disk_loses_nothing(tmp_path):
    written = set()

    def fill(store):
        for i in range(36, 1000):
            name = np.base_repr(i, 36).lower()
            add(store, name)
            written.add(name)

    with small_disk(tmp_path / "disk", "192k") as disk:
        with Store.write(disk / "study.db", IDENTITY) as store:
            for _ in range(2):
                with pytest.raises(OSError, match=r"study\.db: the disk is full; what was finished before is kept"):
                    fill(store)
        assert 0 < len(written) < 100
        remount(disk, "size=2m")
        with Store.write(disk / "study.db", IDENTITY) as store:
            assert len(store) == len(written)
            add(store, "more")
        assert points(disk / "study.db") == dict.fromkeys([*written, "more"], RESULT)
        assert query(disk / "study.db", "PRAGMA integrity_check") == [("ok",)]


def test_a_file_that_may_not_grow_loses_nothing(path, python):
    """As a quota has it; the limit is of the process."""
    code = f"""
import resource
from fastgrad.sweeps.store import Store
from fastgrad.sweeps.plan import point_key
resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, resource.RLIM_INFINITY))
with Store.write({str(path)!r}, {IDENTITY}) as store:
    try:
        for i in range(100, 1000):
            point = {{**{POINT}, "seed": i}}
            store.add(point_key(store.identity, point), point, {RESULT}, {{}}, 0.25)
    except OSError as error:
        print(i, error, sep="|")
"""
    written, message = python(code).strip().split("|")
    assert message.startswith(f"{path}: ")
    assert "disk" in message
    assert points(path).keys() == {"a", "b", *(np.base_repr(i, 36).lower() for i in range(100, int(written)))}
    assert resource.getrlimit(resource.RLIMIT_FSIZE)[0] == resource.RLIM_INFINITY


def test_a_damaged_store(path):
    with path.open("r+b") as file:
        file.seek(100)  # behind SQLite's header
        file.write(b"\xff" * 3000)
    with pytest.raises(OSError, match=r"study\.db: is damaged"):
        points(path)


def test_a_writer_that_is_killed_in_a_transaction(path, python):
    python(
        f"""
import os, signal
from fastgrad.sweeps.store import Store
if os.fork() == 0:
    store = Store.write({str(path)!r}, {IDENTITY})
    store.add({key_of("c")!r}, {point("c")}, {RESULT}, {{}}, 0.25)
    store._connection.execute("BEGIN IMMEDIATE")
    store._connection.execute("INSERT INTO points VALUES ('d', '', '', '', 0, '', '')")
    os.kill(os.getpid(), signal.SIGKILL)
os.wait()
"""
    )
    assert points(path).keys() == {"a", "b", "c"}


# Merging


def store_of(path, results, **identity):
    with Store.write(path, {**IDENTITY, **identity}) as store:
        for key, value in results.items():
            add(store, key, lyapunov=value)
    return path


def test_merge_makes_the_union(tmp_path):
    one = store_of(tmp_path / "1.db", {"a": 1, "b": 2})
    two = store_of(tmp_path / "2.db", {"b": 2, "c": 3})
    assert merge([one, two], tmp_path / "all.db") == 3
    assert {key: result["lyapunov"] for key, result in points(tmp_path / "all.db").items()} == {"a": 1, "b": 2, "c": 3}
    with Store.read(tmp_path / "all.db") as store, Store.read(one) as source:
        assert store.identity == IDENTITY
        assert {*source.rows()} < {*store.rows()}  # provenance, seconds and dates too
    assert points(one).keys() == {"a", "b"}


def test_merge_extends(tmp_path):
    one = store_of(tmp_path / "1.db", {"a": 1})
    all_of_them = store_of(tmp_path / "all.db", {"a": 1, "z": 26})
    assert merge([one], all_of_them) == 2
    assert merge([one, all_of_them], one) == 2
    assert points(one) == points(all_of_them)


@pytest.mark.parametrize("there", [False, True])
def test_merge_of_different_results_writes_nothing(there, tmp_path):
    one = store_of(tmp_path / "1.db", {"a": 1, "b": 2})
    two = store_of(tmp_path / "2.db", {"c": 3, "b": 2.5})
    target = tmp_path / "all.db"
    before = store_of(target, {"z": 26}).read_bytes() if there else None
    with pytest.raises(ValueError, match=r"2\.db: has another result than .*1\.db for the point .*normal:std=0\.1"):
        merge([one, two], target)
    assert (target.read_bytes() if target.exists() else None) == before
    if there:
        two.unlink()
        two = store_of(tmp_path / "2.db", {"z": 0})
        with pytest.raises(ValueError, match=r"all\.db: has another result than .*2\.db"):
            merge([two], target)
        assert target.read_bytes() == before


@pytest.mark.parametrize("identity", [{"job": "train"}, {"kernel_version": 2}, {"arithmetic": "numpy"}])
def test_merge_of_different_sweeps_writes_nothing(identity, tmp_path):
    one, two = store_of(tmp_path / "1.db", {"a": 1}), store_of(tmp_path / "2.db", {"b": 2}, **identity)
    with pytest.raises(ValueError, match=r"2\.db: holds points of"):
        merge([one, two], tmp_path / "all.db")
    assert sorted(file.name for file in tmp_path.iterdir()) == ["1.db", "2.db"]
    with pytest.raises(ValueError, match=r"2\.db: holds points of"):
        merge([one], two)
    with Store.read(two) as store:
        assert len(store) == 1


def test_merge_of_a_store_that_is_not_there(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"1\.db"):
        merge([tmp_path / "1.db"], tmp_path / "all.db")
    assert not list(tmp_path.iterdir())


def test_several_make_one_store_at_the_same_moment(tmp_path):
    together = threading.Barrier(4)

    def make(path):
        together.wait()
        with Store.write(path, IDENTITY) as store:
            return store.identity

    with ThreadPoolExecutor(4) as pool:
        for i in range(40):
            assert list(pool.map(make, [tmp_path / f"{i}.db"] * 4)) == [IDENTITY] * 4


# Damage

OLD = """
PRAGMA journal_mode = WAL;
CREATE TABLE meta (name TEXT PRIMARY KEY, value);
CREATE TABLE points (
    key TEXT PRIMARY KEY, parameters TEXT, result TEXT, provenance TEXT, seconds REAL, finished TEXT
);
INSERT INTO meta VALUES ('schema', 'fastgrad/1'), ('job', 'simulate');
INSERT INTO meta VALUES ('kernel_version', 1), ('arithmetic', 'compiled');
"""


@contextlib.contextmanager
def reopened(path):
    """A store that is opened to be written, and what it warns of."""
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        store = Store.write(path, IDENTITY)
    with store:
        yield store, [str(warning.message) for warning in caught]


def change(path, sql, *values):
    with contextlib.closing(sqlite3.connect(path)) as connection, connection:
        assert connection.execute(sql, values).rowcount > 0


def digest(path):
    return hashlib.sha256(path.read_bytes()).hexdigest()


@pytest.fixture
def old(tmp_path):
    """A store with the points a and b as version 0.1 made it."""
    path = tmp_path / "old.db"
    with contextlib.closing(sqlite3.connect(path)) as connection, connection:
        connection.executescript(OLD)
        for name, result in (("a", RESULT), ("b", {**RESULT, "lyapunov": -0.2})):
            row = (key_of(name), json.dumps(point(name)), json.dumps(result), '{"cpu": "any"}', 0.25, "2025-01-01")
            connection.execute("INSERT INTO points VALUES (?, ?, ?, ?, ?, ?)", row)
    return path


def test_an_old_store_is_read_and_said_to_be_without_checksums(old):
    before = digest(old)
    with pytest.warns(UserWarning, match=r"old\.db: is of an older version, without checksums") as caught:
        assert points(old) == {"a": RESULT, "b": {**RESULT, "lyapunov": -0.2}}
    assert len(caught) == 1
    assert digest(old) == before


def test_an_old_store_gets_checksums_when_it_is_written_to(old):
    change(old, "UPDATE points SET parameters = ? WHERE key = ?", json.dumps(point("c")), key_of("b"))
    with reopened(old) as (store, told):
        add(store, "b")
        add(store, "d")
    assert told[0] == f"{old}: had no checksums, being of an older version, and has them from now on"
    name = "point depth 10, ensemble 8, weight normal:std=0.1, bias zero, x 0.5, seed 12, record 64"
    why = f"{name}: its key is not the hash of its parameters; points of this sweep that are not sound are done again"
    assert told[1:] == [f"{old}: is damaged: {why}"]
    assert points(old) == dict.fromkeys("abd", RESULT)
    change(old, "UPDATE points SET result = replace(result, '-0.1', '-0.7')")
    with pytest.raises(DamagedStoreError, match="its checksum does not fit"):
        points(old)


@pytest.mark.parametrize("name", ["kernel_version", "job"])
def test_an_old_store_of_another_identity_stays_as_it_is(name, old):
    before = digest(old)
    with pytest.raises(ValueError, match=r"old\.db: holds points of"):
        Store.write(old, {**IDENTITY, name: {"kernel_version": 2, "job": "train"}[name]})
    assert digest(old) == before


EDITS = {  # what is changed in the row of b, and how it is named
    "parameters": (json.dumps({**point("b"), "seed": 12}), "seed 12"),
    "result": (json.dumps({**RESULT, "lyapunov": -0.7}), "seed 11"),
    "provenance": ('{"cpu": "other"}', "seed 11"),
    "seconds": (0.26, "seed 11"),
    "finished": ("2020-02-02", "seed 11"),
    "checksum": (f"{0:064x}", "seed 11"),
    "key": (key_of("c"), "seed 11"),
}


@pytest.mark.parametrize("column", EDITS)
def test_damage_is_named_and_mended(column, path, tmp_path):
    copy = shutil.copy(path, tmp_path / "copy.db")
    sound = points(path)
    value, name = EDITS[column]
    change(path, f"UPDATE points SET {column} = ? WHERE key = ?", value, key_of("b"))
    message = (
        rf"study\.db: is damaged: point depth 10, .*{name}, record 64: its checksum does not fit; run the same sweep"
    )
    for read in (points, lambda path: merge([path], tmp_path / "all.db")):
        with pytest.raises(DamagedStoreError, match=message):
            read(path)
    assert not (tmp_path / "all.db").exists()
    damaged = shutil.copy(path, tmp_path / "damaged.db")

    with reopened(path) as (store, told):
        assert name in told[0]
        assert "done again" in told[0]
        assert store.contents.points.keys() == {key_of("a")}
        add(store, "z")  # another point: the damage stays
    with pytest.raises(DamagedStoreError, match=name):
        points(path)
    with reopened(path) as (store, told):
        assert name in told[0]
        add(store, "b", lyapunov=-0.2)
    assert points(path) == {**sound, "z": RESULT}

    assert merge([damaged, copy], tmp_path / "all.db") == merge([copy], damaged) == 2
    assert points(tmp_path / "all.db") == points(damaged) == sound


def test_damage_is_salvaged(path, tmp_path):
    change(path, "UPDATE points SET result = 'x' WHERE key = ?", key_of("b"))
    with pytest.warns(UserWarning, match=r"study\.db: is damaged, and left out is: .*seed 11"):
        assert merge([path], tmp_path / "new.db", salvage=True) == 1
    assert points(tmp_path / "new.db") == {"a": RESULT}
    with pytest.raises(ValueError, match=r"new\.db: is there already, expected a new store"):
        merge([path], tmp_path / "new.db", salvage=True)


def test_what_sqlite_can_not_read_is_salvaged(tmp_path):
    path = tmp_path / "study.db"
    with Store.write(path, IDENTITY) as store:
        for i in range(200):
            add(store, np.base_repr(i, 36).lower())
    page = path.read_bytes().index(b'"seed": 100,') // 4096
    with path.open("r+b") as file:
        file.seek(4096 * page)
        file.write(bytes(range(256)) * 16)
    for read in (points, lambda path: merge([path], tmp_path / "all.db"), lambda path: Store.write(path, IDENTITY)):
        with pytest.raises(
            DamagedStoreError, match=r"is damaged as an SQLite file .*; `fastgrad merge --salvage .*study"
        ):
            read(path)
    with pytest.warns(UserWarning, match="left out"):
        count = merge([path], tmp_path / "new.db", salvage=True)
    assert 190 < count < 200
    assert len(points(tmp_path / "new.db")) == count


def test_lost_points_are_missed(path):
    change(path, "DELETE FROM points WHERE key = ?", key_of("b"))
    with pytest.raises(DamagedStoreError, match="points that were written are no longer there; run the same sweep"):
        points(path)
    with reopened(path) as (store, told):
        assert "no longer there" in told[0]
        assert store.contents.points.keys() == {key_of("a")}
        add(store, "b")
    assert points(path) == {"a": RESULT, "b": RESULT}


def test_a_copy_that_mends_damage_must_have_what_is_lost_too(path, tmp_path):
    copy = store_of(tmp_path / "copy.db", {"a": -0.1})
    change(path, "DELETE FROM points WHERE key = ?", key_of("b"))
    change(path, "UPDATE points SET seconds = 9")
    before = digest(path)
    with pytest.raises(DamagedStoreError, match="points that were written are no longer there"):
        merge([copy], path)
    assert digest(path) == before


def test_points_that_came_from_elsewhere_are_noticed(path, tmp_path):
    other = store_of(tmp_path / "other.db", {"c": 3})
    with contextlib.closing(sqlite3.connect(path)) as connection, connection:
        connection.execute("ATTACH ? AS other", [str(other)])
        connection.execute("DELETE FROM points WHERE key = ?", [key_of("b")])
        connection.execute("INSERT INTO points SELECT * FROM other.points")
    with pytest.raises(DamagedStoreError, match="no longer there"):
        points(path)


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("job", "train"),
        ("job", None),
        ("kernel_version", 3),
        ("arithmetic", b"numpy"),
        ("points", "1 0"),
        ("checksum", 0),
    ],
)
def test_a_damaged_identity(name, value, path):
    sound = points(path)
    change(path, "UPDATE meta SET value = ? WHERE name = ?", value, name)
    message = r"study\.db: what its points have in common is damaged; run the same sweep again, which mends it"
    with pytest.raises(DamagedStoreError, match=message):
        Store.read(path)
    with pytest.raises(DamagedStoreError, match=r"study\.db: what its points .* and no sound point tells it"):
        Store.write(path, {**IDENTITY, "kernel_version": 2})
    with pytest.warns(UserWarning, match="in common is damaged"), Store.write(path, IDENTITY):
        pass
    assert points(path) == sound


@pytest.mark.parametrize(
    ("column", "value", "why"),
    [
        ("result", None, "its result can't be read"),
        ("result", "[" * 100_000, "its result can't be read"),
        ("result", "[]", "its result can't be read"),
        ("result", "{}", "its result has no lyapunov"),
        ("result", json.dumps({**RESULT, "lyapunov": float("nan")}), "its lyapunov is no number"),
        ("result", json.dumps({**RESULT, "lyapunov": True}), "its lyapunov is no number"),
        ("result", json.dumps({**RESULT, "lyapunov": "1"}), "its lyapunov is no number"),
        ("result", json.dumps({**RESULT, "more": 10**400}), "its more is no number"),
        ("result", json.dumps({**RESULT, "more": [1]}), "its more is no number"),
        ("result", '{"lyapunov": 1' + "0" * 5000 + "}", "its result can't be read"),
        ("result", json.dumps({**RESULT, "depth": 5}), "its result has a parameter's name, depth"),
        ("result", json.dumps({**RESULT, "weight.std": 5}), r"its result has a parameter's name, weight\.std"),
        ("provenance", b"{}", "its provenance can't be read"),
        ("parameters", "null", "its parameters can't be read"),
        ("parameters", json.dumps({"depth": 10}), "its parameters are not those of simulate"),
        ("parameters", json.dumps({**POINT, "more": 1}), "its parameters are not those of simulate"),
        ("parameters", json.dumps({**POINT, "weight": 3}), "its weight is no text"),
        (
            "parameters",
            json.dumps({**POINT, "weight": "normal:std=x"}),
            "weight: normal: std: expected a number, got",
        ),
        ("parameters", json.dumps({**POINT, "depth": 10.0}), "its depth is no whole number in range"),
        ("parameters", json.dumps({**POINT, "seed": 2**64}), "its seed is no whole number in range"),
        ("parameters", json.dumps({**POINT, "x": 1}), "its x is no finite number"),
        ("parameters", json.dumps({**POINT, "x": float("inf")}), "its x is no finite number"),
        ("key", None, "its key is not the hash of its parameters"),
        ("key", 5, "its key is not the hash of its parameters"),
        ("key", b"\xff", "its key is not the hash of its parameters"),
        ("seconds", None, "seconds, finished: expected a number and a date"),
        ("seconds", "long", "seconds, finished: expected a number and a date"),
        ("seconds", float("inf"), "seconds, finished: expected a number and a date"),
        ("finished", b"\xff\xff", "seconds, finished: expected a number and a date"),
    ],
)
def test_rows_that_were_made_by_hand(column, value, why, old, tmp_path):
    """In a store without checksums, where they are judged by what they hold."""
    change(old, f"UPDATE points SET {column} = ? WHERE key = ?", value, key_of("b"))
    for read in (points, lambda path: merge([path], tmp_path / "all.db")):
        with (
            pytest.warns(UserWarning, match="without checksums"),
            pytest.raises(DamagedStoreError, match=f"{why}.*; run the same sweep again"),
        ):
            read(old)
    with reopened(old) as (store, told):
        assert store.contents.points.keys() == {key_of("a")}
        assert "has them from now on" in told[0]
        assert "done again" in told[1]


@pytest.mark.parametrize(
    "sql",
    [
        "DROP TABLE points",
        "DROP TABLE meta",
        "ALTER TABLE points RENAME COLUMN result TO other",
        "CREATE TRIGGER more AFTER INSERT ON points BEGIN DELETE FROM points; END",
        "ALTER TABLE points RENAME TO others; CREATE VIEW points AS SELECT * FROM others",
    ],
)
def test_other_tables(sql, path):
    with contextlib.closing(sqlite3.connect(path)) as connection:
        connection.executescript(sql)
    before = digest(path)
    for opened in (lambda path: Store.write(path, IDENTITY), Store.read):
        with pytest.raises(
            DamagedStoreError, match=r"study\.db: is damaged as an SQLite file \(its tables are others\)"
        ):
            opened(path)
    assert digest(path) == before
