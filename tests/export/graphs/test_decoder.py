"""The decoder's graph against the model in torch, which recomputes every sequence whole, without a cache."""

import numpy as np
import onnxruntime
import pytest
import torch
from tiny_checkpoint import HEAD_DIM, KV_HEADS, LAYERS, MAX_LEN, WIDTH, Exported, relative_error, tiny_model

TOLERANCE = {"fp32": 1e-5, "fp16": 1e-2}
CACHE = [f"{layer}.{part}" for layer in range(LAYERS) for part in ("key", "value")]


class Decoding:
    """The graph over its cache, which each call hands to the next; beside it the sequences as they grow."""

    def __init__(self, tiny: Exported, batch: int) -> None:
        self.tiny = tiny
        self.past = {name: np.zeros((batch, KV_HEADS, MAX_LEN, HEAD_DIM), np.float32) for name in CACHE}
        self.sequences = [np.empty((0, WIDTH), np.float32) for _ in range(batch)]

    def step(self, embeds: np.ndarray, valid: list[int], **options: np.ndarray) -> np.ndarray:
        """Run ``[batch, seq, C]``, of which row b's first ``valid[b]`` positions are real."""
        self.sequences = [
            np.concatenate([old, new[:count]]) for old, new, count in zip(self.sequences, embeds, valid, strict=True)
        ]
        lengths = np.array([len(sequence) for sequence in self.sequences], np.int32)
        past = {f"past_key_values.{name}": array for name, array in self.past.items()}
        total = np.array(lengths.max(), np.int32)
        controls = {"seqlens_k": lengths - 1, "total_sequence_length": total} | options
        got = self.tiny.run("decoder", inputs_embeds=embeds, **controls, **past)
        self.past = {name: got[f"present.{name}"] for name in CACHE}
        return got["logits"]

    def expected(self, model=None) -> np.ndarray:
        """torch's logits after each sequence, by the exported model unless another is given."""
        model = model or self.tiny.model
        with torch.no_grad():
            rows = [model(inputs_embeds=torch.from_numpy(one[None])).logits[0, -1] for one in self.sequences]
        return torch.stack(rows).numpy()


def draw(*shape: int) -> np.ndarray:
    return np.random.default_rng(sum(shape)).standard_normal(shape).astype(np.float32)


@pytest.mark.parametrize("precision", ["fp32", "fp16"])
@pytest.mark.parametrize("form", ["paper", "released", "llava"])
def test_prefill_and_decode_are_torchs(exported, form, precision):
    """Batch 3, length 33: sequences of 33, 20 and 1, padded on the right, then three steps of one token each."""
    decoding = Decoding(exported(form, precision), batch=3)
    logits = decoding.step(draw(3, 33, WIDTH), valid=[33, 20, 1])
    assert relative_error(logits, decoding.expected()) < TOLERANCE[precision]
    for number in range(3):
        logits = decoding.step(draw(3, 1, WIDTH) + number, valid=[1, 1, 1])
        assert relative_error(logits, decoding.expected()) < TOLERANCE[precision]


@pytest.mark.parametrize("kept", [1, 5, 7])
def test_logits_of_as_many_positions_as_asked_for(exported, kept):
    """Behind 26 positions seven more in one call, as a draft is checked: each as torch has it after that position."""
    decoding, embeds = Decoding(exported("paper"), batch=1), draw(1, 33, WIDTH)
    decoding.step(embeds[:, :26], valid=[26])
    logits = decoding.step(embeds[:, 26:], valid=[7], kept_positions=np.array(kept))
    with torch.no_grad():
        expected = decoding.tiny.model(inputs_embeds=torch.from_numpy(embeds)).logits[0, -kept:].numpy()
    assert logits.shape == expected.shape
    assert relative_error(logits, expected) < 1e-5


def test_logits_of_several_positions_of_sequences_of_several_lengths(exported):
    decoding, embeds = Decoding(exported("paper"), batch=3), draw(3, 33, WIDTH)
    logits = decoding.step(embeds, valid=[33, 20, 4], kept_positions=np.array(3)).reshape(3, 3, -1)
    with torch.no_grad():
        for got, sequence, length in zip(logits, embeds, (33, 20, 4), strict=True):
            whole = decoding.tiny.model(inputs_embeds=torch.from_numpy(sequence[None, :length])).logits[0]
            assert relative_error(got, whole[-3:].numpy()) < 1e-5


def test_a_prompt_in_chunks_is_the_whole_prompt(exported):
    embeds = draw(1, 33, WIDTH)
    chunked, whole = Decoding(exported("paper"), batch=1), Decoding(exported("paper"), batch=1)
    chunked.step(embeds[:, :10], valid=[10])
    got = chunked.step(embeds[:, 10:], valid=[23])
    assert relative_error(got, whole.step(embeds, valid=[33])) < 1e-5  # the same sums, in blocks of other sizes


def test_the_cache_is_updated_in_place_when_bound_so(exported):
    """``present`` bound to the memory of ``past``: three calls on one buffer give what handing it over gives."""
    tiny, embeds = exported("paper"), draw(1, 12, WIDTH)
    decoding = Decoding(tiny, batch=1)
    buffers = {name: np.zeros((1, KV_HEADS, MAX_LEN, HEAD_DIM), np.float32) for name in CACHE}
    for start, stop in ((0, 10), (10, 11), (11, 12)):
        binding = tiny.sessions["decoder"].io_binding()
        binding.bind_cpu_input("inputs_embeds", embeds[:, start:stop])
        binding.bind_cpu_input("seqlens_k", np.array([stop - 1], np.int32))
        binding.bind_cpu_input("total_sequence_length", np.array(stop, np.int32))
        binding.bind_output("logits")
        for name, buffer in buffers.items():
            shared = onnxruntime.OrtValue.ortvalue_from_numpy(buffer)
            binding.bind_ortvalue_input(f"past_key_values.{name}", shared)
            binding.bind_ortvalue_output(f"present.{name}", shared)
        tiny.sessions["decoder"].run_with_iobinding(binding)
        logits = decoding.step(embeds[:, start:stop], valid=[stop - start])
        np.testing.assert_array_equal(binding.get_outputs()[0].numpy(), logits)
    np.testing.assert_array_equal(buffers["2.key"], decoding.past["2.key"])
    assert np.abs(buffers["2.key"][:, :, 11]).min() > 0
    assert not buffers["2.key"][:, :, 12:].any()


def test_positions_reach_the_end_of_the_rotary_tables(exported):
    """A sequence of all ``max_len`` positions: the tables have a row for each."""
    decoding = Decoding(exported("paper"), batch=1)
    logits = decoding.step(draw(1, MAX_LEN, WIDTH), valid=[MAX_LEN])
    assert relative_error(logits, decoding.expected()) < 1e-5


def test_the_rotary_base_counts(exported):
    """The comparison would find a wrong rope_theta: another base gives other logits."""
    tiny = exported("paper")
    text = {"rope_parameters": {"rope_type": "default", "rope_theta": 100.0}}
    other = tiny_model(text=text, num_experts=5, alpha=0.7)
    other.load_state_dict(tiny.model.state_dict())
    decoding = Decoding(tiny, batch=1)
    logits = decoding.step(draw(1, 33, WIDTH), valid=[33])
    assert relative_error(logits, decoding.expected(other)) > 1e-2
