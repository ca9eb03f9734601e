"""Parrot's runtime: a bundle answers questions about pictures. No torch, no transformers.

    from parrot_runtime import Parrot

    parrot = Parrot.load("bundles/nano-fp16")
    print(parrot.ask("photo.jpg", "Görselde ne var?").text)

Importing this package is cheap: what it exports is imported when it is first used.
"""

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from parrot_runtime.answer import Answer
    from parrot_runtime.parrot import Parrot
    from parrot_runtime.sampling import Sampling

__all__ = ["Answer", "Parrot", "Sampling", "__version__"]

_HOMES = {
    "Answer": "parrot_runtime.answer",
    "Parrot": "parrot_runtime.parrot",
    "Sampling": "parrot_runtime.sampling",
}


def __getattr__(name: str) -> Any:
    if name == "__version__":
        from importlib.metadata import version

        return version("parrot-edge")
    if name in _HOMES:
        from importlib import import_module

        return getattr(import_module(_HOMES[name]), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
