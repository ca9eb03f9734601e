"""Forms of the mixture that the toolchain has no setting for: they train and answer in torch, in this study alone.

The released code routes by the whole prompt and stores a top k that it never uses; so the exported graphs know neither
a router of the question alone nor a top k, and nothing here can be exported.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from parrot_benchmarks.paper.variants import Mixture


@contextmanager
def installed(mixture: Mixture, tokenizer: Path) -> Iterator[None]:
    """Inside, models are built with that mixture. ``tokenizer`` is the language model's tokenizer.json."""
    from parrot_train.model import modeling, moe

    if mixture == "as configured":
        yield
        return
    old_moe, old_embed = moe.TextGuidedMoE, modeling.ParrotModel.embed_prompt
    if mixture == "question":
        modeling.ParrotModel.embed_prompt = _asking(old_embed, tokenizer)
    else:
        moe.TextGuidedMoE = modeling.TextGuidedMoE = _sparse(old_moe, int(mixture.removeprefix("top ")))
    try:
        yield
    finally:
        moe.TextGuidedMoE = modeling.TextGuidedMoE = old_moe
        modeling.ParrotModel.embed_prompt = old_embed


def _sparse(base: type, kept: int) -> type:
    """``base`` with the ``kept`` largest of P, which then sum to 1; the others' experts are multiplied by zero."""
    import torch

    class SparseMoE(base):
        def route(self, *inputs: torch.Tensor) -> torch.Tensor:
            routing = super().route(*inputs)
            chosen = torch.zeros_like(routing).scatter(-1, routing.topk(kept, dim=-1).indices, 1.0)
            return routing * chosen / (routing * chosen).sum(dim=-1, keepdim=True)

    return SparseMoE


def _asking(embed_prompt, tokenizer: Path):
    """``ParrotModel.embed_prompt`` whose router reads what the user typed, of all turns as always, and nothing else."""
    from tokenizers import Tokenizer

    known = Tokenizer.from_file(str(tokenizer))
    start, end = (known.token_to_id(token) for token in ("<|im_start|>", "<|im_end|>"))
    # A question stands after an image's newline, or after the header where there is no image.
    header = known.encode("user\n", add_special_tokens=False).ids

    def embed(self, input_ids, attention_mask=None, pixel_values=None, image_features=None, prompt_mask=None):
        asked = question_mask(input_ids, start=start, end=end, header=header)
        asked = asked if prompt_mask is None else asked & prompt_mask.bool()
        return embed_prompt(self, input_ids, attention_mask, pixel_values, image_features, asked)

    return embed


def question_mask(input_ids, *, start: int, end: int, header: list[int]):
    """bool ``[B, T]``: the tokens of the users' turns between header and ``<|im_end|>``, of int64 ``[B, T]``.

    ``header`` are the tokens of ``user`` and a newline after ``<|im_start|>`` (``start``); ``end`` is ``<|im_end|>``.
    The newline after an image still counts: as text it is one token with what follows it in some tokenizers.
    """
    import torch

    opening = torch.tensor([start, *header], device=input_ids.device)
    mask = torch.zeros_like(input_ids, dtype=torch.bool)
    for row, ids in enumerate(input_ids):
        starts, ends = (ids == start).nonzero().flatten().tolist(), (ids == end).nonzero().flatten().tolist()
        for at in starts:
            if not _begins(ids[at:], opening):
                continue
            last = next((stop for stop in ends if stop > at), len(ids))
            mask[row, at + len(opening) : last] = True
    return mask & (input_ids >= 0)


def _begins(ids, opening) -> bool:
    return len(ids) >= len(opening) and bool((ids[: len(opening)] == opening).all())
