"""Chain: what is accepted, what is refused and how it is said, files, and the bound of agreement."""

import math
import zipfile
from fractions import Fraction
from types import SimpleNamespace

import numpy as np
import psutil
import pytest

import fastgrad as fg
from fastgrad.chain import Chain, require_memory, size_text

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


@pytest.mark.parametrize("weight", [W, W[:, 0]])
def test_a_saved_chain_loads_as_itself(tmp_path, weight):
    ensemble = weight.shape[1:]
    chain = Chain.of(weight, -weight, np.full(ensemble, 0.3), np.full(ensemble, -7.0))
    chain.save(tmp_path / "chain.npz")
    loaded = Chain.load(tmp_path / "chain.npz")
    assert loaded.single == chain.single
    for name in ("weight", "bias", "x", "cotangent"):
        assert np.array_equal(getattr(loaded, name), getattr(chain, name))


def test_an_npz_may_hold_weights_only(tmp_path):
    np.savez_compressed(tmp_path / "chain.npz", weight=W)
    chain = Chain.load(str(tmp_path / "chain.npz"))
    assert np.array_equal(chain.weight, W)
    assert (chain.bias.any(), chain.x.tolist(), chain.cotangent.tolist()) == (False, [0.5, 0.5], [1, 1])


def test_an_npy_holds_weights(tmp_path):
    np.save(tmp_path / "chain.npy", W[:, 0])
    chain = Chain.load(tmp_path / "chain.npy", bias=-1.0, x=0.25, cotangent=3.0)
    assert chain.single
    assert chain.bias.ravel().tolist() == [-1, -1, -1]
    assert (chain.x.tolist(), chain.cotangent.tolist()) == ([0.25], [3])


@pytest.mark.parametrize(
    ("text", "weight", "bias"),
    [
        ("weight,bias\n1,2\n3,4\n", [1, 3], [2, 4]),
        ("\ufeffbias, weight\r\n1,2\r\n3,4e-310", [2, 4e-310], [1, 3]),
        ("weight\n5\n", [5], [0]),
        ("weight,bias\n1,2\n\n3,4\n", [1, 3], [2, 4]),
    ],
)
def test_a_csv_has_one_row_a_link(tmp_path, text, weight, bias):
    path = tmp_path / "chain.CSV"
    path.write_bytes(text.encode())
    chain = Chain.load(path)
    assert chain.single
    assert chain.weight.ravel().tolist() == weight
    assert chain.bias.ravel().tolist() == bias


def test_what_is_given_takes_the_place_of_the_files(tmp_path):
    Chain.of([1.0, 2.0], 3.0, 0.1, 0.2).save(tmp_path / "chain.npz")
    chain = Chain.load(tmp_path / "chain.npz", bias=9.0, x=0.7, cotangent=-1.0)
    assert (chain.bias.ravel().tolist(), chain.x.tolist(), chain.cotangent.tolist()) == ([9, 9], [0.7], [-1])


def npz(**arrays):
    return lambda path: np.savez(path, **arrays)


def npy(array):
    return lambda path: np.save(path, array)


def text(content):
    return lambda path: path.write_bytes(content if isinstance(content, bytes) else content.encode())


def archive_without_arrays(path):
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("readme.txt", "no arrays here")


def truncated(write):
    def cut(path):
        write(path)
        path.write_bytes(path.read_bytes()[:-40])

    return cut


