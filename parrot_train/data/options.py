"""Questions that offer lettered options, and the letter that answers one, as MMBench and LLaVA write them."""

import re
from string import ascii_uppercase

_OFFERED = re.compile(r"^[ \t]*\(?([A-Z])[.):：、．][ \t]*\S", re.MULTILINE)
_CHOSEN = re.compile(r"([A-Z])(?:[.):：、．]|$)")


def offered_letters(question: str) -> str:
    """The letters that ``question`` offers, each at the head of a line: ``ABCD``; empty unless they run from A on."""
    letters = "".join(_OFFERED.findall(question))
    return letters if len(letters) > 1 and ascii_uppercase.startswith(letters) else ""


def chosen_letter(answer: str) -> str | None:
    """The letter that ``answer`` begins with, alone or as the head of its option; None for an answer in words."""
    match = _CHOSEN.match(answer)
    return match[1] if match else None
