"""Backbones beside the shipped ones: an encoder of six languages' words, and language models of three sizes."""

import shutil
from collections.abc import Callable
from pathlib import Path

from parrot_benchmarks.paper.study import Study
from parrot_benchmarks.paper.variants import Encoder, LanguageModel
from parrot_runtime.languages import CODES
from parrot_runtime.publish import publish_directory

SIZES: dict[str, tuple[int, int]] = {"small": (96, 3), "medium": (160, 4), "large": (256, 5)}
"""Width and layers; the shipped one has the large one's."""
TEXT_STEPS, TEXT_BATCH = 2_250, 16
"""Half of the first phase of the shipped one's recipe, on descriptions and questions, and none of the others."""

Report = Callable[[str], None]


def folder_of(study: Study, part: str, which: Encoder | LanguageModel) -> str:
    """What ``backbones.vision`` or ``backbones.llm`` is set to."""
    shipped = which in ("english", "shipped")
    return "package:nano" if shipped else str(study.work / f"{'encoder' if part == 'vision' else 'llm'}-{which}")


def make_encoder(study: Study, folder: Path, report: Report) -> None:
    """The shipped encoder's recipe with words of six languages.

    Its length does not follow the study's scale above a tenth, or it would be compared with one that has had more.
    """
    from parrot_train.nano.vision_backbone import VisionRecipe, pretrain

    whole = VisionRecipe(languages=CODES)
    part = min(1.0, 10 * study.scale)
    recipe = VisionRecipe(
        languages=CODES, steps=max(1, round(whole.steps * part)), pictures=max(64, round(whole.pictures * part))
    )
    with publish_directory(folder, force=True) as beside:
        pretrain(recipe, beside, workers=1, report=report)


def make_language_model(study: Study, size: str, folder: Path, report: Report) -> None:
    """A language model of a size, with the shipped one's tokenizer."""
    import torch
    from tokenizers import Tokenizer
    from transformers import Qwen2ForCausalLM

    from parrot_train.attention import use_short_attention
    from parrot_train.nano.backbones import shipped
    from parrot_train.nano.drills import Drills
    from parrot_train.nano.language_backbone import (
        LanguageRecipe,
        Learner,
        Reading,
        encode_documents,
        held_out_accuracy,
        model_config,
        read,
    )
    from parrot_train.nano.optimizers import Rates
    from parrot_train.nano.text import READING

    width, layers = SIZES[size]
    recipe = LanguageRecipe(hidden_size=width, intermediate_size=width, layers=layers)
    steps = max(1, round(TEXT_STEPS * min(1.0, 10 * study.scale)))
    documents = max(32 * TEXT_BATCH, TEXT_BATCH * steps)  # the batches are drawn from so many at a time
    phase = Reading(READING, documents, TEXT_BATCH, steps, Rates(2e-3, None, min(300, steps)))
    torch.manual_seed(recipe.seed)
    file = shipped("llm") / "tokenizer.json"
    tokenizer = Tokenizer.from_file(str(file))
    config = model_config(recipe, tokenizer)
    model = Qwen2ForCausalLM(config)
    use_short_attention(model)
    report(f"{size}: {sum(p.numel() for p in model.parameters())} parameters")
    encoded = encode_documents(phase.text, documents, tokenizer, seed=recipe.seed, workers=1)
    read(phase, encoded, Learner(model, phase.rates, report), Drills(tokenizer, recipe.seed), config.pad_token_id)
    report(f"{size}: held-out answers right: {held_out_accuracy(model, tokenizer, recipe.seed)}")
    with publish_directory(folder, force=True) as beside:
        model.half().save_pretrained(beside)
        shutil.copyfile(file, beside / "tokenizer.json")
