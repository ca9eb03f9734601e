"""What the shipped configurations describe: sizes as published and as stated, and a step of both stages of each."""

import re
from importlib import resources

import pytest
import torch

from parrot_runtime.errors import InputError
from parrot_train.architectures import architecture, named_architecture
from parrot_train.backbones import SHAPES, backbone_shape
from parrot_train.config import PACKAGE_NANO
from parrot_train.config_files import load_config, shipped_configs
from parrot_train.model.trainable import PARTS

# Millions, embeddings included: as their model cards round them, and as they were counted from the published files.
_LANGUAGE_MODELS = {
    "Qwen/Qwen2-0.5B-Instruct": 494.0,
    "Qwen/Qwen2-7B-Instruct": 7615.6,
    "Qwen/Qwen1.5-7B-Chat": 7721.3,
    "Qwen/Qwen1.5-14B-Chat": 14167.3,
    "Qwen/Qwen1.5-32B-Chat": 32512.2,
}
# The whole image half: CLIP's with the projection that Parrot has no use for, SigLIP's with its pooling.
_ENCODERS = {
    "openai/clip-vit-large-patch14-336": 304.3,
    "OFA-Sys/chinese-clip-vit-large-patch14-336px": 303.5,
    "google/siglip-so400m-patch14-384": 428.2,
}


def _count(module: torch.nn.Module) -> float:
    return sum(parameter.numel() for parameter in module.parameters()) / 1e6


def _meta(name: str) -> torch.nn.Module:
    from parrot_train.model import ParrotForConditionalGeneration

    with torch.device("meta"):
        return ParrotForConditionalGeneration(named_architecture(name))


def test_language_models_are_as_large_as_published():
    from transformers import Qwen2Config, Qwen2ForCausalLM

    assert _LANGUAGE_MODELS.keys() == SHAPES["llm"].keys()
    for name, millions in _LANGUAGE_MODELS.items():
        with torch.device("meta"):
            assert _count(Qwen2ForCausalLM(Qwen2Config(**SHAPES["llm"][name]))) == pytest.approx(millions, abs=0.1)


def test_encoders_are_as_large_as_published():
    import transformers

    classes = {
        "clip_vision_model": transformers.CLIPVisionModelWithProjection,
        "chinese_clip_vision_model": transformers.ChineseCLIPVisionModel,
        "siglip_vision_model": transformers.SiglipVisionModel,
    }
    assert _ENCODERS.keys() == SHAPES["vision"].keys()
    for name, millions in _ENCODERS.items():
        kind = classes[SHAPES["vision"][name]["model_type"]]
        with torch.device("meta"):
            assert _count(kind(kind.config_class(**SHAPES["vision"][name]))) == pytest.approx(millions, abs=0.1)


@pytest.mark.parametrize("name", shipped_configs())
def test_the_sizes_stated_are_the_models(name):
    text = (resources.files("parrot_train.configs") / f"{name}.yaml").read_text(encoding="utf-8")
    stated = re.search(
        r"^# Millions of parameters: "
        r"encoder (\S+), projector (\S+), mixture (\S+), language model (\S+); (\S+) in all\.$",
        text,
        re.MULTILINE,
    )
    model, counts = _meta(name), dict.fromkeys(PARTS, 0)
    for parameter_name, parameter in model.named_parameters():
        counts[next(part for part, prefix in PARTS.items() if parameter_name.startswith(prefix))] += parameter.numel()
    counts = [*counts.values(), sum(counts.values())]
    places = 3 if counts[-1] < 1e7 else 1
    assert list(stated.groups()) == [f"{count / 1e6:,.{places}f}" for count in counts]


@pytest.mark.parametrize("name", sorted(set(shipped_configs()) - {"nano", "nano-long"}))
def test_the_parts_between_are_the_papers(name):
    """Counted by hand: a projector of two Linear, six experts of two and a router without bias (paper, §3.3)."""
    config, model = named_architecture(name), _meta(name).model
    vision, width = config.vision_config.hidden_size, config.text_config.hidden_size
    assert _count(model.multi_modal_projector) == pytest.approx(((vision + 1) * width + (width + 1) * width) / 1e6)
    if name.startswith("llava"):
        assert model.moe is None
    else:
        assert _count(model.moe) == pytest.approx((6 * 2 * (width + 1) * width + 6 * width) / 1e6)


