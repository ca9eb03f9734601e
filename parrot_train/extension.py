"""More languages for a finished model: which experts are added, and what each of them is a copy of.

The new languages' data are shown to the model as it is. With P_d the routing of sample d (Eq. 3), language l goes to
expert i with the share

    s_l[i] = (1 / |D_l|) · Σ_{d ∈ D_l} P_d[i],

D_l being up to SHOWN samples with a picture, evenly spread over the data. The nearest expert of l is the one with the
greatest share. The number N of new experts need not be that of the L languages: new expert k belongs to language k mod
L, and where a language has several, they are copies of its nearest, second nearest, … expert; with N < L, new expert k
belongs to all languages l with l mod N = k, and is nearest by the mean of their shares.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from safetensors import safe_open

from parrot_runtime.errors import InputError, ParrotError
from parrot_runtime.manifest import TOKENIZER_NAME
from parrot_train.assemble import weights_hash
from parrot_train.checkpoint import check_files, known_languages, load_checkpoint, read_run
from parrot_train.config import EXTEND, TrainConfig
from parrot_train.data.collator import Conversations
from parrot_train.data.files import data_files
from parrot_train.data.prepare import prepare
from parrot_train.recipe import image_recipe
from parrot_train.shards import weight_files

if TYPE_CHECKING:
    from parrot_train.model import ParrotForConditionalGeneration

SHOWN = 128
"""Samples of each new language that are routed to find its nearest expert."""
_AT_ONCE = 16
_MIXTURE = "model.moe."


def check(config: TrainConfig, source: Path, run: Path) -> None:
    """Raise InputError unless ``source`` is a finished stage 2, or extension, that lacks the languages to add."""
    note, wanted = read_run(source), config.extend.languages
    if not wanted:
        raise InputError("no language is given; name those to add, for example --languages es,de")
    if note is None or note.get("status") != "finished" or note.get("stage") not in (2, EXTEND):
        found = "there is none" if note is None else f"stage {note.get('stage')} there is {note.get('status')}"
        raise InputError(
            f"{source}: an extension starts from a finished stage 2, but {found}; run `parrot-train stage2` first, or "
            "name one with --from"
        )
    check_files(source, note)
    if source.resolve() == run.resolve():
        raise InputError(f"{run}: the extended model needs a folder of its own; name it with -o")
    known = known_languages(note)
    for code in wanted:
        if code in known:
            raise InputError(
                f"{source}: has '{code}' already, among {', '.join(known)}; extend by others, or go on training with "
                "`parrot-train stage2 --from`"
            )


def extended(
    config: TrainConfig, source: Path, run: Path
) -> tuple["ParrotForConditionalGeneration", Path, dict[str, Any]]:
    """The model of ``source`` with new experts for ``extend.languages``, copies of the nearest ones.

    Returns the model (float32), the tokenizer file, and what ``run.json`` says about the origin. Raises InputError for
    a model without experts and for a language of which the data have no sample with a picture.
    """
    from parrot_train.model.moe import with_more_experts

    model, tokenizer, settings = load_checkpoint(source), source / TOKENIZER_NAME, config.extend
    if model.model.moe is None:
        raise InputError(f"{source}: a model without experts (model.experts was 0) has none that could be added to")
    note = read_run(source) or {}
    origin = {"run": str(source), "sha256": weights_hash(model)}
    conversations = prepare(
        data_files(config, EXTEND),
        config.data,
        tokenizer=tokenizer,
        recipe=image_recipe(model.config),
        image_tokens=model.config.image_tokens,
        fallback=run,
    ).conversations
    shares = routing_shares(model, conversations, settings.languages)
    copied = nearest_experts(np.stack([shares[code] for code in settings.languages]), settings.added_experts)
    origin |= {
        "stage": note.get("stage"),
        "languages": known_languages(note),
        "settings": note.get("settings", {}),
        "shares": {code: [round(float(share), 4) for share in row] for code, row in shares.items()},
        "copied": copied,
    }
    return with_more_experts(model, copied, noise=settings.router_noise, seed=settings.seed), tokenizer, origin


@torch.no_grad()
def routing_shares(
    model: "ParrotForConditionalGeneration", conversations: Conversations, languages: Sequence[str]
) -> dict[str, np.ndarray]:
    """s_l of each of ``languages``: float64 ``[E]``, which sums to 1. Raises InputError as ``extended`` does."""
    shares = {}
    for code in languages:
        samples = _samples_with_pictures(conversations, code)
        if not len(samples):
            raise InputError(
                f"the data have no sample with a picture in '{code}'; add a file with records whose 'language' is "
                f"'{code}' with --data"
            )
        shown = samples[np.unique(np.linspace(0, len(samples) - 1, SHOWN).round().astype(np.int64))]
        routed = []
        for first in range(0, len(shown), _AT_ONCE):
            batch = conversations.__getitems__(shown[first : first + _AT_ONCE])
            names = ("input_ids", "pixel_values", "prompt_mask")
            _, routing = model.model.embed_prompt(**{name: batch[name].to(model.device) for name in names})
            routed.append(routing.double().cpu().numpy())
        shares[code] = np.concatenate(routed).mean(axis=0)
    return shares


def _samples_with_pictures(conversations: Conversations, code: str) -> np.ndarray:
    if code not in conversations.language_codes:
        return np.zeros(0, np.int64)
    mine = conversations.languages == conversations.language_codes.index(code)
    return np.flatnonzero(mine & (conversations.image_counts > 0))


def nearest_experts(shares: np.ndarray, count: int) -> list[int]:
    """For each of ``count`` new experts the one it is a copy of, by ``shares`` ``[L, E]`` and the rule above."""
    languages, experts = shares.shape
    copied = []
    for number in range(count):
        mine = shares[number % languages] if count >= languages else shares[number::count].mean(axis=0)
        ranked = np.argsort(-mine, kind="stable")
        copied.append(int(ranked[number // languages % experts]))
    return copied


def stored_mixture(run: Path) -> dict[str, torch.Tensor]:
    """Router and experts as a finished model's files have them, by name."""
    found = {}
    for file in weight_files(run):
        with safe_open(file, "pt") as opened:
            found |= {name: opened.get_tensor(name) for name in opened.keys() if name.startswith(_MIXTURE)}  # noqa: SIM118
    return found


def check_kept(folder: Path, kept: Mapping[str, torch.Tensor]) -> None:
    """Raise ParrotError unless the model in ``folder`` begins with the experts ``kept``, every bit of them.

    Whatever shared the training out had to leave them alone; where it stores another type, that rounding is allowed.
    """
    after = stored_mixture(folder)
    changed = [
        name for name, old in kept.items() if not torch.equal(after[name][: len(old)], old.to(after[name].dtype))
    ]
    if changed:
        raise ParrotError(
            f"training changed experts that were to stay as they are, first in {changed[0]}; nothing was published; "
            "train without a launcher, and report it"
        )
