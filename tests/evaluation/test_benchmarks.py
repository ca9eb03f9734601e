from pathlib import Path

import pytest

from parrot_evaluation.benchmarks import BENCHMARKS, choose_languages, find_benchmark, find_files
from parrot_runtime.errors import InputError
from parrot_runtime.languages import CODES


def test_names_are_found_in_any_case() -> None:
    assert find_benchmark("mmmb") is BENCHMARKS["MMMB"]
    assert find_benchmark("MMBENCH_DEV") is BENCHMARKS["MMBench_dev"]


def test_the_kits_names_are_known_too() -> None:
    assert find_benchmark("SEEDBench_IMG") is BENCHMARKS["SEED-Bench"]
    assert find_benchmark("llavabench") is BENCHMARKS["LLaVA-Bench"]
    assert find_benchmark("ScienceQA_TEST") is BENCHMARKS["ScienceQA"]


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


def test_of_names_that_differ_in_case_the_exact_one_is_taken(tmp_path: Path) -> None:
    for name in ("MMBench_DEV_EN.tsv", "mmbench_dev_EN.tsv"):
        (tmp_path / name).touch()
    if len(list(tmp_path.iterdir())) == 1:
        pytest.skip("this file system knows no case")
    benchmark = BENCHMARKS["MMBench_dev"]
    said = r"MMBench_DEV_EN\.tsv and mmbench_dev_EN\.tsv differ only in case.*call the right one mmbench_dev_en\.tsv"
    with pytest.raises(InputError, match=said):
        find_files(benchmark, tmp_path, ("en",))
    (tmp_path / "mmbench_dev_en.tsv").touch()
    assert find_files(benchmark, tmp_path, ("en",))["en"].name == "mmbench_dev_en.tsv"
    # Those of other languages are nobody's business.
    (tmp_path / "mmbench_dev_en.tsv").unlink()
    (tmp_path / "MMBENCH_dev_tr.tsv").touch()
    assert find_files(benchmark, tmp_path, ("tr",))["tr"].name == "MMBENCH_dev_tr.tsv"


def test_every_missing_file_is_named(tmp_path: Path) -> None:
    (tmp_path / "mmmb_en.tsv").touch()
    with pytest.raises(InputError, match=r"mmmb_cn.tsv, mmmb_pt.tsv, mmmb_ar.tsv, mmmb_tr.tsv, mmmb_ru.tsv are not"):
        find_files(BENCHMARKS["MMMB"], tmp_path, CODES)
    with pytest.raises(InputError, match="no such folder"):
        find_files(BENCHMARKS["MMMB"], tmp_path / "nowhere", CODES)


@pytest.mark.parametrize(
    ("name", "file"),
    [
        ("MME", "MME.tsv"),
        ("MMStar", "MMStar.tsv"),
        ("ScienceQA", "ScienceQA_TEST.tsv"),
        ("RealWorldQA", "RealWorldQA.tsv"),
        ("SEED-Bench", "SEEDBench_IMG.tsv"),
        ("LLaVA-Bench", "LLaVABench.tsv"),
    ],
)
def test_an_english_benchmark_takes_its_published_file_and_translations_beside_it(
    tmp_path: Path, name: str, file: str
) -> None:
    benchmark = find_benchmark(name)
    (tmp_path / file).touch()
    assert choose_languages(benchmark, None, tmp_path) == ("en",)
    assert find_files(benchmark, tmp_path, ("en",))["en"].name == file
    for code in ("cn", "TR"):
        (tmp_path / file.replace(".tsv", f"_{code}.tsv")).touch()
    assert choose_languages(benchmark, None, tmp_path) == ("en", "zh", "tr")
    assert choose_languages(benchmark, "tr", tmp_path) == ("tr",)
    assert find_files(benchmark, tmp_path, ("zh", "tr"))["tr"].name.endswith("_TR.tsv")
    with pytest.raises(InputError, match=f"{file.replace('.tsv', '_ru.tsv')} is not there"):
        find_files(benchmark, tmp_path, choose_languages(benchmark, "en,ru", tmp_path))


def test_an_empty_folder_lacks_the_english_file(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"MME\.tsv is not there"):
        find_files(BENCHMARKS["MME"], tmp_path, choose_languages(BENCHMARKS["MME"], None, tmp_path))


def test_a_benchmark_of_six_languages_wants_all_six(tmp_path: Path) -> None:
    (tmp_path / "mmmb_en.tsv").touch()
    assert choose_languages(BENCHMARKS["MMMB"], None, tmp_path) == CODES


def test_mmmb_names_both_scorings_in_every_table() -> None:
    headings = [measure.heading for measure in BENCHMARKS["MMMB"].measures]
    assert headings == ["kit scoring", "kit scoring (kit)", "paper scoring", "paper scoring (kit)", "open", "language"]


@pytest.mark.parametrize(
    "benchmark", [each for each in BENCHMARKS.values() if each.form == "text"], ids=lambda each: each.name
)
def test_every_kind_of_row_that_is_asked_is_counted(benchmark) -> None:
    counted = {kind for measure in benchmark.measures if measure.judge != "language" for kind in measure.kinds}
    assert counted == {"choice", "yes_no", "open"}
