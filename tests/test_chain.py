"""Chain: what is accepted, what is refused and how it is said, memory, and the bound of agreement."""

import math
import os
from fractions import Fraction
from types import SimpleNamespace

import numpy as np
import psutil
import pytest

import fastgrad as fg
from fastgrad.chain import Chain
from fastgrad.checks import _free_in_groups, free_memory, require_memory, size_text

W = np.arange(1.0, 7.0).reshape(3, 2)


def test_one_chain_becomes_an_ensemble_of_one():
    chain = Chain.of([1, 2, 3], [4, 5, 6], 0.25, -2)
    assert (chain.depth, chain.ensemble, chain.single) == (3, 1, True)
    assert chain.weight.tolist() == [[1], [2], [3]]
    assert chain.bias.tolist() == [[4], [5], [6]]
    assert (chain.x.tolist(), chain.cotangent.tolist()) == ([0.25], [-2])


def test_defaults_are_one_half_and_one():
    chain = Chain.of(W, 0)
    assert (chain.depth, chain.ensemble, chain.single) == (3, 2, False)
    assert (chain.x.tolist(), chain.cotangent.tolist()) == ([0.5, 0.5], [1, 1])


@pytest.mark.parametrize("bias", [2, [2.0, 2.0], [[2], [2], [2]], np.full((3, 2), 2), np.full((1, 1), 2)])
def test_bias_broadcasts(bias):
    assert np.array_equal(Chain.of(W, bias).bias, np.full((3, 2), 2.0))


@pytest.mark.parametrize(
    "weight",
    [
        W.tolist(),
        W.astype(int),
        W.astype(np.uint8),
        W.astype(np.float16),
        W.astype(np.longdouble),
        W.astype(">f8"),
        W.astype(">i4"),
        np.asfortranarray(W),
        np.repeat(W, 3, axis=1)[:, ::3],
        W[::-1].copy()[::-1],
        np.ma.masked_array(W, mask=False),
        np.lib.stride_tricks.as_strided(np.tile(W, 2), W.shape, (32, 8)),
    ],
)
def test_any_layout_type_and_byte_order_is_the_same_chain(weight):
    chain = Chain.of(weight, weight, [0.5, 0.25], [1, 2])
    for array in (chain.weight, chain.bias):
        assert np.array_equal(array, W)
        assert array.flags.c_contiguous
        assert array.dtype == np.float64
        assert array.dtype.isnative


def test_read_only_input_is_accepted_and_kept_so():
    weight = W.copy()
    weight.flags.writeable = False
    assert np.array_equal(Chain.of(weight, weight).weight, W)
    assert not weight.flags.writeable


@pytest.mark.parametrize("argument", ["weight", "bias", "x", "cotangent"])
@pytest.mark.parametrize(
    ("value", "type_name"),
    [
        ("0.5", "<U3"),
        (["a", "b"], "<U1"),
        (1 + 2j, "complex128"),
        (True, "bool"),
        (np.ones(2, dtype=bool), "bool"),
        (None, "object"),
        ([1, None], "object"),
        (np.array([1.0, 2.0], dtype=object), "object"),
        (np.datetime64("2020-01-01"), "datetime64"),
        (b"1", r"\|S1"),
        ("", "<U1"),
        (["1", 2.0], "<U32"),
        ([1 + 2j, 1], "complex128"),
        (np.array([(1.0, 2)], dtype="f8,i4"), r"\["),
        ({"a": 1}, r"object \(dict\)"),
        (10**30, r"object \(an integer beyond 64 bits\)"),
        (Fraction(1, 3), r"object \(Fraction\)"),
    ],
)
def test_what_is_no_real_number_is_a_type_error(argument, value, type_name):
    arguments = {"weight": W, "bias": 0, argument: value}
    with pytest.raises(TypeError, match=rf"^{argument}: expected real numbers, got {type_name}"):
        Chain.of(**arguments)


@pytest.mark.parametrize("argument", ["weight", "bias", "x", "cotangent"])
def test_masked_entries_are_a_type_error(argument):
    masked = np.ma.masked_array([1.0, 2.0], mask=[False, True])
    for value in (masked, [masked, masked], (1.0, np.ma.masked), [[1.0, 2.0], [1.0, np.ma.masked]]):
        with pytest.raises(TypeError, match=f"^{argument}: has masked entries"):
            Chain.of(**{"weight": W, "bias": 0, argument: value})


@pytest.mark.parametrize("argument", ["weight", "bias", "x", "cotangent"])
def test_what_refuses_to_be_an_array_is_named(argument):
    class Refusing:
        def __array__(self, *_, **__):
            raise RuntimeError("no\narray")

    with pytest.raises(TypeError, match=rf"^{argument}: not an array \(no array\)"):
        Chain.of(**{"weight": W, "bias": 0, argument: Refusing()})
    with pytest.raises(TypeError, match=rf"^{argument}: not an array \(a Scaled is no float array"):
        Chain.of(**{"weight": W, "bias": 0, argument: fg.Scaled([1.0, 2.0])})


