"""Answers made comparable: one form for full-width letters, Turkish i, Arabic marks, ё, punctuation and spaces."""

import re
import unicodedata

# Harakat, Quranic marks and the tatweel: written or left out at will.
_ARABIC_MARKS = re.compile("[\u0610-\u061a\u064b-\u065f\u0670\u06d6-\u06ed\u0640]")
# Han and kana are written without spaces, but one parts a minus from the word before it.
_SPACE_BY_HAN = re.compile("(?<=[\u3040-\u30ff\u3400-\u9fff]) +(?!-)| +(?=[\u3040-\u30ff\u3400-\u9fff])")
# A hyphen, or the minus of mathematics, that makes a number negative: not that of "3-5".
_MINUS = re.compile(r"(?<!\w)[-\u2212](?=\d)")


def printable(text: str) -> str:
    """``text`` as one line that any file can hold: what does not print, half a surrogate pair too, is U+FFFD."""
    return "".join(c if c.isprintable() else "\ufffd" for c in text)


def clean(text: str) -> str:
    """``text`` in NFKC (``Ａ`` → ``A``, ``：`` → ``:``) without invisible characters, trimmed; line breaks stay."""
    text = unicodedata.normalize("NFKC", text)
    text = "".join(c for c in text if unicodedata.category(c) not in ("Cf", "Cc", "Co", "Cs") or c in "\n\t")
    return _ARABIC_MARKS.sub("", text).strip()


def fold(text: str) -> str:
    """``clean`` text without case: every Turkish i and I, and ё and е, are one letter each."""
    text = unicodedata.normalize("NFC", clean(text).casefold().replace("i\u0307", "i"))
    return text.replace("ı", "i").replace("ё", "е")


def normalise(text: str) -> str:
    """What two equal open answers share: ``fold`` with punctuation as space but for a number's minus, and spaces single
    (none beside Han)."""
    text = _MINUS.sub("\u2212", fold(text))
    text = "".join(" " if unicodedata.category(c)[0] == "P" else c for c in text)
    return _SPACE_BY_HAN.sub("", " ".join(_MINUS.sub("-", text).split()))


def equal(response: str, reference: str) -> bool:
    """Whether an open answer is the reference: by what ``normalise`` leaves, or as they stand where that is nothing of
    the reference (``?``). An answer of nothing never is."""
    if not clean(response):
        return False
    if not normalise(reference):
        return clean(response).casefold() == clean(reference).casefold()
    return normalise(response) == normalise(reference)
