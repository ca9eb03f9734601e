"""Whole calibrations: numbers against torch's hooks, cut runs, bad input, and nothing left behind."""

import copy
import json
import shutil
from dataclasses import replace

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.numpy import load_file, save_file
from small_settings import SETTINGS

from parrot_calibration import layer, run
from parrot_calibration.methods.thresholds import BINS
from parrot_calibration.request import CalibrationRequest
from parrot_calibration.run import calibrate
from parrot_export.checkpoint import open_checkpoint
from parrot_export.conversations import draw_samples
from parrot_export.folding import fold_sites
from parrot_export.layerwise.feeds import encode_samples
from parrot_export.ranges import sample_ranges
from parrot_export.scales import read_scales
from parrot_runtime.errors import InputError
from parrot_runtime.image import preprocess
from parrot_runtime.languages import CODES


def contents(folder):
    return {path.name: path.read_bytes() for path in folder.iterdir()}


def refused(request: CalibrationRequest) -> str:
    """It must fail in one line with exit code 2, and leave nothing at its output."""
    with pytest.raises(InputError) as caught:
        calibrate(request)
    assert "\n" not in str(caught.value)
    assert caught.value.exit_code == 2
    assert not request.output.exists()
    return str(caught.value)


def torch_inputs(model, checkpoint) -> dict[str, list[np.ndarray]]:
    """What entered every Linear of the model in torch on the samples, ``[rows, K]`` each, by name."""
    seen: dict[str, list[np.ndarray]] = {}
    for name, module in model.named_modules():
        # transformers has written CLIP's parts inside and outside of this module; Parrot's names are those inside.
        name = name.replace("model.vision_tower.encoder", "model.vision_tower.vision_model.encoder")
        if isinstance(module, torch.nn.Linear):
            module.register_forward_pre_hook(
                lambda _module, inputs, name=name: seen.setdefault(name, []).append(
                    inputs[0].detach().numpy().reshape(-1, inputs[0].shape[-1])
                )
            )
    source = open_checkpoint(checkpoint)
    encoded = encode_samples(source, draw_samples((), SETTINGS.per_language, 0).samples, 1024, CODES)
    for one in encoded:
        pixels = torch.from_numpy(preprocess(one.sample.image(), source.recipe.image)[None])
        with torch.no_grad():
            # The answers are no part of what the router hears.
            model(
                input_ids=torch.from_numpy(one.ids)[None],
                pixel_values=pixels,
                prompt_mask=torch.from_numpy(one.words)[None],
            )
    return seen


def test_ranges_and_histograms_are_of_what_torch_computes(model, checkpoint, scales):
    """Every product of both towers: the same number of values, and the largest of them with the factors divided out."""
    seen = torch_inputs(copy.deepcopy(model), checkpoint)
    found = read_scales(scales, open_checkpoint(checkpoint))
    sites, factors, compared = fold_sites(open_checkpoint(checkpoint).architecture), found.factors("int8"), 0
    assert len(factors) > 10
    for name, product in found.record.products.items():
        if name not in seen:
            continue
        spread = sites[name].spread_out(factors[name]) if name in factors else np.float32(1)
        values = np.concatenate([np.abs(rows / spread) for rows in seen[name]])
        assert sum(product.rows.values()) == len(values)
        # float32 sums in another order, through all layers.
        assert product.largest == pytest.approx(float(values.max()), rel=2e-3), name
        counts, expected = found.histogram(name), np.histogram(values, BINS, (0, product.largest))[0]
        assert counts.sum() == pytest.approx(values.size, abs=0)
        assert np.abs(np.cumsum(counts.sum(axis=0)) - np.cumsum(expected)).max() < 2e-3 * values.size
        compared += 1
    assert compared >= 2 * 4 + 2 + 3 * 4 + 1  # layers of both towers, projector, output layer


def test_ranges_without_a_calibration_are_the_largest_inputs_in_torch(model, checkpoint, tmp_path):
    """What an export for TensorRT collects by itself, by the same walk: a peak for every module."""
    seen = torch_inputs(copy.deepcopy(model), checkpoint)
    ranges = sample_ranges(open_checkpoint(checkpoint), tmp_path, per_language=SETTINGS.per_language)
    compared = [name for name in ranges if name in seen]
    # All but what is no Linear in torch: the stacked experts, and the patches.
    assert {name.split(".")[-1] for name in ranges if name not in seen} <= {"fc1", "fc2", "patch_embedding"}
    assert len(compared) >= 2 * 4 + 2 + 3 * 5 + 1
    for name in compared:
        # float32 sums in another order, through all layers.
        assert ranges[name] == pytest.approx(max(np.abs(rows).max() for rows in seen[name]), rel=2e-3), name
    assert not list(tmp_path.rglob("encoder-000")), "states of what was passed should be gone"


