"""The engines of a bundle as a cache: what is built, what is kept, and what a bad end leaves behind.

A stand-in builds here, in no time; the real builder has its own tests, and one here at the end.
"""

import fcntl
import json
import os
import shutil
import signal
import subprocess
import sys
import threading
from dataclasses import replace
from pathlib import Path

import pytest
from small_graphs import encoder_net, rewrite
from stand_in import RTX, on, run

from parrot_export.engines import cache, memory
from parrot_export.engines.builder import Built
from parrot_export.engines.cache import EngineRequest, build_engines
from parrot_runtime.engines import BuildOptions, engine_folder, read_build, why_stale
from parrot_runtime.errors import BundleError, InputError, ParrotError
from parrot_runtime.integrity import verify_files
from parrot_runtime.machine import built_here
from parrot_runtime.manifest import load_manifest

ROLES = ["encoder", "experts", "decoder"]


def tree(folder: Path) -> dict[str, bytes]:
    return {p.relative_to(folder).as_posix(): p.read_bytes() for p in folder.rglob("*") if p.is_file()}


def test_engines_lie_where_gpu_and_version_say_and_the_second_time_they_stay(bundle, built):
    first = run(bundle)
    assert first.folder == bundle / "engines/sm89-tensorrt-rtx-1.7.1"
    assert {path.name for path in first.folder.iterdir()} >= {"build.json", *(f"{role}.engine" for role in ROLES)}
    assert first.reason == "there were none"
    assert read_build(first.folder) == first.record
    before = tree(bundle)
    again = run(bundle)
    assert again.reason is None
    assert again.record == first.record
    assert tree(bundle) == before
    assert len(built) == 3


def test_what_is_built_here_is_known_to_be(bundle, built, monkeypatch, tmp_path):
    folder = run(bundle).folder
    assert built_here(folder / "build.json")
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "another machine"))
    assert not built_here(folder / "build.json")
    assert run(bundle).reason is None
    assert not built_here(folder / "build.json")
    run(bundle, force=True)
    assert built_here(folder / "build.json")


def test_a_state_folder_that_cannot_be_written_is_said(bundle, built, monkeypatch, tmp_path):
    (tmp_path / "file").write_text("no folder")
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "file"))
    notes = []
    (engines,) = build_engines(EngineRequest(bundle=bundle), note=notes.append, target=on())
    assert engines.reason == "there were none"
    assert "parrot-run will want --trust-engines" in notes[-1]


def test_the_record_says_what_an_engine_is_made_of(bundle, built):
    record, files = run(bundle).record, load_manifest(bundle).files
    decoder = record.engines["decoder"]
    assert decoder.source.sha256 == files["decoder.trt.onnx"].sha256
    name = "weights/decoder.trt.safetensors"
    assert decoder.source.weights == {name: files[name].sha256}
    assert record.engines["experts"].source.weights == {}
    assert [profile.name for profile in decoder.profiles] == ["prefill", "decode"]
    assert (record.sm, record.flavour, record.version) == (89, "tensorrt-rtx", "1.7.1")


def test_a_bundle_with_engines_inside_is_as_whole_as_before(bundle, built):
    listed = load_manifest(bundle).files
    run(bundle)
    manifest = load_manifest(bundle)
    verify_files(bundle, manifest)
    assert manifest.files == listed
    # Listing the files anew, as an exporter does, leaves the cache out.
    rewrite(bundle, manifest)
    assert load_manifest(bundle).files == listed


def new_graph(bundle):
    path = bundle / "encoder.trt.onnx"
    path.write_bytes(path.read_bytes() + b"\x1a\x00")  # an empty model_version's bytes: another file, the same graph
    rewrite(bundle, load_manifest(bundle))


def new_weights(bundle):
    encoder_net(bundle, seed=1)
    rewrite(bundle, load_manifest(bundle))


def cut_engine(bundle):
    os.truncate(engine_folder(bundle, 89, RTX.name, RTX.version) / "decoder.engine", 3)


def altered_engine(bundle):
    path = engine_folder(bundle, 89, RTX.name, RTX.version) / "decoder.engine"
    path.write_bytes(b"x" * path.stat().st_size)


def lost_engine(bundle):
    (engine_folder(bundle, 89, RTX.name, RTX.version) / "experts.engine").unlink()


def lost_record(bundle):
    (engine_folder(bundle, 89, RTX.name, RTX.version) / "build.json").unlink()


def other_build(**changes):
    def change(bundle):
        path = engine_folder(bundle, 89, RTX.name, RTX.version) / "build.json"
        path.write_text(json.dumps(json.loads(path.read_text()) | changes))

    return change


