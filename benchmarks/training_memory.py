"""What training steps of small models really keep in memory and compute, beside what `parrot-train plan` says.

    python benchmarks/training_memory.py

takes real steps on the CPU with torch's own attention: bytes saved for the backward pass (saved-tensor hooks), the most
that torch's allocator held beside weights and gradients (its profiler), and matrix products (its flop counter).
"""

import contextlib
import warnings
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import click
import torch
from torch import nn

from parrot_runtime.command import ParrotCommand
from parrot_train.config import LLM_LINEARS, LoraConfig
from parrot_train.model import ParrotConfig, ParrotForConditionalGeneration
from parrot_train.model.adapters import add_adapters
from parrot_train.model.trainable import set_trainable
from parrot_train.planning.flops import flops
from parrot_train.planning.lengths import Batch, Totals
from parrot_train.planning.memory import Activations, formats
from parrot_train.planning.sizes import sizes

IGNORED = -100


@dataclass(frozen=True)
class Case:
    """A small model and a batch for it. ``zero`` 0 is autocast over float32 weights, above it bfloat16 throughout."""

    name: str
    stage: int = 2
    precision: str = "bf16"
    zero: int = 0
    recompute: bool = False
    rows: int = 3
    length: int = 96
    answers: int = 20
    vision: str = "clip_vision_model"
    text: str = "qwen2"
    layers: int = 4
    width: int = 64
    vocabulary: int = 1000
    expert_kind: str = "mlp"
    experts: int = 6
    rank: int = 0
    quantize: str = "none"
    dropout: float = 0.0
    targets: tuple[str, ...] = LLM_LINEARS
    tied: bool = False

    @property
    def lora(self) -> LoraConfig:
        """The adapters, of which a rank of 0 has none."""
        return LoraConfig(rank=self.rank, dropout=self.dropout, targets=self.targets, quantize=self.quantize)

    @property
    def rounded(self) -> bool:
        """Whether the weights themselves are bfloat16."""
        return self.precision == "bf16" and self.zero > 0

    def config(self) -> ParrotConfig:
        """The model: 17 image positions (16 for SigLIP), grouped keys."""
        vision = {"model_type": self.vision, "hidden_size": 48, "intermediate_size": 96, "num_hidden_layers": 3}
        vision |= {"num_attention_heads": 4, "image_size": 56, "patch_size": 14}
        text = {"model_type": self.text, "hidden_size": self.width, "intermediate_size": 11 * self.width // 4}
        text |= {"num_hidden_layers": self.layers, "num_attention_heads": 4, "num_key_value_heads": 2}
        text |= {"vocab_size": self.vocabulary, "head_dim": self.width // 4, "tie_word_embeddings": self.tied}
        return ParrotConfig(
            vision_config=vision,
            text_config=text,
            vision_feature_select="patch" if self.vision.startswith("siglip") else "cls_patch",
            num_experts=self.experts if self.stage == 2 else 0,
            expert_kind=self.expert_kind,
        )

    def batch(self) -> Batch:
        """Every row has one image and as many answer tokens."""
        return Batch(self.rows, self.length, self.rows, self.rows * self.answers)


@dataclass(frozen=True)
class Figures:
    """Bytes saved for the backward pass, the most bytes at any time, and operations; measured or planned."""

    saved: int
    peak: int
    flops: int


def planned(case: Case) -> Figures:
    """By the formulas of `parrot-train plan`."""
    shape, batch = sizes(case.config(), case.stage, case.lora), case.batch()
    activations = Activations(shape, formats(case.precision, case.zero), batch, case.recompute)
    tokens = batch.rows * batch.length
    totals = Totals(batch.rows, tokens, tokens * batch.length, batch.images, batch.answers, batch.images * batch.length)
    return Figures(activations.saved, activations.peak, flops(shape, totals, recompute=case.recompute).total)


def measured(case: Case) -> Figures:
    """In real steps, after one that made the gradients."""
    torch.manual_seed(0)
    model = ParrotForConditionalGeneration(case.config())
    if case.rank:
        products = torch.bfloat16 if case.precision == "bf16" else torch.float32
        add_adapters(model, case.lora, seed=0, products=products)
    set_trainable(model, case.stage)
    model.train()
    if case.rounded:
        model.to(torch.bfloat16)
    if case.recompute:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", FutureWarning)
            model.gradient_checkpointing_enable({"use_reentrant": False})
    inputs, autocast = example(case), case.precision == "bf16" and not case.rounded
    answer_loss(model, inputs, autocast).backward()
    saved = _saved_bytes(model, inputs, autocast)
    return Figures(saved, _peak_bytes(model, inputs, autocast), _operations(model, inputs, autocast))


def example(case: Case) -> dict[str, torch.Tensor]:
    """A batch as training has it, of random pictures and words."""
    config = case.config()
    ids = torch.randint(0, case.vocabulary, (case.rows, case.length))
    ids[:, 5 : 5 + config.image_tokens] = config.image_token_id
    labels = torch.full_like(ids, IGNORED)
    labels[:, -case.answers :] = ids[:, -case.answers :]
    side = config.vision_config.image_size
    pixels = torch.randn(case.rows, 3, side, side, dtype=torch.bfloat16 if case.rounded else torch.float32)
    return {"input_ids": ids, "labels": labels, "prompt_mask": labels == IGNORED, "pixel_values": pixels}


def answer_loss(model: nn.Module, inputs: dict[str, torch.Tensor], autocast: bool = False) -> torch.Tensor:
    """As the trainer takes it, autocast around the forward pass alone."""
    targets = inputs["labels"][:, 1:]
    with torch.autocast("cpu", torch.bfloat16) if autocast else contextlib.nullcontext():
        outputs = model(**inputs, answers_only=True)
    return nn.functional.cross_entropy(outputs.logits.float(), targets[targets != IGNORED], reduction="none").sum()


def _saved_bytes(model: nn.Module, inputs: dict[str, torch.Tensor], autocast: bool) -> int:
    """Storages that autograd keeps, each once, weights left out."""
    weights = {parameter.untyped_storage().data_ptr() for parameter in model.parameters()}
    found: dict[int, torch.UntypedStorage] = {}

    def keep(tensor: torch.Tensor) -> torch.Tensor:
        storage = tensor.untyped_storage()
        if storage.data_ptr() not in weights:
            found[storage.data_ptr()] = storage
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
        loss = answer_loss(model, inputs, autocast)
    total = sum(storage.nbytes() for storage in found.values())
    loss.backward()
    return total


def _peak_bytes(model: nn.Module, inputs: dict[str, torch.Tensor], autocast: bool) -> int:
    """The most that torch's allocator held at once beyond what it held before the step."""
    activities = [torch.profiler.ProfilerActivity.CPU]
    with torch.profiler.profile(activities=activities, profile_memory=True) as profiler:
        answer_loss(model, inputs, autocast).backward()
    held = most = 0
    for change in _allocations(profiler):
        held += change
        most = max(most, held)
    return most


def _allocations(profiler: Any) -> Iterator[int]:
    events = profiler.profiler.kineto_results.events()
    for event in sorted((event for event in events if event.name() == "[memory]"), key=lambda event: event.start_ns()):
        yield event.nbytes()


def _operations(model: nn.Module, inputs: dict[str, torch.Tensor], autocast: bool) -> int:
    from torch.utils.flop_counter import FlopCounterMode, sdpa_backward_flop_count, sdpa_flop_count

    def forward(query: Any, key: Any, value: Any, *_: Any, **__: Any) -> int:
        return sdpa_flop_count(query, key, value)

    def backward(gradient: Any, query: Any, key: Any, value: Any, *_: Any, **__: Any) -> int:
        return sdpa_backward_flop_count(gradient, query, key, value)

    aten = torch.ops.aten  # torch counts the kernels of a GPU; the CPU's has the same products
    kernels = {
        aten._scaled_dot_product_flash_attention_for_cpu: forward,
        aten._scaled_dot_product_flash_attention_for_cpu_backward: backward,
    }
    with FlopCounterMode(display=False, custom_mapping=kernels) as counter:
        answer_loss(model, inputs, autocast).backward()
    return counter.get_total_flops()


CASES = tuple(
    Case(f"stage {stage}, {name}{', recomputed' if recompute else ''}", stage, precision, zero, recompute)
    for stage in (1, 2)
    for name, precision, zero in (("fp32", "fp32", 0), ("bf16 autocast", "bf16", 0), ("bf16 weights", "bf16", 3))
    for recompute in (False, True)
)


@click.command(cls=ParrotCommand, help=__doc__.splitlines()[0])
def main() -> None:
    """Measure and print a Markdown table."""
    click.echo("| case | saved, KiB | plan | peak, KiB | plan | MFLOP | plan |\n|---|" + "---:|" * 6)
    for case in CASES:
        real, plan = measured(case), planned(case)
        cells = [
            f"{getattr(real, name) / unit:,.1f} | {100 * (getattr(plan, name) / getattr(real, name) - 1):+.1f} %"
            for name, unit in (("saved", 1024), ("peak", 1024), ("flops", 1e6))
        ]
        click.echo(f"| {case.name} | {' | '.join(cells)} |")


if __name__ == "__main__":
    main()
