"""``parrot-train plan``: lengths, arithmetic by hand, verdicts, and what is refused."""

import json
from dataclasses import replace

import numpy as np
import pytest
from click.testing import CliRunner

from parrot_runtime.errors import InputError
from parrot_train.cli import main
from parrot_train.config_files import load_config, shipped_configs
from parrot_train.planning.devices import GPUS
from parrot_train.planning.lengths import ASSUMED, TABLE_3, Lengths, stage_lengths
from parrot_train.planning.plan import PAPER, Machine, make_plan


def plan(*arguments):
    return CliRunner().invoke(main, ["plan", *arguments])


@pytest.fixture(scope="module")
def papers():
    machine = Machine(16, "a100", GPUS["a100"])
    return make_plan(load_config(PAPER), machine, utilisation=0.4)


def test_table_3_is_what_the_shipped_configurations_train_on():
    named = {
        file.rsplit("/", 1)[-1]
        for name in shipped_configs()
        for stage in (1, 2)
        for file in load_config(name).files(stage)
    }
    assert named - {"nano"} == TABLE_3.keys()
    assert sum(count for name, count in TABLE_3.items() if "caption" in name or "pretrain" in name) == 1_215_000


def test_the_papers_states_are_zeros_formulas(papers):
    """Rajbhandari et al., Figure 1, with the weights counted by hand: P trained, F frozen, 16 ranks."""
    stage = papers.stages[1]
    trained, frozen = stage.trained, stage.frozen
    assert trained == pytest.approx(7615.6e6 + 16.5e6 + 154.2e6, rel=1e-4)
    expected = {
        0: (4 * (trained + frozen), 4 * trained, 8 * trained),
        1: (2 * (trained + frozen), 2 * trained, 12 * trained / 16),
        2: (2 * (trained + frozen), 2 * trained / 16, 12 * trained / 16),
        3: (2 * (trained + frozen) / 16, 2 * trained / 16, 12 * trained / 16),
    }
    for fit in stage.fits:
        memory = fit.memory
        assert (memory.weights, memory.gradients, memory.optimiser) == pytest.approx(expected[fit.zero], abs=1)


