"""Fixtures of the exporter's tests: tiny checkpoints of every form, their graphs in sessions, and whole bundles."""

import sys
from pathlib import Path

import pytest

# The tests are imported one by one (importmode=importlib): their shared module is found beside them.
sys.path.insert(0, str(Path(__file__).parent))

from tiny_checkpoint import Exported, tiny_model, write_checkpoint

from parrot_export.bundle import export
from parrot_export.request import ExportRequest

# Both kinds of experts, both residuals, tied and untied embeddings, and no experts at all.
FORMS = {
    "paper": {"expert_kind": "mlp", "residual": "paper", "alpha": 0.7, "num_experts": 5},
    "released": {"expert_kind": "swiglu", "residual": "released", "alpha": 0.3, "tie_word_embeddings": True},
    "llava": {"num_experts": 0},
}


@pytest.fixture(autouse=True)
def no_tensorrt(monkeypatch):
    """An export without a target is for the cpu alone, as where no TensorRT is installed: engines take their time."""
    monkeypatch.setattr("parrot_export.choice.installed", lambda: ())


@pytest.fixture(scope="session")
def exported(tmp_path_factory):
    """``exported(form, precision)``: the model in torch, its checkpoint, and its graphs in onnxruntime sessions."""
    made: dict[tuple[str, str], Exported] = {}
    models = {form: tiny_model(**settings) for form, settings in FORMS.items()}

    def make(form: str, precision: str = "fp32") -> Exported:
        if (form, precision) not in made:
            folder = tmp_path_factory.mktemp(f"{form}-{precision}")
            made[form, precision] = Exported(models[form], folder, precision)
        return made[form, precision]

    return make


@pytest.fixture(scope="session")
def model():
    return tiny_model(**FORMS["paper"])


@pytest.fixture(scope="session")
def checkpoint(model, tmp_path_factory):
    """The paper's form on disk; read-only, tests that break something copy it first."""
    return write_checkpoint(tmp_path_factory.mktemp("checkpoints") / "tiny", model)


@pytest.fixture(scope="session")
def bundle(checkpoint, tmp_path_factory):
    """The verified fp32 bundle of ``checkpoint``; read-only."""
    folder = tmp_path_factory.mktemp("bundles") / "tiny-fp32"
    export(ExportRequest(checkpoint=checkpoint, output=folder, precision="fp32", target="cpu"))
    return folder
