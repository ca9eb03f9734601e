"""From a conversation and its pictures to the embeddings the decoder reads."""

from collections.abc import Sequence

import numpy as np

from parrot_runtime.backends.base import Backend
from parrot_runtime.cache import FeatureCache, Picture
from parrot_runtime.embedding import Embedding
from parrot_runtime.errors import BundleError, InputError, TextError
from parrot_runtime.generation import Chooser, Request
from parrot_runtime.lookup import Lookup
from parrot_runtime.manifest import Manifest
from parrot_runtime.names import Reroute
from parrot_runtime.prompt import EncodedPrompt, TemplateEncoder, Turn
from parrot_runtime.stats import Stats


class Routed:
    """What the pictures of a conversation were routed to, kept from turn to turn.

    Visual tokens stand before the question but depend on it through the router, so new ones make all of the prompt
    behind them new as well. ``rule``: ``always`` takes each turn's own, exactly as in training; ``auto`` keeps those of
    the turns before while no expert's share moves by more than ``TOLERANCE``, as it does when the language changes;
    ``never`` keeps the first turn's, and does not run the experts again.
    """

    TOLERANCE = 0.02

    def __init__(self, rule: Reroute = "auto") -> None:
        self.rule = rule
        self.visual_tokens: np.ndarray | None = None
        self.routing: np.ndarray | None = None

    @property
    def settled(self) -> bool:
        """Whether the experts need not be run at all."""
        return self.rule == "never" and self.visual_tokens is not None

    def update(self, visual_tokens: np.ndarray, routing: np.ndarray) -> None:
        """Take a turn's own, or stay as it is."""
        near = self.routing is not None and np.abs(self.routing - routing).max() <= self.TOLERANCE
        if not (self.rule == "auto" and near):
            self.visual_tokens, self.routing = visual_tokens, routing


class Composer:
    """Encodes prompts, looks pictures up or runs the vision encoder, routes them through the experts.

    ``max_len`` is the longest sequence, prompt and answer together; ``lookup`` whether answers may draft tokens.
    """

    def __init__(
        self,
        manifest: Manifest,
        prompts: TemplateEncoder,
        embedding: Embedding,
        backend: Backend,
        max_len: int,
        *,
        lookup: bool,
    ) -> None:
        self._manifest = manifest
        self._prompts = prompts
        self._embedding = embedding
        self._backend = backend
        self._max_len = max_len
        self._lookup = lookup and backend.extends
        self._features = FeatureCache()

    def request(
        self,
        pictures: Sequence[Picture],
        turns: Sequence[Turn],
        choose: Chooser,
        max_new_tokens: int,
        stats: Stats,
        routed: Routed,
    ) -> Request:
        """The request for the next answer of ``turns``; ``pictures`` are those of all turns in their order.

        ``choose`` picks its tokens; ``routed`` is what the conversation keeps. The cheap checks come first: nothing is
        computed for text that is too long. Raises TextError, InputError.
        """
        if max_new_tokens < 1:
            raise InputError(f"max_new_tokens is {max_new_tokens}; expected 1 or more")
        with stats.timed("experts"):
            encoded = self.encode(turns)
        features = self.look(pictures, stats)
        with stats.timed("experts"):
            self._route(features, encoded, routed)
            inputs_embeds = self._assemble(encoded, routed.visual_tokens)
        stats.prompt_tokens = len(encoded.input_ids)
        stats.image_tokens = len(pictures) * self._manifest.model.image_tokens
        limit = min(max_new_tokens, self._max_len - len(inputs_embeds))
        lookup = Lookup(encoded.input_ids) if self._lookup and limit > 1 else None
        return Request(inputs_embeds, routed.routing, choose, limit, stats, lookup)

    def words(self, encoded: EncodedPrompt) -> np.ndarray:
        """T of Eq. 2: the embeddings ``[T, C]`` of the prompt's text."""
        return self._embedding.gather(encoded.input_ids[encoded.router_mask], self._backend.embeds_dtype)

    def encode(self, turns: Sequence[Turn]) -> EncodedPrompt:
        """The prompt of ``turns``. Raises TextError for one that leaves no room for an answer."""
        dims, system = self._manifest.model, self._manifest.prompt.system
        encoded = self._prompts.encode(turns, image_tokens=dims.image_tokens, system=system, generation=True)
        # One position must be left for an answer.
        longest = self._max_len - 1
        if len(encoded.input_ids) > longest and len(turns) > 1:
            raise TextError(
                f"the conversation is full: with this question it takes {len(encoded.input_ids):,} tokens, this bundle "
                f"has room for {longest:,}; begin a new one (/reset in parrot-run -i)"
            )
        if len(encoded.input_ids) > longest:
            raise TextError(
                f"the question is too long: with its pictures and the prompt around it, it takes "
                f"{len(encoded.input_ids):,} tokens, this bundle has room for {longest:,}; shorten it"
            )
        return encoded

    def look(self, pictures: Sequence[Picture], stats: Stats) -> np.ndarray | None:
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

    def _route(self, features: np.ndarray | None, encoded: EncodedPrompt, routed: Routed) -> None:
        """Visual tokens ``[n, P, C]`` and routing ``[n, experts]``; each picture is routed by all the prompt's text."""
        if features is None or routed.settled:
            return
        if not self._manifest.model.experts:
            routed.visual_tokens = features
            return
        text = self.words(encoded)
        text_embeds = np.broadcast_to(text, (len(features), *text.shape))
        routed.update(*self._backend.route(features, text_embeds, np.ones(text_embeds.shape[:2], np.bool_)))

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
