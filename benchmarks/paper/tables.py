"""The study's report in Markdown: every claim's tables, and what its comparisons come to."""

import math
import statistics
import textwrap
from collections.abc import Iterable, Iterator, Mapping, Sequence

from parrot_benchmarks.paper.comparing import (
    HOLDS,
    KINDS,
    NOT,
    OPEN,
    RIGHT,
    Difference,
    Results,
    difference,
    guesses,
    published,
    published_pair,
    results_of,
    share,
)
from parrot_benchmarks.paper.study import FIRST_SEEDS, QUESTIONS, SCALE, Study, conversations
from parrot_benchmarks.paper.variants import CLAIMS, VARIANTS, Claim, Comparison
from parrot_runtime.languages import CODES

_WIDTH, _TOO_SMALL = 120, 0.1
_NOTHING = "–"


def document(study: Study) -> str:
    """The whole report."""
    results = results_of(study)
    lines = [*_opening(study, results), *_summary(results)]
    for claim in CLAIMS:
        lines += _claim(study, claim, results)
    return "\n".join(wrapped for line in lines for wrapped in _wrapped(line)).rstrip() + "\n"


def _wrapped(line: str) -> list[str]:
    """Prose in lines of 120; a table's rows stay whole."""
    if len(line) <= _WIDTH or line.startswith("|"):
        return [line]
    indent = "  " if line.startswith("- ") else ""
    return textwrap.wrap(line, _WIDTH, subsequent_indent=indent, break_long_words=False, break_on_hyphens=False)


def _opening(study: Study, results: Results) -> Iterator[str]:
    yield "# The paper's claims in miniature"
    yield ""
    yield (
        "What the paper finds with models of seven billion parameters, asked of nano, which has 3.6 million and a "
        "world drawn by code ([nano.md](nano.md)). None of it confirms or refutes the paper: it says which of its "
        "findings this small recipe shows too. The paper's figures stand beside ours for their direction alone: they "
        "are of other models, other data and other questions."
    )
    yield ""
    yield (
        f"Scale {study.scale:g}: that fraction of nano's captions and conversations, and so of its steps, in every row "
        "of every table. Seeds decide pictures, questions, new weights and the order of the data. All models answer "
        f"the same held-out questions, {min(study.questions, QUESTIONS)} or a few more in each language. A figure is "
        "per cent right, the mean over the seeds that all rows of the table have ± their standard deviation. Two "
        "variants are compared seed by seed, over all that both have; a statement *holds* where Student's 95 % "
        "interval of the mean difference lies above zero, *does not hold* where it lies below, and *cannot be told* "
        "otherwise, from one seed, or where both are no better than guessing at the four options. The intervals tell "
        "what another seed would change; the questions are the same each time, and what others would change they do "
        "not tell."
    )
    yield ""
    if study.scale < _TOO_SMALL:
        yield (
            "**At so small a scale a model has learnt next to nothing: the figures below show that the study runs from "
            "end to end, and nothing else.**"
        )
        yield ""
    if study.settings:
        yield f"Settings of all trainings: {', '.join(f'`{setting}`' for setting in study.settings)}."
        yield ""
    yield f"Run so far: {'; '.join(_runs(results))}."
    yield ""
    yield (
        f"`make paper` trains all of them, at scale {SCALE:g} and with {FIRST_SEEDS} seeds, and writes this page anew; "
        "nothing in it is written by hand. "
        f'`make paper PAPER="--take docs/nano-results.json --only a --seeds {2 * FIRST_SEEDS + 1}"` starts from the '
        "figures that it was written from, and adds a seed."
    )
    if any(seed > FIRST_SEEDS for by_seed in results.values() for seed in by_seed):
        yield ""
        yield (
            f"Seeds beyond the first {FIRST_SEEDS} were added after those had been looked at, which makes an interval "
            "that barely leaves zero out, or in, less sure than it says."
        )
    yield ""


