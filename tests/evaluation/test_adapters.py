"""Parrot in others' kits: against their real base classes where they are installed, and against stand-ins everywhere.

A stand-in has what the adapter uses of the kit, written after its interface; with the real package installed the same
tests run on its own classes too.
"""

import subprocess
import sys
import types
from importlib.metadata import entry_points
from importlib.util import find_spec
from pathlib import Path

import pytest
from PIL import Image

from parrot_evaluation.adapters import lmms_eval as lmms_adapter
from parrot_evaluation.adapters import vlmevalkit
from parrot_runtime.errors import InputError
from parrot_runtime.parrot import Parrot


@pytest.fixture
def pictures(tmp_path: Path) -> list[Path]:
    paths = [tmp_path / f"{number}.png" for number in range(3)]
    for number, path in enumerate(paths):
        Image.new("RGB", (31, 17), (80 * number, 9, 200)).save(path)
    return paths


def real_or_stand_in(request, monkeypatch: pytest.MonkeyPatch, name: str, modules: dict[str, dict]) -> None:
    if request.param == "real":
        if find_spec(name) is None:
            pytest.skip(f"{name} is not installed")
        return
    for path, content in modules.items():
        module = types.ModuleType(path)
        vars(module).update(content)
        monkeypatch.setitem(sys.modules, path, module)


@pytest.fixture(params=["real", "stand-in"])
def kit(request, monkeypatch: pytest.MonkeyPatch):
    """VLMEvalKit."""

    class BaseModel:
        allowed_types = ("text", "image")

        def __init__(self):
            self.dump_image_func = None

        def set_dump_image(self, function):
            self.dump_image_func = function

        def dump_image(self, line, dataset):
            return self.dump_image_func(line)

        def generate(self, message, dataset=None):
            assert all(each["type"] in self.allowed_types for each in message)
            return self.generate_inner(message, dataset)

    modules = {
        "vlmeval": {},
        "vlmeval.vlm": {},
        "vlmeval.vlm.base": {"BaseModel": BaseModel},
        "vlmeval.config": {"supported_VLM": {}},
    }
    real_or_stand_in(request, monkeypatch, "vlmeval", modules)
    vlmevalkit.model_class.cache_clear()
    yield
    vlmevalkit.model_class.cache_clear()


@pytest.fixture(params=["real", "stand-in"])
def lmms(request, monkeypatch: pytest.MonkeyPatch):
    """lmms-eval."""

    class Lmms:
        def __init__(self):
            self.task_dict, self.cache_hook = {}, types.SimpleNamespace(add_partial=lambda *arguments: None)

        @classmethod
        def create_from_arg_string(cls, arguments, more):
            given = dict(pair.split("=") for pair in arguments.split(","))
            return cls(**given, **{name: value for name, value in more.items() if value is not None})

    modules = {"lmms_eval": {}, "lmms_eval.api": {}, "lmms_eval.api.model": {"lmms": Lmms}}
    real_or_stand_in(request, monkeypatch, "lmms_eval", modules)
    lmms_adapter.model_class.cache_clear()
    yield
    lmms_adapter.model_class.cache_clear()


def test_vlmevalkit_gets_the_runtimes_answers(kit, bundle: Path, pictures: list[Path]) -> None:
    vlmevalkit.register("tiny", bundle=str(bundle), max_new_tokens=6)
    from vlmeval.config import supported_VLM
    from vlmeval.vlm.base import BaseModel

    model = supported_VLM.pop("tiny")()
    assert isinstance(model, BaseModel)
    message = [
        {"type": "text", "value": "first"},
        {"type": "image", "value": str(pictures[0])},
        {"type": "image", "value": str(pictures[1])},
        {"type": "text", "value": "second"},
    ]
    expected = Parrot.load(bundle).ask(pictures[:2], "first\nsecond", max_new_tokens=6).text
    assert model.generate(message, dataset="MMBench_DEV_EN") == expected
    alone = [{"type": "text", "value": "no picture"}]
    assert model.generate(alone) == Parrot.load(bundle).ask(None, "no picture", max_new_tokens=6).text
    with pytest.raises(InputError, match="a message has audio"):
        model.generate_inner([{"type": "audio", "value": "a.wav"}])


