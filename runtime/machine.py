"""What this machine remembers between runs: which engines were built here, and what TensorRT-RTX compiled from them.

Both are about code that will run, so neither lies in a bundle, which anybody may have made. Forgetting them costs a
rebuild or a slower start, never an answer.
"""

import hashlib
import os
import sys
from pathlib import Path

from parrot_runtime.publish import write_file


def state_folder() -> Path:
    """``parrot`` in the user's folder for state: ``XDG_STATE_HOME``, or what the system has in its place.

    Raises OSError for a user without a home, as services and containers have.
    """
    try:
        if sys.platform == "win32":
            base = os.environ.get("LOCALAPPDATA", "")
            return (Path(base) if base else Path.home() / "AppData" / "Local") / "parrot"
        base = os.environ.get("XDG_STATE_HOME", "")
        # The specification: a path that is not absolute is to be ignored.
        return (Path(base) if os.path.isabs(base) else Path.home() / ".local" / "state") / "parrot"
    except RuntimeError as error:
        raise FileNotFoundError(f"{error}; set XDG_STATE_HOME to a folder") from error


def remember_build(record: Path) -> None:
    """Engines with the record ``build.json`` at ``record`` were built here. Raises OSError."""
    marker = _marker(record)
    marker.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
    marker.touch(mode=0o600)


def built_here(record: Path) -> bool:
    """Whether ``remember_build`` was told of a record with these very bytes; it lists the hash of every engine."""
    try:
        return _marker(record).is_file()
    except OSError:
        return False


def load_compiled(engine_sha256: str) -> bytes:
    """What TensorRT-RTX compiled from an engine before; empty where nothing is kept."""
    try:
        return _compiled(engine_sha256).read_bytes()
    except OSError:
        return b""


def keep_compiled(engine_sha256: str, data: bytes) -> None:
    """Keep it for the next start. Raises OSError."""
    path = _compiled(engine_sha256)
    path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
    write_file(path, data)


def _marker(record: Path) -> Path:
    return state_folder() / "built" / hashlib.sha256(record.read_bytes()).hexdigest()


def _compiled(engine_sha256: str) -> Path:
    return state_folder() / "compiled" / engine_sha256
