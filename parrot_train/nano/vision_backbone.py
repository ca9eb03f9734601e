"""Pretrain nano's small CLIP vision tower with English words alone, as CLIP's own text side was English.

Three objectives on pictures of the training split, all against one English text side (words → a small network):
- every patch that shows a thing should lie nearest to that thing's English phrase among all phrases of the world,
  every other patch nearest to its background's word (region–phrase alignment, after GLIP, arXiv 2112.03857);
- a patch knows whether a thing's centre falls in it (centerness, after FCOS, arXiv 1904.01355);
- the class token agrees with the whole English caption, among the captions of the batch (CLIP, arXiv 2103.00020).
The first two are asked of hidden state −2, the layer that Parrot reads; the third of the last layer.
"""

import math
import re
import time
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from itertools import islice
from pathlib import Path

import numpy as np
import torch
from torch import nn
from transformers import CLIPVisionConfig, CLIPVisionModel

from parrot_runtime.image import CLIP_MEAN, CLIP_STD, ImageRecipe, preprocess
from parrot_train.nano.draw import render
from parrot_train.nano.grammar import GRAMMARS
from parrot_train.nano.language_backbone import schedule
from parrot_train.nano.scenes import BACKGROUNDS, COLOURS, KINDS, SIZES, Group, Scene, scenes

ENGLISH = GRAMMARS["en"]


@dataclass(frozen=True)
class VisionRecipe:
    """How the vision tower is made; the defaults are the shipped model's."""

    image_size: int = 96
    patch_size: int = 12
    hidden_size: int = 128
    intermediate_size: int = 384
    layers: int = 5
    heads: int = 4
    pictures: int = 30_000
    steps: int = 4_000
    batch: int = 64
    learning_rate: float = 1.5e-3
    warmup: int = 200
    seed: int = 1


def model_config(recipe: VisionRecipe) -> CLIPVisionConfig:
    """CLIP's architecture at nano's size."""
    return CLIPVisionConfig(
        image_size=recipe.image_size,
        patch_size=recipe.patch_size,
        hidden_size=recipe.hidden_size,
        intermediate_size=recipe.intermediate_size,
        num_hidden_layers=recipe.layers,
        num_attention_heads=recipe.heads,
        projection_dim=recipe.hidden_size,
    )


# --- the English text side ------------------------------------------------------------------------------------------
def _phrases() -> list[str]:
    """Every thing and background in English; a thing's row is ``(kind · colours + colour) · sizes + size``."""
    things = [
        ENGLISH.phrase(Group(kind, colour, size, (0,)), size=True)
        for kind in KINDS
        for colour in COLOURS
        for size in SIZES
    ]
    return things + [ENGLISH.scenery(background) for background in BACKGROUNDS]


def words(text: str) -> list[str]:
    return re.findall(r"[a-z]+", text.lower())


class EnglishWords(nn.Module):
    """Sums of word embeddings through a small network: ``counts [N, words] → [N, width]``, unit length."""

    def __init__(self, vocabulary: list[str], width: int) -> None:
        super().__init__()
        self._index = {word: i for i, word in enumerate(vocabulary)}
        self.embed = nn.Linear(len(vocabulary), width, bias=False)
        self.mix = nn.Sequential(
            nn.LayerNorm(width), nn.Linear(width, 2 * width), nn.GELU(), nn.Linear(2 * width, width)
        )

    def counts(self, texts: list[str]) -> torch.Tensor:
        counts = torch.zeros(len(texts), len(self._index))
        for row, text in enumerate(texts):
            for word in words(text):
                counts[row, self._index[word]] += 1
        return counts

    def forward(self, counts: torch.Tensor) -> torch.Tensor:
        embedded = self.embed(counts)
        return nn.functional.normalize(embedded + self.mix(embedded), dim=-1)


# --- the pictures ---------------------------------------------------------------------------------------------------
@dataclass(frozen=True)
class Drawn:
    """One training picture: uint8 ``[S, S, 3]``, a phrase per patch ``[P]`` (row by row), centres ``[P]``, caption."""

    pixels: np.ndarray
    phrases: np.ndarray
    centres: np.ndarray
    caption: str


