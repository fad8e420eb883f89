"""Data from their public homes: from a server of our own, and from a stand-in for the hub."""

import dataclasses
import hashlib
import json
import re
import sys
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import unquote

import pytest

import published_rows as rows
from prmkit.errors import FormatError, InvalidSetting, MissingDependency
from prmkit.evaluation import github, hub
from prmkit.evaluation.benchmarks import BENCHMARKS
from prmkit.evaluation.cases import DataFile

ON_HUB = [name for name, known in BENCHMARKS.items() if known.hub]
IN_GIT = [name for name, known in BENCHMARKS.items() if known.git]
COMMIT = re.compile(r"[0-9a-f]{40}")
OTHER = "0" * 40


class Served:
    """Files of repositories on 127.0.0.1, by their paths; what was asked for is kept."""

    def __init__(self):
        self.files, self.asked = {}, []
        served = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self):
                path = unquote(self.path)
                served.asked.append(path)
                content = served.files.get(path)
                self.send_response(404 if content is None else 200)
                self.end_headers()
                self.wfile.write(content or b"404: Not Found")

            def log_message(self, *args):
                pass

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.thread = threading.Thread(target=self.server.serve_forever)
        self.thread.start()
        self.url = f"http://127.0.0.1:{self.server.server_port}"

    def close(self):
        self.server.shutdown()
        self.thread.join()
        self.server.server_close()


@pytest.fixture
def served(monkeypatch):
    found = Served()
    monkeypatch.setattr(github, "RAW", f"{found.url}/raw")
    monkeypatch.setattr(github, "LARGE", f"{found.url}/large")
    yield found
    found.close()


def published(name, folder):
    """The benchmark, and small files in its format by their paths in its repository."""
    known = BENCHMARKS[name]
    written = {f.name.lower(): f for f in rows.WRITERS[name](folder).rglob("*") if f.is_file()}
    files = [
        f._replace(sha256=None) for f in known.files if f.path.split("/")[-1].lower() in written
    ]
    contents = {f.path: written[f.path.split("/")[-1].lower()].read_bytes() for f in files}
    return dataclasses.replace(known, files=tuple(files)), contents


@pytest.mark.parametrize("name", IN_GIT)
def test_files_of_a_commit_are_fetched_and_read(name, served, tmp_path):
    known, contents = published(name, tmp_path / "written")
    assert contents
    for path, content in contents.items():
        served.files[f"/raw/{known.git}/{known.revision}/{path}"] = content
    folder = hub.fetch(known, tmp_path / "data")
    assert len(served.asked) == len(contents)
    assert hub.fetched_revision(folder) == known.revision
    assert known.read(folder) == known.read(rows.WRITERS[name](tmp_path / "again"))
    # Once is enough.
    hub.fetch(known, folder)
    assert len(served.asked) == len(contents)


def pointer(content):
    digest = hashlib.sha256(content).hexdigest()
    told = f"version https://git-lfs.github.com/spec/v1\noid sha256:{digest}\nsize {len(content)}\n"
    return told.encode()


def test_a_pointer_is_followed_and_its_content_compared(served, tmp_path):
    folder = tmp_path / "data"
    served.files[f"/raw/a/b/{OTHER}/x y.jsonl"] = pointer(b"whole")
    served.files[f"/large/a/b/{OTHER}/x y.jsonl"] = b"whole"
    github.download("a/b", OTHER, [DataFile("x y.jsonl")], folder)
    assert (folder / "x y.jsonl").read_bytes() == b"whole"
    served.files[f"/large/a/b/{OTHER}/x y.jsonl"] = b"cut"
    with pytest.raises(FormatError, match="came with the SHA-256"):
        github.download("a/b", OTHER, [DataFile("x y.jsonl")], tmp_path / "other")
    assert not (tmp_path / "other").exists()


