"""``parrot-eval compare``: is the second of two runs better than the first, or worse, in any language?"""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from parrot_evaluation import tables
from parrot_evaluation.benchmarks import Measure, find_benchmark
from parrot_evaluation.paired import Paired, holm, outcomes, pair
from parrot_evaluation.results import Result, choose_measure
from parrot_runtime.errors import InputError

_SHORT = 12


@dataclass(frozen=True)
class Comparison:
    """One measure in one language; ``p_holm`` is corrected for the languages of that measure."""

    measure: str
    language: str
    paired: Paired
    p_holm: float


def compare_runs(first: Result, second: Result, named: Sequence[str], *, as_json: bool) -> str:
    """What ``parrot-eval compare`` prints. Raises InputError for runs that did not answer the same questions."""
    languages = check(first, second)
    found = compare(first, second, _measures(first, second, named), languages)
    if not found:
        raise InputError("there is no question that both runs answered; run both with the same --limit and --languages")
    if as_json:
        return json.dumps(to_data(first, second, found), ensure_ascii=False, indent=2, allow_nan=False) + "\n"
    return markdown(first, second, found)


def check(first: Result, second: Result) -> list[str]:
    """The languages of both runs. Raises InputError that says what differs: benchmark, data, prompts or pictures."""
    refuse = "the runs cannot be compared: "
    if first.benchmark != second.benchmark:
        raise InputError(f"{refuse}one measured {first.benchmark}, the other {second.benchmark}")
    languages = [code for code in first.languages if code in second.languages]
    if not languages:
        raise InputError(
            f"{refuse}one asked in {', '.join(first.languages)}, the other in {', '.join(second.languages)}"
        )
    for code in languages:
        one, other = (result.report["data"][code] for result in (first, second))
        if one["sha256"] != other["sha256"]:
            raise InputError(
                f"{refuse}their {code} files differ: {one['file']} has the SHA-256 {one['sha256'][:_SHORT]}…, "
                f"{other['file']} has {other['sha256'][:_SHORT]}…"
            )
    wordings = [result.settings.get("instruction") for result in (first, second)]
    if wordings[0] != wordings[1]:
        raise InputError(f"{refuse}one was asked with --instruction {wordings[0]}, the other with {wordings[1]}")
    both = [key for key in first.answers if key in second.answers and key[0] in languages]
    changed = [key for key in both if first.answers[key]["sample"] != second.answers[key]["sample"]]
    if changed:
        language, index = changed[0]
        raise InputError(
            f"{refuse}the prompts or pictures of {len(changed)} of {len(both)} rows differ, the first is {language} "
            f"row {index}; run parrot-eval again for both"
        )
    return languages


def _measures(first: Result, second: Result, named: Sequence[str]) -> list[Measure]:
    known = find_benchmark(first.benchmark).measures
    wanted = list(named) or [name for name in first.measures if name in second.measures]
    for name in wanted:
        choose_measure((first, second), name)
    return [measure for measure in known if measure.name in wanted]


def compare(first: Result, second: Result, measures: Sequence[Measure], languages: Sequence[str]) -> list[Comparison]:
    """Every measure in every language that has units of both runs."""
    found: list[Comparison] = []
    rotated = find_benchmark(first.benchmark).rotated
    for measure in measures:
        paired: dict[str, Paired] = {}
        for code in languages:
            sides = [
                outcomes(measure, (each for each in result.samples if each["language"] == code), rotated=rotated)
                for result in (first, second)
            ]
            if (both := pair(*sides)) is not None:
                paired[code] = both
        corrected = holm([each.p for each in paired.values()])
        found += [
            Comparison(measure.name, code, each, p) for (code, each), p in zip(paired.items(), corrected, strict=True)
        ]
    return found


def to_data(first: Result, second: Result, found: Sequence[Comparison]) -> dict[str, Any]:
    """The comparison as plain data; shares, points and intervals in per cent."""
    return {
        "benchmark": first.benchmark,
        "first": {"label": first.label, "folder": str(first.folder)},
        "second": {"label": second.label, "folder": str(second.folder)},
        "test": "McNemar, exact, two-sided; Holm over the languages of a measure",
        "interval": "Tango's score interval of paired proportions, 95 %",
        "comparisons": [
            {
                "measure": each.measure,
                "language": each.language,
                "n": each.paired.total,
                "first": each.paired.shares[0],
                "second": each.paired.shares[1],
                "first_only": each.paired.first_only,
                "second_only": each.paired.second_only,
                "points": each.paired.points,
                "interval_95": each.paired.interval,
                "p": each.paired.p,
                "p_holm": each.p_holm,
            }
            for each in found
        ],
    }


def markdown(first: Result, second: Result, found: Sequence[Comparison]) -> str:
    """A table per measure, a row per language."""
    header = ["language", "n", "A", "B", "only A", "only B", "B − A, points", "95 % interval", "p", "p (Holm)"]
    parts = [f"## {first.benchmark}: A = {first.label}, B = {second.label}"]
    for measure in dict.fromkeys(each.measure for each in found):
        rows = [_row(each) for each in found if each.measure == measure]
        explanation = first.measures[measure]["explanation"]
        parts += [f"### {measure}\n\n{explanation[:1].upper()}{explanation[1:]}.", tables.table(header, rows)]
    parts.append(
        "\n".join(
            (
                "- n: rows, pairs or circles that both runs answered; A and B: per cent of them right. Of a "
                "question's rotations, measures of rows count the first.",
                "- only A, only B: right in that run and wrong in the other. p: McNemar's exact test, two-sided.",
                "- p (Holm): corrected for the languages of its measure; measures are not corrected for each other.",
                "- interval: Tango's score interval of paired proportions (Statistics in Medicine 17, 1998).",
            )
        )
    )
    return "\n\n".join(parts) + "\n"


def _row(each: Comparison) -> list[str]:
    paired = each.paired
    low, high = paired.interval
    return [
        tables.language(each.language),
        str(paired.total),
        *(f"{share:.1f}" for share in paired.shares),
        str(paired.first_only),
        str(paired.second_only),
        _signed(paired.points),
        f"{_signed(low)} to {_signed(high)}",
        _p(paired.p),
        _p(each.p_holm),
    ]


def _signed(points: float) -> str:
    return f"{points:+.1f}" if abs(points) >= 0.05 else "0.0"


def _p(value: float) -> str:
    return f"{value:.3f}" if value >= 0.001 else "< 0.001"
