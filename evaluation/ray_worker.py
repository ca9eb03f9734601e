"""What runs on a node of a Ray cluster: it opens the model it is asked for, and answers.

Nothing here imports ray, which makes actors of :class:`Worker`.
"""

import hashlib
import platform
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from parrot_evaluation.models import CONFIG_NAME, Model, ModelOptions, kind_of, open_model
from parrot_evaluation.runner import Question, Response
from parrot_runtime.errors import InputError, ParrotError
from parrot_runtime.manifest import MANIFEST_NAME

_PACKAGES = ("parrot-edge", "onnxruntime", "onnxruntime-gpu", "torch", "tensorrt", "tensorrt-rtx")


@dataclass(frozen=True)
class Request:
    """What an actor opens. ``digest`` is of what describes the model, as the driver sees it; ``threads`` of a bundle's
    graphs."""

    model: str
    options: ModelOptions
    max_new_tokens: int
    digest: str
    threads: int | None


class Worker:
    """What an actor does. It returns errors of ours instead of raising them: Ray would wrap them in traces."""

    def __init__(self) -> None:
        self._model: Model | None = None

    def open(self, request: Request) -> dict[str, Any]:
        """Open the model: ``name``, ``fingerprint`` and ``versions``, or ``error``; and the ``node``."""
        found: dict[str, Any] = {"node": platform.node()}
        try:
            if not Path(request.model).is_dir():
                raise InputError(
                    f"{request.model} is not there; put it at the same path on every node, on a shared file system or "
                    "copied"
                )
            if digest_of(request.model) != request.digest:
                raise InputError(f"{request.model} is another one there; copy it again to every node")
            self._model = open_model(
                request.model, request.options, max_new_tokens=request.max_new_tokens, threads=request.threads
            )
        except ParrotError as error:
            return found | {"error": str(error)}
        return found | {
            "name": self._model.name,
            "fingerprint": self._model.fingerprint,
            "versions": {name: known for name in _PACKAGES if (known := _version(name))},
        }

    def answer(self, questions: list[Question]) -> tuple[list[Response], ParrotError | None]:
        """The answers to ``questions``, and the error of the first that cannot be asked, which ends them."""
        responses: list[Response] = []
        try:
            responses.extend(self._model.stream(questions))
        except ParrotError as error:
            # The class travels by its name and the message as text; what caused it stays here.
            return responses, type(error)(str(error))
        return responses, None


def digest_of(folder: str) -> str:
    """Of the manifest, which holds the hash of every file; of a checkpoint's configuration, whose weights are compared
    by fingerprint once they are read."""
    kind = kind_of(folder)
    return hashlib.sha256(
        (Path(folder) / (MANIFEST_NAME if kind == "bundle" else CONFIG_NAME)).read_bytes()
    ).hexdigest()


def _version(package: str) -> str | None:
    try:
        return version(package)
    except PackageNotFoundError:
        return None
