"""Real engines, built by the real TensorRT-RTX for GPUs that are not here. Only a GPU could run them."""

import hashlib
from dataclasses import replace
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper
from small_graphs import (
    GEMM_PROFILE,
    MAX_LEN,
    WIDTH,
    attention_net,
    decoder_net,
    described,
    fp8_net,
    gemm_net,
    profile,
    save,
    value,
)

from parrot_export.engines.builder import build_engine
from parrot_export.engines.callbacks import STEPS, HashedFile
from parrot_export.engines.profiles import Limits, profiles
from parrot_runtime.engines import BuildOptions, Profile
from parrot_runtime.errors import InputError, ParrotError
from parrot_runtime.flavours import Flavour

BY_THREE = ((1, 3), (2, 3), (8, 3))


def build(flavour: Flavour, path: Path, *profiles: Profile, sm: int = 89, options=BuildOptions(), **more):  # noqa: B008
    engine = path.with_suffix(".engine")
    return engine, build_engine(path, engine, flavour, sm, profiles or (GEMM_PROFILE,), options, **more)


def refused(kind, *arguments, **more) -> str:
    with pytest.raises(kind) as caught:
        build(*arguments, **more)
    assert "\n" not in str(caught.value)
    return str(caught.value)


@pytest.mark.parametrize("sm", [80, 89, 120])
def test_an_engine_for_a_gpu_that_is_not_here(rtx, gemm, sm):
    steps = []
    engine, built = build(rtx, gemm, sm=sm, advance=steps.append)
    data = engine.read_bytes()
    assert (built.size, built.sha256) == (len(data), hashlib.sha256(data).hexdigest())
    assert built.size > 4000  # a plan holds kernels: an empty one would be a header of some hundred bytes
    assert built.warnings == ()
    assert sum(steps) == STEPS
    assert min(steps) > 0
    # The engine names its GPU: TensorRT-RTX writes the target in it, and the three differ.
    assert f"sm{sm}".encode() in data.lower() or f"sm_{sm}".encode() in data.lower()


def test_each_build_is_told_its_own(rtx, gemm, tmp_path):
    """Also while the builder of another lives, which a traceback that is kept holds: TensorRT then keeps its logger."""
    net = gemm_net(tmp_path, inputs=[value("u", ["batch", 3])], after=[helper.make_node("Nonsense", ["z"], ["y"])])
    with pytest.raises(InputError, match="does not take this graph") as kept:
        build(rtx, net)
    _, built = build(rtx, gemm)
    assert built.warnings == ()
    with pytest.raises(InputError, match="does not take this graph") as again:
        build(rtx, net)
    assert str(again.value) == str(kept.value)
    assert str(again.value.__cause__) == str(kept.value.__cause__)


def test_whole_and_streamed_engines_are_of_one_size(rtx, gemm, monkeypatch):
    _, streamed = build(rtx, gemm)
    monkeypatch.setattr(Flavour, "streams", False)
    engine, whole = build(rtx, gemm)
    assert whole.size == streamed.size == engine.stat().st_size
    assert whole.sha256 == hashlib.sha256(engine.read_bytes()).hexdigest()


def test_two_profiles_over_free_axes(rtx, tmp_path):
    def shapes(*rows):
        return tuple((batch, seq, WIDTH) for batch, seq, _ in rows), tuple((batch, past, 16) for batch, _, past in rows)

    made = []
    for name, rows in {
        "prefill": ((1, 1, 0), (1, 20, 0), (1, 33, 0)),
        "decode": ((1, 1, 0), (3, 1, 20), (3, 1, 32)),
    }.items():
        embeds, past = shapes(*rows)
        made.append(profile(name, **{"inputs_embeds": embeds, "past_key_values.0.key": past}))
    net = decoder_net(tmp_path)
    _, one = build(rtx, net, made[0])
    _, two = build(rtx, net, *made)
    # Kernels of the second profile come on top of the first's; the weights, a kilobyte here, are there once.
    assert two.size > 1.2 * one.size


