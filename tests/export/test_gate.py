"""The gate: costs per language against a calculation in torch, budgets, and that nothing over them is published."""

import numpy as np
import pytest
import torch
from click.testing import CliRunner

from parrot_export.checkpoint import open_checkpoint
from parrot_export.cli import main
from parrot_export.gate import Budget, Cost, OverBudget, _require, measure_gate
from parrot_export.samples import graded_samples
from parrot_runtime.image import preprocess
from parrot_runtime.languages import CODES
from parrot_runtime.manifest import load_manifest
from parrot_runtime.prompt import PromptEncoder, Turn
from parrot_runtime.tokenizer import load_tokenizer


def test_a_float32_bundle_costs_nothing_and_its_perplexity_is_torchs(bundle, checkpoint):
    source = open_checkpoint(checkpoint)
    model, samples = source.load_model(), list(graded_samples(3))
    result = measure_gate(bundle, load_manifest(bundle), model, samples, Budget(0.0, 1e-4))
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
                    pixel_values=torch.from_numpy(preprocess(sample.image, source.recipe.image)[None]),
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


def test_nan_is_over_every_budget():
    with pytest.raises(OverBudget, match="en diverges by nan"):
        _require("cpu", {"en": cost(90, float("nan")), "tr": cost(90, 0.0)}, Budget(100, 100))


def test_every_language_is_asked_the_same_number_and_the_same_kinds():
    samples = list(graded_samples(7))
    assert [one.language for one in samples] == [code for code in CODES for _ in range(7)]
    assert [one.options for one in samples if one.language == "en"] == [0, 4, 4, 4, 4, 4, 0]
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
