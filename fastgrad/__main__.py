"""``python -m fastgrad``."""

from fastgrad.cli import main

main(prog_name="fastgrad")
