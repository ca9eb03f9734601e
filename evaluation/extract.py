"""Which option an answer picks, by rules that read all six languages; the kit's own are in `parrot_evaluation.kit`."""

import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass

from parrot_evaluation.rejected import is_rejected, rejected_letters
from parrot_evaluation.text import clean, fold, normalise
from parrot_evaluation.yes_no import told, yes_no, yes_no_options


@dataclass(frozen=True)
class Extraction:
    """The ``letter`` an answer picks, None where it picks none or more than one, and the ``rule`` that says so."""

    letter: str | None
    rule: str


def extract_letter(answer: str, options: Mapping[str, str], language: str) -> Extraction:
    """The option that ``answer``, written in any of the six languages, picks.

    The rules, strongest first; the first that finds exactly one option decides, and one that finds two ends the search:
    an option as it was shown (``C. Both A and B``, or its text to the last mark); letters joined (``A or B``: two, so
    none); the letter alone; the text of an option alone; a letter the answer declares (``答案是A``, ``Cevap: b``,
    ``Вариант В``);
    a letter in front (``B) kedi``); a letter in brackets; for Yes/No options, what the answer says; the text of an
    option inside the answer; a letter that might be a word, declared (``the answer is A cat``); a lone capital.
    Letters may be full-width, lower-case, Cyrillic look-alikes (``А В С Е``) or Arabic (``أ ب ج د``). An option that
    the answer turns down (``A is wrong``, ``not a dog``) is not picked.
    """
    text = clean(answer)
    symbols = _symbols(options)
    said = _without_lettered_texts(text, options, symbols)
    # 对 stands in 对不起 too, and in a question that the answer repeats.
    spoken = told(answer, language) if yes_no_options(options) else text
    searches: tuple[tuple[str, Callable[[], Iterable[str]]], ...] = (
        ("as it was shown", lambda: _as_shown(text, options, symbols)),
        ("letters joined", lambda: _joined(said, symbols)),
        ("letter alone", lambda: _alone(text, symbols)),
        ("option text alone", lambda: _texts_equal(text, options)),
        ("declared letter", lambda: _declared(said, symbols, firm=True)),
        ("letter in front", lambda: _in_front(text, symbols, options)),
        ("letter in brackets", lambda: _in_brackets(text, symbols)),
        ("yes or no", lambda: _said_yes_or_no(answer, options, language)),
        ("option text inside", lambda: _texts_inside(spoken, options)),
        ("declared letter, loosely", lambda: _declared(text, symbols, firm=False)),
        ("lone capital", lambda: _lone_capital(text, symbols)),
    )
    rejected = set(rejected_letters(said, _standing(symbols), symbols))
    for rule, search in searches:
        found = set(search())
        # An option may itself deny, and of letters that are joined, what is said of the last may be meant of all.
        if rule not in ("as it was shown", "letters joined"):
            found -= rejected
        if len(found) == 1:
            return Extraction(found.pop(), rule)
        if len(found) > 1:
            return Extraction(None, f"{rule}: {' and '.join(sorted(found))}")
    return Extraction(None, "nothing found")


# --- as shown -------------------------------------------------------------------------------------------------------

_AROUND, _QUOTES = "*_` \n\t", "\"'“”«»「」『』"


def _as_shown(text: str, options: Mapping[str, str], symbols: Mapping[str, str]) -> Iterable[str]:
    """The option whose line, or else whose text, the whole answer is: case and a full stop apart, to the last mark.

    ``50%`` is not ``50`` then, and letters that a text holds are not letters of options. A text that is a letter itself
    is left to the rules for letters.
    """
    whole, letters = _bare(text), {fold(symbol) for symbol in symbols}
    texts = {letter: _bare(option) for letter, option in options.items() if _bare(option)}
    lines = {rf"[(\[]?{letter.lower()}\s*[)\].:、,]\s*{re.escape(own)}": letter for letter, own in texts.items()}
    found = [letter for line, letter in lines.items() if re.fullmatch(line, whole)]
    return found or [letter for letter, own in texts.items() if own == whole and own not in letters]