STALE = {
    "graph": (new_graph, {}, "encoder.trt.onnx is another"),
    "weights": (new_weights, {}, "weights/encoder.trt.safetensors is another"),
    "cut": (cut_engine, {}, "decoder.engine: missing, a link or cut"),
    "altered": (altered_engine, {}, "decoder.engine: altered since it was built"),
    "lost": (lost_engine, {}, "experts.engine: missing"),
    "batch": (lambda bundle: None, {"max_batch": 3}, "the encoder was built for other shapes"),
    "length": (lambda bundle: None, {"max_len": 20}, "built for other shapes"),
    "options": (lambda bundle: None, {"options": BuildOptions(workspace_mib=7)}, "built with other options"),
    "no record": (lost_record, {}, "there are no engines; run `parrot-export engines`"),
    "schema": (other_build(schema_version=0), {}, "written by another version of Parrot"),
    "unknown key": (other_build(colour="red"), {}, "unknown key 'colour'"),
    "gpu": (other_build(sm=80), {}, "for another GPU or by another TensorRT"),
    "version": (other_build(version="1.6"), {}, "for another GPU or by another TensorRT"),
    "roles": (other_build(engines={}), {}, "they are none, the bundle's graphs decoder, encoder, experts"),
}


@pytest.mark.parametrize("case", STALE)
def test_what_is_stale_is_built_again(bundle, built, case):
    change, settings, reason = STALE[case]
    run(bundle)
    change(bundle)
    engines = run(bundle, **settings)
    assert reason in engines.reason
    assert len(built) == 6
    assert run(bundle, **settings).reason is None


def test_another_version_or_gpu_has_a_folder_of_its_own(bundle, built):
    run(bundle)
    run(bundle, on(flavour=replace(RTX, version="1.8.0")))
    run(bundle, on(120))
    names = {path.name for path in (bundle / "engines").iterdir()}
    assert names == {"sm89-tensorrt-rtx-1.7.1", "sm89-tensorrt-rtx-1.8.0", "sm120-tensorrt-rtx-1.7.1"}
    assert len(built) == 9


def test_force_builds_what_is_current_and_timings_go_from_one_build_to_the_next(bundle, built):
    run(bundle)
    assert run(bundle, force=True).reason == "--force"
    assert [timings for _, _, timings in built] == [b"", b"t", b"tt", b"ttt", b"tttt", b"ttttt"]


def test_a_runtime_sees_that_engines_are_not_its_bundles(bundle, built):
    """What the loader asks needs no TensorRT and no graph to be read."""
    record = run(bundle).record
    assert why_stale(record, load_manifest(bundle)) is None
    new_weights(bundle)
    assert "encoder.trt.safetensors is another" in why_stale(record, load_manifest(bundle))


def test_altered_weights_are_not_built_from(bundle, built):
    path = bundle / "weights/encoder.trt.safetensors"
    data = bytearray(path.read_bytes())
    data[-1] ^= 1
    path.write_bytes(data)
    with pytest.raises(BundleError, match="the file was altered"):
        run(bundle)
    assert not built


@pytest.mark.parametrize("error", [ParrotError("no kernel"), KeyboardInterrupt()])
def test_a_build_that_fails_leaves_what_stood(bundle, built, monkeypatch, error):
    run(bundle)
    before = tree(bundle)

    def fail(onnx, engine, *_arguments, **_more):
        engine.write_bytes(b"half")
        if "decoder" in onnx.name:
            raise error
        return Built(4, "0" * 64, 0.0, (), b"")

    monkeypatch.setattr(cache, "build_engine", fail)
    with pytest.raises(type(error)):
        run(bundle, force=True)
    assert tree(bundle) == before


def test_a_full_disk_is_one_line_and_leaves_nothing(bundle, built, monkeypatch):
    def full(*_arguments, **_more):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(cache, "build_engine", full)
    with pytest.raises(ParrotError, match=r"cannot be written \(No space left on device\); make room") as caught:
        run(bundle)
    assert "\n" not in str(caught.value)
    assert not list((bundle / "engines").iterdir())


def test_too_little_room_is_said_before_a_build(bundle, built, monkeypatch):
    usage = shutil.disk_usage(bundle)
    monkeypatch.setattr(shutil, "disk_usage", lambda _path: usage._replace(free=1000))
    with pytest.raises(ParrotError, match="make room, or delete engines"):
        run(bundle)
    run(bundle, options=BuildOptions(strip_weights=True))
    assert len(built) == 3


