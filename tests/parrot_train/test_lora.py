"""Adapters in stage 2, end to end on tiny backbones: what learns, what is kept on the way, what is published."""

import os
import shutil
import socket
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from click.testing import CliRunner
from safetensors import safe_open
from safetensors.torch import load_file, save_file

from parrot_runtime.errors import InputError
from parrot_train import checkpoint, lora
from parrot_train.assemble import weights_hash
from parrot_train.cli import main
from parrot_train.config import LLM_LINEARS
from parrot_train.config_files import load_config
from parrot_train.trainer import ParrotTrainer

LORA = ("stage2.lora.rank=4", "stage2.lora.alpha=8", "stage2.learning_rate=1e-2")
NF4 = (*LORA, "stage2.lora.quantize=nf4")
ADAPTED = 2 * len(LLM_LINEARS)  # two layers


def weights(run):
    return load_file(run / "model.safetensors")


@pytest.fixture
def trained_models(monkeypatch):
    """The models that were trained, as they stand when their run is published."""
    found = []
    publish = lora.Learned.publish

    def keep(self, model, *arguments):
        found.append(model)
        return publish(self, model, *arguments)

    monkeypatch.setattr(lora.Learned, "publish", keep)
    return found


def learned(run, step=5):
    return load_file(run / "checkpoints" / f"checkpoint-{step}" / "learned.safetensors")


@pytest.mark.parametrize("settings", [LORA, NF4], ids=["none", "nf4"])
def test_the_published_weights_are_the_original_ones_and_the_product(train, settings):
    """In float64 with numpy, rounded once; for NF4 too it is stage 1's own weights that the product is added to."""
    before, run = weights(train(1)), train(2, *settings)
    after, parts, adapted = weights(run), learned(run), 0
    for name, tensor in before.items():
        adapter = name.removesuffix(".weight")
        if f"{adapter}.lora_A.weight" in parts:
            up, down = (parts[f"{adapter}.lora_{side}.weight"].numpy().astype(np.float64) for side in "BA")
            expected = tensor.numpy().astype(np.float64) + 8 / 4 * (up @ down)
            np.testing.assert_array_equal(after[name].numpy(), expected.astype(np.float32))
            assert not torch.equal(after[name], tensor), name
            adapted += 1
        elif name not in parts:
            assert torch.equal(after[name], tensor), name
    assert adapted == ADAPTED
    assert {name.split(".")[1] for name in parts} == {"multi_modal_projector", "moe", "language_model"}
    for name in (name for name in parts if "language_model" not in name):
        assert torch.equal(after[name], parts[name])
        assert name not in before or not torch.equal(before[name], parts[name]), name


@pytest.mark.parametrize("tied", [True, False])
def test_the_published_model_answers_as_the_trained_one(train, trained_models, backbones, tmp_path, tied):
    if not tied:
        untie(backbones.llm, tmp_path / "llm")
    settings = () if tied else (f"backbones.llm={tmp_path / 'llm'}",)
    train(1, *settings)
    run = train(2, *LORA, *settings, "stage2.precision=fp32", "stage2.lora.dropout=0.1")
    merged, trained = checkpoint.load_checkpoint(run), trained_models[0].eval()
    ids = torch.randint(0, 320, (3, 33), generator=torch.Generator().manual_seed(1))
    ids[:, 4:9] = merged.config.image_token_id
    inputs = {"input_ids": ids, "pixel_values": torch.randn(3, 3, 16, 16, generator=torch.Generator().manual_seed(2))}
    with torch.no_grad():
        expected, found = trained(**inputs).logits, merged(**inputs).logits
        before = checkpoint.load_checkpoint(Path("runs/nano/stage1"))(**inputs).logits
    assert (expected - before).abs().max() > 0.1  # it did learn
    # Float32 in both; the sums have one product more in one of them.
    torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-5)


def untie(source, folder):
    from transformers import Qwen2Config, Qwen2ForCausalLM

    config = Qwen2Config.from_pretrained(source)
    config.tie_word_embeddings = False
    torch.manual_seed(5)
    Qwen2ForCausalLM(config).save_pretrained(folder)
    shutil.copy(source / "tokenizer.json", folder)


