"""The manifest and the files it vouches for: what is right is read back, what is wrong is named."""

import dataclasses
import itertools
import json
import shutil

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from tiny_bundle import DIMS, edit_manifest, manifest_values

from parrot_runtime.errors import BundleError
from parrot_runtime.integrity import record_files, verify_files
from parrot_runtime.manifest import MANIFEST_NAME, FileRecord, Manifest, ModelDims, load_manifest, to_json
from parrot_runtime.parrot import Parrot


def _write(folder, text):
    (folder / MANIFEST_NAME).write_text(text, encoding="utf-8")


def _refused(folder, message):
    with pytest.raises(BundleError, match=message) as error:
        load_manifest(folder)
    assert len(str(error.value).splitlines()) == 1
    assert str(folder) in str(error.value)


def test_a_bundle_reads_back_and_verifies(bundle):
    manifest = load_manifest(bundle)
    assert manifest.model == DIMS
    verify_files(bundle, manifest)
    assert set(manifest.files) == {
        *("tokenizer.json", "embed_tokens.safetensors"),
        *("vision_moe/encoder.onnx", "vision_moe/experts.onnx", "llm/decoder.onnx"),
    }


def test_to_json_is_stable_and_reads_back(copy):
    manifest = dataclasses.replace(
        load_manifest(copy), verification={"en": {"logits": 1e-6, "gleich": True}}, name="ü 鸟"
    )
    text = to_json(manifest)
    _write(copy, text)
    assert load_manifest(copy) == manifest
    assert to_json(load_manifest(copy)) == text


def test_a_flipped_bit_of_the_manifest_is_found(copy):
    manifest = load_manifest(copy)
    raw = to_json(manifest).encode()
    for place, bit in zip(range(0, len(raw), 3), itertools.cycle(range(8)), strict=False):
        (copy / MANIFEST_NAME).write_bytes(raw[:place] + bytes([raw[place] ^ 1 << bit]) + raw[place + 1 :])
        with pytest.raises(BundleError):
            load_manifest(copy)


def test_a_changed_value_is_found_and_a_changed_spelling_is_none(copy):
    data = json.loads((copy / MANIFEST_NAME).read_text())
    manifest = load_manifest(copy)
    _write(copy, json.dumps(dict(reversed(data.items()))))
    assert load_manifest(copy) == manifest
    del data["sha256"]
    _write(copy, json.dumps(data))
    assert load_manifest(copy) == manifest
    _write(copy, to_json(manifest).replace('"max_len": 256', '"max_len": 255'))
    _refused(copy, "the manifest was altered, its sha256 is not that of its values; export the bundle again")


def test_caches_and_the_manifest_itself_are_not_recorded(copy):
    (copy / "engines/sm89").mkdir(parents=True)
    (copy / "engines/sm89/encoder.engine").write_bytes(b"cache")
    assert record_files(copy) == load_manifest(copy).files


# -- the text of the manifest -----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"schema_version": 2}, "schema_version is 2, this Parrot reads 1"),
        ({"schema_version": True}, "schema_version is True"),
        ({"schema_version": 1.0}, "schema_version is 1.0"),
        ({"schema_version": None}, "schema_version is None"),
        ({"extra": 1}, "unknown key 'extra'"),
        ({"grahps": {}}, "unknown key 'grahps'; did you mean 'graphs'"),
        ({"name": ""}, "expected a short printable name"),
        ({"name": "a\nb"}, "expected a short printable name"),
        ({"name": "\ud800"}, "not a manifest"),
        ({"target": "abacus"}, "'abacus' is none of 'cpu'"),
        ({"precision": "fp15"}, "did you mean 'fp16'"),
        ({"languages": "en"}, "languages: expected tuple"),
        ({"graphs": {}}, "graphs are none; expected decoder, encoder, experts"),
        ({"prompt": {"system": "x", "image_first": False}}, "image_first"),
        ({"verification": 3}, "verification: expected dict"),
    ],
)
def test_wrong_values_are_named(copy, change, message):
    _write(copy, json.dumps({**manifest_values(copy), **change}))
    _refused(copy, message)


OPTIONAL = ("tensorrt", "tensorrt_dialect", "units")


@pytest.mark.parametrize("key", [field.name for field in dataclasses.fields(Manifest) if field.name not in OPTIONAL])
def test_every_key_is_needed(copy, key):
    data = manifest_values(copy)
    del data[key]
    _write(copy, json.dumps(data))
    _refused(copy, key)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"layers": 0}, "layers is 0"),
        ({"layers": 2.0}, "expected int, got 2.0"),
        ({"layers": True}, "expected int, got True"),
        ({"layers": 2**31}, "layers is"),
        ({"experts": -1}, "experts is -1"),
        ({"heads": 3, "kv_heads": 2}, "3 heads cannot share 2"),
        ({"max_len": 5}, "one picture alone takes 5"),
        ({"expert_kind": "relu"}, "'relu' is none of"),
        ({"experts": 0}, "graphs are decoder, encoder, experts; expected decoder, encoder"),
    ],
)
def test_impossible_models_are_refused(copy, change, message):
    data = manifest_values(copy)
    data["model"].update(change)
    _write(copy, json.dumps(data))
    _refused(copy, message)


