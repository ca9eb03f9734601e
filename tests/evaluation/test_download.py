"""``--download`` against a local server: whole, cut, resumed, changed, refused; and what published sums say."""

import hashlib
import http.server
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from parrot_evaluation import download as downloading
from parrot_evaluation.benchmarks import BENCHMARKS
from parrot_evaluation.download import download, fetch
from parrot_evaluation.published import PUBLISHED, Published, compare, find_published
from parrot_runtime.errors import InputError, ParrotError

CONTENT = bytes(range(256)) * 1000
FILE = Published("MME.tsv", "http://unused/MME.tsv", hashlib.md5(CONTENT).hexdigest(), "somebody")


class FileServer(http.server.ThreadingHTTPServer):
    """Serves ``content`` under every name, in parts where asked; ``cut_at`` bytes hangs up after so many."""

    daemon_threads = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.content, self.cut_at, self.ranges, self.status, self.sized = CONTENT, None, True, 200, True
        self.claims: str | None = None
        self.asked: list[tuple[str, str | None]] = []
        self.thread = threading.Thread(target=self.serve_forever, kwargs={"poll_interval": 0.02})

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_address[1]}/VLMEval"


class _Handler(http.server.BaseHTTPRequestHandler):
    server: FileServer

    def log_message(self, *arguments) -> None:
        pass

    def do_GET(self) -> None:
        server, wanted = self.server, self.headers["Range"]
        server.asked.append((self.path, wanted))
        if server.status != 200:
            self.send_error(server.status)
            return
        start = int(wanted.removeprefix("bytes=").removesuffix("-")) if wanted and server.ranges else 0
        if start >= len(server.content) and start:
            self.send_error(416)
            return
        self.send_response(206 if start else 200)
        if start:
            whole = f"bytes {start}-{len(server.content) - 1}/{len(server.content)}"
            self.send_header("Content-Range", server.claims or whole)
        if server.sized:
            self.send_header("Content-Length", str(len(server.content) - start))
        self.end_headers()
        self.wfile.write(server.content[start : server.cut_at])


@pytest.fixture
def server() -> Iterator[FileServer]:
    with FileServer() as running:
        running.thread.start()
        yield running
        running.shutdown()
        running.thread.join()


@pytest.fixture
def get(server: FileServer, tmp_path: Path) -> Callable[[], list[str]]:
    """Fetches FILE; the lines it told."""

    def fetched() -> list[str]:
        told: list[str] = []
        fetch(FILE, f"{server.url}/MME.tsv", tmp_path / "MME.tsv", told.append)
        return told

    return fetched


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def test_a_file_arrives_whole_with_size_before_and_sums_after(get, tmp_path: Path) -> None:
    before, after = get()
    assert (tmp_path / "MME.tsv").read_bytes() == CONTENT
    assert names(tmp_path) == ["MME.tsv"]
    assert before.startswith("MME.tsv: 0.3 MB from http://127.0.0.1")
    assert f"SHA-256 {hashlib.sha256(CONTENT).hexdigest()}, MD5 {FILE.md5}, as published by somebody" in after


def test_a_file_that_is_cut_goes_on_where_it_stopped(server, get, tmp_path: Path) -> None:
    server.cut_at = 100_000
    with pytest.raises(
        ParrotError, match=r"cut off 0.2 MB before its end; 0.1 MB are kept, run the same command again"
    ):
        get()
    assert names(tmp_path) == [".MME.tsv.partial"]
    server.cut_at = None
    before, _ = get()
    assert (tmp_path / "MME.tsv").read_bytes() == CONTENT
    assert [wanted for _, wanted in server.asked] == [None, "bytes=100000-"]
    assert "0.1 MB of it here already" in before
    assert names(tmp_path) == ["MME.tsv"]


def test_a_server_without_ranges_sends_all_of_it_again(server, get, tmp_path: Path) -> None:
    server.cut_at = 1000
    with pytest.raises(ParrotError, match="1,000 bytes are kept"):
        get()
    server.cut_at, server.ranges = None, False
    get()
    assert (tmp_path / "MME.tsv").read_bytes() == CONTENT