def _bare(text: str) -> str:
    """Without what may stand around an answer: marks of emphasis, quotes on both sides, a full stop."""
    folded = bare = fold(text).strip(_AROUND)
    for _ in range(2):
        bare = bare.rstrip(".。").strip(_AROUND)
        if len(bare) > 1 and bare[0] in _QUOTES and bare[-1] in _QUOTES:
            bare = bare[1:-1].strip(_AROUND)
    return bare or folded


def _without_lettered_texts(text: str, options: Mapping[str, str], symbols: Mapping[str, str]) -> str:
    """``text`` with a mark in place of every option's text that speaks of letters, such as ``both A and B``."""
    standing = _standing({symbol: letter for symbol, letter in symbols.items() if not symbol.islower()})
    texts = sorted({clean(option) for option in options.values()}, key=len, reverse=True)
    for option in texts:
        if len(option) > 1 and re.search(standing, option):
            text = re.sub(rf"(?<!\w){re.escape(option)}(?!\w)", "…", text, flags=re.IGNORECASE)
    return text


# --- letters --------------------------------------------------------------------------------------------------------

_LOOK_ALIKES = {"A": "Аа", "B": "Вв", "C": "Сс", "E": "Ее", "H": "Нн"}
_ARABIC = {"A": "أا", "B": "ب", "C": "ج", "D": "د", "E": "ه", "F": "و"}
# Single letters that are words of one of the languages: English and Portuguese a, e, o, I; every small letter and every
# Cyrillic one (а, в, с are "but, in, with").
_WORD_LETTERS = "AEIO"

_NO_LETTER_BEFORE = r"(?<![A-Za-z0-9_À-ɏЀ-ӿ'’&])(?<![\u0621-\u064a](?=[\u0621-\u064a]))"
# Turkish hangs endings on a letter with an apostrophe: B'dir, C'yi.
_NO_LETTER_AFTER = (
    r"(?![A-Za-z0-9_À-ɏЀ-ӿ&]|-\w|['’](?!(?:[dt][ıiuü]r|y[ıiae]|n[ıi]n)\b))(?!(?<=[\u0621-\u064a])[\u0621-\u064a])"
)


def _symbols(options: Mapping[str, str]) -> dict[str, str]:
    """Every way to write an option's letter → that letter."""
    return {
        symbol: letter
        for letter in options
        for symbol in (letter, letter.lower(), *_LOOK_ALIKES.get(letter, ""), *_ARABIC.get(letter, ""))
    }


def _standing(symbols: Mapping[str, str]) -> str:
    """A pattern with one group: a symbol that is not part of a word of its own script."""
    return f"{_NO_LETTER_BEFORE}([{re.escape(''.join(symbols))}]){_NO_LETTER_AFTER}"


def _may_be_word(symbol: str) -> bool:
    return symbol in _WORD_LETTERS or symbol.islower() or "Ѐ" <= symbol <= "ӿ"


def _alone(text: str, symbols: Mapping[str, str]) -> Iterable[str]:
    bare = re.sub(r"^[\W_]+|[\W_]+$", "", text)
    return [symbols[bare]] if bare in symbols else []


_JOINER = r"\s*(?:[/&+–-]|(?<=\s)(?:or|and|ou|e|ve|veya|ya da|и|или)(?=\s)|أو|و|和|或|与|、)\s*"


def _joined(text: str, symbols: Mapping[str, str]) -> Iterable[str]:
    """Both letters of ``A or B``, and all of an answer that is nothing but ``A, B`` or ``A B``."""
    one = f"[{re.escape(''.join(symbol for symbol in symbols if not symbol.islower()))}]"
    found = [
        s for pair in re.findall(rf"{_NO_LETTER_BEFORE}({one}){_JOINER}({one}){_NO_LETTER_AFTER}", text) for s in pair
    ]
    if re.fullmatch(rf"\W*{one}(?:(?:\s*,\s*|\s+){one})+\W*", text):
        found += re.findall(one, text)
    return [symbols[symbol] for symbol in found]


