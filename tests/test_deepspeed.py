"""Stage 2 on two real ranks under DeepSpeed, and its checkpoints from there to bundles.

What DeepSpeed's optimiser holds in memory at the end, collected by DeepSpeed, is the reference throughout.
"""

import importlib.util
import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from PIL import Image
from safetensors.torch import load_file

from parrot_export.bundle import export
from parrot_export.request import ExportRequest
from parrot_export.samples import verification_samples
from parrot_export.verify import verify
from parrot_train.checkpoint import load_checkpoint
from parrot_train.model import ParrotConfig, ParrotForConditionalGeneration
from parrot_train.zero import is_zero_checkpoint, read_zero_checkpoint

pytestmark = pytest.mark.skipif(
    importlib.util.find_spec("deepspeed") is None,
    reason="needs DeepSpeed, which trains the checkpoints: pip install deepspeed",
)
SHARED = Path(__file__).parent / "shared"
STAGES = ("zero2", "zero3")


@pytest.fixture(scope="session")
def trained(tmp_path_factory):
    """Two steps of ZeRO 2 and of ZeRO 3; see ``zero_ranks.py``. With odd widths ranks' shares need padding."""
    tiny = _tiny_checkpoint()
    root = tmp_path_factory.mktemp("deepspeed")
    tiny.write_checkpoint(root / "start", tiny.tiny_model(text={"hidden_size": 45}, num_experts=3))
    records = []
    for number in range(8):
        Image.new("RGB", (20, 25 + number), (30 * number, 90, 0)).save(root / f"{number}.png")
        turns = [("human", "<image>\nNe var?"), ("gpt", "Bir kare." + "!" * (number % 4))]
        turns = [{"from": who, "value": text} for who, text in turns]
        records.append({"id": str(number), "language": "tr", "image": f"{number}.png", "conversations": turns})
    (root / "train.json").write_text(json.dumps(records))
    launcher = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"]
    done = subprocess.run(
        [*launcher, SHARED / "zero_ranks.py", root / "start", root / "train.json", root],
        capture_output=True,
        text=True,
        env=os.environ | {"OMP_NUM_THREADS": "1"},
    )
    assert done.returncode == 0, done.stderr[-4000:]
    return root


def _tiny_checkpoint():
    """The module of the export's tests: ``--import-mode=importlib`` has no folder on the path but a test's own."""
    path = Path(__file__).parent / "export" / "tiny_checkpoint.py"
    specification = importlib.util.spec_from_file_location("tiny_checkpoint", path)
    module = importlib.util.module_from_spec(specification)
    specification.loader.exec_module(module)
    return module


@pytest.fixture(params=STAGES)
def checkpoint(request, trained, tmp_path):
    """A copy of the Trainer's ``checkpoint-2`` in which the weights are DeepSpeed's alone."""
    copy = shutil.copytree(trained / request.param / "checkpoints" / "checkpoint-2", tmp_path / "checkpoint-2")
    (copy / "model.safetensors").unlink(missing_ok=True)
    return copy


def _gathered(trained, stage):
    return load_file(trained / stage / "gathered" / "model.safetensors")


def _stage(checkpoint):
    return STAGES[any(checkpoint.glob("global_step2/zero_pp_rank_1_mp_rank_00_model_states.pt"))]


def test_every_number_is_the_optimisers_own(trained, checkpoint):
    expected = _gathered(trained, _stage(checkpoint))
    before = load_file(trained / "start" / "model.safetensors")
    found = read_zero_checkpoint(checkpoint)
    assert found.keys() == expected.keys()
    odd = 0
    for name, tensor in found.items():
        assert torch.equal(tensor.load().float(), expected[name]), name
        odd += tensor.size % 2
        if "vision_tower" not in name:
            assert not torch.equal(expected[name], before[name]), name  # it was trained
    assert odd > 10


