"""Rows of a safetensors file, read where they lie."""

import json
import struct

import ml_dtypes
import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from safetensors.numpy import save_file

from parrot_runtime.embedding import Embedding
from parrot_runtime.errors import BundleError

TABLE = np.random.default_rng(3).standard_normal((11, 7)).astype(np.float32)
IDS = np.array([3, 0, 10, 3])


def _raw(path, header, data):
    text = header if isinstance(header, bytes) else json.dumps(header).encode()
    path.write_bytes(struct.pack("<Q", len(text)) + text + data)
    return path


def _entry(**changes):
    return {"embed_tokens.weight": {"dtype": "F32", "shape": [11, 7], "data_offsets": [0, 308], **changes}}


@pytest.mark.parametrize("stored", [np.float32, np.float16, ml_dtypes.bfloat16])
@pytest.mark.parametrize("wanted", ["float32", "float16"])
def test_rows_in_the_dtype_of_the_border(tmp_path, stored, wanted):
    path = tmp_path / "e.safetensors"
    table = TABLE.astype(stored)
    if stored is ml_dtypes.bfloat16:
        _raw(path, _entry(dtype="BF16", data_offsets=[0, 154]), table.tobytes())
    else:
        save_file({"embed_tokens.weight": table}, path)
    rows = Embedding(path, vocab_size=11, hidden_size=7).gather(IDS, wanted)
    assert rows.dtype == wanted
    np.testing.assert_array_equal(rows, table.astype(np.float32)[IDS].astype(wanted))


def test_an_odd_offset_and_other_tensors_do_no_harm(tmp_path):
    header = json.dumps(_entry(data_offsets=[3, 311]) | {"x": {"dtype": "U8", "shape": [3], "data_offsets": [0, 3]}})
    path = _raw(tmp_path / "e.safetensors", (header + " " * (len(header) % 2)).encode(), b"abc" + TABLE.tobytes())
    np.testing.assert_array_equal(Embedding(path, vocab_size=11, hidden_size=7).gather(IDS), TABLE[IDS])


def test_no_ids_no_rows(tmp_path):
    path = _raw(tmp_path / "e.safetensors", _entry(), TABLE.tobytes())
    assert Embedding(path, vocab_size=11, hidden_size=7).gather(np.array([], np.int64)).shape == (0, 7)


@pytest.mark.parametrize("bad", [-200, -1, 11])
def test_ids_outside_the_table(tmp_path, bad):
    path = _raw(tmp_path / "e.safetensors", _entry(), TABLE.tobytes())
    with pytest.raises(IndexError if bad < 0 else BundleError):
        Embedding(path, vocab_size=11, hidden_size=7).gather(np.array([0, bad]))


@pytest.mark.parametrize(
    ("header", "message"),
    [
        (b"", "not a safetensors file"),
        (b"{", "not a safetensors file"),
        (b"[" * 5000, "not a safetensors file"),
        ({}, "not a safetensors file with 'embed_tokens.weight'"),
        ({"embed_tokens.weight": 3}, "not a safetensors file"),
        (_entry(shape="11x7"), "malformed"),
        (_entry(shape=[11.0, 7]), "malformed"),
        (_entry(data_offsets=[0]), "malformed"),
        (_entry(shape=[7, 11]), r"is \[7, 11\], the manifest says \[11, 7\]"),
        (_entry(shape=[77]), r"is \[77\]"),
        (_entry(dtype="I64"), "expected F32, F16, BF16 or U8"),
        (_entry(dtype="U8", data_offsets=[0, 77]), "not a safetensors file with 'embed_tokens.weight.scales'"),
        (_entry(dtype="F16"), "not where the header says"),
        (_entry(data_offsets=[-8, 300]), "not where the header says"),
        (_entry(data_offsets=[8, 316]), "not where the header says"),
        (_entry(data_offsets=[0, 2**63]), "not where the header says"),
    ],
)
def test_other_files_are_refused(tmp_path, header, message):
    path = _raw(tmp_path / "e.safetensors", header, TABLE.tobytes())
    with pytest.raises(BundleError, match=message):
        Embedding(path, vocab_size=11, hidden_size=7)