def test_a_run_with_adapters_is_laid_out_as_any_other(train, monkeypatch):
    train(1)
    whole, run = train(2), train(2, *LORA, output=Path("adapted"))
    assert {path.name for path in whole.iterdir()} == {path.name for path in run.iterdir()}
    for name in ("config.json", "generation_config.json", "tokenizer.json"):
        assert (whole / name).read_bytes() == (run / name).read_bytes(), name
    # Byte for byte what safetensors writes of the same tensors.
    save_file(weights(run), "again.safetensors", metadata={"format": "pt"})
    assert Path("again.safetensors").read_bytes() == (run / "model.safetensors").read_bytes()
    assert {n: t.shape for n, t in weights(run).items()} == {n: t.shape for n, t in weights(whole).items()}
    note, other = checkpoint.read_run(run), checkpoint.read_run(whole)
    assert note["files"].keys() == other["files"].keys()
    monkeypatch.setattr(lora, "_shard_size", lambda _kind: 20_000)
    parts = train(2, *LORA, output=Path("parts"))
    assert len(list(parts.glob("model-*.safetensors"))) > 2
    one, two = (checkpoint.load_checkpoint(folder).state_dict() for folder in (run, parts))
    assert all(torch.equal(tensor, two[name]) for name, tensor in one.items())


def test_what_learns_is_counted(train):
    train(1)
    note = checkpoint.read_run(train(2, *LORA, "stage2.max_steps=1"))
    # q, o 24 × 24; k, v 12 × 24; gate, up 40 × 24; down 24 × 40; two layers.
    adapters = 2 * 4 * (2 * 48 + 2 * 36 + 3 * 64)
    projector, mixture = 12 * 24 + 24 + 24 * 24 + 24, 6 * 24 + 6 * 2 * (24 * 24 + 24)
    assert note["trained_parameters"] == adapters + projector + mixture
    whole = sum(tensor.numel() for tensor in weights(Path("runs/nano/stage2")).values())
    assert note["parameters"] == whole + adapters
    nf4 = checkpoint.read_run(train(2, *NF4, "stage2.max_steps=1", output=Path("nf4")))
    assert nf4["parameters"] == note["parameters"]


# --- on the way -----------------------------------------------------------------------------------------------------
def test_a_checkpoint_on_the_way_holds_what_learns_and_stands_for_a_whole_model(train):
    train(1)
    run = train(2, *LORA)
    folder = run / "checkpoints" / "checkpoint-5"
    assert checkpoint.checkpoint_fault(folder) is None
    assert not list(folder.glob("model*"))
    parts = learned(run)
    assert not any("vision_tower" in name or "embed_tokens" in name or "base_layer" in name for name in parts)
    assert {tensor.dtype for tensor in parts.values()} == {torch.float32}
    for name, tensor in checkpoint.load_checkpoint(folder).state_dict().items():
        if name in weights(run):
            assert torch.equal(tensor, weights(run)[name]), name
    assert (folder / "tokenizer.json").is_file()
    assert (folder / "parrot_recipe.json").read_bytes() == (run / "parrot_recipe.json").read_bytes()


def test_a_checkpoint_of_adapters_needs_the_weights_it_was_trained_beside(train, monkeypatch):
    base = train(1)
    folder = train(2, *LORA, "stage2.max_steps=2") / "checkpoints" / "checkpoint-2"
    path = base / "model.safetensors"
    good = path.read_bytes()
    path.write_bytes(good[:-1] + bytes([good[-1] ^ 1]))
    with pytest.raises(InputError, match="runs/nano/stage1 had, and it has others now"):
        checkpoint.load_checkpoint(folder)
    path.write_bytes(good[:-100])
    with pytest.raises(InputError, match=r"model\.safetensors: cannot be read"):
        checkpoint.load_checkpoint(folder)
    path.write_bytes(good)
    checkpoint.load_checkpoint(folder)
    whole = folder.resolve()
    with monkeypatch.context() as patch:
        patch.chdir(base.parent)  # wherever it is asked for
        checkpoint.load_checkpoint(whole)
    (folder / "lora.json").write_text('{"base": "runs/nano/stage1"}')
    with pytest.raises(InputError, match="no sound base, sha256 and scale"):
        checkpoint.load_checkpoint(folder)
    (folder / "lora.json").write_text('{"base": "gone", "sha256": "", "scale": 1}')
    with pytest.raises(InputError, match="weights of gone, which is not there; put it back"):
        checkpoint.load_checkpoint(folder)


