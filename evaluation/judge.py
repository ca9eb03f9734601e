"""LLaVA-Bench: a model behind any OpenAI-compatible server scores each answer beside the reference answer.

The protocol is the benchmark's: the judge reads a description of the picture, the question and both answers, and the
first line of its reply holds two scores from 1 to 10. The wording is ours, so figures are comparable with each other,
not with published ones; ``--judge-prompt`` takes another. Every reply is kept as it comes, with the request it belongs
to, so a run that was cut asks nothing twice.
"""

import hashlib
import json
import math
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from parrot_evaluation.journal import EntryJournal
from parrot_evaluation.scoring import Sample
from parrot_runtime.endpoint import Options, RejectedError, Settings, read_key
from parrot_runtime.errors import InputError

OPTIONS = Options("--judge", "--judge-model", "--judge-key-env", "eval")
MAX_TOKENS = 1024
_CONCURRENCY = 4
_HIGHEST = 10.0
_PLACES = ("caption", "question", "first", "second")

SYSTEM = "You judge answers to questions about pictures. You are fair, exact and consistent."
PROMPT = """\
[Context]
{caption}

[Question]
{question}

[Assistant 1]
{first}

[End of Assistant 1]

[Assistant 2]
{second}

[End of Assistant 2]

[System]
Two assistants saw a picture and answered the question above. You cannot see it; the context describes what is in it.
Score each answer from 1 to 10 by how helpful, relevant, accurate and detailed it is: the higher, the better.
The first line of your reply holds two numbers and nothing else: the score of Assistant 1, a space, the score of
Assistant 2. Below it, give your reasons. Which answer stands first must make no difference.
"""


@dataclass(frozen=True)
class Judge:
    """Who judges, and how. ``key_env`` names the variable with the key; ``fields`` go into every request.

    ``both_orders`` puts every pair of answers to the judge twice, each answer standing first once.
    """

    endpoint: str
    model: str
    key_env: str | None = None
    both_orders: bool = False
    prompt: str = PROMPT
    fields: Mapping[str, Any] = field(default_factory=dict)

    @property
    def url(self) -> str:
        """Where requests go. Raises InputError for what is no address."""
        return Settings(self.endpoint, options=OPTIONS).url

    def settings(self) -> dict[str, Any]:
        """What of it changes the figures, for the report; of the address only a hash, since reports are passed on."""
        return {
            "model": self.model,
            "address_sha256": hashlib.sha256(self.url.encode()).hexdigest(),
            "both_orders": self.both_orders,
            "prompt_sha256": hashlib.sha256(self.prompt.encode()).hexdigest(),
            "fields": dict(self.fields),
        }


@dataclass(frozen=True)
class Judgement:
    """One reply. ``scores`` are (reference, model), None where the first line does not hold two scores.

    ``text`` is None where the server refused the request.
    """

    reference_first: bool
    text: str | None
    scores: tuple[float, float] | None


@dataclass(frozen=True)
class Judged:
    """A sample and its judgements: one, or one in each order."""

    sample: Sample
    judgements: tuple[Judgement, ...]