def test_every_language_has_as_many_samples_and_its_own_histogram(scales, checkpoint):
    found = read_scales(scales, open_checkpoint(checkpoint))
    languages = [sample["language"] for sample in found.record.samples]
    assert {code: languages.count(code) for code in CODES} == dict.fromkeys(CODES, SETTINGS.per_language)
    counts = found.histogram("model.language_model.layers.0.mlp.gate_proj")
    assert (counts.sum(axis=1) > 0).all()


def cut_in_the_midst_of_a_pass(request, monkeypatch) -> list[str]:
    """Kill a run at its fourth step; a list of the steps that were begun, which grows with every run after it."""
    original, calls = layer.LayerCalibrator.calibrate, []

    def cut(self, role, exposed, totals, pass_):
        calls.append(role)
        if len(calls) == 4:
            next(iter(pass_()))
            raise KeyboardInterrupt
        return original(self, role, exposed, totals, pass_)

    monkeypatch.setattr(layer.LayerCalibrator, "calibrate", cut)
    with pytest.raises(KeyboardInterrupt):
        calibrate(request)
    assert not request.output.exists()
    return calls


@pytest.mark.parametrize("changed", [False, True])
def test_a_cut_run_whose_pictures_were_changed_begins_anew(checkpoint, tmp_path, monkeypatch, changed):
    turns = [{"from": "human", "value": "<image>\nBu ne?"}, {"from": "gpt", "value": "Bir kuş."}]
    records = [{"language": "tr", "image": f"{number}.png", "conversations": turns} for number in range(3)]
    (tmp_path / "own.json").write_text(json.dumps(records))
    for number in range(3):
        Image.new("RGB", (40, 30), (80 * number, 0, 0)).save(tmp_path / f"{number}.png")
    request = CalibrationRequest(
        checkpoint=checkpoint,
        output=tmp_path / "scales",
        data=(tmp_path / "own.json",),
        languages=("tr",),
        settings=SETTINGS,
        threads=1,
    )
    cut_in_the_midst_of_a_pass(request, monkeypatch)
    if changed:
        Image.new("RGB", (40, 30), "white").save(tmp_path / "1.png")
    notes = []
    calibrate(request, note=notes.append)
    assert ("going on where an earlier run was cut" in notes) != changed


def test_a_run_that_was_cut_goes_on_and_gives_the_same(checkpoint, scales, tmp_path, monkeypatch):
    request = CalibrationRequest(checkpoint=checkpoint, output=tmp_path / "scales", settings=SETTINGS, threads=1)
    calls, notes = cut_in_the_midst_of_a_pass(request, monkeypatch), []
    calibrate(request, note=notes.append)
    assert notes == ["going on where an earlier run was cut"]
    whole = len(calls) - 4
    assert contents(request.output) == contents(scales)
    calls.clear()
    calls.extend(["role"] * 4)
    calibrate(replace(request, output=tmp_path / "again"))
    assert len(calls) - 4 == whole + 3  # the three that stood were not done twice
    assert sorted(path.name for path in tmp_path.iterdir()) == ["again", "scales"]


def test_work_of_other_settings_is_not_taken_up(checkpoint, tmp_path, monkeypatch):
    request = CalibrationRequest(checkpoint=checkpoint, output=tmp_path / "scales", settings=SETTINGS, threads=1)
    with monkeypatch.context() as patch:
        patch.setattr(run, "_publish", lambda *_: (_ for _ in ()).throw(KeyboardInterrupt))
        with pytest.raises(KeyboardInterrupt):
            calibrate(request)
    notes = []
    calibrate(replace(request, settings=replace(SETTINGS, int4="rtn", per_language=1)), note=notes.append)
    assert notes == []


