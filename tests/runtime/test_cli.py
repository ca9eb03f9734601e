"""``parrot-run`` as a person uses it."""

import functools
import io
import json
import os
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from click.testing import CliRunner
from PIL import Image

from parrot_runtime.backends.onnxruntime import OnnxRuntimeBackend
from parrot_runtime.cli import main
from parrot_runtime.errors import ParrotError
from parrot_runtime.run import read_questions, sort_arguments

SHORT = ("--max-new-tokens", "6", "--threads", "1")


@pytest.fixture
def desk(bundle, picture, tmp_path, monkeypatch):
    """A working folder with ``bundles/tiny`` and two pictures."""
    shutil.copytree(bundle, tmp_path / "bundles/tiny")
    picture.save(tmp_path / "red.png")
    Image.new("RGB", (9, 9), (0, 0, 200)).save(tmp_path / "mavi göl.jpg")
    monkeypatch.chdir(tmp_path)
    return tmp_path


def _run(*arguments, stdin=None):
    # What says how an answer is made is refused where none is.
    short = SHORT[2:] if "--choices" in arguments else SHORT
    return CliRunner().invoke(main, [*short, *arguments], input=stdin)


def _refused(message, *arguments, stdin=None):
    result = _run(*arguments, stdin=stdin)
    assert result.exit_code == 2
    assert result.stdout == ""
    assert message in result.stderr
    assert len(result.stderr.splitlines()) == 1
    assert result.stderr.startswith("main: ")


def _png(picture):
    buffer = io.BytesIO()
    picture.save(buffer, "PNG")
    return buffer.getvalue()


# -- what is a picture, what is a question ----------------------------------------------------------------------------


PICTURES = (
    *("red.png", "mavi göl.jpg", "-", "nope.jpg", "nope.JPEG", "drawing.svg", "phone.heic", "bundles"),
    *("./nope", "../x", "/no/pe", "~/x", "https://example.org/a"),
)
QUESTIONS = (
    *("What?", "Görselde ne var?", "这是什么？", "ما هذا؟", "nope", "a/b?", "/ what is this", "e.g. what"),
    *("x" * 5000, "a\0b", "", " ", "\n", "\udcff"),
)


@pytest.mark.parametrize("argument", PICTURES)
def test_pictures(desk, argument):
    assert sort_arguments([argument]) == ([argument], [])


@pytest.mark.parametrize("argument", QUESTIONS)
def test_questions(desk, argument):
    assert sort_arguments([argument]) == ([], [argument])


def test_order_is_kept(desk):
    assert sort_arguments(["b?", "red.png", "a?", "nope.png"]) == (["red.png", "nope.png"], ["b?", "a?"])


# -- answers ----------------------------------------------------------------------------------------------------------


def test_an_answer_on_stdout_and_the_bundle_on_stderr(desk, parrot):
    result = _run("red.png", "Görselde ne var?")
    assert result.exit_code == 0
    assert result.stdout == parrot.ask("red.png", "Görselde ne var?", max_new_tokens=6).text + "\n"
    assert result.stderr == "parrot-run: using bundles/tiny, the newest under bundles/\n"


@pytest.mark.parametrize("steps", [0, 4])
def test_an_answer_that_fails_ends_its_line_if_it_began(desk, monkeypatch, steps):
    decode, left = OnnxRuntimeBackend.decode, [None] * steps

    def breaking(*arguments):
        if not left:
            raise ParrotError("the decoder graph failed")
        left.pop()
        return decode(*arguments)

    monkeypatch.setattr(OnnxRuntimeBackend, "decode", breaking)
    result = _run("red.png", "Görselde ne var?", "--bundle", "bundles/tiny", "--no-lookup")
    assert result.exit_code == 1
    assert result.stderr == "main: the decoder graph failed\n"
    assert bool(result.stdout) == bool(steps)
    assert result.stdout == result.stdout.rstrip("\n") + "\n" * bool(steps)


def test_a_named_bundle_is_not_announced(desk):
    result = _run("red.png", "?", "--bundle", "bundles/tiny")
    assert (result.exit_code, result.stderr) == (0, "")


def test_the_bundles_passed_over_are_named(desk):
    shutil.copytree("bundles/tiny", "bundles/newer")
    (desk / "bundles/newer/parrot.json").write_text("{}")
    result = _run("red.png", "?")
    assert result.exit_code == 0
    first, second = result.stderr.splitlines()
    assert first.startswith("parrot-run: passed over bundles/newer/parrot.json: schema_version is None")
    assert second == "parrot-run: using bundles/tiny, the newest under bundles/"


