"""A second solver for Lyapunov exponents, which shares nothing with the package: an oracle for its theory.

It finds the stationary law of the activation o (or of |o - 1/2|, with biases -w/2) itself: as weights at Chebyshev
points of fixed cells that shrink geometrically towards 0 and 1, from the matrix of the transfer operator by
Clenshaw-Curtis quadrature. Finer cells tell how far its own digits can be trusted.

    python tests/theory/second_solver.py [SEED] [PAIRS]

compares it with fastgrad.theory on random pairs of laws, and writes a table of what differs and what is refused.
"""

import itertools
import math
import sys
import time
from collections import Counter

import numpy as np

SIGMAS = 9.2


def _chebyshev(n):
    """Points cos(pi k / n), their Clenshaw-Curtis weights, and barycentric weights."""
    k = np.arange(n + 1)
    points = np.cos(np.pi * k / n)
    weights = np.zeros(n + 1)
    for j in range(0, n + 1, 2):
        term = 2 / (1 - j * j) * np.cos(j * np.pi * k / n)
        weights += term * (0.5 if j in (0, n) else 1.0)
    weights *= 2 / n * np.where((k == 0) | (k == n), 0.5, 1.0)
    barycentric = (-1.0) ** k * np.where((k == 0) | (k == n), 0.5, 1.0)
    return points[::-1], weights[::-1], barycentric[::-1]


def _normal_cdf(t):
    return 0.5 * np.array([math.erfc(-x / math.sqrt(2)) for x in t.ravel()]).reshape(t.shape)


class _Law:
    """``normal:mean=,std=``, ``uniform:low=,high=``, ``constant:`` or ``zero``: where it begins, and its width."""

    def __init__(self, text):
        self.family, _, rest = text.partition(":")
        numbers = {key: float(value) for key, _, value in (part.rpartition("=") for part in rest.split(",") if rest)}
        if self.family == "normal":
            self.at, self.width = numbers.get("mean", 0.0), numbers["std"]
        elif self.family == "uniform":
            self.at, self.width = numbers["low"], numbers["high"] - numbers["low"]
        else:
            self.family, self.at, self.width = "constant", numbers.get("", 0.0), 0.0

    def ends(self):
        reach = SIGMAS * self.width
        return (self.at - reach, self.at + reach) if self.family == "normal" else (self.at, self.at + self.width)

    def ln(self):
        """E ln|w|, by tanh-sinh quadrature between the zero and the ends."""
        if self.family == "constant":
            return math.log(abs(self.at))
        low, high = self.ends()
        u = np.arange(-6.0, 6.0, 1 / 64)
        place = 1 / (1 + np.exp(-np.pi * np.sinh(u)))  # in (0, 1), both ends with relative precision
        share = np.pi * np.cosh(u) * place / (1 + np.exp(np.pi * np.sinh(u))) / 64
        total = mass = 0.0
        edges = np.unique(
            np.clip(
                [low, high, *(self.at + self.width * np.arange(-8, 9, 2.0) if self.family == "normal" else []), 0.0],
                low,
                high,
            )
        )
        for a, b in itertools.pairwise(edges):
            for start, step in ((a, (b - a) / 2), (b, (a - b) / 2)):
                w = start + step * place
                density = np.exp(-0.5 * ((w - self.at) / self.width) ** 2) if self.family == "normal" else 1.0
                weight = share * density * abs(step)
                total += np.sum(weight * np.log(np.maximum(np.abs(w), 1e-320)))
                mass += np.sum(weight * np.ones_like(w))
        return total / mass


def _pieces(edges, points, weights):
    """Points and weights on the pieces that have a width, of rows of sorted edges: row, then (pieces, n) twice."""
    row, piece = np.nonzero(np.diff(edges, axis=1) > 0)
    a, b = edges[row, piece], edges[row, piece + 1]
    half = ((b - a) / 2)[:, None]
    return row, a[:, None] + half * (points + 1), half * weights


