"""The study of the paper's claims: what it plans, how it translates, and that a killed one goes on."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from click.testing import CliRunner

from parrot_benchmarks.paper import comparing, runner
from parrot_benchmarks.paper.__main__ import main
from parrot_benchmarks.paper.job import overrides
from parrot_benchmarks.paper.job import run as run_job
from parrot_benchmarks.paper.study import Study, chosen_variants, conversations, jobs, output
from parrot_benchmarks.paper.variants import CLAIMS, VARIANTS
from parrot_runtime.errors import InputError, ParrotError
from parrot_runtime.languages import CODES
from parrot_train.config_files import load_config


def study(folder: Path, **changes) -> Study:
    return Study(folder, **{"scale": 0.25, "questions": 100} | changes)


# --- the variants ---------------------------------------------------------------------------------------------------
@pytest.mark.parametrize("variant", VARIANTS.values(), ids=lambda variant: variant.name)
def test_the_settings_of_every_variant_load(tmp_path, variant):
    config = load_config("nano", overrides(study(tmp_path), variant, 7))
    assert (config.stage1.seed, config.stage2.seed) == (7, 7)
    assert config.model.experts == (1 if variant.name == "one-expert" else 0 if "LLaVA" in variant.title else 6)
    spoken = [Path(file).stem.rpartition("-")[0] for file in config.data.stage2]
    assert set(spoken) == {"en", *variant.languages}
    assert all(spoken.count(code) == variant.times for code in variant.languages)


def test_every_name_in_a_claim_is_a_variant_and_every_row_of_the_paper_is_there():
    used = set()
    for claim in CLAIMS:
        compared = {name for each in claim.comparisons for name in (each.better, each.worse)}
        assert compared <= set(claim.rows) <= VARIANTS.keys()
        assert claim.paper.keys() <= set(claim.rows)
        used |= set(claim.rows)
        for name, named in claim.paper.items():
            assert [bool(row["en"]) for row in comparing.published(claim, name)] == [True] * len(named)
    assert used == VARIANTS.keys()


def test_one_expert_has_the_weights_of_six():
    sizes = {name: load_config("nano", VARIANTS[name].overrides).model for name in ("parrot", "one-expert")}
    assert len({size.experts * size.expert_intermediate_size for size in sizes.values()}) == 1


def test_a_stage_1_for_each_start_and_seed_and_a_model_for_each_training(tmp_path):
    made = jobs(study(tmp_path), chosen_variants(()), (1, 2))
    names = [job.name for job in made]
    assert len(set(names)) == len(names)
    assert sum(job.kind == "stage1" for job in made) == 2 * 5  # two encoders, three LLMs beside the shipped one
    assert sum(job.kind in ("encoder", "llm") for job in made) == 4
    models = [job for job in made if job.kind == "stage2"]
    assert sorted(name for job in models if job.seed == 1 for name in job.what.split("+")) == sorted(VARIANTS)
    (shared,) = (job for job in models if job.seed == 2 and "translated-0.1" in job.what)
    assert shared.what == "llava-english+translated-0+translated-0.1+translated-0.3"
    for job in made:
        assert all(names.index(need.name) < names.index(job.name) for need in job.needs)


def test_amounts_of_data_are_those_the_titles_say(tmp_path):
    asked = {name: conversations(study(tmp_path), VARIANTS[name]) for name in VARIANTS}
    assert (asked["llava-english"], asked["parrot"]) == (3000, 5000)  # a quarter of nano's 20,000, 60 % English
    assert asked["llava-english-more"] == asked["llava"] == asked["llm-small"]
    assert asked["parrot-7x"] == 3000 + 7 * 2000


def test_a_result_of_another_recipe_or_study_is_refused(tmp_path):
    mine, parrot = study(tmp_path), VARIANTS["parrot"]
    mine.keep()
    mine.keep()
    with pytest.raises(InputError, match="holds a study with"):
        study(tmp_path, scale=0.5).keep()
    mine.result("parrot", 1).parent.mkdir()
    mine.result("parrot", 1).write_text(json.dumps({"training": parrot.training}))
    assert not any("parrot" in job.what for job in jobs(mine, [parrot], (1,)))
    mine.result("parrot", 1).write_text(json.dumps({"training": parrot.training | {"times": 3}}))
    with pytest.raises(InputError, match="was measured with"):
        jobs(mine, [parrot], (1,))


def keep(where: Study, name: str, seed: int = 1) -> None:
    where.keep_result({"variant": name, "seed": seed, "training": VARIANTS[name].training})


SHARED = ("llava-english", "translated-0", "translated-0.1", "translated-0.3")


def test_a_stage_2_has_one_folder_however_many_of_its_variants_are_answered(tmp_path):
    mine, variants = study(tmp_path), [VARIANTS[name] for name in SHARED]
    folders = set()
    for done, name in enumerate(SHARED):
        last = jobs(mine, variants, (1,))[-1]
        assert last.what == "+".join(SHARED[done:])
        folders.add(output(mine, last))
        keep(mine, name)
    assert folders == {mine.work / "stage2-llava-english-1"}
    assert output(mine, jobs(mine, variants, (2,))[-1]) not in folders
    every = [output(mine, each) for each in jobs(study(tmp_path / "new"), chosen_variants(()), (1, 2))]
    assert len(set(every)) == len(every)


def test_variants_whose_result_is_there_are_not_answered_again(tmp_path, monkeypatch):
    mine, trained, answered = study(tmp_path), [], []

    def train(_study, variant, _stage, _seed, folder):
        folder.mkdir(parents=True)
        trained.append(variant.name)
        return dict.fromkeys(("samples", "languages", "parameters", "steps", "loss"), 0)

    monkeypatch.setattr("parrot_benchmarks.paper.job._train", train)
    monkeypatch.setattr("parrot_benchmarks.paper.answering.open_checkpoint", lambda folder, *, max_new_tokens: None)

    def measured(variant, *_, **__):
        answered.append(variant.name)
        return []

    monkeypatch.setattr("parrot_benchmarks.paper.answering.measured", measured)
    last = jobs(mine, [VARIANTS[name] for name in SHARED], (1,))[-1]
    for name in SHARED[:2]:
        keep(mine, name)
    for _ in range(2):  # the second time there is nothing left to do
        run_job(mine, last, lambda line: None)
        assert answered == list(SHARED[2:])
        assert len(trained) == 1
    assert not output(mine, last).exists()


def test_weights_that_no_variant_needs_are_leftovers(tmp_path):
    mine = study(tmp_path)
    left, others = mine.stage2("translated-0.3", 1), [mine.stage2("parrot", 1), mine.work / "stage2-of-my-own"]
    for folder in (left, *others):
        folder.mkdir(parents=True)
    for name in SHARED:
        runner._remove_leftovers(mine)
        assert left.is_dir()
        keep(mine, name)
    runner._remove_leftovers(mine)
    assert not left.exists()
    assert all(folder.is_dir() for folder in others)


def test_the_plan_says_what_and_how_long_and_does_nothing(tmp_path):
    result = CliRunner().invoke(main, ["--plan", "--only", "a", "--workers", "2", "-o", str(tmp_path / "study")])
    assert result.exit_code == 0, result.output
    assert "stage2/parrot/3: 5000 conversations" in result.output
    assert " on 2" in result.output.splitlines()[-1]
    assert not (tmp_path / "study").exists()
    refused = CliRunner().invoke(main, ["--only", "z", "--plan", "-o", str(tmp_path / "study")])
    assert refused.exit_code == 2
    assert "known are a, b, c, d, e, f, g, h" in refused.output
    assert CliRunner().invoke(main, ["--plan", "--set", "nonsense", "-o", str(tmp_path / "study")]).exit_code == 2
    study(tmp_path).keep()
    refused = CliRunner().invoke(main, ["--plan", "--questions", "5", "-o", str(tmp_path)])
    assert refused.exit_code == 2
    assert "holds a study with" in refused.output


# --- running it -----------------------------------------------------------------------------------------------------
_TINY = ("stage1.max_steps=6", "stage1.global_batch=4", "stage1.micro_batch=4", "stage1.save_steps=1")
_TINY += ("stage2.max_steps=2", "stage2.global_batch=4", "stage2.micro_batch=4")
_DRIVER = """
import sys
from pathlib import Path
from parrot_benchmarks.paper import runner
from parrot_benchmarks.paper.study import Study, jobs
from parrot_benchmarks.paper.variants import VARIANTS
study = Study.read(Path(sys.argv[1]))
todo = jobs(study, [VARIANTS["parrot-english"]], (1,))
runner.run(study, todo, workers=1, note=lambda line: print(line, flush=True))
"""


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_a_killed_study_goes_on_keeps_its_results_and_no_weights(tmp_path, nano_questions):
    mine = study(tmp_path / "study", scale=0.002, questions=4, settings=_TINY)
    mine.keep()
    mine.work.mkdir()
    (mine.work / "questions-nano").symlink_to(nano_questions)
    command = [sys.executable, "-c", _DRIVER, str(mine.folder)]
    process = subprocess.Popen(command, env=os.environ | {"OMP_NUM_THREADS": "1"}, stdout=subprocess.DEVNULL)
    run = mine.stage1("english", "shipped", 1)
    try:
        _wait(lambda: list(run.glob("checkpoints/checkpoint-*/trainer_state.json")))
    finally:
        process.kill()
        process.wait()
    assert not list((mine.folder / "results").glob("*"))

    # At once: the job that the runner left behind ends and saves what it has, and is waited for.
    done = subprocess.run(command, capture_output=True, text=True, timeout=600, check=False)
    assert done.returncode == 0, done.stderr + done.stdout
    assert "stage2/parrot-english/1" in done.stdout
    assert "goes on from" in (mine.work / "logs" / "stage1-english+shipped-1.log").read_text()
    result = json.loads(mine.result("parrot-english", 1).read_text())
    assert result["steps"] == 2
    assert {cell["language"] for cell in result["cells"]} == set(CODES)
    assert comparing.share(result, CODES)[1] >= 6 * 4 / 2  # a Yes/No pair is two questions
    assert not list(mine.work.glob("stage*"))
    assert jobs(mine, [VARIANTS["parrot-english"]], (1,)) == []


def _wait(condition, seconds: float = 300) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.1)


def test_a_job_that_fails_is_told_and_keeps_only_those_that_need_it(tmp_path):
    mine = study(tmp_path, scale=0.0001, settings=("stage1.learning_rate=-1",))
    mine.keep()
    variants, notes = [VARIANTS["parrot-english"]], []
    waiting = [job for job in jobs(mine, variants, (1,)) if job.kind != "questions"]
    before = signal.getsignal(signal.SIGTERM)
    with pytest.raises(ParrotError, match="stage1/english\\+shipped/1: failed"):
        runner.run(mine, waiting, workers=1, note=notes.append)
    assert any("learning_rate is -1" in note for note in notes)
    assert not mine.result("parrot-english", 1).exists()
    assert signal.getsignal(signal.SIGTERM) is before


@pytest.mark.parametrize(("failing", "kept"), [("", False), ("stage2/parrot/1", True), ("data/tr-0/1", True)])
def test_a_stage_1_stays_as_long_as_a_job_that_failed_needs_it(tmp_path, monkeypatch, failing, kept):
    mine = study(tmp_path)
    mine.keep()
    (run := mine.stage1("english", "shipped", 1)).mkdir(parents=True)
    (run / "run.json").write_text('{"status": "finished"}')
    # Parrot, which fails or whose data do, goes first; English data alone go on, and are done last.
    waiting = jobs(mine, [VARIANTS["parrot"], VARIANTS["parrot-english"]], (1,))
    assert not any(job.kind == "stage1" for job in waiting)

    def start(_study, job, _lock):
        code = int(job.name == failing)
        process = subprocess.Popen([sys.executable, "-S", "-c", f"raise SystemExit({code})"])
        return runner._Running(job, process, time.monotonic())

    monkeypatch.setattr(runner, "_start", start)
    monkeypatch.setattr(runner, "_last_line", lambda *_: "why")
    notes = []
    if failing:
        with pytest.raises(ParrotError, match=f"{failing}: failed"):
            runner.run(mine, waiting, workers=1, note=notes.append)
    else:
        runner.run(mine, waiting, workers=1, note=notes.append)
    assert any("stage2/parrot-english/1: " in note for note in notes)
    assert run.is_dir() is kept
