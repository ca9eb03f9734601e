import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from parrot_evaluation.yes_no import polarity, yes_no, yes_no_options
from parrot_runtime.languages import CODES

PAIRS = {
    "en": ("Yes", "No"),
    "zh": ("是", "否"),
    "pt": ("Sim", "Não"),
    "ar": ("نعم", "لا"),
    "tr": ("Evet", "Hayır"),
    "ru": ("Да", "Нет"),
}


@pytest.mark.parametrize("code", CODES)
@pytest.mark.parametrize("form", ["{}", "{}.", "{}!", " {}\n", '"{}"', "**{}**"])
def test_the_bare_word(code: str, form: str) -> None:
    yes, no = PAIRS[code]
    for word in (yes, yes.upper(), yes.lower()):
        assert yes_no(form.format(word), code) == "yes"
    for word in (no, no.upper(), no.lower()):
        assert yes_no(form.format(word), code) == "no"


@pytest.mark.parametrize(
    ("answer", "code", "expected"),
    [
        ("Yes, there is a cat.", "en", "yes"),
        ("No, there is no cat.", "en", "no"),
        ("There is a cat.", "en", "yes"),
        ("There's a cat, there are two.", "en", "yes"),
        ("There isn't a cat.", "en", "no"),
        ("There are none.", "en", "no"),
        ("A cat sleeps.", "en", None),
        ("Yes and no", "en", "yes"),
        ("是的，图中有一只猫。", "zh", "yes"),
        ("不是，图中是一只狗。", "zh", "no"),
        ("没有。", "zh", "no"),
        ("有的", "zh", "yes"),
        ("图中没有猫。", "zh", "no"),
        ("图中有一只猫。", "zh", "yes"),
        ("没错，是猫。", "zh", "yes"),
        ("不对", "zh", "no"),
        ("Sim, há um gato na imagem.", "pt", "yes"),
        ("Não, o gato não está aqui.", "pt", "no"),
        ("A resposta é sim.", "pt", "yes"),
        ("No centro há um gato.", "pt", "yes"),
        ("No centro dorme um gato.", "pt", None),
        ("Não há nenhum gato no centro.", "pt", "no"),
        ("توجد قطة في الصورة.", "ar", "yes"),
        ("ليست هناك قطة.", "ar", "no"),
        ("На картинке есть кошка.", "ru", "yes"),
        ("Hay un gato.", "es", "yes"),
        ("Es gibt keine Katze.", "de", "no"),
        ("نعم، توجد قطة في الصورة.", "ar", "yes"),
        ("لا، لا توجد قطة.", "ar", "no"),
        ("لا يوجد", "ar", "no"),
        ("Evet, resimde bir kedi var.", "tr", "yes"),
        ("Hayır, resimde kedi yok.", "tr", "no"),
        ("Resimde kedi yok.", "tr", "no"),
        ("Resimde bir kedi var.", "tr", "yes"),
        ("HAYIR", "tr", "no"),
        ("Bu bir kedi değil.", "tr", "no"),
        ("Да, на картинке есть кошка.", "ru", "yes"),
        ("Нет, кошки нет.", "ru", "no"),
        ("На картинке нет кошки.", "ru", "no"),
        ("Yes, there is.", "tr", "yes"),
        ("No.", "ru", "no"),
        ("No.", "zh", "no"),
        ("", "en", None),
        ("…", "tr", None),
        ("42", "ar", None),
    ],
)
def test_sentences(answer: str, code: str, expected: str | None) -> None:
    assert yes_no(answer, code) == expected


