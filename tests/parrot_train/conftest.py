"""Tiny random backbones and small LLaVA JSON files, made once per test session."""

from pathlib import Path
from types import SimpleNamespace

import pytest
from small_records import TEXTS, write_data


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


@pytest.fixture
def data(tmp_path):
    """A function that writes records (40 good ones by default) and eight pictures; returns the JSON file."""

    def write(records=None, name="train.json") -> Path:
        return write_data(tmp_path / "data", records, name=name)

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
extend: {STAGE}
"""
    )
    return str(path)


@pytest.fixture
def train(config_file, data, tmp_path, monkeypatch):
    """Train a stage in ``tmp_path/runs/nano/stageN`` with 40 records; returns the run folder."""
    from parrot_train.config_files import load_config
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
