"""From token and image stores to training batches: cutting, grouping by length, padding."""

from collections.abc import Callable, Iterator, Sequence
from itertools import islice
from pathlib import Path

import numpy as np
import torch
from torch.utils.data import BatchSampler, Dataset

from parrot_runtime.errors import InputError, ParrotError
from parrot_runtime.image import ImageRecipe, preprocess, read_image
from parrot_runtime.prompt import IMAGE_TOKEN_ID
from parrot_train.data.cache import ImageStore, TokenStore

IGNORED = -100
"""Label of a position that takes no part in the loss."""

# Batches are padded to whole steps of this length. Every new shape makes the CPU kernels compile and keep code for it:
# on nano's stage 2 (100 steps, Zen 4) steps of 1 took 43 s and 2.9 GB, 16: 37 s and 1.6 GB, 32: 37 s, 64: 41 s.
LENGTH_STEP = 16


class Samples:
    """Where each sample of a store ends once it is cut to ``max_length``.

    lengths ``int64[n]`` in tokens; images ``int64[n]`` wholly inside them (a cut through an image moves back to its
    start); supervised ``int64[n]`` answer tokens inside them.
    """

    def __init__(self, store: TokenStore, *, image_tokens: int, max_length: int) -> None:
        self.max_length = max_length
        whole = np.diff(store.offsets)
        self.lengths = np.minimum(whole, max_length)
        self.images = np.diff(store.image_offsets)
        for sample in np.flatnonzero(whole > max_length):
            start = store.offsets[sample]
            places = np.flatnonzero(store.tokens[start : start + max_length] == IMAGE_TOKEN_ID)
            self.images[sample] = len(places) // image_tokens
            if len(places) % image_tokens:
                self.lengths[sample] = places[self.images[sample] * image_tokens]
        before = np.concatenate([[0], np.cumsum(store.answers, dtype=np.int64)])
        self.supervised = before[store.offsets[:-1] + self.lengths] - before[store.offsets[:-1]]


class ImageChangedError(ParrotError):
    """An image that was readable before training and no longer is."""

    def __init__(self, message: str) -> None:
        # From a loading worker torch hands over the worker's whole traceback as the message; its last line is ours.
        super().__init__(
            message.strip().splitlines()[-1].removeprefix(f"{type(self).__module__}.{type(self).__name__}: ")
        )


