"""The same work as others do it: NumPy, plain Numba, JAX and PyTorch beside fastgrad, in one run.

``python bench/peers.py [--json FILE]`` prints a table per job; peers that are not installed are left out, and said so.
``--markdown`` prints the README's table instead. Each peer is written in the order that suits it best.
The peers work in float64 without any protection against overflow. Contenders take turns in every round, on one
processor and then on all; the ratio to fastgrad's C++ kernel is taken round by round. Where float64 can hold a peer's
gradients they are compared with fastgrad's before anything is timed. The row "copy" moves as many bytes per link as
backprop has to.
"""

import argparse
import json
import os
import platform
import statistics
import subprocess
import sys
import time
from pathlib import Path

from fastgrad.kernels import BACKENDS

ROUNDS = 7
JOBS = ("ensemble", "chain", "simulate", "wide", "narrow")
SHAPES = {
    "ensemble": (1000, 4096),
    "chain": (1_000_000, 1),
    "simulate": (10_000, 10_000),
    "wide": (1000, 1),
    "narrow": (1000, 4096),
}
WIDTHS = {"wide": 256, "narrow": 8}  # units, of dense layers
UNITS = {"wide": "weight", "narrow": "weight"}  # what times are given for, if it is no link
TITLES = {
    "ensemble": "backprop, 1000 links x 4096 given chains",
    "chain": "backprop, one given chain of 10^6 links",
    "simulate": "draw and grow 10 000 chains x 10 000 links, normal weights and biases",
    "wide": "draw 1000 layers of 256 units, forward and back",
    "narrow": "draw 4096 x 1000 layers of 8 units, forward and back",
}
WEIGHT_STD, BIAS_STD = 4.0, 1.0


def numpy_backprop(w, b):
    """Whole-array operations link by link, every array reused."""
    import numpy as np

    depth, ensemble = w.shape
    o = np.empty((depth + 1, ensemble))
    grad_weight, grad_bias = np.empty_like(w), np.empty_like(b)
    adjoint, work = np.empty(ensemble), np.empty(ensemble)

    def run():
        o[0] = 0.5
        for link in range(depth):
            z = o[link + 1]
            np.multiply(w[link], o[link], out=z)
            np.add(z, b[link], out=z)
            np.negative(z, out=z)
            np.exp(z, out=z)
            np.add(z, 1.0, out=z)
            np.reciprocal(z, out=z)
        adjoint[:] = 1.0
        for link in range(depth - 1, -1, -1):
            np.subtract(1.0, o[link + 1], out=work)
            np.multiply(work, o[link + 1], out=work)
            np.multiply(adjoint, work, out=grad_bias[link])
            np.multiply(grad_bias[link], o[link], out=grad_weight[link])
            np.multiply(grad_bias[link], w[link], out=adjoint)
        return grad_weight, grad_bias

    return run


def numba_backprop(w, b):
    """Plain loops in the order of memory: link by link, and over the members within."""
    if w.shape[1] == 1:
        return numba_chain_backprop(w, b)
    import numba
    import numpy as np

    @numba.njit(error_model="numpy")
    def loops(w, b, o, grad_weight, grad_bias, adjoint):
        depth, ensemble = w.shape
        o[0, :] = 0.5
        for link in range(depth):
            for member in range(ensemble):
                o[link + 1, member] = 1.0 / (1.0 + np.exp(-(w[link, member] * o[link, member] + b[link, member])))
        adjoint[:] = 1.0
        for link in range(depth - 1, -1, -1):
            for member in range(ensemble):
                delta = adjoint[member] * o[link + 1, member] * (1.0 - o[link + 1, member])
                grad_bias[link, member] = delta
                grad_weight[link, member] = delta * o[link, member]
                adjoint[member] = delta * w[link, member]

    o, adjoint = np.empty((w.shape[0] + 1, w.shape[1])), np.empty(w.shape[1])
    grad_weight, grad_bias = np.empty_like(w), np.empty_like(b)

    def run():
        loops(w, b, o, grad_weight, grad_bias, adjoint)
        return grad_weight, grad_bias

    return run


