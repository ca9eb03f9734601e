"""A bundle or a checkpoint on the devices of a Ray cluster: an actor per GPU or, without any, per so many CPUs.

Actors answer chunks of questions; the driver alone keeps what is answered, in the questions' order. An actor that dies
is replaced and its chunk is asked again by whoever is free, so nothing is lost and nothing is kept twice. The model's
folder must be at the same path on every node, on a shared file system or copied: every actor compares what it finds
there, and what it runs it with, with the others, and answers nothing where they differ.

The one place of the room that imports ray.
"""

import hashlib
import logging
import platform
import re
import socket
import time
from collections import deque
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from importlib.metadata import PackageNotFoundError, version
from itertools import islice
from pathlib import Path
from typing import Any

from parrot_evaluation.models import CONFIG_NAME, Model, ModelOptions, Note, kind_of, open_model
from parrot_evaluation.runner import Question, Response
from parrot_runtime.errors import InputError, ParrotError
from parrot_runtime.manifest import MANIFEST_NAME

# CPUs of an actor where there is no GPU and nothing else is said.
CPUS = 2
# Times a chunk is asked, or an actor in a row started, before the run ends.
_TRIES = 3
# Chunks that may wait for one before them, for each actor.
_AHEAD = 8
# Seconds that others get to open the model once the first has; those that come later join in.
_GRACE = 60.0
# Seconds in which no actor gets a device until that is said, and until the run ends.
_SAID, _PATIENCE = 30.0, 600.0
_PLACE = re.compile(r"(?:ray://)?(.+):(\d+)")
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
            if _digest(request.model) != request.digest:
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


def open_on_ray(model: str, options: ModelOptions, *, max_new_tokens: int, note: Note = lambda _line: None) -> Model:
    """The model in the folder ``model`` on the cluster at ``options.ray``.

    Raises InputError where ray is not installed, there is no such cluster or no room in it, or the nodes do not all
    have the same model; ParrotError where all its devices stay in use.
    """
    try:
        import ray
    except ImportError as error:
        raise InputError("ray is not installed; run `pip install 'parrot-edge[ray]'` on every node") from error
    folder = str(Path(model).resolve())
    digest = _digest(folder)
    ours = not ray.is_initialized()
    if ours:
        _connect(options.ray)
    try:
        count, resources, where = _devices(ray, options.ray_cpus)
        request = Request(
            folder,
            _for_actors(options),
            max_new_tokens,
            digest,
            None if "num_gpus" in resources else int(resources["num_cpus"]),
        )
        pool = _Pool(ray, request, count, resources, note)
        pool.start()
    except BaseException:
        if ours:
            ray.shutdown()
        raise
    note(f"{count} {'actor' if count == 1 else 'actors'} on Ray, {where}")

    def close() -> None:
        pool.close()
        if ours:
            ray.shutdown()

    return Model(pool.identity["name"], pool.identity["fingerprint"], pool.stream, close)


def _for_actors(options: ModelOptions) -> ModelOptions:
    """``options`` as an actor takes them: it has another working folder. A hub name is no folder and stays one."""
    tower = options.vision_tower
    if tower is not None and (tower / CONFIG_NAME).is_file():
        tower = tower.resolve()
    return replace(options, ray=None, ray_cpus=None, vision_tower=tower)


def _connect(address: str) -> None:
    import ray

    try:
        # Ray ends the whole process where nothing listens at an address, so that is found out before.
        if place := _PLACE.fullmatch(address):
            socket.create_connection((place[1].strip("[]"), int(place[2])), timeout=10).close()
        ray.init(address=address, log_to_driver=False, logging_level=logging.ERROR)
    except (OSError, OverflowError, RuntimeError, ValueError) as error:
        reason = " ".join(str(error).split())[:200]
        raise InputError(
            f"--ray {address}: no cluster answers there ({reason}); start one with `ray start --head`, or give 'local'"
        ) from error


