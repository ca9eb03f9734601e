"""Steps of stage 2 as parrot-train does them, against the scheme of the paper's released code, in turn.

    python benchmarks/training.py runs/nano/stage2 --data runs/nano/data/stage2.json

The other scheme, built anew from its description: records are read, tokenised and decoded one by one when they are
needed; image and text are put together sample by sample, every expert is a product of its own, batches come in random
order and are padded to their longest; logits are computed for every position. Both schemes start from the same
weights and see the same batches when their losses are compared, and each its own when their speed is. A model too large
to be there twice is one model with ``--shared``: each scheme's steps then go on from the other's.

Prints, as Markdown, tokens that are not padding per second, their ratio, the share of padding, and the largest
difference of a loss.
"""

import copy
import itertools
import json
import statistics
import tempfile
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import click
import numpy as np
import torch
from tokenizers import Tokenizer
from torch import nn
from torch.utils.data import DataLoader, Dataset, RandomSampler

from parrot_runtime.command import ParrotCommand
from parrot_runtime.image import ImageRecipe, preprocess, read_image
from parrot_runtime.prompt import PromptEncoder
from parrot_train.attention import use_short_attention
from parrot_train.checkpoint import load_checkpoint
from parrot_train.config import DataConfig
from parrot_train.data.collator import IGNORED, Conversations, LengthBatches, as_batch
from parrot_train.data.prepare import prepare
from parrot_train.data.records import Record, parse_records, read_json
from parrot_train.model import ParrotForConditionalGeneration
from parrot_train.model.trainable import set_trainable
from parrot_train.recipe import image_recipe


class LazyRecords(Dataset):
    """The other scheme's data: a record is tokenised and its picture decoded whenever it is asked for."""

    def __init__(
        self, records: Sequence[Record], root: Path, tokenizer: Path, recipe: ImageRecipe, image_tokens: int
    ) -> None:
        self._records, self._root, self._recipe, self._image_tokens = records, root, recipe, image_tokens
        self._encoder = PromptEncoder(Tokenizer.from_file(str(tokenizer)))
        self.pad_id = self._encoder.pad_id

    def __len__(self) -> int:
        return len(self._records)

    def __getitem__(self, number: int) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        """Ids ``int64[T]``, labels ``int64[T]``, pixels ``float32[images, 3, S, S]``."""
        record = self._records[number]
        prompt = self._encoder.encode(record.turns, image_tokens=self._image_tokens)
        ids = torch.from_numpy(prompt.input_ids.astype(np.int64))
        labels = ids.masked_fill(~torch.from_numpy(prompt.labels_mask), IGNORED)
        side = self._recipe.size
        pixels = [preprocess(read_image(self._root / image), self._recipe) for image in record.images]
        return ids, labels, torch.from_numpy(np.stack(pixels)) if pixels else torch.empty(0, 3, side, side)

    def collate(self, samples: Sequence[tuple[torch.Tensor, torch.Tensor, torch.Tensor]]) -> dict[str, torch.Tensor]:
        """A batch, padded to its longest sample."""
        ids, labels, pixels = zip(*samples, strict=True)
        padded = (
            nn.utils.rnn.pad_sequence(each, batch_first=True, padding_value=value)
            for each, value in ((ids, self.pad_id), (labels, IGNORED))
        )
        lengths = torch.tensor([len(each) for each in ids])
        return dict(zip(("input_ids", "labels"), padded, strict=True)) | {
            "pixel_values": torch.cat(pixels),
            "lengths": lengths,
        }


def per_sample_loss(model: ParrotForConditionalGeneration, batch: dict[str, torch.Tensor]) -> torch.Tensor:
    """The other scheme's loss: the same numbers, sample by sample and expert by expert, with logits everywhere."""
    inner, marker, tokens = model.model, model.config.image_token_id, model.config.image_tokens
    features = list(inner.get_image_features(batch["pixel_values"])) if len(batch["pixel_values"]) else []
    experts = [weights.unbind(0) for weights in inner.moe.experts.parameters()]
    embeds, used = [], 0
    for ids, labels, length in zip(batch["input_ids"], batch["labels"], batch["lengths"].tolist(), strict=True):
        ids, labels = ids[:length], labels[:length]
        words = inner.get_input_embeddings()(ids.masked_fill(ids == marker, 0))
        asked = words[(ids != marker) & (labels == IGNORED)]
        pieces, at = [], 0
        for start in torch.nonzero(ids == marker).flatten().tolist()[::tokens]:
            pieces += [words[at:start], _mixed(inner.moe, experts, features[used], asked)]
            at, used = start + tokens, used + 1
        embeds.append(torch.cat([*pieces, words[at:]]))
    hidden = inner.language_model(inputs_embeds=nn.utils.rnn.pad_sequence(embeds, batch_first=True), use_cache=False)
    logits = model.lm_head(hidden.last_hidden_state).float()[:, :-1]
    labels = batch["labels"][:, 1 : logits.shape[1] + 1]
    return nn.functional.cross_entropy(logits.reshape(-1, logits.shape[-1]), labels.reshape(-1), ignore_index=IGNORED)