def test_the_hash_of_stored_weights_is_that_of_the_model(train, backbones, tmp_path):
    untie(backbones.llm, tmp_path / "llm")
    for place, settings in enumerate(((), (f"backbones.llm={tmp_path / 'llm'}",))):
        run = train(1, *settings, "stage1.max_steps=1", output=Path(f"run{place}"))
        model = checkpoint.load_checkpoint(run)
        found = lora.merge(model.config, run, weights_hash(model), {}, 1.0, "here")
        for name, tensor in weights(run).items():
            assert torch.equal(found[name].load(), tensor)
            assert torch.equal(found[name].read(7, 5), tensor.reshape(-1)[7:12])


def test_rows_of_a_merged_weight_are_those_of_the_whole(tmp_path):
    from parrot_train.stored import Stored

    generator = torch.Generator().manual_seed(3)
    weight, down, up = (torch.randn(*shape, generator=generator) for shape in ((33, 21), (5, 21), (33, 5)))
    save_file({"w": weight.bfloat16()}, tmp_path / "w.safetensors")
    merged = lora.Merged(Stored(tmp_path / "w.safetensors", "w", (33, 21)), down, up, 0.3)
    whole = merged.load()
    expected = weight.bfloat16().double() + 0.3 * (up.double() @ down.double())
    torch.testing.assert_close(whole, expected.float(), rtol=1e-7, atol=1e-7)
    for first, count in ((0, 1), (20, 3), (21, 21), (100, 333), (33 * 21 - 1, 1)):
        assert torch.equal(merged.read(first, count), whole.reshape(-1)[first : first + count])


@pytest.mark.parametrize("settings", [LORA, NF4, (*NF4, "stage2.lora.dropout=0.2")], ids=["none", "nf4", "dropout"])
def test_a_resumed_run_ends_with_the_same_bits(train, monkeypatch, settings):
    settings = (*settings, "stage2.save_steps=3", "stage2.epochs=2")
    train(1)
    whole = weights(train(2, *settings))
    original = ParrotTrainer.training_step
    for place, step in enumerate((1, 5)):
        run = Path(f"again{place}")

        def crash(self, *arguments, step=step):
            if self.state.global_step + 1 == step:
                raise KeyError("stands for a crash")
            return original(self, *arguments)

        with monkeypatch.context() as patch:
            patch.setattr(ParrotTrainer, "training_step", crash)
            with pytest.raises(KeyError):
                train(2, *settings, output=run)
        train(2, *settings, output=run, resume=True)
        for name, tensor in whole.items():
            assert torch.equal(tensor, weights(run)[name]), (step, name)


def test_it_resumes_with_the_same_adapters_and_the_same_base_alone(train, monkeypatch):
    base = train(1)
    with monkeypatch.context() as patch:
        patch.setattr("parrot_train.stages.publish_files", lambda *_: (_ for _ in ()).throw(KeyError))
        with pytest.raises(KeyError):
            train(2, *LORA)
    with pytest.raises(InputError, match=r"stage2\.lora\.rank was 4 and is 5"):
        train(2, *LORA, "stage2.lora.rank=5", resume=True)
    with pytest.raises(InputError, match=r"stage2\.lora\.rank was 4 and is None"):
        train(2, *LORA, "stage2.lora.rank=0", resume=True)
    path = base / "model.safetensors"
    good = path.read_bytes()
    path.write_bytes(good[:-1] + bytes([good[-1] ^ 1]))
    with pytest.raises(InputError, match="has changed since the run finished"):
        train(2, *LORA, resume=True)
    path.write_bytes(good)
    assert checkpoint.read_run(train(2, *LORA, resume=True))["status"] == "finished"


def test_a_base_that_changed_while_training_is_not_published(train, monkeypatch):
    path = train(1) / "model.safetensors"
    original = ParrotTrainer.train

    def spoil(self, **arguments):
        result = original(self, **arguments)
        path.write_bytes(path.read_bytes()[:-1] + b"!")
        return result

    monkeypatch.setattr(ParrotTrainer, "train", spoil)
    with pytest.raises(InputError, match="it has others now"):
        train(2, *LORA)
    assert not (Path("runs/nano/stage2") / "model.safetensors").exists()


def test_runs_from_before_adapters_are_the_same_setup():
    from parrot_train.config_files import to_mapping
    from parrot_train.provenance import check_same

    settings = to_mapping(load_config("nano"))
    older = to_mapping(load_config("nano"))
    del older["stage2"]["lora"]
    check_same({"stage": 2, "settings": older}, {"stage": 2, "settings": settings}, Path("run"))


