"""HTML elements that escape all text they are given: what is to stand as it is must say so."""

import html
from collections.abc import Iterable, Sequence

# HTML allows no control characters but these; the others become the replacement character, as browsers do with NUL.
_CONTROLS = {code: "\ufffd" for code in [*range(0x20), *range(0x7F, 0xA0)] if chr(code) not in "\t\n"}
_EMPTY = frozenset({"img", "meta", "br"})

Attribute = str | int | bool | None


class Markup(str):
    """Text that is HTML already."""


def escape(text: str) -> Markup:
    """``text`` as it is to be read, whatever it holds; half a surrogate pair is shown as its number."""
    safe = text.encode("utf-8", "backslashreplace").decode("utf-8").translate(_CONTROLS)
    return Markup(html.escape(safe, quote=True))


def isolated(text: str) -> str:
    """``text`` between U+2068 and U+2069, as ``<bdi>`` does where no element can stand: its direction is its own."""
    return f"\u2068{text}\u2069"


def element(name: str, /, *children: str | Iterable[str], **attributes: Attribute) -> Markup:
    """``<name …>children</name>``. Children are escaped unless they are Markup.

    Attributes: ``class_`` is ``class``, ``data_x`` is ``data-x``; True stands alone, None and False are left out.
    """
    written = "".join(
        f" {key.rstrip('_').replace('_', '-')}" + ("" if value is True else f'="{escape(str(value))}"')
        for key, value in attributes.items()
        if value is not None and value is not False
    )
    if name in _EMPTY:
        return Markup(f"<{name}{written}>")
    return Markup(f"<{name}{written}>{join(children)}</{name}>")


def join(children: Iterable[str | Iterable[str]]) -> Markup:
    """All children one after the other."""
    return Markup(
        "".join(
            child if isinstance(child, Markup) else escape(child) if isinstance(child, str) else join(child)
            for child in children
        )
    )


def apart(texts: Sequence[str], mark: str) -> list[str]:
    """``texts`` with ``mark`` between them, each by itself: Arabic ones side by side would else change places."""
    parts = [part for text in texts for part in (mark, element("bdi", text))]
    return parts[1:]
