"""Why an answer is what it is: which words drew the router, where that sent the picture, and what each expert adds.

The words' shares are the attention of Eq. 2 of the paper, softmax(q · Tᵀ / √C), computed anew from what the graphs get.
That these shares are the graph's own is checked: their mean of the words, given to the experts' graph as its only word
(whose attention is 1), has to be routed as the whole prompt was.

The same trick steers the graph. Given a single word t it routes by softmax(W_r t), so a few words of random numbers
show what W_r does to them, and a sum of these goes to one expert alone. Visual tokens are affine in the routing
(Eq. 4 and 5), so those of the experts one by one give those of any routing, and with them the answer that the model
would give without an expert, the others sharing out its part.
"""

from __future__ import annotations

import math
import unicodedata
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np

from parrot_runtime.composer import Composer, Routed
from parrot_runtime.errors import InputError, ParrotError
from parrot_runtime.stats import Stats
from parrot_runtime.tokenizer import Detokenizer

if TYPE_CHECKING:
    from tokenizers import Tokenizer

    from parrot_runtime.backends.base import Backend
    from parrot_runtime.cache import Picture
    from parrot_runtime.prompt import Turn
    from parrot_runtime.sampling import Sampling

# How far a share may be from the graph's own: float32 leaves 1e-6, int8 products and float16 engines more.
_NEAR = 0.01
# A sum of random words that goes to one expert gives it this many times e more than the others.
_ALONE = 16.0
_SPARE_PROBES = 2


@dataclass(frozen=True)
class Word:
    """A word of the question, and its share of the router's attention in 0..1."""

    text: str
    share: float


@dataclass(frozen=True)
class Attention:
    """What one picture's router looks at: the question's words in their order, and the rest of the prompt (the system's
    text and the marks of the roles); all shares sum to 1."""

    words: tuple[Word, ...]
    rest: float


@dataclass(frozen=True)
class Expert:
    """What one expert does: ``shares`` per picture in 0..1; without it, how far the visual tokens move (root mean
    square, as a share of their own), and what the answer would be."""

    shares: tuple[float, ...]
    change: float
    answer_without: str


@dataclass(frozen=True)
class Explanation:
    """``attention`` per picture; ``experts`` in their order."""

    attention: tuple[Attention, ...]
    experts: tuple[Expert, ...]


