"""The structure of the package: what may import what, and how docstrings begin."""

import ast
from pathlib import Path

import pytest

import fastgrad as fg

PACKAGE = Path(fg.__file__).parent
MODULES = {
    ".".join(("fastgrad", *path.relative_to(PACKAGE).with_suffix("").parts)).removesuffix(".__init__"): path
    for path in sorted(PACKAGE.rglob("*.py"))
}
# Floors, from the lowest: a module imports from its own floor and from those below.
FLOORS = [
    {
        "_version",
        "interrupts",
        "checks",
        "scaled",
        "summary",
        "laws",
        "losses",
        "nonlinearities",
        "philox",
        "chain",
        "files",
        "headers",
    },
    {"theory"},
    {"kernels"},
    {"njit", "jax"},
    {"jobs"},
    {"info"},
    {"sweeps"},
    {""},  # the package's face, which commands use as everybody does
    {"report"},
    {"explore"},
    {"torch"},  # other people's models, which are reported as chains are
    {"cli"},
    {"__main__"},
]
# Methods for those who have an object at hand: a chain that is saved, and results that a notebook shows.
WITHIN_METHODS = {("fastgrad.chain", "fastgrad.files")}
WITHIN_METHODS |= {(f"fastgrad.jobs.{name}", "fastgrad.report.notebook") for name in ("growth", "train", "backprop")}


def floor(module):
    room = module.partition(".")[2].partition(".")[0]
    (found,) = [i for i, rooms in enumerate(FLOORS) if room in rooms]
    return found


def imports(module):
    """Modules of the package that a module imports anywhere in it, not for types alone; those of the face too."""
    tree = ast.parse(MODULES[module].read_text(encoding="utf-8"))
    only_types = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.If) and ast.unparse(node.test) == "TYPE_CHECKING" and module != "fastgrad":
            only_types |= set(ast.walk(node))
    for node in ast.walk(tree):
        if node in only_types:
            continue
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names if alias.name in MODULES)
        elif isinstance(node, ast.ImportFrom) and node.module in MODULES:
            for alias in node.names:
                if alias.name == "_cpp":  # compiled
                    continue
                below = f"{node.module}.{alias.name}"
                yield below if below in MODULES else node.module


GRAPH = {
    module: {other for other in imports(module) if other != module and (module, other) not in WITHIN_METHODS}
    for module in MODULES
}


@pytest.mark.parametrize("module", MODULES)
def test_no_import_climbs(module):
    assert not [other for other in GRAPH[module] if floor(other) > floor(module)]


def test_imports_make_no_circle():
    left = dict(GRAPH)
    while left:
        free = [module for module, others in left.items() if not others & left.keys()]
        assert free, f"a circle among {sorted(left)}"
        for module in free:
            del left[module]


def test_every_module_has_a_floor():
    assert all(floor(module) >= 0 for module in MODULES)


# Names of NumPy that lay out what is given, and decide what can be shown.
LAYOUT = {"arange", "asarray", "atleast_1d", "divmod", "float64", "inf", "isfinite", "isnan", "nan"}
COMMAND_REPORTS = [
    module for module in MODULES if module.startswith("fastgrad.report.") and module.replace("report", "cli") in MODULES
]


@pytest.mark.parametrize("module", COMMAND_REPORTS)
def test_the_report_of_a_command_computes_nothing(module):
    tree = ast.parse(MODULES[module].read_text(encoding="utf-8"))
    used = {node.attr for node in ast.walk(tree) if isinstance(node, ast.Attribute) and ast.unparse(node.value) == "np"}
    imported = {alias.name for node in ast.walk(tree) if isinstance(node, ast.Import) for alias in node.names}
    assert used <= LAYOUT
    assert not imported & {"math", "statistics"}


def docstrings(module):
    """First lines of a module's docstrings, with the line that each stands in."""
    tree = ast.parse(MODULES[module].read_text(encoding="utf-8"))
    for node in ast.walk(tree):
        if isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef) and (text := ast.get_docstring(node)):
            yield node.body[0].lineno, text.partition("\n")[0]


@pytest.mark.parametrize("module", MODULES)
def test_a_docstring_begins_with_a_thing_or_an_act(module):
    riddles = ("What ", "Whether ", "Where ", "Which ", "Who ")
    assert not [(line, text) for line, text in docstrings(module) if text.startswith(riddles)]
