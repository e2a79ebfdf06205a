"""The table of parameters: signatures, docstrings, options and keys of sweeps agree with it."""

import inspect
import re
from typing import get_args

import click
import pytest

import fastgrad as fg
from fastgrad import laws
from fastgrad.cli import main
from fastgrad.jobs.compare import compare
from fastgrad.jobs.parameters import (
    EXECUTION_ARGUMENTS,
    GIVEN_LEARNING_RATE,
    JOBS,
    PARAMETERS,
    REQUIRED,
    job_parameters,
    parameters_of,
    swept_parameters,
)
from fastgrad.jobs.schemes import schemes
from fastgrad.losses import LossName
from fastgrad.sweeps.plan import job_function

FUNCTIONS = {"simulate": fg.simulate, "train": fg.train_drawn, "schemes": schemes, "compare": compare}
BESIDE = {"job", "repeats", "options"}  # arguments of jobs that decide no gradient
TYPES = {
    "whole": "int",
    "number": "float",
    "law": "str or Law",
    "law or number": "str, Law or float",
    "number or law": "str or Law, or array_like, a number or shape (ensemble,)",
}
ROWS = [(job, name) for job in FUNCTIONS for name in parameters_of(job)]


def signature(job):
    """What a job takes, with what it hands on to `train`."""
    taken = dict(inspect.signature(FUNCTIONS[job]).parameters)
    if "options" in taken:
        handed_on = inspect.signature(fg.train).parameters
        taken |= {name: of for name, of in handed_on.items() if of.kind is of.KEYWORD_ONLY and name not in taken}
    if job == "schemes":
        del taken["record"]  # two losses are all that it needs
    return {name: of.default for name, of in taken.items() if name not in BESIDE and name not in EXECUTION_ARGUMENTS}


def documented(function):
    """The types that a docstring gives its parameters."""
    section = re.search(r"Parameters\n *-+\n(.*?)(?=\n\s*\n *\w+\n *-+\n|\Z)", inspect.getdoc(function), re.DOTALL)[1]
    entries = re.findall(r"^(\S.*?)(?: : (.*))?$", section, re.MULTILINE)
    return {name: kind for names, kind in entries for name in names.split(", ")}


@pytest.mark.parametrize("job", FUNCTIONS)
def test_signatures_have_the_defaults_of_the_table(job):
    taken = {
        name: REQUIRED if default is inspect.Parameter.empty else default for name, default in signature(job).items()
    }
    expected = [(name, row.defaults[job]) for name, row in parameters_of(job).items()]
    if job == "schemes":  # most of what it takes has no place, but a name
        taken, expected = dict(sorted(taken.items())), sorted(expected)
    assert list(taken.items()) == expected


def test_given_chains_have_a_learning_rate_of_their_own():
    taken = {
        name: of.default for name, of in inspect.signature(fg.train).parameters.items() if of.kind is of.KEYWORD_ONLY
    }
    drawn = job_parameters("train")
    assert taken.pop("learning_rate") == GIVEN_LEARNING_RATE != drawn["learning_rate"]
    assert all(drawn[name] == default for name, default in taken.items() if name not in EXECUTION_ARGUMENTS)


@pytest.mark.parametrize(("job", "name"), ROWS)
def test_docstrings_name_every_parameter_with_its_type(job, name):
    row = parameters_of(job)[name]
    names = documented(FUNCTIONS[job])
    if name not in names and "**options" in names:
        names = documented(fg.train)
    expected = f"{{{', '.join(map(repr, row.choices))}}}".replace("'", '"') if row.choices else TYPES[row.kind]
    if names[name] != "":  # else: as for another job
        assert names[name] == expected + (", optional" if row.is_optional else "")


@pytest.mark.parametrize(("job", "name"), ROWS)
def test_options_are_those_of_the_table(job, name):
    row = parameters_of(job)[name]
    (option,) = [of for of in main.commands[job].params if of.name == name]
    assert option.opts == [f"--{name.replace('_', '-')}"]
    assert option.help.partition("  [default")[0] == row.help
    assert not isinstance(option.type, click.Choice) or tuple(option.type.choices) == row.choices
    context = click.Context(main.commands[job])
    described = re.sub(r"\s+", " ", option.get_help_record(context)[1])
    default = {("simulate", "depth"): 1000}.get((job, name), row.defaults[job])
    text = "none" if default is None else str(default).removesuffix(".0")
    assert re.search(rf"\[default: (from FILE, or )?{re.escape(text)}[;\]]", described), described
    if option.default not in (None, getattr(click.core, "UNSET", None)):
        assert option.type_cast_value(context, option.default) in (default, str(default))


@pytest.mark.parametrize("job", JOBS)
def test_sweeps_have_an_option_and_a_key_for_every_parameter(job):
    options = {of.name: of for of in main.commands["sweep"].params}
    for name, row in swept_parameters(job).items():
        told = re.sub(r"\s+", " ", options[name].help)
        assert row.help.removesuffix(".") in told
        default = "needed" if row.defaults[job] is REQUIRED else "none" if row.is_optional else row.defaults[job]
        assert re.search(
            rf"{re.escape(str(default).removesuffix('.0'))}( for {job})?[,\]]", told.partition("[default: ")[2]
        )
    base = {name: 3 if default is REQUIRED else default for name, default in job_parameters(job).items()}
    small = base | {"ensemble": 2, "record": 2} | ({"steps": 2} if job == "train" else {})
    (row,) = fg.sweep(
        {"ensemble": [2]}, job=job, **{name: value for name, value in small.items() if name != "ensemble"}
    )
    assert {name: row[name] for name in small} == small


def test_each_name_has_one_default():
    """How much is run is each job's own choice, and inputs are numbers or drawn."""
    defaults = {}
    for row in PARAMETERS:
        defaults.setdefault(row.name, set()).update(row.defaults.values())
    several = {name for name, values in defaults.items() if len(values) > 1}
    assert several == {"depth", "x"}


def test_choices_are_those_of_the_jobs():
    (loss,) = [row for row in PARAMETERS if row.name == "loss"]
    assert loss.choices == get_args(LossName)
    assert all(bool(row.choices) == (row.kind == "name") for row in PARAMETERS)


def test_the_laws_of_the_table_are_laws():
    (weight,) = [row for row in PARAMETERS if row.name == "weight"]
    named = re.findall(r"\b([a-z]+(?:_[a-z]+)*)(?=[:, ])", weight.help.partition(": ")[2].partition(" (")[0] + " ")
    assert set(named) == laws.LAWS.keys() - {"zero", "centered"}
    for row in PARAMETERS:
        for default in row.defaults.values():
            if row.is_law:
                laws.law_or_number(default, row.name)


def test_jobs_of_sweeps_are_the_functions():
    assert {job: job_function(job) for job in JOBS} == {job: FUNCTIONS[job] for job in JOBS}
