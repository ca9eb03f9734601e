"""Which backend runs a bundle, and which engines may: on a machine whose GPU, TensorRT and memory are made up."""

import json
import os

import pytest
from click.testing import CliRunner
from tensorrt_device import write_engines
from tiny_bundle import edit_manifest

from parrot_runtime.backends.choose import choose_engines, create_backend, find_engines
from parrot_runtime.bundles import find_bundle
from parrot_runtime.cli import main
from parrot_runtime.engines import BUILD_NAME, BuildOptions, engine_folder
from parrot_runtime.errors import BundleError, InputError, ParrotError
from parrot_runtime.flavours import Flavour
from parrot_runtime.gpu import Gpu
from parrot_runtime.machine import built_here, keep_compiled, load_compiled, remember_build, state_folder
from parrot_runtime.manifest import load_manifest
from parrot_runtime.parrot import Parrot

ADA = Gpu("NVIDIA GeForce RTX 4090", 89)


@pytest.fixture(autouse=True)
def machine(monkeypatch, tmp_path):
    """An RTX 4090, TensorRT-RTX 1.7 alone, and a state folder of its own."""
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "state"))
    monkeypatch.setattr("parrot_runtime.gpu.present_gpu", lambda: ADA)
    monkeypatch.setattr("parrot_runtime.flavours.installed", lambda: ("tensorrt-rtx",))
    monkeypatch.setattr("parrot_runtime.flavours.load_flavour", lambda name: Flavour(name, "1.7", None))


@pytest.fixture
def both(copy):
    """A bundle with graphs for both, and no engines."""
    data = json.loads((copy / "parrot.json").read_text("utf-8"))
    edit_manifest(copy, tensorrt=data["graphs"], tensorrt_dialect="tensorrt-modern")
    return copy


def build(bundle, *, remember=True):
    """Engines of ``bundle`` for the GPU here, which nobody is to run."""
    manifest, flavour = load_manifest(bundle), Flavour("tensorrt-rtx", "1.7", None)
    folder = engine_folder(bundle, ADA.sm, flavour.name, flavour.version)
    write_engines(bundle, manifest, dict.fromkeys(manifest.tensorrt, ()), flavour, folder, ADA.sm)
    if remember:
        remember_build(folder / BUILD_NAME)
    return folder


def flip(path):
    """Another content of the same size."""
    path.write_bytes(path.read_bytes()[::-1])


def chosen(bundle, backend="auto", **options):
    return choose_engines(bundle, load_manifest(bundle), backend, **options)


def test_engines_that_were_built_here_are_taken(both):
    folder = build(both)
    found = chosen(both)
    assert (found.folder, str(found.flavour)) == (folder, "tensorrt-rtx 1.7")
    assert set(found.build.engines) == {"encoder", "experts", "decoder"}
    assert chosen(both, "onnxruntime") is None


def test_without_engines_onnxruntime_runs_it_and_nothing_is_said(both):
    notes = []
    assert chosen(both, note=notes.append) is None
    assert notes == []


@pytest.mark.parametrize(
    ("damage", "reason"),
    [
        (lambda folder: flip(folder / "decoder.engine"), "altered since it was built"),
        (lambda folder: (folder / "decoder.engine").unlink(), "missing, a link or cut"),
        (lambda folder: (folder / BUILD_NAME).write_text("{"), "not a build that can be read"),
        (lambda folder: folder.rename(folder.with_name("sm89-tensorrt-rtx-1.6")), "there are no engines"),
        (lambda folder: edit_manifest(folder.parents[1], tensorrt_dialect="tensorrt-modern"), None),
    ],
)
def test_engines_that_are_not_whole_are_passed_over_and_that_is_said(both, damage, reason):
    folder, notes = build(both), []
    damage(folder)
    found = chosen(both, note=notes.append)
    assert (found is None) == (reason is not None)
    assert [reason in note for note in notes] == ([True] if reason else [])
    if reason:
        with pytest.raises(InputError, match=reason):
            chosen(both, "tensorrt")


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"sm": 120}, "built for another GPU"),
        ({"version": "1.8"}, "by another TensorRT"),
        ({"options": BuildOptions(strip_weights=True)}, "without weights"),
    ],
)
def test_a_record_that_says_something_else_than_its_folder(both, changes, reason):
    folder = build(both)
    record = json.loads((folder / BUILD_NAME).read_text("utf-8"))
    record |= {name: vars(value) if isinstance(value, BuildOptions) else value for name, value in changes.items()}
    (folder / BUILD_NAME).write_text(json.dumps(record), "utf-8")
    remember_build(folder / BUILD_NAME)
    with pytest.raises(InputError, match=reason):
        find_engines(both, load_manifest(both))


def test_engines_of_other_graphs_are_stale(both):
    build(both)
    graph = both / load_manifest(both).tensorrt["encoder"].file
    graph.write_bytes(graph.read_bytes() + b"\x00")
    edit_manifest(both)
    with pytest.raises(InputError, match=r"encoder.onnx is another than the one they were built from; .*engines"):
        chosen(both, "tensorrt")


