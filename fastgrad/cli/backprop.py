"""The command `fastgrad backprop`."""

from __future__ import annotations

import click

from fastgrad.cli.options import backend_option, finite, threads_option
from fastgrad.cli.output import Output, output_options


@click.command()
@click.argument("file")
@click.option("--bias", type=float, callback=finite, help="Bias of every link.  [default: from FILE, or 0]")
@click.option("--x", type=float, callback=finite, help="Input of every chain.  [default: from FILE, or 0.5]")
@click.option(
    "--cotangent", type=float, callback=finite, help="dloss/doutput of every chain.  [default: from FILE, or 1]"
)
@backend_option
@threads_option
@output_options("npz", figure=True)
def backprop(
    file: str,
    bias: float | None,
    x: float | None,
    cotangent: float | None,
    backend: str,
    threads: int | None,
    output: Output,
) -> None:
    """Exact gradients of the chain in FILE.

    FILE is an .npz with the arrays weight, bias, x and cotangent, an .npy with the weights, or a .csv with the
    columns weight and bias. Arrays have shape (depth,) or (depth, ensemble). -o writes every gradient to an .npz,
    .csv or .json.

    \b
    Example: fastgrad backprop chain.npz -o gradients.npz
    """
    from fastgrad.checks import require_memory
    from fastgrad.files import open_chain
    from fastgrad.jobs.backprop import backprop_chain, log10_bound
    from fastgrad.kernels import load
    from fastgrad.report.backprop import gradients_bytes, gradients_report
    from fastgrad.report.text import plural

    output.check(file)
    given = {"bias": bias, "x": x, "cotangent": cotangent}
    try:
        source = open_chain(file)
        size = gradients_bytes(source, output.form, output.plot is not None, load(backend)[1].LIMITS.work_bytes)  # type: ignore[arg-type]
        require_memory(f"{file}: the gradients of {plural(source.links, 'link')}", size)
        chain = source.load(**{name: value for name, value in given.items() if value is not None})
    except ValueError as error:
        raise click.ClickException(str(error)) from None
    used = {"bias": bias, "x": chain.x, "cotangent": chain.cotangent}
    with output.warnings():
        gradients = backprop_chain(chain, backend=backend, threads=threads)  # type: ignore[arg-type]
    report = gradients_report(chain, gradients, log10_bound(chain), {"file": file, **used})
    output.show(report)
