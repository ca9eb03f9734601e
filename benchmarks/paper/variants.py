"""What the study trains and compares, as data: variants of one recipe, and the paper's claims as differences of them.

Everything is nano's recipe (``--config nano``) but for what a variant says. A language's data are its own pictures and
questions, never another's in translation, in the amounts of nano's mixture (60 % English).
"""

from dataclasses import asdict, dataclass
from typing import Any, Literal

from parrot_runtime.languages import CODES

OTHERS = tuple(code for code in CODES if code != "en")

Encoder = Literal["english", "multilingual"]
LanguageModel = Literal["shipped", "small", "medium", "large"]
Mixture = Literal["as configured", "top 1", "top 2", "question"]
QuestionKind = Literal["four-option", "Yes/No pairs", "open, exact"]


@dataclass(frozen=True)
class Variant:
    """One model of the study, and how it is asked.

    overrides: settings of ``parrot-train`` that differ from nano's.
    languages: those that stage 2 has conversations in beside English, ``times`` as many in each as nano's mixture has.
    more_english: as much more English as the five languages have together.
    encoder, llm: the backbones (`parrot_benchmarks.paper.backbones`).
    mixture: what the toolchain has no setting for (`parrot_benchmarks.paper.mixtures`).
    dictionary: None asks in the question's own language; a share translates the question into English and the answer
        back, with that share of the dictionary's entries wrong or missing (`parrot_benchmarks.paper.dictionary`).
    """

    name: str
    title: str
    overrides: tuple[str, ...] = ()
    languages: tuple[str, ...] = OTHERS
    times: int = 1
    more_english: bool = False
    encoder: Encoder = "english"
    llm: LanguageModel = "shipped"
    mixture: Mixture = "as configured"
    dictionary: float | None = None

    @property
    def training(self) -> dict[str, Any]:
        """What decides the weights, as plain data; two variants that share it share a model."""
        kept = {name: value for name, value in asdict(self).items() if name not in ("name", "title", "dictionary")}
        return {name: list(value) if isinstance(value, tuple) else value for name, value in kept.items()}

    @property
    def start(self) -> tuple[Encoder, LanguageModel]:
        """What stage 1 depends on."""
        return self.encoder, self.llm


_NO_MIXTURE = ("model.experts=0",)
_ONE_EXPERT = ("model.experts=1", "model.expert_intermediate_size=768")
_LARGEST = 7


def _variants() -> list[Variant]:
    made = [
        Variant("llava-english", "LLaVA, English data", _NO_MIXTURE, languages=()),
        Variant("llava-english-more", "LLaVA, English data, as many conversations", _NO_MIXTURE, (), more_english=True),
        Variant("llava", "LLaVA, multilingual data", _NO_MIXTURE),
        Variant("parrot-english", "Parrot, English data", languages=()),
        Variant("parrot", "Parrot"),
        # As many weights and no choice among them: what of the gain is the routing's?
        Variant("one-expert", "one expert, six times as wide", _ONE_EXPERT),
        *(
            Variant(f"translated-{share:g}", f"LLaVA, English data, dictionary {_errors(share)}", _NO_MIXTURE, (),
                    dictionary=share)
            for share in (0.0, 0.1, 0.3)
        ),
    ]  # fmt: skip
    made += [
        Variant(f"parrot-{'-'.join(OTHERS[:count])}", f"+ {' '.join(OTHERS[:count])}", languages=OTHERS[:count])
        for count in range(1, len(OTHERS))
    ]
    made += [Variant(f"parrot-{code}", f"+ {code}", languages=(code,)) for code in OTHERS[1:]]
    made += [Variant(f"parrot-{times}x", f"{times} times the data", times=times) for times in (3, 5, _LARGEST)]
    made += [
        Variant("swiglu", "experts SwiGLU", ("model.expert_kind=swiglu",)),
        Variant("alpha-0.1", "G = H + 0.1 M", ("model.alpha=0.1",)),
        Variant("released-0.1", "G = M + 0.1 H", ("model.residual=released", "model.alpha=0.1")),
        Variant(
            "released",
            "as released: SwiGLU, G = M + 0.1 H",
            ("model.expert_kind=swiglu", "model.residual=released", "model.alpha=0.1"),
        ),
        Variant("question", "router reads the question alone", mixture="question"),
        Variant("top-1", "the most likely expert alone", mixture="top 1"),
        Variant("top-2", "the two most likely experts", mixture="top 2"),
        Variant(
            "llava-english-multilingual-encoder",
            "LLaVA, English data, multilingual encoder",
            _NO_MIXTURE,
            (),
            encoder="multilingual",
        ),
        Variant("llava-multilingual-encoder", "LLaVA, multilingual encoder", _NO_MIXTURE, encoder="multilingual"),
        Variant("parrot-multilingual-encoder", "Parrot, multilingual encoder", encoder="multilingual"),
    ]
    made += [Variant(f"llm-{size}", f"Parrot, {size} LLM", llm=size) for size in ("small", "medium", "large")]
    return made