def test_the_papers_settings_fit_its_machine(papers):
    """16 conversations a device under ZeRO 2 and 8 under ZeRO 3 (Table 13), on 80 GiB: they did train."""
    first, second = papers.stages
    assert next(fit for fit in first.fits if fit.zero == 2).fits
    assert next(fit for fit in second.fits if fit.zero == 3).fits
    assert not next(fit for fit in second.fits if fit.zero == 0).fits
    assert (first.accumulation, second.accumulation) == (1, 1)
    assert (first.zero, second.zero) == (2, 3)
    assert (first.steps, second.steps) == (-(-1_215_000 // 256), -(-793_000 // 128))


def test_the_papers_operations_are_of_the_known_order(papers):
    """Per weight of the layers and token 2 forward, 2 or 4 backward, and 2 again but for a layer's last product."""
    for stage, times in zip(papers.stages, (2 + 2, 2 + 4), strict=True):
        layers, last = 28 * 233.0e6, 28 * 67.9e6
        rough = (times * layers + 2 * (layers - last)) * stage.tokens
        assert rough < stage.flops.total < 1.2 * rough  # and attention, encoder, mixture, output layer
    assert 0 < papers.paper.model_utilisation < papers.paper.utilisation < 1
    operations = sum(stage.steps * stage.flops.total for stage in papers.stages)
    assert papers.paper.utilisation == pytest.approx(operations / (16 * 312e12 * 21 * 3600))
    assert papers.hours == pytest.approx(operations / (16 * 312e12 * 0.4) / 3600)


def test_the_largest_model_fits_the_papers_machine_as_it_is_shipped():
    machine = Machine(16, "a100", GPUS["a100"])
    first, second = make_plan(load_config("parrot-qwen1.5-32b"), machine, utilisation=0.4).stages
    assert next(fit for fit in first.fits if fit.zero == 2).largest_micro_batch == first.micro_batch == 8
    assert next(fit for fit in second.fits if fit.zero == 3).fits


def test_another_model_is_not_held_against_the_papers_hours():
    machine = Machine(16, "a100", GPUS["a100"])
    assert make_plan(load_config("parrot-qwen1.5-14b"), machine, utilisation=0.4).paper is None
    assert make_plan(load_config(PAPER), machine, utilisation=0.4, stages=(2,)).paper is None


def test_batches_are_those_of_training():
    """Seven samples in batches of three: sorted by length, padded to sixteens, the odd one last."""
    tokens = np.array([20, 40, 21, 39, 60, 22, 61])
    lengths = Lengths(tokens, np.array([1, 1, 1, 1, 2, 0, 1]), np.array([3, 4, 5, 6, 7, 8, 9]), "by hand")
    totals = lengths.totals(3, seed=0)
    rest = np.random.default_rng([0, 0]).permutation(7)[-1]
    by_length = sorted(set(range(7)) - {int(rest)}, key=lambda number: tokens[number])
    batches = [by_length[:3], by_length[3:], [int(rest)]]
    padded = [-(-max(tokens[batch]) // 16) * 16 for batch in batches]
    assert totals.rows == 7
    assert totals.tokens == sum(len(batch) * length for batch, length in zip(batches, padded, strict=True))
    assert totals.squares == sum(len(batch) * length**2 for batch, length in zip(batches, padded, strict=True))
    assert (totals.images, totals.answers) == (7, 42)
    largest = lengths.largest(3, seed=0)
    assert (largest.rows, largest.length) == (3, 64)
    assert largest.answers == max(sum(lengths.answers[batch]) for batch in batches)


def test_lengths_are_measured_where_the_files_are_here(config_file, data, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    config = load_config(config_file, [f"data.stage2=[{data()}]"])
    found = stage_lengths(config, 2, image_tokens=5)
    assert len(found) == 40
    assert found.images.sum() == 32  # every fifth record has none
    assert found.source.startswith("measured in ")
    result = plan("--config", config_file, "--stage", "2", "--data", str(data()), "--json")
    assert result.exit_code == 0, result.output
    (stage,) = json.loads(result.stdout)["stages"]
    assert (stage["samples"], stage["steps"]) == (40, 5)
    assert stage["tokens"] < 8 * 128


def test_assumptions_are_said():
    result = plan("--config", "parrot-qwen2-0.5b", "--gpus", "8", "--stage", "2")
    assert result.exit_code == 0, result.output
    assert f"assumed: {ASSUMED[2].text} tokens of text in a sample" in result.stdout
    assert "the paper:" not in result.stdout


def test_what_does_not_fit_says_what_does():
    config = load_config("parrot-qwen2-7b", ["stage2.micro_batch=16"])
    (stage,) = make_plan(config, Machine(8, "a100-40g", GPUS["a100-40g"]), utilisation=0.4, stages=(2,)).stages
    assert not any(fit.fits for fit in stage.fits)
    found = stage.suggestion
    assert found.gpus == 8
    assert found.micro_batch * found.accumulation * found.gpus == 128
    fit = next(fit for fit in stage.fits if fit.zero == found.zero)
    assert fit.largest_micro_batch == found.micro_batch < 16
    (alone,) = make_plan(config, Machine(1, "l40s", GPUS["l40s"]), utilisation=0.4, stages=(2,)).stages
    assert alone.suggestion.gpus > 1
    assert alone.suggestion.zero == 3


def test_adapters_are_planned_for_one_gpu():
    """7B in 4-bit weights in 24 GiB, in bfloat16 ones in 80; whole it fits on neither."""
    small, large = Machine(1, "rtx-4090", GPUS["rtx-4090"]), Machine(1, "a100", GPUS["a100"])

    def fits(config, machine):
        (stage,) = make_plan(load_config(config), machine, utilisation=0.4, stages=(2,)).stages
        assert config == PAPER or [fit.zero for fit in stage.fits] == [0]
        return stage.fits[0].fits

    assert fits("parrot-qwen2-7b-qlora", small)
    assert fits("parrot-qwen2-7b-lora", large)
    assert not fits("parrot-qwen2-7b-lora", small)
    assert not fits(PAPER, large)
    tiny = Machine(1, "tiny", replace(GPUS["a10"], memory=12))
    (stage,) = make_plan(load_config("parrot-qwen2-7b-qlora"), tiny, utilisation=0.4, stages=(2,)).stages
    assert stage.suggestion is None
    result = plan("--config", "parrot-qwen2-7b-qlora", "--stage", "2", "--gpu-memory", "12")
    assert "adapters of rank 128 beside weights in NF4" in result.stdout
    assert "adapters are trained on one GPU, and a sample alone is too much for this one" in result.stdout
    (found,) = json.loads(plan("--config", "parrot-qwen2-7b-qlora", "--stage", "2", "--json").stdout)["stages"]
    assert found["lora"]["quantize"] == "nf4"


def test_the_operations_of_adapters_by_hand():
    """Base weights: 2 forward and 2 back per number and token; adapters: 2 and 4."""
    (whole,) = make_plan(load_config(PAPER), Machine(1, "a100", GPUS["a100"]), utilisation=0.4, stages=(2,)).stages
    config = load_config("parrot-qwen2-7b-lora")
    (stage,) = make_plan(config, Machine(1, "a100", GPUS["a100"]), utilisation=0.4, stages=(2,)).stages
    answers = 128 * 150
    mlps = 27 * stage.tokens + answers  # of the last layer's, answer tokens' alone
    inputs_and_outputs = 28 * stage.tokens * (2 * (3584 + 3584) + 2 * (3584 + 512)) + mlps * 3 * (3584 + 18944)
    adapters = 128 * inputs_and_outputs
    assert stage.flops.forward - whole.flops.forward == pytest.approx(2 * adapters, rel=1e-6)
    frozen = 28 * stage.tokens * 2 * 3584 * (3584 + 512) + mlps * 3 * 3584 * 18944
    output = answers * 3584 * 152064
    assert whole.flops.backward - stage.flops.backward == pytest.approx(
        2 * frozen + 2 * output - 4 * adapters, rel=0.02
    )


def test_gradient_checkpointing_is_suggested_where_it_helps():
    config = load_config("parrot-qwen2-0.5b", ["stage2.gradient_checkpointing=false", "stage2.micro_batch=1"])
    (stage,) = make_plan(config, Machine(1, "x", GPUS["a10"]), utilisation=0.4, stages=(2,)).stages
    assert stage.flops.recomputed == 0
    small = Machine(1, "x", type(GPUS["a10"])(16, 1e14))
    (stage,) = make_plan(config, small, utilisation=0.4, stages=(2,)).stages
    assert not stage.gradient_checkpointing
    assert stage.suggestion.gradient_checkpointing


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("--config", PAPER, "--gpus", "6"), "stage1.global_batch 256 is no multiple of 6 GPUs"),
        (("--config", PAPER, "--gpus", "32"), "--set stage1.micro_batch=8 divides it"),
        (("--gpu", "a1000"), "did you mean 'a100'?"),
        (("--config", PAPER, "--set", "backbones.llm=Qwen/Qwen2-7B"), "did you mean 'Qwen/Qwen2-7B-Instruct'?"),
        (("--config", PAPER, "--set", "data.stage1=[own.json]"), "own.json: not here to be measured"),
        (("--set", "data.nano_folder=none"), "draw it with `parrot-train nano data`"),
        (("--config", "parrot-qwen2-7b-lora", "--gpus", "2"), "stage2.lora.rank is 128 and there are 2 GPUs"),
        (("--stage", "1", "--data", "none.json"), "none.json: not here"),
    ],
)
def test_errors_are_one_line(arguments, words):
    result = plan(*arguments)
    assert result.exit_code == 2, result.output
    assert words in result.stderr
    assert len(result.stderr.splitlines()) == 1, result.stderr


def test_data_wants_a_stage():
    assert "give --stage 1 or --stage 2" in plan("--data", "x.json").stderr


def test_an_unknown_shape_is_refused_by_name():
    with pytest.raises(InputError, match="known without files"):
        make_plan(
            load_config(PAPER, ["backbones.vision=somebody/vit"]), Machine(1, "a100", GPUS["a100"]), utilisation=0.4
        )
