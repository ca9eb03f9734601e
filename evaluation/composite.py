"""Figures that are more than a share of rows: MME's sums, and LLaVA-Bench's ratio of a judge's scores.

They stand in the report beside the counts; a part that is missing is said and never counted as zero.
"""

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from statistics import fmean

from parrot_evaluation.judge import Judged
from parrot_evaluation.scoring import Cell
from parrot_evaluation.tsv import JUDGED_CATEGORIES

MME_CATEGORIES: dict[str, tuple[str, ...]] = {
    "perception": (
        *("OCR", "artwork", "celebrity", "color", "count"),
        *("existence", "landmark", "position", "posters", "scene"),
    ),
    "reasoning": ("code_reasoning", "commonsense_reasoning", "numerical_calculation", "text_translation"),
}
# acc + acc+, of 100 each.
_MME_CATEGORY_MAXIMUM = 200


@dataclass(frozen=True)
class Score:
    """One figure. ``measure`` is its column, ``group`` its row; ``value`` is None of nothing.

    ``maximum`` is what a perfect model would have, ``total`` how many questions it stands on, ``notes`` what is
    missing.
    """

    measure: str
    language: str
    group: str
    value: float | None
    total: int
    maximum: float | None = None
    notes: tuple[str, ...] = ()


def mme_scores(cells: Sequence[Cell]) -> list[Score]:
    """MME's scores of every language, by both extractions: perception (of 2000), reasoning (of 800), each category.

    A category's score is acc + acc+ in per cent; perception and reasoning are sums over their categories, and have
    the maximum of those that are there. Source: ``MME_rating`` in ``vlmeval/dataset/utils/yorn.py``, which fails where
    a category is missing.
    """
    scores = []
    for language in dict.fromkeys(cell.language for cell in cells):
        for measure, ending in (("score", ""), ("score (kit)", "_kit")):
            found = _mme_categories(measure, language, [cell for cell in cells if cell.language == language], ending)
            scores += [_mme_sum(measure, language, name, found) for name in MME_CATEGORIES]
            scores += found.values()
    return scores


def _mme_categories(measure: str, language: str, cells: Sequence[Cell], ending: str) -> dict[str, Score]:
    known = [category for categories in MME_CATEGORIES.values() for category in categories]
    by_group = {
        (cell.measure, cell.group): cell for cell in cells if cell.level == "category" and cell.value is not None
    }
    found = {}
    for category in dict.fromkeys(cell.group for cell in cells if cell.level == "category"):
        accuracy, plus = by_group.get((f"accuracy{ending}", category)), by_group.get((f"plus{ending}", category))
        notes = () if category in known else (f"'{category}' is no category of MME's and in no sum",)
        if accuracy and plus:
            value = accuracy.value + plus.value
            found[category] = Score(
                measure, language, category, value, accuracy.total, _MME_CATEGORY_MAXIMUM, notes=notes
            )
        elif accuracy:
            notes = (*notes, f"'{category}' has no picture with two questions, so no score")
            found[category] = Score(measure, language, category, None, accuracy.total, notes=notes)
    return found


def _mme_sum(measure: str, language: str, name: str, found: dict[str, Score]) -> Score:
    categories = MME_CATEGORIES[name]
    there = [found[category] for category in categories if category in found and found[category].value is not None]
    missing = [category for category in categories if category not in {score.group for score in there}]
    notes = ()
    if missing:
        notes = (
            f"{name} is the sum of {len(there)} of {len(categories)} categories, so not to be compared: "
            f"{', '.join(missing)} {'is' if len(missing) == 1 else 'are'} missing and not counted as zero",
        )
    value = sum(score.value for score in there) if there else None
    maximum = _MME_CATEGORY_MAXIMUM * len(there)
    return Score(measure, language, name, value, sum(score.total for score in there), maximum, notes)


def judge_scores(judged: Sequence[Judged]) -> list[Score]:
    """LLaVA-Bench's figures of every language, overall and by category.

    ``relative`` is mean(model) / mean(reference) × 100; ``model`` and ``reference`` are those means × 10. A question
    counts only where all its judgements could be read; those that could not are told. Where both orders were judged a
    question's scores are the means of both, and ``position bias`` says by how many points of 10 the answer that stands
    first is preferred. Source: ``LLaVABench_score`` in ``vlmeval/dataset/utils/llavabench.py``.
    """
    scores = []
    for language in dict.fromkeys(each.sample.row.language for each in judged):
        mine = [each for each in judged if each.sample.row.language == language]
        scores += _judge_group(language, "overall", mine)
        for category in JUDGED_CATEGORIES:
            members = [each for each in mine if each.sample.row.category == category]
            if members:
                scores += _judge_group(language, category, members)
    return scores


def _judge_group(language: str, group: str, judged: Sequence[Judged]) -> list[Score]:
    read = [
        [judgement.scores for judgement in each.judgements]
        for each in judged
        if all(judgement.scores is not None for judgement in each.judgements)
    ]
    if not read:
        note = f"none of the {len(judged)} judgements of {group} could be read"
        return [Score("relative", language, group, None, 0, notes=(note,))]
    reference, model = (fmean(pair[side] for pairs in read for pair in pairs) for side in (0, 1))
    relative = 100 * model / reference if reference else None
    notes = _judge_notes(judged, read) if group == "overall" else ()
    scores = [
        Score("relative", language, group, relative, len(read), notes=notes),
        Score("model", language, group, 10 * model, len(read)),
        Score("reference", language, group, 10 * reference, len(read)),
    ]
    if len(read[0]) == 2:
        scores.append(Score("position bias", language, group, _bias(read), len(read)))
    return scores


def _bias(read: Sequence[Sequence[tuple[float, float]]]) -> float:
    """First answer less second, in points of 10; the pairs are (reference, model), the reference first in the first."""
    return fmean(fmean((one[0] - one[1], other[1] - other[0])) for one, other in read)


def _judge_notes(judged: Sequence[Judged], read: Sequence[Sequence[tuple[float, float]]]) -> tuple[str, ...]:
    notes = []
    lost = [each for each in judged if any(judgement.scores is None for judgement in each.judgements)]
    if lost:
        bad = [judgement for each in lost for judgement in each.judgements if judgement.scores is None]
        refused = sum(judgement.text is None for judgement in bad)
        by_category = Counter(each.sample.row.category for each in lost)
        counts = ", ".join(f"{name} {by_category[name]}" for name in JUDGED_CATEGORIES if name in by_category)
        notes.append(
            f"{len(bad) - refused} judgements could not be read and {refused} were refused by the server, so "
            f"{len(lost)} of {len(judged)} questions are not counted ({counts})"
        )
    if read and len(read[0]) == 2:
        turned = sum((one[1] - one[0]) * (other[1] - other[0]) < 0 for one, other in read)
        notes.append(
            f"both orders judged: the answer that stands first gets {_bias(read):+.2f} points of 10, and the better "
            f"one changes with the order in {turned} of {len(read)} questions"
        )
    return tuple(notes)


def all_notes(scores: Iterable[Score]) -> list[str]:
    """Every note once, with its language; those of both extractions are the same."""
    return list(dict.fromkeys(f"{score.language}: {note}" for score in scores for note in score.notes))