# --- what is refused ------------------------------------------------------------------------------------------------
@pytest.mark.parametrize(
    ("override", "words"),
    [
        ("stage2.lora.rank=-1", "rank is -1; expected 0 for full fine-tuning"),
        ("stage2.lora.alpha=0", "above 0"),
        ("stage2.lora.dropout=1", "below 1"),
        ("stage2.lora.targets=[q_prj]", "did you mean 'q_proj'?"),
        ("stage2.lora.targets=[]", "one or more of q_proj"),
        ("stage2.lora.targets=[q_proj, q_proj]", "each layer once"),
        ("stage2.lora.quantize=nf4", "weights of 4 bits cannot learn"),
        ("stage1.lora.rank=4", "unknown key 'lora'"),
        ("extend.lora.rank=4", "unknown key 'lora'"),
    ],
)
def test_settings_that_cannot_be(override, words):
    with pytest.raises(InputError) as caught:
        load_config("nano", [override])
    assert words in str(caught.value)


@pytest.mark.parametrize(("missing", "named"), [("peft", "peft"), ("bitsandbytes", "bitsandbytes")])
def test_what_is_not_installed_is_named_with_its_extra(monkeypatch, missing, named):
    find = lora.importlib.util.find_spec
    monkeypatch.setattr(lora.importlib.util, "find_spec", lambda name: None if name == missing else find(name))
    config = load_config("nano", NF4)
    with pytest.raises(InputError, match=rf"needs {named}, which is not installed; pip install 'parrot-edge\[lora\]'"):
        lora.check_lora(config.stage2, launched=False)
    plain = load_config("nano", LORA)
    if missing == "bitsandbytes":
        lora.check_lora(plain.stage2, launched=False)
    for stage in (load_config("nano").stage2, config.stage1, config.extend):
        lora.check_lora(stage, launched=True)


def test_a_launcher_is_refused_before_anything_is_written(config_file, data, tmp_path):
    with socket.create_server(("localhost", 0)) as free:
        port = str(free.getsockname()[1])
    ranks = {"RANK": "0", "WORLD_SIZE": "1", "LOCAL_RANK": "0", "MASTER_ADDR": "localhost", "MASTER_PORT": port}
    command = [sys.executable, "-m", "parrot_train", "stage2", "--config", config_file, "--data", str(data())]
    before = sorted(tmp_path.rglob("*"))
    done = subprocess.run(
        [*command, "--set", "stage2.lora.rank=4"], cwd=tmp_path, env=os.environ | ranks, capture_output=True, text=True
    )
    assert done.returncode == 2, done.stderr
    (line,) = done.stderr.splitlines()
    assert "start parrot-train without a launcher, or --set stage2.lora.rank=0" in line
    assert sorted(tmp_path.rglob("*")) == before


# --- by the command line --------------------------------------------------------------------------------------------
def test_two_turns_by_the_command_line(config_file, data, tmp_path, monkeypatch):
    """A stage 2 with adapters, and another that goes on from its result; each exports as any run does."""
    monkeypatch.chdir(tmp_path)
    path = data()

    def run(*arguments):
        result = CliRunner().invoke(main, [*arguments, "--config", config_file, "--data", str(path)])
        assert result.exit_code == 0, result.output

    run("stage1", "--set", "stage1.max_steps=2")
    run("stage2", "--set", "stage2.lora.rank=4")
    run("stage2", "--set", "stage2.lora.rank=4", "--from", "runs/nano/stage2", "-o", "runs/nano/on")
    first, second = (weights(Path("runs/nano") / name) for name in ("stage2", "on"))
    changed = {name for name in first if not torch.equal(first[name], second[name])}
    assert any("q_proj" in name for name in changed)
    assert not any("vision_tower" in name or "embed_tokens" in name for name in changed)
    with safe_open("runs/nano/on/model.safetensors", "pt") as opened:
        assert opened.metadata() == {"format": "pt"}


def test_an_export_takes_the_finished_run_and_a_checkpoint_on_the_way(train):
    """The same tensors from both: merged once and stored, and merged as they are read."""
    from parrot_export.checkpoint import open_checkpoint

    train(1)
    run = train(2, *LORA)
    finished, halfway = open_checkpoint(run), open_checkpoint(run / "checkpoints" / "checkpoint-5")
    assert finished.tensors.keys() == halfway.tensors.keys()
    for name, tensor in finished.tensors.items():
        np.testing.assert_array_equal(tensor.load(), halfway.tensors[name].load(), err_msg=name)
