"""Vicuna's prompt, which LLaVA-1.5 was trained with, in token ids; the form of ``parrot_runtime.prompt`` for LLaMA.

    <s>A chat between a curious human and an artificial intelligence assistant. … USER: <image>
    Question ASSISTANT: Answer</s>USER: Question ASSISTANT:

The source is conversation ``v1`` of LLaVA's own code. There are no control tokens between the sides, so their names are
plain words that a person may type, too; ``<s>``, ``</s>`` and ``<image>`` in a question are letters like any others.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import TYPE_CHECKING

from parrot_runtime.errors import InputError
from parrot_runtime.prompt import IMAGE_TOKEN_ID, Pieces, TemplateEncoder, Turn

if TYPE_CHECKING:
    from tokenizers import Tokenizer

SYSTEM_PROMPT = (
    "A chat between a curious human and an artificial intelligence assistant. "
    "The assistant gives helpful, detailed, and polite answers to the human's questions."
)
_START, _END = "<s>", "</s>"


def is_vicunas(tokenizer: Tokenizer) -> bool:
    """Whether a tokenizer has LLaMA's control tokens and not Qwen's."""
    return tokenizer.token_to_id("<|im_start|>") is None and None not in map(tokenizer.token_to_id, (_START, _END))


class VicunaEncoder(TemplateEncoder):
    """Vicuna's template; what is supervised are answers and their ``</s>``.

    Raises InputError for a tokenizer that is not LLaMA's.
    """

    system = SYSTEM_PROMPT

    def __init__(self, tokenizer: Tokenizer) -> None:
        super().__init__(tokenizer)
        start, end = tokenizer.token_to_id(_START), tokenizer.token_to_id(_END)
        if start is None or end is None or not _begins_with_a_space(tokenizer):
            raise InputError(
                "the tokenizer is not LLaMA's, with a space before every piece of text; put Vicuna's tokenizer.json "
                "there"
            )
        self._start_id, self.end_id = start, end

    @property
    def stop_ids(self) -> frozenset[int]:
        """The ids that end an answer."""
        return frozenset((self.end_id,))

    def _write(self, pieces: Pieces, turns: Sequence[Turn], image_tokens: int, system: str, generation: bool) -> None:
        # The header of an answer stands at the end of the question, whether or not the answer is there.
        text = f"{system} "
        pieces.add([self._start_id])
        for turn in turns:
            if turn.role == "user":
                text += "USER: "
                for _ in range(turn.images):
                    pieces.add([*self._plain(text), *[IMAGE_TOKEN_ID] * image_tokens])
                    text = "\n"
                pieces.add(self._plain(f"{text}{turn.text} ASSISTANT:"))
            else:
                pieces.add([*self._plain(turn.text), self.end_id], supervised=True)
            text = ""


def _begins_with_a_space(tokenizer: Tokenizer) -> bool:
    """Whether every text that is encoded alone gets a space before it, as when control tokens cut a longer one."""
    told = json.loads(tokenizer.to_str())
    normalizer, pre = told.get("normalizer") or {}, told.get("pre_tokenizer") or {}
    steps = [normalizer, *normalizer.get("normalizers", ())]
    prepended = any(step.get("type") == "Prepend" for step in steps)
    return prepended or (pre.get("type") == "Metaspace" and pre.get("prepend_scheme") == "always")