def test_every_question_about_all_pictures(desk, parrot):
    images = ["red.png", "mavi göl.jpg"]
    result = _run("red.png", "one?", "mavi göl.jpg", "two?")
    expected = [parrot.ask(images, question, max_new_tokens=6).text for question in ("one?", "two?")]
    assert result.stdout == "".join(f"{text}\n" for text in expected)
    assert result.stderr.splitlines()[1:] == ["» one?", "» two?"]


def test_json(desk, parrot):
    result = _run("--json", "--bundle", "bundles/tiny", "red.png", "mavi göl.jpg", "one?", "iki?")
    assert result.stderr == ""
    records = [json.loads(line) for line in result.stdout.splitlines()]
    for record, question in zip(records, ("one?", "iki?"), strict=True):
        answer = parrot.ask(["red.png", "mavi göl.jpg"], question, max_new_tokens=6)
        assert record["question"] == question
        assert record["answer"] == answer.text
        assert record["images"] == ["red.png", "mavi göl.jpg"]
        assert record["bundle"] == "bundles/tiny"
        assert record["tokens"]["new"] == 6
        assert [len(shares) for shares in record["routing"]] == [6, 6]
    assert records[0]["timings"]["image_ms"] > records[1]["timings"]["image_ms"]


def test_stats(desk):
    result = _run("--stats", "--bundle", "bundles/tiny", "red.png", "one?")
    words = [line.split()[0] for line in result.stderr.splitlines()]
    assert words == ["load", "image", "experts", "prefill", "decode", "first", "routing", "red.png"]


def test_a_picture_on_stdin(desk, parrot, picture):
    result = _run("-", "one?", stdin=_png(picture))
    assert result.stdout == parrot.ask(picture, "one?", max_new_tokens=6).text + "\n"
    assert json.loads(_run("--json", "-", "one?", stdin=_png(picture)).stdout)["images"] == ["stdin"]


def test_questions_from_stdin_and_from_a_file(desk):
    expected = _run("red.png", "one?", "iki?").stdout
    assert _run("red.png", "-q", "-", stdin="one?\n\n  \niki?\n").stdout == expected
    (desk / "q.txt").write_text("\ufeffone?\r\niki?", encoding="utf-8")
    assert _run("red.png", "--questions", "q.txt").stdout == expected
    assert _run("--image", "red.png", "-q", "one?", "-q", "iki?").stdout == expected


def test_a_conversation_goes_on_after_what_is_wrong(desk, parrot, picture, other_picture):
    blue = Image.open("mavi göl.jpg")
    chat = parrot.chat(picture)
    expected = [chat.ask(question, max_new_tokens=6).text for question in ("one?", "iki?")]
    expected += [parrot.chat(picture).ask("üç?", max_new_tokens=6).text]
    expected += [parrot.chat(blue).ask("dört?", max_new_tokens=6).text]
    lines = "iki?\n\n/nonsense\n/image\n/image nope.png\n/reset\nüç?\n/image mavi göl.jpg\ndört?\n/quit\nbeş?\n"
    result = _run("-i", "red.png", "one?", stdin=lines)
    assert result.exit_code == 0
    assert result.stdout == "".join(f"{text}\n" for text in expected)
    said = [line for line in result.stderr.splitlines() if "using" not in line]
    assert len(said) == 3
    for line, told in zip(said, ("no command", "wants a picture", "nope.png"), strict=True):
        assert told in line


def test_a_conversation_shows_its_figures_and_its_help_when_asked(desk):
    result = _run("-i", "red.png", stdin="/help\none?\n/stats\ntwo?\n/stats\nthree?\n")
    assert "/image FILE" in result.stderr
    assert result.stderr.count("first token after") == 1
    json_lines = _run("-i", "red.png", "--json", stdin="one?\ntwo?\n").stdout.splitlines()
    assert [json.loads(line)["question"] for line in json_lines] == ["one?", "two?"]


def test_a_line_that_is_not_utf8_is_refused_and_it_alone(desk):
    result = _run("-i", "red.png", stdin=b"one?\n" + b"caf\xe9?\n" + b"iki?\n")
    assert result.exit_code == 0
    assert result.stdout == _run("-i", "red.png", stdin="one?\niki?\n").stdout
    assert "lone surrogate" in result.stderr


def test_a_conversation_needs_stdin_for_itself(desk):
    _refused("-i reads its questions from stdin", "-i", "-", stdin=b"")
    _refused("--choices scores questions one by one", "-i", "red.png", "--choices", "A,B", stdin=b"")