def _mixed(
    moe: nn.Module, experts: Sequence[Sequence[torch.Tensor]], image: torch.Tensor, words: torch.Tensor
) -> torch.Tensor:
    """Eq. 2 to 5 of one picture, ``[P, C]``, in the light of ``words`` ``[T, C]``."""
    guide = torch.softmax(image[0] @ words.T / image.shape[-1] ** 0.5, dim=-1) @ words
    shares = moe.router(guide).float().softmax(dim=-1).to(image.dtype)
    linear, silu = nn.functional.linear, nn.functional.silu
    mixed = torch.zeros_like(image)
    for share, *weights in zip(shares, *experts, strict=True):
        if len(weights) == 4:
            first, bias, second, last = weights
            mixed = mixed + share * linear(silu(linear(image, first, bias)), second, last)
        else:
            gate, up, down = weights
            mixed = mixed + share * linear(silu(linear(image, gate)) * linear(image, up), down)
    return image + moe.alpha * mixed if moe.residual == "paper" else mixed + moe.alpha * image


def our_loss(model: ParrotForConditionalGeneration, batch: dict[str, torch.Tensor]) -> torch.Tensor:
    """As the trainer computes it."""
    targets = batch["labels"][:, 1:]
    logits = model(
        input_ids=batch["input_ids"],
        pixel_values=batch["pixel_values"],
        labels=batch["labels"],
        prompt_mask=batch["prompt_mask"],
        answers_only=True,
    ).logits
    return nn.functional.cross_entropy(logits.float(), targets[targets != IGNORED])


@dataclass
class Scheme:
    """One way to train: its loss, its batches, and a model and optimiser of its own."""

    loss: Callable[[ParrotForConditionalGeneration, dict[str, torch.Tensor]], torch.Tensor]
    model: ParrotForConditionalGeneration
    batches: Iterator[dict[str, torch.Tensor]]
    optimiser: torch.optim.Optimizer
    precision: str

    def loss_of(self, batch: dict[str, torch.Tensor]) -> torch.Tensor:
        """The loss of ``batch``, in the products' type."""
        with torch.autocast("cpu", torch.bfloat16, enabled=self.precision == "bf16"):
            return self.loss(self.model, batch)

    def step(self, batch: dict[str, torch.Tensor]) -> float:
        """One step of the optimiser; the loss before it."""
        loss = self.loss_of(batch)
        loss.backward()
        self.optimiser.step()
        self.optimiser.zero_grad()
        return float(loss.detach())

    def run(self, steps: int) -> tuple[float, float]:
        """Tokens that are not padding per second, data included, over ``steps``; and the share of padding."""
        started, real, all_ = time.perf_counter(), 0, 0
        for batch in itertools.islice(self.batches, steps):
            self.step(batch)
            real, all_ = real + int(batch["lengths"].sum()), all_ + batch["input_ids"].numel()
        return real / (time.perf_counter() - started), 1 - real / all_


def _optimiser(model: nn.Module) -> torch.optim.Optimizer:
    return torch.optim.AdamW([each for each in model.parameters() if each.requires_grad], lr=1e-5, fused=True)


