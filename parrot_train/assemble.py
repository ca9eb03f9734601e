"""Put a model together for a stage."""

from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from huggingface_hub.errors import StrictDataclassError
from safetensors import SafetensorError

from parrot_runtime.errors import InputError
from parrot_runtime.tokenizer import load_tokenizer
from parrot_train.backbones import backbone_folder, reason_of
from parrot_train.checkpoint import RUN_FILE, check_files, known_languages, load_checkpoint, read_run
from parrot_train.config import EXTEND, TrainConfig
from parrot_train.config_files import to_mapping
from parrot_train.stored import tensors_hash

if TYPE_CHECKING:
    from parrot_train.model import ParrotForConditionalGeneration


def check_source(config: TrainConfig, source: Path, run: Path) -> None:
    """Raise InputError unless ``source`` is a finished stage 1, or a stage 2 to go on from, and not ``run`` itself.

    It has to be whole, and made from the backbones that ``config`` names.
    """
    note = read_run(source)
    if note is None or note.get("status") != "finished":
        found = "there is none" if note is None else f"its stage {note.get('stage')} is {note.get('status')}"
        raise InputError(
            f"{source}: stage 2 starts from a finished stage 1 or stage 2, but {found}; run `parrot-train stage1` "
            "first, or name one with --from"
        )
    made_from, named = note.get("settings", {}).get("backbones"), to_mapping(config)["backbones"]
    if made_from is not None and made_from != named:
        raise InputError(
            f"{source}: was made from the backbones {made_from}, and the configuration names {named}; give the run's "
            f"own with --config {source / RUN_FILE}, or another run with --from"
        )
    check_files(source, note)
    if source.resolve() == run.resolve():
        raise InputError(f"{run}: a stage 2 that goes on from this one needs a folder of its own; name it with -o")


def from_backbones(config: TrainConfig) -> tuple["ParrotForConditionalGeneration", Path, dict[str, Any]]:
    """Stage 1's model: the two backbones and a new projector between them, no mixture.

    Returns the model (float32), the tokenizer file, and what ``run.json`` says about the origin. Raises InputError for
    backbones that are not there, incomplete, or of a family that Parrot is not made of.
    """
    from transformers import AutoModel, AutoModelForCausalLM

    from parrot_train.model import ParrotConfig, ParrotForConditionalGeneration
    from parrot_train.model.configuration import LANGUAGE_MODELS, VISION_ENCODERS, WITHOUT_CLASS_TOKEN

    vision = _load(AutoModel, VISION_ENCODERS, config.backbones.vision, "vision")
    llm = _load(AutoModelForCausalLM, LANGUAGE_MODELS, config.backbones.llm, "llm")
    settings = ParrotConfig(
        vision_config=vision.config.to_dict(),
        text_config=llm.config.to_dict(),
        vision_feature_select="patch" if vision.config.model_type in WITHOUT_CLASS_TOKEN else "cls_patch",
        num_experts=0,
    )
    model = ParrotForConditionalGeneration(settings)
    # transformers names the encoder's tensors with this prefix in some releases, and without it in others.
    weights = {
        f"model.vision_tower.{name.removeprefix('vision_model.')}": weight
        for name, weight in vision.state_dict().items()
    }
    for name, weight in llm.state_dict().items():
        weights[name if name.startswith("lm_head.") else name.replace("model.", "model.language_model.", 1)] = weight
    known = model.state_dict().keys()
    # The vision encoder's layers after the one whose features are used, and its pooling, are not part of Parrot.
    result = model.load_state_dict({name: weight for name, weight in weights.items() if name in known}, strict=False)
    missing = [name for name in result.missing_keys if "multi_modal_projector" not in name]
    if missing:
        raise InputError(f"the backbones lack {len(missing)} weights, the first is {missing[0]}; give complete ones")
    tokenizer = _tokenizer(config.backbones.llm, model)
    origin = {
        "vision": str(backbone_folder(config.backbones.vision, "vision")),
        "llm": str(backbone_folder(config.backbones.llm, "llm")),
        "sha256": weights_hash(model),
    }
    return model, tokenizer, origin


