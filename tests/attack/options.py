"""Options and the environment: what click says a command takes, given values at every edge."""

from __future__ import annotations

import signal
from typing import TYPE_CHECKING, Any

import click

from attack.core import BUDGET, listed
from fastgrad.cli import main

if TYPE_CHECKING:
    from attack.core import Attempt, Done

# A small job of every command, so that an option that is good takes no time.
SMALL: dict[str, list[str]] = {
    "example": [],
    "simulate": ["--depth", "9", "--ensemble", "4"],
    "train": ["--ensemble", "4", "--steps", "9"],
    "schemes": ["--depth", "3", "--ensemble", "4", "--steps", "9"],
    "backprop": ["chain.csv"],
    "compare": ["--depth", "9", "--ensemble", "4", "--repeats", "2"],
    "info": [],
    "sweep": ["--grid", "weight.std=1,4", "--depth", "9", "--ensemble", "4"],
    "export": ["absent.db"],
    "plot": ["absent.db"],
    "merge": ["absent.db", "-o", "new.db"],
}


EDGES = listed("""
-1 0 1 -0 1.5 1e400 -1e400 nan inf -inf 1e-999999999999 1e999999999999 18446744073709551616 18446744073709551615
1_0 ١ 9223372036854775808 1e16 1e19 0x10 12345678901234567.0 5e-324
é \udcff 🎲 - -- ' " %s {} [red]x[/red] \x1b[31m 1e + ../x""")
EDGES += ["", " ", "\t", "\n", "a b", "9" * 400, "9" * 5000]
LAWS = listed("""
normal normal: normal:std normal:std= normal:std=-1 normal:std=nan normal:std=1e400 normal:std=1e308 uniform:low=1
uniform normal:std=1,std=2 normal:mean=1e308,std=1e308 normal:sd=1 normal:std=1:mean=2 uniform:low=2,high=1
uniform:low=-1e308,high=1e308 constant constant: constant:x constant:1e308 zero:1 centered centered:1
he_normal:gain=-0.0 he_normal:gain=-1 he_uniform:gain=1e300 torch_default:gain=0 NORMAL:std=1 normal:std=5e-324
normal:std=1e-320 uniform:low=0,high=5e-324 constant:-1e30 zero""")
GRIDS = listed("""weight.std=1:10:3 weight.std=1:10:3:log weight.std=0:10:3:log weight.std=-1:1:3:log
weight.std=1e-999999999999:1:3:log weight.std=1:1e999999999999:3 weight.std=nan:1:3 weight.std=1:inf:3:log
weight.std=1:2:0 weight.std=1:2:1 weight.std=1:2:-3 weight.std=1:2:1e400 weight.std=1:2:1000001 weight.std=1:2:1.5
weight.std=1:2:3:lin weight.std= weight.std=, weight.std=1,,2 weight.std = =1 bogus=1 weight.bogus=1 weight.std=1,1
weight=normal seed=0,18446744073709551615,18446744073709551616 seed=12345678901234567.0 depth=1:3:3 depth=1:2:3
x=0:1:3 weight.low=1 weight=normal:std=1,normal:std=2 bias=zero,centered loss=squared record=0 ensemble=1e3 x=1e308""")
TEXTS = [*EDGES, *LAWS, *GRIDS, " normal:std=1 "]
ENVIRONMENT = {
    "FASTGRAD_BACKEND": "numpy|bogus|| |CPP",
    "FASTGRAD_THREADS": "1|0|-1|x||1e3|99999999999999999999",
    "FASTGRAD_FORMAT": "json|xml|",
    "FASTGRAD_COLOR": "always|sometimes|",
    "FASTGRAD_QUIET": "1|0|x||true",
    "FASTGRAD_ISA": "baseline|mmx||AVX2",
    "NO_COLOR": "|1",
    "COLUMNS": "0|-1|x||1|5|40|100000",
    "LINES": "0|x",
    "TERM": "|dumb|bogus|xterm-256color",
    "LANG": "C|bogus|tr_TR.UTF-8",
    "LC_ALL": "C|POSIX|bogus",
    "PYTHONIOENCODING": "ascii|latin-1|utf-8:strict",
    "PYTHONUTF8": "0|1",
    "HOME": "/nowhere|",
    "TMPDIR": "/nowhere|",
    "NUMBA_CACHE_DIR": "/proc/nowhere",
    "OMP_NUM_THREADS": "x|0",
}
PLACES = listed("|.|/|absent/x.csv|x|x.png|x.csv|x.json|a\nb.csv|-|x.npz| ", "|")
LONG = ("depth", "ensemble", "steps", "repeats", "record")  # a large value is good, and takes long