def numba_chain_backprop(w, b):
    """Plain loops over the links of one chain: state and adjoint stay in registers."""
    import numba
    import numpy as np

    @numba.njit(error_model="numpy")
    def loops(w, b, o, grad_weight, grad_bias):
        o[0] = 0.5
        for link in range(len(w)):
            o[link + 1] = 1.0 / (1.0 + np.exp(-(w[link] * o[link] + b[link])))
        adjoint = 1.0
        for link in range(len(w) - 1, -1, -1):
            delta = adjoint * o[link + 1] * (1.0 - o[link + 1])
            grad_bias[link] = delta
            grad_weight[link] = delta * o[link]
            adjoint = delta * w[link]

    (weight,), (bias,) = np.ascontiguousarray(w.T), np.ascontiguousarray(b.T)
    o, grad_weight, grad_bias = np.empty(len(weight) + 1), np.empty(len(weight)), np.empty(len(weight))

    def run():
        loops(weight, bias, o, grad_weight, grad_bias)
        return grad_weight[:, None], grad_bias[:, None]

    return run


def jax_backprop(w, b):
    """jit of the gradient of a scan."""
    import jax
    import jax.numpy as jnp

    jax.config.update("jax_enable_x64", True)

    def output(parameters):
        def link(o, wb):
            return jax.nn.sigmoid(wb[0] * o + wb[1]), None

        return jax.lax.scan(link, jnp.full(w.shape[1], 0.5), parameters)[0].sum()

    gradient = jax.jit(jax.grad(output))
    parameters = jnp.asarray(w), jnp.asarray(b)
    return lambda: jax.block_until_ready(gradient(parameters))


def torch_backprop(w, b):
    """Autograd through a loop over the links."""
    import torch

    torch.set_num_threads(len(os.sched_getaffinity(0)))
    weight = torch.tensor(w, requires_grad=True)
    bias = torch.tensor(b, requires_grad=True)

    def run():
        weight.grad = bias.grad = None
        o = torch.full((w.shape[1],), 0.5, dtype=torch.float64)
        for w_l, b_l in zip(weight.unbind(0), bias.unbind(0), strict=True):
            o = torch.sigmoid(w_l * o + b_l)
        o.sum().backward()
        return weight.grad.numpy(), bias.grad.numpy()

    return run


def fastgrad_backprop(backend):
    def prepare(w, b):
        import fastgrad as fg

        out = fg.backprop(w, b, 0.5, backend=backend)

        def run():
            gradients = fg.backprop(w, b, 0.5, backend=backend, out=out)
            return gradients.grad_weight, gradients.grad_bias

        return run

    return prepare


def copy(w, b):
    """Read two arrays and write four: the bytes of backprop without its arithmetic."""
    import numpy as np

    outs = [np.empty_like(w) for _ in range(4)]

    def run():
        np.copyto(outs[0], w)
        np.copyto(outs[1], b)
        outs[2].fill(0.5)
        outs[3].fill(0.5)

    return run


