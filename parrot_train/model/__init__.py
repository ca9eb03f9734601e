"""Parrot's transformers classes, each registered with its Auto class when it is imported.

The configuration is here at once. The others bring torch's and transformers' modelling code, a second of importing that
whoever reads a checkpoint without running it does not need: they are imported when they are asked for.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

from transformers import AutoConfig

from .configuration import ParrotConfig

if TYPE_CHECKING:
    from .modeling import ParrotForConditionalGeneration, ParrotModel
    from .processing import ParrotProcessor

AutoConfig.register("parrot", ParrotConfig, exist_ok=True)

_MODULES = {"ParrotForConditionalGeneration": "modeling", "ParrotModel": "modeling", "ParrotProcessor": "processing"}

__all__ = ["ParrotConfig", "ParrotForConditionalGeneration", "ParrotModel", "ParrotProcessor"]


def __getattr__(name: str) -> Any:
    if name not in _MODULES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f".{_MODULES[name]}", __name__), name)
