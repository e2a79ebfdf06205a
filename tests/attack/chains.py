"""Numbers: random chains and laws of every size, through the API, on every backend.

`numba` and `cpp` must return equal bits on any number of threads, and where rounding can't matter they, and NumPy,
what mpmath does.
"""

from __future__ import annotations

import json
import math
import random
import sys
import warnings
from typing import Any

import numpy as np

from attack.core import TESTS, Attempt
from attack.oracle import NAMES, close, exact, members

CASES = 40  # in a process
RUNNER = "import sys; from attack import chains; sys.exit(chains.main(sys.argv[1], int(sys.argv[2])))"


def _through_api(attempt: Attempt, kind: str) -> None:
    seed = attempt.rng.getrandbits(32)
    done = attempt.run(kind, seed, program=[sys.executable, "-c", RUNNER], env={"PYTHONPATH": str(TESTS)}, timeout=400)
    if done.ok:
        found = done.json()
        attempt.counts["checked"] += found["checked"]
        for wrong in found["wrong"]:
            attempt.found(*wrong)


def given_chains(attempt: Attempt) -> None:
    """Backprop of arrays."""
    _through_api(attempt, "backprop")


def drawn_chains(attempt: Attempt) -> None:
    """Simulation of laws."""
    _through_api(attempt, "simulate")


def trained_chains(attempt: Attempt) -> None:
    """Training of arrays."""
    _through_api(attempt, "train")


def scaled(attempt: Attempt) -> None:
    """Arithmetic of Scaled."""
    _through_api(attempt, "scaled")


def bad_calls(attempt: Attempt) -> None:
    """Arguments that are none: refused by an error that names them."""
    _through_api(attempt, "calls")


# In the process


class Case:
    """One comparison of results; what is wrong is kept."""

    def __init__(self) -> None:
        self.checked, self.wrong = 0, []

    def check(self, holds: Any, why: str, kind: str = "other number") -> None:
        self.checked += 1
        if not holds:
            self.wrong.append((kind, why))


def main(kind: str, seed: int) -> int:
    """Run cases, and print what was checked and what was wrong."""
    warnings.simplefilter("ignore")
    case, rng = Case(), random.Random(seed)
    for number in range(CASES):
        before = len(case.wrong)
        with np.errstate(all="ignore"):
            CHECKS[kind](case, rng)
        case.wrong[before:] = [(of, f"case {number} of {kind} {seed}: {why}") for of, why in case.wrong[before:]]
    print(json.dumps({"checked": case.checked, "wrong": case.wrong}))
    return 0


def number(rng: random.Random) -> float:
    """A number of any size that float64 has, and often one that matters."""
    kind = rng.random()
    if kind < 0.15:
        return rng.choice(
            [0.0, -0.0, 1.0, -1.0, 4.0, -4.0, 0.5, 5e-324, 2.0**60, -(2.0**60), 1.7e308, 36.7, -745.0, 340.0]
        )
    size = 10 ** rng.uniform(-3, 3) if kind < 0.8 else 10 ** rng.uniform(-320, 300)
    return rng.choice([-1, 1]) * size


def arrays(rng: random.Random) -> dict[str, Any]:
    """Chains of numbers of every size; some are centered, whose rounding would be amplified."""
    depth = rng.choice([1, 2, 3, 5, 8, rng.randint(9, 400)])
    ensemble = rng.choice([1, 1, 3, rng.randint(2, 40)])
    tame = rng.random() < 0.5
    draw = (lambda: rng.gauss(0, 10 ** rng.uniform(-1, 1.5))) if tame else (lambda: number(rng))
    made = {name: np.array([[draw() for _ in range(ensemble)] for _ in range(depth)]) for name in ("weight", "bias")}
    if rng.random() < 0.2:
        made["bias"] = -made["weight"] / 2
    for name in ("x", "cotangent"):
        made[name] = np.array([draw() if rng.random() < 0.3 else rng.random() for _ in range(ensemble)])
    return made