def test_a_part_that_was_not_asked_for_is_not_appended(server, get, tmp_path: Path) -> None:
    (tmp_path / ".MME.tsv.partial").write_bytes(CONTENT[:1000])
    server.claims = "bytes 5000-5999/6000"
    with pytest.raises(ParrotError, match=f"its MD5 is {hashlib.md5(CONTENT[1000:]).hexdigest()}"):
        get()
    assert names(tmp_path) == []


def test_a_part_that_was_all_of_it_is_only_checked(server, get, tmp_path: Path) -> None:
    (tmp_path / ".MME.tsv.partial").write_bytes(CONTENT)
    get()
    assert (tmp_path / "MME.tsv").read_bytes() == CONTENT
    assert server.asked == [("/VLMEval/MME.tsv", f"bytes={len(CONTENT)}-")]


def test_another_file_than_the_published_one_is_removed(server, get, tmp_path: Path) -> None:
    server.content = CONTENT[:-1] + b"x"
    with pytest.raises(ParrotError, match=f"that of the published file {FILE.md5}, so it was removed") as caught:
        get()
    assert "\n" not in str(caught.value)
    assert names(tmp_path) == []


def test_a_part_of_another_file_is_found_out(server, get, tmp_path: Path) -> None:
    (tmp_path / ".MME.tsv.partial").write_bytes(b"y" * 5000)
    with pytest.raises(ParrotError, match="so it was removed; try again"):
        get()
    get()
    assert (tmp_path / "MME.tsv").read_bytes() == CONTENT


def test_without_a_length_the_checksum_still_tells(server, get, tmp_path: Path) -> None:
    server.sized = False
    assert "unknown size" in get()[0]
    (tmp_path / "MME.tsv").unlink()
    server.cut_at = 1000
    with pytest.raises(ParrotError, match="so it was removed"):
        get()


def test_a_file_that_is_not_there_is_one_line(server, get, tmp_path: Path) -> None:
    server.status = 404
    with pytest.raises(ParrotError, match=r"/MME\.tsv: status 404 Not Found$"):
        get()
    assert names(tmp_path) == []


def test_a_server_that_is_not_there_is_one_line(tmp_path: Path) -> None:
    with FileServer() as gone:
        url = gone.url
    with pytest.raises(ParrotError, match="onnection refused"):
        fetch(FILE, f"{url}/MME.tsv", tmp_path / "MME.tsv", lambda line: None)
    assert names(tmp_path) == []


