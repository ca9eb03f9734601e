"""The known architectures: their sizes are those that are published, and nano's is the shipped model's."""

import pytest

from parrot_runtime.errors import InputError
from parrot_train.architectures import ARCHITECTURES, named_architecture
from parrot_train.random_checkpoint import tensors

# Language model as published (millions, embeddings included), 304.0 of CLIP ViT-L/14-336 less its last layer (12.6) and
# the norm after it, the projector's two Linear, six experts of two and the router.
_LLM = {
    "parrot-qwen2-0.5b": 494.0,
    "parrot-qwen2-7b": 7615.6,
    "parrot-qwen1.5-7b": 7721.3,
    "parrot-qwen1.5-14b": 14167.3,
    "parrot-qwen1.5-32b": 32512.2,
}


def _millions(name: str) -> float:
    return sum(tensor.numel() for tensor in tensors(named_architecture(name), "bf16").values()) / 1e6


@pytest.mark.parametrize("name", _LLM)
def test_parameters(name):
    width = named_architecture(name).text_config.hidden_size
    projector = 1025 * width + (width + 1) * width
    mixture = 6 * 2 * (width + 1) * width + 6 * width
    expected = _LLM[name] + 290.9 + (projector + mixture) / 1e6
    assert _millions(name) == pytest.approx(expected, abs=0.2)


def test_nano_is_the_shipped_model():
    config = named_architecture("nano")
    assert config.num_experts == 6
    assert config.text_config.vocab_size == 1536


def test_an_unknown_name_gets_the_nearest():
    with pytest.raises(InputError, match=r"did you mean 'parrot-qwen2-7b'\?"):
        named_architecture("parrot-qwen2-7")


def test_every_name_can_be_built():
    for name in ARCHITECTURES:
        assert named_architecture(name).image_tokens > 1
