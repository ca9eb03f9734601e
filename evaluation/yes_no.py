"""Yes and No in the six languages and nano's further ones: what an option's text means, and what an answer says."""

import re
from collections.abc import Mapping
from typing import Literal

from parrot_evaluation.text import fold, normalise

Polarity = Literal["yes", "no"]

# Words that answer by themselves. Those in _BARE also mean something else inside a sentence.
_WORDS: dict[str, dict[Polarity, tuple[str, ...]]] = {
    "en": {"yes": ("yes", "yeah", "yep"), "no": ("no", "nope")},
    "zh": {
        "yes": ("是的", "是", "对的", "对", "有的", "有", "没错", "不错", "正确"),
        "no": ("不是的", "不是", "不对", "不", "没有", "没", "否", "错误", "错"),
    },
    "pt": {"yes": ("sim",), "no": ("não", "nao")},
    "ar": {"yes": ("نعم", "أجل", "بلى"), "no": ("لا", "كلا")},
    "tr": {"yes": ("evet",), "no": ("hayır",)},
    "ru": {"yes": ("да",), "no": ("нет",)},
    "es": {"yes": ("sí",), "no": ("no",)},
    "de": {"yes": ("ja",), "no": ("nein",)},
}
_BARE: dict[str, dict[Polarity, tuple[str, ...]]] = {
    "en": {"yes": ("true", "correct", "right"), "no": ("false", "incorrect", "wrong", "not")},
    "zh": {"yes": (), "no": ()},
    "pt": {"yes": ("verdadeiro", "correto", "certo", "há", "tem"), "no": ("falso", "incorreto", "errado")},
    "ar": {"yes": ("صحيح", "يوجد", "توجد"), "no": ("خطأ", "ليس", "ليست")},
    "tr": {"yes": ("doğru", "var", "vardır"), "no": ("yanlış", "yok", "yoktur", "değil")},
    "ru": {"yes": ("верно", "правда", "есть"), "no": ("неверно", "неправда")},
    "es": {"yes": (), "no": ()},
    "de": {"yes": (), "no": ()},
}
# The last word of a Turkish sentence says it: "Resimde kedi yok."
_LAST_WORD: dict[str, dict[str, Polarity]] = {
    "tr": {"var": "yes", "vardir": "yes", "yok": "no", "yoktur": "no", "değil": "no", "değildir": "no"}
}
_WORD = re.compile(r"[^\W\d_]+")

