"""The study's report: its tables, its verdicts, its figures as data, and going on from them elsewhere."""

import json
import re
from pathlib import Path

import pytest
from click.testing import CliRunner

from parrot_benchmarks.paper import comparing, tables
from parrot_benchmarks.paper.__main__ import main
from parrot_benchmarks.paper.study import SEEDS, Study, chosen_variants, jobs
from parrot_benchmarks.paper.variants import CLAIMS, OTHERS, VARIANTS, Comparison
from parrot_runtime.errors import InputError
from parrot_runtime.languages import CODES


def study(folder: Path) -> Study:
    return Study(folder, scale=0.25, questions=100)


def canned(name: str, seed: int, right: dict[str, int]) -> dict:
    """A result with ``right`` of 60 four-option questions per language, and ten of everything else, all wrong."""
    cells = []
    for code in CODES:
        for measure, total in (("choice", 60), ("pairs", 20), ("open", 20), ("language", 90)):
            number = right.get(code, 0) if measure == "choice" else 0
            cells.append(
                {
                    "measure": measure,
                    "language": code,
                    "level": "all",
                    "group": "",
                    "right": number,
                    "total": total,
                    "left_out": 0,
                }
            )
            cells.append(cells[-1] | {"level": "category", "group": "colour"})
    return {"variant": name, "seed": seed, "training": VARIANTS[name].training, "cells": cells}  # fmt: skip


def write(where: Study, *results: dict) -> None:
    (where.folder / "results").mkdir(parents=True, exist_ok=True)
    where.keep()
    for result in results:
        where.result(result["variant"], result["seed"]).write_text(json.dumps(result))


def test_tables_of_canned_results(tmp_path):
    mine = study(tmp_path)
    write(mine, *(canned("llava", seed, dict.fromkeys(CODES, right)) for seed, right in ((1, 20), (2, 30), (3, 25))))
    write(mine, *(canned("parrot", seed, dict.fromkeys(OTHERS, right)) for seed, right in ((1, 30), (2, 41), (3, 36))))
    write(mine, canned("llava-english", 1, {"en": 50}))
    done = CliRunner().invoke(main, ["report", "-o", str(tmp_path), "--into", str(tmp_path / "report.md")])
    assert done.exit_code == 0, done.output
    lines = (tmp_path / "report.md").read_text().splitlines()
    # 30, 41 and 36 of 100: mean 35.7, deviation 5.5.
    parrot = next(line for line in lines if line.startswith("| Parrot | 5,000 | 3 |"))
    assert parrot.count("35.7 ± 5.5") == 5
    assert "| *paper, Table 9, MMMB: LLaVA w/ multilingual data* | | | *67.0* | *59.1* |" in "\n".join(lines)
    text = " ".join(" ".join(lines).split())
    # Differences 10, 11, 11: mean 10.67, deviation 0.577, half of the interval 4.303 · 0.577 / √3 = 1.43.
    assert "zh pt ar tr ru): +10.7 points (+9.2 to +12.1, 3 seeds; the paper: +10.2): **holds**." in text
    assert "Multilingual data alone help LLaVA (" in text
    assert "+20.0 points (one seed; the paper: +0.8): **cannot be told**." in text
    said = "Run so far: seed 1 of *LLaVA, English data*, *LLaVA, multilingual data*, *Parrot* alone; seeds 2, 3 of"
    assert f"{said} *LLaVA, multilingual data*, *Parrot* alone." in text
    assert "## d. More data per language" in text
    assert "- Three times the data are better (*3 times the data* less *Parrot*, zh pt ar tr ru): not run." in text


