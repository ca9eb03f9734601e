"""Pretrain nano's small CLIP vision tower, the shipped one with English words alone: CLIP's own text side was English.

Four objectives on pictures of the training split, three of them against one text side (words → a small network). A
recipe of several languages draws one for each step:
- every patch that shows a thing should lie nearest to that thing's phrase among all phrases of the world,
  every other patch nearest to its background's word (region–phrase alignment, after GLIP, arXiv 2112.03857);
- it should lie nearest, among the nine places, to the words for the place of that thing;
- a patch knows whether a thing's centre falls in it (centerness, after FCOS, arXiv 1904.01355);
- the class token agrees with the whole caption, among the captions of the batch (CLIP, arXiv 2103.00020).
The last is asked of the last layer, the others of hidden state −2, the layer that Parrot reads.
"""

import io
import math
import re
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from torch import nn
from transformers import CLIPVisionConfig, CLIPVisionModel

from parrot_runtime.image import CLIP_MEAN, CLIP_STD, ImageRecipe, preprocess
from parrot_train.data.cache import to_bytes
from parrot_train.nano.grammar import GRAMMARS, Grammar
from parrot_train.nano.optimizers import Pace, Rates, schedule
from parrot_train.nano.scenes import BACKGROUNDS, CELLS, COLOURS, KINDS, SIZES, Group, Scene, scenes
from parrot_train.nano.write import jpeg
from parrot_train.workers import map_chunks, seeded_parts

THINGS = len(KINDS) * len(COLOURS) * len(SIZES)
# How far a picture is moved at most: a sixth of a cell, so that its things stay in their places.
SHIFT = 0.055


@dataclass(frozen=True)
class VisionRecipe:
    """How the vision tower is made; the defaults are the shipped model's."""

    image_size: int = 128
    patch_size: int = 16
    hidden_size: int = 128
    intermediate_size: int = 384
    layers: int = 5
    heads: int = 4
    pictures: int = 30_000
    steps: int = 4_400
    batch: int = 64
    rates: Rates = field(default=Rates(1.5e-3, 0.02, 100, weight_decay=0.02))
    seed: int = 1
    languages: tuple[str, ...] = ("en",)


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


# --- the text side --------------------------------------------------------------------------------------------------
def _phrases(g: Grammar) -> list[str]:
    """Every thing and background in words; a thing's row is ``(kind · colours + colour) · sizes + size``."""
    things = [
        g.phrase(Group(kind, colour, size, (0,)), size=True) for kind in KINDS for colour in COLOURS for size in SIZES
    ]
    return things + [g.scenery(background) for background in BACKGROUNDS]


def words(text: str) -> list[str]:
    """The words of a text, of Chinese its characters."""
    return re.findall(r"[\u4e00-\u9fff]|[^\W\d_\u4e00-\u9fff]+", text.lower())


class Words(nn.Module):
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
    """One training picture: uint8 ``[S, S, 3]``, and what it shows."""

    pixels: np.ndarray
    scene: Scene

    def caption(self, g: Grammar) -> str:
        """The whole picture in a sentence."""
        return g.caption(self.scene.groups, self.scene.background)


@dataclass(frozen=True)
class View:
    """A picture enlarged about its middle, then moved, both in parts of its side."""

    zoom: float = 1.0
    dx: float = 0.0
    dy: float = 0.0


def label_patches(scene: Scene, patches: int, view: View = View()) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """What each patch of a ``patches × patches`` grid shows, row by row.

    Returns int64 phrases ``[P]``, int64 places ``[P]`` (-1 on background) and float32 centres ``[P]`` (1 on the
    patches that hold a thing's centre). A large thing covers about 0.95 of its cell and stands where its jitter puts
    it; the patches whose centres lie within 0.7 of its radius are certain to show it.
    """
    phrases = np.full((patches, patches), THINGS + BACKGROUNDS.index(scene.background))
    places = np.full((patches, patches), -1)
    centres = np.zeros((patches, patches), np.float32)
    grid = (np.arange(patches) + 0.5) / patches
    for thing in scene.things:
        extent = (0.95 if thing.size == "large" else 0.55) / 3
        room = (1 / 3 - extent) / 2
        x = ((thing.column + 0.5) / 3 + thing.dx * room - 0.5) * view.zoom + 0.5 + view.dx
        y = ((thing.row + 0.5) / 3 + thing.dy * room - 0.5) * view.zoom + 0.5 + view.dy
        radius = 0.35 * extent * view.zoom + 0.25 / patches
        inside = (grid[None, :] - x) ** 2 + (grid[:, None] - y) ** 2 < radius**2
        row, column = (min(max(int(at * patches), 0), patches - 1) for at in (y, x))
        inside[row, column] = True
        index = (KINDS.index(thing.kind) * len(COLOURS) + COLOURS.index(thing.colour)) * len(SIZES)
        phrases[inside] = index + SIZES.index(thing.size)
        places[inside] = thing.cell
        centres[row, column] = 1.0
    return phrases.reshape(-1), places.reshape(-1), centres.reshape(-1)