def test_a_list_that_holds_itself_is_named():
    endless = []
    endless.append(endless)
    with pytest.raises((TypeError, ValueError), match=r"^x: "):
        Chain.of(W, 0, endless)


def test_chains_and_results_are_compared_by_identity():
    chain = Chain.of(W, 0)
    pairs = [(chain, Chain.of(W, 0))]
    pairs.append(tuple(fg.backprop(W, 0, 0.5, backend="numpy") for _ in range(2)))
    pairs.append(tuple(fg.simulate(5, 3, backend="numpy") for _ in range(2)))
    pairs.append(tuple(fg.train(W, 0.0, 0.5, 0.1, steps=2, backend="numpy") for _ in range(2)))
    for first, second in pairs:
        assert first == first
        assert (first == second, first != second) == (False, True)
        assert len({first, second}) == 2


@pytest.mark.parametrize("argument", ["weight", "bias"])
@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
def test_a_value_that_is_not_finite_is_located(argument, value):
    array = np.ones((3, 2))
    array[2, 1] = value
    array[2, 0] = 7
    with pytest.raises(ValueError, match=rf"^{argument}: expected finite numbers, got {value} at index \[2, 1\]$"):
        Chain.of(**{"weight": W, "bias": 0, argument: array})
    with pytest.raises(ValueError, match=rf"^{argument}: .* at index \[2\]$"):
        Chain.of(**{"weight": W[:, 0], "bias": 0, argument: array[:, 1]})


@pytest.mark.parametrize("argument", ["x", "cotangent"])
def test_an_input_that_is_not_finite_is_named(argument):
    with pytest.raises(ValueError, match=rf"^{argument}: expected finite numbers, got nan$"):
        Chain.of(W, 0, **{argument: math.nan})
    with pytest.raises(ValueError, match=rf"^{argument}: expected finite numbers, got -inf at index \[1\]$"):
        Chain.of(W, 0, **{argument: [0.0, -math.inf]})


@pytest.mark.skipif(np.finfo(np.longdouble).maxexp <= 1024, reason="long double is float64 here")
def test_a_longdouble_beyond_float64_is_refused():
    with pytest.raises(ValueError, match=r"^weight: expected finite numbers, got inf at index \[1\]"):
        Chain.of(np.array([1, np.ldexp(np.longdouble(1), 2000)]), 0)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"weight": 1.0}, r"^weight: expected shape \(depth,\) or \(depth, ensemble\), got \(\)"),
        ({"weight": np.ones((2, 2, 2))}, r"^weight: expected shape .* got \(2, 2, 2\)"),
        ({"weight": []}, r"^weight: expected at least one link and one chain, got shape \(0,\)"),
        ({"weight": np.ones((3, 0))}, r"^weight: expected at least one link and one chain, got shape \(3, 0\)"),
        ({"weight": np.ones((0, 3))}, r"^weight: expected at least one link"),
        ({"weight": [[1, 2], [3]]}, r"^weight: not an array"),
        ({"bias": [1, 2, 3, 4]}, r"^bias: expected the shape of weight \(3, 2\) or .* got \(4,\)$"),
        ({"bias": [1, 2, 3]}, r"^bias: .* got \(3,\); for one bias a link use bias\[:, None\]$"),
        ({"bias": np.ones((1, 3, 2))}, r"^bias: .* got \(1, 3, 2\)"),
        ({"weight": [1.0, 2.0, 3.0], "bias": np.ones((3, 1))}, r"^bias: .* got \(3, 1\)"),
        ({"bias": []}, r"^bias: .* got \(0,\)"),
        ({"x": [1, 2, 3]}, r"^x: expected a number or shape \(2,\), got \(3,\)"),
        ({"x": [[1, 2]]}, r"^x: expected a number or shape \(2,\), got \(1, 2\)"),
        ({"x": [0.5]}, r"^x: expected a number or shape \(2,\), got \(1,\)"),
        ({"cotangent": np.ones((3, 2))}, r"^cotangent: expected a number or shape \(2,\), got \(3, 2\)"),
    ],
)
def test_a_wrong_shape_is_named(arguments, message):
    with pytest.raises(ValueError, match=message):
        Chain.of(**{"weight": W, "bias": 0.0, **arguments})
    with pytest.raises(ValueError, match=message):
        fg.backprop(**{"weight": W, "bias": 0.0, "x": 0.5, **arguments})


def test_agreement_rtol_is_its_formula():
    # 2^-52 (16 depth + 4 sum(|w_l| + |b_l|))
    assert fg.agreement_rtol([1.0, -2.0, 3.0], [0.5, -0.5, 0.0]) == 2.0**-52 * (16 * 3 + 4 * (6 + 1))
    ensemble = fg.agreement_rtol([[1.0, -10.0], [2.0, 0.0]], [[-4.0], [0.0]])
    assert ensemble.tolist() == [2.0**-52 * (32 + 4 * (3 + 8 - 4)), 2.0**-52 * (32 + 4 * (10 + 4))]
    assert isinstance(fg.agreement_rtol([0.0], 0), float)
    # |w_1| max(1, |x|) in place of |w_1|
    assert fg.agreement_rtol([2.0, -4.0], [1.0, 0.0], x=-8.0) == 2.0**-52 * (16 * 2 + 4 * (2 * 8 + 4 + 1))
    ensemble = fg.agreement_rtol([[3.0, 3.0, 3.0]] * 2, 0, x=[-1.0, 1e-9, 1e8])
    assert ensemble.tolist() == [2.0**-52 * (32 + 4 * (first + 3)) for first in (3, 3, 3e8)]
    assert fg.agreement_rtol([1e300], 0, x=1e300) == math.inf
    with pytest.raises(ValueError, match="x: expected a number or shape"):
        fg.agreement_rtol([1.0, 2.0], 0, x=[1.0, 2.0])
    with pytest.raises(ValueError, match="bias"):
        fg.agreement_rtol([1.0, 2.0], [1, 2, 3])