def test_models_that_guess_at_the_options_prove_nothing(tmp_path):
    mine = study(tmp_path)
    # Of 60: a quarter is 15. The large one's interval, 16 ± 2.5, reaches it and one of six answers does not help that.
    for name, rights in {"llm-small": (13, 14, 15), "llm-medium": (14, 15, 16), "llm-large": (15, 16, 17)}.items():
        write(mine, *(canned(name, seed, dict.fromkeys(CODES, right)) for seed, right in enumerate(rights, start=1)))
    results, claim = comparing.results_of(mine), next(each for each in CLAIMS if each.key == "e")
    found = [comparing.difference(results, each) for each in claim.comparisons]
    assert [each.guessed for each in found] == [True, True, False, False]
    assert found[1].interval == (1.0, 1.0)
    assert found[1].verdict == comparing.OPEN
    text = " ".join(tables.document(mine).split())
    assert "3 seeds; the paper: +4.1; at the four options both are no better than guessing): **cannot be told**" in text
    # Where one side does better than guess, the difference counts.
    better = [canned("llm-large", seed, dict.fromkeys(CODES, 30 + seed)) for seed in (1, 2, 3)]
    write(mine, *better)
    assert comparing.difference(comparing.results_of(mine), claim.comparisons[1]).verdict == comparing.HOLDS


def test_the_papers_figures_of_a_difference_are_of_one_table():
    claim = next(each for each in CLAIMS if each.key == "c")
    by_language = {each.languages[0]: each for each in claim.comparisons if len(each.languages) == 1}
    gains = {}
    for code in OTHERS:
        better, worse = comparing.published_pair(claim, by_language[code])
        assert (better["table"], worse["table"]) == ("14", "14")
        gains[code] = round(float(better[code]) - float(worse[code]), 2)
    assert gains == {"zh": 1.46, "pt": 0.06, "ar": 3.07, "tr": 12.40, "ru": 0.35}


def test_results_made_elsewhere_are_taken_and_not_made_again(tmp_path):
    mine, here = study(tmp_path / "mine"), study(tmp_path / "here")
    write(mine, canned("llava", 1, {"tr": 20}), canned("parrot", 1, {"tr": 30}))
    write(here, canned("parrot", 1, {"tr": 31}))
    invoke = CliRunner().invoke
    done = invoke(main, ["report", "-o", str(mine.folder), "--into", str(tmp_path / "report.md")])
    assert done.exit_code == 0, done.output
    figures = str(tmp_path / "report.json")
    assert here.take(Path(figures)) == 1
    plan = ["-o", str(here.folder), "--questions", "100", "--only", "a", "--seeds", "1", "--plan"]
    done = invoke(main, plan)
    assert done.exit_code == 0, done.output
    assert "stage2/llava-english" in done.output
    assert "stage2/llava/1" not in done.output
    found = comparing.results_of(here)
    assert comparing.share(found["llava"][1], ["tr"]) == comparing.share(canned("llava", 1, {"tr": 20}), ["tr"])
    assert comparing.share(found["parrot"][1], ["tr"]) == (31.0, 100)  # what is here already stays
    other = invoke(main, [*plan[:-1], "-o", str(tmp_path / "other"), "--scale", "0.5", "--take", figures])
    assert other.exit_code == 2
    assert "is of a study with" in other.stderr
    refused = invoke(main, [*plan, "--take", figures])
    assert refused.exit_code == 2
    assert "--plan keeps nothing" in refused.stderr


def test_a_report_is_not_replaced_by_one_of_fewer_results(tmp_path):
    mine, here, into = study(tmp_path / "mine"), study(tmp_path / "here"), tmp_path / "report.md"
    write(mine, canned("llava", 1, {"tr": 20}), canned("parrot", 1, {"tr": 30}))
    write(here, canned("parrot", 1, {"tr": 31}))
    invoke = CliRunner().invoke
    assert invoke(main, ["report", "-o", str(mine.folder), "--into", str(into)]).exit_code == 0
    before = into.read_bytes(), into.with_suffix(".json").read_bytes()
    refused = invoke(main, ["report", "-o", str(here.folder), "--into", str(into)])
    assert refused.exit_code == 2
    assert "has 1 results that" in refused.stderr
    assert "--take" in refused.stderr
    # And before hours of training rather than after them.
    start = ["-o", str(here.folder), "--questions", "100", "--seeds", "1", "--report", str(into)]
    refused = invoke(main, [*start, "--only", "d"])
    assert refused.exit_code == 2
    assert "has 1 results that" in refused.stderr
    planned = invoke(main, [*start, "--only", "d", "--plan"])
    assert planned.exit_code == 0, planned.output
    assert (into.read_bytes(), into.with_suffix(".json").read_bytes()) == before
    here.check_report(into, [("llava", 1)])
    here.take(into.with_suffix(".json"))
    assert invoke(main, ["report", "-o", str(here.folder), "--into", str(into)]).exit_code == 0


