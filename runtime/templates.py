"""The template a bundle's prompts go into, by the name its recipe gives it."""

from __future__ import annotations

from typing import TYPE_CHECKING, TypeAlias

from parrot_runtime.manifest import PromptRecipe
from parrot_runtime.prompt import PromptEncoder
from parrot_runtime.vicuna import VicunaEncoder

if TYPE_CHECKING:
    from tokenizers import Tokenizer

Encoder: TypeAlias = PromptEncoder | VicunaEncoder


def prompt_encoder(tokenizer: Tokenizer, recipe: PromptRecipe) -> Encoder:
    """The encoder of ``recipe.template``. Raises InputError for a tokenizer that it cannot use."""
    return (VicunaEncoder if recipe.template == "vicuna" else PromptEncoder)(tokenizer)