# What holds a yes or no word and says neither, after `fold` (which makes one letter of ı and i): it is not read.
_NOT_MEANT = {
    "en": r"\bno (?:doubt|matter|wonder)\b|\bor no\b",
    "zh": r"对不起|对[比于面象应称话方]|[面相针反绝]对|有没有|有[些时点关限]|所有|是不是|不好意思|淹没|没问题"
    r"|没关系|否则|不[仅但只止过少久]|不同的|不远处|不锈钢|(?:正确|错误)的?(?:答案|回答|选项)(?:应该|应)?(?:是|为)?"
    r"|(?:答案|回答|选项)(?:应该|应)?(?:是|为)",
    "pt": r"\bnão há dúvidas?\b|\bnão (?:só|apenas|somente)\b|\bou não\b",
    # "No doubt", "must", "still", "especially", "or not"; "both of" and "for the sake of" are spelt like no and yes.
    "ar": r"\bلا (?:شك|بد|سيما|[يت]زال\w*)\b|\bأ[مو] لا\b|\bكلا(?= ال)|\bمن أجل\b",
    "tr": r"\b(?:şüphe|kuşku)(?:m|muz|ya yer)? yok(?:tur)?\b",
    "ru": r"\bда(?=,? нет\b)|\bили нет\b|\bнет (?:никаких )?сомнени\w+",
}
_DENIES = {
    "en": r"\b(?:not|neither|nor|nothing|zero|cannot|never|without|if|whether)\b|n['’]t\b",
    "pt": r"\b(?:não|nem|nenhum\w*|nada|sem|se|vez)\b",
    "ar": r"\b(?:لم|لن|ليس\w*|غير|لا|ما|بدون|إن|إذا)\b",
    "ru": r"\b(?:не|ни|нет|без|вместо|ничего|ли)\b",
    "es": r"\b(?:no|ni|nada|sin|ning\w+|si)\b",
    "de": r"\b(?:nicht|nichts|kein\w*|ohne|ob)\b",
}
# Nothing behind it but the end of the clause: "there is no picture", not "no picture on the wall".
_HERE = r"(?=\s*(?:$|[.,;!。،]))"
# What says that nothing can be said: only a yes or no word that opens the answer before it counts.
_UNSURE = {
    "en": r"\bno (?:idea|clue|information|way (?:to (?:tell|know|say|determine)|of (?:telling|knowing))"
    r"|(?:image|picture|photo)(?: (?:was|is|has been))? (?:provided|attached|given|uploaded))\b"
    r"|(?:\bcannot|\bcan not|\bcan['’]t|\bunable to|\bimpossible to) (?:be )?(?:\w+ )?"
    r"(?:tell|say|determined?|answer|confirm|know|help|assist|sure|certain)\b"
    rf"|\bthere(?: is|['’]s) no (?:image|picture|photo){_HERE}",
    "zh": r"[是能可]否(?!定)(?=\w)|与否|看不太?清|不好说|不一定|没有?足够的?(?:信息|证据|依据|线索|细节)"
    r"|(?:不(?:太|很|是很|能|敢|可能|够)?|无法|难以|没法|没办法)(?:够|准确|完全|直接)?"
    r"(?:知道|确定|确认|肯定|清楚|判断|判定|断定|回答|辨认|辨别|分辨|识别|看清|得知|提供|帮|协助|查看|打开|加载|访问)"
    rf"|(?:看不[到见]|没有?收到|(?:无法|不能)看[到见])(?:这张|该|您的|你的|任何)?(?:图|照)片|(?:^|[,.。\s])没有(?:图|照)片{_HERE}"
    r"|(?:图|照)片(?:太|很|有点|比较)?(?:模糊|不清)",
    "pt": r"\bnão (?:sei|tenho certeza|está claro|há (?:como|informaç\w+))\b"
    r"|\bnão (?:é possível|consigo|posso|se pode|dá para) (?:\w+ )?"
    r"(?:determinar|dizer|saber|responder|afirmar|confirmar|identificar|ajudar|ter certeza)\b"
    r"|\b(?:é )?(?:difícil|impossível) (?:dizer|determinar|saber)\b"
    r"|\bnão (?:consigo|posso) (?:ver|visualizar|abrir|acessar|analisar) (?:a |nenhuma |essa |sua )?(?:imagem|foto)"
    rf"|\bnão (?:vejo|há|recebi) (?:nenhuma |a |uma )?(?:imagem|foto){_HERE}",
    "ar": r"\bلا (?:أعرف|أعلم|أدري)\b|\bلست متأكد|\bمن (?:الصعب|المستحيل)\b|\bغير واضح"
    r"|\bلا (?:يمكن\w*|أستطيع|نستطيع) (?:\w+ )?"
    r"(?:تحديد|التحديد|معرفة|الإجابة|الجزم|التأكد|تأكيد|القول|الحكم|المساعدة|مساعدت\w*)"
    rf"|\bلا (?:أستطيع|يمكنني) (?:رؤية|عرض|فتح) (?:هذه )?الصورة|\bلا (?:أرى|[يت]وجد) (?:أي )?(?:ال)?صورة{_HERE}",
    "tr": r"\bbilmiyorum\b|\b(?:emin|belli) değil\w*|\b(?:fikrim|bilgim|(?:yeterli|yeterince) bilgi) yok(?:tur)?\b"
    r"|(?:mek|mak) (?:\w+ )?(?:mümkün değil(?:dir)?|imk[aâ]nsiz\w*)"
    r"|^\W*(?:(?:herhangi )?bir )?(?:resim|görsel|fotoğraf) yok(?:tur)?\b",
    "ru": r"\bне (?:знаю|уверен\w*|могу (?:\w+ )?(?:сказать|определить|ответить|помочь|утверждать))\b"
    r"|\bневозможно\b|\b(?:трудно|сложно) (?:сказать|определить)\b"
    r"|\bнет (?:уверенности|возможности|информации|данных)\b"
    rf"|^\W*нет (?:никакого )?(?:изображения|картинки|фото){_HERE}",
}
# What says that something is there, or is not, where no word of _WORDS does: "There is a cat.", "Há um gato."
_THERE_IS = {
    "en": r"\bthere(?: is| are|['’]s|['’]re)\b",
    "pt": r"\b(?:há|existem?|tem|têm)\b",
    "ar": r"\b(?:يوجد|توجد|هناك)\b",
    "ru": r"\b(?:есть|имеется|имеются)\b",
    "es": r"\bhay\b",
    "de": r"\bes gibt\b|\bgibt es\b",
}
_THERE_IS_NOT = {
    "en": r"\bthere(?: is| are|['’]s|['’]re) (?:not|none)\b|\bthere (?:isn|aren)['’]t\b",
    "ar": r"\bليست? (?:هناك|في)\b",
    "de": r"\bkeine?\w?\b",
}
# An answer that is nothing but both words: "Yes or No", "是或否".
_EITHER = re.compile(r"\W*(\w+?)\s*(?:[/,|]|(?<=\s)(?:or|ou|или|veya|ya da|o|oder|أو|أم)(?=\s)|或者?|还是)\s*(\w+)\W*")
_CLAUSE_ENDS = re.compile(r"(?<=[,.。،؛!;:?؟\n])")
# A question is more than one word; Chinese does not part its words.
_SEVERAL_WORDS = re.compile(r"\w\s+\w|[\u3400-\u9fff]")


