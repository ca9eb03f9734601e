"""The plan's formulas against real steps: torch's own accounting of memory and products, DeepSpeed's own ranks."""

import importlib.util
import json
import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from parrot_benchmarks.training_memory import Case, measured, planned
from parrot_train.config import Stage1Config, Stage2Config
from parrot_train.distributed import parameter_count
from parrot_train.model import ParrotForConditionalGeneration
from parrot_train.model.adapters import add_adapters
from parrot_train.model.trainable import set_trainable
from parrot_train.planning.memory import rank_memory
from parrot_train.planning.sizes import sizes

# Every way to hold numbers, both stages, with and without checkpointing; then shapes in which another part weighs most:
# logits, experts, layers, words; and the other families.
_CASES = [
    *(
        Case(f"{stage}-{precision}-{zero}-{recompute}", stage, precision, zero, recompute)
        for stage in (1, 2)
        for precision, zero in (("fp32", 0), ("bf16", 0), ("bf16", 3))
        for recompute in (False, True)
    ),
    Case("logits", zero=3, recompute=True, vocabulary=5003, answers=61),
    Case("logits-autocast", recompute=True, vocabulary=5003, answers=61),
    Case("long", zero=3, recompute=True, rows=1, length=433, layers=7, width=128),
    Case("experts", zero=3, recompute=True, rows=5, length=33, experts=11, answers=7),
    Case("swiglu", zero=3, rows=5, length=33, answers=7, expert_kind="swiglu"),
    Case("swiglu-autocast", recompute=True, rows=5, length=33, answers=7, expert_kind="swiglu"),
    Case("llava", zero=3, recompute=True, experts=0),
    Case("siglip-qwen3", zero=3, vision="siglip_vision_model", text="qwen3"),
    Case("chinese-clip-llama", zero=3, recompute=True, vision="chinese_clip_vision_model", text="llama"),
    Case("lora", precision="fp32", rank=4),
    Case("lora-recomputed", recompute=True, rank=16, tied=True),
    Case("lora-nf4", rank=4, quantize="nf4", targets=("q_proj", "k_proj", "o_proj", "up_proj")),
    Case("lora-nf4-recomputed", precision="fp32", recompute=True, rank=4, quantize="nf4"),
]


@pytest.mark.parametrize("case", _CASES, ids=lambda case: case.name)
def test_activations_and_operations_of_a_real_step(case):
    real, plan = measured(case), planned(case)
    # Left out: masks, ids and cosines, which weigh something only where the model is this small.
    assert plan.saved == pytest.approx(real.saved, rel=0.03)
    # Left out: short-lived tensors beside those that the formula names.
    assert plan.peak == pytest.approx(real.peak, rel=0.15)
    assert plan.flops == pytest.approx(real.flops, rel=0.02)


def test_dropout_keeps_what_it_left_out():
    """A bool for every input of an adapter on a GPU; torch on a CPU keeps four bytes."""
    case = Case("dropout", rank=4, dropout=0.1)
    attention, mlp = 3 * 64 + 64, 2 * 64 + 11 * 64 // 4
    positions, answers = case.rows * case.length, case.rows * case.answers
    difference = 3 * (positions * (case.layers * (attention + mlp) - mlp) + answers * mlp)
    assert planned(case).saved + difference == pytest.approx(measured(case).saved, rel=0.03)


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
@pytest.mark.parametrize("quantize", ["none", "nf4"])
@pytest.mark.parametrize("tied", [False, True])
def test_states_of_a_model_with_adapters(precision, quantize, tied):
    """Every weight's own bytes, packed ones and their scales among them; what learns is float32, with two moments."""
    # Widths of whole blocks of 64, and enough of them for the 1.3 KiB of tables in each layer to be little.
    case = Case("states", 2, precision, rank=4, quantize=quantize, tied=tied, width=512, layers=2, expert_kind="swiglu")
    torch.manual_seed(0)
    model = ParrotForConditionalGeneration(case.config())
    add_adapters(model, case.lora, seed=0, products=torch.bfloat16 if precision == "bf16" else torch.float32)
    counts = set_trainable(model, 2)
    shape = sizes(case.config(), 2, case.lora)
    assert shape.trained == sum(counts.values())
    assert shape.trained + shape.frozen == sum(map(parameter_count, model.parameters()))
    held = {each.data_ptr(): each.nbytes for each in (*model.parameters(), *model.buffers())}
    memory = rank_memory(shape, Stage2Config(precision=precision), 0, 1, case.batch())
    assert memory.weights == pytest.approx(sum(held.values()), rel=0.003)
    assert (memory.gradients, memory.optimiser) == (4 * shape.trained, 8 * shape.trained)
    if quantize == "nf4":
        linear = 2 * shape.layer_weights
        plain = rank_memory(
            sizes(case.config(), 2, replace(case.lora, quantize="none")),
            Stage2Config(precision=precision),
            0,
            1,
            case.batch(),
        )
        products = 2 if precision == "bf16" else 4
        assert plain.weights - memory.weights == pytest.approx(linear * (products - 4.127 / 8), rel=1e-4)


@pytest.mark.slow
@pytest.mark.timeout(600)  # two ranks that each import torch, transformers and DeepSpeed
@pytest.mark.skipif(importlib.util.find_spec("deepspeed") is None, reason="needs DeepSpeed: pip install deepspeed")
def test_states_of_two_real_ranks(tmp_path):
    script = Path(__file__).parents[2] / "shared" / "zero_states.py"
    launcher = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"]
    done = subprocess.run(
        [*launcher, script, tmp_path / "states.json"],
        capture_output=True,
        text=True,
        env=os.environ | {"OMP_NUM_THREADS": "1"},
    )
    assert done.returncode == 0, done.stderr[-4000:]
    found = json.loads((tmp_path / "states.json").read_text())
    assert len(found) == 5
    for name, held in found.items():
        stage, precision, zero = name.split("-")
        case = Case(name, int(stage), precision, int(zero), width=128, rows=1, length=32, answers=4)
        settings = (Stage1Config if stage == "1" else Stage2Config)(precision=precision)
        memory = rank_memory(sizes(case.config(), case.stage), settings, case.zero, 2, case.batch())
        # Paddings of the ranks' shares, and a reduce bucket of a thousand numbers.
        assert memory.weights + memory.gradients + memory.optimiser == pytest.approx(held, rel=0.02), name
