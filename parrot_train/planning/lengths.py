"""How long a stage's samples are: measured in its files, or assumed for those of the paper's Table 3."""

from dataclasses import dataclass
from pathlib import Path

import numpy as np

from parrot_runtime.errors import InputError
from parrot_train.config import NANO, TrainConfig

# Table 3 of the paper, as the shipped configurations name its files.
TABLE_3 = {
    "llava-1.5-pretrain.json": 558_000,
    "laion-caption.json": 12_000,
    "cc12m-caption.json": 645_000,
    "llava-1.5-finetune.json": 665_000,
    "sharegpt4v-zh.json": 71_000,
    "sharegpt4v-pt.json": 14_000,
    "sharegpt4v-ar.json": 12_000,
    "sharegpt4v-tr.json": 17_000,
    "sharegpt4v-ru.json": 14_000,
}


@dataclass(frozen=True)
class Assumption:
    """Tokens of text beside the image in a sample, and how many of them are answers: guesses, not measurements."""

    text: int
    answers: int
    longest_text: int | None

    def describe(self, longest: int) -> str:
        """In words, for a plan."""
        return f"{self.text} tokens of text in a sample, {self.answers} of them answers, and {longest} in the longest"


# A caption and a request for it; conversations of several turns, of which the longest fill data.max_length.
ASSUMED = {1: Assumption(60, 20, 256), 2: Assumption(300, 150, None)}
_TEMPLATE = 30


@dataclass(frozen=True)
class Batch:
    """One micro batch on one device, padded to ``length`` positions per row; answer tokens over all rows."""

    rows: int
    length: int
    images: int
    answers: int


@dataclass(frozen=True)
class Totals:
    """Sums over the micro batches of one pass, padding included.

    ``squares`` is the sum of rows times length², ``router_words`` that of images times length.
    """

    rows: int
    tokens: int
    squares: int
    images: int
    answers: int
    router_words: int


@dataclass(frozen=True)
class Lengths:
    """int64 ``[n]`` each: tokens (image positions included), images, answer tokens of a stage's samples.

    ``longest`` is an assumed longest sample (tokens, images, answers); measured ones know theirs. ``source`` says where
    the numbers come from.
    """

    tokens: np.ndarray
    images: np.ndarray
    answers: np.ndarray
    source: str
    longest: tuple[int, int, int] | None = None

    def __len__(self) -> int:
        return len(self.tokens)

    def totals(self, micro_batch: int, seed: int) -> Totals:
        """Over the micro batches that training makes of these samples in its first pass (``LengthBatches``)."""
        rows, lengths, images, answers = self._batches(micro_batch, seed)
        return Totals(
            rows=int(rows.sum()),
            tokens=int((rows * lengths).sum()),
            squares=int((rows * lengths**2).sum()),
            images=int(images.sum()),
            answers=int(answers.sum()),
            router_words=int((images * lengths).sum()),
        )

    def largest(self, micro_batch: int, seed: int) -> Batch:
        """What memory has to hold: of every number the largest of any micro batch, so that none needs more."""
        if self.longest is None:
            return Batch(*(int(part.max()) for part in self._batches(micro_batch, seed)))
        return Batch(micro_batch, self.longest[0], *(micro_batch * number for number in self.longest[1:]))

    def _batches(self, micro_batch: int, seed: int) -> tuple[np.ndarray, ...]:
        """Rows, padded length, images and answers of each micro batch: int64 ``[batches]``."""
        from parrot_train.data.collator import LENGTH_STEP, LengthBatches

        order = list(LengthBatches(self.tokens, micro_batch, seed=seed, epoch=lambda: 0))
        rows = np.array([len(batch) for batch in order])
        flat, starts = np.concatenate(order), np.cumsum(rows) - rows
        lengths = -(-np.maximum.reduceat(self.tokens[flat], starts) // LENGTH_STEP) * LENGTH_STEP
        return rows, lengths, *(np.add.reduceat(part[flat], starts) for part in (self.images, self.answers))


def stage_lengths(config: TrainConfig, stage: int, image_tokens: int, data: tuple[str, ...] = ()) -> Lengths:
    """Of ``data``, else of the configured files where all are here, else assumed for those of Table 3.

    Raises InputError for files that are neither, or cannot be measured.
    """
    names = data or config.files(stage)
    paths = [Path(config.data.nano_folder) / f"stage{stage}.json" if name == NANO else Path(name) for name in names]
    missing = [path for path in paths if not path.is_file()]
    if not missing:
        return _measured(config, paths, image_tokens)
    if data or any(path.name not in TABLE_3 for path in missing):
        hint = "draw it with `parrot-train nano data`, or give" if NANO in names else "give"
        raise InputError(
            f"{', '.join(map(str, missing))}: not here to be measured, and not of the paper's Table 3 to be assumed; "
            f"{hint} another with --stage {stage} --data FILE"
        )
    return _assumed(config, stage, paths, image_tokens)


def _measured(config: TrainConfig, paths: list[Path], image_tokens: int) -> Lengths:
    from parrot_train.backbones import backbone_folder
    from parrot_train.data.cache import token_store
    from parrot_train.data.collator import Samples
    from parrot_train.data.prepare import worker_count

    tokenizer = backbone_folder(config.backbones.llm, "llm") / "tokenizer.json"
    if not tokenizer.is_file():
        raise InputError(
            f"{tokenizer}: there is no such file; lengths are measured with the language model's tokenizer"
        )
    found = []
    for path in paths:
        store = token_store(
            path,
            tokenizer,
            image_tokens=image_tokens,
            workers=worker_count(config.data),
            fallback=Path("runs") / config.name,
        )
        found.append(Samples(store, image_tokens=image_tokens, max_length=config.data.max_length))
    tokens, images, answers = (
        np.concatenate([getattr(samples, name) for samples in found]) for name in ("lengths", "images", "supervised")
    )
    if not len(tokens):
        raise InputError(f"{', '.join(map(str, paths))}: no record of them can be used; there is nothing to plan")
    return Lengths(tokens, images, answers, f"measured in {', '.join(map(str, paths))}")


def _assumed(config: TrainConfig, stage: int, paths: list[Path], image_tokens: int) -> Lengths:
    assumed, samples = ASSUMED[stage], sum(TABLE_3[path.name] for path in paths)
    longest_text = max(_TEMPLATE + 1, config.data.max_length - image_tokens)
    if assumed.longest_text is not None:
        longest_text = min(longest_text, assumed.longest_text)
    text = min(assumed.text, longest_text)
    ones = np.ones(samples, np.int64)
    return Lengths(
        (image_tokens + text) * ones,
        ones,
        min(assumed.answers, text) * ones,
        f"the counts of Table 3, and assumed: {assumed.describe(longest_text)}, an image in every one",
        (image_tokens + longest_text, 1, longest_text - _TEMPLATE),
    )