# Words that hold a yes or no, are asked rather than said, or say that nothing can be said.
HELD = [
    ("对不起，我无法回答这个问题。", "zh", None),
    ("不好意思，我看不清。", "zh", None),
    ("抱歉，我无法确定图中是否有猫。", "zh", None),
    ("我不确定。", "zh", None),
    ("不是很清楚", "zh", None),
    ("图中没有足够的信息来判断。", "zh", None),
    ("正确答案是：否", "zh", "no"),
    ("正确答案是：是", "zh", "yes"),
    ("正确的回答是没有。", "zh", "no"),
    ("答案是否。", "zh", "no"),
    ("答案是否定的。", "zh", "no"),
    ("有没有猫？没有", "zh", "no"),
    ("是否有猫？有。", "zh", "yes"),
    ("图中有猫，对吗？不对。", "zh", "no"),
    ("图中有猫吗？", "zh", None),
    ("是的，有猫。你还想知道什么？我可以告诉你。", "zh", "yes"),
    ("是的，但不确定是什么品种。", "zh", "yes"),
    ("对于这张图片，没有。", "zh", "no"),
    ("不错，图中有猫。", "zh", "yes"),
    ("你说得没错，图中有猫。", "zh", "yes"),
    ("不远处有一只猫。", "zh", "yes"),
    ("人们面对的墙上没有画。", "zh", "no"),
    ("No doubt there is one: yes.", "en", "yes"),
    ("I have no idea.", "en", None),
    ("There is no way to tell.", "en", None),
    ("I'm sorry, but no image was provided.", "en", None),
    ("No, but I can't tell what it is.", "en", "no"),
    ("Is there no cat? Yes, there is one.", "en", "yes"),
    ("Yes or no? No.", "en", "no"),
    # Both words and nothing else: the prompt's own.
    ("Yes or No", "en", None),
    ("Yes/No", "en", None),
    ("Sim ou não.", "pt", None),
    ("Да или нет", "ru", None),
    ("Evet veya hayır", "tr", None),
    ("Evet/Hayır", "tr", None),
    ("是或否", "zh", None),
    ("有还是没有", "zh", None),
    ("نعم أو لا", "ar", None),
    # What is denied is not what is there.
    ("I don't think there is a cat.", "en", None),
    ("There is neither a cat nor a dog.", "en", None),
    ("There is nothing like that.", "en", None),
    ("I can't see if there is a cat.", "en", None),
    ("Nenhum gato há na imagem.", "pt", None),
    ("Не думаю, что на картинке есть кошка.", "ru", None),
    ("لم يعد هناك قط.", "ar", None),
    ("答案是：是", "zh", "yes"),
    ("答案是：否", "zh", "no"),
    ("所以答案为“是”。", "zh", "yes"),
    ("所以答案为“否”。", "zh", "no"),
    ("答案是Yes", "zh", "yes"),
    # Where the picture is not seen, it is not said that nothing is on it.
    ("抱歉，我看不到图片。", "zh", None),
    ("图片不清晰。", "zh", None),
    ("没有图片。", "zh", None),
    ("对不起，我不能查看图片。", "zh", None),
    ("墙上没有图片。", "zh", "no"),
    ("我看不到猫。", "zh", "no"),
    ("Não consigo ver a imagem.", "pt", None),
    ("Não vejo nenhuma imagem.", "pt", None),
    ("Não há imagem na parede.", "pt", "no"),
    ("لا أستطيع رؤية الصورة.", "ar", None),
    ("لا توجد صورة.", "ar", None),
    ("لا توجد صورة على الحائط.", "ar", "no"),
    ("Нет изображения.", "ru", None),
    ("Нет, изображения кошки тут нет.", "ru", "no"),
    ("Resim yok.", "tr", None),
    ("Duvarda resim yok.", "tr", "no"),
    ("There is no image.", "en", None),
    ("There is no picture on the wall.", "en", "no"),
    ("Não sei.", "pt", None),
    ("Não é possível determinar.", "pt", None),
    ("Não há dúvida: sim.", "pt", "yes"),
    ("É difícil dizer se há um gato ou não.", "pt", None),
    ("Sim ou não? Não.", "pt", "no"),
    ("لا أعرف.", "ar", None),
    ("لا يمكنني تحديد ذلك.", "ar", None),
    ("لا شك، نعم.", "ar", "yes"),
    ("القطة لا تزال على الطاولة.", "ar", None),
    ("كلا الرجلين في الصورة.", "ar", None),
    ("يعمل من أجل المال.", "ar", None),
    ("من الصعب القول إن كانت هناك قطة أم لا.", "ar", None),
    ("نعم أم لا؟ لا.", "ar", "no"),
    ("Kedi olup olmadığı belli değil.", "tr", None),
    ("Bunu söylemek mümkün değil.", "tr", None),
    ("Bu konuda hiç fikrim yok.", "tr", None),
    ("Hayır, ama ne olduğunu bilmiyorum.", "tr", "no"),
    ("Evet mi hayır mı? Hayır.", "tr", "no"),
    ("No, ne olduğunu bilmiyorum.", "tr", "no"),
    ("Трудно сказать, есть кошка или нет.", "ru", None),
    ("Нет возможности это определить.", "ru", None),
    ("Нет сомнений: да.", "ru", "yes"),
    ("Да нет, кошки тут нет.", "ru", "no"),
    ("Нет ли тут кошки? Да, есть.", "ru", "yes"),
]


@pytest.mark.parametrize(("answer", "code", "expected"), HELD)
def test_a_word_that_only_holds_a_yes_or_no(answer: str, code: str, expected: str | None) -> None:
    assert yes_no(answer, code) == expected


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        ({"A": "Yes", "B": "No"}, {"yes": "A", "no": "B"}),
        ({"A": "没有", "B": "有"}, {"yes": "B", "no": "A"}),
        ({"A": "Verdadeiro", "B": "Falso"}, {"yes": "A", "no": "B"}),
        ({"A": "Yes", "B": "No", "C": "Maybe"}, None),
        ({"A": "left", "B": "right"}, None),
        ({"A": "Yes", "B": "Sim"}, None),
        ({}, None),
    ],
)
def test_options(options: dict, expected: dict | None) -> None:
    assert yes_no_options(options) == expected


def test_polarity_wants_the_whole_text() -> None:
    assert polarity("yes sir") is None


@settings(deadline=None)
@given(st.text(), st.sampled_from(CODES))
def test_any_text_is_read_without_error(text: str, code: str) -> None:
    assert yes_no(text, code) in ("yes", "no", None)
