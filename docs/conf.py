"""Sphinx reads the pages of this folder, the docstrings, and the command line's help.

``sphinx-build -W --keep-going docs build/docs`` with ``pip install -e '.[docs]'``.
"""

import fastgrad

project = "fastgrad"
author = copyright = "The fastgrad developers"  # noqa: A001 (Sphinx's name)
release = version = fastgrad.__version__

extensions = ["sphinx.ext.autodoc", "sphinx.ext.autosummary", "numpydoc", "myst_nb", "sphinx_click"]
exclude_patterns = ["images"]
nitpicky = True  # a name in a docstring that leads nowhere is a warning, and warnings are errors in .ci/run
nitpick_ignore = [("py:obj", "json.dumps"), ("py:obj", "mantissa")]  # Python's own; a slot, described with its class

smartquotes = False  # --option stays what is typed

html_theme = "alabaster"
html_theme_options = {"description": "Gradients through very deep chains, exactly", "page_width": "1080px"}
html_copy_source = False
html_show_sourcelink = False

myst_heading_anchors = 3  # links to #headings
myst_links_external_new_tab = False

nb_execution_mode = "force"  # notebook.md shows what it prints here and now
nb_execution_raise_on_error = True
nb_execution_timeout = 120
nb_merge_streams = True  # what a cell prints is one block

autodoc_mock_imports = ["torch"]  # an optional dependency
autodoc_typehints = "none"  # the docstrings say types and shapes
autodoc_member_order = "bysource"
autosummary_generate = False  # numpydoc's own tables need no pages
numpydoc_show_class_members = False  # autodoc lists them

default_role = "autolink"  # `simulate` in a docstring leads to it


def bars_are_magnitudes(app, what, name, obj, options, lines):
    """Let |w| in a docstring be a magnitude: to reStructuredText it is a name to be replaced."""
    for i, line in enumerate(lines):
        parts = line.split("``")
        lines[i] = "``".join(part if inside % 2 else part.replace("|", r"\|") for inside, part in enumerate(parts))


def setup(app):
    """Hook into Sphinx, after numpydoc has read the sections."""
    app.connect("autodoc-process-docstring", bars_are_magnitudes, priority=900)
