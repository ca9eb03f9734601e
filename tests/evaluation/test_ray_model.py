"""``parrot-eval --ray``: a real local cluster of two nodes, actors killed in the middle, the same results."""

import json
import os
import secrets
import shutil
import signal
import tempfile
import threading
import time
from dataclasses import replace
from pathlib import Path

import pytest
from click.testing import CliRunner
from tsv_files import choice, open_row, picture, yes_no

from parrot_evaluation.cli import main
from parrot_evaluation.models import ModelOptions, open_model
from parrot_runtime.errors import ImageError, InputError, ParrotError, TextError

ray = pytest.importorskip("ray", reason="ray is the extra [ray]")

pytestmark = [pytest.mark.slow, pytest.mark.timeout(500)]


@pytest.fixture(scope="module")
def cluster():
    """Two nodes of one CPU, each with a raylet of its own; what they write goes with them."""
    from ray.cluster_utils import Cluster

    # Short, because a socket's path is; and workers as urgent as others, or a busy machine starves them.
    folder = tempfile.mkdtemp(prefix="ray")
    settings = {
        "RAY_TMPDIR": folder,
        "RAY_USAGE_STATS_ENABLED": "0",
        "RAY_worker_niceness": "0",
        "RAY_AUTH_TOKEN": secrets.token_hex(32),
    }
    with pytest.MonkeyPatch.context() as patch:
        for name, value in settings.items():
            patch.setenv(name, value)
        (Path(folder) / "ray").mkdir()
        made = Cluster()
        try:
            made.add_node(num_cpus=1, include_dashboard=False)
            made.add_node(num_cpus=1)
            made.wait_for_nodes()
            yield made.address
        finally:
            ray.shutdown()
            made.shutdown()
            shutil.rmtree(folder)


@pytest.fixture
def data(make_tsv, tmp_path: Path) -> Path:
    rows = [choice("A"), yes_no("A", image=picture(1)), yes_no("B", image=picture(1)), open_row("red")]
    make_tsv("nano_tr.tsv", [rows[number % 4] | {"question": "n" * (1 + number)} for number in range(83)])
    return tmp_path


def run(bundle: Path, data: Path, out: Path, *more: object):
    given = ("nano", "--model", bundle, "--data", data, "--languages", "tr", "-o", out, *more)
    return CliRunner().invoke(main, [str(each) for each in given])


def kept(out: Path) -> dict[str, bytes]:
    (folder,) = (out / "nano").iterdir()
    return {path.name: path.read_bytes() for path in folder.iterdir()}


def test_results_are_those_of_a_single_process(cluster: str, bundle: Path, data: Path, tmp_path: Path) -> None:
    assert run(bundle, data, tmp_path / "one").exit_code == 0
    result = run(bundle, data, tmp_path / "many", "--ray", cluster, "--ray-cpus", 1, "--slots", 3)
    assert result.exit_code == 0, result.output
    assert "2 actors on Ray, one per 1 CPUs" in result.stderr
    assert kept(tmp_path / "many") == kept(tmp_path / "one")
    assert not ray.is_initialized()


def actors() -> list[int]:
    """The processes of this cluster's actors: those of other tests are none of ours."""
    import psutil

    found = []
    for process in psutil.Process().children(recursive=True):
        try:
            if process.cmdline()[:1] and process.cmdline()[0].startswith("ray::Worker"):
                found.append(process.pid)
        except psutil.Error:
            pass  # it has ended meanwhile
    return found


def test_actors_killed_in_the_middle_lose_nothing_and_are_replaced(
    cluster: str, bundle: Path, data: Path, tmp_path: Path
) -> None:
    assert run(bundle, data, tmp_path / "one").exit_code == 0
    out, killed = tmp_path / "killed", []

    def kill() -> None:
        deadline = time.monotonic() + 200
        while len(killed) < 2 and time.monotonic() < deadline:
            journal = next(out.glob("nano/*/answers.jsonl"), None)
            lines = 0 if journal is None else journal.read_bytes().count(b"\n")
            there = actors()
            if lines >= (1, 20)[len(killed)] and there:
                os.kill(there[0], signal.SIGKILL)
                killed.append(there[0])
            time.sleep(0.002)

    killer = threading.Thread(target=kill)
    killer.start()
    result = run(bundle, data, out, "--ray", cluster, "--ray-cpus", 1, "--slots", 1)
    killer.join()
    assert result.exit_code == 0, result.output
    assert len(killed) == 2
    assert "an actor on Ray died; another takes its place" in result.stderr
    assert kept(out) == kept(tmp_path / "one")
    lines = [json.loads(line) for line in kept(out)["answers.jsonl"].splitlines()]
    assert [line["index"] for line in lines] == [str(number) for number in range(83)]


