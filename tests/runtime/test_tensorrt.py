"""The TensorRT backend against onnxruntime's on one bundle, on a device made of host memory (``tensorrt_device``).

What this shows: every address, shape, copy and index around the engines. What it cannot: anything of a real GPU.
"""

import gc

import numpy as np
import pytest
import tensorrt_device
from PIL import Image

from parrot_runtime.backends.onnxruntime import OnnxRuntimeBackend
from parrot_runtime.backends.tensorrt import TensorRTBackend
from parrot_runtime.cuda import Cuda
from parrot_runtime.engines import engine_name
from parrot_runtime.errors import BundleError, InputError, ParrotError
from parrot_runtime.flavours import Flavour
from parrot_runtime.manifest import load_manifest
from parrot_runtime.parrot import Parrot

DIALECTS = ("tensorrt-modern", "tensorrt-classic")
MAX_BATCH = 4
# Random weights give logits of about 0.1; the graphs differ in their order of sums alone.
CLOSE = {"atol": 2e-6, "rtol": 1e-4}


@pytest.fixture(scope="module")
def exported(tmp_path_factory):
    """``exported(dialect)``: a random nano model as a bundle for onnxruntime and for TensorRT, fp32, not verified."""
    bundle = pytest.importorskip("parrot_export.bundle")
    from parrot_train.architectures import named_architecture
    from parrot_train.random_checkpoint import write_random_checkpoint

    root, made = tmp_path_factory.mktemp("exported"), {}
    write_random_checkpoint(named_architecture("nano"), root / "nano", dtype="fp32", seed=5)

    def make(dialect):
        if dialect not in made:
            request = bundle.ExportRequest(
                checkpoint=root / "nano", output=root / dialect, precision="fp32", dialect=dialect, verify=False
            )
            with pytest.MonkeyPatch.context() as patch:
                patch.setattr("parrot_export.choice.choose_target", _nothing)
                made[dialect], _ = bundle.export(request)
        return made[dialect]

    return make


def _nothing(*_arguments):
    raise InputError("engines are written by the test")


class Made:
    """A backend with engines of ``bundle`` on a device of its own."""

    def __init__(self, bundle, folder, name="tensorrt", **limits):
        from parrot_export.engines import profiles

        self.api, manifest = tensorrt_device.Runtime(), load_manifest(bundle)
        self.trt = tensorrt_device.tensorrt(self.api)
        flavour = Flavour(name, "1.7.1", self.trt)
        bounds = profiles.limits(manifest.model, max_batch=MAX_BATCH, **limits)
        shapes = {role: profiles.profiles(role, graph, bounds) for role, graph in manifest.tensorrt.items()}
        self.build = tensorrt_device.write_engines(bundle, manifest, shapes, flavour, folder)
        self.load = lambda: TensorRTBackend(folder, self.build, manifest, flavour, cuda=Cuda(self.api))
        self.backend = self.load()


@pytest.fixture(autouse=True)
def state(monkeypatch, tmp_path):
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "state"))
    return tmp_path / "state" / "parrot"


@pytest.fixture(params=DIALECTS)
def bundle(request, exported):
    return exported(request.param)


@pytest.fixture
def made(bundle, tmp_path):
    return Made(bundle, tmp_path / "engines")


@pytest.fixture
def usual(bundle):
    return OnnxRuntimeBackend(bundle, load_manifest(bundle), threads=1)


@pytest.fixture
def embeds():
    return np.random.default_rng(3).standard_normal((40, 256)).astype(np.float32) * 0.02


def test_vision_and_experts_in_batches_larger_than_the_engines(made, usual):
    """Nine pictures through engines of four."""
    rng = np.random.default_rng(0)
    pixels = rng.standard_normal((9, 3, 128, 128)).astype(np.float32)
    features = made.backend.encode_images(pixels)
    np.testing.assert_allclose(features, usual.encode_images(pixels), **CLOSE)
    text = rng.standard_normal((9, 33, 256)).astype(np.float32)
    mask = np.arange(33) < np.array([33, 1, 7, 20, 2, 33, 9, 5, 4])[:, None]
    for ours, theirs in zip(made.backend.route(features, text, mask), usual.route(features, text, mask), strict=True):
        np.testing.assert_allclose(ours, theirs, atol=1e-5, rtol=1e-3)


