"""Tiny random backbones and small LLaVA JSON files, made once per test session."""

import json
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from PIL import Image

LANGUAGES = ("en", "zh", "tr")
TEXTS = {
    "en": ("What is in the picture?", "A red square."),
    "zh": ("图里有什么？", "一个红色的方块。"),
    "tr": ("Görselde ne var?", "Kırmızı bir kare."),
}


@pytest.fixture(scope="session")
def backbones(tmp_path_factory):
    """Folders ``vision`` (16 pixels in patches of 8: 5 tokens) and ``llm`` (two layers of 24) with random weights."""
    import torch
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
    from transformers import CLIPVisionConfig, CLIPVisionModel, Qwen2Config, Qwen2ForCausalLM

    root = tmp_path_factory.mktemp("backbones")
    torch.manual_seed(7)
    vision = CLIPVisionConfig(
        hidden_size=12, intermediate_size=20, num_hidden_layers=3, num_attention_heads=2, image_size=16, patch_size=8
    )
    CLIPVisionModel(vision).save_pretrained(root / "vision")
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=320,
        special_tokens=["<|endoftext|>", "<|im_start|>", "<|im_end|>"],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    tokenizer.train_from_iterator([text for pair in TEXTS.values() for text in pair], trainer)
    llm = Qwen2Config(
        vocab_size=320,
        hidden_size=24,
        intermediate_size=40,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=2,
        max_position_embeddings=512,
        tie_word_embeddings=True,
    )
    Qwen2ForCausalLM(llm).save_pretrained(root / "llm")
    tokenizer.save(str(root / "llm" / "tokenizer.json"))
    return SimpleNamespace(vision=root / "vision", llm=root / "llm", tokenizer=root / "llm" / "tokenizer.json")


def record(number: int, **changes) -> dict:
    """A good LLaVA record; every fifth has no image, every seventh two turns."""
    language = LANGUAGES[number % 3]
    question, answer = TEXTS[language]
    item = {
        "id": f"r{number}",
        "language": language,
        "conversations": [
            {"from": "human", "value": f"<image>\n{question}"},
            {"from": "gpt", "value": answer + " " * 0 + "!" * (number % 4)},
        ],
        "image": f"pictures/{number % 8}.png",
    }
    if number % 5 == 4:
        del item["image"]
        item["conversations"][0]["value"] = question
    if number % 7 == 6:
        item["conversations"] += [{"from": "human", "value": question}, {"from": "gpt", "value": answer}]
    return item | changes


@pytest.fixture
def data(tmp_path):
    """A function that writes records (40 good ones by default) and eight pictures; returns the JSON file."""

    def write(records=None, name="train.json") -> Path:
        folder = tmp_path / "data"
        (folder / "pictures").mkdir(parents=True, exist_ok=True)
        random = np.random.default_rng(3)
        for number in range(8):
            path = folder / "pictures" / f"{number}.png"
            if not path.exists():
                pixels = random.integers(0, 256, (18 + number, 25, 3), dtype=np.uint8)
                Image.fromarray(pixels).save(path)
        path = folder / name
        path.write_text(json.dumps([record(number) for number in range(40)] if records is None else records))
        return path

    return write


STAGE = "{learning_rate: 1e-3, global_batch: 8, micro_batch: 4, gradient_checkpointing: false, log_steps: 1}"


@pytest.fixture
def config_file(backbones, tmp_path) -> str:
    """A configuration for the tiny backbones; named nano, so that runs go where those of the default go."""
    path = tmp_path / "tiny.yaml"
    path.write_text(
        f"""
name: nano
backbones: {{vision: {backbones.vision}, llm: {backbones.llm}}}
data: {{workers: 0, image_cache: pixels, max_length: 128}}
stage1: {STAGE}
stage2: {STAGE}
"""
    )
    return str(path)


@pytest.fixture
def train(config_file, data, tmp_path, monkeypatch):
    """Train a stage in ``tmp_path/runs/nano/stageN`` with 40 records; returns the run folder."""
    from parrot_train.config import load_config
    from parrot_train.stages import StageRequest, run_stage

    monkeypatch.chdir(tmp_path)
    path = data()

    def call(stage, *overrides, **request) -> Path:
        files = [f"data.stage{number}=[{path}]" for number in (1, 2)]
        config = load_config(config_file, [*files, *overrides])
        asked = StageRequest(stage, config, **request)
        run_stage(asked)
        return asked.run

    return call
