"""Parrot's transformers classes, registered with the Auto classes when this package is imported."""

from transformers import AutoConfig, AutoModelForImageTextToText, AutoProcessor

from .configuration import ParrotConfig
from .modeling import ParrotForConditionalGeneration, ParrotModel
from .processing import ParrotProcessor

AutoConfig.register("parrot", ParrotConfig, exist_ok=True)
AutoModelForImageTextToText.register(ParrotConfig, ParrotForConditionalGeneration, exist_ok=True)
AutoProcessor.register(ParrotConfig, ParrotProcessor, exist_ok=True)

__all__ = ["ParrotConfig", "ParrotForConditionalGeneration", "ParrotModel", "ParrotProcessor"]