def test_no_room_is_told_before_anything_is_written(server, get, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(downloading.shutil, "disk_usage", lambda folder: type("Usage", (), {"free": 10}))
    with pytest.raises(ParrotError, match=r"0.3 MB are to come and .* has 10 bytes left; make room"):
        get()


def test_two_downloads_of_one_file_do_not_meet(server, get, tmp_path: Path) -> None:
    with downloading._alone(tmp_path / ".MME.tsv.partial"), pytest.raises(InputError, match="another parrot-eval"):
        get()


def test_only_missing_files_are_fetched_from_the_mirror(
    server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    known = {file.name: file for file in PUBLISHED}
    same = [Published(file.name, file.url, FILE.md5, "somebody") for file in PUBLISHED]
    monkeypatch.setattr("parrot_evaluation.published.PUBLISHED", tuple(same))
    (tmp_path / "MMMB_EN.tsv").write_bytes(b"")
    told: list[str] = []
    download(BENCHMARKS["MMMB"], tmp_path, "en,zh,tr", mirror=f"{server.url}/", note=told.append)
    assert [path for path, _ in server.asked] == ["/VLMEval/mmmb_cn.tsv", "/VLMEval/mmmb_tr.tsv"]
    assert names(tmp_path) == ["MMMB_EN.tsv", "mmmb_cn.tsv", "mmmb_tr.tsv"]
    assert told[0].startswith("MMMB: licence: CC BY-NC-SA 4.0; from https://huggingface.co/")
    assert "mmmb_tr.tsv" in known


def test_a_folder_is_made_for_what_is_fetched(server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("parrot_evaluation.published.PUBLISHED", (FILE,))
    download(BENCHMARKS["MME"], tmp_path / "new", None, mirror=server.url, note=lambda line: None)
    assert names(tmp_path / "new") == ["MME.tsv"]


def test_a_translation_of_ones_own_does_not_stand_for_the_published_file(
    server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("parrot_evaluation.published.PUBLISHED", (FILE,))
    (tmp_path / "MME_tr.tsv").touch()
    download(BENCHMARKS["MME"], tmp_path, None, mirror=server.url, note=lambda line: None)
    assert names(tmp_path) == ["MME.tsv", "MME_tr.tsv"]


@pytest.mark.parametrize(
    ("name", "languages", "mirror", "said"),
    [
        ("nano", None, None, "nothing is to be fetched"),
        ("MME", "tr", None, r"no published file in tr .*put your own \(MME_tr.tsv\)"),
        ("MME", None, "ftp://x/y", "--mirror ftp://x/y: expected an address"),
        ("MME", None, "http://", "--mirror http://: expected an address"),
        ("MME", None, "http://[::1", "expected an address"),
        ("MME", None, "http://localhost:abc/", "expected an address"),
        ("MME", None, "http://localhost:99999/", "expected an address"),
        ("MME", None, "http://local host/", "expected an address"),
        ("MME", None, "http://localhost/ä", "expected an address"),
    ],
)
def test_what_cannot_be_fetched(
    tmp_path: Path, name: str, languages: str | None, mirror: str | None, said: str
) -> None:
    with pytest.raises(InputError, match=said):
        download(BENCHMARKS[name], tmp_path / "new", languages, mirror=mirror, note=lambda line: None)
    assert not (tmp_path / "new").exists()


def test_download_wants_a_folder() -> None:
    with pytest.raises(InputError, match="give the folder the files go to with --data"):
        download(BENCHMARKS["MME"], None, None, mirror=None, note=lambda line: None)


def test_a_folder_that_is_a_file_is_told(server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("parrot_evaluation.published.PUBLISHED", (FILE,))
    (tmp_path / "file").touch()
    for folder in (tmp_path / "file", tmp_path / "file" / "below"):
        with pytest.raises(InputError, match=f"{tmp_path / 'file'} is a file; give another folder"):
            download(BENCHMARKS["MME"], folder, None, mirror=server.url, note=lambda line: None)
    assert server.asked == []


def test_every_language_of_every_benchmark_that_is_published_is_found() -> None:
    assert len({file.name for file in PUBLISHED}) == len(PUBLISHED)
    for file in PUBLISHED:
        assert len(file.md5) == 32
        assert set(file.md5) <= set("0123456789abcdef")
        assert file.url.startswith("https://")
        assert file.url.endswith(f"/{file.name}")
    for benchmark in BENCHMARKS.values():
        for language in benchmark.languages:
            found = find_published(benchmark.file_names(language))
            assert (found is None) == (benchmark.source is None)
    # But for the case of the letters, the two MMBench have one name: the multilingual one is what is asked for.
    assert find_published(BENCHMARKS["MMBench_dev"].file_names("en")).publisher == "AIDC-AI/Parrot-dataset"


def test_sums_as_published_or_not() -> None:
    assert compare("MME.tsv", "b36b43c3f09801f5d368627fb92187c3") == "as published by VLMEvalKit"
    assert compare("mme.TSV", "0" * 32) == "differs from the one published by VLMEvalKit"
    assert compare("mmbench_dev_en.tsv", "b6caf1133a01c6bb705cf753bb527ed8") == "as published by VLMEvalKit"
    assert compare("MMBench_DEV_EN.tsv", "d9ab776fc018b3d45785e9a5c23431c2") == "as published by AIDC-AI/Parrot-dataset"
    assert compare("MMBench_DEV_EN.tsv", "") == (
        "differs from the one published by AIDC-AI/Parrot-dataset and VLMEvalKit"
    )
    assert compare("nano_tr.tsv", "0" * 32) is None
