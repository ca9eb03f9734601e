"""Every kind of language model and vision encoder against transformers' own: in torch, and as graphs on onnxruntime.

The reference is the class that transformers itself gives a checkpoint of that kind; only its weights are shared.
"""

import json

import numpy as np
import pytest
import torch
from huggingface_hub.errors import StrictDataclassClassValidationError
from tiny_checkpoint import Exported, tiny_model, write_checkpoint
from transformers import AutoConfig, AutoModel, AutoModelForCausalLM

from parrot_export.checkpoint import open_checkpoint
from parrot_runtime.errors import InputError
from parrot_train.model import ParrotConfig

# The promise, which leaves room for float32 sums in another order on logits of the size of one.
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


ENCODERS = {
    "clip": {"vision": {"model_type": "clip_vision_model"}},
    "clip-without-class-token": {"vision": {"model_type": "clip_vision_model"}, "vision_feature_select": "patch"},
    "chinese-clip": {"vision": {"model_type": "chinese_clip_vision_model"}},
    "siglip": {"vision": {"model_type": "siglip_vision_model"}, "vision_feature_select": "patch"},
}


@pytest.fixture(scope="module", params=ENCODERS)
def encoder(request, tmp_path_factory):
    """The tiny Parrot of one kind and its graphs, and transformers' vision model with the same weights."""
    model = tiny_model(**ENCODERS[request.param], num_experts=4)
    reference = AutoModel.from_config(model.config.vision_config).eval()
    prefix = "model.vision_tower."
    weights = {
        name.removeprefix(prefix): weight for name, weight in model.state_dict().items() if name.startswith(prefix)
    }
    own = reference.state_dict()
    inside = "vision_model." if all(name.startswith("vision_model.") for name in own) else ""
    # What Parrot does not have: layers after the one that is used, and what follows the last.
    missing, unexpected = reference.load_state_dict(
        {inside + name: weight for name, weight in weights.items()}, strict=False
    )
    assert not unexpected
    assert all(name.removeprefix(inside).startswith(("encoder.layers.2", "post_", "head.")) for name in missing)
    return Exported(model, tmp_path_factory.mktemp("encoder"), "fp32"), reference


def test_an_encoder_is_transformers_own(encoder):
    """Three pictures of four by four patches: the hidden state before the last layer, through the projector."""
    exported, reference = encoder
    pixels = np.random.default_rng(5).standard_normal((3, 3, 28, 28)).astype(np.float32)
    model, config = exported.model.model, exported.model.config
    with torch.no_grad():
        hidden = reference(torch.from_numpy(pixels), output_hidden_states=True).hidden_states[-2]
        if config.vision_config.model_type != "siglip_vision_model" and config.vision_feature_select == "patch":
            hidden = hidden[:, 1:]
        expected = model.multi_modal_projector(hidden)
        close(model.get_image_features(torch.from_numpy(pixels)), expected)
    got = exported.run("encoder", pixel_values=pixels)["image_features"]
    assert got.shape == (3, config.image_tokens, 48)
    close(got, expected)


def test_the_query_is_the_class_token_or_the_mean_of_the_patches(encoder):
    """Eq. 2-3 in float64 by hand, batch 3, 33 words of which each row has another share."""
    exported, _ = encoder
    rng, tokens = np.random.default_rng(6), exported.model.config.image_tokens
    assert tokens == (17 if exported.model.config.vision_feature_select == "cls_patch" else 16)
    features, text = (rng.standard_normal((3, rows, 48)).astype(np.float32) for rows in (tokens, 33))
    mask = np.arange(33)[None] < np.array([33, 7, 1])[:, None]
    query = (features[:, 0] if tokens == 17 else features.mean(axis=1)).astype(np.float64)
    scores = np.where(mask, np.einsum("nc,ntc->nt", query, text) / np.sqrt(48), -np.inf)
    attention = np.exp(scores - scores.max(axis=1, keepdims=True))
    guide = np.einsum("nt,ntc->nc", attention / attention.sum(axis=1, keepdims=True), text)
    logits = guide @ exported.model.model.moe.router.weight.detach().double().numpy().T
    expected = np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True)
    got = exported.run("experts", image_features=features, text_embeds=text, text_mask=mask)
    close(got["routing"], expected)
    with torch.no_grad():
        visual, routing = exported.model.model.moe(*map(torch.from_numpy, (features, text, mask)))
    close(routing, expected)
    close(got["visual_tokens"], visual)


def test_an_encoder_survives_its_checkpoint(encoder):
    exported, _ = encoder
    loaded = exported.checkpoint.load_model().state_dict()
    for name, weight in exported.model.state_dict().items():
        assert torch.equal(loaded[name], weight), name


def test_a_class_token_that_is_not_there_cannot_be_kept():
    with pytest.raises(StrictDataclassClassValidationError, match="has no class token; give 'patch'"):
        tiny_model(vision={"model_type": "siglip_vision_model"})
