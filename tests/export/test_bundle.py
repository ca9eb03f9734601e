"""Whole exports: what stands in the bundle, who can read it, and that nothing appears when something is wrong."""

import hashlib
import json
import re
import shutil
from pathlib import Path

import numpy as np
import onnx
import pytest
import torch
from tiny_checkpoint import tiny_config, tiny_model, write_checkpoint, write_hollow_checkpoint

from parrot_export.bundle import export
from parrot_export.checkpoint import Checkpoint
from parrot_export.reference import prepare_for
from parrot_export.request import ExportRequest
from parrot_export.samples import verification_samples
from parrot_runtime import Parrot
from parrot_runtime.errors import InputError, ParrotError
from parrot_runtime.integrity import verify_files
from parrot_runtime.manifest import load_manifest
from parrot_runtime.prompt import PromptEncoder
from parrot_runtime.tokenizer import Detokenizer, load_tokenizer


def hashes(folder: Path) -> dict[str, str]:
    return {
        path.relative_to(folder).as_posix(): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in folder.rglob("*")
        if path.is_file()
    }


def refused(request: ExportRequest, kind=InputError) -> str:
    """Export must fail, in one line, and leave nothing where the bundle would be, not even a hidden folder."""
    before = sorted(request.output.parent.iterdir())
    with pytest.raises(kind) as caught:
        export(request)
    assert "\n" not in str(caught.value)
    assert sorted(request.output.parent.iterdir()) == before
    return str(caught.value)


def test_every_file_is_listed_and_every_graph_passes_onnx_with_its_data(bundle):
    manifest = load_manifest(bundle)
    verify_files(bundle, manifest)
    assert set(hashes(bundle)) == set(manifest.files) | {"parrot.json"}
    assert {"README.md", "tokenizer.json", "embed_tokens.safetensors"} < set(manifest.files)
    for graph in manifest.graphs.values():
        onnx.checker.check_model(bundle / graph.file, full_check=True)
        model = onnx.load(bundle / graph.file)  # with all external data
        large = [tensor for tensor in model.graph.initializer if np.prod(tensor.dims) > 64]
        assert large
        assert all(np.isfinite(onnx.numpy_helper.to_array(tensor)).all() for tensor in large)


def test_nodes_are_named_by_path(bundle):
    graph = onnx.load(bundle / "decoder.onnx", load_external_data=False).graph
    names = [node.name for node in graph.node]
    assert len(set(names)) == len(names)
    assert {"/llm/layers.0/attn/qkv/Gemm", "/llm/layers.2/mlp/down_proj/Gemm", "/llm/lm_head/Gemm"} < set(names)
    values = [name for node in graph.node for name in node.output if name]
    assert len(set(values)) == len(values)


def test_the_manifest_says_what_the_graphs_say(bundle):
    for graph in load_manifest(bundle).graphs.values():
        real = onnx.load(bundle / graph.file, load_external_data=False).graph
        # What has an initialiser is an option: nobody has to give it.
        defaults = {tensor.name for tensor in real.initializer}
        inputs = [value for value in real.input if value.name not in defaults]
        for declared, found in ((graph.inputs, inputs), (graph.outputs, real.output)):
            assert [tensor.name for tensor in declared] == [value.name for value in found]
            for tensor, value in zip(declared, found, strict=True):
                axes = tuple(axis.dim_param or axis.dim_value for axis in value.type.tensor_type.shape.dim)
                assert tensor.axes == axes


def test_the_runtime_answers_as_torch_generates(bundle, model):
    """The whole way, by the runtime's own loop: 20 greedy tokens in each of six languages."""
    parrot = Parrot.load(bundle, threads=1)
    for sample in verification_samples():
        answer = parrot.ask(sample.image, sample.question, max_new_tokens=20)
        assert answer.text == _generate(model, bundle, sample)


