"""The template a bundle's prompts go into, by the name its recipe gives it."""

from __future__ import annotations

from typing import TYPE_CHECKING

from parrot_runtime.manifest import PromptRecipe
from parrot_runtime.prompt import PromptEncoder, TemplateEncoder
from parrot_runtime.vicuna import VicunaEncoder

if TYPE_CHECKING:
    from tokenizers import Tokenizer

_ENCODERS: dict[str, type[TemplateEncoder]] = {"chatml": PromptEncoder, "vicuna": VicunaEncoder}


def prompt_encoder(tokenizer: Tokenizer, recipe: PromptRecipe) -> TemplateEncoder:
    """The encoder of ``recipe.template``. Raises InputError for a tokenizer that it cannot use."""
    return _ENCODERS[recipe.template](tokenizer)
