"""One conversation through the steps of Figure 3: translate, re-check and refine three times, vote.

Each round re-checks the newest version and refines it by the faults found; where none are, the version stands, and a
further round would make the same request, whose reply is known: it makes none. The versions of the rounds are put to
the vote, each voter seeing them in another order; where voters are divided evenly the latest wins. Every reply is
checked before it is used: keys, marks, lines, language. One that fails is asked for again with the reason, ``attempts``
times in all.
"""

import itertools
import json
import re
import threading
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, TypeVar

from parrot_runtime.endpoint import Endpoint, Reply
from parrot_runtime.errors import ParrotError
from parrot_runtime.language_id import identify, in_language
from parrot_train.translation import prompts
from parrot_train.translation.protect import GarbledError, Protected, numbers, protect
from parrot_train.translation.replies import Replies, request_key

T = TypeVar("T")
Version = dict[str, str]

_FENCE = re.compile(r"\A\s*```(?:json)?\s*\n(.*)\n\s*```\s*\Z", re.DOTALL)
_LETTER = re.compile(r"(?<![A-Za-z])([A-Z])(?![A-Za-z])")
# Words from which on the language of a text, or that it was left as it is, tells something.
_TELLING_WORDS = 4
# A translation this many times as long as its source, or short, is looked at by people. Chinese takes about a third of
# English's characters, Russian up to half more.
_SHORTEST, _LONGEST = 0.12, 3.0


class FailedError(Exception):
    """A conversation that cannot be translated; ``keys`` are the replies that were no use."""

    def __init__(self, reason: str, keys: list[str]) -> None:
        super().__init__(reason)
        self.keys = keys


@dataclass(frozen=True)
class Plan:
    """What is asked of whom, and how often. ``body`` goes into every request, null taking a field out."""

    model: str
    source: str
    target: str
    rounds: int = 3
    voters: int = 3
    attempts: int = 3
    body: Mapping[str, Any] | None = None
    price_in: float = 0.0
    price_out: float = 0.0
    max_cost: float | None = None


class Asker:
    """Replies from disk, or from the server, each request being made once however many threads want it."""

    def __init__(self, plan: Plan, endpoint: Endpoint, replies: Replies) -> None:
        self._plan, self._endpoint, self._replies = plan, endpoint, replies
        self._flying: dict[str, threading.Event] = {}
        self._lock = threading.Lock()

    def ask(self, messages: prompts.Messages) -> tuple[str, Reply]:
        """The key of the request and its reply. Raises what Endpoint.ask raises, and ParrotError over the budget."""
        body = {"model": self._plan.model, "messages": messages, "temperature": 0} | dict(self._plan.body or {})
        body = {name: value for name, value in body.items() if value is not None}
        key = request_key(body)
        while True:
            reply = self._replies.get(key)
            if reply is not None:
                return key, reply
            with self._lock:
                other = self._flying.get(key)
                if other is None:
                    self._flying[key] = threading.Event()
                    break
            other.wait()
        try:
            reply = self._replies.get(key)  # another thread may have had it between the look and the lock
            if reply is None:
                self._check_budget()
                reply = self._endpoint.ask(body)
                self._replies.add(key, reply)
            return key, reply
        finally:
            with self._lock:
                self._flying.pop(key).set()

    def _check_budget(self) -> None:
        if self._plan.max_cost is None:
            return
        if uncounted := self._replies.usage.uncounted:
            raise ParrotError(
                f"the server counted no tokens for {uncounted:,} replies, so --max-cost cannot be kept and nothing "
                "more is asked; what was answered is kept, run the same command without --max-cost to go on"
            )
        cost = self._replies.usage.cost(self._plan.price_in, self._plan.price_out)
        if cost >= self._plan.max_cost:
            raise ParrotError(
                f"{cost:.4f} is spent of --max-cost {self._plan.max_cost:g}, so nothing more is asked; what was "
                "answered is kept, run the same command with a higher --max-cost to go on"
            )


@dataclass(frozen=True)
class Translation:
    """The turns' new texts; ``votes`` for each version that stood for election; per turn what people should look at."""

    texts: list[str]
    votes: list[int]
    flags: list[list[str]]


def translate(texts: list[str], plan: Plan, asker: Asker) -> Translation:
    """Translate the turns of one conversation. Raises FailedError, and what Asker.ask raises for the whole run."""
    protected = [protect(text) for text in texts]
    wanted = {str(number): each for number, each in enumerate(protected, 1) if each.has_words}
    if not wanted:
        return Translation(list(texts), [], [[] for _ in texts])
    work = _Work(wanted, plan, asker)
    version = work.version(prompts.translate(work.core, plan.source, plan.target))
    versions: list[Version] = []
    for _ in range(plan.rounds):
        found = work.checked(prompts.recheck(work.core, version, plan.source, plan.target), _some_text)
        if not prompts.nothing_wrong(found):
            version = work.version(prompts.refine(work.core, version, found, plan.source, plan.target))
        if version not in versions:
            versions.append(version)
    best, votes = work.elect(versions or [version])
    final = [
        each.restore(best[str(number)]) if str(number) in best else text
        for number, (text, each) in enumerate(zip(texts, protected, strict=True), 1)
    ]
    divided = len(votes) > 1 and 2 * max(votes) <= sum(votes)
    flags = [
        _flags(text, new, plan.target, divided) if str(number) in best else []
        for number, (text, new) in enumerate(zip(texts, final, strict=True), 1)
    ]
    return Translation(final, votes, flags)


