import json
import unicodedata

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from r2rec_jax.runtime.untrusted import DEEPEST, json_line, open_array, parse_json

LEAVES = st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text()
TREES = st.recursive(LEAVES, lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner))


@given(TREES)
def test_json_is_what_it_was(tree):
    assert parse_json(json.dumps(tree)) == parse_json(json.dumps(tree).encode()) == tree


@given(
    st.recursive(
        st.text(st.characters(exclude_categories=())),
        lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
    )
)
def test_a_line_says_the_same_and_prints(tree):
    line = json_line(tree)
    assert json.loads(line) == tree and line.endswith(b"\n") and line.count(b"\n") == 1
    text = line.decode().removesuffix("\n")
    assert text.isprintable() and not {unicodedata.category(c) for c in text} & {"Cc", "Cf", "Cs", "Zl", "Zp"}


def test_a_line_holds_no_number_that_is_none():
    with pytest.raises(ValueError):
        json_line({"x": float("nan")})


@pytest.mark.parametrize(("opening", "closing"), [("[", "]"), ('{"a": ', "}")])
def test_depth_is_bounded_exactly(opening, closing):
    def text_of(levels: int) -> str:
        return opening * levels + "1" + closing * levels

    assert parse_json(text_of(DEEPEST))
    for levels in (DEEPEST + 1, 990, 5000, 100_000):
        with pytest.raises(ValueError, match="deeper than 100 levels"):
            parse_json(text_of(levels))


@pytest.mark.parametrize("data", [b"", b"{", b"\xff\xfe", b"9" * 5000, "nul"])
def test_what_is_no_json_is_refused(data):
    with pytest.raises(ValueError):
        parse_json(data)


def test_an_array_is_mapped_and_checked(tmp_path):
    path = tmp_path / "a.npy"
    array = np.arange(6, dtype=np.float32).reshape(2, 3)
    np.save(path, array)
    np.testing.assert_array_equal(open_array(path, np.float32, 2), array)
    with pytest.raises(ValueError, match="assignment destination is read-only"):
        open_array(path, np.float32, 2)[0, 0] = 1
    for dtype, ndim in ((np.float64, 2), (np.int32, 2), (np.float32, 1)):
        with pytest.raises(ValueError, match=r"a\.npy is no array of "):
            open_array(path, dtype, ndim)
    with pytest.raises(FileNotFoundError):
        open_array(tmp_path / "b.npy", np.float32, 2)


@pytest.mark.parametrize(
    "shape",
    [
        "(2, 3)" * 9,
        "(1 << 60, 3)",
        "(99999999999999999999,)",
        "((((((((((",
        "(-2, 3)",
        "(2, 3, 'x')",
        "('a',)",
    ],
)
def test_a_header_is_not_believed(tmp_path, shape):
    path = tmp_path / "a.npy"
    header = f"{{'descr': '<f4', 'fortran_order': False, 'shape': {shape}}}".ljust(117) + "\n"
    path.write_bytes(b"\x93NUMPY\x01\x00" + len(header).to_bytes(2, "little") + header.encode() + bytes(24))
    with pytest.raises(ValueError, match=r"a\.npy is no array"):
        open_array(path, np.float32, 2)
