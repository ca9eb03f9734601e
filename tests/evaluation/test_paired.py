"""The paired test and its interval, against published examples, exact fractions and a likelihood of our own."""

import math
import random
from fractions import Fraction

import pytest
from saved_runs import row_of, save_run
from tsv_files import COLUMNS, choice, open_row, picture, yes_no

from parrot_evaluation.benchmarks import BENCHMARKS
from parrot_evaluation.paired import Paired, holm, mcnemar, outcomes, pair, tango
from parrot_evaluation.results import read_results
from parrot_evaluation.scoring import count
from parrot_runtime.errors import InputError

Z = 1.959963984540054


def exact(first: int, second: int) -> Fraction:
    """Twice the smaller tail, by walking the coin's throws one at a time."""
    chances = [Fraction(1)]
    for _ in range(first + second):
        chances = [(a + b) / 2 for a, b in zip([*chances, 0], [0, *chances], strict=True)]
    return min(Fraction(1), 2 * sum(chances[: min(first, second) + 1]))


@pytest.mark.parametrize("counts", [(0, 0), (0, 1), (1, 0), (3, 3), (0, 9), (6, 16), (40, 20), (7, 1)])
def test_mcnemar_is_the_binomials_two_tails(counts: tuple[int, int]) -> None:
    assert mcnemar(*counts) == pytest.approx(float(exact(*counts)), rel=1e-14)
    assert mcnemar(*counts) == mcnemar(*reversed(counts))


def test_mcnemar_against_scipy() -> None:
    stats = pytest.importorskip("scipy.stats", reason="scipy is not installed")
    draw = random.Random(5)
    for _ in range(40):
        first, second = draw.randrange(200), draw.randrange(1, 200)
        # scipy's sums are rounded floats, ours integers divided once.
        assert mcnemar(first, second) == pytest.approx(stats.binomtest(first, first + second).pvalue, rel=1e-9)


def test_thousands_of_discordant_rows_neither_overflow_nor_vanish() -> None:
    assert 0 < mcnemar(900, 1200) < 1e-9
    assert mcnemar(3000, 3000) == 1


# Complete response before and after consolidation therapy (Cavo et al., The Lancet 376, 2010), as worked out in
# Fagerland, Lydersen and Laake, "Statistical Analysis of Contingency Tables" (2017), chapter 8.
CAVO = Paired(both=59, first_only=6, second_only=16, neither=80)


def test_the_published_example() -> None:
    assert CAVO.p == pytest.approx(0.052479, abs=5e-7)
    assert CAVO.points == pytest.approx(6.21, abs=0.005)
    assert CAVO.interval == pytest.approx((0.54, 12.40), abs=0.005)
    assert CAVO.shares == pytest.approx((100 * 65 / 161, 100 * 75 / 161))


def score(more: int, less: int, total: int, difference: float) -> float:
    """The score statistic with its variance at the likeliest shares of that difference, found by trying them all."""

    def likelihood(against: float) -> float:
        shares = ((more, against + difference), (less, against), (total - more - less, 1 - 2 * against - difference))
        if any(share < 0 or (share == 0 and n) for n, share in shares):
            return -math.inf
        return sum(n * math.log(share) for n, share in shares if n)

    low, high = max(0.0, -difference), (1 - difference) / 2
    for _ in range(60):  # the likelihood has one top: a third falls away each time
        one, other = low + (high - low) / 3, high - (high - low) / 3
        low, high = (one, high) if likelihood(one) < likelihood(other) else (low, other)
    against = (low + high) / 2
    variance = total * (2 * against + difference - difference**2)
    return (more - less - total * difference) / math.sqrt(variance)


@pytest.mark.parametrize("counts", [(16, 6, 161), (3, 9, 40), (20, 40, 160), (1, 5, 33), (2, 2, 17)])
def test_at_tangos_limits_the_score_statistic_is_the_normals_quantile(counts: tuple[int, int, int]) -> None:
    low, high = tango(*counts)
    # The thirds stop at a share of 1e-10, of which the statistic makes a little more.
    assert score(*counts, low) == pytest.approx(Z, abs=1e-4)
    assert score(*counts, high) == pytest.approx(-Z, abs=1e-4)