class Router:
    """The experts' graph of ``backend``, asked about itself; its pictures have ``image_tokens`` positions."""

    def __init__(self, backend: Backend, image_tokens: int) -> None:
        self._backend = backend
        # What asks the words is the class token, or the mean of the patches of a model without. One of the positions is
        # the class token if all but one are a square: no n² is m² + 1.
        self._class_token = math.isqrt(image_tokens - 1) ** 2 == image_tokens - 1
        self._alone: np.ndarray | None = None

    def attention(self, features: np.ndarray, text: np.ndarray, routing: np.ndarray) -> np.ndarray:
        """Eq. 2: pictures ``[n, P, C]`` and words ``[T, C]`` to shares float64 ``[n, T]``. Raises ParrotError when they
        do not lead to the graph's own ``routing`` ``[n, experts]`` of these."""
        words = text.astype(np.float64)
        query = features[:, 0] if self._class_token else features.mean(axis=1, dtype=np.float64)
        scores = query.astype(np.float64) @ words.T / math.sqrt(words.shape[1])
        attention = np.exp(scores - scores.max(axis=1, keepdims=True))
        attention /= attention.sum(axis=1, keepdims=True)
        for picture, shares, own in zip(features, attention, routing, strict=True):
            off = np.abs(own - self.route(picture, (shares @ words)[None])[1]).max()
            if off > _NEAR:
                raise ParrotError(
                    f"the words' shares would route the picture otherwise than the bundle does (by {off:.3f}); its "
                    "experts' graph is not that of the paper's Eq. 2, so there is nothing to explain it by"
                )
        return attention

    def route(self, picture: np.ndarray, text: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """One picture ``[P, C]`` and words ``[T, C]`` to visual tokens ``[P, C]`` and shares ``[experts]``."""
        text = text.astype(self._backend.embeds_dtype)[None]
        visual, routing = self._backend.route(picture[None], text, np.ones(text.shape[:2], np.bool_))
        return visual[0], routing[0].astype(np.float64)

    def one_by_one(self, picture: np.ndarray, experts: int) -> np.ndarray:
        """The visual tokens ``[experts, P, C]`` of one picture with each expert alone. Raises ParrotError."""
        if self._alone is None:
            self._alone = self._words_to_one(picture, experts)
        found = []
        for expert, word in enumerate(self._alone):
            visual, routing = self.route(picture, word[None])
            if routing[expert] < 1 - _NEAR:
                raise ParrotError(
                    f"expert {expert + 1} could not be had alone: it got {routing[expert]:.1%} of the picture; the "
                    "router's rows are too much alike, so what each expert changes cannot be told apart"
                )
            found.append(visual.astype(np.float64))
        return np.stack(found)

    def _words_to_one(self, picture: np.ndarray, experts: int) -> np.ndarray:
        """For each expert a word ``[C]`` that goes to it alone: ``[experts, C]``."""
        width = picture.shape[1]
        probes = np.random.default_rng(0).standard_normal((experts + _SPARE_PROBES, width))
        shares = np.stack([self.route(picture, probe[None])[1] for probe in probes])
        # W_r · probe, but for a number that all experts have in common: softmax does not show it.
        logits = np.log(np.maximum(shares, np.finfo(np.float32).tiny))
        logits -= logits.mean(axis=1, keepdims=True)
        wanted = _ALONE * (np.eye(experts) - 1 / experts)
        return np.linalg.lstsq(logits.T, wanted, rcond=None)[0].T @ probes


def check_explainable(pictures: int, experts: int, sampling: Sampling) -> None:
    """Raise InputError for a question of so many pictures to a model of so many experts without anything to explain."""
    if experts < 2:
        raise InputError(
            f"the bundle has {('no experts', 'one expert')[experts]}, so there is nothing to route; explain the answer "
            "of one that has several"
        )
    if not pictures:
        raise InputError("only pictures are routed, and none was given; give one, or ask without an explanation")
    if sampling.temperature > 0:
        raise InputError(
            f"an answer of temperature {sampling.temperature:g} differs by chance, so what an expert changes cannot be "
            "told; explain it with temperature 0"
        )


def without(shares: np.ndarray, alone: np.ndarray, expert: int) -> tuple[np.ndarray, np.ndarray]:
    """The visual tokens ``[P, C]`` and shares ``[experts]`` of one picture if there were no ``expert``.

    ``shares`` ``[experts]`` are its routing and ``alone`` ``[experts, P, C]`` what each expert makes of it. The others
    share out the part of ``expert`` in their proportion; where nothing goes to them, equally.
    """
    rest = np.where(np.arange(len(shares)) == expert, 0.0, np.maximum(shares, np.finfo(np.float32).tiny))
    rest /= rest.sum()
    return np.einsum("e,epc->pc", rest, alone), rest


def explain(
    backend: Backend,
    tokenizer: Tokenizer,
    composer: Composer,
    pictures: Sequence[Picture],
    turns: Sequence[Turn],
    answer: Callable[[Routed], str],
) -> Explanation:
    """The explanation of the answer to the last of ``turns``; ``answer`` gives those for other routings."""
    stats = Stats()
    features = composer.look(pictures, stats)
    prompt, bare = composer.encode(turns), composer.encode([*turns[:-1], replace(turns[-1], text="")])
    ids, bare_ids = (each.input_ids[each.router_mask] for each in (prompt, bare))
    text, asked = composer.words(prompt), question_among(ids, bare_ids)
    router = Router(backend, features.shape[1])
    visual, routing = (np.stack(parts) for parts in zip(*(router.route(each, text) for each in features), strict=True))
    attention = router.attention(features, text, routing)
    alone = [router.one_by_one(each, routing.shape[1]) for each in features]
    experts = []
    for number in range(routing.shape[1]):
        pairs = [without(shares, each, number) for shares, each in zip(routing, alone, strict=True)]
        tokens, shares = (np.stack(parts) for parts in zip(*pairs, strict=True))
        routed = Routed("never")
        routed.update(tokens.astype(features.dtype), shares.astype(np.float32))
        change = float(np.sqrt(np.square(tokens - visual).mean() / np.square(visual).mean()))
        experts.append(Expert(tuple(routing[:, number].tolist()), change, answer(routed)))
    words = [group(tokenizer, ids[asked], shares[asked]) for shares in attention]
    rest = [1 - float(shares[asked].sum()) for shares in attention]
    return Explanation(tuple(map(Attention, words, rest)), tuple(experts))


def question_among(ids: np.ndarray, bare: np.ndarray) -> slice:
    """Where the question stands in ``ids`` ``[T]``; ``bare`` are those of the same prompt with an empty one."""
    start = _common(ids, bare)
    return slice(start, len(ids) - _common(ids[start:][::-1], bare[start:][::-1]))


def group(tokenizer: Tokenizer, ids: np.ndarray, shares: np.ndarray) -> tuple[Word, ...]:
    """The tokens ``[T]`` of a text and their shares as words; Han, which has no spaces, is left as the tokens are."""
    pieces = Detokenizer(tokenizer)
    words: list[Word] = []
    pending, before = 0.0, ""
    for token, share in zip(ids.tolist(), shares.tolist(), strict=True):
        pending += share
        text = pieces.push(token)
        if not text:  # half a character: its share goes with the token that completes it
            continue
        if words and _in_word(before[-1:]) and _in_word(text[0]):
            words[-1] = Word(words[-1].text + text, words[-1].share + pending)
        else:
            words.append(Word(text.strip(), pending))
        before, pending = text, 0.0
    return tuple(_closed_up(words))


def _closed_up(words: list[Word]) -> Iterator[Word]:
    """``words``, with a space that stands by itself added to the one behind it."""
    carried = 0.0
    for number, word in enumerate(words):
        if word.text or number + 1 == len(words):
            yield Word(word.text, word.share + carried)
        carried = 0.0 if word.text else carried + word.share


def _in_word(character: str) -> bool:
    """Whether it can stand within a word that spaces separate; Han and kana cannot."""
    return unicodedata.category(character)[0] in "LMN" and unicodedata.east_asian_width(character) != "W"


def _common(one: np.ndarray, two: np.ndarray) -> int:
    """How many values two arrays begin with alike."""
    length = min(len(one), len(two))
    differs = one[:length] != two[:length]
    return int(differs.argmax()) if differs.any() else length