def test_choices_are_scored(desk, parrot, picture):
    shares = parrot.choose(picture, "one?", ["A", "B", "a, b"]).shares
    result = _run("red.png", "one?", "--choices", 'A,B,"a, b"', "--stats")
    assert result.stdout == max(shares, key=shares.get) + "\n"
    assert "choices" in result.stderr
    record = json.loads(_run("red.png", "one?", "--choices", 'A,B,"a, b"', "--json").stdout)
    assert record["choices"] == pytest.approx(shares, abs=1e-5)
    _refused("expected two or more", "red.png", "one?", "--choices", "A")
    _refused("expected one line", "red.png", "one?", "--choices", "A\nB")


def test_options_leave_no_doubt(desk, parrot, picture):
    shutil.copy("red.png", "what is this")
    assert _run("--image", "what is this", "-q", "red.png").stdout == (
        parrot.ask(picture, "red.png", max_new_tokens=6).text + "\n"
    )


def test_without_a_picture_on_purpose(desk, parrot):
    assert _run("--text-only", "one?").stdout == parrot.ask(None, "one?", max_new_tokens=6).text + "\n"


def test_sampling_options_arrive(desk):
    hot = ("--temperature", "2", "--top-p", "0.9", "--repetition-penalty", "1.2")
    answers = [_run("red.png", "one?", *hot, "--seed", seed).stdout for seed in "112"]
    assert answers[0] == answers[1] != answers[2]


# -- refusals ---------------------------------------------------------------------------------------------------------


def test_refusals(desk):
    (desk / "text.txt").write_text("hello, this is a text")
    (desk / "latin.txt").write_bytes(b"ne \xe7ok?\n")
    (desk / "empty.txt").touch()
    _refused("nope.jpg: there is no such picture", "nope.jpg", "one?")
    _refused("text.txt: this is text, not a picture", "text.txt", "one?")
    _refused("empty.txt: the file is empty", "empty.txt", "one?")
    _refused("bundles: this is a folder", "bundles", "one?")
    _refused("no question was given", "red.png")
    _refused("no question was given")
    _refused("no picture was given; name one before the question, or say --text-only", "one?")
    _refused("red.png was given together with --text-only", "--text-only", "red.png", "one?")
    _refused("the question is empty", "red.png", "")
    _refused("the question is empty", "red.png", "one?", "-q", " ")
    _refused("lone surrogate U+DCFF", "red.png", "\udcff")
    _refused("stdin can be read once", "-", "-q", "-", stdin="")
    _refused("stdin: the file is empty", "-", "one?", stdin="")
    _refused("stdin: holds no question", "red.png", "-q", "-", stdin="\n \n")
    _refused("latin.txt: the questions are not UTF-8 (byte 3)", "red.png", "--questions", "latin.txt")
    _refused("nope.txt: the questions cannot be read", "red.png", "--questions", "nope.txt")
    _refused("1,189 pixels, the limit is 1,000", "red.png", "one?", "--max-pixels", "1000")
    _refused("temperature is -1.0; expected 0", "red.png", "one?", "--temperature", "-1")
    _refused("max_new_tokens is 0", "--bundle", "bundles/tiny", "red.png", "one?", "--max-new-tokens", "0")
    _refused("nope: there is no such bundle folder", "red.png", "one?", "--bundle", "nope")
    _refused("cannot be read (File name too long)", "red.png", "one?", "--bundle", "n" * 300)
    _refused("--reroute is about", "red.png", "one?", "--reroute", "never")
    for option in (("--max-new-tokens", "3"), ("--temperature", "1"), ("--seed", "3"), ("--no-lookup",)):
        _refused("is about making an answer", "red.png", "one?", "--choices", "A,B", *option)
    _refused("room for 255", "--bundle", "bundles/tiny", "red.png", "long " * 100)


def test_a_line_ends_where_an_editor_ends_it(desk):
    (desk / "questions.txt").write_bytes("What is\u2028in it?\r\nWhat\fnow?\n".encode())
    assert read_questions("questions.txt") == ["What is\u2028in it?", "What\fnow?"]


def test_a_user_without_a_home_is_answered(desk, monkeypatch):
    def homeless():
        raise RuntimeError("Could not determine home directory.")

    monkeypatch.delenv("XDG_STATE_HOME")
    monkeypatch.setattr(Path, "home", homeless)
    result = _run("red.png", "one?", "--json")
    assert result.exit_code == 0, result.stderr
    assert json.loads(result.stdout)["answer"] is not None


def test_a_conversation_survives_a_picture_that_cannot_be(desk):
    lines = f"\ufeff/stats\n/image ~nobody-of-this-name/a.jpg\n/image {'n' * 300}\none?\n"
    result = _run("-i", "red.png", stdin=lines.encode())
    assert result.exit_code == 0, result.stderr
    assert "~nobody-of-this-name/a.jpg: there is no such picture" in result.stderr
    assert "File name too long" in result.stderr
    assert "prefill" in result.stderr  # of the answer: /stats was a command, behind the mark