def test_prefill_and_steps(made, usual, embeds):
    ours, theirs = (backend.new_cache(1, 1024) for backend in (made.backend, usual))
    a, b = (backend.prefill(embeds[:33], cache) for backend, cache in ((made.backend, ours), (usual, theirs)))
    np.testing.assert_allclose(a, b, **CLOSE)
    for step in range(33, 40):
        row, length = embeds[step : step + 1], np.array([step], np.int32)
        logits = made.backend.decode(row, length, ours)
        np.testing.assert_allclose(logits, usual.decode(row, length, theirs), **CLOSE)
    assert logits.dtype == np.float32


def test_a_prompt_in_pieces_behind_what_a_slot_holds(made, usual, embeds):
    cache = made.backend.new_cache(2, 1024)
    made.backend.prefill(embeds[:10], cache, slot=1)
    made.backend.prefill(embeds[10:13], cache, slot=1, start=10)
    whole = usual.prefill(embeds[:14], usual.new_cache(1, 1024))
    np.testing.assert_allclose(made.backend.prefill(embeds[13:14], cache, slot=1, start=13), whole, **CLOSE)


def test_rows_of_any_length_decode_together_as_alone(made, usual, embeds):
    """Four slots, the second free, joined late by a prompt of its own."""
    cache, alone = made.backend.new_cache(4, 1024), {}
    lengths = np.array([5, 0, 33, 1], np.int32)
    for slot in (3, 0, 2):
        made.backend.prefill(embeds[: lengths[slot]], cache, slot=slot)
        alone[slot] = usual.new_cache(1, 1024)
        usual.prefill(embeds[: lengths[slot]], alone[slot])
    for step in range(6):
        if step == 3:
            made.backend.prefill(embeds[:8], cache, slot=1)
            alone[1] = usual.new_cache(1, 1024)
            usual.prefill(embeds[:8], alone[1])
            lengths[1] = 8
        new = embeds[[step, step + 1, step + 2, step + 3]]
        logits = made.backend.decode(new, lengths, cache)
        for slot, own in alone.items():
            expected = usual.decode(new[slot : slot + 1], lengths[slot : slot + 1], own)
            np.testing.assert_allclose(logits[slot], expected[0], **CLOSE)
        lengths = np.where(lengths > 0, lengths + 1, 0).astype(np.int32)


def test_fewer_rows_than_slots_and_a_slot_used_again(made, usual, embeds):
    cache = made.backend.new_cache(3, 1024)
    made.backend.prefill(embeds[::-1], cache, slot=0)
    made.backend.prefill(embeds[:3], cache, slot=1)
    made.backend.prefill(embeds[:8], cache, slot=0)
    logits = made.backend.decode(embeds[[8, 3]], np.array([8, 3]), cache)
    for row, length in enumerate((8, 3)):
        own = usual.new_cache(1, 1024)
        usual.prefill(embeds[:length], own)
        np.testing.assert_allclose(
            logits[row], usual.decode(embeds[length : length + 1], np.array([length]), own)[0], **CLOSE
        )


def test_whole_answers_are_onnxruntimes(made, bundle, usual):
    """Prompts, slots, streams and several pictures, by the same engine loop."""
    picture = Image.fromarray(np.random.default_rng(1).integers(0, 255, (60, 50, 3), np.uint8))
    theirs = Parrot.load(bundle, backend="onnxruntime", threads=1)
    ours = Parrot(theirs.manifest, theirs._tokenizer, theirs._embedding, made.backend)
    asked = [(picture, "Görselde ne var?"), (None, "كيف حالك؟"), ([picture, picture], "Что здесь?"), (picture, "?")]
    answers = [[each.token_ids for each in p.ask_batch(asked, slots=3, max_new_tokens=9)] for p in (ours, theirs)]
    assert answers[0] == answers[1]
    assert ours.ask(picture, "Görselde ne var?", max_new_tokens=9).token_ids == answers[0][0]
    assert (ours.backend, theirs.backend) == ("tensorrt", "onnxruntime")


