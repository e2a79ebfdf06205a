"""A Python extension on the C interface of fastgrad."""

from pybind11.setup_helpers import Pybind11Extension
from setuptools import setup

import fastgrad

setup(
    name="chains",
    ext_modules=[Pybind11Extension("chains", ["module.cpp"], include_dirs=[fastgrad.get_include()], cxx_std=17)],
)
