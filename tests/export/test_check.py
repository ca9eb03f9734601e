"""What the graph checks refuse: onnx's own checker lets most of it pass."""

import shutil
from pathlib import Path

import onnx
import pytest

from parrot_export.check import check_graphs
from parrot_runtime.errors import BundleError
from parrot_runtime.manifest import load_manifest


@pytest.fixture
def copy(bundle, tmp_path):
    return Path(shutil.copytree(bundle, tmp_path / "copy"))


def change(folder, edit) -> None:
    path = folder / "encoder.onnx"
    model = onnx.load(path, load_external_data=False)
    edit(model.graph)
    path.write_bytes(model.SerializeToString())


def external(graph) -> onnx.TensorProto:
    return next(t for t in graph.initializer if t.data_location == onnx.TensorProto.EXTERNAL)


def set_entry(graph, key: str, value: str) -> None:
    next(entry for entry in external(graph).external_data if entry.key == key).value = value


def test_a_sound_bundle_passes_and_its_operators_are_counted(bundle):
    operators = check_graphs(bundle, load_manifest(bundle))
    assert operators["decoder"]["GroupQueryAttention"] == 3
    assert operators["encoder"]["MultiHeadAttention"] == 2


@pytest.mark.parametrize(
    ("key", "value", "complaint"),
    [
        ("offset", "-8", "at -8 of"),
        ("offset", str(1 << 40), "are given"),
        ("length", "4", "but 4 at"),
        ("length", "many", "does not say where its data lies"),
        ("location", "README.txt", "encoder"),
        ("location", "../outside", "encoder"),
    ],
)
def test_data_that_is_not_wholly_in_a_listed_file_is_refused(copy, key, value, complaint):
    change(copy, lambda graph: set_entry(graph, key, value))
    with pytest.raises(BundleError, match=complaint):
        check_graphs(copy, load_manifest(copy))


def test_data_in_a_file_that_is_not_listed_is_refused(copy):
    shutil.copy(copy / "weights/encoder.safetensors", copy / "weights/other.safetensors")
    change(copy, lambda graph: set_entry(graph, "location", "weights/other.safetensors"))
    with pytest.raises(BundleError, match="which the manifest does not list"):
        check_graphs(copy, load_manifest(copy))


def test_an_operator_of_an_unknown_domain_is_refused(copy):
    """Declared properly, so that onnx's checker has nothing against it."""
    path = copy / "encoder.onnx"
    model = onnx.load(path, load_external_data=False)
    model.opset_import.append(onnx.helper.make_opsetid("org.example", 1))
    model.graph.node[-1].domain = "org.example"
    path.write_bytes(model.SerializeToString())
    onnx.checker.check_model(path, full_check=True)
    with pytest.raises(BundleError, match=r"operators of the domain 'org\.example' are not known here"):
        check_graphs(copy, load_manifest(copy))


def test_a_file_that_is_no_graph_is_refused_in_one_line(copy):
    (copy / "encoder.onnx").write_bytes(b"\x08\x0a not a graph")
    with pytest.raises(BundleError, match="onnx's checker refuses") as caught:
        check_graphs(copy, load_manifest(copy))
    assert "\n" not in str(caught.value)