def test_a_nan_among_the_activations_names_the_layer_and_the_sample(checkpoint, tmp_path):
    broken = shutil.copytree(checkpoint, tmp_path / "broken")
    tensors = load_file(broken / "model.safetensors")
    # NaN in weights is refused before; a float that is too large is a number until it is multiplied.
    tensors["model.language_model.layers.1.input_layernorm.weight"][:] = np.finfo(np.float32).max
    save_file(tensors, broken / "model.safetensors", {"format": "pt"})
    message = refused(CalibrationRequest(checkpoint=broken, output=tmp_path / "scales", settings=SETTINGS))
    assert "layers.1.self_attn.q_proj takes NaN or infinity" in message
    assert "nano[0/0] (en)" in message


def test_a_bundle_is_no_checkpoint(checkpoint, tmp_path):
    (tmp_path / "bundle").mkdir()
    (tmp_path / "bundle/parrot.json").write_text("{}")
    message = refused(CalibrationRequest(checkpoint=tmp_path / "bundle", output=tmp_path / "scales"))
    assert "give the checkpoint that it was exported from" in message


def test_an_output_that_stands_is_kept(checkpoint, scales, tmp_path):
    request = CalibrationRequest(checkpoint=checkpoint, output=scales, settings=SETTINGS)
    before = contents(scales)
    with pytest.raises(InputError, match="--force"):
        calibrate(request)
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / "thesis.txt").write_text("years of work")
    with pytest.raises(InputError, match="holds no scales"):
        calibrate(replace(request, output=tmp_path / "other", force=True))
    assert contents(scales) == before


# --- reading scales -------------------------------------------------------------------------------------------------
@pytest.fixture
def copy_of_scales(scales, tmp_path):
    return shutil.copytree(scales, tmp_path / "scales")


def edit(folder, change) -> None:
    data = json.loads((folder / "scales.json").read_text())
    change(data)
    (folder / "scales.json").write_text(json.dumps(data))


def rename(data) -> None:
    product = data["products"].pop("model.language_model.layers.0.mlp.gate_proj")
    product["modules"] = ["model.language_model.layers.0.mlp.gate_prj"]
    data["products"]["model.language_model.layers.0.mlp.gate_prj"] = product


@pytest.mark.parametrize(
    ("change", "told"),
    [
        (rename, "this model has no layer 'model.language_model.layers.0.mlp.gate_prj'; did you mean"),
        (lambda data: data.update(schema_version=2), "schema_version is 2; expected 1"),
        (lambda data: data.update(more=1), "unknown key 'more'"),
        (lambda data: data.update(checkpoint="0" * 64), "these are scales of another checkpoint"),
        (lambda data: data.update(numbers="0" * 64), "not the file that scales.json was written with"),
        (lambda data: data["matrices"].update(nothing=next(iter(data["matrices"].values()))), "no matrix 'nothing'"),
        (lambda data: next(iter(data["products"].values()))["thresholds"].pop("mse"), "has no mse threshold"),
        (lambda data: next(iter(data["matrices"].values())).update(block=0), "block is 0"),
        (lambda data: next(iter(data["matrices"].values())).update(shape=[4]), "shape is [4]"),
        (lambda data: data.update(samples=[{}]), "a sample is {}"),
        (lambda data: data.update(samples=[{"source": 1, "row": 1}]), "expected its source and row"),
        (lambda data: data.update(languages=[]), "languages are []"),
        (lambda data: data.update(languages=["xx"]), "languages are ['xx']"),
    ],
)
def test_scales_that_do_not_fit_are_refused_in_one_line(checkpoint, copy_of_scales, change, told):
    edit(copy_of_scales, change)
    with pytest.raises(InputError) as caught:
        read_scales(copy_of_scales, open_checkpoint(checkpoint))
    assert told in str(caught.value)
    assert "\n" not in str(caught.value)


def test_one_flipped_bit_of_the_numbers_is_found(checkpoint, copy_of_scales):
    path = copy_of_scales / "scales.safetensors"
    data = bytearray(path.read_bytes())
    data[-77] ^= 4
    path.write_bytes(data)
    with pytest.raises(InputError, match="missing, or not the file"):
        read_scales(copy_of_scales, open_checkpoint(checkpoint))


def test_one_changed_weight_makes_it_another_checkpoint(checkpoint, scales, tmp_path):
    other = shutil.copytree(checkpoint, tmp_path / "other")
    tensors = load_file(other / "model.safetensors")
    tensors["model.moe.router.weight"][0, 0] += 1e-3
    save_file(tensors, other / "model.safetensors", {"format": "pt"})
    with pytest.raises(InputError, match="scales of another checkpoint"):
        read_scales(scales, open_checkpoint(other))
