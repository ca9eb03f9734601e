"""Answers made comparable: one form for full-width letters, Turkish i, Arabic marks, ё, punctuation and spaces."""

import re
import unicodedata

# Harakat, Quranic marks and the tatweel: written or left out at will.
_ARABIC_MARKS = re.compile("[\u0610-\u061a\u064b-\u065f\u0670\u06d6-\u06ed\u0640]")
# Han and kana are written without spaces.
_SPACE_BY_HAN = re.compile("(?<=[\u3040-\u30ff\u3400-\u9fff]) +| +(?=[\u3040-\u30ff\u3400-\u9fff])")


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
    """What two equal open answers share: ``fold`` with punctuation as space, and spaces single (none beside Han)."""
    text = "".join(" " if unicodedata.category(c)[0] == "P" else c for c in fold(text))
    return _SPACE_BY_HAN.sub("", " ".join(text.split()))