def _some(data: Path, limit: int, folder: Path) -> Path:
    """``limit`` records of ``data``, evenly spread over it, in a file of their own in ``folder``."""
    records = json.loads(data.read_text("utf-8"))
    some = records[:: max(1, len(records) // limit)][:limit]
    for record in some:
        if "image" in record:
            record["image"] = str((data.parent / record["image"]).resolve())
    path = folder / data.name
    path.write_text(json.dumps(some), encoding="utf-8")
    return path


def _endless(loader: Iterable[dict[str, torch.Tensor]]) -> Iterator[dict[str, torch.Tensor]]:
    while True:
        yield from loader


def _with_lengths(conversations: Conversations, batch: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    return batch | {"lengths": torch.from_numpy(conversations.lengths[batch["samples"].numpy()])}


@click.command(cls=ParrotCommand, help=__doc__.splitlines()[0])
@click.argument("checkpoint", type=click.Path(path_type=Path))
@click.option("--data", type=click.Path(path_type=Path), required=True, help="LLaVA JSON.")
@click.option("--batch", default=16, show_default=True, help="Conversations a step.")
@click.option("--steps", default=20, show_default=True, help="Of a round.")
@click.option("--rounds", default=3, show_default=True, help="Of each scheme, in turn.")
@click.option("--compared", default=5, show_default=True, help="Steps on the same batches, whose losses are compared.")
@click.option("--precision", type=click.Choice(["bf16", "fp32"]), default="fp32", show_default=True)
@click.option("--workers", default=2, show_default=True, help="Processes that load, of each scheme.")
@click.option("--recompute", is_flag=True, help="Gradient checkpointing, in both.")
@click.option("--limit", type=click.IntRange(min=1), help="Conversations, evenly from all of the file.  [all]")
@click.option("--shared", is_flag=True, help="One model and optimiser for both schemes.")
def main(
    checkpoint: Path,
    data: Path,
    batch: int,
    steps: int,
    rounds: int,
    compared: int,
    precision: str,
    workers: int,
    recompute: bool,
    limit: int | None,
    shared: bool,
) -> None:
    model = load_checkpoint(checkpoint).train()
    set_trainable(model, 2)
    if recompute:
        model.gradient_checkpointing_enable({"use_reentrant": False})
    if model.model.moe is None:
        raise click.ClickException(f"{checkpoint}: has no mixture; give a checkpoint of stage 2")
    recipe, tokenizer = image_recipe(model.config), checkpoint / "tokenizer.json"
    if limit:
        data = _some(data, limit, Path(click.get_current_context().with_resource(tempfile.TemporaryDirectory())))
    conversations = prepare(
        [data],
        DataConfig(image_cache="pixels", workers=workers),
        tokenizer=tokenizer,
        recipe=recipe,
        image_tokens=model.config.image_tokens,
        fallback=Path.cwd(),
    ).conversations
    sampler = LengthBatches(conversations.lengths, batch, seed=0, epoch=lambda: 0)
    ours = DataLoader(conversations, batch_sampler=sampler, collate_fn=as_batch)
    records = LazyRecords(
        parse_records(read_json(data), file=str(data))[0], data.parent, tokenizer, recipe, model.config.image_tokens
    )
    generator = torch.Generator().manual_seed(0)
    order = RandomSampler(records, generator=generator)
    theirs = DataLoader(records, batch, sampler=order, collate_fn=records.collate, num_workers=workers)
    other = model if shared else copy.deepcopy(model)
    optimiser = _optimiser(model)
    if precision == "bf16":
        use_short_attention(model.model.language_model)  # as parrot-train does on a CPU
    schemes = {
        "parrot-train": Scheme(
            our_loss, model, (_with_lengths(conversations, each) for each in _endless(ours)), optimiser, precision
        ),
        "sample by sample": Scheme(
            per_sample_loss, other, _endless(theirs), optimiser if shared else _optimiser(other), precision
        ),
    }
    apart = 0.0
    first = schemes["parrot-train"].batches
    for each in itertools.islice(first, compared):
        # One model's first step would change what the second sees: its losses are compared without a step.
        losses = [float(scheme.loss_of(each).detach()) if shared else scheme.step(each) for scheme in schemes.values()]
        apart = max(apart, abs(losses[0] - losses[1]))
    figures: dict[str, list[tuple[float, float]]] = {name: [] for name in schemes}
    for _ in range(rounds):
        for name, scheme in schemes.items():
            figures[name].append(scheme.run(steps))
    click.echo(f"| {checkpoint.name}, {precision}, batches of {batch} | tokens/s | padding |\n|---|---:|---:|")
    medians = {name: statistics.median(speed for speed, _ in each) for name, each in figures.items()}
    for name, each in figures.items():
        click.echo(f"| {name} | {medians[name]:,.0f} | {100 * statistics.fmean(pad for _, pad in each):.0f} % |")
    speeds = list(medians.values())
    click.echo(f"\nratio {speeds[0] / speeds[1]:.2f}; losses on the same {compared} batches within {apart:.1e}")


if __name__ == "__main__":
    main()