def _generate(model, bundle, sample) -> str:
    (question,) = prepare_for(bundle, load_manifest(bundle), [sample])
    ids, pixels = torch.from_numpy(question.ids)[None], torch.from_numpy(question.pixels)
    tokenizer = load_tokenizer(bundle / "tokenizer.json")
    pieces, stops = Detokenizer(tokenizer), PromptEncoder(tokenizer).stop_ids
    text = ""
    with torch.inference_mode():
        output = model(input_ids=ids, pixel_values=pixels, use_cache=True)
        for _ in range(20):
            token = output.logits[:, -1:].argmax(-1)
            if int(token) in stops:
                break
            text += pieces.push(int(token))
            output = model(input_ids=token, past_key_values=output.past_key_values, use_cache=True)
    return text + pieces.flush()


def test_the_same_checkpoint_gives_the_same_bytes(checkpoint, bundle, tmp_path):
    again = tmp_path / "tiny-fp32"
    export(ExportRequest(checkpoint=checkpoint, output=again, precision="fp32"))
    assert hashes(again) == hashes(bundle)


def test_fp16_halves_the_weights_and_stays_within_its_tolerance(checkpoint, bundle, tmp_path):
    folder, manifest = export(ExportRequest(checkpoint=checkpoint, output=tmp_path / "half", precision="fp16"))
    whole = load_manifest(bundle)
    assert manifest.precision == "fp16"
    assert manifest.kv_dtype == "float32"
    for name in ("embed_tokens.safetensors", "weights/experts.safetensors"):
        assert manifest.files[name].size < 0.55 * whole.files[name].size
    assert manifest.verification["tolerance"]["relative"] == 2e-2
    assert Parrot.load(folder, threads=1).ask(None, "?", max_new_tokens=2).text is not None


@pytest.mark.parametrize("precision", ["fp32", "fp16"])
def test_tied_embeddings_are_stored_once(tmp_path, precision):
    checkpoint = write_checkpoint(tmp_path / "checkpoint", tiny_model(tie_word_embeddings=True))
    folder, manifest = export(ExportRequest(checkpoint=checkpoint, output=tmp_path / "tied", precision=precision))
    graph = onnx.load(folder / "decoder.onnx", load_external_data=False).graph
    (head,) = [tensor for tensor in graph.initializer if tensor.name.endswith("embed_tokens.weight")]
    assert {entry.key: entry.value for entry in head.external_data}["location"] == "embed_tokens.safetensors"
    assert manifest.verification["status"] == "passed"


def test_llava_has_two_graphs(tmp_path):
    checkpoint = write_checkpoint(tmp_path / "checkpoint", tiny_model(num_experts=0))
    folder, manifest = export(ExportRequest(checkpoint=checkpoint, output=tmp_path / "llava"))
    assert set(manifest.graphs) == {"encoder", "decoder"}
    assert set(manifest.verification["graphs"]) == {"encoder", "decoder", "chain"}
    assert not list(folder.glob("**/experts*"))


def test_verification_can_be_left_out_and_the_card_says_so(checkpoint, tmp_path):
    folder, manifest = export(ExportRequest(checkpoint=checkpoint, output=tmp_path / "fast", verify=False))
    assert manifest.verification == {"status": "skipped"}
    assert "**Not verified**" in (folder / "README.md").read_text("utf-8")


def test_a_failed_verification_publishes_nothing(checkpoint, tmp_path, monkeypatch):
    monkeypatch.setattr(Checkpoint, "load_model", lambda self: tiny_model(seed=1, num_experts=5))
    message = refused(ExportRequest(checkpoint=checkpoint, output=tmp_path / "wrong"), ParrotError)
    assert "verification against torch failed" in message
    assert "nothing was published" in message


def test_a_failed_export_leaves_the_old_bundle_whole(checkpoint, bundle, tmp_path, monkeypatch):
    old = Path(shutil.copytree(bundle, tmp_path / "old"))
    before = hashes(old)
    monkeypatch.setattr(Checkpoint, "load_model", lambda self: tiny_model(seed=1, num_experts=5))
    refused(ExportRequest(checkpoint=checkpoint, output=old, force=True), ParrotError)
    assert hashes(old) == before


def test_an_existing_output_is_refused_without_force(checkpoint, bundle, tmp_path):
    old = Path(shutil.copytree(bundle, tmp_path / "old"))
    assert "--force" in refused(ExportRequest(checkpoint=checkpoint, output=old))
    assert hashes(old) == hashes(bundle)
    _, manifest = export(ExportRequest(checkpoint=checkpoint, output=old, precision="fp16", force=True))
    assert load_manifest(old) == manifest