CODES = np.random.default_rng(5).integers(0, 256, (11, 12), dtype=np.uint8)


@pytest.mark.parametrize("groups", [1, 3, 12])
@pytest.mark.parametrize("wanted", ["float32", "float16"])
def test_rows_of_eight_bits_are_their_codes_times_their_scales(tmp_path, groups, wanted):
    """In float64, block by block: a product of two float32 numbers is rounded once."""
    scales = np.random.default_rng(groups).uniform(1e-3, 2e-2, (11, groups)).astype(np.float32)
    save_file({"embed_tokens.weight": CODES, "embed_tokens.weight.scales": scales}, tmp_path / "e.safetensors")
    rows = Embedding(tmp_path / "e.safetensors", vocab_size=11, hidden_size=12).gather(IDS, wanted)
    expected = (CODES[IDS].astype(np.float64) - 128) * np.repeat(scales[IDS].astype(np.float64), 12 // groups, axis=1)
    assert rows.dtype == wanted
    np.testing.assert_allclose(rows, expected, rtol=1e-3 if wanted == "float16" else 1e-7)


def test_no_rows_of_eight_bits(tmp_path):
    tensors = {"embed_tokens.weight": CODES, "embed_tokens.weight.scales": np.ones((11, 3), np.float32)}
    save_file(tensors, tmp_path / "e.safetensors")
    table = Embedding(tmp_path / "e.safetensors", vocab_size=11, hidden_size=12)
    assert table.gather(np.array([], np.int64)).shape == (0, 12)


@pytest.mark.parametrize(
    ("scales", "message"),
    [
        (np.ones((11, 5), np.float32), r"F32 \[11, 5\]; expected F32 \[11, n\]"),
        (np.ones((10, 3), np.float32), r"F32 \[10, 3\]"),
        (np.ones(11, np.float32), r"F32 \[11\]"),
        (np.ones((11, 0), np.float32), r"F32 \[11, 0\]"),
        (np.ones((11, 3), np.float16), r"F16 \[11, 3\]"),
    ],
)
def test_scales_that_do_not_fit_are_refused(tmp_path, scales, message):
    save_file({"embed_tokens.weight": CODES, "embed_tokens.weight.scales": scales}, tmp_path / "e.safetensors")
    with pytest.raises(BundleError, match=message):
        Embedding(tmp_path / "e.safetensors", vocab_size=11, hidden_size=12)


def test_missing_empty_and_cut_files_are_refused(tmp_path):
    path = tmp_path / "e.safetensors"
    with pytest.raises(BundleError, match="cannot be read"):
        Embedding(path, vocab_size=11, hidden_size=7)
    whole = _raw(path, _entry(), TABLE.tobytes()).read_bytes()
    for length in (0, 4, 8, 40, len(whole) - 1):
        path.write_bytes(whole[:length])
        with pytest.raises(BundleError):
            Embedding(path, vocab_size=11, hidden_size=7)


@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
def test_damaged_headers_are_read_or_refused(tmp_path, data):
    raw = bytearray(_raw(tmp_path / "e.safetensors", _entry(), TABLE.tobytes()).read_bytes())
    for _ in range(data.draw(st.integers(1, 4))):
        raw[data.draw(st.integers(0, len(raw) - 309))] = data.draw(st.integers(0, 255))
    (tmp_path / "e.safetensors").write_bytes(raw)
    try:
        Embedding(tmp_path / "e.safetensors", vocab_size=11, hidden_size=7).gather(IDS)
    except BundleError as error:
        assert "e.safetensors" in str(error)  # noqa: PT017 - an error is one of two right results