class _Work:
    """The texts of one conversation that have words, and the asking for them."""

    def __init__(self, wanted: Mapping[str, Protected], plan: Plan, asker: Asker) -> None:
        self._wanted, self._plan, self._asker = wanted, plan, asker
        self.core = {key: each.core for key, each in wanted.items()}

    def checked(self, messages: prompts.Messages, read: Callable[[str], T]) -> T:
        """What ``read`` makes of the reply, asked for again while it raises GarbledError. Raises FailedError."""
        keys: list[str] = []
        reason = ""
        for _ in range(self._plan.attempts):
            key, reply = self._asker.ask(messages)
            try:
                if reply.finish == "length":
                    raise GarbledError("it was cut off at the limit of its length")
                return read(reply.text)
            except GarbledError as error:
                keys.append(key)
                reason = str(error)
                said = reply.text.encode("utf-8", "replace").decode()  # half a character cannot be sent back
                messages = prompts.again(messages, said, reason)
        raise FailedError(f"no usable reply in {self._plan.attempts}: {reason}", keys)

    def version(self, messages: prompts.Messages) -> Version:
        """A version of all texts that has passed every check."""
        return self.checked(messages, self._read_version)

    def elect(self, versions: list[Version]) -> tuple[Version, list[int]]:
        """The version with most votes, the latest of equals, and the votes of all."""
        if len(versions) == 1:
            return versions[0], []
        tally: Counter[int] = Counter()
        for order in ballots(len(versions), self._plan.voters):
            shown = [versions[place] for place in order]
            messages = prompts.vote(self.core, shown, self._plan.source, self._plan.target)
            tally[order[self.checked(messages, lambda reply: _read_letter(reply, len(versions)))]] += 1
        best = max(range(len(versions)), key=lambda place: (tally[place], place))
        return versions[best], [tally[place] for place in range(len(versions))]

    def _read_version(self, reply: str) -> Version:
        fenced = _FENCE.match(reply)
        try:
            data = json.loads(fenced[1] if fenced else reply)
        except (ValueError, RecursionError) as error:
            raise GarbledError("it is not a JSON object alone") from error
        if not isinstance(data, dict) or set(data) != set(self._wanted):
            raise GarbledError(f"it should have the keys {', '.join(self._wanted)} and no others")
        for key, text in data.items():
            if not isinstance(text, str):
                raise GarbledError(f"the value of {key} is not a text")
            if any("\ud800" <= character <= "\udfff" for character in text):
                raise GarbledError(f"the text of {key} holds half a character")
            self._wanted[key].restore(text)
        spoken = identify("\n".join(data.values()))
        if spoken not in (None, self._plan.target):
            raise GarbledError(f"the texts are not in {prompts.name(self._plan.target)}")
        return {key: data[key].strip() for key in self._wanted}


def ballots(versions: int, voters: int) -> Iterator[tuple[int, ...]]:
    """The orders in which up to ``voters`` voters see ``versions`` versions, no two alike.

    They come in turns of one order, all of a turn or none (but for fewer voters than versions): every version then
    stands in every place as often, and a voter that likes a place elects nobody. Two alike would be one request.
    """
    last = voters if voters < versions else voters - voters % versions
    turns = (
        order[start:] + order[:start]
        for order in itertools.permutations(range(versions))
        if order[0] == 0
        for start in range(versions)
    )
    yield from itertools.islice(turns, last)


def _some_text(reply: str) -> str:
    if not reply.strip():
        raise GarbledError("it is empty")
    if any("\ud800" <= character <= "\udfff" for character in reply):
        raise GarbledError("it holds half a character")
    return reply.strip()


def _read_letter(reply: str, versions: int) -> int:
    letters = {ord(letter) - ord("A") for letter in _LETTER.findall(reply)}
    if len(letters) != 1 or not letters <= set(range(versions)):
        raise GarbledError("it should be one of the letters alone")
    return letters.pop()


def _flags(source: str, new: str, target: str, divided: bool) -> list[str]:
    """What people should look at first in one translated turn."""
    words = len(source.split()) >= _TELLING_WORDS
    tests = {
        "numbers": numbers(source) != numbers(new),
        "length": words and not _SHORTEST <= len(new) / len(source) <= _LONGEST,
        "unchanged": words and source == new,
        "language": words and in_language(new, target) is False,
        "divided": divided,
    }
    return [name for name, holds in tests.items() if holds]
