"""The command `fastgrad example`."""

from __future__ import annotations

import click

from fastgrad.cli.options import backend_option
from fastgrad.cli.output import Output, output_options


@click.command()
@click.option("--weight", type=float, default=500.0, show_default=True, help="w11 and w21; the biases follow.")
@click.option("--learning-rate", type=float, default=0.01, show_default=True, help="Learning rate of the one step.")
@backend_option
@output_options()
def example(weight: float, learning_rate: float, backend: str, output: Output) -> None:
    """Explain the textbook's worked example.

    Three sigmoid units with weights of 500: the chain rule gives 93 750 000, one step takes the weight to -937 000, and
    training never recovers. Every number comes from the real kernel.

    \b
    Example: fastgrad example --weight 8 --learning-rate 0.1
    """
    from fastgrad.jobs.example import worked_example
    from fastgrad.report.example import example_report

    output.check()
    with output.warnings():
        result = worked_example(weight, learning_rate, backend)  # type: ignore[arg-type]
    output.show(example_report(result, {"weight": weight, "learning_rate": learning_rate}))
