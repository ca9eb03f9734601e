"""The architectures Parrot is known by: the paper's models and their neighbours, as numbers, without any weights.

A name says which language model stands behind a CLIP ViT-L/14-336, the paper's vision encoder; the mixture is the
paper's (§3.3). The numbers are those of the ``config.json`` that each backbone is published with.
"""

import json
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from parrot_runtime.errors import InputError
from parrot_runtime.strict import nearest
from parrot_train.nano.backbones import shipped

if TYPE_CHECKING:
    from parrot_train.model import ParrotConfig

_CLIP_L_336 = {
    "model_type": "clip_vision_model",
    "hidden_size": 1024,
    "intermediate_size": 4096,
    "num_hidden_layers": 24,
    "num_attention_heads": 16,
    "projection_dim": 768,
    "image_size": 336,
    "patch_size": 14,
}


def _qwen(width: int, inner: int, layers: int, heads: int, kv_heads: int, rows: int, *, tied: bool = False) -> dict:
    return {
        "model_type": "qwen2",
        "hidden_size": width,
        "intermediate_size": inner,
        "num_hidden_layers": layers,
        "num_attention_heads": heads,
        "num_key_value_heads": kv_heads,
        "vocab_size": rows,
        "max_position_embeddings": 32768,
        "rope_parameters": {"rope_type": "default", "rope_theta": 1_000_000.0},
        "rms_norm_eps": 1e-6,
        "tie_word_embeddings": tied,
    }


def _nano() -> dict[str, Any]:
    vision, llm = (json.loads((shipped(part) / "config.json").read_text("utf-8")) for part in ("vision", "llm"))
    return {"vision_config": vision, "text_config": llm}


def _on_clip(language_model: dict[str, Any]) -> Callable[[], dict[str, Any]]:
    return lambda: {"vision_config": _CLIP_L_336, "text_config": language_model}


ARCHITECTURES: dict[str, Callable[[], dict[str, Any]]] = {
    "nano": _nano,
    "parrot-qwen2-0.5b": _on_clip(_qwen(896, 4864, 24, 14, 2, 151936, tied=True)),
    "parrot-qwen2-7b": _on_clip(_qwen(3584, 18944, 28, 28, 4, 152064)),
    "parrot-qwen1.5-7b": _on_clip(_qwen(4096, 11008, 32, 32, 32, 151936)),
    "parrot-qwen1.5-14b": _on_clip(_qwen(5120, 13696, 40, 40, 40, 152064)),
    "parrot-qwen1.5-32b": _on_clip(_qwen(5120, 27392, 64, 40, 8, 152064)),
}


def named_architecture(name: str) -> "ParrotConfig":
    """The configuration that ``name`` stands for. Raises InputError for an unknown name."""
    from parrot_train.model import ParrotConfig

    if name not in ARCHITECTURES:
        known = ", ".join(ARCHITECTURES)
        raise InputError(f"there is no architecture '{name}'; expected one of {known}{nearest(name, ARCHITECTURES)}")
    return ParrotConfig(**ARCHITECTURES[name]())
