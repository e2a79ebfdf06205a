import os

import pytest

import fastgrad as fg
from fastgrad.kernels import BACKENDS


@pytest.fixture(params=[*reversed(BACKENDS)])  # the reference first: its result is what the others are checked against
def backend(request):
    if request.param not in fg.available_backends():
        if os.environ.get("CI"):
            pytest.fail(f"{request.param} is not available")
        pytest.skip(f"{request.param} is not available")
    return request.param
