"""A checkpoint in torch answers as its float32 bundle does, whatever the batch; and as the released code did."""

import json
import shutil
import sys
from pathlib import Path

import pytest
from click.testing import CliRunner
from tsv_files import choice, picture, yes_no

from parrot_evaluation.checkpoint_model import open_checkpoint_model
from parrot_evaluation.cli import main
from parrot_evaluation.models import ModelOptions, open_bundle
from parrot_evaluation.runner import Question
from parrot_evaluation.tsv import read_tsv
from parrot_runtime.errors import ImageError, InputError, TextError
from parrot_runtime.image import MAX_PIXELS

torch = pytest.importorskip("torch")
pytest.importorskip("ml_dtypes", reason="checkpoints are read by the exporter")
sys.path.insert(0, str(Path(__file__).parents[1] / "export"))

RELEASED = Path(__file__).parents[1] / "data" / "released_tiny"


@pytest.fixture(scope="module", params=["paper", "no experts"])
def pair(request, tmp_path_factory) -> tuple[Path, Path]:
    """A tiny random checkpoint and its verified float32 bundle."""
    from tiny_checkpoint import tiny_model, write_checkpoint

    from parrot_export.bundle import export
    from parrot_export.request import ExportRequest

    experts = {"num_experts": 0} if request.param == "no experts" else {"num_experts": 5, "alpha": 0.7}
    folder = tmp_path_factory.mktemp("pair")
    write_checkpoint(folder / "checkpoint", tiny_model(**experts))
    export(ExportRequest(checkpoint=folder / "checkpoint", output=folder / "bundle", precision="fp32", target="cpu"))
    return folder / "checkpoint", folder / "bundle"


@pytest.fixture
def questions(make_tsv) -> list[Question]:
    """33 questions of different lengths about different pictures."""
    rows = read_tsv(make_tsv("nano_tr.tsv", [choice() for _ in range(33)])).rows
    words = "Görselde kaç tane var? 图中有什么？ ماذا؟"
    return [
        Question(row.image_bytes, words[: 1 + number % len(words)], "tr", f"tr row {number}")
        for number, row in enumerate(rows)
    ]


@pytest.mark.parametrize("slots", [1, 5, 64])
def test_a_checkpoint_answers_as_its_bundle(pair, questions: list[Question], slots: int) -> None:
    checkpoint, bundle = pair
    ours = open_checkpoint_model(checkpoint, ModelOptions(slots=slots, device="cpu"), max_new_tokens=12).ask(questions)
    theirs = open_bundle(bundle, max_new_tokens=12).ask(questions)
    # Both are float32; they would differ where two tokens are as good as equally likely, and none here are.
    assert [(each.text, each.finish) for each in ours] == [(each.text, each.finish) for each in theirs]
    assert len({each.text for each in ours}) > 20
    for one, other in zip(ours, theirs, strict=True):
        if one.routing is None:
            assert other.routing is None
        else:
            assert one.routing == pytest.approx(other.routing, abs=1e-5)


def test_the_released_format(tmp_path: Path, questions: list[Question]) -> None:
    """Its first tokens are those of the model that is held against the released code's outputs elsewhere."""
    from tiny_checkpoint import tiny_tokenizer

    from parrot_export.checkpoint import open_checkpoint
    from parrot_runtime.image import preprocess, read_image
    from parrot_runtime.prompt import Turn
    from parrot_runtime.templates import prompt_encoder

    folder = shutil.copytree(RELEASED, tmp_path / "released")
    tokenizer = tiny_tokenizer()
    tokenizer.save(str(folder / "tokenizer.json"))
    responses = open_checkpoint_model(folder, ModelOptions(device="cpu"), max_new_tokens=6).ask(questions[:5])
    found = open_checkpoint(folder)
    model, recipe = found.load_model(), found.recipe
    for question, response in zip(questions, responses, strict=False):
        prompt = prompt_encoder(tokenizer, recipe.prompt)
        turns = [Turn("user", question.text, 1)]
        ids = prompt.encode(
            turns, image_tokens=model.config.image_tokens, system=recipe.prompt.system, generation=True
        ).input_ids
        pixels = torch.from_numpy(preprocess(read_image(question.image), recipe.image))[None]
        given = torch.from_numpy(ids)[None]
        stops = sorted(prompt.stop_ids)
        out = model.generate(given, pixel_values=pixels, max_new_tokens=6, do_sample=False, eos_token_id=stops)
        tokens = [token for token in out[0, len(ids) :].tolist() if token not in stops]
        assert response.text == tokenizer.decode(tokens)


