"""Reading tokenizers, and text that comes back in pieces."""

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tiny_bundle import tiny_tokenizer
from tokenizers import AddedToken, Tokenizer, decoders, models

from parrot_runtime.errors import BundleError
from parrot_runtime.tokenizer import Detokenizer, load_tokenizer

TOKENIZER = tiny_tokenizer()
TOKENIZER.encode_special_tokens = True  # as prompts are encoded: a control token in a text is text
IDS = st.integers(0, TOKENIZER.get_vocab_size() - 1)


def _pieces(tokenizer, ids):
    detokenizer = Detokenizer(tokenizer)
    return [*map(detokenizer.push, ids), detokenizer.flush()]


@given(st.lists(IDS, max_size=40))
def test_any_tokens_give_what_decode_gives(ids):
    assert "".join(_pieces(TOKENIZER, ids)) == TOKENIZER.decode(ids, skip_special_tokens=True)


@given(st.text(st.characters(exclude_categories=["Cs"]), max_size=30))
def test_text_comes_back_whole_and_no_piece_is_half_a_character(text):
    pieces = _pieces(TOKENIZER, TOKENIZER.encode(text).ids)
    assert "".join(pieces) == text
    if "\ufffd" not in text:
        assert all("\ufffd" not in piece for piece in pieces)


@pytest.mark.parametrize(
    "text", ["ü", "üü", " ü", "о", "是什么", "👩🏽‍🚀", "صورة", "e\u0301", "a\u200db", "‏אב‎", "\ufffd"]
)
def test_every_language_in_pieces(text):
    assert "".join(_pieces(TOKENIZER, TOKENIZER.encode(text).ids)) == text


def test_bytes_wait_for_their_character():
    ids = TOKENIZER.encode("😀").ids
    assert len(ids) == 4
    assert _pieces(TOKENIZER, ids) == ["", "", "", "😀", ""]
    # Cut short, the rest comes out at the end and not before.
    assert _pieces(TOKENIZER, ids[:3]) == ["", "", "", "\ufffd"]
    # A character cut off by another: the loss shows as soon as it is certain.
    assert _pieces(TOKENIZER, [*ids[:3], *TOKENIZER.encode("a").ids]) == ["", "", "", "\ufffda", ""]


def test_special_tokens_have_no_text_and_added_ones_their_own():
    tokenizer = tiny_tokenizer()
    tokenizer.add_tokens([AddedToken("日本", special=False)])
    ids = [tokenizer.token_to_id("<|im_end|>"), tokenizer.token_to_id("日本"), tokenizer.token_to_id("er")]
    assert "".join(_pieces(tokenizer, ids)) == tokenizer.decode(ids) == "日本er"


def test_rows_of_a_padded_vocabulary_have_no_text():
    assert _pieces(TOKENIZER, [299, *TOKENIZER.encode("a").ids]) == ["", "a", ""]


def test_load(tmp_path):
    path = tmp_path / "tokenizer.json"
    saved = tiny_tokenizer()
    saved.enable_truncation(4)
    saved.enable_padding(length=50)
    saved.save(str(path))
    loaded = load_tokenizer(path)
    text = "the weather in Über, и ещё"
    assert loaded.encode(text).ids == TOKENIZER.encode(text).ids


@pytest.mark.parametrize("content", [None, b"", b"{}", b"\xff\xfe", b'{"model": 3}'])
def test_what_is_no_tokenizer_is_refused(tmp_path, content):
    path = tmp_path / "tokenizer.json"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(BundleError, match=r"tokenizer\.json"):
        load_tokenizer(path)


def test_a_tokenizer_that_is_not_byte_level_is_refused(tmp_path):
    path = tmp_path / "tokenizer.json"
    tokenizer = Tokenizer(models.WordLevel({"a": 0}, unk_token="a"))
    tokenizer.decoder = decoders.WordPiece()
    tokenizer.save(str(path))
    with pytest.raises(BundleError, match="expected a byte-level tokenizer"):
        load_tokenizer(path)