def read_prompt(path: Path) -> str:
    """The judge's prompt in ``path``. Raises InputError: not there, not UTF-8, or a place is missing."""
    try:
        text = path.read_text("utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(f"--judge-prompt {path}: cannot be read ({error})") from error
    missing = [f"{{{place}}}" for place in _PLACES if f"{{{place}}}" not in text]
    if missing:
        raise InputError(f"--judge-prompt {path}: it lacks {', '.join(missing)}, where the texts are put")
    return text


def read_scores(reply: str) -> tuple[float, float] | None:
    """The two numbers, from 0 to 10, that alone make up the first line of a judgement; otherwise None.

    They are separated by spaces or a comma. (VLMEvalKit wants exactly one space or one comma without a space, and
    averages -1 in for any other line.)
    """
    lines = reply.strip().splitlines()
    words = lines[0].replace(",", " ").split() if lines else []
    if len(words) != 2 or not all(re.fullmatch(r"\d+(\.\d+)?", word, re.ASCII) for word in words):
        return None
    first, second = (float(word) for word in words)
    return (first, second) if max(first, second) <= _HIGHEST and math.isfinite(first + second) else None


@dataclass(frozen=True)
class _Request:
    sample: Sample
    reference_first: bool
    messages: list[dict[str, Any]]
    key: str


@dataclass(frozen=True)
class Entry:
    """A line of the journal: the ``key`` of the request, what it was about, and the reply."""

    key: str
    language: str
    index: str
    reference_first: bool
    text: str
    finish: str | None = None


class JudgementJournal(EntryJournal[Entry]):
    """The judgements in ``path``, by their requests."""

    def __init__(self, path: Path, *, anew: bool = False) -> None:
        super().__init__(
            path, what="a judgement", key=lambda entry: entry.key, read=lambda data: Entry(**data), anew=anew
        )


def judge_answers(
    samples: Sequence[Sample],
    judge: Judge,
    journal: JudgementJournal,
    *,
    progress: Callable[[int, int], None] = lambda done, total: None,
) -> list[Judged]:
    """Have every answer judged that ``journal`` has no judgement of, in the samples' order.

    A request that the server refuses counts as a judgement that cannot be read, and is made again the next time.
    Raises InputError where the server would refuse any request, and ParrotError when it gives no answers; the
    judgements before that are kept.
    """
    requests = [request for sample in samples for request in _requests(sample, judge)]
    # Equal requests, of equal rows, are one.
    unique = {request.key: request for request in requests}
    waiting = [request for key, request in unique.items() if journal.get(key) is None]
    done = len(unique) - len(waiting)
    progress(done, len(unique))
    if waiting:
        with closing(_replies(waiting, judge)) as replies:
            for request, text, finish in replies:
                done += 1
                if text is not None:
                    row = request.sample.row
                    journal.add(Entry(request.key, row.language, row.index, request.reference_first, text, finish))
                progress(done, len(unique))
    judged: dict[int, list[Judgement]] = {}
    for request in requests:
        judged.setdefault(id(request.sample), []).append(_judgement(request, journal.get(request.key)))
    return [Judged(sample, tuple(judged[id(sample)])) for sample in samples]


def _requests(sample: Sample, judge: Judge) -> Iterator[_Request]:
    for reference_first in (True, False) if judge.both_orders else (True,):
        answers = (sample.row.answer, sample.response)
        first, second = answers if reference_first else reversed(answers)
        texts = {"caption": sample.row.caption, "question": sample.row.question, "first": first, "second": second}
        # In one pass: an answer may hold "{second}" itself.
        content = re.sub(rf"{{({'|'.join(_PLACES)})}}", lambda place, texts=texts: texts[place[1]], judge.prompt)
        # An answer may hold half a surrogate pair, which no request can carry: its number stands for it.
        content = content.encode("utf-8", "backslashreplace").decode("utf-8")
        messages = [{"role": "system", "content": SYSTEM}, {"role": "user", "content": content}]
        # Servers call different models by one name, so the address is part of what was asked.
        whole = json.dumps([judge.url, judge.model, messages, dict(judge.fields), MAX_TOKENS], sort_keys=True)
        yield _Request(sample, reference_first, messages, hashlib.sha256(whole.encode()).hexdigest()[:32])


def _replies(requests: Sequence[_Request], judge: Judge) -> Iterator[tuple[_Request, str | None, str | None]]:
    from parrot_evaluation.openai_client import ChatClient

    settings = Settings(judge.endpoint, options=OPTIONS)
    key = read_key(judge.key_env, "--judge-key-env")
    with ChatClient(settings, judge.model, key=key, concurrency=_CONCURRENCY, fields=judge.fields) as client:
        conversations = (request.messages for request in requests)
        with closing(client.replies(conversations, max_tokens=MAX_TOKENS)) as replies:
            for request, reply in zip(requests, replies, strict=True):
                refused = isinstance(reply, RejectedError)
                yield (request, None, None) if refused else (request, reply.text, reply.finish)


def _judgement(request: _Request, entry: Entry | None) -> Judgement:
    if entry is None:
        return Judgement(request.reference_first, None, None)
    scores = read_scores(entry.text)
    if scores is not None and not request.reference_first:
        scores = scores[1], scores[0]
    return Judgement(request.reference_first, entry.text, scores)
