"""The model on its way through the run folder, from the main process to all ranks."""

from pathlib import Path

import pytest
import torch

from parrot_runtime.errors import InputError
from parrot_train import start
from parrot_train.config_files import load_config
from parrot_train.distributed import Ranks


class Elsewhere(Ranks):
    """A rank on a machine with a disk of its own: the main process has written, and nothing is here."""

    rank = 1

    def from_main(self, work):
        return {}, "token"


def test_what_is_read_is_what_was_made(config_file, tmp_path):
    config, run = load_config(config_file), tmp_path / "run"
    made, tokenizer, told = start.make(config, 1, Path("unused"), tmp_path)
    origin = start.write(config, 1, Path("unused"), run, Ranks(), dtype=torch.float32)
    assert origin == told
    model, copied = start.read(run, Ranks())
    assert copied.read_bytes() == tokenizer.read_bytes()
    for (name, one), other in zip(model.named_parameters(), made.parameters(), strict=True):
        assert torch.equal(one, other), name
    assert not list((run / start.FOLDER).glob("*.safetensors"))
    start.clear(run)
    assert list(run.iterdir()) == []


def test_the_new_weights_are_rounded_and_not_drawn_anew(config_file, tmp_path):
    config = load_config(config_file)
    made, *_ = start.make(config, 1, Path("unused"), tmp_path)
    start.write(config, 1, Path("unused"), tmp_path / "run", Ranks(), dtype=torch.bfloat16)
    model, _ = start.read(tmp_path / "run", Ranks())
    projector = model.model.multi_modal_projector.linear_1.weight
    assert projector.dtype == torch.bfloat16
    assert torch.equal(projector, made.model.multi_modal_projector.linear_1.weight.bfloat16())


def test_a_machine_that_does_not_see_the_run_folder(config_file, tmp_path):
    with pytest.raises(InputError, match="rank 1 does not see there what the main process wrote"):
        start.write(load_config(config_file), 1, Path("unused"), tmp_path, Elsewhere(), dtype=torch.float32)