def _summary(results: Results) -> Iterator[str]:
    """All statements at a glance, claim by claim."""
    heads = {HOLDS: "hold", NOT: "do not hold", OPEN: "cannot be told"}
    counts, intervals = {}, 0
    for claim in CLAIMS:
        found = [(each, difference(results, each)) for each in claim.comparisons]
        intervals += sum(made is not None and made.interval is not None for _, made in found)
        told = [made.verdict for each, made in found if each.statement is not None and made is not None]
        if told:
            counts[f"{claim.key}. {claim.title}"] = [told.count(verdict) for verdict in heads]
    if not counts:
        return
    yield f"| statements of the paper's | {' | '.join(heads.values())} |"
    yield f"|---|{'---:|' * len(heads)}"
    counts["all"] = [sum(column) for column in zip(*counts.values(), strict=True)]
    for name, numbers in counts.items():
        yield f"| {name} | {' | '.join(str(number or _NOTHING) for number in numbers)} |"
    yield ""
    yield (
        f"Of the paper's statements and others, {intervals} differences stand below with an interval of 95 %. One in "
        "twenty of those that are none in truth lies outside it: what lies barely outside may be such a one."
    )
    yield ""


def _runs(results: Results) -> Iterator[str]:
    """Which seeds of which variants there are."""
    seeds: dict[tuple[str, ...], list[int]] = {}
    for seed in sorted({seed for by_seed in results.values() for seed in by_seed}):
        seeds.setdefault(tuple(name for name in VARIANTS if seed in results.get(name, {})), []).append(seed)
    for names, numbers in seeds.items():
        missing = [name for name in VARIANTS if name not in names]
        if not missing:
            whose = f"all {len(names)} variants"
        elif len(missing) < len(names):
            whose = f"all variants but {_titles(missing)}"
        else:
            whose = f"{_titles(names)} alone"
        yield f"seed{'s' * (len(numbers) > 1)} {', '.join(map(str, numbers))} of {whose}"


def _titles(names: Iterable[str]) -> str:
    return ", ".join(f"*{VARIANTS[name].title}*" for name in names)


def _claim(study: Study, claim: Claim, results: Results) -> Iterator[str]:
    yield f"## {claim.key}. {claim.title}"
    yield ""
    yield f"The paper: {claim.source}.{f' {claim.note}' if claim.note else ''}"
    yield ""
    rows = [name for name in claim.rows if results.get(name)]
    if not rows:
        yield "Not run."
        yield ""
        return
    shown = _of_same_seeds(rows, results)
    yield from _by_language(study, claim, rows, shown)
    yield from _by_kind(study, rows, shown)
    yield from _verdicts(claim, results)


def _of_same_seeds(rows: Sequence[str], results: Results) -> Results:
    """The results of ``rows`` with the seeds that all of them have, so that no mean is of easier pictures than another.

    All of them where there is no such seed.
    """
    common = set.intersection(*(set(results[name]) for name in rows))
    return {
        name: {seed: result for seed, result in results[name].items() if seed in common or not common} for name in rows
    }


def _by_language(study: Study, claim: Claim, rows: Sequence[str], results: Results) -> Iterator[str]:
    first = next(iter(results[rows[0]].values()))
    yield (
        f"Right of {share(first, CODES[:1])[1]} questions per language (four options, Yes/No pairs, open answers "
        f"together), scale {study.scale:g}:"
    )
    yield ""
    yield f"| | conversations | seeds | {' | '.join(CODES)} | all |"
    yield f"|---|---:|---:|{'---:|' * (len(CODES) + 1)}"
    for name in rows:
        by_seed = results[name]
        cells = [_mean(by_seed, (code,)) for code in CODES] + [_mean(by_seed, CODES)]
        asked = f"{conversations(study, VARIANTS[name]):,}"
        yield f"| {VARIANTS[name].title} | {asked} | {len(by_seed)} | {' | '.join(cells)} |"
        for row in published(claim, name):
            paper = " | ".join(f"*{row[code]}*" for code in CODES)
            yield f"| *paper, Table {row['table']}, {row['benchmark']}: {row['method']}* | | | {paper} | |"
    yield ""


