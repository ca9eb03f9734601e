"""DeepSpeed's checkpoints, cut into parts here by the rules of its documentation, and what is refused of them.

``tests/test_deepspeed.py`` has those that DeepSpeed itself writes.
"""

import math
import os
import re
import sys
from collections import OrderedDict
from pathlib import Path
from types import ModuleType

import pytest
import torch
from safetensors.torch import save_file

from parrot_runtime.errors import InputError
from parrot_train.shards import WEIGHTS_NAME
from parrot_train.zero import is_zero_checkpoint, read_zero_checkpoint

SHAPES = {"a": (3, 5), "b": (7,), "c": (1,), "d": (2, 3, 11), "e": (64,)}
GROUPS = (("a", "b", "c"), ("d", "e"))
FROZEN = {"v": (5, 5), "w": (2,)}


@pytest.fixture
def tensors():
    generator = torch.Generator().manual_seed(5)
    return {name: torch.randn(shape, generator=generator) for name, shape in (SHAPES | FROZEN).items()}


def write(folder: Path, tensors, *, stage: int, ranks: int, padding: int = 0) -> Path:
    """A checkpoint of ``ranks`` ranks; ``padding`` numbers stand behind every tensor in ZeRO 2."""
    states = folder / "global_step7"
    states.mkdir(parents=True)
    (folder / "latest").write_text("global_step7")
    model = {
        "param_shapes": [OrderedDict((name, torch.Size(SHAPES[name])) for name in group) for group in GROUPS],
        "frozen_param_shapes": OrderedDict((name, torch.Size(shape)) for name, shape in FROZEN.items()),
        "shared_params": {"tied": "d"},
        "mp_world_size": 1,
    }
    for rank in range(ranks):
        if stage == 3:
            flat = [torch.cat([_share(tensors[name], ranks, rank) for name in group]) for group in GROUPS]
            part = {"fp32_flat_groups": flat, "partition_count": ranks}
            fragments = {name: _share(tensors[name], ranks, rank).bfloat16() for name in FROZEN}
        else:
            flat = [_slice([tensors[name] for name in group], ranks, rank, padding) for group in GROUPS]
            part = {"single_partition_of_fp32_groups": flat, "partition_count": [ranks, ranks]}
            if padding:
                part["param_alignment_paddings"] = [[padding] * len(group) for group in GROUPS]
            fragments = {name: tensors[name].bfloat16() for name in FROZEN}
        torch.save({"optimizer_state_dict": part}, states / f"zero_pp_rank_{rank}_mp_rank_00_optim_states.pt")
        name = f"zero_pp_rank_{rank}_" if stage == 3 else ""
        torch.save(model | {"frozen_param_fragments": fragments}, states / f"{name}mp_rank_00_model_states.pt")
    return folder


def _share(tensor, ranks, rank):
    """ZeRO 3: an equal part of one tensor, zeros at the end of the last."""
    size = math.ceil(tensor.numel() / ranks)
    padded = torch.zeros(size * ranks)
    padded[: tensor.numel()] = tensor.flatten()
    return padded[rank * size : (rank + 1) * size].clone()


def _slice(tensors, ranks, rank, padding):
    """ZeRO 2: an equal part of all tensors of a group, end to end, in multiples of two."""
    whole = torch.cat([torch.cat([tensor.flatten(), torch.zeros(padding)]) for tensor in tensors])
    size = 2 * math.ceil(len(whole) / ranks / 2)
    padded = torch.zeros(size * ranks)
    padded[: len(whole)] = whole
    return padded[rank * size : (rank + 1) * size].clone()


@pytest.mark.parametrize(("stage", "padding"), [(2, 0), (2, 3), (3, 0)])
@pytest.mark.parametrize("ranks", [1, 3, 11])
def test_all_tensors_come_together_again(tensors, tmp_path, stage, padding, ranks):
    """With eleven ranks, a name's order is not a number's, and small tensors have ranks without a part."""
    folder = write(tmp_path / "c", tensors, stage=stage, ranks=ranks, padding=padding)
    found = read_zero_checkpoint(folder)
    assert found.keys() == tensors.keys() | {"tied"}
    for name, tensor in tensors.items():
        expected = tensor.bfloat16() if name in FROZEN else tensor
        assert found[name].dtype == expected.dtype
        assert torch.equal(found[name].load(), expected), name
    assert torch.equal(found["tied"].load(), tensors["d"])


def test_any_run_of_numbers_can_be_read(tensors, tmp_path):
    found = read_zero_checkpoint(write(tmp_path / "c", tensors, stage=3, ranks=3))["d"]
    flat = tensors["d"].flatten()
    for first in range(0, 66, 5):
        for count in (1, 22, 66 - first):
            assert torch.equal(found.read(first, count), flat[first : first + count])


