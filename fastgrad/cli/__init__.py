"""The command line: a command parses, calls, and shows."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

import fastgrad
from fastgrad import headers
from fastgrad.cli.backprop import backprop
from fastgrad.cli.compare import compare
from fastgrad.cli.errors import Main
from fastgrad.cli.example import example
from fastgrad.cli.explore import explore
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
    explore,
    info,
)
if TYPE_CHECKING:
    from collections.abc import Callable

CONTEXT = {"help_option_names": ["-h", "--help"], "max_content_width": 100}


def prints(text: Callable[[], str], name: str, help_line: str) -> Callable[[Callable[..., None]], Callable[..., None]]:
    """Add an option that prints a line and ends, as --version does."""

    def show(ctx: click.Context, _: click.Parameter, wanted: bool) -> None:
        if wanted and not ctx.resilient_parsing:
            click.echo(text())
            ctx.exit()

    return click.option(name, is_flag=True, expose_value=False, is_eager=True, callback=show, help=help_line)


@click.group(cls=Main, context_settings=CONTEXT)
@click.version_option(fastgrad.__version__, prog_name="fastgrad")
@prints(headers.includes, "--includes", "Print the compiler's flag for the C and C++ headers, and exit.")
@prints(headers.cflags, "--cflags", "Print a C++ compiler's flags for the kernels, and exit.")
@prints(headers.cmake_directory, "--cmakedir", "Print the folder for CMake's fastgrad_DIR, and exit.")
@prints(headers.pkgconfig_directory, "--pkgconfigdir", "Print the folder for PKG_CONFIG_PATH, and exit.")
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
