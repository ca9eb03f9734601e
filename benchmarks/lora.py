"""Stage 2 of nano trained whole, with adapters, and with adapters beside weights of four bits, from one stage 1.

    python benchmarks/lora.py runs/nano/stage1 --steps 150

trains each way for so many steps with the same data, seed and schedule, asks all of them the same held-out questions,
and prints what learns, loss, right letters, peak memory and the size of a checkpoint's weights as Markdown. For
adapters beside rounded weights, how far the published model is from the one that was trained: the mean KL divergence of
the next answer token, and both models' loss and letters.
"""

from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

import click
import torch

from parrot_benchmarks.export_streaming import CLI, timed
from parrot_runtime.command import ParrotCommand
from parrot_train.checkpoint import CHECKPOINTS, load_checkpoint, read_run
from parrot_train.config_files import load_config
from parrot_train.data.collator import OrderedBatches
from parrot_train.distributed import Ranks
from parrot_train.heldout import HeldOut
from parrot_train.model import ParrotForConditionalGeneration
from parrot_train.ready import StageRequest, make_ready

_BATCH = 32


@dataclass(frozen=True)
class Way:
    """One way to train: what it is called, and its settings."""

    name: str
    settings: tuple[str, ...] = ()

    @property
    def quantized(self) -> bool:
        """Whether what learns stands beside rounded weights."""
        return any(setting.startswith("stage2.lora.quantize") for setting in self.settings)


def ways(rates: tuple[float, ...], rank: int) -> list[Way]:
    """All of them, adapters with each rate."""
    found = [Way("whole")]
    for rate in rates:
        adapters = (f"stage2.lora.rank={rank}", f"stage2.lora.alpha={2 * rank}", f"stage2.learning_rate={rate}")
        others = tuple(f"stage2.{part}_learning_rate=1e-3" for part in ("projector", "moe"))
        found.append(Way(f"LoRA, rate {rate:g}", (*adapters, *others)))
    return [*found, Way(f"QLoRA (NF4), rate {rates[-1]:g}", (*found[-1].settings, "stage2.lora.quantize=nf4"))]


def asked(heldout: HeldOut, model: ParrotForConditionalGeneration) -> dict[str, float]:
    """Loss and letters of ``model`` on the held-out questions."""
    device = torch.device("cpu")
    return heldout.measure(model.eval(), lambda sums: sums, device=device, batch_size=_BATCH, rank=0, ranks=1)


@torch.no_grad()
def divergence(
    heldout: HeldOut, trained: ParrotForConditionalGeneration, published: ParrotForConditionalGeneration
) -> float:
    """Mean KL(trained ‖ published) in nats over the answer tokens of the held-out questions."""
    total, count = 0.0, 0
    for numbers in OrderedBatches(heldout.chosen, _BATCH):
        batch = heldout.conversations.__getitems__(numbers)
        for name in ("languages", "samples"):
            batch.pop(name)
        wanted, got = (model(**batch, answers_only=True).logits.double() for model in (trained, published))
        wanted, got = wanted.log_softmax(-1), got.log_softmax(-1)
        total += float((wanted.exp() * (wanted - got)).sum())
        count += len(wanted)
    return total / count


@click.command(cls=ParrotCommand, help=__doc__.splitlines()[0])
@click.argument("stage1", type=click.Path(path_type=Path, exists=True))
@click.option("--steps", default=150, show_default=True, help="Of each way.")
@click.option("--rates", default="1e-3,3e-3,1e-2", show_default=True, help="Learning rates of the adapters.")
@click.option("--rank", default=16, show_default=True, help="Of the adapters; alpha is twice that.")
@click.option("--samples", default=100, show_default=True, help="Held-out questions of each language.")
@click.option("--folder", type=click.Path(path_type=Path), default="runs/lora", show_default=True, help="Where.")
def main(stage1: Path, steps: int, rates: str, rank: int, samples: int, folder: Path) -> None:
    """Train, ask and print; a way whose run is finished is not trained again."""
    click.echo(
        "| nano, CPU | learns | loss | right letters | minutes | peak memory, GiB | weights in a checkpoint, MB |"
    )
    click.echo("|---|---:|---:|---:|---:|---:|---:|")
    rounded = []
    for way in ways(tuple(map(float, rates.split(","))), rank):
        run = folder / way.name.replace(" ", "-").replace(",", "")
        settings = (f"stage2.max_steps={steps}", f"stage2.save_steps={steps}", "data.workers=0", *way.settings)
        seconds = memory = float("nan")
        if (read_run(run) or {}).get("status") != "finished":
            options = [word for setting in settings for word in ("--set", setting)]
            seconds, memory = timed(
                CLI / "parrot-train", "stage2", "--config", "nano", "--from", stage1, "-o", run, *options, "--force"
            )
        config = load_config("nano", [*settings, "stage2.eval_steps=1", f"stage2.eval_samples={samples}"])
        with ExitStack() as held:
            ready = make_ready(StageRequest(2, config, output=run, source=stage1), Ranks(), held)
        published = load_checkpoint(run)
        found = asked(ready.heldout, published)
        (checkpoint,) = (run / CHECKPOINTS).glob("checkpoint-*")
        weights = sum(path.stat().st_size for path in checkpoint.glob("*.safetensors")) / 1e6
        click.echo(
            f"| {way.name} | {read_run(run)['trained_parameters']:,} | {found['eval_loss']:.3f} | "
            f"{100 * found['eval_accuracy']:.1f} % of {found['eval_questions']} | {seconds / 60:.1f} | "
            f"{memory / 1024:.2f} | {weights:.1f} |"
        )
        if way.quantized:
            ready.learned.restore(ready.model, checkpoint)
            rounded.append((way, ready, published, found))
    for way, ready, published, found in rounded:
        kl, trained = divergence(ready.heldout, ready.model.eval(), published), asked(ready.heldout, ready.model)
        click.echo(
            f"\n{way.name}: KL(trained ‖ published) {kl:.4f} nats; loss {trained['eval_loss']:.4f} as trained and "
            f"{found['eval_loss']:.4f} as published, right letters {100 * trained['eval_accuracy']:.1f} % and "
            f"{100 * found['eval_accuracy']:.1f} %"
        )


if __name__ == "__main__":
    main()