def _errors(share: float) -> str:
    return f"{100 * share:g} % wrong or missing" if share else "without an error"


VARIANTS: dict[str, Variant] = {variant.name: variant for variant in _variants()}


@dataclass(frozen=True)
class Comparison:
    """Accuracy of ``better`` less that of ``worse``, over ``languages``, and questions of a ``kind`` alone or of all.

    ``statement`` is what the paper says of it; None where it says nothing, and the study only looks.
    """

    better: str
    worse: str
    statement: str | None = None
    languages: tuple[str, ...] = CODES
    kind: QuestionKind | None = None


@dataclass(frozen=True)
class Claim:
    """One of the paper's tables in miniature: the rows of ours, in order, and beside some of them the paper's.

    paper: by variant, rows of the paper's: each the table's number and the method.
    """

    key: str
    title: str
    source: str
    rows: tuple[str, ...]
    paper: dict[str, tuple[str, ...]]
    comparisons: tuple[Comparison, ...]
    note: str = ""


_VICUNA = (
    "By Table 1 the paper's LLaVA here has Vicuna-v1.5-7B as language model and its PARROT Qwen1.5-7B, so a part of "
    "what it shows between them may be the language model's: in Table 8, LLaVA with Qwen1.5-Chat-7B stands at 68.2 "
    "in English and 62.4 in Chinese. Ours all have the same."
)