def test_deepspeeds_own_script_reads_the_same(checkpoint, tmp_path):
    """``zero_to_fp32.py``, which the errors send people to; afterwards the folder is an ordinary checkpoint."""
    found = {name: tensor.load() for name, tensor in read_zero_checkpoint(checkpoint).items()}
    command = [sys.executable, checkpoint / "zero_to_fp32.py", checkpoint, checkpoint, "--safe_serialization"]
    subprocess.run(command, capture_output=True, check=True)
    assert not is_zero_checkpoint(checkpoint)
    theirs = load_file(checkpoint / "model.safetensors")
    assert theirs.keys() == found.keys()
    assert all(torch.equal(theirs[name].float(), tensor.float()) for name, tensor in found.items())


def test_reading_imports_no_deepspeed(checkpoint):
    script = """
import sys
from pathlib import Path
from parrot_train.zero import read_zero_checkpoint
print(len(read_zero_checkpoint(Path(sys.argv[1]))), "deepspeed" in sys.modules)
"""
    done = subprocess.run([sys.executable, "-c", script, checkpoint], capture_output=True, text=True, check=True)
    assert done.stdout.split() == ["85", "False"]


def _model(trained, stage):
    """The weights gathered in memory, in torch."""
    config = ParrotConfig.from_pretrained(trained / "start")
    model = ParrotForConditionalGeneration(config).eval()
    model.load_state_dict(_gathered(trained, stage), strict=True)
    return model


def test_exported_logits_are_those_of_the_weights_in_memory(trained, checkpoint, tmp_path):
    """1e-5 of the largest logit: the same float32 numbers summed in another order, over three layers; found 5e-6."""
    request = ExportRequest(
        checkpoint=checkpoint, output=tmp_path / "bundle", precision="fp32", target="cpu", verify=False
    )
    folder, manifest = export(request)
    result = verify(folder, manifest, _model(trained, _stage(checkpoint)), verification_samples())
    errors = [worst["relative"] for worst in result["graphs"]["chain"]["logits"].values()]
    assert len(errors) == 6
    assert max(errors) < 1e-5


def test_a_verified_export_loads_the_same_model_in_torch(trained, checkpoint, tmp_path):
    again, expected = load_checkpoint(checkpoint), _model(trained, _stage(checkpoint))
    for (name, one), other in zip(again.named_parameters(), expected.parameters(), strict=True):
        assert one.dtype == torch.float32
        assert torch.equal(one, other), name
    _, manifest = export(ExportRequest(checkpoint=checkpoint, output=tmp_path / "bundle", target="cpu", link=True))
    assert manifest.verification["status"] == "passed"


@pytest.mark.parametrize(
    ("place", "dtype"),
    [
        ("zero2/checkpoints/checkpoint-2", torch.bfloat16),
        ("zero2/saved", torch.bfloat16),
        ("zero3/saved", torch.float32),
    ],
)
def test_weights_that_the_trainer_saved_whole_come_first(trained, place, dtype, tmp_path):
    """They are what the model computed with: of the training in bfloat16, the optimiser's numbers rounded."""
    folder, stage = trained / place, place.split("/")[0]
    assert not is_zero_checkpoint(folder)
    expected = {name: tensor.to(dtype) for name, tensor in _gathered(trained, stage).items()}
    assert {tensor.dtype for tensor in load_file(folder / "model.safetensors").values()} == {dtype}
    loaded = dict(load_checkpoint(folder).named_parameters())
    assert loaded.keys() == expected.keys()
    assert all(torch.equal(loaded[name], tensor.float()) for name, tensor in expected.items())
    model = _model(trained, stage)
    model.load_state_dict(expected, strict=True)
    bundle, manifest = export(
        ExportRequest(checkpoint=folder, output=tmp_path / "bundle", precision="fp32", target="cpu", verify=False)
    )
    result = verify(bundle, manifest, model, verification_samples()[:2])
    assert max(worst["relative"] for worst in result["graphs"]["chain"]["logits"].values()) < 1e-5
