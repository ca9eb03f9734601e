"""A bundle as a model of lmms-eval (``lmms``, entry-point group ``lmms_eval.models``).

    lmms-eval --model parrot --model_args bundle=bundles/mine --tasks mmbench_en_dev --batch_size 4

lmms-eval finds ``manifest`` through the entry point of the installed package, and asks for the class ``Parrot`` when it
is named; the kit is imported then, and not before.
"""

from collections.abc import Sequence
from functools import cache
from typing import TYPE_CHECKING, Any

from parrot_runtime.errors import InputError

if TYPE_CHECKING:
    from PIL import Image

MAX_NEW_TOKENS = 512


def manifest() -> Any:
    """What lmms-eval registers."""
    from lmms_eval.models.registry_v2 import ModelManifest

    return ModelManifest(model_id="parrot", simple_class_path=f"{__name__}.Parrot")


def __getattr__(name: str) -> Any:
    if name != "Parrot":
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return model_class()


@cache
def model_class() -> type:
    """The kit's ``lmms`` with Parrot in it. Raises InputError where the kit is not installed."""
    try:
        from lmms_eval.api.model import lmms
    except ImportError as error:
        raise InputError(
            f"lmms-eval cannot be imported here ({error}); install it as its own documentation says"
        ) from error

    class Parrot(lmms):
        """``bundle`` is a folder (None takes the one parrot-run takes); ``threads`` and ``options`` as in
        ``Parrot.load``; ``batch_size`` is how many questions are answered together."""

        is_simple = True

        def __init__(
            self,
            bundle: str | None = None,
            *,
            batch_size: int | str = 4,
            max_batch_size: int | None = None,
            device: str | None = None,
            threads: int | str | None = None,
            **options: Any,
        ) -> None:
            from parrot_runtime.parrot import Parrot as Runtime

            super().__init__()
            if device is not None:
                raise InputError(f"--device {device}: a bundle says itself what runs it; leave it out")
            if max_batch_size is not None or not str(batch_size).isdigit():
                raise InputError(f"--batch_size {batch_size}: expected a number, and no --max_batch_size")
            threads = None if threads is None else int(threads)
            self._parrot, self._slots = Runtime.load(bundle, threads=threads, **options), int(batch_size)

        @property
        def batch_size(self) -> int:
            return self._slots

        def generate_until(self, requests: Sequence[Any]) -> list[str]:
            """Greedy answers, cut before the first of the task's stopping sequences."""
            answers: list[str | None] = [None] * len(requests)
            # A task has one limit as a rule; the runtime takes one for all that it answers together.
            for limit in sorted({_limit(request.args[1]) for request in requests}):
                numbers = [n for n, request in enumerate(requests) if _limit(request.args[1]) == limit]
                asked = (self._asked(requests[number].args) for number in numbers)
                found = self._parrot.answers(asked, slots=self._slots, max_new_tokens=limit)
                for number, answer in zip(numbers, found, strict=True):
                    context, settings = requests[number].args[:2]
                    answers[number] = _cut(answer.text, settings.get("until"))
                    self.cache_hook.add_partial("generate_until", (context, settings), answers[number])
            return answers

        def _asked(self, arguments: tuple[Any, ...]) -> tuple[list["Image.Image"], str]:
            context, _, doc_to_visual, number, task, split = arguments
            pictures = list(doc_to_visual(self.task_dict[task][split][number]) or [])
            for picture in pictures:
                if not hasattr(picture, "convert"):
                    raise InputError(
                        f"{task}: a question has a {type(picture).__name__}; Parrot reads pictures and text"
                    )
            # The model puts every picture before the text itself.
            return pictures, context.replace("<image>", "").strip()

        def loglikelihood(self, requests: Sequence[Any]) -> list[tuple[float, bool]]:
            raise NotImplementedError("a bundle gives no likelihoods of whole texts; take a task that generates")

        def generate_until_multi_round(self, requests: Sequence[Any]) -> list[str]:
            raise NotImplementedError("this adapter asks one question at a time; take a task of one round")

    return Parrot


def _limit(settings: dict[str, Any]) -> int:
    return int(settings.get("max_new_tokens") or MAX_NEW_TOKENS)


def _cut(text: str, until: str | Sequence[str] | None) -> str:
    for stop in [until] if isinstance(until, str) else until or ():
        text = text.split(stop)[0] if stop else text
    return text
