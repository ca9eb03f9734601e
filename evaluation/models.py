"""What can be asked: a bundle through the runtime, a checkpoint in torch, or the model of a server.

All of them answer greedily, and stream: they read questions as they have room, and give each answer as soon as it and
those before it are there. So what is journaled, and in which order, does not depend on how many are asked at once,
except where rounding does; such a model is asked one question at a time, and is another one in several slots.
"""

import hashlib
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import Literal

from parrot_evaluation.journal import REFUSED
from parrot_evaluation.runner import Question, Response
from parrot_runtime.errors import ImageError, InputError, ParrotError, TextError
from parrot_runtime.image import MAX_PIXELS
from parrot_runtime.manifest import MANIFEST_NAME
from parrot_runtime.parrot import Answer, Parrot

Kind = Literal["bundle", "checkpoint", "server"]
Note = Callable[[str], None]
Stream = Callable[[Iterable[Question]], Iterator[Response]]

CONFIG_NAME = "config.json"
_KINDS: dict[Kind, str] = {"bundle": "a bundle", "checkpoint": "a checkpoint", "server": "a server's model"}
# Questions answered together where nothing else is said. A server has more than one slot of its own, as a rule.
TOGETHER: dict[Kind, int] = {"bundle": 4, "checkpoint": 4, "server": 8}


@dataclass(frozen=True)
class Model:
    """``fingerprint`` changes with anything that is known to change an answer; ``close`` frees what it holds."""

    name: str
    fingerprint: str
    stream: Stream
    close: Callable[[], None] = lambda: None

    def ask(self, questions: Iterable[Question]) -> list[Response]:
        """The answers to ``questions``, all at once."""
        return list(self.stream(questions))


@dataclass(frozen=True)
class ModelOptions:
    """How a model is asked; each is the option of its name, and None where it was not given.

    ``slots``: questions answered together: slots of a bundle, rows of a checkpoint's batch, requests under way to a
    server. ``dtype`` ``float32`` or ``bf16`` and ``device`` of a checkpoint, and the folder of its vision encoder where
    it is not beside it. ``max_pixels`` of the largest picture that a bundle or a checkpoint reads. ``model_name`` is
    the server's name of its model, ``api_key_env`` the variable with the key; ``body`` is JSON that goes into every
    request. ``count_refused`` counts what a server will not answer, and what cannot be asked, as wrong. ``ray`` is the
    address of a cluster that a bundle or a checkpoint is run on, ``ray_cpus`` the CPUs of an actor.
    """

    slots: int | None = None
    dtype: str | None = None
    device: str | None = None
    vision_tower: Path | None = None
    max_pixels: int | None = None
    model_name: str | None = None
    api_key_env: str | None = None
    timeout: float | None = None
    retries: int | None = None
    requests_per_minute: float | None = None
    body: str | None = None
    count_refused: bool | None = None
    ray: str | None = None
    ray_cpus: int | None = None

    def together(self, kind: Kind) -> int:
        """Questions answered together."""
        return self.slots or TOGETHER[kind]

    @property
    def pixel_limit(self) -> int:
        """Pixels of the largest picture that is read."""
        return self.max_pixels or MAX_PIXELS

    def require_fit(self, kind: Kind, model: str) -> None:
        """Raise InputError for an option that says nothing of this ``kind`` of model."""
        for field in fields(self):
            if getattr(self, field.name) is not None and kind not in _FITS.get(field.name, (kind,)):
                option = f"--{field.name.replace('_', '-')}"
                for_what = " and ".join(_KINDS[each] for each in _FITS[field.name])
                raise InputError(f"{option} is for {for_what}, and {model} is {_KINDS[kind]}; leave it out")
        if self.ray_cpus is not None and self.ray is None:
            raise InputError("--ray-cpus says how large actors on Ray are; give --ray too, or leave it out")


_FITS: dict[str, tuple[Kind, ...]] = {
    **dict.fromkeys(("dtype", "device", "vision_tower"), ("checkpoint",)),
    **dict.fromkeys(("max_pixels", "ray", "ray_cpus"), ("bundle", "checkpoint")),
    **dict.fromkeys(
        ("model_name", "api_key_env", "timeout", "retries", "requests_per_minute", "body"),
        ("server",),
    ),
    "count_refused": ("bundle", "checkpoint", "server"),
}


def kind_of(model: str) -> Kind:
    """What ``model``, a folder or an address, is. Raises InputError where it is neither."""
    if model.startswith(("http://", "https://")):
        return "server"
    folder = Path(model)
    if (folder / MANIFEST_NAME).is_file():
        return "bundle"
    if (folder / CONFIG_NAME).is_file():
        return "checkpoint"
    if not folder.is_dir():
        raise InputError(
            f"{model}: there is no such bundle folder, nor a checkpoint's; give one, or the address of a server such "
            "as http://localhost:8000/v1"
        )
    raise InputError(
        f"{model}: neither a bundle ({MANIFEST_NAME}) nor a checkpoint ({CONFIG_NAME}); give the folder that holds one "
        "of these"
    )