def _devices(ray: Any, cpus: int | None) -> tuple[int, dict[str, float], str]:
    """How many actors there is room for, what each takes, and that in words. Raises InputError where there is none."""
    nodes = [node["Resources"] for node in ray.nodes() if node["Alive"]]
    gpus = int(sum(node.get("GPU", 0) for node in nodes))
    if gpus and cpus is None:
        return gpus, {"num_gpus": 1, "num_cpus": 1}, "one per GPU"
    each = cpus or CPUS
    room = sum(int(node.get("CPU", 0) // each) for node in nodes)
    if not room:
        most = int(max((node.get("CPU", 0) for node in nodes), default=0))
        raise InputError(
            f"no node of the Ray cluster has {each} CPUs, the most are {most}; give --ray-cpus {most or 1}"
        )
    return room, {"num_cpus": each}, f"one per {each} CPUs"


def _digest(folder: str) -> str:
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


@dataclass
class _Chunk:
    number: int
    questions: list[Question]
    tries: int = 0


class _Pool:
    """The actors, those that are idle, and what the others are at."""

    def __init__(self, ray: Any, request: Request, count: int, resources: dict[str, float], note: Note) -> None:
        self._ray, self._request, self._count, self._note = ray, request, count, note
        self._make = ray.remote(Worker).options(**resources)
        self._actors: list[Any] = []
        self._idle: list[Any] = []
        self._begun: list[Any] = []
        self._opening: dict[Any, Any] = {}
        self._running: dict[Any, tuple[Any, _Chunk]] = {}
        self._lost_in_a_row = 0
        self.identity: dict[str, Any] = {}

    def start(self) -> None:
        """Start all actors, and wait for the first that is ready and a while for the others.

        Raises ParrotError where none gets a device; opening the model takes as long as it takes.
        """
        for _ in range(self._count):
            self._begin()
        if not self._any_begun(_SAID):
            self._note("no actor runs on the Ray cluster yet, its devices may be in use; waiting for one")
            if not self._any_begun(_PATIENCE - _SAID):
                self.close()  # or one that still waits takes a device for nothing
                raise ParrotError(
                    f"no actor could start on the Ray cluster within {_PATIENCE:g} s; see with `ray status` what is in "
                    "use, and run the same command again once a device is free"
                )
        deadline = None
        while self._opening and (deadline is None or time.monotonic() < deadline):
            self._take_in(1.0)
            if self._idle and deadline is None:
                deadline = time.monotonic() + _GRACE

    def _any_begun(self, seconds: float) -> bool:
        """Whether within ``seconds`` an actor runs, or died of it, which `_take_in` tells."""
        return bool(self._ray.wait(self._begun, num_returns=1, timeout=seconds)[0])

    def close(self) -> None:
        """End all actors."""
        for actor in self._actors:
            self._ray.kill(actor)
        self._actors.clear()

    def stream(self, questions: Iterable[Question]) -> Iterator[Response]:
        """As Streaming.stream."""
        size = 4 * self._request.options.together(kind_of(self._request.model))
        left, read = iter(questions), 0
        again: deque[_Chunk] = deque()
        answered: dict[int, tuple[list[Response], ParrotError | None]] = {}
        wanted = 0
        while True:
            while self._idle:
                chunk = again.popleft() if again else None
                if chunk is None and read - wanted < _AHEAD * self._count and (batch := list(islice(left, size))):
                    chunk, read = _Chunk(read, batch), read + 1
                if chunk is None:
                    break
                actor = self._idle.pop(0)
                self._running[actor.answer.remote(chunk.questions)] = actor, chunk
            if wanted == read:
                return
            for chunk, result in self._take_in(10.0):
                if result is None:
                    again.append(self._asked_again(chunk))
                else:
                    answered[chunk.number] = result
            while wanted in answered:
                responses, error = answered.pop(wanted)
                wanted += 1
                yield from responses
                if error is not None:
                    raise error

    def _asked_again(self, chunk: _Chunk) -> _Chunk:
        chunk.tries += 1
        if chunk.tries == _TRIES:
            raise ParrotError(
                f"{_TRIES} actors died while answering {chunk.questions[0].name} to {chunk.questions[-1].name}; see "
                "Ray's logs for why (memory?); the answers before these are kept, run the same command again to go on"
            )
        return chunk

    def _begin(self) -> None:
        actor = self._make.remote()
        self._actors.append(actor)
        self._begun.append(actor.__ray_ready__.remote())
        self._opening[actor.open.remote(self._request)] = actor

    def _take_in(self, seconds: float) -> list[tuple[_Chunk, tuple[list[Response], ParrotError | None] | None]]:
        """Wait for something to happen; the chunks that came back, with None where their actor died."""
        done, _ = self._ray.wait([*self._running, *self._opening], num_returns=1, timeout=seconds)
        back = []
        for reference in done:
            actor, chunk = self._running.pop(reference, (None, None))
            opened = self._opening.pop(reference) if chunk is None else None
            try:
                result = self._ray.get(reference)
            except self._ray.exceptions.RayActorError as error:
                self._replace(opened or actor, error)
                if chunk is not None:
                    back.append((chunk, None))
                continue
            if chunk is None:
                self._check(result)
                self._idle.append(opened)
            else:
                self._lost_in_a_row = 0
                self._idle.append(actor)
                back.append((chunk, result))
        return back

    def _replace(self, actor: Any, error: Exception) -> None:
        self._actors.remove(actor)
        self._lost_in_a_row += 1
        reason = next((line for line in reversed(str(error).splitlines()) if line.strip()), type(error).__name__)
        if self._lost_in_a_row > _TRIES * self._count:
            raise ParrotError(
                f"{self._lost_in_a_row} actors died in a row ({reason.strip()}); is parrot-edge installed on every "
                "node? What was answered is kept, run the same command again to go on"
            ) from error
        self._note("an actor on Ray died; another takes its place, and its questions are asked again")
        self._begin()

    def _check(self, found: dict[str, Any]) -> None:
        """Raise InputError unless ``found`` is what the actors before it opened."""
        if "error" in found:
            raise InputError(f"node {found['node']}: {found['error']}")
        if not self.identity:
            self.identity = found
        for what in ("fingerprint", "versions"):
            one, other = self.identity[what], found[what]
            if one != other:
                told = "the model, or what runs it," if what == "fingerprint" else "what is installed"
                raise InputError(
                    f"{told} differs between the nodes: {one} on {self.identity['node']}, {other} on {found['node']}; "
                    "make them alike, so that every answer is that of one model"
                )
