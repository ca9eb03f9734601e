"""A small random language model whose attention heads have a width that onnxruntime can export."""

import shutil
from pathlib import Path

import torch
from transformers import Qwen2Config, Qwen2ForCausalLM


def write_wide_heads(folder: Path, tokenizer: Path) -> Path:
    """Write it to ``folder``, with ``tokenizer`` beside it; the folder."""
    torch.manual_seed(3)
    config = Qwen2Config(
        vocab_size=320,
        hidden_size=32,
        intermediate_size=40,
        num_hidden_layers=2,
        num_attention_heads=2,
        num_key_value_heads=1,
        max_position_embeddings=512,
        tie_word_embeddings=True,
    )
    Qwen2ForCausalLM(config).save_pretrained(folder)
    shutil.copy(tokenizer, folder)
    return folder
