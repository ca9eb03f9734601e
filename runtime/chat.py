"""A conversation about pictures: ``Parrot.load(bundle).chat("photo.jpg")``."""

from __future__ import annotations

from collections.abc import Callable
from copy import copy
from typing import TYPE_CHECKING

from parrot_runtime.answer import Answer, AnswerStream, Tokens
from parrot_runtime.composer import Routed
from parrot_runtime.generation import MAX_NEW_TOKENS, Request
from parrot_runtime.names import Reroute
from parrot_runtime.prompt import Turn, check_question
from parrot_runtime.sampling import GREEDY, Sampler, Sampling
from parrot_runtime.stats import Stats

if TYPE_CHECKING:
    from parrot_runtime.parrot import Images, Parrot


class Chat:
    """A conversation: every answer is made from all turns so far. ``turns`` grows when an answer is whole; ``pictures``
    are those of the first turn.

    What the KV cache holds of the turns before is not prefilled again. With ``reroute`` ``always`` that ends at the
    first picture, since every turn's text routes the pictures anew, exactly as training saw conversations; ``auto``
    keeps the pictures as they were routed while the routing stays where it was, and ``never`` keeps them throughout.
    """

    def __init__(
        self, parrot: Parrot, images: Images, answer: Callable[[Request], Tokens], reroute: Reroute = "auto"
    ) -> None:
        self.turns: list[Turn] = []
        self._parrot, self._tokens_of = parrot, answer
        self._routed = Routed(reroute)
        self._stats = Stats()
        self.pictures = parrot._read(images, self._stats)

    def ask(self, question: str, *, max_new_tokens: int = MAX_NEW_TOKENS, sampling: Sampling = GREEDY) -> Answer:
        """See ``Parrot.ask``."""
        return self.stream(question, max_new_tokens=max_new_tokens, sampling=sampling).answer

    def stream(
        self, question: str, *, max_new_tokens: int = MAX_NEW_TOKENS, sampling: Sampling = GREEDY
    ) -> AnswerStream:
        """See ``Parrot.stream``."""
        turns = [*self.turns, Turn("user", check_question(question), 0 if self.turns else len(self.pictures))]
        # Reading the pictures is on the first question's bill.
        stats, self._stats = self._stats, Stats()
        routed = copy(self._routed)
        request = self._parrot._composer.request(self.pictures, turns, Sampler(sampling), max_new_tokens, stats, routed)

        def remember(answer: Answer) -> None:
            # A question that is given up leaves no trace: not its text, nor how it routed the pictures.
            self.turns, self._routed = [*turns, Turn("assistant", answer.text)], routed

        return self._parrot._stream(request, self._tokens_of(request), remember)