# Pictures per seed, and so per process at a time.
PART = 500


def _draw_parts(parts: Sequence[tuple[str, int]], image_size: int) -> list[Drawn]:
    recipe = ImageRecipe.clip(image_size)
    drawn = []
    for scene in (each for seed, count in parts for each in islice(scenes("train", seed=seed), count)):
        pixels = to_bytes(preprocess(Image.open(io.BytesIO(jpeg(scene))), recipe), recipe)
        drawn.append(Drawn(pixels.transpose(1, 2, 0), scene))
    return drawn


def draw(recipe: VisionRecipe, *, workers: int) -> list[Drawn]:
    """``recipe.pictures`` training pictures; the same for any number of workers."""
    parts = seeded_parts(f"vision/{recipe.seed}", recipe.pictures, PART)
    chunks = map_chunks(_draw_parts, parts, (recipe.image_size,), workers=workers, size=1)
    return [picture for drawn in chunks for picture in drawn]


@dataclass(frozen=True)
class Batch:
    """Pictures as the tower takes them, float32 ``[B, 3, S, S]``, and the labels of their patches, ``[B, P]``."""

    pixels: torch.Tensor
    phrases: torch.Tensor
    places: torch.Tensor
    centres: torch.Tensor


def augmented(pictures: list[Drawn], patches: int, random_: np.random.Generator) -> Batch:
    """The pictures in light and views of their own, lest the tower learn them by heart instead of what they show."""
    count = len(pictures)
    zoom, dx, dy, gain, lift = (
        random_.uniform(low, high, count)
        for low, high in ((0.88, 1.12), (-SHIFT, SHIFT), (-SHIFT, SHIFT), (0.92, 1.08), (-0.04, 0.04))
    )
    labels = [
        label_patches(each.scene, patches, View(*view)) for each, *view in zip(pictures, zoom, dx, dy, strict=True)
    ]
    pixels = torch.from_numpy(np.stack([each.pixels for each in pictures])).permute(0, 3, 1, 2).float() / 255
    # affine_grid wants the map from the new picture to the old one, on coordinates from -1 to 1.
    theta = torch.zeros(count, 2, 3)
    theta[:, 0, 0] = theta[:, 1, 1] = torch.from_numpy(1 / zoom)
    theta[:, 0, 2], theta[:, 1, 2] = torch.from_numpy(-2 * dx / zoom), torch.from_numpy(-2 * dy / zoom)
    grid = nn.functional.affine_grid(theta, list(pixels.shape), align_corners=False)
    pixels = nn.functional.grid_sample(pixels, grid, padding_mode="border", align_corners=False)
    gains, lifts = (torch.from_numpy(each.astype(np.float32)).view(-1, 1, 1, 1) for each in (gain, lift))
    mean, std = (torch.tensor(values).view(3, 1, 1) for values in (CLIP_MEAN, CLIP_STD))
    pixels = ((pixels * gains + lifts).clamp(0, 1) - mean) / std
    return Batch(pixels, *(torch.from_numpy(np.stack(each)) for each in zip(*labels, strict=True)))


