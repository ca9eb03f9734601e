"""The six languages of the paper, in the order its tables use."""

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

CODES: tuple[str, ...] = tuple(language.code for language in LANGUAGES)
BY_CODE: dict[str, Language] = {language.code: language for language in LANGUAGES}


def parse_languages(text: str | None, known: Sequence[str] = CODES) -> tuple[str, ...]:
    """``"tr, ar"`` → those codes of ``known``, in the project's order; None → all of them. Raises InputError."""
    if text is None:
        return tuple(known)
    wanted = [code for code in re.split(r"[,\s]+", text.lower()) if code]
    for code in wanted:
        if code not in known:
            raise InputError(f"--languages: '{code}' is none of {', '.join(known)}{nearest(code, known)}")
    if not wanted:
        raise InputError(f"--languages: no language given; expected some of {', '.join(known)}")
    return tuple(code for code in CODES if code in wanted)