def test_alpha_may_be_an_int():
    assert ModelDims(**{**dataclasses.asdict(DIMS), "alpha": 1}).alpha == 1


@pytest.mark.parametrize("number", ["NaN", "Infinity", "-Infinity", "1e999", "-1e999"])
def test_what_is_not_a_number_is_refused(copy, number):
    _write(copy, (copy / MANIFEST_NAME).read_text().replace('"alpha": 0.7', f'"alpha": {number}'))
    _refused(copy, f"not a manifest .*{number}")


@pytest.mark.parametrize("level", ["top", "nested"])
def test_repeated_keys_are_refused(copy, level):
    text = (copy / MANIFEST_NAME).read_text()
    if level == "top":
        _write(copy, text.replace('"name": "tiny"', '"name": "tiny", "name": "other"'))
        _refused(copy, "the key 'name' stands twice")
    else:
        _write(copy, text.replace('"heads": 2', '"heads": 2, "heads": 4'))
        _refused(copy, "the key 'heads' stands twice")


@pytest.mark.parametrize(
    "text", ["", "{", "[]", "null", '"x"', "[" * 100_000, "1" * 10_000, '{"a": "\\ud800"}', "\ufeff{}", "{} {}"]
)
def test_what_is_no_json_object_is_refused(copy, text):
    _write(copy, text)
    _refused(copy, "not a manifest|schema_version")


def test_bytes_that_are_not_utf_8_are_refused(copy):
    (copy / MANIFEST_NAME).write_bytes(b'{"name": "\xff"}')
    _refused(copy, "not a manifest")


def test_no_bundle_at_all(tmp_path):
    _refused(tmp_path, "it holds no parrot.json; run `parrot-export`")
    with pytest.raises(BundleError, match="there is no such bundle folder"):
        load_manifest(tmp_path / "nope")
    (tmp_path / MANIFEST_NAME).mkdir()
    _refused(tmp_path, "it holds no parrot.json")


def test_a_giant_manifest_is_not_read(copy):
    with open(copy / MANIFEST_NAME, "r+b") as file:
        file.truncate(1 << 30)
    _refused(copy, "which no manifest needs")


# -- paths ------------------------------------------------------------------------------------------------------------

ESCAPES = (
    *("../x", "a/../../x", "..", ".", "", "a//b", "a/", "./a", "parrot.json"),
    *("/etc/passwd", "//host/x", "a\\b", "C:/x", "c:x", "a\0b"),
)


@pytest.mark.parametrize("path", ESCAPES)
def test_paths_that_leave_the_bundle_are_refused(copy, path):
    data = manifest_values(copy)
    data["files"][path] = {"size": 1, "sha256": "0" * 64}
    _write(copy, json.dumps(data))
    _refused(copy, "in the list of files is refused")


@pytest.mark.parametrize("path", ["../decoder.onnx", "/decoder.onnx", "llm/other.onnx"])
def test_a_graph_must_be_a_listed_file(copy, path):
    data = manifest_values(copy)
    data["graphs"]["decoder"]["file"] = path
    _write(copy, json.dumps(data))
    _refused(copy, "graphs.decoder is .*which the list of files does not hold")


def test_graphs_for_tensorrt_may_be_there_and_are_then_as_listed_as_the_others(copy):
    data = manifest_values(copy)
    del data["tensorrt"], data["tensorrt_dialect"]
    _write(copy, json.dumps(data))
    assert load_manifest(copy).tensorrt == {}
    assert load_manifest(copy).tensorrt_kv_dtype is None
    _write(copy, json.dumps(data | {"tensorrt": data["graphs"]}))
    _refused(copy, "tensorrt and tensorrt_dialect go together")
    data["tensorrt_dialect"] = "tensorrt-classic"
    _write(copy, json.dumps(data | {"tensorrt": data["graphs"]}))
    assert load_manifest(copy).tensorrt == load_manifest(copy).graphs
    assert load_manifest(copy).tensorrt_kv_dtype == data["kv_dtype"]
    _write(copy, json.dumps(data | {"tensorrt": {"decoder": data["graphs"]["decoder"]}}))
    _refused(copy, "tensorrt are decoder; expected decoder, encoder, experts")
    stray = data["graphs"]["decoder"] | {"file": "stray.onnx"}
    _write(copy, json.dumps(data | {"tensorrt": data["graphs"] | {"decoder": stray}}))
    _refused(copy, "tensorrt.decoder is 'stray.onnx', which the list of files does not hold")


def _for_tensorrt_alone(folder):
    data = manifest_values(folder)
    alone = {"graphs": {}, "tensorrt": data["graphs"], "tensorrt_dialect": "tensorrt-modern"}
    return data | alone | {"target": "tensorrt-rtx", "precision": "int4", "kv_dtype": "bfloat16"}


