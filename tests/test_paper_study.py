"""The study of the paper's claims: what it plans, how it translates, and that a killed one goes on."""

import json
import os
import random
import signal
import subprocess
import sys
import time
from itertools import islice
from pathlib import Path

import pytest
import torch
from click.testing import CliRunner

from parrot_benchmarks.paper import runner, tables
from parrot_benchmarks.paper.__main__ import main
from parrot_benchmarks.paper.answering import translating
from parrot_benchmarks.paper.backbones import folder_of, make_encoder, make_language_model
from parrot_benchmarks.paper.dictionary import FORMS, Dictionary
from parrot_benchmarks.paper.job import overrides
from parrot_benchmarks.paper.mixtures import installed, question_mask
from parrot_benchmarks.paper.study import Study, chosen_variants, conversations, jobs
from parrot_benchmarks.paper.variants import CLAIMS, OTHERS, VARIANTS, Variant
from parrot_evaluation.benchmarks import find_benchmark
from parrot_evaluation.prompts import prompt
from parrot_evaluation.runner import Question
from parrot_evaluation.text import normalise
from parrot_evaluation.tsv import read_tsv
from parrot_runtime.errors import InputError, ParrotError
from parrot_runtime.languages import CODES
from parrot_runtime.prompt import PromptEncoder, Turn
from parrot_train.config_files import load_config
from parrot_train.model.configuration import ParrotConfig
from parrot_train.nano.backbones import shipped
from parrot_train.nano.grammar import GRAMMARS
from parrot_train.nano.questions import value_question
from parrot_train.nano.scenes import scenes
from parrot_train.nano.vision_backbone import words
from parrot_train.nano.write import ensure_evaluation


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
        for name in claim.paper:
            assert tables.published(claim, name)["en"]
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


# --- translation ----------------------------------------------------------------------------------------------------
def test_without_faults_lists_come_back_as_the_language_says_them():
    for code in OTHERS:
        dictionary, checked = Dictionary(code, 0.0, 1), 0
        for number, scene in enumerate(islice(scenes("held-out", seed="dictionary"), 40)):
            for name in ("object", "describe", "report", "background", "at_position", "position"):
                pair = [value_question(name, "open", scene, GRAMMARS[c], random.Random(number)) for c in ("en", code)]
                if None not in pair:
                    assert normalise(dictionary.answer(pair[0].answer)) == normalise(pair[1].answer)
                    checked += 1
        assert checked > 150


def test_the_stated_share_of_words_is_wrong_or_missing():
    assert len(FORMS) == 61
    dictionary = Dictionary("tr", 0.3, 1)
    for faults in (dictionary.to_english, dictionary.from_english):
        assert len(faults) == 18
        assert sum(other is None for other in faults.values()) == 9
        assert all(other is None or (other[0] == word[0] and other != word) for word, other in faults.items())
    assert dictionary.to_english != dictionary.from_english


def test_a_wrong_word_is_another_and_a_missing_one_stays():
    dictionary = Dictionary("tr", 0.0, 1)
    dictionary.from_english |= {("kind", 0): ("kind", 2), ("kind", 8): None}  # apple → pear, car missing
    dictionary.to_english |= {("kind", 0): ("kind", 2), ("kind", 8): None}
    assert dictionary.answer("An apple.") == "Bir armut."
    assert dictionary.answer("A red apple and two blue cats.") == "Kırmızı bir armut ve iki mavi kedi."
    assert dictionary.answer("A car.") == "A car."
    assert dictionary.answer("It is a secret.") == "It is a secret."
    assert dictionary._read("Is there an apple in the picture?") == "Is there a pear in the picture?"
    assert "araba" in dictionary._read("Where is the car?")


