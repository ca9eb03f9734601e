"""Options that an answer names to turn them down: ``A is wrong``, ``not B``, ``不是猫``, ``köpek değil``.

Only a denial that stands right at the option counts, since an answer may deny one and give another.
"""

import re
from collections.abc import Iterator, Mapping

# What may stand between a letter and what is said of it.
_NOUN = (
    r"(?:\s*(?:option|choice|answer|letter|opção|alternativa|resposta|letra|seçeneği|seçenek|şıkkı|şık|harfi"
    r"|вариант|ответ|выбор|буква|选项|答案|الخيار|الإجابة|الجواب|الحرف))?"
)
_NOT_AFTER = (
    r"(?:is|are|was|would be|can|could|does|do|must)(?:\s*not\b|n['’]t\b)|cannot\b|can['’]t\b|isn['’]t\b"
    r"|(?:is|was|are|seems|would be)\s+(?:(?:clearly|certainly|definitely|obviously|also)\s+)?"
    r"(?:wrong|incorrect|false|ruled out|eliminated)"
    r"|não\b|(?:é|está|seria|parece)\s+(?:errad|incorret|fals)|errad|incorret"
    r"|değil\b|yanlış|hatalı|olamaz\b"
    r"|не\b|(?:—|–|-|это)?\s*(?:неверн|неправильн|ошибочн)"
    r"|并?不(?![仅只但])|并?非(?!常)|是?错|有误"
    r"|(?:هو\s+|هي\s+)?(?:خاطئ|خطأ|غير)|ليس|لا\b"
    r"|no\s+es\b|es\s+incorrect|(?:ist\s+)?(?:nicht|falsch)\b"
)
_NOT_BEFORE = (
    r"(?:\b(?:not|never|neither|nor|cannot be|can['’]t be|isn['’]t|não(?:\s+(?:é|seria|pode ser))?|nem|не|ни"
    r"|no\s+es|nicht)|不是|并非|不选|不能选|不会是|(?<!\w)(?:ليس|ليست))"
    r"(?:\s+(?:the|a|o|option|choice|answer|opção|alternativa|letra|resposta|вариант|ответ|الخيار|الإجابة))*\s*"
)
# Capitals that may be words at the beginning of a sentence, and what makes letters of them.
_WORDS = re.compile("[EIOЀ-ӿ]")
_NAMED = re.compile(
    r"(?:option|choice|answer|letter|opção|alternativa|resposta|letra|вариант|ответ|выбор|буква)\s+$", re.I
)

# The same of the texts of options, after `normalise`: small letters and no marks.
_ARTICLE = (
    r"(?:\s*(?:a|an|the|any|um|uma|o|os|as|nenhum|nenhuma|это|никак\w+|一|一只|一个|一辆|一艘|任何|un|una|el|la"
    r"|ein|eine|einen|der|die|das|هناك|أي|be|be\s+a|be\s+an|be\s+the))*\s*"
)
_DENIED_BEFORE = re.compile(
    r"(?:(?<![^\W_])(?:not|never|neither|nor|without|isn t|aren t|cannot|can t|doesn t(?: \w+)?|don t(?: \w+)?"
    r"|(?:is|are|was|were|has|have|see|with|contains|shows) no"
    r"|não(?: (?:é|há|são|tem|existe|vejo|está|parece|pode ser))?|nem|sem"
    r"|не|ни|без|no (?:es|hay|veo)|nicht|kein|keine|keinen"
    r"|ليس|ليست|لا (?:يوجد|توجد|أرى)|ليس هناك|بدون)|不是|没有|并非|不会是|看不到)" + _ARTICLE + "$"
)
_DENIED_AFTER = re.compile(r"\w*\s+(?:değil|yok|olamaz)(?![^\W_])")
_REACH = 40


def rejected_letters(text: str, standing: str, symbols: Mapping[str, str]) -> Iterator[str]:
    """Letters with a denial before or behind them; ``standing`` matches a symbol that is no part of a word.

    Small letters are left alone, ``not a`` is an article; and so are capitals that begin a sentence as a word does
    (``А не кошка``, ``E não``), unless they are called an option.
    """
    found = [
        *re.finditer(rf"{standing}{_NOUN}\s*(?:{_NOT_AFTER})", text, re.IGNORECASE),
        *re.finditer(rf"{_NOT_BEFORE}{standing}", text, re.IGNORECASE),
    ]
    for match in found:
        symbol = match[1]
        if (
            symbol in symbols
            and not symbol.islower()
            and (not _WORDS.match(symbol) or _NAMED.search(text, 0, match.start(1)))
        ):
            yield symbols[symbol]


def is_rejected(text: str, span: tuple[int, int]) -> bool:
    """Whether the option that stands at ``span`` of a normalised answer is denied there."""
    start, end = span
    return bool(_DENIED_BEFORE.search(text, max(0, start - _REACH), start) or _DENIED_AFTER.match(text, end))
