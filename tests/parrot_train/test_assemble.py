"""Stage 1 from backbones of every family: their weights bit for bit, their features as transformers has them."""

import re
import shutil

import pytest
import torch

from parrot_runtime.errors import InputError
from parrot_train.assemble import from_backbones
from parrot_train.config_files import load_config
from parrot_train.recipe import image_recipe

_SIZES = {"hidden_size": 12, "intermediate_size": 20, "num_hidden_layers": 3, "num_attention_heads": 2}
_PICTURES = {"image_size": 16, "patch_size": 8}


def _vision(kind: str, folder) -> torch.nn.Module:
    import transformers

    model = getattr(transformers, f"{kind}VisionModel")
    config = getattr(transformers, f"{kind}VisionConfig")(**_SIZES, **_PICTURES)
    torch.manual_seed(5)
    made = model(config).eval()
    made.save_pretrained(folder)
    return made


def _llm(kind: str, folder, tokenizer) -> torch.nn.Module:
    import transformers

    sizes = _SIZES | {"hidden_size": 24, "num_attention_heads": 4, "num_key_value_heads": 2, "head_dim": 6}
    config = getattr(transformers, f"{kind}Config")(**sizes, vocab_size=330, max_position_embeddings=128)
    torch.manual_seed(6)
    made = getattr(transformers, f"{kind}ForCausalLM")(config).eval()
    made.save_pretrained(folder)
    shutil.copyfile(tokenizer, folder / "tokenizer.json")
    return made


def _assembled(vision, llm):
    config = load_config("nano", (f"backbones.vision={vision}", f"backbones.llm={llm}"))
    model, _, origin = from_backbones(config)
    return model.eval(), origin


@pytest.mark.parametrize("kind", ["CLIP", "ChineseCLIP", "Siglip"])
def test_encoders(kind, tmp_path, backbones):
    encoder = _vision(kind, tmp_path / "vision")
    model, origin = _assembled(tmp_path / "vision", backbones.llm)
    pixels = torch.randn(3, 3, 16, 16, generator=torch.Generator().manual_seed(1))
    with torch.no_grad():
        expected = encoder(pixels, output_hidden_states=True).hidden_states[-2]
        torch.testing.assert_close(model.model.vision_tower(pixels), expected, rtol=0, atol=1e-5)
        features = model.get_image_features(pixels)
    assert features.shape == (3, 4 if kind == "Siglip" else 5, 24)
    assert origin["vision"] == str(tmp_path / "vision")
    assert image_recipe(model.config).mean[0] == (0.5 if kind == "Siglip" else 0.48145466)
    assert image_recipe(model.config).size == 16


def test_an_encoder_may_come_with_its_text_half(tmp_path, backbones):
    from transformers import CLIPConfig, CLIPModel, CLIPTextConfig, CLIPVisionConfig

    torch.manual_seed(8)
    vision, text = CLIPVisionConfig(**_SIZES, **_PICTURES), CLIPTextConfig(**_SIZES, vocab_size=50)
    both = CLIPModel(CLIPConfig(text_config=text.to_dict(), vision_config=vision.to_dict())).eval()
    both.save_pretrained(tmp_path / "clip")
    model, _ = _assembled(tmp_path / "clip", backbones.llm)
    pixels = torch.randn(3, 3, 16, 16, generator=torch.Generator().manual_seed(1))
    with torch.no_grad():
        expected = both.vision_model(pixels, output_hidden_states=True).hidden_states[-2]
        torch.testing.assert_close(model.model.vision_tower(pixels), expected, rtol=0, atol=1e-5)


@pytest.mark.parametrize("kind", ["Qwen2", "Qwen3", "Llama"])
def test_language_models(kind, tmp_path, backbones):
    llm = _llm(kind, tmp_path / "llm", backbones.tokenizer)
    model, _ = _assembled(backbones.vision, tmp_path / "llm")
    ids = torch.randint(0, 300, (3, 33), generator=torch.Generator().manual_seed(2))
    with torch.no_grad():
        torch.testing.assert_close(model(input_ids=ids).logits, llm(input_ids=ids).logits, rtol=0, atol=1e-5)


def test_another_family_is_refused_by_name(tmp_path, backbones):
    from transformers import GPT2Config, GPT2LMHeadModel

    GPT2LMHeadModel(GPT2Config(n_embd=24, n_layer=1, n_head=2, vocab_size=330)).save_pretrained(tmp_path / "llm")
    with pytest.raises(InputError, match="a model of type 'gpt2'; Parrot can be made of qwen2, qwen3, llama"):
        _assembled(backbones.vision, tmp_path / "llm")


@pytest.mark.parametrize(
    ("file", "change"),
    [
        ("model.safetensors", lambda data: data[:100]),
        ("tokenizer.json", lambda data: data[:100]),
        ("config.json", lambda data: data.replace(b'"hidden_size": 24', b'"hidden_size": "x"')),
    ],
)
def test_a_damaged_backbone_is_one_line(tmp_path, backbones, file, change):
    path = shutil.copytree(backbones.llm, tmp_path / "llm") / file
    data = path.read_bytes()
    path.write_bytes(change(data))
    assert path.read_bytes() != data
    with pytest.raises(InputError, match=str(path.parent)) as caught:
        _assembled(backbones.vision, tmp_path / "llm")
    assert "\n" not in str(caught.value)
    assert re.search("get its files again|put the model's own tokenizer.json there", str(caught.value))


def test_an_incomplete_backbone_is_refused(tmp_path, backbones):
    from safetensors.torch import load_file, save_file

    shutil.copytree(backbones.llm, tmp_path / "llm")
    weights = load_file(tmp_path / "llm/model.safetensors")
    del weights["model.norm.weight"]
    save_file(weights, tmp_path / "llm/model.safetensors", metadata={"format": "pt"})
    with pytest.raises(InputError, match=r"1 weights of Qwen2ForCausalLM are missing, first model\.norm\.weight"):
        _assembled(backbones.vision, tmp_path / "llm")


def test_both_stages_and_the_export_take_such_a_model(tmp_path, backbones, train):
    from parrot_export.checkpoint import open_checkpoint

    _vision("Siglip", tmp_path / "vision")
    _llm("Qwen3", tmp_path / "llm", backbones.tokenizer)
    made_of = (f"backbones.vision={tmp_path / 'vision'}", f"backbones.llm={tmp_path / 'llm'}")
    train(1, *made_of)
    checkpoint = open_checkpoint(train(2, *made_of))
    assert checkpoint.recipe.image.mean == (0.5, 0.5, 0.5)
    assert checkpoint.architecture.vision.tokens == 4
    assert checkpoint.architecture.experts.count == 6
    assert checkpoint.architecture.decoder.qk_norm