def bits(*results: Any) -> bytes:
    """Everything in some arrays, to be compared."""
    return b"".join(np.ascontiguousarray(part).tobytes() for part in results)


def scaled_bits(result: Any, names: tuple[str, ...]) -> bytes:
    """Everything in some Scaled arrays of a result."""
    return b"".join(bits(getattr(result, name).mantissa, getattr(result, name).exponent) for name in names)


def check_backprop(case: Case, rng: random.Random) -> None:
    import fastgrad as fg

    given = arrays(rng)
    threads = rng.choice([1, 2, 3, 7])
    found = {name: fg.backprop(**given, backend=name, threads=threads) for name in ("cpp", "numba", "numpy")}
    again = fg.backprop(**given, backend="cpp", threads=1)
    want = scaled_bits(found["cpp"], NAMES) + bits(found["cpp"].output)
    case.check(
        want == scaled_bits(found["numba"], NAMES) + bits(found["numba"].output), "numba has other bits than cpp"
    )
    case.check(want == scaled_bits(again, NAMES) + bits(again.output), "other bits on one thread")
    chosen = rng.sample(range(given["weight"].shape[1]), min(2, given["weight"].shape[1]))
    for member, one in enumerate(members(given)):
        known = exact(*one) if member in chosen else None
        if known is None:
            continue
        for backend, gradients in found.items():
            for name, values in known.gradients.items():
                of = getattr(gradients, name)
                mantissa, exponent = np.atleast_2d(of.mantissa)[..., member], np.atleast_2d(of.exponent)[..., member]
                for link, value in enumerate(values):
                    holds = close(value, mantissa[link], exponent[link], known.tolerance)
                    case.check(holds, f"{backend} {name}[{link}], member {member}: {mantissa[link]}, {exponent[link]}")


def law(rng: random.Random, bias: bool) -> str:
    """A law that can be drawn."""
    a, b = number(rng), abs(number(rng))
    if rng.random() < 0.6:
        a, b = rng.gauss(0, 3), abs(rng.gauss(0, 5))
    a, b = max(-1e300, min(a, 1e300)), min(b, 1e300)
    names = [
        f"constant:{a!r}",
        f"normal:mean={a!r},std={b / 9!r}",
        f"normal:std={b / 9!r}",
        f"uniform:low={a - b!r},high={a + b!r}",
    ]
    names += ["zero", f"he_uniform:gain={b / 9!r}", "glorot_normal", "torch_default"] + ["centered"] * (2 * bias)
    return rng.choice(names)


def check_simulate(case: Case, rng: random.Random) -> None:
    import fastgrad as fg

    weight, bias = law(rng, False), law(rng, True)
    depth, ensemble = rng.choice([1, 2, 7, 60, rng.randint(1, 3000)]), rng.choice([1, 2, 5, 40])
    seed, x = rng.getrandbits(64), rng.choice([0.5, 0.3, rng.random(), number(rng)])
    asked = {"weight": weight, "bias": bias, "seed": seed, "x": x, "record": rng.choice([2, 3, 9, 64])}
    found = [
        fg.simulate(depth, ensemble, **asked, backend=name, threads=rng.choice([1, 2, 5]))
        for name in ("cpp", "numba", "numpy")
    ]
    names = ("adjoint", "grad_weight", "grad_bias", "bound")
    text = f"{asked}, depth {depth}, ensemble {ensemble}"
    case.check(scaled_bits(found[0], names) == scaled_bits(found[1], names), f"numba has other bits than cpp: {text}")
    if bias == "centered":
        return  # arrays can't carry how far an activation is from 1/2
    w, b = fg.draw(depth, ensemble, weight, bias, seed)
    for member in range(min(2, ensemble)):
        known = exact(w[:, member], b[:, member], x, 1.0)
        if known is None:
            continue
        for backend, growth in zip(("cpp", "numba", "numpy"), found, strict=True):
            for row, link in enumerate(growth.link):
                for name in ("grad_weight", "grad_bias"):
                    of = getattr(growth, name)
                    parts = of.mantissa[row, member], of.exponent[row, member]
                    holds = close(known.gradients[name][int(link) - 1], *parts, known.tolerance)
                    case.check(holds, f"{backend} {name} at link {link}, member {member}: {parts}; {text}")