def open_model(
    model: str,
    options: ModelOptions = ModelOptions(),
    *,
    max_new_tokens: int,
    threads: int | None = None,
    note: Note = lambda _line: None,
) -> Model:
    """The bundle or checkpoint in the folder ``model``, or the server's model at that address; ``threads`` of a bundle.

    Raises InputError (BundleError) for what cannot be opened, and for options that say nothing of such a model.
    """
    kind = kind_of(model)
    options.require_fit(kind, model)
    if options.ray is not None:
        from parrot_evaluation.ray_model import open_on_ray

        return open_on_ray(model, options, max_new_tokens=max_new_tokens, note=note)
    if kind == "server":
        from parrot_evaluation.server_model import open_server

        return open_server(model, options, max_new_tokens=max_new_tokens, note=note)
    if kind == "checkpoint":
        from parrot_evaluation.checkpoint_model import open_checkpoint_model

        opened = open_checkpoint_model(Path(model), options, max_new_tokens=max_new_tokens)
    else:
        opened = open_bundle(
            Path(model),
            max_new_tokens=max_new_tokens,
            slots=options.slots,
            max_pixels=options.pixel_limit,
            threads=threads,
            note=note,
        )
    return replace(opened, stream=refusals_counted(opened.stream)) if options.count_refused else opened


def open_bundle(
    folder: Path,
    *,
    max_new_tokens: int,
    slots: int | None = None,
    max_pixels: int = MAX_PIXELS,
    threads: int | None = None,
    note: Note = lambda _line: None,
) -> Model:
    """The bundle in ``folder``; ``threads`` and ``note`` as in ``Parrot.load``. Raises BundleError.

    Without ``slots`` it is four, but one where an answer can change with those decoded beside it
    (``rounds_rows_together``; 1 of 180 on nano in int8, four slots against one), which in several is another model.
    """
    parrot = Parrot.load(folder, note=note, threads=threads)
    exact = parrot.backend != "onnxruntime" or not parrot.manifest.rounds_rows_together
    slots = slots or (TOGETHER["bundle"] if exact else 1)

    def stream(questions: Iterable[Question]) -> Iterator[Response]:
        last: list[Question] = []

        def pairs() -> Iterator[tuple[object, str]]:
            for question in questions:
                last[:] = [question]
                yield parrot.picture(question.image, max_pixels=max_pixels, name=question.name), question.text

        try:
            for answer in parrot.answers(pairs(), slots=slots, max_new_tokens=max_new_tokens):
                yield _response(answer)
        except InputError as error:
            # Only a question that cannot be asked raises one, and it is the last that was read.
            if not last:
                raise
            raise named(error, last[0].name) from error

    known = beside_each_other(*identity(parrot, folder), 1 if exact else slots)
    return Model(*limited(*known, max_pixels), stream)


def identity(parrot: Parrot, folder: Path) -> tuple[str, str]:
    """Name and fingerprint of the bundle in ``folder``, loaded as ``parrot``."""
    # The manifest lists the hash of every file, and loading has checked them. Engines may answer otherwise than graphs.
    digest = hashlib.sha256((folder / MANIFEST_NAME).read_bytes() + parrot.backend.encode()).hexdigest()
    return f"{parrot.manifest.name} {parrot.manifest.precision}", digest


def beside_each_other(name: str, fingerprint: str, slots: int) -> tuple[str, str]:
    """Name and fingerprint of a model whose answers can change with those decoded beside them; alone they stay."""
    if slots == 1:
        return name, fingerprint
    return f"{name}, {slots} slots", hashlib.sha256(f"{fingerprint} {slots}".encode()).hexdigest()


def limited(name: str, fingerprint: str, max_pixels: int) -> tuple[str, str]:
    """Name and fingerprint of a model that reads pictures of up to ``max_pixels``; at the usual limit they stay."""
    if max_pixels == MAX_PIXELS:
        return name, fingerprint
    return (
        f"{name}, up to {max_pixels} pixels",
        hashlib.sha256(f"{fingerprint} {max_pixels} pixels".encode()).hexdigest(),
    )


def named(error: ParrotError, question: str) -> ParrotError:
    """``error`` again, saying at which question, that the answers before it are there, and how to go past it."""
    where = "" if question in str(error) else f"asking {question}: "
    return type(error)(
        f"{where}{error}; the answers before it are kept, and --count-refused counts such a question as wrong"
    )


def refusals_counted(stream: Stream) -> Stream:
    """``stream`` with a refusal for each question that has a picture or a text it cannot use, instead of an error."""

    def counted(questions: Iterable[Question]) -> Iterator[Response]:
        left, read = iter(questions), deque[Question]()

        def unanswered() -> Iterator[Question]:
            yield from list(read)
            for question in left:
                read.append(question)
                yield question

        while True:
            try:
                for response in stream(unanswered()):
                    read.popleft()
                    yield response
                return
            except (ImageError, TextError):
                # All questions before it have been answered, so it is the first of those that were read.
                read.popleft()
                yield Response("", REFUSED)

    return counted


def _response(answer: Answer) -> Response:
    routing = None if answer.routing is None else tuple(round(float(share), 6) for share in answer.routing[0])
    return Response(answer.text, answer.finish, routing)