@pytest.mark.parametrize(
    "change",
    [
        {"variant": "nope"},
        {"variant": "../../evil"},
        {"seed": "1"},
        {"seed": 11},
        {"training": {}},
        {"training": None},
        {"cells": [{"level": "all"}]},
    ],
)
def test_what_is_no_result_is_not_taken(tmp_path, change):
    mine = study(tmp_path / "mine")
    told = {"study": mine.settled, "results": [canned("llava", 1, {}), canned("parrot", 1, {}) | change]}
    (tmp_path / "figures.json").write_text(json.dumps(told))
    with pytest.raises(InputError, match=r"figures\.json: expected the \.json that lies beside a report"):
        mine.take(tmp_path / "figures.json")
    assert [path.name for path in tmp_path.iterdir()] == ["figures.json"]
    (tmp_path / "figures.json").write_text("[]")
    with pytest.raises(InputError, match="expected the"):
        mine.take(tmp_path / "figures.json")


def test_results_of_another_recipe_are_in_no_report(tmp_path):
    mine, other = study(tmp_path), canned("parrot", 1, {})
    other["training"] = other["training"] | {"overrides": ["model.alpha=9"]}
    write(mine, canned("llava", 1, {}), other)
    done = CliRunner().invoke(main, ["report", "-o", str(tmp_path), "--into", str(tmp_path / "report.md")])
    assert done.exit_code == 2
    assert "parrot.1.json: was measured with" in done.stderr
    assert len(done.stderr.strip().splitlines()) == 1
    assert not (tmp_path / "report.md").exists()
    # And in the same words as where they would be gone on with.
    with pytest.raises(InputError) as refused:
        jobs(mine, chosen_variants(()), (1,))
    assert str(refused.value) in done.stderr


def test_more_seeds_than_the_report_has_quantiles_for_are_refused(tmp_path):
    mine = study(tmp_path)
    write(mine, *(canned(name, seed, {"tr": seed}) for name in ("parrot", "llava") for seed in range(1, SEEDS + 1)))
    assert f", {SEEDS} seeds" in tables.document(mine)
    assert "Seeds beyond the first 3 were added after those had been looked at" in tables.document(mine)
    write(mine, canned("parrot", SEEDS + 1, {}), canned("llava", SEEDS + 1, {}))
    with pytest.raises(InputError, match=r"llava\.11\.json: has seed 11; expected 1 to 10"):
        tables.document(mine)
    assert CliRunner().invoke(main, ["--plan", "--seeds", str(SEEDS + 1), "-o", str(tmp_path)]).exit_code == 2


def test_a_damaged_study_is_told(tmp_path):
    write(study(tmp_path), canned("llava", 1, {}))
    (tmp_path / "study.json").write_text('{"scale": 0.25, ')
    done = CliRunner().invoke(main, ["report", "-o", str(tmp_path), "--into", str(tmp_path / "report.md")])
    assert done.exit_code == 2
    assert "study.json: expected scale, questions and settings of a study" in done.stderr