def test_a_bundle_for_tensorrt_alone_reads_back_and_says_why_it_does_not_run_here(copy):
    _write(copy, json.dumps(_for_tensorrt_alone(copy)))
    manifest = load_manifest(copy)
    assert (manifest.target, manifest.precision, manifest.graphs) == ("tensorrt-rtx", "int4", {})
    with pytest.raises(BundleError, match=r"for tensorrt-rtx, .*`parrot-export --target cpu`") as error:
        Parrot.load(copy)
    assert len(str(error.value).splitlines()) == 1


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"target": "cpu"}, "graphs are none; expected decoder, encoder, experts"),
        ({"tensorrt": {}}, "tensorrt are none; expected decoder, encoder, experts"),
        ({"target": "cuda"}, "target: 'cuda' is none of"),
        ({"precision": "int3"}, "precision: 'int3' is none of"),
        ({"tensorrt_dialect": "ort"}, "tensorrt_dialect: 'ort' is none of"),
        ({"tensorrt_dialect": None}, "tensorrt and tensorrt_dialect go together"),
    ],
)
def test_targets_precisions_and_graphs_must_go_together(copy, changes, message):
    data = _for_tensorrt_alone(copy)
    _write(copy, json.dumps(data | changes))
    _refused(copy, message)


def test_onnxruntimes_graphs_are_not_of_tensorrts_precisions_and_stand_in_no_bundle_for_it(copy):
    data = manifest_values(copy)
    _write(copy, json.dumps(data | {"precision": "bf16"}))
    _refused(copy, "the precision is bf16, which graphs for onnxruntime cannot have")
    both = {"tensorrt": data["graphs"], "tensorrt_dialect": "tensorrt-modern"}
    _write(copy, json.dumps(data | both | {"target": "tensorrt"}))
    _refused(copy, "the target is tensorrt, but there are graphs for onnxruntime")


@pytest.mark.parametrize("name", ["tokenizer.json", "embed_tokens.safetensors"])
def test_tokenizer_and_embedding_must_be_listed(copy, name):
    data = manifest_values(copy)
    del data["files"][name]
    _write(copy, json.dumps(data))
    _refused(copy, "which the list of files does not hold")


def test_edited_manifests_of_other_tests_are_whole(copy):
    edit_manifest(copy, name="other")
    assert load_manifest(copy).name == "other"


@pytest.mark.parametrize("record", [(-1, "0" * 64), (1, "0" * 63), (1, "A" * 64), (1, "g" * 64), (1, "0" * 64 + "\n")])
def test_records_have_a_size_and_a_hash(record):
    with pytest.raises(ValueError, match="expected"):
        FileRecord(*record)


def test_a_linked_manifest_is_refused(copy, tmp_path):
    shutil.move(copy / MANIFEST_NAME, tmp_path / "other.json")
    (copy / MANIFEST_NAME).symlink_to(tmp_path / "other.json")
    _refused(copy, "it holds no parrot.json")


# -- anything at all --------------------------------------------------------------------------------------------------

_JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=3),
    max_leaves=8,
)


@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
def test_any_json_in_any_place_is_read_or_refused(bundle, tmp_path, data):
    manifest = manifest_values(bundle)
    place = manifest
    for _ in range(data.draw(st.integers(0, 3))):
        children = [value for value in place.values() if isinstance(value, dict) and value]
        if not children:
            break
        place = data.draw(st.sampled_from(children))
    key = data.draw(st.sampled_from(sorted(place)) | st.text(max_size=8))
    place[key] = data.draw(_JSON)
    _write(tmp_path, json.dumps(manifest))
    try:
        load_manifest(tmp_path)
    except BundleError as error:
        assert len(str(error).splitlines()) == 1  # noqa: PT017 - an error is one of two right results


@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
def test_any_damaged_bytes_are_read_or_refused(bundle, tmp_path, data):
    raw = bytearray((bundle / MANIFEST_NAME).read_bytes())
    for _ in range(data.draw(st.integers(1, 5))):
        raw[data.draw(st.integers(0, len(raw) - 1))] = data.draw(st.integers(0, 255))
    (tmp_path / MANIFEST_NAME).write_bytes(raw[: data.draw(st.integers(len(raw) // 2, len(raw)))])
    try:
        load_manifest(tmp_path)
    except BundleError as error:
        assert len(str(error).splitlines()) == 1  # noqa: PT017 - an error is one of two right results


@pytest.mark.parametrize(
    ("precision", "units", "together"),
    [
        ("int8", {}, True),
        ("int4", {"lm_head": "int8"}, False),
        ("mixed", {"decoder.layers.0.attn": "int4", "encoder.layers.0.mlp": "int8", "lm_head": "int8"}, False),
        ("mixed", {"decoder.layers.0.attn": "int4", "decoder.layers.1.mlp": "int8"}, True),
    ],
)
def test_int8_in_the_decoders_layers_rounds_the_rows_of_a_call_together(copy, precision, units, together):
    """What decides whether several tokens may be checked in one step."""
    _write(copy, json.dumps(manifest_values(copy) | {"precision": precision, "units": units}))
    assert load_manifest(copy).rounds_rows_together == together


def test_a_mixed_precision_says_of_what(copy):
    _write(copy, json.dumps(manifest_values(copy) | {"precision": "mixed"}))
    _refused(copy, "no units say how")