def test_nothing_is_left_in_the_home_and_nobody_is_told(desk):
    """In a process of its own: onnxruntime asks once whether it may report to its maker."""
    home = desk / "home"
    home.mkdir()
    environment = {name: value for name, value in os.environ.items() if name != "ORT_DISABLE_TELEMETRY"}
    done = subprocess.run(
        [*_PROGRAM, *SHORT, "red.png", "one?"],
        env=environment | {"HOME": str(home), "XDG_CACHE_HOME": str(home / "cache")},
        capture_output=True,
        timeout=120,
    )
    assert done.returncode == 0, done.stderr
    assert list(home.rglob("*")) == []


def test_no_bundle_anywhere(desk, monkeypatch):
    monkeypatch.setattr("parrot_runtime.bundles.find_bundle.__defaults__", (desk / "none", desk / "none"))
    _refused("no bundle to run", "red.png", "one?")


def test_an_altered_bundle(desk):
    with open("bundles/tiny/tokenizer.json", "a") as file:
        file.write(" ")
    _refused("tokenizer.json: ", "--bundle", "bundles/tiny", "red.png", "one?")


def test_verbose_shows_where_it_came_from_and_keeps_the_exit_code(desk):
    result = _run("nope.jpg", "one?", "-v")
    assert result.exit_code == 2
    assert "Traceback" in result.stderr
    assert result.stderr.splitlines()[-1].startswith("main: nope.jpg: there is no such picture")


# -- real processes ---------------------------------------------------------------------------------------------------

_PROGRAM = [sys.executable, "-c", "from parrot_runtime.cli import main; main(prog_name='parrot-run')"]


def _process(*arguments, **options):
    environment = {**os.environ, "OMP_NUM_THREADS": "1", **options.pop("env", {})}
    command = [*_PROGRAM, *SHORT, *arguments]
    return subprocess.run(command, capture_output=True, check=False, timeout=120, env=environment, **options)


def test_a_file_name_that_is_not_utf_8(desk):
    name = b"raw-\xff.png"
    shutil.copy(b"red.png", name)
    done = _process(name, "one?", "--json")
    assert done.returncode == 0
    assert json.loads(done.stdout)["images"] == ["raw-\\xff.png"]
    os.remove(name)
    done = _process(name, "one?")
    assert done.returncode == 2
    assert done.stderr == b"parrot-run: raw-\\xff.png: there is no such picture; check the path\n"


def test_a_locale_that_knows_no_unicode(desk, parrot):
    done = _process("red.png", "Görselde ne var?", env={"PYTHONIOENCODING": "ascii", "LC_ALL": "C"})
    assert done.returncode == 0
    expected = parrot.ask("red.png", "Görselde ne var?", max_new_tokens=6).text
    assert done.stdout.decode("utf-8") == expected + "\n"


def test_a_reader_that_leaves(desk):
    command = [*_PROGRAM, "--threads", "1", "red.png", *["one?"] * 200]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as process:
        process.stdout.read(1)
        process.stdout.close()
        errors = process.stderr.read().decode()
        process.wait(60)
    assert "Traceback" not in errors
    assert "BrokenPipe" not in errors


def test_ctrl_c(desk):
    os.mkfifo("questions")
    command = [*_PROGRAM, "red.png", "--questions", "questions"]
    # What a shell runs in the background is told to ignore SIGINT, and its children are born so.
    heed = functools.partial(signal.signal, signal.SIGINT, signal.SIG_DFL)
    with subprocess.Popen(command, stderr=subprocess.PIPE, preexec_fn=heed) as process:
        # The pipe opens here when the program opens it there: it is then waiting for a question. It is closed because
        # a signal that comes just before the read would otherwise only be seen after it.
        with open("questions", "wb"):
            process.send_signal(signal.SIGINT)
        _, errors = process.communicate(timeout=60)
    assert process.returncode == 130
    assert errors == b"\n"


def test_a_leading_dash(desk):
    shutil.copy("red.png", "-red.png")
    assert _process("--", "-red.png", "one?").stdout == _process("red.png", "one?").stdout != b""


def test_a_terminal_is_not_waited_for(desk):
    import pty

    leader, follower = pty.openpty()
    try:
        done = _process("-", "one?", stdin=follower)
    finally:
        os.close(leader)
        os.close(follower)
    assert done.returncode == 2
    assert b"a picture was expected on stdin, and stdin is a terminal" in done.stderr
