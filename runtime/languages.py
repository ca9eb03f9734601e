"""The six languages of the paper, in the order its tables use."""

from dataclasses import dataclass


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