class _Independent:
    """Weights and biases that are independent; cells in min(o, 1 - o), for o below and above 1/2."""

    def __init__(self, weight, bias, ratio):
        self.weight, self.bias = weight, bias
        depth = (35 + math.log(max(1.0, *map(abs, weight.ends())))) / ratio
        ends = np.exp(-ratio * np.arange(1, math.ceil(depth)))
        ends = ends[ends < 0.4]
        middle = np.linspace(0.5, ends[0], 1 + math.ceil((0.5 - ends[0]) / (ratio / 4)))
        ends = np.concatenate([middle, ends[1:], [0.0]])
        self.low, self.high = np.tile(ends[1:], 2), np.tile(ends[:-1], 2)
        self.side = np.repeat([-1, 1], len(ends) - 1)
        # cells in the order of z
        z_ends = np.log(ends[:-1]) - np.log1p(-ends[:-1])
        self.z_edges = np.concatenate([z_ends[::-1], -z_ends[1:]])
        count = len(ends) - 1
        self.cell_of = np.concatenate([np.arange(count)[::-1], count + np.arange(count)])

    def nodes(self, points):
        """Each node's o and 1 - o, whichever is small exactly."""
        small = (self.low[:, None] + (self.high - self.low)[:, None] / 2 * (points + 1)).ravel()
        side = np.repeat(self.side, len(points))
        return np.where(side < 0, small, 1 - small), np.where(side < 0, 1 - small, small)

    def law(self, o, rest):
        """Of z' from o: center, scale, breaks of t, density."""
        w, b = self.weight, self.bias
        center = np.where(o < 0.5, w.at * o + b.at, (w.at + b.at) - w.at * rest)
        normal = (
            np.hypot(w.width * o if w.family == "normal" else 0.0, b.width if b.family == "normal" else 0.0) + 0 * o
        )
        boxes = [w.width * o if w.family == "uniform" else 0 * o, b.width if b.family == "uniform" else 0.0]
        steps = np.arange(-SIGMAS, SIGMAS + 0.01, SIGMAS / 4)
        one = np.ones((len(o), 1))
        normal = np.maximum(normal, 1e-300)
        if not any(law.family == "uniform" for law in (w, b)):
            return center, normal, steps * one, lambda t, row: np.exp(-(t**2) / 2) / math.sqrt(2 * math.pi)
        long, short = np.maximum(np.maximum(*boxes), 1e-300), np.minimum(*boxes)
        if not any(law.family == "normal" for law in (w, b)):
            total = long + short
            kink = (short / total)[:, None]
            breaks = np.concatenate([0 * one, kink, 1 - kink, one], axis=1)

            def trapezoid(t, row):
                k = kink[row]
                return np.where(
                    t < k, t / np.maximum(k, 1e-300), np.where(t > 1 - k, (1 - t) / np.maximum(k, 1e-300), 1.0)
                ) / (1 - k)

            return center, total, breaks, trapezoid
        # in units of the box, where it is the wider of the two, else of the standard deviation
        unit = np.maximum(long, normal)
        box, std = (long / unit)[:, None], np.maximum(normal / unit, 1e-15)[:, None]
        breaks = np.sort(np.concatenate([steps * std, box + steps * std], axis=1), axis=1)
        inner, share, _ = _chebyshev(12)

        def mixed(t, row):
            found = np.empty_like(t)
            thin = (box / std)[row, 0] < 0.5
            v = (t[thin] / std[row[thin]])[..., None] - (box / std)[row[thin]][..., None] * (inner + 1) / 2
            found[thin] = np.exp(-(v**2) / 2) @ share / 2 / math.sqrt(2 * math.pi) / std[row[thin]]
            s, length = std[row[~thin]], box[row[~thin]]
            t = np.minimum(t[~thin], length - t[~thin])
            found[~thin] = (_normal_cdf(t / s) - _normal_cdf((t - length) / s)) / length
            return found

        return center, unit, breaks, mixed

    def next_place(self, z):
        """Cell, and place in it in [-1, 1], of the next state."""
        cell = self.cell_of[np.searchsorted(self.z_edges, z.mean(axis=1))]
        e = np.exp(-np.abs(z))
        small = e / (1 + e)
        small = np.where((z > 0) == (self.side[cell] > 0)[:, None], small, 1 - small)
        low, high = self.low[cell][:, None], self.high[cell][:, None]
        return cell, np.clip(2 * (small - low) / (high - low) - 1, -1, 1)

    def gain(self, z):
        return -np.abs(z) - 2 * np.log1p(np.exp(-np.abs(z)))