def test_another_content_than_the_published_one_is_refused(served, tmp_path):
    known, contents = published("prm800k", tmp_path / "written")
    (path, content), *_ = contents.items()
    of_it = [DataFile(path, hashlib.sha256(content).hexdigest())]
    known = dataclasses.replace(known, files=tuple(of_it))
    served.files[f"/raw/{known.git}/{known.revision}/{path}"] = content + b"\n"
    with pytest.raises(FormatError, match="not the published file"):
        hub.fetch(known, tmp_path / "data")
    assert hub.fetched_revision(tmp_path / "data") is None
    served.files[f"/raw/{known.git}/{known.revision}/{path}"] = content
    assert known.read(hub.fetch(known, tmp_path / "data"))
    # The digest is of the benchmark's own revision: another one is taken as it is.
    served.files[f"/raw/{known.git}/{OTHER}/{path}"] = content + b"\n"
    folder = hub.fetch(known, tmp_path / "newer", OTHER)
    assert hub.fetched_revision(folder) == OTHER


def test_what_cannot_be_fetched_is_told(served, tmp_path, monkeypatch):
    known = BENCHMARKS["bigbench_mistake"]
    with pytest.raises(FormatError, match=r"'word_sorting.jsonl' cannot be fetched .*404.*--data"):
        hub.fetch(known, tmp_path / "data")
    with pytest.raises(InvalidSetting, match="'main' is no commit of WHGTyen"):
        hub.fetch(known, tmp_path / "data", "main")
    with pytest.raises(FormatError, match="no public data"):
        hub.fetch(BENCHMARKS["best_of_n"], tmp_path / "data")
    monkeypatch.delitem(sys.modules, "prmkit.endpoint")
    monkeypatch.setitem(sys.modules, "httpx2", None)
    with pytest.raises(MissingDependency, match=r"from GitHub.*prmkit\[http\]"):
        hub.fetch(known, tmp_path / "data")
    assert hub.fetched_revision(tmp_path / "data") is None


class OneHub:
    """What prmkit uses of the library datasets: one configuration with splits."""

    def __init__(self, splits):
        self.splits, self.revisions = splits, set()

    def get_dataset_config_names(self, hub, revision):
        return ["default"]

    def load_dataset(self, hub, config, revision):
        self.revisions.add(revision)
        return self.splits


def splits_of(name, folder):
    """The rows of small published files, as the data set of the hub has them."""
    found = {}
    for file in sorted(f for f in rows.WRITERS[name](folder).rglob("*") if f.is_file()):
        text = file.read_text()
        data = [json.loads(line) for line in text.splitlines()] if "jsonl" in file.name else None
        value = json.loads(text) if data is None else data
        if name == "mr_ben":
            value = [row for of_question in value.values() for row in of_question]
        split = file.stem if name == "processbench" else "train"
        found.setdefault(split, []).extend(value if isinstance(value, list) else [value])
    return found


@pytest.mark.parametrize("name", ON_HUB)
def test_rows_of_the_pinned_commit_of_the_hub_are_read(name, tmp_path, monkeypatch):
    known, splits = BENCHMARKS[name], splits_of(name, tmp_path / "written")
    fake = OneHub(splits)
    monkeypatch.setitem(sys.modules, "datasets", fake)
    folder = hub.fetch(known, tmp_path / "data")
    assert fake.revisions == {known.revision}
    assert hub.fetched_revision(folder) == known.revision
    assert len(known.read(folder)) == sum(map(len, splits.values()))


@pytest.mark.parametrize("name", sorted(BENCHMARKS))
def test_what_is_fetched_is_pinned(name):
    known = BENCHMARKS[name]
    if name == "best_of_n":
        assert (known.hub, known.git, known.revision) == (None, None, None)
        return
    assert (known.hub is None) != (known.git is None)
    assert COMMIT.fullmatch(known.revision)
    assert bool(known.files) == (known.git is not None)
    for file in known.files:
        assert file.sha256 is None or re.fullmatch(r"[0-9a-f]{64}", file.sha256)


@pytest.mark.parametrize("name", sorted(set(BENCHMARKS) - {"best_of_n"}))
def test_the_header_names_its_sources(name):
    known = BENCHMARKS[name]
    header = sys.modules[known.read.func.__module__ if name.startswith("prm800k")
                         else known.read.__module__].__doc__  # fmt: skip
    for field in ("paper", "data", "revision", "licence"):
        assert re.search(rf"^    {field} ", header, re.MULTILINE), field
    assert re.search(rf"^    paper +arXiv:{re.escape(known.paper)}$", header, re.MULTILINE)
    assert known.revision in header
    assert (known.hub or known.git) in header
    if known.published:
        assert re.search(r"^    published ", header, re.MULTILINE)
