"""The gate: costs per language against a calculation in torch, budgets, and that nothing over them is published."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from click.testing import CliRunner

from parrot_export.checkpoint import open_checkpoint
from parrot_export.cli import main
from parrot_export.float32 import Float32
from parrot_export.gate import Budget, Cost, OverBudget, _require, _Spoken, measure_gate
from parrot_export.samples import graded_samples
from parrot_runtime.image import preprocess
from parrot_runtime.languages import CODES
from parrot_runtime.manifest import load_manifest
from parrot_runtime.prompt import PromptEncoder, Turn
from parrot_runtime.tokenizer import load_tokenizer


def test_a_float32_bundle_costs_nothing_and_its_perplexity_is_torchs(bundle, checkpoint):
    source = open_checkpoint(checkpoint)
    model, samples = source.load_model(), list(graded_samples(3))
    result = measure_gate(bundle, load_manifest(bundle), Float32(model), samples, Budget(0.0, 1e-4))
    costs = result["cpu"]["languages"]
    assert set(costs) == set(CODES)
    prompts = PromptEncoder(load_tokenizer(source.tokenizer))
    for code in CODES:
        loss, count = 0.0, 0
        for sample in (one for one in samples if one.language == code):
            turns = Turn("user", sample.question, 1), Turn("assistant", sample.answer)
            encoded = prompts.encode(turns, image_tokens=17)
            with torch.no_grad():
                logits = model(
                    input_ids=torch.from_numpy(encoded.input_ids)[None],
                    pixel_values=torch.from_numpy(preprocess(sample.image(), source.recipe.image)[None]),
                    prompt_mask=torch.from_numpy(encoded.router_mask)[None],
                ).logits[0]
            places = np.flatnonzero(encoded.labels_mask)
            rows = torch.log_softmax(logits.double(), dim=-1)[places - 1]
            loss -= float(rows[np.arange(len(places)), encoded.input_ids[places]].sum())
            count += len(places)
        assert costs[code]["positions"] == count
        # float32 graphs against float32 torch.
        assert costs[code]["perplexity"] == pytest.approx(np.exp(loss / count), rel=1e-3)
        assert costs[code]["kl"] == pytest.approx(0, abs=1e-5)
        assert costs[code]["choices"] == 2
        assert costs[code]["own_language"] == costs[code]["own_language_float32"]


def cost(accuracy: float, kl: float) -> Cost:
    return Cost(10, kl, 99.0, 1.1, 1.1, 100, accuracy, 90.0)


def test_the_worst_language_decides_and_the_table_is_shown():
    fair = {"en": cost(92, 0.01), "tr": cost(89, 0.02)}
    _require("cpu", fair, Budget(1.0, 0.1))
    with pytest.raises(OverBudget, match=r"tr loses 1\.0 points") as caught:
        _require("cpu", fair, Budget(0.5, 0.1))
    lines = str(caught.value).splitlines()
    assert len(lines) == 4
    assert "nothing was published" in lines[0]
    assert lines[2].startswith("en ")
    assert lines[3].startswith("tr ")
    with pytest.raises(OverBudget, match=r"tr diverges by 0\.020 nats"):
        _require("cpu", fair, Budget(1.0, 0.015))


def test_answers_in_another_language_are_over_the_budget():
    """The logits may be near and the letters right: a language that is not answered any more is what is looked for."""
    strayed = {"en": cost(90, 0.0), "tr": replace(cost(90, 0.0), answers=20, own_language=95.0)}
    _require("cpu", strayed, Budget(5.0, 0.1))
    with pytest.raises(OverBudget, match=r"tr loses 5\.0 points of answers in its own language") as caught:
        _require("cpu", strayed, Budget(1.0, 0.1))
    assert str(caught.value).splitlines()[3].endswith("95.0 (100.0)")


def test_answers_are_told_by_their_language(bundle):
    tokenizer = load_tokenizer(bundle / "tokenizer.json")
    spoken = _Spoken(tokenizer, load_manifest(bundle))

    def said(text: str) -> list[int]:
        return [*tokenizer.encode(text, add_special_tokens=False).ids, min(spoken.stop_ids), 5, 6]

    assert spoken.verdict(said("Yeşil bir şapka ve siyah bir çorap."), "tr") == (1.0, 1.0)
    assert spoken.verdict(said("一只绿色的袜子和一只黑色的袜子。"), "tr") == (1.0, 0.0)
    assert spoken.verdict(said("3"), "tr") == (0.0, 0.0)


def test_a_bundles_answer_is_the_runtimes(bundle):
    from parrot_export.reference import prepare_for
    from parrot_export.samples import verification_samples
    from parrot_export.verify import BundleUnderTest
    from parrot_runtime import Parrot

    manifest, samples = load_manifest(bundle), verification_samples()
    under_test = BundleUnderTest(bundle, manifest)
    stop = PromptEncoder(load_tokenizer(bundle / "tokenizer.json")).stop_ids
    for sample, question in zip(samples, prepare_for(bundle, manifest, samples), strict=True):
        expected = Parrot.load(bundle, threads=1).ask(sample.image, sample.question, max_new_tokens=9).token_ids
        assert under_test.answer(question, 9, stop) == list(expected)


@pytest.mark.parametrize(
    "options", [("--no-verify", "--max-kl", "1"), ("--no-verify", "--max-drop", "1"), ("--gate-samples", "9")]
)
def test_a_gate_that_would_not_be_asked_is_refused(checkpoint, tmp_path, options):
    words = [str(checkpoint), "--int8", "--target", "cpu", "-o", str(tmp_path / "b"), *options]
    told = CliRunner().invoke(main, words, prog_name="parrot-export")
    assert told.exit_code == 2
    assert options[-2] in told.stderr
    assert not list(tmp_path.iterdir())


def test_nan_is_over_every_budget():
    with pytest.raises(OverBudget, match="en diverges by nan"):
        _require("cpu", {"en": cost(90, float("nan")), "tr": cost(90, 0.0)}, Budget(100, 100))


def test_every_language_is_asked_the_same_number_and_the_same_kinds():
    samples = list(graded_samples(7))
    assert [one.language for one in samples] == [code for code in CODES for _ in range(7)]
    assert [one.options for one in samples if one.language == "en"] == [0, 4, 4, 0, 4, 4, 0]
    assert all((one.answer in "ABCD") == (one.options == 4) for one in samples)


def test_an_export_over_its_budget_is_refused_and_one_within_shows_the_table(checkpoint, tmp_path, monkeypatch):
    from parrot_export import verify

    monkeypatch.setattr(
        verify, "TOLERANCES", dict.fromkeys(verify.TOLERANCES, verify.Tolerance(9.0, 9.0, "random weights"))
    )
    words = [str(checkpoint), "--int8", "--target", "cpu", "--gate-samples", "1", "-o", str(tmp_path / "b")]
    told = CliRunner().invoke(main, [*words, "--max-kl", "0"], prog_name="parrot-export")
    assert told.exit_code == 1, told.output
    assert "rounding costs too much (cpu)" in told.stderr
    assert "language   KL nats" in told.stderr
    assert not list(tmp_path.iterdir())
    shown = CliRunner().invoke(main, [*words, "--max-kl", "50", "--max-drop", "100"], prog_name="parrot-export")
    assert shown.exit_code == 0, shown.output
    assert "what rounding costs (cpu):" in shown.stdout
    assert set(load_manifest(tmp_path / "b").verification["gate"]["cpu"]["languages"]) == set(CODES)