def options(command: click.Command) -> list[click.Option]:
    """What a command takes, without what would end it at once."""
    return [option for option in command.params if isinstance(option, click.Option) and option.name != "help"]


def value(attempt: Attempt, option: click.Option) -> str:
    """A value of an option, good or bad."""
    rng = attempt.rng
    if isinstance(option.type, click.Choice) and rng.random() < 0.6:
        return rng.choice([*map(str, option.type.choices), "bogus", "", str(option.type.choices[0]).upper()])
    if option.name in ("weight", "bias", "x", "target") and rng.random() < 0.7:
        return rng.choice(LAWS)
    if option.name == "grid" and rng.random() < 0.9:
        return rng.choice(GRIDS)
    if option.name in ("output", "plot", "store"):
        return rng.choice([*PLACES, "x" * 300 + ".csv"])
    if option.name == "scheduler":
        return rng.choice(["", "bogus", "tcp://", "tcp://127.0.0.1:1", "http://x", "tcp://127.0.0.1:99999"])
    if option.name == "workers":
        return rng.choice(["0", "-1", "x", "", "1e3", "2"])
    if option.name in LONG and rng.random() < 0.5:
        return rng.choice(["-1", "0", "1", "1e20", "1.5", "nan", "1e400", "x", "2e1", ""])
    return rng.choice(EDGES if rng.random() < 0.85 else TEXTS)


def edges(attempt: Attempt) -> None:
    """One to three options of a command at the edge."""
    rng = attempt.rng
    name = rng.choice([*SMALL, "sweep", "simulate", "train", "sweep"])
    command = main.commands[name]
    (attempt.folder / "chain.csv").write_text("weight,bias\n3,-1\n-2,0.5\n")
    chosen = rng.sample(options(command), min(rng.choice([1, 1, 1, 2, 3]), len(options(command))))
    arguments, names = [], []
    for option in chosen:
        names += [option.opts[0], str(option.name), option.opts[0].lstrip("-").replace("-", "_"), *option.opts]
        if option.is_flag:
            arguments.append(option.opts[0])
            continue
        given = value(attempt, option)
        names += [word for word in (given.partition("=")[0], given.partition(":")[0]) if len(word) > 1]
        arguments += [option.opts[0], given] if rng.random() < 0.7 else [f"{option.opts[0]}={given}"]
        if option.name in ("weight", "bias", "x", "target", "grid"):
            names += ["std", "mean", "gain", "low", "high", "weight", "bias", "value"]
    rest = small(name, chosen)
    if name in ("export", "plot", "merge"):
        names += ["absent.db"]
    names += ["memory", "grid", "links", "point"] if {"grid", *LONG} & {option.name for option in chosen} else []
    surrogates = any("\udcff" in argument for argument in arguments)
    writes = ["x", "x.png", "x.csv", "x.json", "x.npz", "a\nb.csv", " ", "new.db"]
    words = [name, *rest, *arguments] if rng.random() < 0.5 else [name, *arguments, *rest]
    done = attempt.run(
        *words, budget=BUDGET, timeout=15, stop=signal.SIGINT, writes=writes, named=() if surrogates else names
    )
    readable(attempt, done, words)


def small(name: str, chosen: list[click.Option]) -> list[str]:
    """The small job, without what is given otherwise."""
    taken = {opt for option in chosen for opt in option.opts}
    words, rest = iter(SMALL[name]), []
    for word in words:
        if word in taken:
            next(words)
        else:
            rest.append(word)
    return rest


def readable(attempt: Attempt, done: Done, words: list[str]) -> None:
    """Check that JSON is JSON, and equal on other threads and the other compiled backend."""
    if not done.ok or "--format" not in words or not done.stdout.startswith(b"{"):
        return
    try:
        document = done.json()
    except ValueError as error:
        attempt.check(False, str(error))
        return
    if words[0] not in ("simulate", "train", "schemes", "backprop") or "--backend" in " ".join(words):
        return
    again = attempt.run(*words, "--threads", 3, budget=BUDGET, timeout=60)
    attempt.check(again.ok and again.json()["result"] == document["result"], "another result on three threads")


