from pathlib import Path

import pytest

from parrot_evaluation.benchmarks import BENCHMARKS, find_benchmark, find_files
from parrot_runtime.errors import InputError
from parrot_runtime.languages import CODES


def test_names_are_found_in_any_case() -> None:
    assert find_benchmark("mmmb") is BENCHMARKS["MMMB"]
    assert find_benchmark("MMBENCH_DEV") is BENCHMARKS["MMBench_dev"]


def test_a_misspelt_name_gets_the_nearest() -> None:
    with pytest.raises(InputError, match=r"no benchmark 'nanno'; known are nano, .*did you mean 'nano'"):
        find_benchmark("nanno")


@pytest.mark.parametrize("benchmark", BENCHMARKS.values(), ids=BENCHMARKS)
def test_definitions_hold_together(benchmark) -> None:
    names = [measure.name for measure in benchmark.measures]
    assert len(set(names)) == len(names)
    assert len({measure.heading for measure in benchmark.measures}) == len(names)
    assert benchmark.file.format(code="tr").endswith("_tr.tsv")
    # select() keeps whole units together, of one kind only.
    assert len({measure.unit for measure in benchmark.measures} - {"row"}) <= 1
    assert (benchmark.licence is None) == (benchmark.source is None)


@pytest.mark.parametrize(("name", "scorings"), [("nano", ("kit", "paper")), ("MMMB", ("kit", "paper"))])
def test_both_scorings_are_offered_and_named(name: str, scorings: tuple[str, ...]) -> None:
    explanations = " ".join(measure.explanation for measure in BENCHMARKS[name].measures)
    assert all(f"{scoring} scoring" in explanations for scoring in scorings)


def test_files_in_the_folders_own_case(tmp_path: Path) -> None:
    for name in ("MMMB_CN.tsv", "mmmb_en.TSV", "mmmb_ar.tsv", "notes.txt"):
        (tmp_path / name).touch()
    found = find_files(BENCHMARKS["MMMB"], tmp_path, ("en", "zh", "ar"))
    assert {code: path.name for code, path in found.items()} == {
        "en": "mmmb_en.TSV",
        "zh": "MMMB_CN.tsv",
        "ar": "mmmb_ar.tsv",
    }


def test_every_missing_file_is_named(tmp_path: Path) -> None:
    (tmp_path / "mmmb_en.tsv").touch()
    with pytest.raises(InputError, match=r"mmmb_cn.tsv, mmmb_pt.tsv, mmmb_ar.tsv, mmmb_tr.tsv, mmmb_ru.tsv are not"):
        find_files(BENCHMARKS["MMMB"], tmp_path, CODES)
    with pytest.raises(InputError, match="no such folder"):
        find_files(BENCHMARKS["MMMB"], tmp_path / "nowhere", CODES)
