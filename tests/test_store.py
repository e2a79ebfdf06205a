"""The store of a sweep: what is finished stays, and what can't be written or read is said in one line."""

import contextlib
import os
import resource
import sqlite3
import subprocess
import sys
import threading
from concurrent.futures import ThreadPoolExecutor

import pytest

from fastgrad import store as module
from fastgrad.store import Store, merge

IDENTITY = {"job": "simulate", "kernel_version": 1, "arithmetic": "compiled"}
POINT = {"depth": 10, "weight": "normal:std=0.1"}
RESULT = {"lyapunov": -0.1, "tiny": 5e-324, "third": 1 / 3, "none": None, "whole": 2**64 - 1}


def add(store, key, **result):
    store.add(key, POINT, {**RESULT, **result}, {"cpu": "any"}, 0.25)


@pytest.fixture
def path(tmp_path):
    """A store with the points a and b."""
    with Store.write(tmp_path / "study.db", IDENTITY) as store:
        add(store, "a")
        add(store, "b", lyapunov=-0.2)
    return tmp_path / "study.db"


def points(path):
    with Store.read(path) as store:
        return {key: result for key, _, result in store.points()}


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
        assert list(store.points()) == [("a", POINT, RESULT), ("b", POINT, {**RESULT, "lyapunov": -0.2})]
        assert store.seconds() == [0.25, 0.25]
        assert [row.key for row in store.rows()] == ["a", "b"]


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
        row = next(store.rows())

    def interrupted():
        yield row._replace(key="c")
        raise KeyboardInterrupt

    with Store.write(path, IDENTITY) as store, pytest.raises(KeyboardInterrupt):
        store.add_rows(interrupted())
    assert points(path).keys() == {"a", "b"}


def test_two_writers_take_turns(path):
    with Store.write(path, IDENTITY) as one, Store.write(path, IDENTITY) as other:
        for i in range(20):
            add(one if i % 2 else other, f"{i}")
            add(one, "both")
            add(other, "both")
    assert len(points(path)) == 2 + 20 + 1


def test_a_store_that_was_just_created(tmp_path):
    """As kill -9 leaves it before the tables are there."""
    (tmp_path / "empty.db").touch()
    with pytest.raises(ValueError, match=r"empty\.db: holds no sweep yet"):
        Store.read(tmp_path / "empty.db")
    query(tmp_path / "wal.db", "PRAGMA journal_mode = WAL")
    for name in ("empty.db", "wal.db"):
        with Store.write(tmp_path / name, IDENTITY) as store:
            add(store, "a")
        assert points(tmp_path / name) == {"a": RESULT}


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
        connection.execute("UPDATE meta SET value = 'fastgrad/2' WHERE name = 'schema'")
    with pytest.raises(ValueError, match=r"study\.db: is of schema fastgrad/2, expected fastgrad/1"):
        Store.write(path, IDENTITY)


@pytest.mark.parametrize("opened", [lambda path: Store.write(path, IDENTITY), Store.read], ids=["write", "read"])
def test_files_that_are_no_store_are_left_alone(opened, tmp_path):
    (tmp_path / "text.db").write_text("weight,bias\n" * 1000)
    query(tmp_path / "other.db", "CREATE TABLE points (x)")
    for name, reason in (("text.db", "another kind of file"), ("other.db", "another SQLite file")):
        before = (tmp_path / name).read_bytes()
        with pytest.raises(ValueError, match=rf"{name}: is no store of a sweep, but {reason}"):
            opened(tmp_path / name)
        assert (tmp_path / name).read_bytes() == before
    assert len(list(tmp_path.iterdir())) == 2


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
        for i in range(1000):
            add(store, str(i))
            written.add(str(i))

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
from fastgrad.store import Store
resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, resource.RLIM_INFINITY))
with Store.write({str(path)!r}, {IDENTITY}) as store:
    try:
        for i in range(1000):
            store.add(str(i), {POINT}, {RESULT}, {{}}, 0.25)
    except OSError as error:
        print(i, error, sep="|")
"""
    written, message = python(code).strip().split("|")
    assert message.startswith(f"{path}: ")
    assert "disk" in message
    assert points(path).keys() == {"a", "b", *map(str, range(int(written)))}
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
from fastgrad.store import Store
if os.fork() == 0:
    store = Store.write({str(path)!r}, {IDENTITY})
    store.add("c", {POINT}, {RESULT}, {{}}, 0.25)
    store._connection.execute("BEGIN IMMEDIATE")
    store._connection.execute("INSERT INTO points VALUES ('d', '', '', '', 0, '')")
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
        assert list(store.rows())[:2] == list(source.rows())  # provenance, seconds and dates too
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
    assert points(two).keys() == {"b"}


def test_merge_of_a_store_that_is_not_there(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"1\.db"):
        merge([tmp_path / "1.db"], tmp_path / "all.db")
    assert not list(tmp_path.iterdir())


def test_importing_the_store_loads_no_sqlite(python):
    assert "sqlite3" not in python(f"import fastgrad.store, sys; print(*sys.modules)  # {sys.version_info[:2]}").split()


def test_several_make_one_store_at_the_same_moment(tmp_path):
    together = threading.Barrier(4)

    def make(path):
        together.wait()
        with Store.write(path, IDENTITY) as store:
            return store.identity

    with ThreadPoolExecutor(4) as pool:
        for i in range(40):
            assert list(pool.map(make, [tmp_path / f"{i}.db"] * 4)) == [IDENTITY] * 4