def test_a_question_that_cannot_be_asked_ends_the_run_after_those_before_it(
    cluster: str, bundle: Path, make_tsv, tmp_path: Path
) -> None:
    from parrot_evaluation.runner import Question
    from parrot_evaluation.tsv import read_tsv

    image = read_tsv(make_tsv("nano_tr.tsv", [choice()])).rows[0].image_bytes
    questions = [Question(image, "x" * (1 + number), "tr", f"tr row {number}") for number in range(40)]
    questions[30] = Question(image, " ", "tr", "tr row 30")
    model = open_model(str(bundle), ModelOptions(ray=cluster, ray_cpus=1, slots=2), max_new_tokens=3)
    given = []
    try:
        with pytest.raises(TextError, match="asking tr row 30: the question is empty"):
            given += model.stream(questions)
        stream = model.stream(questions)
        assert len([next(stream) for _ in range(30)]) == 30
        stream.close()
    finally:
        model.close()


WAITING = "no actor runs on the Ray cluster, its devices may be in use; waiting for one"


def others_on_both_nodes() -> list:
    """Actors of somebody else, as many as there are CPUs; they wait where there is none free."""

    class Other:
        """A class of this function goes to the node whole."""

    return [ray.remote(Other).options(num_cpus=1).remote() for _ in range(2)]