def test_a_graph_with_an_input_that_nothing_reads_is_refused(rtx, tmp_path):
    net = gemm_net(tmp_path, inputs=[value("u", ["batch", 3])])
    message = refused(
        InputError, rtx, net, replace(GEMM_PROFILE, shapes=GEMM_PROFILE.shapes | profile(u=BY_THREE).shapes)
    )
    assert "leaves the input 'u' unused" in message


def test_an_input_that_leads_nowhere_is_unused_too(rtx, tmp_path):
    """The parser says nothing of this one: the Cast that reads the input is read by nobody."""
    dead = helper.make_node("Cast", ["u"], ["nowhere"], to=TensorProto.FLOAT)
    net = gemm_net(tmp_path, inputs=[value("u", ["batch", 3])], after=[dead, helper.make_node("Relu", ["z"], ["y"])])
    assert "'u' unused" in refused(InputError, rtx, net)


def test_attention_over_a_static_cache(rtx, tmp_path):
    """All five inputs reach an output through TensorRT's own layers for the cache and for attention."""
    graph = described(attention_net(tmp_path / "attention.onnx"))
    made = profiles("decoder", graph, Limits(max_batch=3, max_len=MAX_LEN, image_tokens=5))
    _, built = build(rtx, tmp_path / graph.file, *made)
    assert built.size > 4000


def test_a_length_that_attention_leaves_out_is_refused(rtx, tmp_path):
    """The parser takes Attention's nonpad_kv_seqlen and drops it: padding would be attended to, silently."""
    net = attention_net(tmp_path / "attention.onnx", masked=False)
    assert "leaves the input 'valid' unused, so its answers would ignore it" in refused(InputError, rtx, net)


def test_an_input_used_for_its_shape_is_used(rtx, tmp_path):
    after = [
        helper.make_node("Shape", ["u"], ["rows"], start=0, end=1),
        helper.make_node("Concat", ["rows", "rest"], ["shape"], axis=0),
        helper.make_node("Constant", [], ["rest"], value=onnx.numpy_helper.from_array(np.array([40]))),
        helper.make_node("Reshape", ["z", "shape"], ["y"]),
    ]
    after = [after[2], after[0], after[1], after[3]]
    net = gemm_net(tmp_path, inputs=[value("u", ["batch", 3])], after=after)
    shapes = GEMM_PROFILE.shapes | profile(u=((1, 3), (3, 3), (8, 3))).shapes
    _, built = build(rtx, net, replace(GEMM_PROFILE, shapes=shapes))
    assert any("used only at compile-time" in warning for warning in built.warnings)


@pytest.mark.parametrize(
    ("operator", "complaint"),
    [
        ("Det", r"node '/net/odd' \(Det\): unsupported node; .*newer TensorRT"),
        ("Frobnicate", r"node '/net/odd' \(Frobnicate\): there is no such operator; export the bundle again"),
    ],
)
def test_an_operator_tensorrt_lacks_is_named_in_one_line(rtx, tmp_path, operator, complaint):
    net = gemm_net(tmp_path, after=[helper.make_node(operator, ["z"], ["y"], name="/net/odd")])
    with pytest.raises(InputError, match=complaint) as caught:
        build(rtx, net)
    assert "\n" not in str(caught.value)
    # Its own words are kept for the traceback.
    assert "While parsing node number 1" in str(caught.value.__cause__)


def test_fp8_is_built_where_the_gpu_has_it(rtx, tmp_path):
    net = fp8_net(tmp_path / "fp8.onnx")
    _, built = build(rtx, net, sm=89)
    assert built.size > 4000
    assert "sm80 has no fp8_e4m3; export in another precision" in refused(ParrotError, rtx, net, sm=80)


