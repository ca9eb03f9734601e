"""Answers of a tiny bundle by its float64 numpy model, which recomputes the whole sequence for every token."""

import numpy as np
from tiny_bundle import DIMS, tiny_tokenizer

from parrot_runtime.image import ImageRecipe, preprocess, read_image
from parrot_runtime.prompt import PromptEncoder

QUESTION = "Görselde ne var?"


def greedy_answer(model, images, turns, steps):
    """Greedy tokens, and the routing, by the equations; the prompt's template is tested elsewhere."""
    encoded = PromptEncoder(tiny_tokenizer()).encode(turns, image_tokens=DIMS.image_tokens, generation=True)
    ids, table = encoded.input_ids, model["embed"]
    heard = table[ids[encoded.router_mask]]
    embeds = np.where((ids >= 0)[:, None], table[ids], 0.0)
    visual, routing = [], []
    for image in images:
        (features,) = model.encode(preprocess(read_image(image), ImageRecipe.clip(28))[None])
        mixed, shares = model.mix(features, heard) if model.dims.experts else (features, None)
        visual.append(mixed)
        routing.append(shares)
    if visual:
        embeds[ids < 0] = np.concatenate(visual)
    tokens = []
    for _ in range(steps):
        logits = model.logits(embeds)
        best = np.sort(logits)[-2:]
        # float32 moves these logits by 1e-5: with a wider lead than that, the tokens must be the same exactly.
        assert best[1] - best[0] > 1e-3, "the reference itself is undecided; choose another seed"
        tokens.append(int(logits.argmax()))
        embeds = np.concatenate([embeds, table[tokens[-1:]]])
    return tokens, routing
