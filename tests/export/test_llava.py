"""LLaVA-1.5 checkpoints against transformers' own model: as a Parrot in torch, and as graphs on onnxruntime."""

import json

import numpy as np
import pytest
import torch
from llama_tokenizer import llama_tokenizer
from PIL import Image
from safetensors.torch import load_file, save_file
from tiny_checkpoint import TEXT, VISION, sessions, tiny_tokenizer
from transformers import LlavaConfig, LlavaForConditionalGeneration

from parrot_export.bundle import export
from parrot_export.checkpoint import open_checkpoint
from parrot_export.request import ExportRequest
from parrot_runtime.errors import InputError
from parrot_runtime.image import ImageRecipe, preprocess, read_image
from parrot_runtime.manifest import PromptRecipe
from parrot_runtime.parrot import Parrot
from parrot_runtime.vicuna import SYSTEM_PROMPT
from parrot_train.model.llava import load_llava

IMAGE, PATCHES = 270, 16
# The promise, which leaves room for float32 sums in another order on logits of the size of one.
TOLERANCE = 1e-4


def make(folder, strategy="default", encoder="clip_vision_model", tokenizer=None, **options):
    """A random LLaVA saved by transformers, with a tokenizer; weights that are far from linear."""
    torch.manual_seed(1)
    tokenizer = tokenizer or tiny_tokenizer()
    rows = max(TEXT["vocab_size"], tokenizer.get_vocab_size())
    config = LlavaConfig(
        vision_config=VISION | {"model_type": encoder, "num_hidden_layers": 3},
        text_config=TEXT | {"model_type": "llama", "vocab_size": rows},
        image_token_index=IMAGE,
        image_seq_length=PATCHES + (strategy == "full" and encoder == "clip_vision_model"),
        vision_feature_select_strategy=strategy,
    )
    model = LlavaForConditionalGeneration(config).eval()
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            parameter.normal_(0.0, 0.3 if parameter.ndim > 1 else 0.2)
            if "norm" in name and name.endswith("weight"):
                parameter.add_(1.0)
    model.save_pretrained(folder, **options)
    tokenizer.save(str(folder / "tokenizer.json"))
    return model


@pytest.fixture(scope="module", params=["default", "full", "full siglip"])
def llava(request, tmp_path_factory):
    """Its folder, transformers' model, and how many positions an image takes: a SigLIP has no class token."""
    folder = tmp_path_factory.mktemp("llava") / request.param
    strategy, *siglip = request.param.split()
    model = make(folder, strategy, encoder="siglip_vision_model" if siglip else "clip_vision_model")
    return folder, model, PATCHES + (request.param == "full")


@pytest.fixture(scope="module")
def sample(llava):
    """Three prompts of 33 positions with a picture at place 5, and transformers' logits."""
    _, model, tokens = llava
    rng = np.random.default_rng(7)
    ids = torch.from_numpy(rng.integers(0, 259, (3, 33)))
    ids[:, 5 : 5 + tokens] = IMAGE
    pixels = torch.from_numpy(rng.standard_normal((3, 3, 28, 28)).astype(np.float32))
    with torch.no_grad():
        return ids, pixels, model(input_ids=ids, pixel_values=pixels).logits


def close(got, expected) -> None:
    got, expected = np.asarray(got), np.asarray(expected)
    assert got.shape == expected.shape
    np.testing.assert_allclose(got, expected, rtol=0, atol=TOLERANCE * max(1.0, np.abs(expected).max()))


def test_the_parrot_of_a_llava_computes_what_transformers_does(llava, sample):
    folder, _, tokens = llava
    ids, pixels, expected = sample
    parrot = load_llava(folder)
    assert (parrot.config.image_tokens, parrot.config.num_experts) == (tokens, 0)
    ids = ids.masked_fill(ids == IMAGE, parrot.config.image_token_id)
    with torch.no_grad():
        close(parrot(ids, pixel_values=pixels).logits, expected)


def test_the_graphs_of_a_llava_compute_what_transformers_does(llava, sample, tmp_path):
    folder, model, tokens = llava
    ids, pixels, expected = sample
    opened = open_checkpoint(folder)
    assert (opened.recipe.image == ImageRecipe.clip(28)) == (
        model.config.vision_config.model_type == "clip_vision_model"
    )
    graphs = sessions(opened, tmp_path / "graphs", "fp32")
    assert set(graphs) == {"encoder", "decoder"}
    (features,) = graphs["encoder"].run(None, {"pixel_values": pixels.numpy()})
    embeds = model.get_input_embeddings()(ids).detach().numpy()
    embeds[:, 5 : 5 + tokens] = features
    cache = {
        f"past_key_values.{layer}.{part}": np.zeros((3, 2, 96, 16), np.float32)
        for layer in range(3)
        for part in ("key", "value")
    }
    feed = {"seqlens_k": np.full(3, 32, np.int32), "total_sequence_length": np.array(33, np.int32)}
    (logits,) = graphs["decoder"].run(["logits"], {"inputs_embeds": embeds, **feed, **cache})
    close(logits, expected[:, -1])


