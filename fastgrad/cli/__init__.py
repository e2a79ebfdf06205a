"""The command line: a command parses, calls, and shows."""

from __future__ import annotations

import click

import fastgrad
from fastgrad.cli.backprop import backprop
from fastgrad.cli.compare import compare
from fastgrad.cli.errors import Main
from fastgrad.cli.example import example
from fastgrad.cli.export import export
from fastgrad.cli.info import info
from fastgrad.cli.measure import measure
from fastgrad.cli.merge import merge
from fastgrad.cli.plot import plot
from fastgrad.cli.report import report
from fastgrad.cli.schemes import schemes
from fastgrad.cli.simulate import simulate
from fastgrad.cli.sweep import sweep
from fastgrad.cli.theory import theory
from fastgrad.cli.train import train

# Commands import reports, and with them rich, plotille and matplotlib, when they run: --help must be quick.
COMMANDS = (
    example,
    simulate,
    theory,
    backprop,
    train,
    schemes,
    measure,
    sweep,
    export,
    plot,
    report,
    merge,
    compare,
    info,
)
CONTEXT = {"help_option_names": ["-h", "--help"], "max_content_width": 100}


@click.group(cls=Main, context_settings=CONTEXT)
@click.version_option(fastgrad.__version__, prog_name="fastgrad")
def main() -> None:
    """How gradients grow or vanish through very deep sigmoid networks.

    Exact at any depth: a gradient of 10^-300000 is an ordinary result.

    \b
    Example: fastgrad simulate --depth 1000 --weight normal:std=500

    FASTGRAD_BACKEND, FASTGRAD_THREADS, FASTGRAD_FORMAT, FASTGRAD_COLOR and FASTGRAD_QUIET in the environment set the
    options of these names. Shell completion: eval "$(_FASTGRAD_COMPLETE=bash_source fastgrad)", or zsh_source,
    fish_source.
    """


for command in COMMANDS:
    main.add_command(command)