@pytest.mark.parametrize(
    ("name", "write", "message"),
    [
        ("a.npz", npz(bias=W), "no array 'weight'"),
        ("a.npz", npz(weight=W, wieght=W), "unknown array 'wieght'; expected weight, and bias, x and cotangent"),
        ("a.npz", npz(weight=[1.0, math.nan]), r"weight: expected finite numbers, got nan at index \[1\]"),
        ("a.npz", npz(weight=W, bias=[1, 2, 3, 4]), "bias: expected the shape of weight"),
        ("a.npz", npz(weight=["a"]), "weight: expected real numbers"),
        ("a.npz", npz(weight=np.array([None, 1])), "not a readable .npz file"),  # would need pickle
        ("a.npz", npz(weight=W, x=[1, 2, 3]), "x: expected a number or shape"),
        ("a.npz", npz(weight=[]), "weight: expected at least one link"),
        ("a.npz", text(""), "not a readable .npz file"),
        ("a.npz", text("weight,bias\n1,2\n"), "not a readable .npz file"),
        ("a.npz", archive_without_arrays, "unknown array 'readme.txt'"),
        ("a.npz", truncated(npz(weight=W)), "not a readable .npz file"),
        ("a.npz", npy(W), "not a readable .npz file"),
        ("a.npy", text(""), "not a readable .npy file"),
        ("a.npy", text(b"\x93NUMPY\x01\x00"), "not a readable .npy file"),
        ("a.npy", truncated(npy(W)), "not a readable .npy file"),
        ("a.npy", npy(np.array([None])), "not a readable .npy file"),
        ("a.npy", npy(np.float64(3)), r"weight: expected shape"),
        ("a.csv", text(""), "expected the header weight,bias, got ''"),
        ("a.csv", text("1,2\n3,4\n"), "expected the header weight,bias, got '1,2'"),
        ("a.csv", text("weight,offset\n1,2\n"), "expected the header weight,bias, got 'weight,offset'"),
        ("a.csv", text("bias\n1\n"), "expected the header weight,bias, got 'bias'"),
        ("a.csv", text("weight,bias\n"), "no links below the header"),
        ("a.csv", text("weight,bias\n\n\n"), "no links below the header"),
        ("a.csv", text("weight,weight\n1,2\n"), "expected the header weight,bias, got 'weight,weight'"),
        ("a.csv", text("weight,bias,bias\n1,2,3\n"), "expected the header weight,bias, got 'weight,bias,bias'"),
        ("a.csv", text("weight,bias\n1\n2\n"), "line 2: expected 2 values, got 1"),
        ("a.csv", text("weight,bias\n1,2\n\n3\n"), "line 4: expected 2 values, got 1"),
        ("a.csv", text("weight\n1,2\n"), "line 2: expected 1 values, got 2"),
        ("a.csv", text("weight,bias\n1,two\n"), "line 2: expected a number, got 'two'"),
        ("a.csv", text("weight,bias\n1,\n"), "line 2: expected a number, got ''"),
        ("a.csv", text("weight,bias\n1,nan\n"), r"bias: expected finite numbers, got nan at index \[0\]"),
        ("a.csv", text(b"\xff\xfe\x00weight"), "decode|header"),
        ("a.txt", text("weight\n1\n"), r"expected a file ending in .npz, .npy or .csv"),
        ("chain", text("weight\n1\n"), r"expected a file ending in .npz, .npy or .csv"),
    ],
)
def test_a_broken_file_is_a_value_error_that_names_it(tmp_path, name, write, message):
    path = tmp_path / name
    with path.open("wb"):
        pass
    write(path)
    with pytest.raises(ValueError, match=message) as info:
        Chain.load(path)
    assert str(info.value).startswith(f"{path}: ")
    assert "\n" not in str(info.value)


@pytest.mark.parametrize("name", ["a.npz", "a.npy", "a.csv"])
def test_a_missing_file_is_an_os_error(tmp_path, name):
    with pytest.raises(FileNotFoundError, match=name):
        Chain.load(tmp_path / name)
    (tmp_path / name).mkdir()
    with pytest.raises(IsADirectoryError, match=name):
        Chain.load(tmp_path / name)


def test_a_wrong_override_is_named(tmp_path):
    np.save(tmp_path / "a.npy", W)
    with pytest.raises(ValueError, match=r"a\.npy: x: expected finite"):
        Chain.load(tmp_path / "a.npy", x=math.nan)


def test_agreement_rtol_is_its_formula():
    # 2^-52 (16 depth + 4 sum(|w_l| + |b_l|))
    assert fg.agreement_rtol([1.0, -2.0, 3.0], [0.5, -0.5, 0.0]) == 2.0**-52 * (16 * 3 + 4 * (6 + 1))
    ensemble = fg.agreement_rtol([[1.0, -10.0], [2.0, 0.0]], [[-4.0], [0.0]])
    assert ensemble.tolist() == [2.0**-52 * (32 + 4 * (3 + 8 - 4)), 2.0**-52 * (32 + 4 * (10 + 4))]
    assert isinstance(fg.agreement_rtol([0.0], 0), float)
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
    with pytest.raises(fg.TooLargeError, match=r"^draws of 100 links x 2 chains would take 3.12 KiB .*900 B are"):
        fg.draw(100, 2)
    with pytest.raises(fg.TooLargeError, match=r"^the gradients of 100 links x 1 chains would take"):
        fg.backprop(np.ones(100), 0, 0.5)
    with pytest.raises(fg.TooLargeError, match=r"^records of 64 links x 2 chains would take"):
        fg.simulate(100, 2)
    fg.simulate(11, 1, record=2)
    fg.backprop(np.ones(5), 0, 0.5)


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