def from_run(config: TrainConfig, run: Path) -> tuple["ParrotForConditionalGeneration", Path, dict[str, Any]]:
    """Stage 2's model: stage 1's with a mixture of new, random experts (none with ``model.experts`` 0).

    An earlier stage 2 is taken as it is, extended or not: its mixture learns on. Returns the model (float32), the
    tokenizer file, and what ``run.json`` says about the origin. Raises InputError when its mixture is another than
    ``config`` says.
    """
    from parrot_train.model.moe import with_experts

    model = load_checkpoint(run)
    origin = {"run": str(run), "sha256": weights_hash(model)}
    note = read_run(run) or {}
    if note.get("stage") in (2, EXTEND):
        origin["languages"] = known_languages(note)
        _check_mixture(config, model, run)
    elif config.model.experts:
        model = with_experts(
            model,
            config.model.experts,
            config.model.expert_kind,
            expert_intermediate_size=config.model.expert_intermediate_size,
            residual=config.model.residual,
            alpha=config.model.alpha,
            seed=config.stage2.seed,
        )
    return model, run / "tokenizer.json", origin


def _check_mixture(config: TrainConfig, model: "ParrotForConditionalGeneration", run: Path) -> None:
    wanted, found = config.model, model.config
    names = {"experts": "num_experts"}
    if found.num_experts:
        names |= {name: name for name in ("expert_kind", "expert_intermediate_size", "residual", "alpha")}
    for name, theirs in names.items():
        asked, has = getattr(wanted, name), getattr(found, theirs)
        if asked is None:
            asked = found.text_config.hidden_size
        if asked != has:
            raise InputError(
                f"{run}: model.{name} is {asked} and this stage 2 has {has}, which training on cannot change; "
                f"--set model.{name}={has}, or start from a stage 1"
            )


def weights_hash(module: torch.nn.Module) -> str:
    """SHA-256 over names, shapes and bytes of all weights, in the order of their names."""
    return tensors_hash(module.state_dict())


def _load(loader: Any, kinds: dict[str, str], source: str, part: str) -> Any:
    """The backbone, whose configuration says what it is; an encoder's text half stays out."""
    from transformers import AutoConfig

    folder = backbone_folder(source, part)
    try:
        config = AutoConfig.from_pretrained(folder)
        config = getattr(config, f"{part}_config", config)
        if config.model_type not in kinds:
            raise InputError(
                f"backbones.{part}={source}: a model of type '{config.model_type}'; Parrot can be made of "
                f"{', '.join(kinds)}"
            )
        model, report = loader.from_pretrained(folder, config=config, dtype=torch.float32, output_loading_info=True)
    except (OSError, ValueError, RuntimeError, SafetensorError, StrictDataclassError) as error:
        raise InputError(
            f"backbones.{part}={source}: cannot be loaded from {folder} ({reason_of(error)}); get its files again"
        ) from error
    if report["missing_keys"]:
        # transformers would fill them at random: training would run, and start from noise.
        raise InputError(
            f"backbones.{part}={source}: {len(report['missing_keys'])} weights of {type(model).__name__} are missing, "
            f"first {sorted(report['missing_keys'])[0]}; give a whole checkpoint of that kind"
        )
    return model


def _tokenizer(source: str, model: "ParrotForConditionalGeneration") -> Path:
    """The language model's tokenizer.json. Raises InputError when it has more tokens than the model has rows."""
    path = backbone_folder(source, "llm") / "tokenizer.json"
    if not path.is_file():
        raise InputError(f"{path}: there is no such file; the language model's folder needs its tokenizer.json")
    tokens, rows = load_tokenizer(path).get_vocab_size(), model.config.text_config.vocab_size
    if tokens > rows:
        raise InputError(
            f"{path}: {tokens} tokens, but the language model has {rows} rows; give the matching tokenizer"
        )
    return path
