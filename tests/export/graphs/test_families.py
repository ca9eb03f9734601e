"""Every kind of language model against transformers' own: the torch model, and its graph on onnxruntime.

The reference is the class that transformers itself gives a checkpoint of that kind; only its weights are shared.
"""

import json

import numpy as np
import pytest
import torch
from tiny_checkpoint import Exported, tiny_model, write_checkpoint
from transformers import AutoConfig, AutoModelForCausalLM

from parrot_export.checkpoint import open_checkpoint
from parrot_runtime.errors import InputError
from parrot_train.model import ParrotConfig

# The promise; float32 sums in another order are off by about 1e-6 here, on logits of the size of one.
TOLERANCE = 1e-4
DECODERS = {
    "qwen1.5": {"model_type": "qwen2", "num_key_value_heads": 6},
    "qwen2": {"model_type": "qwen2"},
    "qwen2.5-tied": {"model_type": "qwen2", "tie_word_embeddings": True},
    # Heads wider than the model is per head, as in Qwen3-0.6B.
    "qwen3": {"model_type": "qwen3", "head_dim": 32},
    "qwen3-tied-biased": {"model_type": "qwen3", "tie_word_embeddings": True, "attention_bias": True},
    "llama": {"model_type": "llama"},
    "vicuna": {"model_type": "llama", "num_key_value_heads": 6},
    "llama-biased": {"model_type": "llama", "attention_bias": True},
}


def close(got, expected) -> None:
    """Within the tolerance, as a share of the largest expected value."""
    got, expected = np.asarray(got), np.asarray(expected)
    assert got.shape == expected.shape
    np.testing.assert_allclose(got, expected, rtol=0, atol=TOLERANCE * max(1.0, np.abs(expected).max()))


@pytest.fixture(scope="module", params=DECODERS)
def decoder(request, tmp_path_factory):
    """The tiny Parrot of one kind and its graphs, and transformers' language model with the same weights."""
    model = tiny_model(text=DECODERS[request.param], num_experts=2)
    config = AutoConfig.for_model(**model.config.text_config.to_dict())
    reference = AutoModelForCausalLM.from_config(config).eval()
    weights = {
        name.replace("model.language_model.", "model."): weight
        for name, weight in model.state_dict().items()
        if name.startswith(("model.language_model.", "lm_head."))
    }
    reference.load_state_dict(weights)
    return Exported(model, tmp_path_factory.mktemp("decoder"), "fp32"), reference


def test_a_decoder_is_transformers_own(decoder):
    """Batch 3, length 33, rows of 33, 20 and 1 padded on the right, then one more token: torch and the graph."""
    exported, reference = decoder
    shape = exported.checkpoint.architecture.decoder
    ids = torch.from_numpy(np.random.default_rng(3).integers(0, shape.vocabulary, (3, 34)))
    lengths = np.array([33, 20, 1], np.int32)
    with torch.no_grad():
        mask = torch.arange(33)[None] < torch.from_numpy(lengths)[:, None]
        ours = exported.model(ids[:, :33], attention_mask=mask.long()).logits
        table = exported.model.get_input_embeddings()(ids).numpy()
        alone = [reference(ids[row : row + 1, :length]).logits[0] for row, length in enumerate(lengths)]
        following = [
            reference(torch.cat([ids[row : row + 1, :length], ids[row : row + 1, 33:]], dim=1)).logits[0, -1]
            for row, length in enumerate(lengths)
        ]
    for row, length in enumerate(lengths):
        close(ours[row, :length], alone[row])
    cache = {
        f"past_key_values.{layer}.{part}": np.zeros((3, shape.kv_heads, 96, shape.head_dim), np.float32)
        for layer in range(shape.layers)
        for part in ("key", "value")
    }
    total = {"seqlens_k": lengths - 1, "total_sequence_length": np.array(33, np.int32)}
    got = exported.run("decoder", inputs_embeds=table[:, :33], **total, **cache)
    close(got["logits"], torch.stack([logits[-1] for logits in alone]))
    cache = {name: got[name.replace("past_key_values", "present")] for name in cache}
    total = {"seqlens_k": lengths, "total_sequence_length": np.array(34, np.int32)}
    got = exported.run("decoder", inputs_embeds=table[:, 33:], **total, **cache)
    close(got["logits"], torch.stack(following))


def test_a_checkpoint_keeps_its_kind(decoder):
    exported, _ = decoder
    kind = exported.model.config.text_config.model_type
    again = ParrotConfig.from_pretrained(exported.checkpoint.folder)
    assert again.text_config.model_type == kind
    loaded = exported.checkpoint.load_model()
    assert type(loaded.model.language_model) is type(exported.model.model.language_model)


def test_the_query_norm_counts():
    """The comparison would find a missing norm: without it the logits are others."""
    model = tiny_model(text=DECODERS["qwen3"], num_experts=0)
    ids = torch.arange(33)[None]
    with torch.no_grad():
        before = model(ids).logits
        for layer in model.model.language_model.layers:
            layer.self_attn.q_norm = torch.nn.Identity()
        assert (model(ids).logits - before).abs().max() > 1e-2


@pytest.mark.parametrize(
    ("field", "kind", "supported"),
    [
        ("text_config", "gemma2", r"'qwen2' \(Qwen1.5, Qwen2, Qwen2.5\); 'qwen3'.*'llama'"),
        ("vision_config", "dinov2", r"'clip_vision_model'"),
    ],
)
def test_another_kind_is_refused_by_name(tmp_path, field, kind, supported):
    folder = write_checkpoint(tmp_path / "other", tiny_model(num_experts=0))
    config = json.loads((folder / "config.json").read_text("utf-8"))
    config[field]["model_type"] = kind
    (folder / "config.json").write_text(json.dumps(config), "utf-8")
    with pytest.raises(InputError, match=f"{field} is of model_type '{kind}'; supported are .*{supported}") as caught:
        open_checkpoint(folder)
    assert "\n" not in str(caught.value)


def test_biases_inside_the_mlp_are_refused(tmp_path):
    model = tiny_model(text={"model_type": "llama", "mlp_bias": True}, num_experts=0)
    with pytest.raises(InputError, match="expected mlp_bias false"):
        open_checkpoint(write_checkpoint(tmp_path / "biased", model))