def formats(attempt: Attempt) -> None:
    """Random good jobs: each format can be read, and threads and backends change nothing."""
    rng = attempt.rng
    (attempt.folder / "chain.csv").write_text("weight,bias\n3,-1\n-2,0.5\n")
    name = rng.choice(["simulate", "train", "schemes", "backprop", "sweep"])
    words = [name, *SMALL[name]]
    if name != "backprop":
        words += ["--seed", str(rng.choice([0, 1, 2**64 - 1, 2**32, rng.getrandbits(64)]))]
    if name in ("simulate", "train"):
        words += ["--weight", rng.choice(["normal:std=4", "uniform:low=-1,high=3", "constant:2", "he_normal:gain=3"])]
    done = attempt.run(*words, "--format", "json", "--backend", "cpp", "--threads", rng.choice([1, 2, 5]))
    again = attempt.run(*words, "--format", "json", "--backend", "numba", "--threads", 1)
    attempt.check(done.ok and again.ok and results(done) == results(again), "numba shows another result than cpp")
    attempt.run(*words, "--format", "csv")
    attempt.run(*words)


def results(done: Done) -> Any:
    """The result in JSON, without what says how it came about."""
    result = done.json()["result"]
    return {key: of for key, of in result.items() if key not in ("backend", "seconds")}


def environments(attempt: Attempt) -> None:
    """Odd environments, around a command that would work."""
    rng = attempt.rng
    (attempt.folder / "chain.csv").write_text("weight,bias\n3,-1\n-2,0.5\n")
    name = rng.choice(["example", "simulate", "train", "backprop", "info", "sweep"])
    chosen = {
        name: rng.choice(ENVIRONMENT[name].split("|")) for name in rng.sample(list(ENVIRONMENT), rng.choice([1, 2, 3]))
    }
    names = [word for key in chosen for word in (key, "--" + key.removeprefix("FASTGRAD_").lower())]
    words = [name, *SMALL[name], *rng.choice([[], ["--format", "json"], ["--backend", "numba"] * (name != "info")])]
    done = attempt.run(*words, env=chosen, named=[*names, *filter(None, chosen.values())], timeout=240)
    overruled = [f"FASTGRAD_{word.removeprefix('--').upper()}" for word in words if word.startswith("--")]
    wrong = [
        key
        for key, value in chosen.items()
        if value in ("bogus", "mmx", "xml", "sometimes") and "FASTGRAD" in key and key not in overruled
    ]
    if (name in ("simulate", "train", "backprop", "sweep") and "FASTGRAD_ISA" not in wrong) or "--backend" not in words:
        attempt.check(not (wrong and done.ok), f"{', '.join(wrong)} did not matter", "message")


def words(attempt: Attempt) -> None:
    """Commands and options that there are not, or too often."""
    rng = attempt.rng
    name = rng.choice([*SMALL, "bogus", "", "SIMULATE", "--bogus", "-x", "--version=1", "simulat"])
    extra = rng.choice(
        ["--bogus", "extra", "--depth", "-o", "-- --depth", "-qq -q", "--format json --format csv"]
    ).split()
    attempt.run(name, *SMALL.get(name, []), *extra, budget=BUDGET, timeout=60, writes=["new.db"])


def same_words(attempt: Attempt) -> None:
    """A number is the same number to every command, or to none."""
    value = attempt.rng.choice(
        ["12345678901234567.0", "1e15", "2e0", "007", "18446744073709551615", "-0", "1_0", "٣", " 5"]
    )
    option = attempt.rng.choice(["seed", "seed", "ensemble", "record"])
    value = value if option == "seed" else attempt.rng.choice(["2e0", "007", "1_0", "٣", " 5", "12.0", "-0"])
    rest = ["--depth", "3", f"--{option}", value, "--format", "json"]
    one = attempt.run("simulate", *rest, named=[option])
    many = attempt.run("sweep", "--grid", "x=0.5", *rest, named=[option])
    attempt.check(one.ok == many.ok, f"{option} {value!r}: {one.status} to simulate, {many.status} to sweep", "message")
    if one.ok and many.ok:
        taken = one.json()["parameters"][option], many.json()["result"]["points"][0][option]
        attempt.check(taken[0] == taken[1], f"{option} {value!r} is {taken[0]} to simulate, {taken[1]} to sweep")


def big_grids(attempt: Attempt) -> None:
    """As many points as a range may have: what they take is told, in little time and memory, or refused."""
    form = attempt.rng.choice(["table", "json", "csv"])
    words = ["sweep", "--grid", "weight.std=1:2:1000000", "--dry-run", "--format", form]
    attempt.run(*words, budget=BUDGET // 2, timeout=60, named=["grid", "points", "memory"])


def help_texts(attempt: Attempt) -> None:
    """Help of every command, and the completion of a shell."""
    name = attempt.rng.choice(list(SMALL))
    done = attempt.run(*attempt.rng.choice([[name, "--help"], [name, "-h"], ["--help"], ["--version"]]))
    attempt.check(done.ok and done.stdout, "no help", "message")


ATTACKS = (*(edges,) * 14, *(environments,) * 4, same_words, same_words, formats, words, help_texts, big_grids)
