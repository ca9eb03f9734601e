"""What a translation must leave alone: image marks, links, code, coordinates, tags and option letters.

Where such a thing begins or ends a text it is taken off and never sent. Within a text a mark ``⟦0⟧`` stands for it, and
a translation that does not bring every mark back exactly once, or has other lines than its source, is refused.
"""

import re
import unicodedata
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass

from parrot_runtime.prompt import IMAGE_PLACEHOLDER

_OPEN, _CLOSE = "⟦", "⟧"
_MARK = re.compile(f"{_OPEN}([0-9]+){_CLOSE}")
# Each protects its group "kept", or all of the match where it has none.
_PATTERNS = tuple(
    re.compile(pattern)
    for pattern in (
        r"```.*?```|`[^`\n]+`",
        r"</?[A-Za-z][^<>\n]*>",
        r"(?:https?://|www\.)[!#-;=?-~]*[#-&*+/-9=@-Z\\_a-z~-]",
        r"[\w.+-]+@[\w-]+\.[\w.-]*\w",
        r"\[\s*-?\d+(?:\.\d+)?(?:\s*,\s*-?\d+(?:\.\d+)?)+\s*\]",
        # An option at the beginning of a line, "(B)" anywhere, "the answer is B", and a text that is nothing else.
        r"(?m:^)[ \t]*\(?[A-H][.):](?=[ \t])",
        r"\([A-H]\)",
        r"(?i:\b(?:option|choice|answer(?:\s+is)?)):?\s+(?P<kept>[A-H])\b(?!['’]|\s+[a-z])",
        r"\A\s*\(?[A-H][.):]?\s*\Z",
        # What looks like a mark of ours already.
        f"{_OPEN}[^{_CLOSE}]*{_CLOSE}|[{_OPEN}{_CLOSE}]",
    )
)
_CODE = re.compile(r"```.*?```", re.DOTALL)
_NUMBER = re.compile(r"\d+")


class GarbledError(Exception):
    """A reply that cannot be used; the message tells the model why."""


@dataclass(frozen=True)
class Protected:
    """A text in which ``core`` is what gets translated; ``kept[n]`` is what the mark ``⟦n⟧`` in it stands for."""

    before: str
    core: str
    after: str
    kept: tuple[str, ...]

    @property
    def has_words(self) -> bool:
        """Whether there is anything to translate."""
        return any(character.isalpha() for character in _MARK.sub("", self.core))

    def restore(self, translation: str) -> str:
        """The whole text with ``translation`` in the place of ``core``. Raises GarbledError."""
        translation = translation.strip()
        if not translation:
            raise GarbledError("a text is empty")
        found = Counter(_MARK.findall(translation))
        for number in range(len(self.kept)):
            if found.pop(str(number), 0) != 1:
                raise GarbledError(f"the mark {_OPEN}{number}{_CLOSE} does not stand exactly once in its text")
        if found or any(bracket in _MARK.sub("", translation) for bracket in (_OPEN, _CLOSE)):
            raise GarbledError(f"a text has a mark {_OPEN}…{_CLOSE} that its source has not")
        if IMAGE_PLACEHOLDER in translation:
            raise GarbledError(f"a text has {IMAGE_PLACEHOLDER}, which its source has not")
        if translation.count("\n") != self.core.count("\n"):
            lines, expected = translation.count("\n") + 1, self.core.count("\n") + 1
            raise GarbledError(f"a text has {lines} lines where its source has {expected}")
        whole = _MARK.sub(lambda match: self.kept[int(match[1])], translation)
        return self.before + whole + self.after


def protect(text: str) -> Protected:
    """Take out of ``text`` what must not be translated."""
    spans = _merged(sorted(_spans(text)))
    start, end = _edges(text, spans)
    core, kept, at = [], [], start
    for first, last in spans:
        if start <= first and last <= end:
            core += [text[at:first], f"{_OPEN}{len(kept)}{_CLOSE}"]
            kept.append(text[first:last])
            at = last
    core.append(text[at:end])
    return Protected(text[:start], "".join(core), text[end:], tuple(kept))


def kept_parts(text: str) -> list[str]:
    """Everything in ``text`` that must not be translated, in order."""
    return [text[first:last].strip() for first, last in _merged(sorted(_spans(text)))]


def numbers(text: str) -> Counter:
    """The digits in ``text``, of any script, so that 1,000 and 1.000 and ١٠٠٠ count alike."""
    digits = (_plain(run) for run in _NUMBER.findall(re.sub(r"(?<=\d)[.,٬٫ \u00a0\u202f](?=\d)", "", text)))
    return Counter(digits)


def _plain(run: str) -> str:
    """Digits of any script as ASCII, however many: int() reads 4,300 at most."""
    return "".join(str(unicodedata.digit(digit)) for digit in run).lstrip("0") or "0"


def _spans(text: str) -> Iterator[tuple[int, int]]:
    yield from (match.span() for match in _CODE.finditer(text))
    for pattern in _PATTERNS:
        group = "kept" if "kept" in pattern.groupindex else 0
        yield from (match.span(group) for match in pattern.finditer(text))


def _merged(spans: list[tuple[int, int]]) -> list[tuple[int, int]]:
    merged: list[tuple[int, int]] = []
    for first, last in spans:
        if merged and first < merged[-1][1]:
            merged[-1] = merged[-1][0], max(last, merged[-1][1])
        else:
            merged.append((first, last))
    return merged


def _edges(text: str, spans: list[tuple[int, int]]) -> tuple[int, int]:
    """Where what is to translate begins and ends: white space and protected things at both ends are left off."""
    starts, ends = dict(spans), {last: first for first, last in spans}
    start, end = 0, len(text)
    while start < end and (start in starts or text[start].isspace()):
        start = starts.get(start, start + 1)
    while start < end and (end in ends or text[end - 1].isspace()):
        end = ends.get(end, end - 1)
    return start, max(start, end)