_OPENING, _CLOSING = r"[(\[{<\"'“‘«„「『【《*_`$]", r"[)\]}>\"'”’»“」』】》*_`$]"


def _in_front(text: str, symbols: Mapping[str, str], options: Mapping[str, str]) -> Iterable[str]:
    """``B) …``, ``(c) …``, ``**D**``, and ``B dog`` where B is ``dog``; of every line, so that a list gives several, as
    ``A. dog B. cat`` on one line does."""
    for match in re.finditer(rf"^[\s#>\-]*{_OPENING}*{_standing(symbols)}(.*)", text, re.MULTILINE):
        symbol, rest = match.groups()
        small_word = _may_be_word(symbol) and symbol.islower()
        delimited = re.match(rf"\s*{_CLOSING}|[ \t]*(?:[.:;、|/](?!\w\.)|[-–—](?=\s)|\s*[-–—])", rest)
        delimited = delimited or (not small_word and re.match(r"\s*(?:,|$)", rest))
        own = normalise(options[symbols[symbol]])
        if delimited or (own and normalise(rest).startswith(own)):
            yield symbols[symbol]
            yield from _listed_behind(rest, symbols, options)


def _listed_behind(rest: str, symbols: Mapping[str, str], options: Mapping[str, str]) -> Iterable[str]:
    """Further letters on a line that have their own text behind them: ``… B. cat``."""
    for match in re.finditer(rf"(?<=\s){_standing(symbols)}\s{{0,3}}[.):、]\s{{0,3}}", rest):
        own = normalise(options[symbols[match[1]]])
        # Marks and spaces that normalising drops make a text longer, seldom twice as long.
        if own and normalise(rest[match.end() : match.end() + 2 * len(own) + 8]).startswith(own):
            yield symbols[match[1]]


def _in_brackets(text: str, symbols: Mapping[str, str]) -> Iterable[str]:
    found = re.findall(rf"(?:{_OPENING}){_standing(symbols)}(?=\.?{_CLOSING})", text)
    return [symbols[symbol] for symbol in found]


_CUES = (
    r"answer|option|choice|choose|select|pick|letter|答案|选项|選項|选择|選擇|应选|应该是|选|選"
    r"|resposta|opção|alternativa|escolh[aoe]|letra"
    r"|(?:ال)?[إا]جابة|(?:ال)?جواب|(?:ال)?خيار|(?:ال)?اختيار|(?:ال)?حرف|[أا]ختار"
    r"|cevab[ıi]m?|cevap|yanıtım|yanıtı|yanıt|seçenek|seçeneği|seçiyorum|şık|şıkkı"
    r"|ответ|вариант|выбираю|выбор|буква|букв[оы]й?|букву"
)
_BETWEEN = (
    r"is|are|was|would|should|must|be|it|its|it's|the|option|letter|choice|answer|correct|right|best|number"
    r"|é|[ao](?!,)|seria|será|opção|alternativa|letra|correta|correto|certa|número"
    r"|هي|هو|الصحيحة|الصحيح|الإجابة|الخيار|الاختيار|الحرف|حرف|رقم"
    r"|doğru|olarak|olan|seçenek|seçeneği|şık|şıkkı|harfi"
    r"|это|вариант|буква|правильный|верный|является|под|буквой|номер|ответ"
)
_BETWEEN_HAN = "是|为|為|应该|应|该|就|选项|选择|答案|选|正确|的"
_AFTER = (
    r"\s*(?:选项|选择|项|是(?:正确|对)|正确)"
    r"|['’]?\s*(?:seçeneği|seçenek|şıkkı|şık)\b|['’]?[dt][ıiuü]r\b|\s+(?:doğrudur|doğru)\b"
    r"|\s+is\s+(?:the\s+)?(?:correct|right|best|answer|true)\b"
    r"|\s+é\s+(?:a\s+|o\s+)?(?:opção|resposta|alternativa|letra|correta|correto|certa)\b"
    r"|\s+(?:هو|هي)\s+(?:الصحيح|الصحيحة|الجواب|الإجابة|الخيار)"
    r"|\s*[-–—]?\s*(?:это\s+)?(?:правильн|верн)"
)