class _Mirrored:
    """Biases -w/2: cells in ln|d|, d = o - 1/2, wider where the chain is a random walk in it."""

    def __init__(self, weight, ratio):
        self.weight = weight
        low, high = np.abs(weight.ends())
        most = max(low, high)
        least = 0.0 if weight.ends()[0] <= 0 <= weight.ends()[1] else min(low, high)
        # The share of the time below |d| falls like |d|^theta, theta about twice the drift over the variance of ln|w|.
        drift = weight.ln() - math.log(4)
        deep = min(30 / min(1.0, 1.5 * drift), 600.0) + max(0.0, math.log(most))
        shallow = 10 + max(0.0, math.log(most))
        ends = np.concatenate([np.arange(0, shallow, ratio), np.arange(shallow, deep + 8 * ratio, 8 * ratio)])
        self.ends = math.log(0.5) - ends[::-1]
        self.z_edges = np.log(2 * np.arctanh(2 * np.exp(self.ends[:-1])))  # of ln|z|
        if weight.family == "normal":
            size = np.abs(weight.at + weight.width * np.arange(-SIGMAS, SIGMAS + 0.1, 0.5))
        else:
            size = np.abs(weight.ends())
        logs = np.concatenate([np.log(size[size > 0]), math.log(most) - np.arange(1, 45, 4.0)])
        self.logs = np.unique(logs[logs >= (math.log(least) if least else -1e9)])

    def nodes(self, points):
        low, high = self.ends[:-1], self.ends[1:]
        ln_d = (low[:, None] + (high - low)[:, None] / 2 * (points + 1)).ravel()
        return ln_d, ln_d

    def law(self, ln_d, _):
        m, s = self.weight.at, self.weight.width

        def density(t, row):
            w = np.exp(t)
            if self.weight.family == "normal":
                bells = sum(np.exp(-(((w + sign * m) / s) ** 2) / 2) for sign in (-1, 1))
                return w / s / math.sqrt(2 * math.pi) * bells
            middle = w[:, w.shape[1] // 2][:, None]
            return w / s * (((m <= middle) & (middle <= m + s)) * 1.0 + ((m <= -middle) & (-middle <= m + s)))

        return ln_d, np.ones_like(ln_d), np.broadcast_to(self.logs, (len(ln_d), len(self.logs))), density

    def next_place(self, r):
        cell = np.searchsorted(self.z_edges, r.mean(axis=1)) - 1
        cell = np.clip(cell, 0, len(self.ends) - 2)
        ln_d = np.log(np.tanh(np.exp(r) / 2) / 2)
        low, high = self.ends[:-1][cell][:, None], self.ends[1:][cell][:, None]
        return cell, np.clip(2 * (ln_d - low) / (high - low) - 1, -1, 1)

    def gain(self, r):
        z = np.exp(r)
        return -z - 2 * np.log1p(np.exp(-z))


def _stationary_mean(chain, n):
    points, weights, barycentric = _chebyshev(n)
    here, rest = chain.nodes(points)
    size = len(here)
    matrix, gain = np.zeros((size, size)), np.zeros(size)
    for start in range(0, size, 64):
        rows = slice(start, min(start + 64, size))
        center, scale, breaks, density = chain.law(here[rows], rest[rows])
        with np.errstate(over="ignore"):
            cuts = (np.concatenate([chain.z_edges, np.linspace(-38, 38, 39)]) - center[:, None]) / scale[:, None]
        edges = np.sort(np.concatenate([breaks, np.clip(cuts, breaks[:, :1], breaks[:, -1:])], axis=1), axis=1)
        row, t, share = _pieces(edges, points, weights)
        share = share * density(t, row)
        z = center[row][:, None] + scale[row][:, None] * t
        cell, at = chain.next_place(z)
        away = at[..., None] - points
        hit = away == 0
        terms = np.where(hit.any(axis=-1, keepdims=True), hit, barycentric / np.where(hit, 1, away))
        terms /= terms.sum(axis=-1, keepdims=True)
        parts = np.einsum("pk,pkj->pj", share, terms)
        index = row[:, None] * size + cell[:, None] * (n + 1) + np.arange(n + 1)
        count = rows.stop - rows.start
        block = np.bincount(index.ravel(), parts.ravel(), minlength=count * size).reshape(count, size)
        total = block.sum(axis=1)
        matrix[rows] = block / total[:, None]
        gain[rows] = np.bincount(row, (share * chain.gain(z)).sum(axis=1), minlength=count) / total
    system = (matrix - np.eye(size)).T
    system[size // 2] = 1.0
    one = np.zeros(size)
    one[size // 2] = 1.0
    return float(np.linalg.solve(system, one) @ gain)


def exponent(weight, bias, digits=1e-11):
    """Exponent of a chain with these laws, and how far two resolutions of it differ."""
    weight = _Law(weight)
    ln = weight.ln()
    found = []
    for ratio, n in ((1.0, 13), (0.8, 15), (0.5, 15), (0.3, 21), (0.25, 27)):
        chain = _Mirrored(weight, ratio) if bias == "centered" else _Independent(weight, _Law(bias), ratio)
        found.append(ln + _stationary_mean(chain, n))
        if len(found) > 1 and abs(found[-1] - found[-2]) <= digits * abs(found[-1]):
            break
    return found[-1], abs(found[-1] - found[-2])


def random_pairs(seed, count):
    """Pairs of laws as text: normal, uniform and constant, around 0 and away from it, narrow and wide."""
    rng = np.random.default_rng(seed)

    def size(low, high):
        return float(np.exp(rng.uniform(math.log(low), math.log(high))))

    def law(widest):
        family = rng.choice(["normal", "uniform", "constant"], p=[0.4, 0.4, 0.2])
        width = size(1e-3, widest)
        middle = 0.0 if rng.random() < 0.4 else float(rng.choice([-1, 1])) * size(0.1, widest / 5)
        if family == "normal":
            return f"normal:mean={middle!r},std={width!r}"
        if family == "uniform":
            return f"uniform:low={middle - width!r},high={middle + width!r}"
        return f"constant:{middle!r}"

    pairs = []
    while len(pairs) < count:
        weight = law(300.0)
        bias = str(rng.choice(["zero", "centered", "law"], p=[0.15, 0.15, 0.7]))
        bias = law(100.0) if bias == "law" else bias
        if not weight.startswith("constant") or (weight != "constant:0.0" and bias.startswith(("normal", "uniform"))):
            pairs.append((weight, bias))
    return pairs


def main(seed=0, count=300):
    """Compare with the package, and print what differs most, what is refused, and the times."""
    from fastgrad import theory

    worst, times, refused = [], [], Counter()
    for weight, bias in random_pairs(seed, count):
        start = time.process_time()
        found = theory.predict(weight, bias, 0.3)
        times.append(time.process_time() - start)
        if found.lyapunov is None:
            refused[found.why_not.partition(" (")[0]] += 1
            print(f"refused  {weight}  {bias}: {found.why_not}", flush=True)
            continue
        if bias == "centered" and found.lyapunov == found.bound.mean:
            worst.append((0.0, 0.0, weight, bias))  # the chain falls into 1/2: the bound, in closed form
            continue
        expected, digits = exponent(weight, bias)
        worst.append((abs(found.lyapunov / expected - 1), digits / abs(expected), weight, bias))
        if worst[-1][0] > 1e-10:
            print(f"differs  {weight}  {bias}: {found.lyapunov:.13g} {expected:.13g} {worst[-1][:2]}", flush=True)
    worst.sort(reverse=True)
    for difference, own, weight, bias in worst[:5]:
        print(f"{difference:.1e} (the second solver itself {own:.1e})  {weight}  {bias}")
    print(f"{len(times)} pairs, refused {sum(refused.values())}: {dict(refused)}")
    print(f"seconds of the processor: median {np.median(times):.4f}, largest {max(times):.3f}")


if __name__ == "__main__":
    main(*map(int, sys.argv[1:]))