def test_an_empty_folder_may_be_filled(checkpoint, tmp_path):
    (tmp_path / "out").mkdir()
    folder, manifest = export(ExportRequest(checkpoint=checkpoint, output=tmp_path / "out", target="cpu", verify=False))
    assert load_manifest(folder) == manifest


def test_force_replaces_bundles_and_nothing_else(checkpoint, tmp_path):
    precious = tmp_path / "thesis"
    precious.mkdir()
    (precious / "chapter1.txt").write_text("years of work")
    assert "is no bundle" in refused(ExportRequest(checkpoint=checkpoint, output=precious, force=True))
    assert (precious / "chapter1.txt").read_text() == "years of work"


def test_a_weight_beyond_fp16_fails_before_anything_is_published(tmp_path):
    model = tiny_model(num_experts=0)
    with torch.no_grad():
        model.lm_head.weight[5, 7] = 1e5
    checkpoint = write_checkpoint(tmp_path / "checkpoint", model)
    message = refused(ExportRequest(checkpoint=checkpoint, output=tmp_path / "x", verify=False), ParrotError)
    assert "lm_head.weight holds 100000, above fp16's 65504" in message


@pytest.mark.parametrize(("asked", "kept"), [(None, 1024), (19, 19), (1024, 1024)])
def test_the_longest_sequence_is_the_models_or_what_was_asked(checkpoint, tmp_path, asked, kept):
    request = ExportRequest(checkpoint=checkpoint, output=tmp_path / "x", max_len=asked, verify=False)
    assert export(request)[1].model.max_len == kept


@pytest.mark.parametrize("asked", [-1, 18, 1025])
def test_a_longest_sequence_the_model_cannot_have_is_refused(checkpoint, tmp_path, asked):
    message = refused(ExportRequest(checkpoint=checkpoint, output=tmp_path / "x", max_len=asked))
    assert f"--max-len is {asked}; this model takes 19" in message


def test_a_longest_sequence_without_room_for_the_verification_is_refused(checkpoint, tmp_path):
    message = refused(ExportRequest(checkpoint=checkpoint, output=tmp_path / "x", max_len=64))
    assert re.search(r"--max-len is 64, and the questions of the verification take \d+ positions", message)
    assert "--no-verify" in message


def test_heads_that_the_runtime_cannot_rotate_are_refused(tmp_path):
    config = tiny_config(text={"head_dim": 8})
    checkpoint = write_hollow_checkpoint(tmp_path / "checkpoint", config)
    message = refused(ExportRequest(checkpoint=checkpoint, output=tmp_path / "x", verify=False))
    assert "heads are 8 wide" in message


def test_too_little_room_is_said_before_a_byte_is_written(checkpoint, tmp_path, monkeypatch):
    usage = shutil.disk_usage(tmp_path)
    monkeypatch.setattr(shutil, "disk_usage", lambda _path: usage._replace(free=1000))
    message = refused(ExportRequest(checkpoint=checkpoint, output=tmp_path / "x"), ParrotError)
    assert "make room" in message


def test_a_disk_that_fills_up_meanwhile_is_one_line(checkpoint, tmp_path, monkeypatch):
    from parrot_export.weights import WeightFile

    def full(self, folder, progress):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(WeightFile, "write", full)
    message = refused(ExportRequest(checkpoint=checkpoint, output=tmp_path / "x"), ParrotError)
    assert "No space left on device" in message


def test_the_name_is_the_configuration_that_trained_it(checkpoint, tmp_path, monkeypatch):
    run = Path(shutil.copytree(checkpoint, tmp_path / "runs/nano/stage2"))
    (run / "run.json").write_text(json.dumps({"status": "finished", "stage": 2, "config": "nano", "finished": "2"}))
    monkeypatch.chdir(tmp_path)
    folder, manifest = export(ExportRequest(verify=False))
    assert folder == Path("bundles/nano-fp16")
    assert manifest.name == "nano"


def test_without_a_run_the_step_that_is_missing_is_named(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(InputError, match="run `parrot-train stage2` first"):
        export(ExportRequest())
    assert not list(tmp_path.iterdir())