class Conversations(Dataset):
    """The usable samples of one or more files; indexing with a list of numbers gives a padded batch.

    ``~number`` gives the sample without its labels, so that nothing is learnt from it.

    ``lengths``, ``supervised``, ``image_counts``, ``languages``: int64 ``[n]`` each, tokens, answer tokens, pictures,
    and numbers into ``language_codes``.

    A batch, T a multiple of 16: input_ids ``int64[B, T]`` (``pad_id`` after each end), labels ``int64[B, T]``
    (IGNORED but on answers), prompt_mask ``bool[B, T]`` (the text that guides the router), languages ``int64[B]``
    (into ``language_codes``), samples ``int64[B]``, pixel_values ``float32[N, 3, S, S]``. N may be 0: an empty batch
    of images still passes through encoder, projector and mixture, so every trained weight has a gradient and all
    ranks stay in step. No attention mask: padding stands last, where causal attention sees it from nothing that counts.
    """

    def __init__(self, *, recipe: ImageRecipe, pad_id: int, image_tokens: int, max_length: int) -> None:
        self.recipe = recipe
        self.pad_id = pad_id
        self.image_tokens = image_tokens
        self.max_length = max_length
        self.language_codes: list[str] = []
        self.lengths = np.zeros(0, np.int64)
        self.supervised = np.zeros(0, np.int64)
        self.languages = np.zeros(0, np.int64)
        self._part = np.zeros(0, np.int64)
        self._sample = np.zeros(0, np.int64)
        self.image_counts = np.zeros(0, np.int64)
        self._stores: list[tuple[TokenStore, ImageStore]] = []
        self._mean, self._std = (
            torch.tensor(value, dtype=torch.float64).view(1, 3, 1, 1) for value in (recipe.mean, recipe.std)
        )

    def add(self, store: TokenStore, images: ImageStore, samples: Samples, usable: np.ndarray) -> None:
        """Append the samples of ``store`` where ``usable`` ``bool[n]`` is True."""
        kept = np.flatnonzero(usable)
        self.language_codes += [code for code in store.language_codes if code not in self.language_codes]
        into = np.array([self.language_codes.index(code) for code in store.language_codes], np.int64)
        for name, values in (
            ("lengths", samples.lengths[kept]),
            ("supervised", samples.supervised[kept]),
            ("languages", into[store.languages[kept]]),
            ("image_counts", samples.images[kept]),
            ("_part", np.full(len(kept), len(self._stores))),
            ("_sample", kept),
        ):
            setattr(self, name, np.concatenate([getattr(self, name), values]))
        self._stores.append((store, images))

    def __len__(self) -> int:
        return len(self._sample)

    def describe(self, sample: int) -> str:
        """Where a sample comes from, for messages: ``file[row]``."""
        path, row = self.origin(sample)
        return f"{path}[{row}]"

    def origin(self, sample: int) -> tuple[Path, int]:
        """The file that a sample comes from, and the number of its record there."""
        store, _ = self._stores[self._part[sample]]
        return store.file, int(store.rows[self._sample[sample]])

    def answer_starts(self, sample: int) -> list[int]:
        """The positions in a sample where an answer begins, those of whole and of cut answers."""
        answers = self._within("answers", sample)
        return np.flatnonzero(answers & ~np.concatenate([[False], answers[:-1]])).tolist()

    def token(self, sample: int, position: int) -> int:
        """The token at a position of a sample."""
        return int(self._within("tokens", sample)[position])

    def _within(self, name: str, sample: int) -> np.ndarray:
        store, _ = self._stores[self._part[sample]]
        start = store.offsets[self._sample[sample]]
        return getattr(store, name)[start : start + self.lengths[sample]]

    def __getitems__(self, numbers: Sequence[int]) -> dict[str, torch.Tensor]:
        numbers = np.asarray(numbers)
        unlabelled = numbers < 0
        numbers = np.where(unlabelled, ~numbers, numbers)
        lengths = self.lengths[numbers]
        inside = np.arange(-(-int(lengths.max()) // LENGTH_STEP) * LENGTH_STEP) < lengths[:, None]
        tokens, answers, images = [], [], []
        for number, length in zip(numbers, lengths, strict=True):
            part, sample = self._part[number], self._sample[number]
            store = self._stores[part][0]
            start = store.offsets[sample]
            tokens.append(store.tokens[start : start + length])
            answers.append(store.answers[start : start + length])
            first = store.image_offsets[sample]
            images += [(part, row) for row in store.image_rows[first : first + self.image_counts[number]]]
        input_ids = np.full(inside.shape, self.pad_id, np.int64)
        labels = np.full(inside.shape, IGNORED, np.int64)
        flat = np.concatenate(tokens)
        input_ids[inside] = flat
        labels[inside] = np.where(np.concatenate(answers), flat, IGNORED)
        prompt_mask = inside & (input_ids >= 0) & (labels == IGNORED)
        labels[unlabelled] = IGNORED
        return {
            "input_ids": torch.from_numpy(input_ids),
            "labels": torch.from_numpy(labels),
            "prompt_mask": torch.from_numpy(prompt_mask),
            "languages": torch.from_numpy(self.languages[numbers]),
            "samples": torch.from_numpy(numbers),
            "pixel_values": self._pixels(images),
        }

    def _pixels(self, images: list[tuple[int, int]]) -> torch.Tensor:
        if not images:
            return torch.empty(0, 3, self.recipe.size, self.recipe.size)
        if self._stores[0][1].pixels is None:
            return torch.from_numpy(np.stack([self._decode(self._stores[part][1], row) for part, row in images]))
        pixels = np.stack([self._stores[part][1].pixels[row] for part, row in images])
        # The operations of the runtime's preprocess, in its order and in its float64: bit-equal to it.
        return torch.from_numpy(pixels).double().div_(255.0).sub_(self._mean).div_(self._std).float()

    def _decode(self, images: ImageStore, row: int) -> np.ndarray:
        try:
            return preprocess(read_image(images.paths[row], max_pixels=images.max_pixels), self.recipe)
        except InputError as error:
            raise ImageChangedError(f"{error}; the file was readable when training started") from error


def as_batch(batch: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """The collate function: ``Conversations`` has padded already."""
    return batch


class LengthBatches(BatchSampler):
    """Batches of samples of like length, in an order that only ``seed`` and the epoch decide.

    Samples are shuffled, sorted by length within windows of 64 batches, and the batches shuffled again; a last, smaller
    batch stays last. ``epoch`` is asked at the start of every pass, so a resumed run finds its place by itself.
    """

    WINDOW = 64

    def __init__(self, lengths: np.ndarray, batch_size: int, *, seed: int, epoch: Callable[[], int]) -> None:
        self.lengths, self.batch_size, self.drop_last = lengths, batch_size, False
        self._seed, self._epoch = seed, epoch

    def __len__(self) -> int:
        return -(-len(self.lengths) // self.batch_size)

    def __iter__(self) -> Iterator[list[int]]:
        random = np.random.default_rng([self._seed, self._epoch()])
        order = random.permutation(len(self.lengths))
        window = self.batch_size * self.WINDOW
        whole = len(order) // self.batch_size * self.batch_size
        rest, order = order[whole:], order[:whole]
        parts = [order[start : start + window] for start in range(0, whole, window)]
        order = np.concatenate([part[np.argsort(self.lengths[part], kind="stable")] for part in parts] or [order])
        batches = order.reshape(-1, self.batch_size)
        for batch in random.permutation(len(batches)):
            yield batches[batch].tolist()
        if len(rest):
            yield rest.tolist()


class OrderedBatches(BatchSampler):
    """Batches of ``numbers`` in the order in which they are given."""

    def __init__(self, numbers: np.ndarray, batch_size: int) -> None:
        self.numbers, self.batch_size, self.drop_last = numbers, batch_size, False

    def __len__(self) -> int:
        return -(-len(self.numbers) // self.batch_size)

    def __iter__(self) -> Iterator[list[int]]:
        for start in range(0, len(self.numbers), self.batch_size):
            yield self.numbers[start : start + self.batch_size].tolist()


class RankBatches(BatchSampler):
    """One rank's share of ``batches``: every ``ranks``-th from the ``rank``-th on.

    A step's batches over all ranks are then those that one rank would take in as many micro-batches. Where the last
    round has too few, the other ranks take a sample of it without its labels: all stay in step, and none counts twice.
    """

    def __init__(self, batches: LengthBatches | OrderedBatches, rank: int, ranks: int) -> None:
        self.batches, self.rank, self.ranks = batches, rank, ranks
        self.batch_size, self.drop_last = batches.batch_size, batches.drop_last

    def __len__(self) -> int:
        return -(-len(self.batches) // self.ranks)

    def __iter__(self) -> Iterator[list[int]]:
        batches = iter(self.batches)
        while round_ := list(islice(batches, self.ranks)):
            yield round_[self.rank] if self.rank < len(round_) else [~round_[0][0]]