def test_whole_weights_beside_it_come_first_and_empty_ones_do_not(tensors, tmp_path):
    folder = write(tmp_path / "c", tensors, stage=3, ranks=2)
    assert is_zero_checkpoint(folder)
    save_file({name: torch.empty(0) for name in tensors}, folder / WEIGHTS_NAME)
    assert is_zero_checkpoint(folder)
    save_file(tensors, folder / WEIGHTS_NAME)
    assert not is_zero_checkpoint(folder)
    (folder / WEIGHTS_NAME).write_bytes(b"no header")  # for the reader of such files to refuse
    assert not is_zero_checkpoint(folder)
    (folder / WEIGHTS_NAME).unlink()
    (folder / "latest").unlink()
    assert not is_zero_checkpoint(folder)


class Program:
    """An object whose unpickling writes a file."""

    def __init__(self, witness):
        self.witness = witness

    def __reduce__(self):
        return os.mkdir, (str(self.witness),)


@pytest.mark.parametrize("file", ["optim", "model"])
def test_a_pickle_that_holds_a_program_is_refused_and_not_run(tensors, tmp_path, file):
    folder = write(tmp_path / "c", tensors, stage=3, ranks=2)
    path = folder / "global_step7" / f"zero_pp_rank_1_mp_rank_00_{file}_states.pt"
    torch.save(torch.load(path) | {"more": Program(tmp_path / "it ran")}, path)
    with pytest.raises(InputError, match=r"holds an object of \w+\.mkdir, .* `python .*zero_to_fp32\.py .* --safe_ser"):
        read_zero_checkpoint(folder)
    assert not (tmp_path / "it ran").exists()


def test_deepspeeds_own_objects_do_nothing(tensors, tmp_path, monkeypatch):
    """A module of the right name whose class would act, had it been used."""
    acted = []

    class LossScaler:
        def __setstate__(self, state):
            acted.append(state)

    module = ModuleType("deepspeed.runtime.fp16.loss_scaler")
    LossScaler.__module__, LossScaler.__qualname__, module.LossScaler = module.__name__, "LossScaler", LossScaler
    for name in ("deepspeed", "deepspeed.runtime", "deepspeed.runtime.fp16"):
        monkeypatch.setitem(sys.modules, name, ModuleType(name))
    monkeypatch.setitem(sys.modules, module.__name__, module)
    folder = write(tmp_path / "c", tensors, stage=3, ranks=1)
    path = next(folder.glob("global_step7/*_optim_states.pt"))
    scaler = LossScaler()
    scaler.cur_scale = 1.0
    torch.save(torch.load(path) | {"loss_scaler": scaler}, path)
    assert torch.equal(read_zero_checkpoint(folder)["a"].load(), tensors["a"])
    assert not acted


def _latest(text):
    return lambda folder: (folder / "latest").write_text(text)


def _without(name):
    return lambda folder: (folder / "global_step7" / name).unlink()


def _changed(name, change):
    def apply(folder):
        path = folder / "global_step7" / name
        data = torch.load(path)
        change(data)
        torch.save(data, path)

    return apply


def _cut_file(folder):
    path = folder / "global_step7" / "zero_pp_rank_0_mp_rank_00_optim_states.pt"
    path.write_bytes(path.read_bytes()[:-300])


OPTIMIZER, MODEL = "zero_pp_rank_0_mp_rank_00_optim_states.pt", "zero_pp_rank_0_mp_rank_00_model_states.pt"


@pytest.mark.parametrize(
    ("fault", "message"),
    [
        (_latest("../c/global_step7"), r"latest: names '../c/global_step7', which is no folder beside it"),
        (_latest(".."), "latest: names '..', which is no folder"),
        (_latest("global_step8"), "names 'global_step8'"),
        (_without(OPTIMIZER), r"trained by 2 ranks, but 1 \*_optim_states.pt are there; copy those of every machine"),
        (_without(MODEL.replace("rank_0_", "rank_1_")), "v is cut short"),
        (_cut_file, r"optim_states\.pt: cannot be read \("),
        (_changed(MODEL, lambda data: data.update(mp_world_size=2)), "2 model-parallel ranks; only ZeRO's parts"),
        (_changed(MODEL, lambda data: data.pop("param_shapes")), "not as DeepSpeed writes it .*param_shapes"),
        (
            _changed(MODEL, lambda data: data["param_shapes"][1].popitem()),
            "32 numbers of each rank belong to no tensor",
        ),
        (_changed(MODEL, lambda data: data["param_shapes"][1].update(x=torch.Size([4]))), "-2 numbers of each rank"),
        (_changed(OPTIMIZER, lambda data: data.pop("optimizer_state_dict")), "not as DeepSpeed writes it"),
    ],
)
def test_what_is_not_whole_is_refused_in_one_line(tensors, tmp_path, fault, message):
    folder = write(tmp_path / "c", tensors, stage=3, ranks=2)
    fault(folder)
    with pytest.raises(InputError, match=message) as caught:
        read_zero_checkpoint(folder)
    assert "\n" not in str(caught.value)
    assert re.match(re.escape(str(folder)), str(caught.value))


def test_states_without_parts_say_what_is_missing(tensors, tmp_path):
    folder = write(tmp_path / "c", tensors, stage=2, ranks=1)
    next(folder.glob("global_step7/*_optim_states.pt")).unlink()
    with pytest.raises(InputError, match=r"holds no \*_optim_states\.pt, where DeepSpeed keeps a rank's part"):
        read_zero_checkpoint(folder)
