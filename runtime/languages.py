"""The six languages of the paper, in the order its tables use, and those that a model can be extended by."""

import re
from collections.abc import Sequence
from dataclasses import dataclass

from parrot_runtime.errors import InputError
from parrot_runtime.strict import nearest


@dataclass(frozen=True)
class Language:
    """One language: ISO 639-1 ``code``, English and own name, main Unicode ``script``, writing direction."""

    code: str
    english_name: str
    native_name: str
    script: str
    right_to_left: bool = False


LANGUAGES: tuple[Language, ...] = (
    Language("en", "English", "English", "Latin"),
    Language("zh", "Chinese", "中文", "Han"),
    Language("pt", "Portuguese", "Português", "Latin"),
    Language("ar", "Arabic", "العربية", "Arabic", right_to_left=True),
    Language("tr", "Turkish", "Türkçe", "Latin"),
    Language("ru", "Russian", "Русский", "Cyrillic"),
)

# Not the paper's: the nano world speaks them where a model is extended by them.
FURTHER: tuple[Language, ...] = (
    Language("es", "Spanish", "Español", "Latin"),
    Language("de", "German", "Deutsch", "Latin"),
)

CODES: tuple[str, ...] = tuple(language.code for language in LANGUAGES)
FURTHER_CODES: tuple[str, ...] = tuple(language.code for language in FURTHER)
BY_CODE: dict[str, Language] = {language.code: language for language in (*LANGUAGES, *FURTHER)}

_ISO_639_1 = """
aa ab ae af ak am an ar as av ay az ba be bg bi bm bn bo br bs ca ce ch co cr cs cu cv cy da de dv dz ee el en eo es
et eu fa ff fi fj fo fr fy ga gd gl gn gu gv ha he hi ho hr ht hu hy hz ia id ie ig ii ik io is it iu ja jv ka kg ki
kj kk kl km kn ko kr ks ku kv kw ky la lb lg li ln lo lt lu lv mg mh mi mk ml mn mr ms mt my na nb nd ne ng nl nn no
nr nv ny oc oj om or os pa pi pl ps pt qu rm rn ro ru rw sa sc sd se sg si sk sl sm sn so sq sr ss st su sv sw ta te
tg th ti tk tl tn to tr ts tt tw ty ug uk ur uz ve vi vo wa wo xh yi yo za zh zu
"""
ISO_639_1 = frozenset(_ISO_639_1.split())
"""All two-letter codes of ISO 639-1."""


def parse_languages(text: str | None, known: Sequence[str] = CODES, *, further: Sequence[str] = ()) -> tuple[str, ...]:
    """``"tr, ar"`` → those codes of ``known`` and ``further``, in that order; None → ``known``. Raises InputError."""
    if text is None:
        return tuple(known)
    known, wanted = (*known, *further), split_codes(text)
    for code in wanted:
        if code not in known:
            raise InputError(f"--languages: '{code}' is none of {', '.join(known)}{nearest(code, known)}")
    if not wanted:
        raise InputError(f"--languages: no language given; expected some of {', '.join(known)}")
    return tuple(code for code in known if code in wanted)


def split_codes(text: str) -> list[str]:
    """``"ES, de"`` → ``["es", "de"]``, whatever they are."""
    return [code for code in re.split(r"[,\s]+", text.lower()) if code]