def _by_kind(study: Study, rows: Sequence[str], results: Results) -> Iterator[str]:
    every = [result for name in rows for result in results[name].values()]
    most = {kind: max(share(result, CODES, measures)[1] for result in every) for kind, measures in KINDS.items()}
    heads = [f"{kind} ({total:,})" for kind, total in most.items()]
    yield f"By kind, all six languages, of how many (the last: at most), scale {study.scale:g}:"
    yield ""
    yield f"| | {' | '.join(heads)} |"
    yield f"|---|{'---:|' * len(heads)}"
    for name in rows:
        cells = [_mean(results[name], CODES, measures) for measures in KINDS.values()]
        yield f"| {VARIANTS[name].title} | {' | '.join(cells)} |"
    yield ""
    guessing = [VARIANTS[name].title for name in rows if guesses(results[name])]
    if guessing:
        yield f"**At the four options no better than guessing**, 25 per cent: {'; '.join(guessing)}."
        yield ""


def _mean(by_seed: Mapping[int, dict], languages: Iterable[str], measures: Sequence[str] = RIGHT) -> str:
    shares = (share(result, languages, measures)[0] for result in by_seed.values())
    values = [each for each in shares if not math.isnan(each)]
    if not values:
        return _NOTHING
    mean = f"{statistics.fmean(values):.1f}"
    return f"{mean} ± {statistics.stdev(values):.1f}" if len(values) > 1 else mean


def _verdicts(claim: Claim, results: Results) -> Iterator[str]:
    counts: dict[str, int] = {}
    lines = []
    for comparison in claim.comparisons:
        found = difference(results, comparison)
        verdict = "not run" if found is None else found.verdict
        if comparison.statement is not None:
            counts[verdict] = counts.get(verdict, 0) + 1
        lines.append(f"- {_sentence(claim, comparison, found, verdict)}")
    if counts:
        said = "; ".join(
            f"{count} {_PLURAL.get(verdict, verdict) if count > 1 else verdict}" for verdict, count in counts.items()
        )
        yield f"**Of {sum(counts.values())} statement{'s' * (sum(counts.values()) > 1)}: {said}.**"
        yield ""
    yield from lines
    yield ""


_PLURAL = {HOLDS: "hold", NOT: "do not hold"}


def _sentence(claim: Claim, comparison: Comparison, found: Difference | None, verdict: str) -> str:
    names = [VARIANTS[name].title for name in (comparison.better, comparison.worse)]
    spoken = "all languages" if comparison.languages == CODES else " ".join(comparison.languages)
    kind = f", {comparison.kind}" if comparison.kind else ""
    what = f"*{names[0]}* less *{names[1]}*, {spoken}{kind}"
    if comparison.statement is not None:
        what = f"{comparison.statement[:1].upper()}{comparison.statement[1:]} ({what})"
    if found is None:
        return f"{what}: not run."
    if not found.points:
        return f"{what}: {_NOTHING} points (no questions): **{verdict}**."
    interval = found.interval
    around = "one seed" if interval is None else f"{interval[0]:+.1f} to {interval[1]:+.1f}, {len(found.points)} seeds"
    text = f"{what}: {found.mean:+.1f} points ({around}"
    rows = published_pair(claim, comparison)
    if comparison.kind is None and rows is not None:
        paper = statistics.fmean(float(rows[0][code]) - float(rows[1][code]) for code in comparison.languages)
        text += f"; the paper: {paper:+.1f}"
    if found.guessed:
        text += "; at the four options both are no better than guessing"
    if comparison.statement is None:
        verdict = {HOLDS: "higher", NOT: "lower"}.get(verdict, verdict)
    return f"{text}): **{verdict}**."
