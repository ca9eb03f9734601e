"""Word embeddings and output layer on 8 bits: what stands in the files, who reads it, and what it gives."""

import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import onnx
import pytest
from click.testing import CliRunner
from PIL import Image
from safetensors.numpy import load_file
from tiny_checkpoint import model_to_round, relative_error, tiny_model, write_checkpoint

from parrot_export.bundle import export
from parrot_export.checkpoint import open_checkpoint
from parrot_export.choice import Choice, choose
from parrot_export.cli import main
from parrot_export.request import ExportRequest
from parrot_runtime import Parrot
from parrot_runtime.embedding import Embedding
from parrot_runtime.errors import InputError
from parrot_runtime.manifest import EMBEDDING_NAME

WIDTH = 128
FORMAT = Path(__file__).parents[2] / "docs/bundle-format.md"
TABLE = "model.language_model.embed_tokens.weight"


@pytest.fixture(scope="module")
def tied(tmp_path_factory):
    """A model of width 128 whose output layer is its word embeddings."""
    text = {"hidden_size": WIDTH, "intermediate_size": 192, "num_attention_heads": 8}
    model = tiny_model(text=text, tie_word_embeddings=True, num_experts=3)
    return write_checkpoint(tmp_path_factory.mktemp("words") / "tied", model)


@pytest.fixture(scope="module")
def untied(tmp_path_factory):
    return write_checkpoint(tmp_path_factory.mktemp("words") / "untied", model_to_round())


def exported(checkpoint, folder, precision, **options):
    request = ExportRequest(checkpoint=checkpoint, output=folder, precision=precision, max_len=512, **options)
    return export(request)[1]


def head(folder, role="decoder.onnx"):
    """The node that gives the logits, and what it reads by name: its place."""
    model = onnx.load(folder / role, load_external_data=False)
    (node,) = [n for n in model.graph.node if n.name.startswith("/llm/lm_head/") and n.op_type != "Cast"][-1:]
    places = {t.name: {e.key: e.value for e in t.external_data} for t in model.graph.initializer}
    return node, places


def nearest(table: np.ndarray, block: int) -> np.ndarray:
    """The table with every block on 255 codes, in float64."""
    blocks = table.astype(np.float64).reshape(len(table), -1, block)
    scales = (np.abs(blocks).max(-1, keepdims=True) / 127).astype(np.float32).astype(np.float64)
    return (np.rint(blocks / scales) * scales).reshape(table.shape)


def test_a_tied_output_layer_reads_the_table_of_eight_bits(tied, tmp_path):
    manifest = exported(tied, tmp_path / "b", "fp16", target="cpu", embedding_bits=8)
    assert manifest.units == {"embedding": "int8", "lm_head": "int8"}
    assert manifest.verification["status"] == "passed"
    stored, table = load_file(tmp_path / "b" / EMBEDDING_NAME), open_checkpoint(tied).tensors[TABLE].load()
    assert stored["embed_tokens.weight"].dtype == np.uint8
    assert stored["embed_tokens.weight.scales"].shape == (len(table), 1)
    rows = Embedding(tmp_path / "b" / EMBEDDING_NAME, vocab_size=len(table), hidden_size=WIDTH).gather(np.arange(99))
    np.testing.assert_allclose(rows, nearest(table, WIDTH)[:99], rtol=1e-6, atol=1e-7)
    node, places = head(tmp_path / "b")
    assert node.op_type == "MatMulNBits"
    assert {place["location"] for name in node.input if (place := places.get(name))} == {EMBEDDING_NAME}
    # Nothing stands twice: the decoder's own file has no table.
    decoder = load_file(tmp_path / "b/weights/decoder.safetensors")
    assert not [name for name in decoder if "embed" in name or "lm_head" in name]
    plain = exported(tied, tmp_path / "plain", "fp16", target="cpu", verify=False)
    size = plain.files[EMBEDDING_NAME].size
    assert manifest.files[EMBEDDING_NAME].size < 0.53 * size


def test_an_output_layer_of_its_own_has_codes_of_its_own(untied, tmp_path):
    manifest = exported(untied, tmp_path / "b", "fp16", target="cpu", lm_head_bits=8)
    assert manifest.units == {"lm_head": "int8"}
    node, places = head(tmp_path / "b")
    assert node.op_type == "MatMulNBits"
    assert {place["location"] for name in node.input if (place := places.get(name))} == {"weights/decoder.safetensors"}
    assert load_file(tmp_path / "b" / EMBEDDING_NAME)["embed_tokens.weight"].dtype == np.float16


