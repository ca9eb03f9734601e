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
TEXT_STEPS, TEXT_BATCH = 4_500, 16
"""The first phase of the shipped one's recipe, on descriptions and questions; which went through others after it."""

Report = Callable[[str], None]


def folder_of(study: Study, part: str, which: Encoder | LanguageModel) -> str:
    """What ``backbones.vision`` or ``backbones.llm`` is set to."""
    shipped = which in ("english", "shipped")
    return "package:nano" if shipped else str(study.work / f"{'encoder' if part == 'vision' else 'llm'}-{which}")


def make_encoder(folder: Path, report: Report, **changes: int) -> None:
    """The shipped encoder's recipe with words of six languages, whatever the study's scale; ``changes`` are for tests.

    The shipped one has had all of it, so a shorter one would be compared with more than its own words.
    """
    from parrot_train.nano.vision_backbone import VisionRecipe, pretrain

    recipe = VisionRecipe(languages=CODES, **changes)
    with publish_directory(folder, force=True) as beside:
        pretrain(recipe, beside, workers=1, report=report)


def make_language_model(size: str, folder: Path, report: Report, *, steps: int = TEXT_STEPS) -> None:
    """A language model of a size, with the shipped one's tokenizer; all three read as much, whatever the scale."""
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
