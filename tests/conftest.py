"""What holds for every test: nothing is written outside of pytest's own folders."""

import os
import sys
from pathlib import Path

import hypothesis
import pytest

# The tests are imported one by one (importmode=importlib): what several rooms' tests share is found here.
sys.path.insert(0, str(Path(__file__).parent / "shared"))
# A machine that is busy for a moment is no failure; the example that took long is.
hypothesis.settings.register_profile("parrot", deadline=None)
hypothesis.settings.load_profile("parrot")
# Some of them import onnxruntime themselves, without the runtime, which says this too.
os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")


@pytest.fixture(scope="session", autouse=True)
def own_state(tmp_path_factory):
    """What a machine remembers of its engines, in a folder of this run; commands that tests start find it too."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("XDG_STATE_HOME", str(tmp_path_factory.mktemp("state")))
        yield


@pytest.fixture(scope="session")
def nano_questions(tmp_path_factory) -> Path:
    """Nano's held-out questions, as VLMEvalKit's tables."""
    from parrot_train.nano.write import ensure_evaluation

    folder = tmp_path_factory.mktemp("questions") / "nano"
    ensure_evaluation(folder)
    return folder