def label_patches(scene: Scene, patches: int) -> tuple[np.ndarray, np.ndarray]:
    """Which phrase each patch of a ``patches × patches`` grid shows, and which patches hold a thing's centre.

    A large thing covers about 0.95 of its cell and stands where its jitter puts it; the patches whose centres lie
    within 0.7 of its radius are certain to show it.
    """
    phrases = np.full((patches, patches), len(KINDS) * len(COLOURS) * len(SIZES) + BACKGROUNDS.index(scene.background))
    centres = np.zeros((patches, patches), np.float32)
    grid = (np.arange(patches) + 0.5) / patches
    for thing in scene.things:
        extent = (0.95 if thing.size == "large" else 0.55) / 3
        room = (1 / 3 - extent) / 2
        x = (thing.column + 0.5) / 3 + thing.dx * room
        y = (thing.row + 0.5) / 3 + thing.dy * room
        inside = (grid[None, :] - x) ** 2 + (grid[:, None] - y) ** 2 < (0.35 * extent + 0.25 / patches) ** 2
        row, column = min(int(y * patches), patches - 1), min(int(x * patches), patches - 1)
        inside[row, column] = True
        index = (KINDS.index(thing.kind) * len(COLOURS) + COLOURS.index(thing.colour)) * len(SIZES)
        phrases[inside] = index + SIZES.index(thing.size)
        centres[row, column] = 1.0
    return phrases.reshape(-1).astype(np.int16), centres.reshape(-1)


def _draw_part(seed: str, count: int, image_size: int, patches: int) -> list[Drawn]:
    recipe = ImageRecipe.clip(image_size)
    mean, std = (np.array(values, np.float32)[:, None, None] for values in (recipe.mean, recipe.std))
    drawn = []
    for scene in islice(scenes("train", seed=seed), count):
        pixels = (preprocess(render(scene), recipe) * std + mean) * 255
        phrases, centres = label_patches(scene, patches)
        caption = ENGLISH.caption(scene.groups, scene.background)
        drawn.append(Drawn(pixels.round().clip(0, 255).astype(np.uint8).transpose(1, 2, 0), phrases, centres, caption))
    return drawn


def draw(recipe: VisionRecipe, *, workers: int) -> list[Drawn]:
    """``recipe.pictures`` training pictures; the same for any number of workers."""
    part = 500
    seeds = [f"vision/{recipe.seed}/{i}" for i in range(math.ceil(recipe.pictures / part))]
    patches = recipe.image_size // recipe.patch_size
    with ProcessPoolExecutor(workers) as pool:
        count = len(seeds)
        parts = pool.map(_draw_part, seeds, [part] * count, [recipe.image_size] * count, [patches] * count)
        return [picture for drawn in parts for picture in drawn][: recipe.pictures]