CLAIMS: tuple[Claim, ...] = (
    Claim(
        "a",
        "Multilingual data and Parrot against LLaVA",
        "Table 9, MMMB",
        ("llava-english", "llava-english-more", "llava", "parrot"),
        {"llava-english": ("9 LLaVA w/o multilingual data",), "llava": ("9 LLaVA w/ multilingual data",),
         "parrot": ("9 PARROT",)},
        (
            Comparison("llava", "llava-english", "multilingual data alone help LLaVA", OTHERS),
            Comparison("parrot", "llava-english", "Parrot is above LLaVA without multilingual data", OTHERS),
            Comparison("parrot", "llava", "Parrot is above LLaVA with multilingual data", OTHERS),
            Comparison("llava-english-more", "llava-english", None, OTHERS),
            Comparison("llava", "llava-english-more", None, OTHERS),
        ),
        "The paper's point is that data alone help little and Parrot much: of its +11.0 points, +0.8 are the data's. "
        f"{_VICUNA} LLaVA with more English data is ours: it has as many steps as LLaVA with multilingual data.",
    ),
    Claim(
        "b",
        "With and without the mixture",
        "Figure 7a, of which no figures are at hand",
        ("llava-english", "parrot-english", "llava", "one-expert", "parrot"),
        {},
        (
            Comparison("parrot", "llava", "the mixture adds to multilingual data"),
            Comparison("parrot-english", "llava-english"),
            Comparison("parrot", "one-expert"),
        ),
        "One expert six times as wide is ours: it has the mixture's weights and nothing to choose from.",
    ),
    Claim(
        "c",
        "Languages one by one",
        "Table 6, MMBench; Table 14, MMMB",
        ("parrot-english", *(f"parrot-{'-'.join(OTHERS[:count])}" for count in range(1, len(OTHERS))), "parrot",
         *(f"parrot-{code}" for code in OTHERS[1:])),
        {
            "parrot-english": ("6 LLaVA-1.5-finetune", "14 LLaVA-1.5-finetune"),
            **{f"parrot-{'-'.join(OTHERS[:n])}": (f"6 + {' '.join(OTHERS[:n])}",) for n in range(2, len(OTHERS))},
            "parrot-zh": ("14 + zh 71k", "6 + zh"),
            "parrot-pt": ("14 + pt 14k",),
            "parrot-ar": ("14 + ar 12k",),
            "parrot-tr": ("14 + tr 17k",),
            "parrot-ru": ("14 + ru 14k",),
            "parrot": ("14 + zh pt ar tr ru", "6 + zh pt ar tr ru"),
        },
        (
            *(
                Comparison(f"parrot-{code}", "parrot-english", f"{code} data raise {code}", (code,))
                for code in OTHERS
            ),
            Comparison("parrot", "parrot-english", "all five languages' data raise the five", OTHERS),
            Comparison("parrot", "parrot-english", None, ("en",)),
        ),
    ),
    Claim(
        "d",
        "More data per language",
        "Table 11, MMMB",
        ("parrot", "parrot-3x", "parrot-5x", "parrot-7x"),
        {"parrot": ("11 10K",), "parrot-3x": ("11 30K",), "parrot-5x": ("11 50K",), "parrot-7x": ("11 70K",)},
        (
            Comparison("parrot-3x", "parrot", "three times the data are better", OTHERS),
            Comparison("parrot-5x", "parrot-3x", "five times are better than three", OTHERS),
            Comparison("parrot-7x", "parrot-5x", "seven times are better than five", OTHERS),
        ),
        "More data are more steps, here as in the paper.",
    ),
    Claim(
        "e",
        "Three sizes of the language model",
        "Table 12, MMMB",
        ("llm-small", "llm-medium", "llm-large"),
        {"llm-small": ("12 PARROT-7B",), "llm-medium": ("12 PARROT-14B",), "llm-large": ("12 PARROT-32B",)},
        (
            Comparison("llm-medium", "llm-small", "the medium language model is better than the small one"),
            Comparison("llm-large", "llm-medium", "the large one is better than the medium one"),
            Comparison("llm-medium", "llm-small", kind="open, exact"),
            Comparison("llm-large", "llm-medium", kind="open, exact"),
        ),
        "The three are pretrained for this study alone, with one short recipe and one seed; none is the shipped one, "
        "which has had many times the practice, so these rows stand below the others. To choose a letter takes "
        "drills that their recipe leaves out ([nano.md](nano.md)), so open answers are compared by themselves too.",
    ),
    Claim(
        "f",
        "Two vision encoders",
        "Table 7 (Chinese-CLIP) and Table 1 (OpenAI CLIP), MMMB",
        ("llava-english", "llava-english-multilingual-encoder", "llava", "llava-multilingual-encoder",
         "parrot", "parrot-multilingual-encoder"),
        {
            "llava-english": ("1 LLaVA-1.5",),
            "llava-english-multilingual-encoder": ("7 LLaVA-1.5",),
            "parrot": ("1 PARROT",),
            "parrot-multilingual-encoder": ("7 PARROT",),
        },
        (
            Comparison("parrot-multilingual-encoder", "llava-english-multilingual-encoder",
                       "Parrot is above LLaVA without multilingual data with the other encoder too"),
            Comparison("parrot-multilingual-encoder", "llava-multilingual-encoder"),
            Comparison("parrot-multilingual-encoder", "parrot"),
            Comparison("llava-english-multilingual-encoder", "llava-english"),
            Comparison("llava-multilingual-encoder", "llava"),
        ),
        "nano's shipped encoder was trained against English words alone. The other is trained by the same recipe, as "
        "long, on the same pictures, against the words of all six languages, one of them drawn for each step; "
        f"one of each. {_VICUNA}",
    ),
    Claim(
        "g",
        "Translate, then answer",
        "Table 10, MMMB",
        ("llava-english", "translated-0", "translated-0.1", "translated-0.3", "parrot"),
        {"llava-english": ("10 LLaVA",), "translated-0.1": ("10 LLaVA w/ translation",), "parrot": ("10 PARROT",)},
        (
            Comparison("translated-0.1", "llava-english", "translation helps LLaVA", OTHERS),
            Comparison("parrot", "translated-0.1", "Parrot is above LLaVA with translation", OTHERS),
            Comparison("parrot", "translated-0", None, OTHERS),
        ),
        "The question is put in English and the English answer translated back. Grammar and word order are always "
        "translated right; of the 61 words for things, colours, sizes, numbers, places and backgrounds the stated "
        "share is wrong or missing, half each, and as many on the way back. An answer with a missing word stays "
        "English; one of a single value comes back in its commonest form, since a translator of answers does not see "
        f"with what it has to agree. {_VICUNA}",
    ),
    Claim(
        "h",
        "Forms of the mixture",
        "no table; the paper's form against that of the released code",
        ("parrot", "swiglu", "alpha-0.1", "released-0.1", "released", "question", "top-1", "top-2"),
        {},
        tuple(
            Comparison(name, "parrot")
            for name in ("swiglu", "alpha-0.1", "released-0.1", "released", "question", "top-1", "top-2")
        ),
        "*Parrot* has two Linear with SiLU, G = H + M, a router that reads the whole prompt, and all experts. SwiGLU "
        "has half as many weights again. M + H is Parrot's own form, so the released residual is shown with its other "
        "weight. Routers of the question alone and of "
        "the top k exist in this study only: released code has the whole prompt and never uses its k, and so has the "
        "toolchain.",
    ),
)  # fmt: skip