def test_too_little_memory_is_said_before_a_build(bundle, built, monkeypatch):
    monkeypatch.setattr(memory, "available_memory", lambda: 1 << 20)
    with pytest.raises(ParrotError, match=r"encoder\.trt\.onnx: building its engine takes about 0\.5 GiB of memory"):
        run(bundle)
    assert not built


# A builder of its own process that stops in the middle of the second engine, tells so, and waits for its end.
VICTIM = """
import sys, time
from pathlib import Path
sys.path.insert(0, sys.argv[2])
from parrot_export.engines.builder import Built
from stand_in import cache, run
def build(onnx, engine, *arguments, **more):
    engine.write_bytes(b"half")
    if "experts" in onnx.name:
        Path(sys.argv[3]).touch()
        time.sleep(600)
    return Built(4, "0" * 64, 0.0, (), b"")
cache.build_engine = build
run(Path(sys.argv[1]), force=True)
"""


def test_sigkill_in_the_middle_leaves_no_half_folder_and_the_next_cleans(bundle, built, tmp_path):
    run(bundle)
    before, sign = tree(bundle), tmp_path / "in the middle"
    arguments = [sys.executable, "-c", VICTIM, str(bundle), str(Path(__file__).parent), str(sign)]
    with subprocess.Popen(
        arguments, env=os.environ | {"PYTHONPATH": os.pathsep.join(filter(None, sys.path))}
    ) as victim:
        while not sign.exists():
            assert victim.poll() is None, "the victim ended by itself"
            threading.Event().wait(0.05)
        # While it lives, it alone builds here.
        descriptor = os.open(bundle / "engines", os.O_RDONLY)
        with pytest.raises(BlockingIOError):
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        os.close(descriptor)
        victim.send_signal(signal.SIGKILL)
        victim.wait()
    assert {name: data for name, data in tree(bundle).items() if ".partial" not in name} == before
    assert list((bundle / "engines").glob(".*.partial"))
    assert run(bundle).reason is None
    assert not list((bundle / "engines").glob(".*"))
    assert tree(bundle) == before


def test_an_old_folder_that_stepped_aside_is_put_back(bundle, built):
    """A process killed between the two renames of a replacement."""
    engines = run(bundle)
    before = tree(bundle)
    os.rename(engines.folder, engines.folder.with_name(f".{engines.folder.name}.abc.123.old"))
    assert run(bundle).reason is None
    assert tree(bundle) == before


def test_two_builders_at_once_take_turns(bundle, built):
    """Both ask for the same engines; one builds, the other waits, says so, and finds them."""
    results, notes = [], []
    descriptor = os.open(bundle, os.O_RDONLY)
    (bundle / "engines").mkdir()
    lock = os.open(bundle / "engines", os.O_RDONLY)
    fcntl.flock(lock, fcntl.LOCK_EX)

    def work():
        request = EngineRequest(bundle=bundle)
        results.extend(build_engines(request, note=notes.append, target=on()))

    threads = [threading.Thread(target=work) for _ in range(2)]
    for thread in threads:
        thread.start()
    while len(notes) < 2:
        threading.Event().wait(0.01)
    os.close(lock)
    for thread in threads:
        thread.join(60)
    os.close(descriptor)
    assert all("waiting for them to finish" in line for line in notes)
    assert sorted(engines.reason is None for engines in results) == [False, True]
    assert len(built) == 3


def test_a_bundle_without_graphs_for_tensorrt_says_so(bundle):
    rewrite(bundle, load_manifest(bundle), tensorrt={}, tensorrt_dialect=None)
    with pytest.raises(BundleError, match="no graphs for TensorRT in this bundle; export one with --target tensorrt"):
        run(bundle)


def test_a_workspace_of_nothing_is_refused(bundle):
    with pytest.raises(InputError, match="--workspace is 0; expected 1 MiB or more"):
        run(bundle, options=BuildOptions(workspace_mib=0))


def test_the_real_thing_for_three_gpus(bundle, rtx):
    """All three graphs, as parrot-export engines builds them."""
    found = list(build_engines(EngineRequest(bundle=bundle, sms=(80, 89, 120), flavour="tensorrt-rtx")))
    assert [engines.record.sm for engines in found] == [80, 89, 120]
    for engines in found:
        assert set(engines.record.engines) == set(ROLES)
        assert all(engine.size > 4000 and not engine.warnings for engine in engines.record.engines.values())
        assert read_build(engines.folder) == engines.record
    verify_files(bundle, load_manifest(bundle))
