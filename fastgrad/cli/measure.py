"""The command `fastgrad measure`."""

from __future__ import annotations

import click

from fastgrad.cli.output import Output, output_options


@click.command()
@click.argument("target", metavar="FILE.py:FUNCTION")
@click.option(
    "--check", is_flag=True, help="Name the operations whose gradient is not linear, or that underflow inside."
)
@click.option(
    "--layers",
    metavar="CLASS",
    help="Class of the modules that are called layers, such as GPT2Block.  [default: that of the outermost list]",
)
@output_options(figure=True)
def measure(
    target: str,
    check: bool,
    layers: str | None,
    output: Output,
) -> None:
    """Measure the gradient through a PyTorch model.

    Runs FUNCTION of FILE.py (or of a module: package.module:FUNCTION; build, if none is named) as python would run it,
    with all that it does. It returns a loss, or a model and a loss. Shows for every module how large the gradient is,
    exactly, and what float16, bfloat16 and float32 would lose of it. What the code prints goes to stderr.

    \b
    Example: fastgrad measure model.py:build
    """
    from fastgrad.report.measure import measurement_report

    output.check(target.rpartition(":")[0] or target)
    try:
        from fastgrad.torch.script import ScriptError, measure_script
    except ModuleNotFoundError as error:
        if error.name != "torch":
            raise
        raise click.ClickException("measure: needs PyTorch: pip install 'fastgrad[torch]'") from None
    with output.warnings():
        try:
            measured = measure_script(target, check=check, layers=layers)
        except ScriptError as error:
            raise click.ClickException(str(error)) from None
    parameters = {"target": target, "check": check, "layers": layers}
    output.show(measurement_report(measured, parameters))
