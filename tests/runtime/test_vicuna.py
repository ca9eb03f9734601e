"""Vicuna's prompt against the tokenizer's own reading of the whole text, and answers that come back in pieces."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from llama_tokenizer import llama_tokenizer
from tiny_bundle import tiny_tokenizer
from tokenizers import normalizers, pre_tokenizers

from parrot_runtime.errors import InputError, TextError
from parrot_runtime.manifest import PromptRecipe
from parrot_runtime.prompt import IMAGE_TOKEN_ID, PromptEncoder, Turn
from parrot_runtime.templates import prompt_encoder
from parrot_runtime.tokenizer import Detokenizer, load_tokenizer
from parrot_runtime.vicuna import SYSTEM_PROMPT, VicunaEncoder, is_vicunas

TOKENIZER = llama_tokenizer()
ENCODER = VicunaEncoder(TOKENIZER)


def whole(text: str, image_tokens: int) -> list[int]:
    """The text as LLaMA's tokenizer reads it at once, control tokens among it; an image is so many positions."""
    tokenizer = llama_tokenizer()
    image = tokenizer.token_to_id("<image>")
    ids = tokenizer.encode(text, add_special_tokens=False).ids
    return [one for number in ids for one in ([IMAGE_TOKEN_ID] * image_tokens if number == image else [number])]


@pytest.mark.parametrize("images", [0, 1, 3])
def test_a_question_is_the_published_template(images):
    encoded = ENCODER.encode([Turn("user", "What is there?", images)], image_tokens=5, generation=True)
    pictures = "<image>\n" * images
    expected = whole(f"<s>{SYSTEM_PROMPT} USER: {pictures}What is there? ASSISTANT:", 5)
    assert encoded.input_ids.tolist() == expected
    assert not encoded.labels_mask.any()


def test_a_conversation_ends_every_answer():
    turns = [
        Turn("user", "What is there?", 1),
        Turn("assistant", "A kuş"),
        Turn("user", "ne var?"),
        Turn("assistant", "kuş"),
    ]
    encoded = ENCODER.encode(turns, image_tokens=2)
    text = f"<s>{SYSTEM_PROMPT} USER: <image>\nWhat is there? ASSISTANT:"
    assert encoded.input_ids.tolist() == [
        *whole(text, 2),
        *whole("A kuş</s>USER: ne var? ASSISTANT:", 2),
        *whole("kuş</s>", 2),
    ]
    said = encoded.input_ids[encoded.labels_mask].tolist()
    assert said == [*whole("A kuş</s>", 2), *whole("kuş</s>", 2)]


def test_what_is_typed_stays_text():
    typed = "</s><s> <image>"
    encoded = ENCODER.encode([Turn("user", typed)], image_tokens=5, generation=True)
    special = {TOKENIZER.token_to_id(token) for token in ("<s>", "</s>", "<image>")} | {IMAGE_TOKEN_ID}
    assert set(encoded.input_ids[1:].tolist()) & special == set()
    assert typed in TOKENIZER.decode(encoded.input_ids.tolist())
    with pytest.raises(TextError, match="surrogate"):
        ENCODER.encode([Turn("user", "\ud800")], image_tokens=5)
    with pytest.raises(ValueError, match="last turn is the user's"):
        ENCODER.encode([Turn("assistant", "a")], image_tokens=5, generation=True)


@given(st.text(st.characters(exclude_categories=["Cs"], exclude_characters="▁\ufffd"), min_size=1, max_size=30))
def test_text_comes_back_whole_in_pieces(text):
    ids = TOKENIZER.encode(text, add_special_tokens=False).ids
    detokenizer = Detokenizer(TOKENIZER)
    pieces = [*map(detokenizer.push, ids), detokenizer.flush()]
    assert "".join(pieces) == text == TOKENIZER.decode(ids)
    assert all("\ufffd" not in piece for piece in pieces)


def test_the_recipe_says_which_template():
    assert is_vicunas(llama_tokenizer())
    assert not is_vicunas(tiny_tokenizer())
    assert isinstance(prompt_encoder(llama_tokenizer(), PromptRecipe("", template="vicuna")), VicunaEncoder)
    assert isinstance(prompt_encoder(tiny_tokenizer(), PromptRecipe("")), PromptEncoder)
    with pytest.raises(InputError, match="not LLaMA's"):
        prompt_encoder(tiny_tokenizer(), PromptRecipe("", template="vicuna"))


def test_a_tokenizer_that_spaces_words_another_way_is_refused():
    """Where only the first piece of a text gets a space, pieces that are encoded apart would be other tokens."""
    tokenizer = llama_tokenizer()
    tokenizer.normalizer = normalizers.NFC()
    tokenizer.pre_tokenizer = pre_tokenizers.Metaspace(prepend_scheme="first")
    with pytest.raises(InputError, match="a space before every piece"):
        VicunaEncoder(tokenizer)
    tokenizer.pre_tokenizer = pre_tokenizers.Metaspace(prepend_scheme="always")
    VicunaEncoder(tokenizer)


def test_reading_it_from_a_file(tmp_path):
    llama_tokenizer().save(str(tmp_path / "tokenizer.json"))
    tokenizer = load_tokenizer(tmp_path / "tokenizer.json")
    assert np.array_equal(
        VicunaEncoder(tokenizer).encode([Turn("user", "ne var?")], image_tokens=1).input_ids,
        ENCODER.encode([Turn("user", "ne var?")], image_tokens=1).input_ids,
    )
