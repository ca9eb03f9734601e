"""The pretrained halves of a Parrot: where they lie on this machine, and the shapes of those that configurations name.

Nothing is ever downloaded here. The shapes are the numbers of the ``config.json`` that each is published with, so that
a model can be planned, and written at random, before there is a file of it.
"""

from pathlib import Path
from typing import Any

from huggingface_hub import try_to_load_from_cache
from huggingface_hub.errors import HFValidationError, StrictDataclassError

from parrot_runtime.errors import InputError
from parrot_runtime.strict import nearest
from parrot_train.config import PACKAGE_NANO
from parrot_train.nano.backbones import shipped


def _vit_l_14_336(kind: str) -> dict[str, Any]:
    return {
        "model_type": kind,
        "hidden_size": 1024,
        "intermediate_size": 4096,
        "num_hidden_layers": 24,
        "num_attention_heads": 16,
        "projection_dim": 768,
        "image_size": 336,
        "patch_size": 14,
        "hidden_act": "quick_gelu",
    }


_SIGLIP_SO400M_384 = {
    "model_type": "siglip_vision_model",
    "hidden_size": 1152,
    "intermediate_size": 4304,
    "num_hidden_layers": 27,
    "num_attention_heads": 16,
    "image_size": 384,
    "patch_size": 14,
    "hidden_act": "gelu_pytorch_tanh",
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


SHAPES: dict[str, dict[str, dict[str, Any]]] = {
    "vision": {
        "openai/clip-vit-large-patch14-336": _vit_l_14_336("clip_vision_model"),
        "OFA-Sys/chinese-clip-vit-large-patch14-336px": _vit_l_14_336("chinese_clip_vision_model"),
        "google/siglip-so400m-patch14-384": _SIGLIP_SO400M_384,
    },
    "llm": {
        "Qwen/Qwen2-0.5B-Instruct": _qwen(896, 4864, 24, 14, 2, 151936, tied=True),
        "Qwen/Qwen2-7B-Instruct": _qwen(3584, 18944, 28, 28, 4, 152064),
        "Qwen/Qwen1.5-7B-Chat": _qwen(4096, 11008, 32, 32, 32, 151936),
        "Qwen/Qwen1.5-14B-Chat": _qwen(5120, 13696, 40, 40, 40, 152064),
        "Qwen/Qwen1.5-32B-Chat": _qwen(5120, 27392, 64, 40, 8, 152064),
    },
}


def local_folder(source: str, part: str) -> Path | None:
    """Where the backbone ``source`` lies: in the package, in a folder, in the Hugging Face cache, or nowhere (None).

    ``part`` is ``vision`` or ``llm``. Raises InputError when the package's own is asked for and not there.
    """
    if source == PACKAGE_NANO:
        folder = shipped(part)
        if not (folder / "config.json").is_file():
            raise InputError(
                f"{folder}: the package's nano backbones are not there; run `parrot-train nano backbones` first"
            )
        return folder
    if Path(source).is_dir():
        return Path(source)
    try:
        found = try_to_load_from_cache(source, "config.json")
    except HFValidationError:  # a path and no hub name
        return None
    return Path(found).parent if isinstance(found, str) else None


def backbone_folder(source: str, part: str) -> Path:
    """As ``local_folder``; InputError, which says how to get it, for a backbone that is not on this machine."""
    folder = local_folder(source, part)
    if folder is None:
        raise InputError(
            f"backbones.{part}={source}: neither a folder nor in the Hugging Face cache, and nothing is downloaded "
            f"unasked; run `hf download {source}`, or name its folder with --set backbones.{part}=FOLDER"
        )
    return folder


def reason_of(error: Exception) -> str:
    """What a library says is wrong, in one line."""
    return " ".join(str(error).split())[:300]


def backbone_shape(source: str, part: str) -> dict[str, Any]:
    """The configuration of a backbone as a dict of its fields, from SHAPES or from the ``config.json`` of its files.

    Raises InputError for one that is in neither, or whose ``config.json`` cannot be read.
    """
    if source in SHAPES[part]:
        return SHAPES[part][source]
    folder = local_folder(source, part)
    if folder is None:
        known = ", ".join(SHAPES[part])
        raise InputError(
            f"backbones.{part}={source}: neither a folder nor in the Hugging Face cache, and its shape is not among "
            f"those known without files ({known}){nearest(source, SHAPES[part])}"
        )
    from transformers import AutoConfig

    try:
        config = AutoConfig.from_pretrained(folder)
    except (OSError, ValueError, StrictDataclassError) as error:
        raise InputError(
            f"backbones.{part}={source}: {folder}/config.json cannot be read ({reason_of(error)}); get it again"
        ) from error
    return getattr(config, f"{part}_config", config).to_dict()