def test_bfloat16_is_another_run_and_answers(pair, questions: list[Question]) -> None:
    exact, rounded = (
        open_checkpoint_model(pair[0], ModelOptions(dtype=dtype, device="cpu"), max_new_tokens=4)
        for dtype in (None, "bf16")
    )
    assert exact.fingerprint != rounded.fingerprint
    assert exact.name.endswith("checkpoint float32")
    assert len(rounded.ask(questions[:7])) == 7


def test_bfloat16_is_asked_one_by_one_and_is_another_run_in_batches(pair, questions: list[Question]) -> None:
    alone, same, three = (
        open_checkpoint_model(pair[0], ModelOptions(dtype="bf16", device="cpu", slots=slots), max_new_tokens=8)
        for slots in (None, 1, 3)
    )
    assert (alone.name, alone.fingerprint) == (same.name, same.fingerprint)
    assert three.name == f"{alone.name}, 3 slots"
    assert three.fingerprint != alone.fingerprint
    # What is asked before does not change what is answered.
    together = alone.ask(questions)
    assert together[5:] == alone.ask(questions[5:])
    exact = [open_checkpoint_model(pair[0], ModelOptions(slots=slots), max_new_tokens=1) for slots in (1, 3)]
    assert exact[0].fingerprint == exact[1].fingerprint


def test_another_limit_of_pixels_is_another_run(pair, questions: list[Question]) -> None:
    usual, same, exact, low = (
        open_checkpoint_model(pair[0], ModelOptions(max_pixels=limit, device="cpu"), max_new_tokens=2)
        for limit in (None, MAX_PIXELS, 15, 14)
    )
    assert (usual.name, usual.fingerprint) == (same.name, same.fingerprint)
    assert len({each.fingerprint for each in (usual, exact, low)}) == 3
    assert exact.name == f"{usual.name}, up to 15 pixels"
    assert [each.text for each in exact.ask(questions[:3])] == [each.text for each in usual.ask(questions[:3])]
    with pytest.raises(ImageError, match="3 x 5 is 15 pixels, the limit is 14"):
        low.ask(questions[:3])


def test_the_fingerprint_is_that_of_every_weight(pair, tmp_path: Path) -> None:
    from safetensors.torch import load_file, save_file

    folder = shutil.copytree(pair[0], tmp_path / "copy")
    first = open_checkpoint_model(folder, ModelOptions(), max_new_tokens=4).fingerprint
    assert first == open_checkpoint_model(pair[0], ModelOptions(), max_new_tokens=4).fingerprint
    weights = load_file(folder / "model.safetensors")
    next(iter(weights.values())).view(-1)[0] += 1e-3
    save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})
    assert open_checkpoint_model(folder, ModelOptions(), max_new_tokens=4).fingerprint != first


def test_an_answer_ends_where_the_context_does_and_a_question_that_has_no_room_is_named(pair, questions) -> None:
    model = open_checkpoint_model(pair[0], ModelOptions(), max_new_tokens=2000)
    picture_bytes = questions[0].image
    long = Question(picture_bytes, "x" * 900, "en", "en row 0")
    longer = Question(picture_bytes, "x" * 1100, "en", "en row 1")
    stream = model.stream([long, longer])
    assert next(stream).finish in ("length", "stop")
    with pytest.raises(TextError, match=r"asking en row 1: the question is too long.*; the answers before it are kept"):
        next(stream)


def test_from_the_command_line(pair, make_tsv, tmp_path: Path) -> None:
    make_tsv("nano_tr.tsv", [choice(), yes_no("A", image=picture(1)), yes_no("B", image=picture(1))])
    out = tmp_path / "results"
    for model in pair:
        given = ("nano", "--model", model, "--data", tmp_path, "--languages", "tr", "--slots", 2, "-o", out)
        result = CliRunner().invoke(main, [str(each) for each in given])
        assert result.exit_code == 0, result.output
    answers = [path.read_text("utf-8").splitlines() for path in sorted((out / "nano").glob("*/answers.jsonl"))]
    one, other = ([json.loads(line)["response"] for line in lines] for lines in answers)
    assert one == other
    assert len(one) == 3


def test_what_is_missing_is_said_in_a_line(pair, monkeypatch: pytest.MonkeyPatch) -> None:
    if not torch.cuda.is_available():
        with pytest.raises(InputError, match="--device cuda: torch finds no CUDA device here; use --device cpu"):
            open_checkpoint_model(pair[0], ModelOptions(device="cuda"), max_new_tokens=4)
    monkeypatch.setitem(sys.modules, "torch", None)
    with pytest.raises(InputError, match=r"measuring a checkpoint needs torch; install parrot-edge\[export\]"):
        open_checkpoint_model(pair[0], ModelOptions(), max_new_tokens=4)