# --- training -------------------------------------------------------------------------------------------------------
class Alignment(nn.Module):
    """The vision tower, the text side, and the four losses between them."""

    def __init__(self, config: CLIPVisionConfig, vocabulary: list[str]) -> None:
        super().__init__()
        width = config.hidden_size
        self.vision = CLIPVisionModel(config)
        self.text = Words(vocabulary, width)
        self.norm = nn.LayerNorm(width)
        self.phrase_head = nn.Linear(width, width, bias=False)
        self.place_head = nn.Linear(width, width, bias=False)
        self.centre_head = nn.Linear(width, 1)
        self.class_head = nn.Linear(width, width, bias=False)
        self.scales = nn.Parameter(torch.full((3,), math.log(15.0)))

    def forward(
        self, batch: Batch, all_phrases: torch.Tensor, all_places: torch.Tensor, captions: torch.Tensor
    ) -> dict[str, torch.Tensor]:
        """The losses by name and their sum, and the shares of things' patches named and placed right."""
        output = self.vision(pixel_values=batch.pixels, output_hidden_states=True)
        patches = self.norm(output.hidden_states[-2][:, 1:])
        scales = self.scales.clamp(max=math.log(100.0)).exp()
        named = scales[0] * nn.functional.normalize(self.phrase_head(patches), dim=-1) @ self.text(all_phrases).T
        placed = scales[1] * nn.functional.normalize(self.place_head(patches), dim=-1) @ self.text(all_places).T
        thing = batch.places >= 0
        # Most patches are background: things count four times as much.
        losses = nn.functional.cross_entropy(named.float().flatten(0, 1), batch.phrases.flatten(), reduction="none")
        weights = torch.where(thing.flatten(), 1.0, 0.25)
        region = (losses * weights).sum() / weights.sum()
        place = nn.functional.cross_entropy(placed[thing].float(), batch.places[thing])
        centre = nn.functional.binary_cross_entropy_with_logits(
            self.centre_head(patches).squeeze(-1).float(), batch.centres, pos_weight=torch.tensor(8.0)
        )
        pooled = nn.functional.normalize(self.class_head(output.pooler_output), dim=-1)
        similarity = (scales[2] * pooled @ self.text(captions).T).float()
        target = torch.arange(len(pooled))
        contrast = nn.functional.cross_entropy(similarity, target) + nn.functional.cross_entropy(similarity.T, target)
        return {
            "loss": region + place + centre + 0.25 * contrast,
            "region": region,
            "place": place,
            "centre": centre,
            "contrast": contrast,
            "named right": (named.argmax(-1) == batch.phrases)[thing].float().mean(),
            "placed right": (placed.argmax(-1) == batch.places)[thing].float().mean(),
        }


def pretrain(recipe: VisionRecipe, folder: Path, *, workers: int, report: Callable[[str], None]) -> None:
    """Draw the pictures, train, and save the vision tower in ``folder`` (fp16 weights)."""
    torch.manual_seed(recipe.seed)
    started = time.monotonic()
    drawn = draw(recipe, workers=workers)
    report(f"{len(drawn)} pictures in {time.monotonic() - started:.0f} s")
    model = train(recipe, drawn, report)
    model.vision.half().save_pretrained(folder)


def train(recipe: VisionRecipe, drawn: list[Drawn], report: Callable[[str], None]) -> Alignment:
    """The steps on those pictures."""
    grammars = [GRAMMARS[code] for code in recipe.languages]
    tables = [(_phrases(g), [g.place(cell) for cell in range(len(CELLS))]) for g in grammars]
    texts = [text for phrases, places in tables for text in (*phrases, *places)]
    texts += [picture.caption(g) for g in grammars for picture in drawn]
    model = Alignment(model_config(recipe), sorted({word for text in texts for word in words(text)}))
    report(f"vision tower: {sum(p.numel() for p in model.vision.parameters())} parameters")
    counted = [(g, *map(model.text.counts, table)) for g, table in zip(grammars, tables, strict=True)]
    pace = Pace(model, recipe.rates)
    random_ = np.random.default_rng(recipe.seed)
    patches = recipe.image_size // recipe.patch_size
    started = time.monotonic()
    for step in range(recipe.steps):
        chosen = [drawn[i] for i in random_.integers(0, len(drawn), recipe.batch)]
        # One language alone draws nothing: the shipped tower's chances stay as they were.
        g, all_phrases, all_places = counted[random_.integers(len(counted)) if len(counted) > 1 else 0]
        captions = model.text.counts([picture.caption(g) for picture in chosen])
        with torch.autocast("cpu", torch.bfloat16):
            losses = model(augmented(chosen, patches, random_), all_phrases, all_places, captions)
        losses["loss"].backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        pace.step(schedule(step, recipe.steps))
        model.zero_grad()
        if step % 50 == 0 or step + 1 == recipe.steps:
            values = " ".join(f"{name} {value.item():.3f}" for name, value in losses.items())
            report(f"vision step {step} {values} {time.monotonic() - started:.0f} s")
    return model