def test_tangos_interval_turns_with_the_runs_and_stays_inside() -> None:
    for counts in ((4, 9, 50), (0, 0, 7), (0, 7, 7), (12, 0, 12), (1, 0, 1)):
        low, high = tango(*counts)
        more, less, total = counts
        assert -1 <= low <= (more - less) / total <= high <= 1
        assert tango(less, more, total) == pytest.approx((-high, -low), abs=1e-9)


def test_without_discordant_units_it_is_wilsons_interval_of_none() -> None:
    """Tango, section 3: with b = c = 0 the limits are ± z² / (n + z²)."""
    low, high = tango(0, 0, 34)
    assert (-low, high) == pytest.approx((Z**2 / (34 + Z**2),) * 2, abs=1e-9)


def test_holm() -> None:
    # By hand: 4·0.01, then 3·0.02, 2·0.03 and 0.04, none below the one before it.
    assert holm([0.03, 0.01, 0.04, 0.02]) == pytest.approx([0.06, 0.04, 0.06, 0.06])
    assert holm([0.6, 0.7]) == [1.0, 1.0]
    assert holm([]) == []


ROWS = {
    "nano": [
        *(choice("B", category="colour") for _ in range(6)),
        *(yes_no("AB"[n % 2], image=picture(50 + n // 2)) for n in range(9)),
        open_row("red"),
        open_row("here"),
    ],
    "MMMB": [
        *(choice("ABCD"[n % 4]) for n in range(7)),
        *(yes_no("AB"[n % 2], image=picture(50 + n // 2)) for n in range(7)),
    ],
    "MMBench_dev": [choice("ABCD"[n % 4], index=n % 5 + 10**6 * (n // 5)) for n in range(15)]
    + [choice("A", index=77 + 10**6)],
    "MME": [
        {"answer": ("Yes", "No")[n % 2], "category": f"part {n // 6}", "image": picture(n // 2 % 3), "image_path": path}
        for n in range(12)
        for path in ["", f"{n // 2}.png"][n // 6 :][:1]
    ]
    + [{"answer": "Yes", "category": "part 1", "image": picture(77)}],
}


@pytest.mark.parametrize("benchmark", ROWS)
def test_units_are_those_that_are_counted(benchmark: str, make_tsv, tmp_path) -> None:
    columns = [*COLUMNS, "image_path"]
    file = make_tsv(BENCHMARKS[benchmark].file.format(code="en"), ROWS[benchmark], columns)
    draw = random.Random(7)
    words = ["A", "B", "C", "a", "Yes", "red", "The red one is here", "Kırmızı olan burada duruyor"]
    _, samples = save_run(tmp_path / "run", [file], lambda question: draw.choice(words), benchmark=benchmark)
    (result,) = read_results([str(tmp_path / "run")])
    for measure in BENCHMARKS[benchmark].measures:
        right, total, _ = count(measure, samples)
        found = outcomes(measure, result.samples)
        assert (sum(found.values()), len(found)) == (right, total), measure.name
    assert {measure.unit for measure in BENCHMARKS[benchmark].measures} - {
        "row"
    }  # a unit of several rows is among them


def test_only_units_of_both_runs_count(make_tsv, tmp_path) -> None:
    first = {"1": True, "2": False, "3": True, "4": True, "only first": True}
    second = {"1": True, "2": True, "3": False, "4": False, "only second": True}
    assert pair(first, second) == Paired(both=1, first_only=2, second_only=1, neither=0)
    assert pair({"1": True}, {"2": True}) is None


def test_samples_of_an_older_version_cannot_be_paired() -> None:
    (pairs,) = (measure for measure in BENCHMARKS["nano"].measures if measure.name == "pairs")
    sample = {"kind": "yes_no", "image_id": "x", "index": "1", "right": True}
    with pytest.raises(InputError, match="run parrot-eval again"):
        outcomes(pairs, [sample])


def test_a_pair_is_one_unit(make_tsv, tmp_path) -> None:
    one = picture(1)
    file = make_tsv("nano_en.tsv", [yes_no("A", image=one), yes_no("B", image=one)])
    for name, answers in (("a", "AA"), ("b", "AB")):
        save_run(tmp_path / name, [file], lambda question, given=answers: given[int(row_of(question))])
    first, second = read_results([f"a={tmp_path / 'a'}", f"b={tmp_path / 'b'}"])
    pairs = next(measure for measure in BENCHMARKS["nano"].measures if measure.name == "pairs")
    assert pair(outcomes(pairs, first.samples), outcomes(pairs, second.samples)) == Paired(0, 0, 1, 0)