# -- graphs, memory, limits -------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("name", "graphs"), [("tensorrt", 1), ("tensorrt-rtx", 0)])
def test_a_step_that_repeats_is_one_cuda_graph(exported, tmp_path, embeds, name, graphs):
    """Recorded at the second call, replayed after it; RTX is told to record by itself."""
    made = Made(exported(DIALECTS[0]), tmp_path / "engines", name)
    cache = made.backend.new_cache(1, 1024)
    made.backend.prefill(embeds[:4], cache)
    for step in range(4, 9):
        made.backend.decode(embeds[step : step + 1], np.array([step]), cache)
    decode = made.trt.engines["decoder"].contexts[1]
    assert (made.api.graphs, made.api.launches) == (graphs, 4 * graphs)
    assert decode.calls == (2 if graphs else 5)
    whole = [context.config and context.config.cuda_graph_strategy for context in made.trt.engines["decoder"].contexts]
    assert whole == ([None, None] if graphs else [None, "whole"])


def test_memory_goes_back(made, embeds):
    before = dict(made.api.memory)
    cache = made.backend.new_cache(2, 1024)
    made.backend.prefill(embeds[:4], cache)
    made.backend.decode(embeds[:1], np.array([4]), cache)
    taken = sum(map(len, made.api.memory.values())) - sum(map(len, before.values()))
    assert taken > 2 * 1024 * 2 * 5 * 128 * 4  # slots, positions, keys and values, layers, width, bytes
    del cache
    made.backend = None
    gc.collect()
    assert made.api.graphs == 0
    assert not made.api.memory
    assert not made.api.pinned


def test_engines_share_scratch_memory(made):
    contexts = [context for engine in made.trt.engines.values() for context in engine.contexts]
    assert len({context.scratch for context in contexts}) == 1
    assert contexts[0].scratch[1] == max(tensorrt_device.SCRATCH.values())


def test_what_was_compiled_is_kept_for_the_next_start(exported, tmp_path, state):
    made = Made(exported(DIALECTS[0]), tmp_path / "engines", "tensorrt-rtx")
    compiler = made.trt.engines["decoder"].contexts[0].config.compiler
    assert compiler is made.trt.engines["decoder"].contexts[1].config.compiler
    assert compiler.known == b""
    made.backend = None
    gc.collect()
    kept = state / "compiled" / made.build.engines["decoder"].sha256
    assert kept.read_bytes() == b"compiled"
    made.load()
    assert made.trt.engines["decoder"].contexts[0].config.compiler.known == b"compiled"


def test_a_state_folder_that_cannot_be_written_costs_nothing_but_time(exported, tmp_path, state, monkeypatch):
    state.parent.mkdir(parents=True)
    state.write_text("a file where the folder should be")
    made = Made(exported(DIALECTS[0]), tmp_path / "engines", "tensorrt-rtx")
    made.backend = None
    gc.collect()


def test_more_slots_than_the_engines_have(made):
    with pytest.raises(InputError, match=r"5 answers at once .* built for 4; .*--max-batch 5"):
        made.backend.new_cache(5, 1024)


def test_engines_for_shorter_sequences_bound_the_prompt(bundle, tmp_path):
    made = Made(bundle, tmp_path / "engines", max_len=128)
    theirs = Parrot.load(bundle, backend="onnxruntime", threads=1)
    ours = Parrot(theirs.manifest, theirs._tokenizer, theirs._embedding, made.backend)
    assert (ours.max_len, theirs.max_len) == (128, 1024)
    with pytest.raises(InputError, match="room for 127"):
        ours.ask(None, "ne var? " * 60)
    assert len(ours.ask(None, "ne var?", max_new_tokens=200).token_ids) <= 128