def numpy_simulate(depth, ensemble):
    """default_rng in blocks of links, and the loop that carries the product; it underflows, and is timed."""
    import numpy as np

    rng = np.random.default_rng(0)
    block = 100
    draws = np.empty((2, block, ensemble))
    o, product, work = np.empty(ensemble), np.empty(ensemble), np.empty(ensemble)

    def run():
        o.fill(0.5)
        product.fill(1.0)
        for _ in range(depth // block):
            rng.standard_normal(out=draws)
            draws[0] *= WEIGHT_STD
            draws[1] *= BIAS_STD
            for w, b in zip(*draws, strict=True):
                np.multiply(o, w, out=o)
                np.add(o, b, out=o)
                np.negative(o, out=o)
                np.exp(o, out=o)
                np.add(o, 1.0, out=o)
                np.reciprocal(o, out=o)
                np.subtract(1.0, o, out=work)
                np.multiply(work, o, out=work)
                np.multiply(work, w, out=work)
                np.multiply(product, work, out=product)
        return product

    return run


def jax_simulate(depth, ensemble):
    import jax
    import jax.numpy as jnp

    jax.config.update("jax_enable_x64", True)

    @jax.jit
    def grow(key):
        def link(state, key):
            o, product = state
            w, b = jax.random.normal(key, (2, ensemble), dtype=jnp.float64)
            w, b = WEIGHT_STD * w, BIAS_STD * b
            o = jax.nn.sigmoid(w * o + b)
            return (o, product * o * (1 - o) * w), None

        start = jnp.full(ensemble, 0.5), jnp.ones(ensemble)
        return jax.lax.scan(link, start, jax.random.split(key, depth))[0][1]

    key = jax.random.key(0)
    return lambda: jax.block_until_ready(grow(key))


def fastgrad_simulate(backend):
    def prepare(depth, ensemble):
        import fastgrad as fg

        laws = {"weight": f"normal:std={WEIGHT_STD}", "bias": f"normal:std={BIAS_STD}"}
        return lambda: fg.simulate(depth, ensemble, **laws, backend=backend)

    return prepare


def layer_std(width):
    """Critical, so that float64 holds the gradients of 1000 layers."""
    return 10.149 / width**0.5


def numpy_layers(depth, ensemble, width):
    """default_rng, and products with matmul; the weights are kept for the way back."""
    import numpy as np

    rng = np.random.default_rng(0)
    x, c = np.full((ensemble, width, 1), 0.5), np.full((ensemble, width, 1), width**-0.5)
    weight = np.empty((depth, ensemble, width, width))
    slope = np.empty((depth, ensemble, width, 1))

    def run():
        o = x
        for w, s in zip(weight, slope, strict=True):
            rng.standard_normal(out=w)
            w *= layer_std(width)
            o = 1.0 / (1.0 + np.exp(-(w @ o)))
            np.multiply(o, 1.0 - o, out=s)
        adjoint = c
        for w, s in zip(weight[::-1], slope[::-1], strict=True):
            adjoint = w.transpose(0, 2, 1) @ (adjoint * s)
        return np.sqrt(np.square(adjoint).sum(axis=(1, 2)))

    return run


def jax_layers(depth, ensemble, width):
    """jit of the gradient of a scan that draws, with a checkpoint at each layer: weights are drawn again."""
    import jax
    import jax.numpy as jnp

    jax.config.update("jax_enable_x64", True)

    def output(x, key):
        @jax.checkpoint
        def layer(o, key):
            w = layer_std(width) * jax.random.normal(key, (ensemble, width, width), dtype=jnp.float64)
            return jax.nn.sigmoid(jnp.einsum("mij,mj->mi", w, o)), None

        return jax.lax.scan(layer, x, jax.random.split(key, depth))[0].sum()

    gradient = jax.jit(jax.grad(output))
    x, key = jnp.full((ensemble, width), 0.5), jax.random.key(0)
    return lambda: jax.block_until_ready(gradient(x, key))


def torch_layers(depth, ensemble, width):
    """Autograd through a loop over the layers, which keeps their weights."""
    import torch

    torch.set_num_threads(len(os.sched_getaffinity(0)))
    torch.manual_seed(0)
    x = torch.full((ensemble, width, 1), 0.5, dtype=torch.float64, requires_grad=True)

    def run():
        o, x.grad = x, None
        for _ in range(depth):
            w = torch.randn(ensemble, width, width, dtype=torch.float64).mul_(layer_std(width))
            o = torch.sigmoid(w @ o)
        o.sum().backward()
        return x.grad

    return run


def fastgrad_layers(backend):
    """The kernels themselves, over members in as many slices as there are threads."""

    def prepare(depth, ensemble, width):
        import numpy as np

        from fastgrad import laws
        from fastgrad.jobs.threads import Threads
        from fastgrad.kernels import LayersJob, ScaledArrays, ScaledVectors, load
        from fastgrad.nonlinearities import NONLINEARITIES
        from fastgrad.scaled import Scaled

        kernels = load(backend)[1]
        shape = 2, ensemble
        numbers = [ScaledArrays.of(Scaled.empty(shape)) for _ in range(5)]
        job = LayersJob(
            weight_law=laws.normal(std=layer_std(width)).code,
            bias_law=laws.zero().code,
            seed=0,
            nonlinearity=NONLINEARITIES["sigmoid"].code,
            recorded_layers=np.array([1, depth]),
            length=numbers[0],
            mean_activation=numbers[1],
            saturated=np.empty(shape),
            dead=np.empty(shape),
            correlation=np.empty(shape),
            input_norm=numbers[2],
            delta_norm=numbers[3],
            adjoint_norm=numbers[4],
        )

        def run():
            state = ScaledVectors.of(np.full((ensemble, 1, width), 0.5))
            adjoint = ScaledVectors.of(np.full((ensemble, 1, width), width**-0.5))

            def both_ways(start, stop):
                tape = np.empty((depth, stop - start, width))
                kernels.layers_forward(job, state, tape, 1, depth + 1, start, stop)
                kernels.layers_backward(job, adjoint, tape, 1, depth + 1, start, stop)

            with Threads(None) as pool:
                pool.run(both_ways, ensemble)

        return run

    return prepare


COMPILED = [name for name in BACKENDS if name != "numpy"]  # the reference is the definition, and not a contender
OURS = f"fastgrad {COMPILED[0]}"  # the ratios are to this one
CONTENDERS = {
    "backprop": {
        **{f"fastgrad {name}": (fastgrad_backprop(name), None) for name in COMPILED},
        "copy": (copy, None),
        "NumPy": (numpy_backprop, None),
        "plain Numba": (numba_backprop, "numba"),
        "JAX": (jax_backprop, "jax"),
        "PyTorch": (torch_backprop, "torch"),
    },
    "simulate": {
        **{f"fastgrad {name}": (fastgrad_simulate(name), None) for name in COMPILED},
        "NumPy": (numpy_simulate, None),
        "JAX": (jax_simulate, "jax"),
    },
    "layers": {
        **{f"fastgrad {name}": (fastgrad_layers(name), None) for name in COMPILED},
        "NumPy": (numpy_layers, None),
        "JAX": (jax_layers, "jax"),
        "PyTorch": (torch_layers, "torch"),
    },
}
# What takes minutes for the whole shape is measured on a part of it.
PARTS = {
    ("chain", "NumPy"): 100_000,
    ("chain", "PyTorch"): 2_000,
    **{("wide", name): 200 for name in ("NumPy", "JAX", "PyTorch")},
    **{("narrow", name): 50 for name in ("NumPy", "JAX", "PyTorch")},
}


def in_range(values):
    """Gradients that float64 holds with all its digits."""
    import numpy as np

    return (np.abs(values) > 1e-280) & (np.abs(values) < 1e280)


def check(job, name, result, reference):
    """Compare a peer's gradients with fastgrad's, where float64 has them."""
    import numpy as np

    for theirs, ours in zip(result, reference, strict=True):
        theirs = theirs.to_float() if name.startswith("fastgrad") else np.asarray(theirs)
        exact = ours.to_float()
        kept = in_range(exact) & in_range(theirs)
        # o * (1 - o), which they all use, loses a digit for every factor ten by which o nears 1.
        worst = np.max(np.abs(theirs[kept] / exact[kept] - 1))
        if not kept.any() or worst > 1e-3:
            sys.exit(f"{job}: {name} disagrees with fastgrad by {worst:.1e}")


def measure(job, rounds):
    """Time every contender that is installed, in turns; seconds per link of each round."""
    import importlib.util

    import fastgrad as fg

    depth, ensemble = SHAPES[job]
    kind = "layers" if job in WIDTHS else "simulate" if job == "simulate" else "backprop"
    missing, runs, links = [], {}, {}
    for name, (prepare, package) in CONTENDERS[kind].items():
        if package is not None and importlib.util.find_spec(package) is None:
            missing.append(name)
            continue
        part = PARTS.get((job, name), depth)
        if kind != "backprop":
            runs[name] = prepare(part, ensemble, WIDTHS[job]) if job in WIDTHS else prepare(depth, ensemble)
            runs[name]()
        else:
            w, b = fg.draw(part, ensemble, f"normal:std={WEIGHT_STD}", f"normal:std={BIAS_STD}")
            runs[name] = prepare(w, b)
            result = runs[name]()
            if name != "copy":
                check(job, name, result, fastgrad_backprop("numpy" if ensemble > 1 else COMPILED[0])(w, b)())
        links[name] = part * ensemble * WIDTHS.get(job, 1) ** 2
    times = {name: [] for name in runs}
    for _ in range(rounds):
        for name, run in runs.items():
            start = time.perf_counter()
            run()
            times[name].append((time.perf_counter() - start) / links[name])
    return {"missing": missing, "seconds_per_link": times}


def worker(job, threads, rounds):
    if threads == 1:  # before any library counts the processors
        os.sched_setaffinity(0, {min(os.sched_getaffinity(0))})
    json.dump(measure(job, rounds), sys.stdout)


def table(job, threads, result):
    ours = result["seconds_per_link"][OURS]
    print(f"\n{TITLES[job]}, {'one thread' if threads == 1 else f'{threads} threads'}")
    unit = f"ns per {UNITS.get(job, 'link')}"
    print(f"{'':16}{unit:>13}  {'min … max':>17}  {f'time / {OURS}':>20}  {'min … max':>15}")
    for name, seconds in result["seconds_per_link"].items():
        ratios = [theirs / mine for theirs, mine in zip(seconds, ours, strict=True)]
        spread = f"{1e9 * min(seconds):.3g} … {1e9 * max(seconds):.3g}"
        ratio_spread = f"{min(ratios):.3g} … {max(ratios):.3g}"
        median = 1e9 * statistics.median(seconds)
        print(f"{name:16}{median:13.3g}  {spread:>17}  {statistics.median(ratios):20.3g}  {ratio_spread:>15}")
    for name in result["missing"]:
        print(f"{name:16}not installed")


def markdown(results):
    """One row a contender, one column a job: nanoseconds per link or weight on one thread, median and range."""

    def digits(seconds):
        number = 1e9 * seconds
        return f"{number:.1f}" if number < 10 else f"{float(f'{number:.2g}'):.0f}"

    jobs = {of["job"]: of["seconds_per_link"] for of in results if of["threads"] == 1}
    print("\n| one thread, float64 |", " | ".join(TITLES[job] for job in jobs), "|")
    print("|---" * (1 + len(jobs)) + "|")
    for name in dict.fromkeys(name for times in jobs.values() for name in times):
        cells = []
        for times in jobs.values():
            of = times.get(name)
            cells.append(f"{digits(statistics.median(of))} ({digits(min(of))} … {digits(max(of))})" if of else "")
        print(f"| {name} |", " | ".join(cells), "|")


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--json", metavar="FILE", help="write every round's times to FILE")
    parser.add_argument("--markdown", action="store_true", help="print the README's table: one thread, all jobs")
    parser.add_argument("--rounds", type=int, default=ROUNDS)
    parser.add_argument("--job", choices=JOBS, action="append", help="one job only (may be given again)")
    parser.add_argument("--threads", type=int, action="append", help="1 or all processors; by default both")
    parser.add_argument("--worker", nargs=2, metavar=("JOB", "THREADS"), help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.worker:
        return worker(arguments.worker[0], int(arguments.worker[1]), arguments.rounds)

    import fastgrad as fg

    info = fg.build_info()
    print(f"{info['cpu']}, {info['instruction_set']}, {info['compiler']}, Python {platform.python_version()}")
    document = {"machine": info, "rounds": arguments.rounds, "results": []}
    for job in arguments.job or JOBS:
        counts = [1] if arguments.markdown else arguments.threads or sorted({1, len(os.sched_getaffinity(0))})
        for threads in counts:
            command = [sys.executable, __file__, "--worker", job, str(threads), "--rounds", str(arguments.rounds)]
            done = subprocess.run(command, stdout=subprocess.PIPE, check=True)
            result = json.loads(done.stdout)
            document["results"].append({"job": job, "threads": threads, "shape": SHAPES[job], **result})
            if not arguments.markdown:
                table(job, threads, result)
    if arguments.markdown:
        markdown(document["results"])
    if arguments.json:
        Path(arguments.json).write_text(json.dumps(document, indent=2), encoding="utf-8")
    return None


if __name__ == "__main__":
    main()
