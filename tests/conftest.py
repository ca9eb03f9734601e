"""What holds for every test: nothing is written outside of pytest's own folders."""

import pytest


@pytest.fixture(scope="session", autouse=True)
def own_state(tmp_path_factory):
    """What a machine remembers of its engines, in a folder of this run; commands that tests start find it too."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("XDG_STATE_HOME", str(tmp_path_factory.mktemp("state")))
        yield
