"""Which files of a folder hold a model's tensors: one safetensors file, or the shards that its index lists."""

import json
from pathlib import Path
from typing import Any

from parrot_runtime.errors import InputError

WEIGHTS_NAME = "model.safetensors"
INDEX_NAME = "model.safetensors.index.json"
LORA_NAME = "lora.json"
AGAIN = "write the checkpoint again, or copy it again from where it came"


def weight_files(folder: Path) -> dict[Path, list[str] | None]:
    """Each file, and the tensors that the index promises in it; None for a single file, which has no index.

    Other safetensors files in the folder are none of the model's. Raises InputError for a folder without weights and
    for an index that is unsound or leaves the folder.
    """
    if (folder / WEIGHTS_NAME).exists():
        return {folder / WEIGHTS_NAME: None}
    index = folder / INDEX_NAME
    if not index.exists():
        raise InputError(f"{folder}: holds no {WEIGHTS_NAME} and no {INDEX_NAME}; save the model as safetensors")
    weight_map = read_json(index).get("weight_map")
    if not isinstance(weight_map, dict) or not all(isinstance(file, str) for file in weight_map.values()):
        raise InputError(f"{index}: expected a 'weight_map' from tensors to files; {AGAIN}")
    files: dict[Path, list[str] | None] = {}
    for file in sorted(set(weight_map.values())):
        if Path(file).name != file:
            raise InputError(f"{index}: '{file}' is not a file name inside the checkpoint; {AGAIN}")
        files[folder / file] = [name for name, place in weight_map.items() if place == file]
    return files


def is_lora_checkpoint(folder: Path) -> bool:
    """Whether ``folder`` holds adapters for the weights of another run: ``parrot_train.lora`` reads it."""
    return (folder / LORA_NAME).is_file()


def read_json(path: Path) -> dict[str, Any]:
    """The JSON object in ``path``. Raises InputError."""
    try:
        data = json.loads(path.read_bytes())
    except OSError as error:
        raise InputError(f"{path}: cannot be read ({error.strerror}); expected a checkpoint folder") from error
    except (ValueError, RecursionError) as error:
        raise InputError(f"{path}: not JSON ({error}); {AGAIN}") from error
    if not isinstance(data, dict):
        raise InputError(f"{path}: expected a JSON object, got {type(data).__name__}; {AGAIN}")
    return data