def test_a_cluster_whose_devices_are_in_use_is_waited_for_and_then_told(
    cluster: str, bundle: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from parrot_evaluation import ray_pool

    monkeypatch.setattr(ray_pool, "_SAID", 1.0)
    monkeypatch.setattr(ray_pool, "_PATIENCE", 2.0)
    options, notes = ModelOptions(ray=cluster, ray_cpus=1), []
    ray.init(address=cluster, log_to_driver=False)
    try:
        others = others_on_both_nodes()
        ray.get([other.__ray_ready__.remote() for other in others], timeout=200)
        with pytest.raises(ParrotError, match="no actor could start on the Ray cluster within 2 s") as ended:
            open_model(str(bundle), options, max_new_tokens=3, note=notes.append)
        assert notes == [WAITING]
        assert "\n" not in str(ended.value)
        # Freed while it is waited for, they are used.
        monkeypatch.setattr(ray_pool, "_PATIENCE", 200.0)
        notes.clear()

        def free(line: str) -> None:
            notes.append(line)
            while others:
                ray.kill(others.pop())

        open_model(str(bundle), options, max_new_tokens=3, note=free).close()
        assert notes == [WAITING, "2 actors on Ray, one per 1 CPUs"]
    finally:
        ray.shutdown()


def test_actors_that_die_while_others_take_their_devices_are_told(
    cluster: str, bundle: Path, make_tsv, monkeypatch: pytest.MonkeyPatch
) -> None:
    from parrot_evaluation import ray_pool
    from parrot_evaluation.runner import Question
    from parrot_evaluation.tsv import read_tsv

    image = read_tsv(make_tsv("nano_tr.tsv", [choice()])).rows[0].image_bytes
    questions = [Question(image, "x" * (1 + number % 40), "tr", f"tr row {number}") for number in range(400)]
    options, notes = ModelOptions(ray=cluster, ray_cpus=1, slots=1), []
    ray.init(address=cluster, log_to_driver=False)
    model = None
    try:
        model = open_model(str(bundle), options, max_new_tokens=3, note=notes.append)
        stream = model.stream(questions)
        given = [next(stream)]
        others = others_on_both_nodes()
        monkeypatch.setattr(ray_pool, "_SAID", 1.0)
        monkeypatch.setattr(ray_pool, "_PATIENCE", 2.0)
        for pid in actors():
            os.kill(pid, signal.SIGKILL)
        # Before the stream goes on and asks for new actors of ours, or whose turn it is would be chance.
        ray.get([other.__ray_ready__.remote() for other in others], timeout=200)
        with pytest.raises(ParrotError, match="no actor could start on the Ray cluster within 2 s"):
            given += stream
        assert WAITING in notes
        assert len(given) < len(questions)
    finally:
        if model is not None:
            model.close()
        ray.shutdown()


def test_a_stream_that_is_given_up_leaves_nothing_to_the_next(cluster: str, bundle: Path, make_tsv) -> None:
    from parrot_evaluation.runner import Question
    from parrot_evaluation.tsv import read_tsv

    image = read_tsv(make_tsv("nano_tr.tsv", [choice()])).rows[0].image_bytes
    one, other = ([Question(image, letter * (1 + n), "tr", f"tr row {n}") for n in range(40)] for letter in "xo")
    here = open_model(str(bundle), ModelOptions(), max_new_tokens=3)
    there = open_model(str(bundle), ModelOptions(ray=cluster, ray_cpus=1, slots=1), max_new_tokens=3)
    try:
        expected = list(here.stream(other))
        assert expected != list(here.stream(one))
        stream = there.stream(one)
        next(stream)
        stream.close()
        assert list(there.stream(other)) == expected
    finally:
        here.close()
        there.close()


def test_the_limit_of_pixels_holds_on_the_nodes(cluster: str, bundle: Path, make_tsv) -> None:
    from parrot_evaluation.runner import Question
    from parrot_evaluation.tsv import read_tsv

    image = read_tsv(make_tsv("nano_tr.tsv", [choice()])).rows[0].image_bytes
    here = open_model(str(bundle), ModelOptions(max_pixels=14), max_new_tokens=3)
    there = open_model(str(bundle), ModelOptions(max_pixels=14, ray=cluster, ray_cpus=1), max_new_tokens=3)
    try:
        assert (there.name, there.fingerprint) == (here.name, here.fingerprint)
        with pytest.raises(ImageError, match="3 x 5 is 15 pixels, the limit is 14"):
            there.ask([Question(image, "Ne var?", "tr", "tr row 0")])
    finally:
        there.close()


def test_a_vision_tower_is_sent_by_its_whole_path_and_a_hub_name_as_it_is(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from parrot_evaluation.ray_model import _for_actors

    monkeypatch.chdir(tmp_path)
    (tmp_path / "towers" / "mine").mkdir(parents=True)
    (tmp_path / "towers" / "mine" / "config.json").write_text("{}")
    sent = {
        given: _for_actors(ModelOptions(ray="auto", dtype="bf16", vision_tower=given and Path(given)))
        for given in ("towers/mine", "openai/clip-vit-large-patch14-336", None)
    }
    assert sent["towers/mine"] == ModelOptions(dtype="bf16", vision_tower=tmp_path / "towers" / "mine")
    assert sent["openai/clip-vit-large-patch14-336"].vision_tower == Path("openai/clip-vit-large-patch14-336")
    assert sent[None].vision_tower is None


def test_a_model_that_a_node_lacks_is_one_clear_error(
    cluster: str, bundle: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from parrot_evaluation.ray_pool import Pool

    copy = shutil.copytree(bundle, tmp_path / "bundle")
    started = Pool.start

    for changed, said in (
        ({"model": str(tmp_path / "nowhere")}, "node .*nowhere is not there; put it at the same path on every node"),
        ({"digest": "0"}, "node .*is another one there; copy it again to every node"),
    ):

        def start(pool, changed: dict = changed) -> None:
            # What a node without the folder, or with another one, would find.
            pool._request = replace(pool._request, **changed)
            started(pool)

        monkeypatch.setattr(Pool, "start", start)
        with pytest.raises(InputError, match=said):
            open_model(str(copy), ModelOptions(ray=cluster, ray_cpus=1), max_new_tokens=3)
    assert not ray.is_initialized()


@pytest.mark.parametrize(
    ("more", "said"),
    [
        (("--ray-cpus", 64, "--ray", "{cluster}"), "no node of the Ray cluster has 64 CPUs, the most are 1"),
        (("--ray-cpus", 1), "give --ray too"),
        (("--ray", "127.0.0.1:9"), "--ray 127.0.0.1:9: no cluster answers there"),
    ],
)
def test_bad_usage_is_one_line(cluster: str, bundle: Path, data: Path, tmp_path: Path, more: tuple, said: str) -> None:
    result = run(bundle, data, tmp_path / "out", *(str(each).format(cluster=cluster) for each in more))
    assert result.exit_code == 2, result.output
    assert said in result.stderr
    assert len(result.stderr.strip().splitlines()) == 1
    assert not (tmp_path / "out").exists()


def test_without_ray_it_says_what_to_install(bundle: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import sys

    monkeypatch.setitem(sys.modules, "ray", None)
    with pytest.raises(InputError, match=r"ray is not installed; run `pip install 'parrot-edge\[ray\]'`"):
        open_model(str(bundle), ModelOptions(ray="auto"), max_new_tokens=3)