# --- training -------------------------------------------------------------------------------------------------------
class Alignment(nn.Module):
    """The vision tower, the English text side, and the three losses between them."""

    def __init__(self, config: CLIPVisionConfig, vocabulary: list[str]) -> None:
        super().__init__()
        width = config.hidden_size
        self.vision = CLIPVisionModel(config)
        self.text = EnglishWords(vocabulary, width)
        self.norm = nn.LayerNorm(width)
        self.patch_head = nn.Linear(width, width, bias=False)
        self.centre_head = nn.Linear(width, 1)
        self.class_head = nn.Linear(width, width, bias=False)
        self.scales = nn.Parameter(torch.full((2,), math.log(15.0)))

    def forward(
        self,
        pixels: torch.Tensor,
        phrases: torch.Tensor,
        centres: torch.Tensor,
        all_phrases: torch.Tensor,
        captions: torch.Tensor,
    ) -> dict[str, torch.Tensor]:
        output = self.vision(pixel_values=pixels, output_hidden_states=True)
        patches = self.norm(output.hidden_states[-2][:, 1:])
        known = self.text(all_phrases)
        scales = self.scales.clamp(max=math.log(100.0)).exp()
        logits = scales[0] * nn.functional.normalize(self.patch_head(patches), dim=-1) @ known.T
        background = phrases >= len(KINDS) * len(COLOURS) * len(SIZES)
        # Most patches are background: things count four times as much.
        losses = nn.functional.cross_entropy(logits.float().flatten(0, 1), phrases.flatten(), reduction="none")
        weights = torch.where(background.flatten(), 0.25, 1.0)
        region = (losses * weights).sum() / weights.sum()
        centre = nn.functional.binary_cross_entropy_with_logits(
            self.centre_head(patches).squeeze(-1).float(), centres, pos_weight=torch.tensor(8.0)
        )
        pooled = nn.functional.normalize(self.class_head(output.pooler_output), dim=-1)
        similarity = (scales[1] * pooled @ self.text(captions).T).float()
        target = torch.arange(len(pixels))
        contrast = nn.functional.cross_entropy(similarity, target) + nn.functional.cross_entropy(similarity.T, target)
        right = (logits.argmax(-1) == phrases)[~background].float().mean()
        return {"loss": region + centre + 0.25 * contrast, "region": region, "centre": centre, "contrast": contrast,
                "things right": right}  # fmt: skip


def pretrain(recipe: VisionRecipe, folder: Path, *, workers: int, report: Callable[[str], None]) -> None:
    """Draw the pictures, train, and save the vision tower in ``folder`` (fp16 weights)."""
    torch.manual_seed(recipe.seed)
    started = time.monotonic()
    drawn = draw(recipe, workers=workers)
    report(f"{len(drawn)} pictures in {time.monotonic() - started:.0f} s")
    phrases = _phrases()
    vocabulary = sorted({word for text in [*phrases, *(picture.caption for picture in drawn)] for word in words(text)})
    model = Alignment(model_config(recipe), vocabulary)
    report(f"vision tower: {sum(p.numel() for p in model.vision.parameters())} parameters; {len(vocabulary)} words")
    all_phrases = model.text.counts(phrases)
    captions = model.text.counts([picture.caption for picture in drawn])
    mean, std = (torch.tensor(values).view(3, 1, 1) for values in (CLIP_MEAN, CLIP_STD))
    optimizer = torch.optim.AdamW(
        model.parameters(), recipe.learning_rate, betas=(0.9, 0.98), weight_decay=0.02, fused=True
    )
    random_ = np.random.default_rng(recipe.seed)
    started = time.monotonic()
    for step in range(recipe.steps):
        fall = schedule(step - recipe.warmup, max(1, recipe.steps - recipe.warmup))
        scale = (step + 1) / recipe.warmup if step < recipe.warmup else fall
        rows = random_.integers(0, len(drawn), recipe.batch)
        pixels = torch.from_numpy(np.stack([drawn[i].pixels for i in rows])).permute(0, 3, 1, 2).float() / 255
        # A little brightness and contrast of each picture's own, so that a colour is known in any light.
        gain, lift = (torch.from_numpy(random_.uniform(*bounds, (recipe.batch, 1, 1, 1)).astype(np.float32))
                      for bounds in ((0.92, 1.08), (-0.04, 0.04)))  # fmt: skip
        pixels = ((pixels * gain + lift).clamp(0, 1) - mean) / std
        for group in optimizer.param_groups:
            group["lr"] = recipe.learning_rate * scale
        with torch.autocast("cpu", torch.bfloat16):
            losses = model(
                pixels,
                torch.from_numpy(np.stack([drawn[i].phrases for i in rows]).astype(np.int64)),
                torch.from_numpy(np.stack([drawn[i].centres for i in rows])),
                all_phrases,
                captions[rows],
            )
        losses["loss"].backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        optimizer.zero_grad()
        if step % 50 == 0 or step + 1 == recipe.steps:
            values = " ".join(f"{name} {value.item():.3f}" for name, value in losses.items())
            report(f"vision step {step} {values} {time.monotonic() - started:.0f} s")
    model.vision.half().save_pretrained(folder)
