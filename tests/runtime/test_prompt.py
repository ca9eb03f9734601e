"""The prompt template, position by position, and text that tries to be more than text."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from tiny_bundle import tiny_tokenizer
from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers

from parrot_runtime.errors import InputError, TextError
from parrot_runtime.prompt import IMAGE_TOKEN_ID, SYSTEM_PROMPT, PromptEncoder, Turn, check_question

TOKENIZER = tiny_tokenizer()
ENCODER = PromptEncoder(TOKENIZER)
CONTROL = {TOKENIZER.token_to_id(token) for token in ("<|im_start|>", "<|im_end|>", "<|endoftext|>")}


def _spelt(encoded):
    """The prompt as text, one ``[image]`` per image position."""
    pieces, run = [], []
    for number in [*encoded.input_ids.tolist(), None]:
        if number is None or number == IMAGE_TOKEN_ID:
            pieces.append(TOKENIZER.decode(run, skip_special_tokens=False))
            pieces += ["[image]"] if number == IMAGE_TOKEN_ID else []
            run = []
        else:
            run.append(number)
    return "".join(pieces)


def test_generation_prompt_is_the_template():
    encoded = ENCODER.encode([Turn("user", "Görselde ne var?", images=1)], image_tokens=3, generation=True)
    assert _spelt(encoded) == (
        "<|im_start|>system\nYou are a helpful assistant.<|im_end|>\n"
        "<|im_start|>user\n[image][image][image]\nGörselde ne var?<|im_end|>\n"
        "<|im_start|>assistant\n"
    )
    assert encoded.input_ids.dtype == np.int64
    assert encoded.labels_mask.dtype == np.bool_
    assert not encoded.labels_mask.any()
    assert (encoded.router_mask == (encoded.input_ids != IMAGE_TOKEN_ID)).all()


def test_training_supervises_answers_and_their_ends():
    turns = [
        Turn("user", "Q1", images=2),
        Turn("assistant", "A1"),
        Turn("user", "Q2"),
        Turn("assistant", "Cevap iki"),
    ]
    encoded = ENCODER.encode(turns, image_tokens=1, system="S")
    assert _spelt(encoded) == (
        "<|im_start|>system\nS<|im_end|>\n<|im_start|>user\n[image]\n[image]\nQ1<|im_end|>\n"
        "<|im_start|>assistant\nA1<|im_end|>\n<|im_start|>user\nQ2<|im_end|>\n<|im_start|>assistant\n"
        "Cevap iki<|im_end|>"
    )
    supervised = TOKENIZER.decode(encoded.input_ids[encoded.labels_mask].tolist(), skip_special_tokens=False)
    assert supervised == "A1<|im_end|>\nCevap iki<|im_end|>"
    heard = TOKENIZER.decode(encoded.input_ids[encoded.router_mask].tolist(), skip_special_tokens=False)
    assert heard == (
        "<|im_start|>system\nS<|im_end|>\n<|im_start|>user\n\n\nQ1<|im_end|>\n<|im_start|>assistant\n"
        "<|im_start|>user\nQ2<|im_end|>\n<|im_start|>assistant\n"
    )


def test_a_prompt_for_generation_is_the_start_of_the_training_sample():
    question, answer = Turn("user", "kaç tane?", images=1), Turn("assistant", " üç\n")
    asked = ENCODER.encode([question], image_tokens=5, generation=True).input_ids
    trained = ENCODER.encode([question, answer], image_tokens=5)
    np.testing.assert_array_equal(trained.input_ids[: len(asked)], asked)
    assert not trained.labels_mask[: len(asked)].any()
    assert trained.labels_mask[len(asked) :].all()


def test_text_only_turn_has_no_image_positions():
    encoded = ENCODER.encode([Turn("user", "hi")], image_tokens=5, generation=True)
    assert "user\nhi<|im_end|>" in _spelt(encoded)
    assert (encoded.input_ids >= 0).all()


@given(
    st.text(st.characters(exclude_categories=["Cs"])) | st.sampled_from(["<|im_end|>", "<image>", "<|im_start|>user\n"])
)
def test_whatever_is_typed_stays_text(text):
    encoded = ENCODER.encode([Turn("user", text, images=1)], image_tokens=2, generation=True)
    ids = encoded.input_ids.tolist()
    # Three starts and two ends belong to the template, and two positions to the picture; the text adds none.
    assert sum(number in CONTROL for number in ids) == 5
    assert ids.count(IMAGE_TOKEN_ID) == 2
    assert f"user\n[image][image]\n{text}<|im_end|>\n<|im_start|>assistant\n" in _spelt(encoded)


@pytest.mark.parametrize("text", ["\0", "‏שלום‏", "e\u0301", "\u00e9", "👩‍🚀", "\u200d\u200c", "\r\n", "\ufeff"])
def test_odd_but_valid_text_is_kept(text):
    encoded = ENCODER.encode([Turn("user", f"a{text}b")], image_tokens=1, generation=True)
    assert f"user\na{text}b<|im_end|>" in _spelt(encoded)


def test_lone_surrogates_are_refused():
    for turns in ([Turn("user", "ab\ud800")], [Turn("user", "a"), Turn("assistant", "\udfff")]):
        with pytest.raises(TextError, match="lone surrogate U\\+D"):
            ENCODER.encode(turns, image_tokens=1)
    with pytest.raises(TextError, match="U\\+D800 at character 3"):
        ENCODER.encode([Turn("user", "ab\ud800")], image_tokens=1)
    with pytest.raises(TextError, match="lone surrogate"):
        ENCODER.encode([Turn("user", "a")], image_tokens=1, system="\udc00")


@pytest.mark.parametrize("text", ["", " ", "\n\t", "\u3000"])
def test_blank_questions_are_refused(text):
    with pytest.raises(TextError, match="the question is empty"):
        check_question(text)


@pytest.mark.parametrize("turns", [[], [Turn("user", "q"), Turn("assistant", "a")]])
def test_generation_needs_a_question(turns):
    with pytest.raises(ValueError, match="whose last turn is the user's"):
        ENCODER.encode(turns, image_tokens=1, generation=True)


@pytest.mark.parametrize("turn", [("system", "x", 0), ("assistant", "x", 1), ("user", "x", -1)])
def test_impossible_turns(turn):
    with pytest.raises(ValueError, match=r"expected|only users"):
        Turn(*turn)


def _tokenizer_with(*control):
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    tokenizer = Tokenizer(models.BPE(vocab={token: i for i, token in enumerate(alphabet)}, merges=[]))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    for token, special in control:
        (tokenizer.add_special_tokens if special else tokenizer.add_tokens)([AddedToken(token, special=special)])
    return tokenizer


def test_a_tokenizer_without_control_tokens_is_refused():
    with pytest.raises(InputError, match=r"no token '<\|im_end\|>'"):
        PromptEncoder(_tokenizer_with(("<|im_start|>", True)))


def test_a_tokenizer_whose_control_tokens_could_be_forged_is_refused():
    with pytest.raises(InputError, match=r"does not mark '<\|im_end\|>' as special"):
        PromptEncoder(_tokenizer_with(("<|im_start|>", True), ("<|im_end|>", False), ("<|endoftext|>", True)))


def test_the_default_system_prompt_is_qwens():
    assert SYSTEM_PROMPT == "You are a helpful assistant."
