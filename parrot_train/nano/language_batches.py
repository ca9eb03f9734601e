"""Conversations as batches of tokens, padded to few shapes, with a weight on everything that is predicted."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import islice

import numpy as np
import torch
from tokenizers import Tokenizer

from parrot_runtime.prompt import PromptEncoder
from parrot_train.nano.text import Mix, documents
from parrot_train.workers import map_chunks, seeded_parts

# Scenes at random cannot be foreseen, so what is read rather than answered teaches little per token: few of those are
# predicted, at a fraction of the weight, which also spares most of the output projection.
CONTEXT_WEIGHT = 0.3
# Rows per batch are padded to steps of 16, predicted positions filled up to steps of 256: for every new shape the CPU
# kernels are compiled anew, and kept.
LENGTH_STEP, PREDICTED_STEP = 16, 256

# int16 ids and bool supervised, ``[T]`` each.
Encoded = tuple[np.ndarray, np.ndarray]


# Conversations per seed, and so per process at a time.
PART = 2_000


def _encode_parts(parts: Sequence[tuple[str, int]], tokenizer_json: str, mix: Mix) -> list[Encoded]:
    encoder = PromptEncoder(Tokenizer.from_str(tokenizer_json))
    turns = (each for seed, count in parts for each in islice(documents(mix, seed=seed), count))
    encoded = (encoder.encode(conversation, image_tokens=0) for conversation in turns)
    return [(each.input_ids.astype(np.int16), each.labels_mask) for each in encoded]


def encode_documents(mix: Mix, count: int, tokenizer: Tokenizer, *, seed: int | str, workers: int) -> list[Encoded]:
    """``count`` conversations; the same for any number of workers."""
    parts, arguments = seeded_parts(seed, count, PART), (tokenizer.to_str(), mix)
    chunks = map_chunks(_encode_parts, parts, arguments, workers=workers, size=1)
    return [document for encoded in chunks for document in encoded]


def answer_weights(supervised: np.ndarray, power: float) -> np.ndarray:
    """float32 ``[T]``: 0 outside answers, ``n ** power`` on each token of an answer of n tokens.

    A retelling has a hundred tokens, an option's letter one: at -0.5 it weighs ten times as much in all, not a hundred.
    """
    edges = np.flatnonzero(np.diff(supervised.astype(np.int8), prepend=0, append=0)).reshape(-1, 2)
    weights = np.zeros(len(supervised), np.float32)
    for start, stop in edges:
        weights[start:stop] = float(stop - start) ** power
    return weights


@dataclass(frozen=True)
class Batch:
    """Conversations padded to one length, and the positions of them that are predicted.

    Attributes:
        ids: int64 ``[B, T]``.
        mask: bool ``[B, T]``, False on padding.
        predicted: int64 ``[P]``, positions in the flattened ids whose token is predicted.
        weights: float32 ``[P]``, of their losses.
        answers: bool ``[P]``, False for tokens of the context.
    """

    ids: torch.Tensor
    mask: torch.Tensor
    predicted: torch.Tensor
    weights: torch.Tensor
    answers: torch.Tensor


def collate(
    rows: list[Encoded], pad_id: int, random_: np.random.Generator, *, power: float = 0.0, context: bool = True
) -> Batch:
    """One batch of encoded conversations; what is predicted beside the answers is drawn from ``random_``.

    ``power`` is that of ``answer_weights``. Without ``context`` those other tokens are predicted at weight 0, for the
    shape alone.
    """
    length = -(-max(len(ids) for ids, _ in rows) // LENGTH_STEP) * LENGTH_STEP
    ids = np.full((len(rows), length), pad_id, np.int64)
    mask = np.zeros((len(rows), length), np.bool_)
    weights = np.zeros((len(rows), length), np.float32)
    for row, (tokens, supervised) in enumerate(rows):
        ids[row, : len(tokens)] = tokens
        mask[row, : len(tokens)] = True
        weights[row, : len(tokens)] = answer_weights(supervised, power)
    answers = np.flatnonzero(weights)
    first = np.arange(ids.size) % length == 0
    others = random_.permutation(np.flatnonzero(mask.reshape(-1) & ~first & (weights.reshape(-1) == 0)))
    wanted = -(-(len(answers) + 1) // PREDICTED_STEP) * PREDICTED_STEP - len(answers)
    predicted = np.concatenate([answers, others[:wanted]])
    chosen = weights.reshape(-1)[predicted]
    chosen[len(answers) :] = CONTEXT_WEIGHT if context else 0.0
    return Batch(*map(torch.from_numpy, (ids, mask, predicted, chosen, np.arange(len(predicted)) < len(answers))))


def batches(encoded: list[Encoded], size: int, pad_id: int, *, seed: int, power: float) -> Iterator[Batch]:
    """Endless batches of ``size`` conversations of similar length; ``power`` is that of ``answer_weights``."""
    random_ = np.random.default_rng(seed)
    while True:
        order = random_.permutation(len(encoded))
        chunk = min(size * 32, len(order))
        for start in range(0, len(order) - chunk + 1, chunk):
            group = sorted(order[start : start + chunk], key=lambda i: len(encoded[i][0]))
            for first in random_.permutation(len(group) // size) * size:
                yield collate([encoded[i] for i in group[first : first + size]], pad_id, random_, power=power)