def test_stage_1_has_no_mixture_and_siglip_no_class_token():
    assert architecture(load_config("parrot-qwen2-7b"), stage=1).num_experts == 0
    assert named_architecture("parrot-qwen2-7b").image_tokens == 577
    assert named_architecture("parrot-qwen2-7b-siglip").image_tokens == 729


def test_nano_is_the_shipped_model():
    config = named_architecture("nano")
    assert (config.num_experts, config.expert_intermediate_size) == (6, 128)
    assert config.text_config.vocab_size == 1536


def test_an_unknown_name_gets_the_nearest():
    with pytest.raises(InputError, match=r"did you mean 'parrot-qwen2-7b'\?"):
        named_architecture("parrot-qwen2-7")


def test_shapes_of_a_folder_and_of_nothing(backbones, tmp_path):
    assert backbone_shape(str(backbones.llm), "llm")["hidden_size"] == 24
    assert backbone_shape(PACKAGE_NANO, "vision")["model_type"] == "clip_vision_model"
    with pytest.raises(InputError, match=r"did you mean 'Qwen/Qwen2-7B-Instruct'\?"):
        backbone_shape("Qwen/Qwen2-7B-Instrukt", "llm")
    (tmp_path / "config.json").write_text('{"model_type": "qwen2", ')
    with pytest.raises(InputError, match=r"config\.json cannot be read"):
        backbone_shape(str(tmp_path), "llm")
    (tmp_path / "config.json").write_text('{"model_type": "qwen2", "hidden_size": "x"}')
    with pytest.raises(InputError, match=r"config\.json cannot be read .*hidden_size.*get it again"):
        backbone_shape(str(tmp_path), "llm")


@pytest.mark.parametrize("part", ["vision", "llm"])
def test_a_backbone_that_is_not_here_says_how_to_get_it(part, tmp_path, monkeypatch):
    from parrot_train.assemble import from_backbones

    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path))
    config = load_config("parrot-qwen2-7b", [f"backbones.{'llm' if part == 'vision' else 'vision'}=package:nano"])
    name = getattr(config.backbones, part)
    with pytest.raises(InputError, match=f"run `hf download {name}`, or name its folder with --set backbones.{part}="):
        from_backbones(config)


@pytest.mark.parametrize("name", sorted(set(shipped_configs()) - {"nano", "nano-long"}))
def test_a_small_one_of_each_learns_in_both_stages(name, tmp_path, backbones, data, monkeypatch):
    """The same classes and settings; sizes, batches and data alone are small."""
    import shutil

    from safetensors.torch import load_file
    from transformers import AutoConfig, AutoModel, AutoModelForCausalLM

    from parrot_train.stages import StageRequest, run_stage

    monkeypatch.chdir(tmp_path)
    config = load_config(name)
    sizes = {"hidden_size": 24, "intermediate_size": 40, "num_hidden_layers": 3, "num_attention_heads": 4}
    small = {
        "vision": sizes | {"image_size": 28, "patch_size": 14},
        "llm": sizes | {"vocab_size": 330, "num_key_value_heads": 2},
    }
    for part, loader in (("vision", AutoModel), ("llm", AutoModelForCausalLM)):
        fields = SHAPES[part][getattr(config.backbones, part)] | small[part]
        torch.manual_seed(2)
        loader.from_config(AutoConfig.for_model(**fields)).save_pretrained(tmp_path / part)
    shutil.copyfile(backbones.tokenizer, tmp_path / "llm/tokenizer.json")
    settings = ["data.workers=0", *(f"backbones.{part}={tmp_path / part}" for part in small)]
    runs = []
    for stage in (1, 2):
        # Two steps, because the warm-up begins at a learning rate of zero.
        few = [f"stage{stage}.{key}" for key in ("max_steps=2", "global_batch=8", "micro_batch=4")]
        request = StageRequest(stage, load_config(name, [*settings, *few, f"data.stage{stage}=[{data()}]"]))
        run_stage(request)
        runs.append(request.run)
    first, second = (load_file(run / "model.safetensors") for run in runs)
    changed = {key for key, tensor in first.items() if not torch.equal(tensor, second[key])}
    assert {key.split(".")[1] for key in changed} - {"weight"} == {"multi_modal_projector", "language_model"}
    assert any(".moe." in key for key in second) == bool(config.model.experts)