def test_too_large_is_both_a_value_and_a_memory_error():
    assert issubclass(fg.TooLargeError, ValueError)
    assert issubclass(fg.TooLargeError, MemoryError)
    with pytest.raises(fg.TooLargeError, match=r"^the box would take 888 PiB of memory, and .* are free$"):
        require_memory("the box", 10**18)
    require_memory("the box", 1)


def test_what_would_not_fit_is_refused_before_it_is_allocated(monkeypatch):
    monkeypatch.setattr(psutil, "virtual_memory", lambda: SimpleNamespace(available=900))
    with pytest.raises(fg.TooLargeError, match=r"^draws of 100000 links x 2 chains would take 3.05 MiB .*900 B are"):
        fg.draw(100_000, 2)
    with pytest.raises(fg.TooLargeError, match=r"^the gradients of 100000 links x 1 chains would take"):
        fg.backprop(np.ones(100_000), 0, 0.5)
    with pytest.raises(fg.TooLargeError, match=r"^records of 64 links x 1000 chains would take"):
        fg.simulate(100, 1000)
    fg.simulate(11, 1, record=2)  # nobody asks for so little
    fg.backprop(np.ones(5), 0, 0.5)


GROUPS = {
    "version 2": {
        "proc/self/cgroup": "0::/job/step\n",
        "sys/fs/cgroup/job/step/memory.max": "5000000",
        "sys/fs/cgroup/job/step/memory.current": "4000000",
        "sys/fs/cgroup/job/step/memory.stat": "anon 7\nactive_file 1000000\ninactive_file 500000\n",
        "sys/fs/cgroup/job/memory.max": "max",
        "sys/fs/cgroup/job/memory.current": "4000000",
        "sys/fs/cgroup/job/memory.stat": "",
    },
    "version 2, the outer one": {
        "proc/self/cgroup": "0::/job/step\n",
        "sys/fs/cgroup/job/step/memory.max": "max",
        "sys/fs/cgroup/job/memory.max": "5000000",
        "sys/fs/cgroup/job/memory.current": "2500000",
        "sys/fs/cgroup/job/memory.stat": "",
    },
    "version 1, mounted at the top": {
        "proc/self/cgroup": "3:cpuset:/\n4:memory,hugetlb:/docker/abc\n0::/\n",
        "sys/fs/cgroup/memory/memory.limit_in_bytes": "5000000",
        "sys/fs/cgroup/memory/memory.usage_in_bytes": "3000000",
        "sys/fs/cgroup/memory/memory.stat": "active_file 9\ntotal_active_file 500000\n",
    },
}


@pytest.mark.parametrize("files", GROUPS.values(), ids=GROUPS)
def test_a_control_group_bounds_the_memory(files, tmp_path):
    for name, content in files.items():
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(content)
    assert list(_free_in_groups(tmp_path)) == [2_500_000]


def test_without_control_groups_there_is_no_bound(tmp_path):
    assert list(_free_in_groups(tmp_path)) == []
    (tmp_path / "proc/self").mkdir(parents=True)
    (tmp_path / "proc/self/cgroup").write_text("0::/\n1:name=systemd:/\n")
    assert list(_free_in_groups(tmp_path)) == []


def test_the_least_of_all_bounds_holds(monkeypatch):
    monkeypatch.setattr("fastgrad.checks._free_in_groups", lambda root: iter([7, 5]))
    assert free_memory() == 5


@pytest.mark.skipif(os.name == "nt", reason="limits of POSIX")
def test_a_limit_of_the_address_space_bounds_the_memory(python):
    code = """
import resource
from fastgrad.checks import free_memory, require_memory
resource.setrlimit(resource.RLIMIT_AS, (2**32, 2**32))
assert 2**30 < free_memory() < 2**32
try:
    require_memory("the box", 2**32)
except MemoryError as error:
    print(error)
"""
    assert python(code).startswith("the box would take 4 GiB of memory, and ")


@pytest.mark.parametrize(
    ("n_bytes", "text"),
    [
        (0, "0 B"),
        (1023, "1.02e+03 B"),
        (1024, "1 KiB"),
        (3 * 2**29, "1.5 GiB"),
        (2**60, "1 EiB"),
        (2**75, "3.28e+04 EiB"),
    ],
)
def test_sizes_are_written_in_binary_units(n_bytes, text):
    assert size_text(n_bytes) == text