@pytest.mark.parametrize(
    ("dataset", "sub", "sentence"),
    [
        ("MMMB_tr", None, "Verilen seçeneklerden doğrudan seçeneğin harfi ile cevap verin."),
        ("MMBench_dev_cn", None, "请直接用给定选项中的选项字母回答。"),
        ("MMMB", "MMMB_pt", "Responda diretamente com a letra da opção das escolhas dadas."),
        ("MTL_MMBench_DEV", "MMBench_dev_ru", "Ответьте буквой варианта из предложенных вариантов напрямую."),
    ],
)
def test_vlmevalkit_asks_the_papers_benchmarks_as_the_model_was_trained(
    kit, bundle: Path, pictures: list[Path], dataset: str, sub: str | None, sentence: str
) -> None:
    model = vlmevalkit.model_class()(str(bundle), max_new_tokens=6)
    model.set_dump_image(lambda line: [str(pictures[line["index"]])])
    assert model.use_custom_prompt(dataset)
    line = {"index": 2, "question": "Q?", "hint": float("nan"), "A": "a dog", "B": "a cat", "C": float("nan")}
    message = model.build_prompt(line | ({"SUB_DATASET": sub} if sub else {}), dataset=dataset)
    assert message == [
        {"type": "image", "value": str(pictures[2])},
        {"type": "text", "value": f"Q?\nA. a dog\nB. a cat\n{sentence}"},
    ]
    assert (
        model.generate(message, dataset)
        == Parrot.load(bundle).ask(pictures[2], message[1]["value"], max_new_tokens=6).text
    )


def test_vlmevalkit_keeps_the_letters_of_options_with_a_gap(kit, bundle: Path) -> None:
    model = vlmevalkit.model_class()(str(bundle))
    model.set_dump_image(lambda line: [])
    line = {"question": "Q?", "A": "a dog", "B": float("nan"), "C": "a cat", "D": "", "answer": "C"}
    (message,) = model.build_prompt(line, dataset="MMMB_tr")
    sentence = "Verilen seçeneklerden doğrudan seçeneğin harfi ile cevap verin."
    assert message["value"] == f"Q?\nA. a dog\nC. a cat\n{sentence}"


def test_vlmevalkit_asks_other_benchmarks_in_its_own_way(kit, bundle: Path) -> None:
    model = vlmevalkit.model_class()(str(bundle))
    assert not any(map(model.use_custom_prompt, ("MMBench_DEV_EN", "MME", "MMMB_xx", "MMStar")))
    assert not vlmevalkit.model_class()(str(bundle), own_prompt=False).use_custom_prompt("MMMB_tr")
    model.set_dump_image(lambda line: [])
    with pytest.raises(InputError, match="a row does not say which language it is in"):
        model.build_prompt({"question": "Q?"}, dataset="MMMB")
    with pytest.raises(InputError, match="MMMB_xx: a row does not say which language it is in"):
        model.build_prompt({"question": "Q?", "SUB_DATASET": "MMMB_xx"}, dataset="MMMB")


def test_vlmevalkits_own_script_finds_the_model(kit, bundle: Path, tmp_path: Path) -> None:
    """A script in the place of run.py, which looks the model up as that does."""
    from click.testing import CliRunner

    script = tmp_path / "run.py"
    script.write_text(
        "import sys\nfrom vlmeval.config import supported_VLM\n"
        "name = sys.argv[sys.argv.index('--model') + 1]\n"
        "print(supported_VLM[name]().generate([dict(type='text', value='ne?')]), sys.argv[1:])\n"
    )
    given = ["--bundle", str(bundle), "--name", "mine", str(script), "--data", "MMMB_tr", "--model", "mine"]
    result = CliRunner().invoke(vlmevalkit.main, given)
    assert result.exit_code == 0, result.output
    assert "['--data', 'MMMB_tr', '--model', 'mine']" in result.stdout
    from vlmeval.config import supported_VLM

    supported_VLM.pop("mine")


