"""Tiny random checkpoints in Parrot's own format, of odd shapes and with weights large enough to matter."""

import json
import math
from dataclasses import asdict
from pathlib import Path

import numpy as np
import onnxruntime
import torch
from safetensors.numpy import save_file
from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers

from parrot_export.architecture import from_config, tensor_shapes
from parrot_export.author import author
from parrot_export.checkpoint import open_checkpoint
from parrot_export.plan import plan
from parrot_export.slabs import StoredTensor, read_slabs
from parrot_export.weights import Block
from parrot_runtime.image import ImageRecipe
from parrot_runtime.prompt import SYSTEM_PROMPT
from parrot_train.model import ParrotConfig, ParrotForConditionalGeneration

VISION = {"hidden_size": 32, "intermediate_size": 56, "num_attention_heads": 4, "image_size": 28, "patch_size": 7}
TEXT = {
    "hidden_size": 48,
    "intermediate_size": 88,
    "num_hidden_layers": 3,
    "num_attention_heads": 6,
    "num_key_value_heads": 2,
    "head_dim": 16,
    "vocab_size": 271,
    "max_position_embeddings": 1024,
    "rope_parameters": {"rope_type": "default", "rope_theta": 12345.0},
}
IMAGE_TOKENS, WIDTH, KV_HEADS, HEAD_DIM, LAYERS, MAX_LEN = 17, 48, 2, 16, 3, 96


def tiny_config(**settings) -> ParrotConfig:
    """Images of 28 pixels in patches of 7, three layers of which two are used; six query heads on two for keys."""
    text = TEXT | settings.pop("text", {})
    vision = VISION | {"num_hidden_layers": 3} | settings.pop("vision", {})
    return ParrotConfig(vision_config=vision, text_config=text, **settings)


def tiny_model(seed: int = 0, **settings) -> ParrotForConditionalGeneration:
    """A random model. Matrices have a spread of 0.3, so that softmax, activations and norms are far from linear."""
    torch.manual_seed(seed)
    model = ParrotForConditionalGeneration(tiny_config(**settings)).eval()
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            parameter.normal_(0.0, 0.3 if parameter.ndim > 1 else 0.2)
            if "norm" in name and name.endswith("weight"):
                parameter.add_(1.0)
    model.tie_weights()
    return model


def tiny_tokenizer() -> Tokenizer:
    """One token per byte, and Qwen's control tokens."""
    vocabulary = {token: number for number, token in enumerate(sorted(pre_tokenizers.ByteLevel.alphabet()))}
    tokenizer = Tokenizer(models.BPE(vocab=vocabulary, merges=[]))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    control = ("<|endoftext|>", "<|im_start|>", "<|im_end|>")
    tokenizer.add_special_tokens([AddedToken(token, special=True, normalized=False) for token in control])
    return tokenizer


def write_companions(folder: Path, config: ParrotConfig) -> None:
    """What stands beside the weights: tokenizer and recipe."""
    tiny_tokenizer().save(str(folder / "tokenizer.json"))
    recipe = {
        "image": asdict(ImageRecipe.clip(config.vision_config.image_size)),
        "prompt": {"system": SYSTEM_PROMPT, "image_first": True},
    }
    (folder / "parrot_recipe.json").write_text(json.dumps(recipe), "utf-8")


def write_checkpoint(folder: Path, model: ParrotForConditionalGeneration, **options) -> Path:
    """Save ``model`` with its companions; ``options`` go to ``save_pretrained``."""
    model.save_pretrained(folder, **options)
    write_companions(folder, model.config)
    return folder


def write_hollow_checkpoint(folder: Path, config: ParrotConfig) -> Path:
    """A float32 checkpoint of zeros that takes no room on disk: a header, and a hole of the right length."""
    folder.mkdir(parents=True)
    config.save_pretrained(folder)
    write_companions(folder, config)
    needed, _ = tensor_shapes(from_config(config, where="test"))
    header, end = {}, 0
    for name, shape in needed.items():
        start, end = end, end + 4 * math.prod(shape)
        header[name] = {"dtype": "F32", "shape": shape, "data_offsets": [start, end]}
    text = json.dumps(header).encode()
    with open(folder / "model.safetensors", "wb") as file:
        file.write(len(text).to_bytes(8, "little") + text)
        file.truncate(8 + len(text) + end)
    return folder


class Exported:
    """A model in torch and its graphs in onnxruntime; the same weights, nothing else in common."""

    def __init__(self, model: ParrotForConditionalGeneration, folder: Path, precision: str) -> None:
        self.model = model
        self.checkpoint = open_checkpoint(write_checkpoint(folder / "checkpoint", model))
        self.sessions = sessions(self.checkpoint, folder / "graphs", precision)

    def run(self, role: str, **inputs: np.ndarray) -> dict[str, np.ndarray]:
        """Outputs of one graph by name."""
        session = self.sessions[role]
        names = [output.name for output in session.get_outputs()]
        return dict(zip(names, session.run(names, inputs), strict=True))


def sessions(checkpoint, folder: Path, precision: str) -> dict[str, onnxruntime.InferenceSession]:
    """Every graph of ``checkpoint``, written to ``folder`` and loaded."""
    authored = author(checkpoint, plan(precision), MAX_LEN)
    folder.mkdir(parents=True)
    for file in authored.files:
        file.write(folder)
    authored.save_graphs(folder)
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    return {
        role: onnxruntime.InferenceSession(folder / graph.file, options, providers=["CPUExecutionProvider"])
        for role, graph in authored.graphs.items()
    }


def relative_error(got: np.ndarray, expected: np.ndarray) -> float:
    """The largest difference as a share of the largest expected value."""
    assert got.shape == expected.shape
    assert np.isfinite(got).all()
    return float(np.abs(got - expected).max() / np.abs(expected).max())


# K is 128 for most matrices, 192 = 3·64 for down_proj, and 80 = no block for the vision encoder's projector.
ROUNDED_TEXT = {"hidden_size": 128, "intermediate_size": 192, "num_attention_heads": 8, "num_hidden_layers": 3}


def model_to_round() -> ParrotForConditionalGeneration:
    """A model whose matrices have blocks of every size, and no layer that drowns the others, as in trained ones."""
    model = tiny_model(text=ROUNDED_TEXT, num_experts=3, expert_intermediate_size=128)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if parameter.ndim == 2 and "language_model.layers" in name:
                parameter.mul_(0.5)
    return model


def stored(folder: Path, array: np.ndarray) -> StoredTensor:
    """``array`` as the only tensor of a safetensors file in ``folder``."""
    save_file({"a": array}, folder / "model.safetensors")
    ((name, slab),) = read_slabs(folder)
    return StoredTensor(name, slab.dtype, slab.shape, (slab,))


def read(block: Block) -> np.ndarray:
    """All of a block's numbers, in its shape."""
    return np.concatenate(list(block.chunks())).reshape(block.shape)