def check_train(case: Case, rng: random.Random) -> None:
    import fastgrad as fg

    given = arrays(rng)
    given.pop("cotangent")
    loss = rng.choice(["squared", "cross_entropy"])
    ensemble = given["weight"].shape[1]
    target = np.array(
        [rng.random() if loss == "cross_entropy" or rng.random() < 0.9 else number(rng) for _ in range(ensemble)]
    )
    how = {
        "learning_rate": abs(number(rng)) or 1.0,
        "steps": rng.choice([1, 2, 30]),
        "loss": loss,
        "clip_value": rng.choice([None, None, abs(number(rng)) or 1.0]),
        "clip_norm": rng.choice([None, None, abs(number(rng)) or 1.0]),
        "record": rng.choice([2, 3, 64]),
    }
    found = [
        fg.train(**given, target=target, **how, backend=name, threads=rng.choice([1, 2, 5]))
        for name in ("cpp", "numba")
    ]
    parts = [bits(t.step, t.loss, t.weight, t.bias, t.last_step) + repr(t.status).encode() for t in found]
    case.check(parts[0] == parts[1], f"numba trains to other bits than cpp: {how}")
    case.check(
        np.isfinite(found[0].weight).all() and np.isfinite(found[0].bias).all(), f"weights are not finite: {how}"
    )
    free = how["clip_value"] is None and how["clip_norm"] is None
    if loss == "squared" and how["steps"] == 1 and free:
        for member, (w, b, x, _) in enumerate(members(given)):
            output = found[0].loss[0][member]
            known = exact(w, b, x, 1.0)
            if known is None or not known.tolerance <= 1e-9 or not math.isfinite(output):  # nor is it NaN
                continue
            import mpmath

            # The cotangent is the output minus the target, and the loss half its square.
            gradient = fg.backprop(w, b, x, backend="numpy")
            cotangent = mpmath.mpf(float(gradient.output)) - mpmath.mpf(float(target[member]))
            for link, value in enumerate(known.gradients["grad_weight"]):
                step = how["learning_rate"] * cotangent * value
                want = mpmath.mpf(float(w[link])) - step
                if abs(want) > 1e300 or str(found[0].status[member]) == "diverged":
                    continue
                slack = (
                    1e-322
                    + 2.0**-50 * abs(w[link])
                    + abs(step) * (known.tolerance + 1e-12 + 1e-14 / max(abs(cotangent), 1e-30))
                )
                got = found[0].weight[link, member]
                moved = got == w[link] and str(found[0].status[member]) == "converged"
                case.check(
                    moved or abs(got - want) <= slack, f"w[{link}] of member {member} went to {got}, not {want}: {how}"
                )


class LawMadeByHand:
    """Stands for a law of an unknown family, which can only be made where it is caught."""


JUNK = [None, "", "x", b"", [], {}, object(), True, math.nan, math.inf, -1, 0, 1.5, 2**70, 10**400, "1", [[]], [1, "a"]]


JUNK += [np.ma.masked_array([1.0], [True]), np.array(["a"]), 1j, (1, 2, 3), {"a": 1}, lambda: 1, -(2**65), "\udcff"]


JUNK += [type]