def test_a_llava_on_vicunas_tokenizer_answers_from_its_bundle_as_transformers_does(tmp_path):
    """From the published prompt, read at once by the tokenizer, to the same greedy tokens."""
    tokenizer, question = llama_tokenizer(), "What is there?"
    model = make(tmp_path / "llava", tokenizer=tokenizer)
    picture = Image.fromarray(np.random.default_rng(2).integers(0, 255, (40, 31, 3), np.uint8))
    folder, manifest = export(
        ExportRequest(checkpoint=tmp_path / "llava", output=tmp_path / "bundle", precision="fp32", target="cpu")
    )
    assert manifest.verification["status"] == "passed"
    assert manifest.prompt == PromptRecipe(SYSTEM_PROMPT, template="vicuna")
    answer = Parrot.load(folder, threads=1).ask(picture, question, max_new_tokens=12)

    text = f"<s>{SYSTEM_PROMPT} USER: <image>\n{question} ASSISTANT:"
    image, ids = tokenizer.token_to_id("<image>"), []
    for number in tokenizer.encode(text, add_special_tokens=False).ids:
        ids += [IMAGE] * PATCHES if number == image else [number]
    assert IMAGE not in tokenizer.encode(text, add_special_tokens=False).ids
    pixels = torch.from_numpy(preprocess(read_image(picture), manifest.image)[None])
    prompt = torch.tensor([ids])
    with torch.no_grad():
        expected = model.generate(
            input_ids=prompt,
            attention_mask=torch.ones_like(prompt),
            pixel_values=pixels,
            max_new_tokens=12,
            do_sample=False,
            eos_token_id=tokenizer.token_to_id("</s>"),
        )[0, len(ids) :].tolist()
    stop = tokenizer.token_to_id("</s>")
    assert list(answer.token_ids) == [token for token in expected if token != stop]
    assert len(answer.token_ids) > 3


def test_a_siglip_sees_pictures_by_its_own_numbers(tmp_path):
    from transformers.models.siglip import SiglipImageProcessor

    make(tmp_path, "full", encoder="siglip_vision_model")
    theirs = SiglipImageProcessor()
    image = open_checkpoint(tmp_path).recipe.image
    assert (image.size, list(image.mean), list(image.std)) == (28, list(theirs.image_mean), list(theirs.image_std))


OLD_NAMES = {
    "lm_head.": "language_model.lm_head.",
    "model.language_model.": "language_model.model.",
    "model.vision_tower.": "vision_tower.vision_model.",
    "model.multi_modal_projector.": "multi_modal_projector.",
}


@pytest.mark.parametrize("naming", ["older", "newer"])
def test_names_of_older_and_newer_releases_are_read(tmp_path, naming):
    """transformers 4 wrote the parts outside of ``model``, as the published llava-1.5 checkpoints have them."""
    model = make(tmp_path / "llava")
    state = {
        name.replace("vision_tower.vision_model.", "vision_tower."): weight
        for name, weight in model.state_dict().items()
    }
    if naming == "older":
        prefixes = {name: next(prefix for prefix in OLD_NAMES if name.startswith(prefix)) for name in state}
        stored = {OLD_NAMES[prefix] + name.removeprefix(prefix): state[name] for name, prefix in prefixes.items()}
    else:
        stored = state
    save_file({name: weight.contiguous() for name, weight in stored.items()}, tmp_path / "llava" / "model.safetensors")
    loaded = load_llava(tmp_path / "llava").state_dict()
    for name, weight in loaded.items():
        assert torch.equal(weight, state[name]), name
    opened = open_checkpoint(tmp_path / "llava")
    layer = "model.language_model.layers.2.mlp.down_proj.weight"
    np.testing.assert_array_equal(opened.tensors[layer].load(), state[layer].numpy())


def test_shards_of_a_llava_are_read_as_one_file_is(tmp_path):
    make(tmp_path / "whole")
    make(tmp_path / "shards", max_shard_size="100KB")
    assert len(list((tmp_path / "shards").glob("*.safetensors"))) > 2
    whole, shards = (load_llava(tmp_path / name).state_dict() for name in ("whole", "shards"))
    assert all(torch.equal(weight, shards[name]) for name, weight in whole.items())
    opened = open_checkpoint(tmp_path / "shards")
    np.testing.assert_array_equal(opened.tensors["lm_head.weight"].load(), whole["lm_head.weight"].numpy())


def refuse(folder, message: str) -> None:
    """Both readers say ``message``, in one line."""
    for read in (load_llava, open_checkpoint):
        with pytest.raises((InputError, ValueError), match=message) as caught:
            read(folder)
        assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"vision_feature_layer": [-2, -1]}, "only one layer is supported"),
        ({"multimodal_projector_bias": False}, "only a projector with biases"),
        ({"text_config": {"model_type": "mistral"}}, "'mistral'; supported are 'qwen2'"),
    ],
)
def test_a_llava_of_another_make_is_refused(tmp_path, settings, message):
    make(tmp_path / "llava")
    path = tmp_path / "llava" / "config.json"
    path.write_text(json.dumps(json.loads(path.read_text("utf-8")) | settings), "utf-8")
    refuse(tmp_path / "llava", message)


def test_a_siglip_without_its_first_patch_is_refused(tmp_path):
    make(tmp_path / "llava", encoder="siglip_vision_model")
    refuse(tmp_path / "llava", "which drops the first patch of a siglip_vision_model")


def test_missing_and_unexpected_tensors_are_named(tmp_path):
    make(tmp_path / "llava")
    path = tmp_path / "llava" / "model.safetensors"
    weights = load_file(path)
    weights.pop(next(name for name in weights if name.endswith("linear_2.bias")))
    weights["image_newline"] = torch.zeros(48)
    save_file(weights, path)
    refuse(tmp_path / "llava", r"missing: model\.mm_projector\.2\.bias; unexpected: image_newline")