@pytest.mark.parametrize(
    ("precision", "options", "kernel", "units"),
    [
        ("int8", {"embedding_bits": 8}, "MatMulNBits", {"embedding": "int8", "lm_head": "int8"}),
        ("int4", {"embedding_bits": 8}, "MatMulNBits", {"embedding": "int8"}),
        ("int8", {"lm_head_bits": 16}, "Gemm", {"lm_head": "float16"}),
        ("fp32", {"embedding_bits": 16}, "Gemm", {"embedding": "float16"}),
        ("fp16", {"embedding_bits": 8, "lm_head_bits": 16}, "Gemm", {"embedding": "int8", "lm_head": "float16"}),
    ],
)
def test_bits_and_precisions_go_together(tied, tmp_path, precision, options, kernel, units):
    manifest = exported(tied, tmp_path / "b", precision, target="cpu", verify=False, **options)
    node, _ = head(tmp_path / "b")
    assert node.op_type == kernel
    assert manifest.units == units
    bits = {each.name: each.i for each in node.attribute}.get("bits")
    assert bits == {"int8": 8, "int4": 4}.get(precision if kernel == "MatMulNBits" else "")


def test_a_layer_that_reads_the_words_cannot_have_other_bits(tied, tmp_path):
    """The graph would read float32, and the manifest tell of float16."""
    with pytest.raises(InputError, match="which stay float32; add --embedding-bits 16, or leave it out"):
        exported(tied, tmp_path / "b", "fp32", target="cpu", verify=False, lm_head_bits=16)
    assert not (tmp_path / "b").exists()


@pytest.mark.parametrize("dialect", ["tensorrt-modern", "tensorrt-classic"])
def test_tensorrts_output_layer_has_eight_bits_and_its_range(untied, tmp_path, dialect):
    manifest = exported(
        untied, tmp_path / "b", "fp16", target="tensorrt", dialect=dialect, embedding_bits=8, lm_head_bits=8
    )
    assert manifest.verification["status"] == "passed"
    model = onnx.load(tmp_path / "b/decoder.onnx", load_external_data=False)
    inside = [node.op_type for node in model.graph.node if node.name.startswith("/llm/lm_head/")]
    assert inside.count("QuantizeLinear") == 1
    assert inside.count("DequantizeLinear") == 2
    assert not [node for node in model.graph.node if node.op_type == "QuantizeLinear" and "lm_head" not in node.name]
    assert load_file(tmp_path / "b" / EMBEDDING_NAME)["embed_tokens.weight"].dtype == np.uint8


def test_both_dialects_look_words_up_in_one_table(tied, tmp_path, monkeypatch):
    # Without the engines, which would take their time.
    both = Choice(choose("fp16", "cpu").cpu, choose("fp16", "tensorrt").first)
    monkeypatch.setattr("parrot_export.bundle.choose", lambda *_words: both)
    manifest = exported(tied, tmp_path / "b", "fp16", embedding_bits=8)
    assert manifest.verification["tensorrt"]["status"] == "passed"
    _, places = head(tmp_path / "b", manifest.tensorrt["decoder"].file)
    (own,) = [place for name, place in places.items() if name == TABLE]
    assert own["location"] == "weights/decoder.tensorrt-modern.safetensors"


def test_a_width_that_no_block_divides_has_a_scale_per_row(tmp_path):
    source = write_checkpoint(tmp_path / "c", tiny_model(tie_word_embeddings=True, num_experts=0))
    exported(source, tmp_path / "b", "fp16", target="cpu", verify=False, embedding_bits=8)
    stored = load_file(tmp_path / "b" / EMBEDDING_NAME)
    assert stored["embed_tokens.weight.scales"].shape == (271, 1)
    node, _ = head(tmp_path / "b")
    assert node.op_type == "DynamicQuantizeMatMul"  # the other kernel has blocks of 32 at least
    rows = Embedding(tmp_path / "b" / EMBEDDING_NAME, vocab_size=271, hidden_size=48).gather(np.arange(271))
    assert relative_error(rows, open_checkpoint(source).tensors[TABLE].load()) < 5e-3


def test_the_runtime_and_the_reader_of_the_format_answer_alike(tied, tmp_path):
    exported(tied, tmp_path / "b", "int8", target="cpu", verify=False, embedding_bits=8)
    Image.new("RGB", (28, 28), (200, 30, 60)).save(tmp_path / "red.png")
    (program,) = re.findall(r"```python\n(.*?)```", FORMAT.read_text("utf-8"), re.DOTALL)
    (tmp_path / "reader.py").write_text(program, "utf-8")
    words = [sys.executable, "reader.py", "b", "red.png", "Ne var?"]
    done = subprocess.run(words, cwd=tmp_path, capture_output=True, timeout=120)
    assert done.returncode == 0, done.stderr.decode()
    answer = Parrot.load(tmp_path / "b", threads=1).ask(tmp_path / "red.png", "Ne var?", max_new_tokens=64)
    assert answer.text.strip() == done.stdout.decode("utf-8").strip()


def test_inspect_and_card_tell_the_units(tied, tmp_path):
    exported(tied, tmp_path / "b", "int8", target="cpu", verify=False, embedding_bits=8, lm_head_bits=16)
    told = CliRunner().invoke(main, ["inspect", str(tmp_path / "b")])
    assert told.exit_code == 0, told.output
    assert "  float16: lm_head\n" in told.stdout
    assert "  int8: embedding\n" in told.stdout