def check_calls(case: Case, rng: random.Random) -> None:
    import fastgrad as fg

    good: dict[str, dict[str, Any]] = {
        "backprop": {
            "weight": [1.0, 2.0],
            "bias": [0.0, 1.0],
            "x": 0.5,
            "cotangent": 1.0,
            "backend": "cpp",
            "threads": 1,
        },
        "draw": {"depth": 3, "ensemble": 2, "weight": "normal", "bias": "zero", "seed": 1},
        "simulate": {"depth": 5, "ensemble": 3, "weight": "normal", "bias": "zero", "x": 0.5, "seed": 0, "record": 4}
        | {"backend": "cpp", "threads": 1, "progress": None},
        "train": {
            "weight": [1.0],
            "bias": [0.0],
            "x": 0.5,
            "target": 0.2,
            "learning_rate": 1.0,
            "steps": 2,
            "loss": "squared",
        }
        | {"clip_value": None, "clip_norm": None, "tolerance": 0.1, "record": 2, "backend": "cpp", "threads": 1},
        "sweep": {
            "grid": {"weight.std": [1]},
            "job": "simulate",
            "store": None,
            "executor": None,
            "depth": 3,
            "ensemble": 2,
        },
    }
    name = rng.choice(list(good))
    argument = rng.choice(list(good[name]))
    value = rng.choice([*JUNK, LawMadeByHand])
    if name == "sweep" and argument == "grid" and rng.random() < 0.7:
        value = {rng.choice(["weight.std", "depth", "x", "", 1, None, "seed"]): rng.choice([value, [value]])}
    if (argument == "store" and isinstance(value, str) and value) or (argument == "progress" and callable(value)):
        return
    if argument in ("depth", "ensemble", "steps") and isinstance(value, int) and value > 10**6:
        value = -value
    try:
        if value is LawMadeByHand:
            value = fg.laws.Law(argument, 0.0, 1.0, "bogus")  # type: ignore[arg-type]  # refused by name
        getattr(fg, name)(**{**good[name], argument: value})
    except (ValueError, TypeError, OSError) as error:
        text = str(error)
        keys = [str(key) for key in value] if isinstance(value, dict) else []
        words = (argument, argument.replace("_", "-"), *(key for key in keys if key))
        case.check(any(word in text for word in words), f"{name}({argument}={value!r:.60}): {error!r:.200}", "message")
    except Exception as error:
        case.check(False, f"{name}({argument}={value!r:.60}): {error!r:.200}", "traceback")
    else:
        case.check(True, "")


def check_scaled(case: Case, rng: random.Random) -> None:
    """Arithmetic of Scaled, against mpmath, up to the ends of the exponent's range."""
    import mpmath

    import fastgrad as fg

    def draw() -> tuple[Any, Any]:
        end = 2**62 - 2000  # a product can leave the range, no operand
        mantissa, exponent = number(rng), rng.choice([0, 1, -1074, 2000, rng.randint(-end, end), end, -end])
        return fg.Scaled(mantissa, exponent), mpmath.ldexp(mpmath.mpf(mantissa), exponent)

    def holds(scaled: Any, value: Any) -> bool:
        if scaled.mantissa == 0:
            return bool(abs(value) < mpmath.ldexp(1, -(2**62)))
        ratio = mpmath.ldexp(mpmath.mpf(float(scaled.mantissa)), int(scaled.exponent)) / value
        return bool(abs(ratio - 1) < 2.0**-51)

    with mpmath.workprec(200):
        (a, exact_a), (b, exact_b) = draw(), draw()
        for name, of, value in (
            ("a", lambda: a, exact_a),
            ("a * b", lambda: a * b, exact_a * exact_b),
            ("-a", lambda: -a, -exact_a),
        ):
            try:
                case.check(holds(of(), value), f"{name} is {of()!r}: a {a!r}, b {b!r}")
                float(of()), f"{of():.3e}", of().log10(), of() == a
            except OverflowError as error:
                case.check(abs(value) > mpmath.ldexp(1, 2**62), f"{name}: {error}; a {a!r}, b {b!r}", "traceback")


CHECKS = {"scaled": check_scaled, "backprop": check_backprop, "simulate": check_simulate, "train": check_train}
CHECKS["calls"] = check_calls
ATTACKS = (scaled, given_chains, drawn_chains, trained_chains, bad_calls)
