"""Where a model's router sends the questions of a benchmark, by which words, and what is lost without each expert.

Every question is explained as ``parrot-run --explain`` does (:mod:`parrot_runtime.explain`), which takes an answer per
expert; what is explained is kept, so a run that was cut goes on.
"""

import hashlib
import math
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from parrot_evaluation.benchmarks import Benchmark
from parrot_evaluation.journal import EntryJournal, fingerprint
from parrot_evaluation.prompts import prompt
from parrot_evaluation.runner import Progress, select
from parrot_evaluation.scoring import judge
from parrot_evaluation.text import normalise
from parrot_evaluation.tsv import Row, Table
from parrot_runtime.parrot import Parrot


@dataclass(frozen=True)
class Routed:
    """One question: its answer and those without each expert, the experts' shares, how far each moves the picture (as
    in ``parrot_runtime.explain``), the question's words with their shares of the attention, and the share of the rest.
    """

    language: str
    index: str
    sample: str
    response: str
    shares: tuple[float, ...]
    changes: tuple[float, ...]
    without: tuple[str, ...]
    words: tuple[tuple[str, float], ...]
    rest: float


class RoutingJournal(EntryJournal[Routed]):
    """The explained questions in ``path``, by their fingerprints."""

    def __init__(self, path: Path, *, anew: bool = False) -> None:
        super().__init__(path, what="an explained question", key=lambda routed: routed.sample, read=_routed, anew=anew)


def _routed(data: dict[str, Any]) -> Routed:
    words = tuple((text, share) for text, share in data.pop("words"))
    lists = {name: tuple(data.pop(name)) for name in ("shares", "changes", "without")}
    return Routed(**data, **lists, words=words)


def explain_rows(
    parrot: Parrot,
    benchmark: Benchmark,
    tables: Sequence[Table],
    journal: RoutingJournal,
    *,
    limit: int | None,
    progress: Progress = lambda done, total: None,
) -> list[tuple[Row, Routed]]:
    """Explain every chosen row that ``journal`` has not; all of them in the tables' order. Raises as ``Parrot.explain``
    does."""
    rows = [row for table in tables for row in select(table, benchmark, limit)]
    found = []
    for row in rows:
        progress(len(found), len(rows))
        text = prompt(row, benchmark)
        sample = f"{row.language}-{row.index}-{fingerprint(row, text)}"
        routed = journal.get(sample)
        if routed is None:
            routed = _explain(parrot, row, text, sample, benchmark.max_new_tokens)
            journal.add(routed)
        found.append((row, routed))
    progress(len(rows), len(rows))
    return found


def _explain(parrot: Parrot, row: Row, text: str, sample: str, max_new_tokens: int) -> Routed:
    picture = parrot.picture(row.image_bytes, name=f"{row.language} row {row.index} (line {row.line})")
    answer = parrot.ask(picture, text, max_new_tokens=max_new_tokens).text
    explained = parrot.explain(picture, text, max_new_tokens=max_new_tokens)
    attention = explained.attention[0]
    return Routed(
        row.language,
        row.index,
        sample,
        answer,
        shares=tuple(round(expert.shares[0], 6) for expert in explained.experts),
        changes=tuple(round(expert.change, 6) for expert in explained.experts),
        without=tuple(expert.answer_without for expert in explained.experts),
        words=tuple((word.text, round(word.share, 6)) for word in attention.words),
        rest=round(attention.rest, 6),
    )


@dataclass(frozen=True)
class LanguageRouting:
    """A language's ``questions``: means over them of the experts' shares, of how far each moves the picture, of the
    routing's entropy (1: all experts alike) and of the attention on the question; the words that drew most of it; the
    right answers, and those right and those changed without each expert. Of answers that are left to a judge none is
    called right or wrong: both are None."""

    language: str
    questions: int
    shares: tuple[float, ...]
    changes: tuple[float, ...]
    entropy: float
    on_question: float
    words: tuple[tuple[str, float], ...]
    right: int | None
    right_without: tuple[int, ...] | None
    changed_without: tuple[int, ...]


def summarise(benchmark: Benchmark, found: Sequence[tuple[Row, Routed]], *, words: int = 5) -> list[LanguageRouting]:
    """Per language, in the rows' order; ``words``: how many of them."""
    languages = dict.fromkeys(row.language for row, _ in found)
    return [_summary(benchmark, [pair for pair in found if pair[0].language == code], words) for code in languages]


def _summary(benchmark: Benchmark, found: Sequence[tuple[Row, Routed]], words: int) -> LanguageRouting:
    count, experts = len(found), range(len(found[0][1].shares))
    drew: Counter[str] = Counter()
    written: dict[str, str] = {}  # a word counts in any case, and is shown as it was met first
    for _, routed in found:
        for text, share in routed.words:
            drew[written.setdefault(normalise(text) or text, text)] += share / count

    judged = benchmark.form == "judged"

    def right(answers: Iterator[str]) -> int:
        return sum(judge(row, answer, benchmark).right for (row, _), answer in zip(found, answers, strict=True))

    return LanguageRouting(
        found[0][0].language,
        count,
        shares=tuple(sum(routed.shares[e] for _, routed in found) / count for e in experts),
        changes=tuple(sum(routed.changes[e] for _, routed in found) / count for e in experts),
        entropy=sum(_entropy(routed.shares) for _, routed in found) / count,
        on_question=sum(1 - routed.rest for _, routed in found) / count,
        words=tuple(drew.most_common(words)),
        right=None if judged else right(routed.response for _, routed in found),
        right_without=None if judged else tuple(right(routed.without[e] for _, routed in found) for e in experts),
        changed_without=tuple(sum(routed.without[e] != routed.response for _, routed in found) for e in experts),
    )


def _entropy(shares: Sequence[float]) -> float:
    """−Σ p log p, of log E."""
    return -sum(share * math.log(share) for share in shares if share > 0) / math.log(max(len(shares), 2))


def distance(one: LanguageRouting, other: LanguageRouting) -> float:
    """Between the mean shares of two languages, 0..1: half the sum of their differences (total variation)."""
    return sum(abs(a - b) for a, b in zip(one.shares, other.shares, strict=True)) / 2


def run_folder(fingerprint_of_model: str, benchmark: Benchmark) -> str:
    """The name of a run's folder: what could change an explanation but the question itself, hashed."""
    key = f"{fingerprint_of_model}\0{benchmark.name}\0{benchmark.max_new_tokens}"
    return f"routing-{hashlib.sha256(key.encode()).hexdigest()[:12]}"