def test_too_little_memory_on_the_device(made):
    made.api.total = 1 << 20
    with pytest.raises(ParrotError, match=r"of 1 MiB free and \d+ MiB are needed; close .*--max-batch 1"):
        made.backend.new_cache(4, 1024)


# -- what goes wrong --------------------------------------------------------------------------------------------------


def test_a_file_that_is_no_engine(made, tmp_path):
    (tmp_path / "engines" / engine_name("experts")).write_bytes(b"\x00not an engine")
    with pytest.raises(ParrotError, match=r"experts.engine: .* does not load .*magic tag .*parrot-export engines"):
        made.load()


def test_an_engine_of_another_graph(made, tmp_path):
    folder = tmp_path / "engines"
    (folder / engine_name("experts")).write_bytes((folder / engine_name("encoder")).read_bytes())
    with pytest.raises(BundleError, match=r"experts.engine: '\w+' is .* in the engine and .* in the manifest"):
        made.load()


def test_a_call_outside_of_the_profile_says_so(made):
    with pytest.raises(ParrotError, match=r"'text_embeds' of \(1, 2000, 256\) is not what .* outside of"):
        made.backend.route(
            np.zeros((1, 65, 256), np.float32), np.zeros((1, 2000, 256), np.float32), np.ones((1, 2000), bool)
        )


@pytest.mark.parametrize("name", ["cudaStreamSynchronize", "cudaMemcpyAsync"])
def test_a_device_that_fails_says_what_cuda_said(made, name):
    made.api.fails[name] = 700
    with pytest.raises(ParrotError, match=rf"{name} \(an illegal memory access was encountered\).*nvidia-smi"):
        made.backend.encode_images(np.zeros((1, 3, 128, 128), np.float32))


def test_a_capture_that_fails_leaves_the_stream_usable(exported, tmp_path, embeds):
    made = Made(exported(DIALECTS[0]), tmp_path / "engines")
    cache = made.backend.new_cache(1, 1024)
    made.backend.prefill(embeds[:4], cache)
    made.backend.decode(embeds[4:5], np.array([4]), cache)
    made.api.fails["cudaMemcpyAsync"] = 700
    with pytest.raises(ParrotError, match="illegal"):
        made.backend.decode(embeds[5:6], np.array([5]), cache)
    made.api.fails.clear()
    assert made.api.captured is None
    made.backend.decode(embeds[5:6], np.array([5]), cache)


def test_cuda_python_has_every_function_that_is_called(made, embeds):
    """The stand-in's names are the real binding's; without a driver they can be looked up, not called."""
    real = pytest.importorskip("cuda.bindings.runtime")
    names = [name for name in vars(tensorrt_device.Runtime) if name.startswith("cuda")]
    assert [name for name in names if not hasattr(real, name)] == []
    assert hasattr(real.cudaMemcpyKind, "cudaMemcpyDefault")
    assert hasattr(real.cudaStreamCaptureMode, "cudaStreamCaptureModeThreadLocal")
    assert (int(real.cudaError_t.cudaErrorMemoryAllocation), int(real.cudaStreamNonBlocking)) == (2, 1)


def test_tensorrt_has_every_method_that_is_called():
    """The same of the stand-in's engine and context, against the real TensorRT-RTX."""
    trt = pytest.importorskip("tensorrt_rtx")
    for stand_in, real in (
        (tensorrt_device.Context, trt.IExecutionContext),
        (tensorrt_device.Engine, trt.ICudaEngine),
        (tensorrt_device.RuntimeConfig, trt.IRuntimeConfig),
        (tensorrt_device.Compiler, trt.IRuntimeCache),
    ):
        names = [n for n, value in vars(stand_in).items() if callable(value) and not n.startswith("_")]
        assert [name for name in names if not hasattr(real, name)] == []
    assert hasattr(trt.ExecutionContextAllocationStrategy, "USER_MANAGED")
    assert hasattr(trt.CudaGraphStrategy, "WHOLE_GRAPH_CAPTURE")
    assert hasattr(trt.IRuntimeConfig, "cuda_graph_strategy")