def test_rows_that_guess_are_said_to(tmp_path):
    mine = study(tmp_path)
    write(mine, canned("llava", 1, dict.fromkeys(CODES, 16)), canned("parrot", 1, dict.fromkeys(CODES, 25)))
    text = tables.document(mine)
    # 96 and 150 of 360: 26.7 per cent, 22.4 to 31.5, and 41.7, 36.7 to 46.8.
    assert "**At the four options no better than guessing**, 25 per cent: LLaVA, multilingual data." in text
    assert "guessing**, 25 per cent: LLaVA, multilingual data; Parrot" not in text


def test_columns_say_how_many_the_largest_row_has(tmp_path):
    mine, fewer = study(tmp_path), canned("llava-english", 1, {"en": 50})
    for cell in fewer["cells"]:
        cell["total"] -= cell["measure"] == "language"
    write(mine, fewer, canned("llava", 1, {"en": 20}))
    assert "language asked (540)" in tables.document(mine)


def test_verdicts_need_seeds_that_agree(tmp_path):
    mine = study(tmp_path)
    for seed, (first, second) in enumerate(((30, 10), (10, 12), (20, 19)), 1):
        write(mine, canned("parrot", seed, {"tr": first}), canned("llava", seed, {"tr": second}))
    results = comparing.results_of(mine)
    assert comparing.difference(results, Comparison("parrot", "llava", "x", ("tr",))).verdict == comparing.OPEN
    assert comparing.difference(results, Comparison("parrot", "swiglu")) is None
    assert comparing.difference(results, Comparison("parrot", "llava", "x", ("tr",), "open, exact")).points == (0, 0, 0)
    assert comparing.Difference((-3.0, -3.1, -2.9)).verdict == comparing.NOT
    assert comparing.Difference((3.0,)).verdict == comparing.OPEN


def test_a_table_is_of_the_seeds_that_all_its_rows_have(tmp_path):
    mine = study(tmp_path)
    for seed, right in ((1, 30), (2, 40), (3, 5)):
        write(mine, canned("parrot", seed, dict.fromkeys(CODES, right)))
        if seed < 3:
            write(mine, canned("llava", seed, dict.fromkeys(CODES, 20)))
    text = tables.document(mine)
    assert "| Parrot | 5,000 | 2 | 35.0 ± 7.1 |" in text
    assert "| Parrot | 5,000 | 3 |" in text  # where no other row has fewer
    write(mine, canned("one-expert", 3, dict.fromkeys(CODES, 20)))
    assert "| one expert, six times as wide | 5,000 | 1 | 20.0 |" in tables.document(mine)


def test_what_was_not_asked_is_a_dash(tmp_path):
    mine = study(tmp_path)
    results = [canned(name, seed, {"zh": 20 + seed}) for name in ("parrot", "llava") for seed in (1, 2)]
    for result in results:
        for cell in result["cells"]:
            if cell["measure"] == "pairs" or (cell["language"], cell["measure"]) != ("zh", "choice"):
                cell["total"] = 0
    write(mine, *results)
    text = tables.document(mine)
    # 21 and 22 of 60: 35 and 36.67 per cent. English was not asked, nor were Yes/No pairs.
    assert "| LLaVA, multilingual data | 5,000 | 2 | – | 35.8 ± 1.2 | – | – | – | – | 35.8 ± 1.2 |" in text
    assert "| LLaVA, multilingual data | 35.8 ± 1.2 | – | – | – |" in text
    assert not re.search(r"\bnan\b", text)
    found = comparing.results_of(mine)
    assert comparing.difference(found, Comparison("parrot", "llava", "x", ("zh", "tr"))).points == (0.0, 0.0)
    nothing = comparing.difference(found, Comparison("parrot", "llava", "x", ("tr",)))
    assert (nothing.points, nothing.interval, nothing.verdict) == ((), None, comparing.OPEN)
    claim = next(claim for claim in CLAIMS if claim.key == "a")
    told = tables._sentence(claim, Comparison("parrot", "llava", "x", ("tr",)), nothing, nothing.verdict)
    assert told == "X (*Parrot* less *LLaVA, multilingual data*, tr): – points (no questions): **cannot be told**."
