"""From a conversation and its pictures to the embeddings the decoder reads."""

from collections.abc import Sequence

import numpy as np

from parrot_runtime.backends.base import Backend
from parrot_runtime.cache import FeatureCache, Picture
from parrot_runtime.embedding import Embedding
from parrot_runtime.errors import BundleError, InputError, TextError
from parrot_runtime.generation import Request
from parrot_runtime.manifest import Manifest
from parrot_runtime.prompt import EncodedPrompt, TemplateEncoder, Turn
from parrot_runtime.sampling import Sampler, Sampling
from parrot_runtime.stats import Stats


class Composer:
    """Encodes prompts, looks pictures up or runs the vision encoder, routes them through the experts.

    ``max_len`` is the longest sequence, prompt and answer together.
    """

    def __init__(
        self, manifest: Manifest, prompts: TemplateEncoder, embedding: Embedding, backend: Backend, max_len: int
    ) -> None:
        self._manifest = manifest
        self._prompts = prompts
        self._embedding = embedding
        self._backend = backend
        self._max_len = max_len
        self._features = FeatureCache()

    def request(
        self, pictures: Sequence[Picture], turns: Sequence[Turn], sampling: Sampling, max_new_tokens: int, stats: Stats
    ) -> Request:
        """The request for the next answer of ``turns``; ``pictures`` are those of all turns in their order.

        The cheap checks come first: nothing is computed for text that is too long. Raises TextError, InputError.
        """
        if max_new_tokens < 1:
            raise InputError(f"max_new_tokens is {max_new_tokens}; expected 1 or more")
        with stats.timed("experts"):
            encoded = self._encode(turns)
        features = self._look(pictures, stats)
        with stats.timed("experts"):
            visual_tokens, routing = self._route(features, encoded)
            inputs_embeds = self._assemble(encoded, visual_tokens)
        stats.prompt_tokens = len(encoded.input_ids)
        stats.image_tokens = len(pictures) * self._manifest.model.image_tokens
        limit = min(max_new_tokens, self._max_len - len(inputs_embeds))
        return Request(inputs_embeds, routing, Sampler(sampling), limit, stats)

    def _encode(self, turns: Sequence[Turn]) -> EncodedPrompt:
        dims, system = self._manifest.model, self._manifest.prompt.system
        encoded = self._prompts.encode(turns, image_tokens=dims.image_tokens, system=system, generation=True)
        # One position must be left for an answer.
        longest = self._max_len - 1
        if len(encoded.input_ids) > longest:
            raise TextError(
                f"the question is too long: with its pictures and the prompt around it, it takes "
                f"{len(encoded.input_ids):,} tokens, this bundle has room for {longest:,}; shorten it"
            )
        return encoded

    def _look(self, pictures: Sequence[Picture], stats: Stats) -> np.ndarray | None:
        """Features of all pictures, ``[n, P, C]``."""
        if not pictures:
            return None
        with stats.timed("image"):
            found = [self._features.get(picture, self._backend.encode_images) for picture in pictures]
        features = np.stack([feature for feature, _ in found])
        stats.cached_images = sum(known for _, known in found)
        dims = self._manifest.model
        if features.shape[1:] != (dims.image_tokens, dims.hidden_size):
            raise BundleError(
                f"the vision encoder gave {features.shape[1:]} per picture, the manifest says "
                f"({dims.image_tokens}, {dims.hidden_size}); export the bundle again"
            )
        return features

    def _route(
        self, features: np.ndarray | None, encoded: EncodedPrompt
    ) -> tuple[np.ndarray | None, np.ndarray | None]:
        """Visual tokens ``[n, P, C]`` and routing ``[n, experts]``; each picture is routed by all the prompt's text."""
        if features is None or not self._manifest.model.experts:
            return features, None
        text = self._embedding.gather(encoded.input_ids[encoded.router_mask], self._backend.embeds_dtype)
        text_embeds = np.broadcast_to(text, (len(features), *text.shape))
        return self._backend.route(features, text_embeds, np.ones(text_embeds.shape[:2], np.bool_))

    def _assemble(self, encoded: EncodedPrompt, visual_tokens: np.ndarray | None) -> np.ndarray:
        """Word embeddings ``[T, C]`` with the visual tokens in their places."""
        is_text = encoded.input_ids >= 0
        words = self._embedding.gather(encoded.input_ids[is_text], self._backend.embeds_dtype)
        if visual_tokens is None:
            return words
        inputs_embeds = np.empty((len(is_text), words.shape[1]), words.dtype)
        inputs_embeds[is_text] = words
        inputs_embeds[~is_text] = visual_tokens.reshape(-1, words.shape[1])
        return inputs_embeds