def test_an_engine_is_code_from_elsewhere_it_must_be_trusted_on_purpose(both):
    folder, notes = build(both, remember=False), []
    assert chosen(both, note=notes.append) is None
    assert "not built on this machine" in notes[0]
    assert "--trust-engines" in notes[0]
    assert chosen(both, trust_engines=True).folder == folder
    remember_build(folder / BUILD_NAME)
    assert chosen(both).folder == folder


def test_one_byte_more_in_the_record_is_another_build(both):
    path = build(both) / BUILD_NAME
    assert built_here(path)
    path.write_text(path.read_text("utf-8") + "\n", "utf-8")
    assert not built_here(path)


@pytest.mark.parametrize(
    ("missing", "reason"),
    [("parrot_runtime.gpu.present_gpu", "no NVIDIA GPU here"), ("parrot_runtime.flavours.installed", "no TensorRT is")],
)
def test_a_machine_that_lacks_something(both, monkeypatch, missing, reason):
    build(both)
    monkeypatch.setattr(missing, lambda: None if "gpu" in missing else ())
    with pytest.raises(InputError, match=reason):
        chosen(both, "tensorrt")
    notes = []
    assert chosen(both, note=notes.append) is None
    # Where there is no GPU, engines are nobody's business; where there is one, why they do not run is.
    assert [reason in note for note in notes] == ([] if "GPU" in reason else [True])


def test_a_bundle_without_graphs_for_tensorrt(bundle):
    with pytest.raises(BundleError, match="no graphs for TensorRT"):
        chosen(bundle, "tensorrt")


def test_a_bundle_for_tensorrt_alone_needs_its_engines(both):
    data = json.loads((both / "parrot.json").read_text("utf-8"))
    edit_manifest(both, target="tensorrt-rtx", graphs={}, kv_dtype=data["kv_dtype"])
    with pytest.raises(BundleError, match=r"nothing in it runs without a GPU; .*parrot-export"):
        chosen(both)
    build(both)
    assert chosen(both).build.sm == 89


@pytest.fixture
def bundles(both, bundle, tmp_path):
    """A folder with ``usual``, and a newer one for TensorRT alone, ``engines``, which are not built."""
    data = json.loads((both / "parrot.json").read_text("utf-8"))
    edit_manifest(both, target="tensorrt-rtx", graphs={}, kv_dtype=data["kv_dtype"])
    folder = tmp_path / "bundles"
    folder.mkdir()
    both.rename(folder / "engines")
    os.symlink(bundle, folder / "usual")
    os.utime(folder / "engines" / "parrot.json", (2e9, 2e9))
    return folder


def test_the_newest_bundle_this_machine_can_run_may_be_one_of_engines(bundles):
    found = find_bundle(bundles, bundles)
    assert (found.folder.name, len(found.skipped)) == ("usual", 1)
    build(bundles / "engines")
    assert find_bundle(bundles, bundles).folder.name == "engines"


def test_a_driver_that_does_not_start_is_no_matter_to_onnxruntime(both, bundle, tmp_path, monkeypatch):
    def broken():
        raise ParrotError("the NVIDIA driver is installed but does not start")

    build(both)
    monkeypatch.setattr("parrot_runtime.gpu.present_gpu", broken)
    notes = []
    assert chosen(both, note=notes.append) is None
    assert "does not start" in notes[0]
    assert chosen(both, "onnxruntime") is None
    with pytest.raises(ParrotError, match="does not start"):
        chosen(both, "tensorrt")
    assert find_bundle(both.parent, both.parent).folder == both


def test_onnxruntime_is_given_a_bundle_that_it_can_run(bundles):
    (bundles / "engines" / "engines").mkdir(exist_ok=True)  # with nothing in it
    assert find_bundle(bundles, bundles).folder.name == "usual"
    build(bundles / "engines")
    assert find_bundle(bundles, bundles).folder.name == "engines"
    assert find_bundle(bundles, bundles, backend="onnxruntime").folder.name == "usual"


def test_a_backend_nobody_knows(bundle):
    with pytest.raises(InputError, match="'cuda' is not known; choose among auto, onnxruntime, tensorrt"):
        Parrot.load(bundle, backend="cuda")


def test_threads_are_of_onnxruntime(both):
    build(both)
    with pytest.raises(InputError, match="--threads is 2"):
        create_backend(both, load_manifest(both), chosen(both), threads=2)


def test_the_command_says_why_engines_are_passed_over(both, picture, tmp_path):
    build(both, remember=False)
    path = tmp_path / "picture.png"
    picture.save(path)
    arguments = ["--bundle", str(both), str(path), "ne var?", "--max-new-tokens", "3"]
    result = CliRunner().invoke(main, arguments)
    assert result.exit_code == 0
    assert "onnxruntime runs this bundle, not TensorRT: " in result.stderr
    refused = CliRunner().invoke(main, [*arguments, "--backend", "tensorrt"])
    assert refused.exit_code == 2
    assert len(refused.stderr.splitlines()) == 1


def test_a_relative_state_folder_is_ignored(monkeypatch):
    monkeypatch.setenv("XDG_STATE_HOME", "relative")
    monkeypatch.setenv("HOME", "/home/somebody")
    assert str(state_folder()) == "/home/somebody/.local/state/parrot"


def test_what_was_compiled_comes_back():
    assert load_compiled("0" * 64) == b""
    keep_compiled("0" * 64, b"kernels")
    assert load_compiled("0" * 64) == b"kernels"