def _index(table: Mapping[Polarity, tuple[str, ...]]) -> dict[str, Polarity]:
    return {fold(word): polarity for polarity, words in table.items() for word in words}


_STRONG: dict[str, dict[str, Polarity]] = {language: _index(table) for language, table in _WORDS.items()}
_WEAK: dict[str, dict[str, Polarity]] = {language: _index(table) for language, table in _BARE.items()}
_ANY: dict[str, Polarity] = {word: p for table in (*_WEAK.values(), *_STRONG.values()) for word, p in table.items()}


def polarity(text: str) -> Polarity | None:
    """What a whole option says, in any of the six languages: ``Evet`` → ``"yes"``, ``没有`` → ``"no"``, else None."""
    return _ANY.get(normalise(text))


def yes_no_options(options: Mapping[str, str]) -> dict[Polarity, str] | None:
    """``{"yes": letter, "no": letter}`` where exactly two options mean yes and no; otherwise None."""
    found = {polarity(text): letter for letter, text in options.items()}
    return {"yes": found["yes"], "no": found["no"]} if len(options) == 2 and set(found) == {"yes", "no"} else None


def yes_no(answer: str, language: str) -> Polarity | None:
    """What an answer to a Yes/No question asked in ``language`` says; None where it says neither, or both.

    A leading word decides (``Hayır, resimde …``), then the only kind of yes or no word anywhere, then whether
    something is said to be there (``There is a cat``, ``Resimde kedi var``); an English Yes or No is taken in any
    language (that it is English is measured apart, as the answer's language). What the answer asks, and words that
    only hold a yes or no (``对不起``, ``no doubt``), are not read; one that cannot tell says neither.
    """
    whole = polarity(answer)
    if whole is not None:
        return whole
    if (either := _EITHER.fullmatch(fold(answer))) and {polarity(either[1]), polarity(either[2])} == {"yes", "no"}:
        return None
    text, unsure = _told(answer, language)
    lead = _leading(text, language)
    if unsure or lead is not None:
        return lead or _english_aside(text)
    if language == "zh":
        return _chinese(text) or _english_aside(text)
    words = _WORD.findall(text)
    strong = _STRONG[language]
    said = {strong[word] for word in words if word in strong}
    if len(said) == 1:
        return said.pop()
    spoken = _LAST_WORD.get(language, {}).get(words[-1] if words else "") or _english_aside(text)
    return spoken or (None if said else _existence(text, language))


def told(answer: str, language: str) -> str:
    """What of an answer to a Yes/No question can say yes or no, folded; nothing where it says that it cannot tell."""
    text, unsure = _told(answer, language)
    return "" if unsure else text


def _told(answer: str, language: str) -> tuple[str, bool]:
    """The answer without its questions and what is not meant, and whether it is unsure: then only up to where it says
    so."""
    clauses = _CLAUSE_ENDS.split(fold(answer))
    text = "".join(clause for clause in clauses if clause[-1:] not in ("?", "؟") or not _SEVERAL_WORDS.search(clause))
    if language not in _UNSURE:
        return text, False
    text = re.sub(_NOT_MEANT[language], " ", text)
    unsure = re.search(_UNSURE[language], text)
    return (text, False) if unsure is None else (text[: unsure.start()], True)


def _leading(text: str, language: str) -> Polarity | None:
    """What the first word says; in Chinese, which puts no spaces, the longest word that the text begins with."""
    words = _STRONG[language]
    if language == "zh":
        start = re.sub(r"^\W+", "", text)
        return next((words[word] for word in sorted(words, key=len, reverse=True) if start.startswith(word)), None)
    first = _WORD.search(text)
    # "No" opens a Portuguese place ("No centro …"), but _STRONG["pt"] does not hold it.
    return None if first is None else words.get(first[0])


def _existence(text: str, language: str) -> Polarity | None:
    """What is said to be there, or not; neither where the answer denies something else ("I don't think there is …")."""
    if language in _THERE_IS_NOT and re.search(_THERE_IS_NOT[language], text):
        return "no"
    if language not in _THERE_IS or re.search(_DENIES[language], text):
        return None
    return "yes" if re.search(_THERE_IS[language], text) else None


def _english_aside(text: str) -> Polarity | None:
    """A leading English yes or no, set off by punctuation: ``No, …``; not the ``No`` of ``No centro``."""
    match = re.match(r"\W*(yes|no)\s*(?:[^\w\s]|$)", text)
    return None if match is None else ("yes" if match[1] == "yes" else "no")


def _chinese(text: str) -> Polarity | None:
    """A negation anywhere, then an affirmation; ``没错`` and ``不错`` affirm, and ``是`` that ends the answer."""
    if re.search("[没不](?!错)|否", text):
        return "no"
    return "yes" if re.search(r"是的|有|对的|[没不]错|是\W*$", text) else None