def test_missing_weights_are_named(rtx, gemm):
    (gemm.parent / "weights/gemm.safetensors").unlink()
    message = refused(InputError, rtx, gemm)
    assert "Failed to open file" in message
    assert "gemm.safetensors; copy the bundle again" in message


@pytest.mark.parametrize("content", [b"", b"xx"])
def test_a_file_without_a_graph_is_refused(rtx, tmp_path, content):
    """TensorRT's parser reports success for these."""
    path = tmp_path / "empty.onnx"
    path.write_bytes(content)
    assert "finds no graph in this file" in refused(InputError, rtx, path)


def test_too_little_workspace_says_which_option_gives_more(rtx, gemm):
    message = refused(ParrotError, rtx, gemm, options=BuildOptions(workspace_mib=1))
    assert "needs more workspace; give the builder more with --workspace" in message


def test_an_engine_without_its_weights_needs_a_gpu_to_build(rtx, gemm):
    """Compiling for a later refit asks the driver, which is not here. The reason is the library's own."""
    if _gpu_here():
        pytest.skip("there is a GPU here, so this build works")
    message = refused(ParrotError, rtx, gemm, options=BuildOptions(strip_weights=True))
    assert "needs a GPU with a current driver" in message


def _gpu_here() -> bool:
    from parrot_runtime.gpu import present_gpu

    return present_gpu() is not None


@pytest.mark.parametrize(
    ("wrong", "complaint"),
    [
        (
            profile(x=((1, 23), (3, 23), (8, 23))),
            r"'x' in the profile 'default' is \(1, 23\) to \(8, 23\), in the graph",
        ),
        (profile(x=((1,), (3,), (8,))), "in the graph"),
        (profile(other=((1, WIDTH), (3, WIDTH), (8, WIDTH))), "the input 'other' is not in both"),
    ],
)
def test_profiles_must_be_the_graphs(rtx, gemm, wrong, complaint):
    with pytest.raises(InputError, match=complaint):
        build(rtx, gemm, wrong)


def test_a_full_disk_is_raised_as_such_through_tensorrt(rtx, gemm, monkeypatch):
    def full(self, data):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(HashedFile, "write", full)
    with pytest.raises(OSError, match="No space left"):
        build(rtx, gemm)


def test_an_interruption_cancels_the_build(rtx, gemm):
    seen = []

    def interrupt(steps):
        seen.append(steps)
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        build(rtx, gemm, advance=interrupt)
    # Called once more at the most per phase that was open; a build that goes on would call dozens of times.
    assert len(seen) < 10


@pytest.mark.filterwarnings("ignore:.*Timing cache operations are no-ops:DeprecationWarning")
def test_as_full_tensorrt_it_types_strongly_and_keeps_timings(rtx, gemm):
    """The same API under its other name: strong typing is asked for, and a timing cache goes in and comes out."""
    full = Flavour("tensorrt", "10.3.0", rtx.trt)
    _, built = build(full, gemm)
    assert built.timings
    _, again = build(full, gemm, timings=built.timings)
    assert again.size == built.size
    # Somebody else's cache is not used, and not an error.
    _, fresh = build(full, gemm, timings=b"not a cache")
    assert fresh.timings


def test_a_loosely_typed_mixture_is_refused(rtx, tmp_path):
    """Strongly typed means that nothing is converted silently: fp16 plus fp32 is an error, not a choice."""
    nodes = [helper.make_node("Add", ["x", "b"], ["y"], name="/net/Add")]
    inputs = [value("x", ["batch", WIDTH]), value("b", ["batch", WIDTH], TensorProto.FLOAT)]
    net = save(tmp_path / "mixed.onnx", nodes, inputs, [value("y", ["batch", WIDTH])])
    both = profile(x=((1, WIDTH), (3, WIDTH), (8, WIDTH)), b=((1, WIDTH), (3, WIDTH), (8, WIDTH)))
    assert "/net/Add" in refused(ParrotError, rtx, net, both)