class Request:
    def __init__(self, *arguments: object) -> None:
        self.args = arguments


def test_lmms_eval_gets_the_runtimes_answers_in_the_order_of_its_requests(
    lmms, bundle: Path, pictures: list[Path]
) -> None:
    from lmms_eval.api.model import lmms as base

    model = lmms_adapter.Parrot.create_from_arg_string(f"bundle={bundle},threads=1", {"batch_size": 3, "device": None})
    assert isinstance(model, base)
    assert model.batch_size == 3
    model.task_dict = {"task": {"test": [{"picture": path} for path in pictures]}}

    def visual(doc: dict) -> list[Image.Image]:
        return [Image.open(doc["picture"])]

    settings = [{"max_new_tokens": 3 + number % 2 * 4, "until": ["\n\n"], "temperature": 0} for number in range(7)]
    requests = [
        Request(f"<image>\nquestion {number}", settings[number], visual, number % 3, "task", "test")
        for number in range(7)
    ]
    parrot = Parrot.load(bundle)
    expected = [
        parrot.ask(pictures[n % 3], f"question {n}", max_new_tokens=3 + n % 2 * 4).text.split("\n\n")[0]
        for n in range(7)
    ]
    assert model.generate_until(requests) == expected
    assert len(set(expected)) >= 3
    stop = expected[0][1]
    cut = Request("question 0", {"max_new_tokens": 3, "until": stop}, visual, 0, "task", "test")
    assert model.generate_until([cut]) == [expected[0].split(stop)[0]]
    with pytest.raises(NotImplementedError, match="a task that generates"):
        model.loglikelihood([])
    with pytest.raises(InputError, match="a question has a str; Parrot reads pictures and text"):
        model.generate_until([Request("q", {}, lambda doc: ["video.mp4"], 0, "task", "test")])


def test_lmms_eval_options_that_mean_nothing_here_are_refused(lmms, bundle: Path) -> None:
    with pytest.raises(InputError, match="--device cuda: a bundle says itself what runs it"):
        lmms_adapter.Parrot(str(bundle), device="cuda")
    with pytest.raises(InputError, match="--batch_size auto: expected a number"):
        lmms_adapter.Parrot(str(bundle), batch_size="auto")


def test_lmms_eval_finds_the_model_by_its_entry_point() -> None:
    (entry,) = entry_points(group="lmms_eval.models", name="parrot")
    assert entry.value == "parrot_evaluation.adapters.lmms_eval:manifest"
    if find_spec("lmms_eval") is None:
        pytest.skip("lmms_eval is not installed; the entry point is there")
    from lmms_eval.api.model import lmms as base
    from lmms_eval.models import get_model

    lmms_adapter.model_class.cache_clear()
    assert issubclass(get_model("parrot"), base)


def test_neither_kit_is_imported_before_it_is_used() -> None:
    code = (
        "import sys; from parrot_evaluation.adapters import lmms_eval, vlmevalkit; "
        "print([m for m in sys.modules if m.split('.')[0] in ('lmms_eval', 'vlmeval', 'torch')])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=60)
    assert done.stdout.strip() == "[]"


@pytest.mark.parametrize(("module", "adapter"), [("vlmeval", vlmevalkit), ("lmms_eval", lmms_adapter)])
def test_without_the_kit_it_says_so(module: str, adapter, monkeypatch: pytest.MonkeyPatch) -> None:
    adapter.model_class.cache_clear()
    for name in [name for name in sys.modules if name.split(".")[0] == module]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, module, None)
    with pytest.raises(InputError, match="cannot be imported here"):
        adapter.model_class()
