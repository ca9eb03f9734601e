"""What each graph is fed of a sample: pictures, the words of its prompt, and the conversation with its answers."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from parrot_export.author import Authored
from parrot_export.checkpoint import Checkpoint
from parrot_export.conversations import Conversation
from parrot_export.emulation import empty_cache
from parrot_runtime.embedding import Embedding
from parrot_runtime.errors import InputError
from parrot_runtime.image import preprocess
from parrot_runtime.manifest import EMBEDDING_NAME
from parrot_runtime.templates import prompt_encoder
from parrot_runtime.tokenizer import load_tokenizer


@dataclass(frozen=True, eq=False)
class Encoded:
    """A sample in token ids, int64 ``[T]``, negative at image positions; ``words`` bool, what the router sees."""

    sample: Conversation
    ids: np.ndarray
    words: np.ndarray

    @property
    def chosen(self) -> np.ndarray:
        """Positions that stand for the sample: all of its text, and as many of the picture's, evenly apart.

        A picture has hundreds of positions that are alike in every language; a question has a few dozen that are not.
        """
        text, image = np.flatnonzero(self.ids >= 0), np.flatnonzero(self.ids < 0)
        if len(image) > len(text):
            image = image[np.linspace(0, len(image) - 1, len(text)).astype(np.int64)]
        return np.sort(np.concatenate([text, image]))


def encode_samples(
    checkpoint: Checkpoint,
    samples: Sequence[Conversation],
    longest: int,
    languages: Sequence[str],
    note: Callable[[str], None] = lambda _line: None,
) -> list[Encoded]:
    """The samples in tokens. ``note`` is told of those that take more than ``longest`` positions: they are left out.

    Raises InputError where none is left in one of ``languages``.
    """
    recipe = checkpoint.recipe
    prompts = prompt_encoder(load_tokenizer(checkpoint.tokenizer), recipe.prompt)
    encoded = []
    for sample in samples:
        system = recipe.prompt.system if sample.system is None else sample.system
        prompt = prompts.encode(sample.turns, image_tokens=checkpoint.architecture.vision.tokens, system=system)
        if len(prompt.input_ids) > longest:
            note(f"{sample.name} takes more than {longest} positions and is left out")
        else:
            encoded.append(Encoded(sample, prompt.input_ids, prompt.router_mask))
    lacking = [code for code in languages if not any(one.sample.language == code for one in encoded)]
    if lacking:
        raise InputError(
            f"no sample of {longest} positions or fewer is left in {', '.join(lacking)}; add shorter ones in every "
            "language"
        )
    return encoded


class Feeds:
    """The inputs of each role, for the graphs that ``authored`` says, written below ``folder``."""

    def __init__(self, checkpoint: Checkpoint, authored: Authored, folder: Path, encoded: Sequence[Encoded]) -> None:
        decoder = checkpoint.architecture.decoder
        self._encoded, self._image = encoded, checkpoint.recipe.image
        self._decoder = authored.graphs["decoder"]
        self._embedding = Embedding(folder / EMBEDDING_NAME, vocab_size=decoder.vocabulary, hidden_size=decoder.width)

    def encoder(self, number: int) -> dict[str, np.ndarray]:
        """``pixel_values`` of sample ``number``."""
        return {"pixel_values": preprocess(self._encoded[number].sample.image(), self._image)[None]}

    def experts(self, number: int, features: np.ndarray) -> dict[str, np.ndarray]:
        """Image features ``[1, P, C]`` and the words of the prompt."""
        one = self._encoded[number]
        text = self._embedding.gather(one.ids[one.words])[None]
        return {"image_features": features, "text_embeds": text, "text_mask": np.ones(text.shape[:2], np.bool_)}

    def decoder(self, number: int, visual: np.ndarray) -> dict[str, np.ndarray]:
        """The whole conversation at once, visual tokens ``[1, P, C]`` in the picture's place."""
        ids = self._encoded[number].ids
        embeds = np.empty((len(ids), visual.shape[-1]), np.float32)
        embeds[ids >= 0], embeds[ids < 0] = self._embedding.gather(ids[ids >= 0]), visual.reshape(-1, visual.shape[-1])
        places = np.arange(len(ids), dtype=np.int64)[None]
        controls = {"attention_mask": np.ones_like(places), "position_ids": places}
        return empty_cache(self._decoder) | {"inputs_embeds": embeds[None]} | controls

    def chosen(self, role: str) -> list[np.ndarray]:
        """Of each sample, the rows of ``role`` that stand for it."""
        if role == "decoder":
            return [one.chosen for one in self._encoded]
        return [np.arange(int((one.ids < 0).sum())) for one in self._encoded]
