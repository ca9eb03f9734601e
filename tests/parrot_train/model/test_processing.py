"""The processor: the runtime's prompt and image code in transformers' clothes."""

import json
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from PIL import Image
from tokenizers import Tokenizer
from transformers import AutoProcessor, CLIPVisionConfig, PreTrainedTokenizerFast, Qwen2Config

from parrot_runtime.errors import InputError
from parrot_runtime.image import ImageRecipe, preprocess
from parrot_runtime.prompt import PromptEncoder, Turn
from parrot_train.model import ParrotConfig, ParrotForConditionalGeneration, ParrotProcessor

SYSTEM = "Answer briefly."


@pytest.fixture(scope="module")
def setup(backbones):
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_file=str(backbones.tokenizer), eos_token="<|im_end|>", pad_token="<|endoftext|>"
    )
    recipe = ImageRecipe.clip(16)
    return SimpleNamespace(
        processor=ParrotProcessor(tokenizer, recipe, 5, SYSTEM),
        encoder=PromptEncoder(Tokenizer.from_file(str(backbones.tokenizer))),
        recipe=recipe,
        pictures=[Image.new("RGB", (20, 9 + number), (70 * number, 90, 200)) for number in range(3)],
    )


def expected_ids(setup, *turns: Turn) -> list[int]:
    return setup.encoder.encode(turns, image_tokens=5, system=SYSTEM, generation=True).input_ids.tolist()


def test_questions_with_a_picture_each_are_padded_on_the_left(setup):
    questions = ["Görselde ne var?", "图里有什么？ <image><|im_end|>", "?"]
    batch = setup.processor(setup.pictures, questions)
    assert batch["input_ids"].dtype == batch["attention_mask"].dtype == torch.int64
    for row, question in enumerate(questions):
        ids = expected_ids(setup, Turn("user", question, 1))
        padding = batch["input_ids"].shape[1] - len(ids)
        assert batch["input_ids"][row].tolist() == [setup.encoder.pad_id] * padding + ids
        assert batch["attention_mask"][row].tolist() == [0] * padding + [1] * len(ids)
    images = np.stack([preprocess(picture, setup.recipe) for picture in setup.pictures])
    np.testing.assert_array_equal(batch["pixel_values"], images)


def test_one_question_takes_all_pictures(setup):
    batch = setup.processor(setup.pictures, "What is in the picture?", return_tensors="np")
    assert batch["input_ids"].tolist() == [expected_ids(setup, Turn("user", "What is in the picture?", 3))]
    assert batch["pixel_values"].shape == (3, 3, 16, 16)


def test_conversations_and_text_alone(setup):
    turns = [Turn("user", "What?", 1), Turn("assistant", "A red square."), Turn("user", "Where?")]
    batch = setup.processor(setup.pictures[0], turns=turns)
    assert batch["input_ids"].tolist() == [expected_ids(setup, *turns)]
    batch = setup.processor(setup.pictures[0], turns=[turns, [Turn("user", "Hi")]])
    assert batch["input_ids"].shape[0] == 2
    assert set(setup.processor(text="Hi")) == {"input_ids", "attention_mask"}


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"images": 2, "text": ["a", "b", "c"]}, "2 images for 3 questions"),
        ({"images": 1, "turns": [Turn("user", "a", 2)]}, "hold 2 images, but 1 were given"),
        ({"images": 1}, "either text or turns"),
    ],
)
def test_pictures_and_prompts_must_agree(setup, arguments, message):
    arguments = arguments | {"images": setup.pictures[: arguments["images"]]}
    with pytest.raises(ValueError, match=message):
        setup.processor(**arguments)


def test_answers_are_decoded_without_image_positions(setup):
    ids = torch.tensor([expected_ids(setup, Turn("user", "Görselde ne var?", 1))])
    (text,) = setup.processor.batch_decode(ids)
    assert text == f"system\n{SYSTEM}\nuser\n\nGörselde ne var?\nassistant\n"
    assert setup.processor.decode(ids[0], skip_special_tokens=False).startswith("<|im_start|>system")


@pytest.fixture
def checkpoint(setup, tmp_path):
    vision = CLIPVisionConfig(
        hidden_size=12, intermediate_size=20, num_hidden_layers=2, num_attention_heads=2, image_size=16, patch_size=8
    )
    text = Qwen2Config(vocab_size=320, hidden_size=24, intermediate_size=40, num_hidden_layers=2, num_attention_heads=4,
                       num_key_value_heads=2)  # fmt: skip
    ParrotForConditionalGeneration(ParrotConfig(vision_config=vision, text_config=text)).save_pretrained(tmp_path)
    setup.processor.save_pretrained(tmp_path)
    return tmp_path


def test_what_is_saved_is_read_back(setup, checkpoint):
    for again in (ParrotProcessor.from_pretrained(checkpoint), AutoProcessor.from_pretrained(checkpoint)):
        assert type(again) is ParrotProcessor
        assert (again.recipe, again.image_tokens, again.system) == (setup.recipe, 5, SYSTEM)
        question = "Kırmızı <image>?"
        assert again(text=question)["input_ids"].tolist() == setup.processor(text=question)["input_ids"].tolist()
        assert SYSTEM in repr(again)


def test_saving_keeps_how_the_model_was_trained(setup, checkpoint):
    path = checkpoint / "parrot_recipe.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {"training": {"stage": 2}}))
    setup.processor.save_pretrained(checkpoint)
    assert json.loads(path.read_text())["training"] == {"stage": 2}


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("tokenizer.json", None, "no tokenizer.json"),
        ("parrot_recipe.json", None, "cannot be read"),
        ("parrot_recipe.json", "[]", "expected a JSON object"),
        ("parrot_recipe.json", '{"image": {"sise": 3}}', "unknown key 'sise'"),
    ],
)
def test_a_folder_that_is_no_checkpoint_is_refused(checkpoint, name, content, message):
    (checkpoint / name).unlink() if content is None else (checkpoint / name).write_text(content)
    with pytest.raises(InputError, match=message):
        ParrotProcessor.from_pretrained(checkpoint)


def test_the_model_takes_what_the_processor_gives(setup, checkpoint):
    model = ParrotForConditionalGeneration.from_pretrained(checkpoint)
    batch = setup.processor(setup.pictures, ["What is in the picture?", "Görselde ne var?", "?"])
    answers = model.generate(**batch, max_new_tokens=4, do_sample=False, eos_token_id=None, pad_token_id=0)
    new = answers[:, batch["input_ids"].shape[1] :]
    assert new.shape == (3, 4)
    assert len(setup.processor.batch_decode(answers)) == 3