@pytest.fixture(scope="module")
def questions(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("questions")
    ensure_evaluation(folder / "nano")
    return folder / "nano"


def test_a_model_is_asked_in_english_and_letters_are_left_alone(questions):
    benchmark = find_benchmark("nano")
    read = [read_tsv(questions / f"nano_{code}.tsv") for code in ("en", "ru")]
    put = []

    def ask(batch):
        put.extend(batch)
        return ["B" if "\nA. " in question.text else "A red apple." for question in batch]

    assert all(row.kind for row in read[0].rows)  # what a row works out and keeps must not be in the way
    translated = translating(ask, benchmark, read, 0.0, 1)
    rows = [next(row for row in read[1].rows if bool(row.options) == choice) for choice in (True, False)]
    asked = [Question(b"", prompt(row, benchmark), "ru", "") for row in rows]
    assert list(translated(asked)) == ["B", "Красное яблоко."]
    english = {row.index: row for row in read[0].rows}
    assert [question.text for question in put] == [prompt(english[row.index], benchmark) for row in rows]


# --- forms of the mixture -------------------------------------------------------------------------------------------
def small_model():
    from parrot_train.model import ParrotForConditionalGeneration

    torch.manual_seed(0)
    vision = {"hidden_size": 8, "intermediate_size": 8, "num_hidden_layers": 2, "num_attention_heads": 2}
    vision |= {"image_size": 8, "patch_size": 4}
    text = {"hidden_size": 16, "intermediate_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2}
    text |= {"num_key_value_heads": 1, "vocab_size": 1536}
    return ParrotForConditionalGeneration(ParrotConfig(vision_config=vision, text_config=text, num_experts=4)).eval()


TOKENIZER = shipped("llm") / "tokenizer.json"


@pytest.mark.parametrize("kept", [1, 2])
def test_top_k_keeps_the_largest_and_they_sum_to_one(kept):
    dense = small_model()
    with installed(f"top {kept}", TOKENIZER):
        sparse = small_model()
    query, words, mask = torch.randn(3, 16), torch.randn(3, 33, 16), torch.ones(3, 33, dtype=torch.bool)
    full, few = (model.model.moe.route(query, words, mask) for model in (dense, sparse))
    assert ((few > 0).sum(-1) == kept).all()
    torch.testing.assert_close(few.sum(-1), torch.ones(3))
    assert (few.argmax(-1) == full.argmax(-1)).all()
    assert type(small_model().model.moe) is type(dense.model.moe)  # outside nothing is changed


def test_the_router_of_the_question_reads_what_the_user_typed():
    from tokenizers import Tokenizer

    tokenizer = Tokenizer.from_file(str(TOKENIZER))
    encoder = PromptEncoder(tokenizer)
    turns = [
        Turn("user", "Görselde ne var?", 1),
        Turn("assistant", "Bir elma."),
        Turn("user", "A B"),
        Turn("assistant", "C"),
    ]
    encoded = encoder.encode(turns, image_tokens=5)
    ids = torch.from_numpy(encoded.input_ids)[None]
    start, end = (tokenizer.token_to_id(token) for token in ("<|im_start|>", "<|im_end|>"))
    mask = question_mask(ids, start=start, end=end, header=tokenizer.encode("user\n").ids)
    assert tokenizer.decode(ids[0][mask[0]].tolist(), skip_special_tokens=False) == "\nGörselde ne var?A B"

    model, pictures = small_model(), torch.randn(1, 3, 8, 8)
    other = encoder.encode(turns, image_tokens=5, system="Something else entirely.")
    routed = {}
    for mixture in ("as configured", "question"):
        with installed(mixture, TOKENIZER), torch.no_grad():
            routed[mixture] = [
                model(input_ids=torch.from_numpy(each.input_ids)[None], pixel_values=pictures,
                      prompt_mask=torch.from_numpy(each.router_mask)[None]).routing
                for each in (encoded, other)
            ]  # fmt: skip
    assert not torch.allclose(*routed["as configured"], atol=1e-7)
    torch.testing.assert_close(*routed["question"])


# --- backbones ------------------------------------------------------------------------------------------------------
def test_the_multilingual_encoder_and_a_language_model_are_backbones(tmp_path):
    from parrot_train.assemble import from_backbones

    mine = study(tmp_path)
    made = {part: Path(folder_of(mine, part, which)) for part, which in (("vision", "multilingual"), ("llm", "small"))}
    seen = []
    make_encoder(made["vision"], seen.append, pictures=12, steps=12, batch=4)
    make_language_model("small", made["llm"], seen.append, steps=2)
    config = load_config("nano", overrides(mine, Variant("x", "", encoder="multilingual", llm="small"), 1))
    model, tokenizer, origin = from_backbones(config)
    assert model.config.text_config.hidden_size == 96
    assert origin["vision"] == str(made["vision"])
    assert tokenizer.read_bytes() == TOKENIZER.read_bytes()
    assert all(parameter.isfinite().all() for parameter in model.parameters())


def test_the_text_side_of_the_encoder_cuts_every_language_into_words():
    assert words("A large red apple, in the top left.") == ["a", "large", "red", "apple", "in", "the", "top", "left"]
    assert words("左上角有一个苹果。") == list("左上角有一个苹果")
    assert words("Büyük ağaç") == ["büyük", "ağaç"]
    assert words("تفاحة حمراء") == ["تفاحة", "حمراء"]


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
def test_a_killed_study_goes_on_keeps_its_results_and_no_weights(tmp_path, questions):
    mine = study(tmp_path / "study", scale=0.002, questions=4, settings=_TINY)
    mine.keep()
    mine.work.mkdir()
    (mine.work / "questions-nano").symlink_to(questions)
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
    assert tables.share(result, CODES)[1] >= 6 * 4 / 2  # a Yes/No pair is two questions
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