def _declared(text: str, symbols: Mapping[str, str], *, firm: bool) -> Iterable[str]:
    """Letters that a word like "answer" points at, or that are followed by one.

    ``firm`` leaves out a letter that may be a word and has another word after it: "the answer is a cat".
    """
    standing, any_symbol = _standing(symbols), f"[{re.escape(''.join(symbols))}]"
    # Gaps are bounded, so that an answer of a thousand dots costs nothing.
    linking = rf"(?:\W{{0,4}}(?:{_BETWEEN_HAN}|(?:{_BETWEEN})(?=[\W_]|{any_symbol}))){{0,6}}"
    for match in re.finditer(rf"(?:{_CUES}){linking}\W{{0,6}}{standing}", text, re.IGNORECASE):
        symbol, next_word = match[1], re.match(r"\s+\w|\s*[^\W\d_]", text[match.end(1) :])
        if symbol in symbols and (not firm or _is_free(symbol, next_word)):
            yield symbols[symbol]
    for match in re.finditer(rf"{standing}(?={_AFTER})", text):
        yield symbols[match[1]]


def _is_free(symbol: str, next_word: re.Match[str] | None) -> bool:
    return next_word is None or not _may_be_word(symbol) or "\u3400" <= next_word[0][-1] <= "\u9fff"


_NEGATION = re.compile(r"\b(?:not|nor|neither|não|nem|değil|не|ни|ليس|ليست|لا)\b|n['’]t\b|不|非", re.IGNORECASE)


def _lone_capital(text: str, symbols: Mapping[str, str]) -> Iterable[str]:
    """Capitals that are no word, anywhere; at the very end any capital. Nothing where the answer negates."""
    if _NEGATION.search(text):
        return
    for match in re.finditer(_standing(symbols), text):
        symbol, at_end = match[1], not re.search(r"\w", text[match.end() :])
        if symbol.isupper() and (at_end or not _may_be_word(symbol)):
            yield symbols[symbol]


# --- texts ----------------------------------------------------------------------------------------------------------


def _said_yes_or_no(answer: str, options: Mapping[str, str], language: str) -> Iterable[str]:
    letters = yes_no_options(options)
    said = yes_no(answer, language) if letters else None
    return [letters[said]] if letters and said else []


def _texts_equal(text: str, options: Mapping[str, str]) -> Iterable[str]:
    whole = normalise(text)
    return [letter for letter, option in options.items() if whole and normalise(option) == whole]


def _texts_inside(text: str, options: Mapping[str, str]) -> Iterable[str]:
    """Options whose text stands in the answer as whole words, else as the beginning of words (Turkish endings).

    An option found only inside a longer one (``red`` in ``dark red``) does not count.
    """
    whole = normalise(text)
    for ending in (r"(?![^\W_])", ""):
        spans = {letter: _spans(normalise(option), whole, ending) for letter, option in options.items()}
        found = [
            letter
            for letter in spans
            if any(not _covered(span, letter, spans) and not is_rejected(whole, span) for span in spans[letter])
        ]
        if found:
            return found
    return []


def _spans(option: str, whole: str, ending: str) -> list[tuple[int, int]]:
    if not option or (not ending and len(option) < 3):
        return []
    if re.search("[\u3040-\u30ff\u3400-\u9fff]", option):
        pattern = re.escape(option)
    else:
        # Arabic writes "and", "in", "for" and the article onto the word.
        prefix = r"(?:[وفبكل]?(?:ال)?)" if re.match("[\u0620-\u064a]", option) else ""
        pattern = rf"(?<![^\W_]){prefix}{re.escape(option)}{ending}"
    return [match.span() for match in re.finditer(pattern, whole)]


def _covered(span: tuple[int, int], letter: str, spans: Mapping[str, list[tuple[int, int]]]) -> bool:
    return any(
        other[0] <= span[0] and span[1] <= other[1] and other != span
        for name, found in spans.items()
        if name != letter
        for other in found
    )
