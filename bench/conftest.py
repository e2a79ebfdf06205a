import os

import pytest

import fastgrad as fg

BACKENDS = ("numpy", "numba", "cpp")  # the reference first: its result is what the others are checked against


@pytest.fixture(params=BACKENDS)
def backend(request):
    if request.param not in fg.available_backends():
        if os.environ.get("CI"):
            pytest.fail(f"{request.param} is not available")
        pytest.skip(f"{request.param} is not available")
    return request.param
