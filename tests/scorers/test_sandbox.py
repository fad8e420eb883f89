"""Programs of models: what they print comes back, what they may not do fails, nothing hangs."""

from __future__ import annotations

import time
from pathlib import Path

import pytest

from prmkit.errors import WorkerError
from prmkit.scorers import sandbox
from prmkit.scorers.sandbox import run_code


@pytest.fixture(autouse=True)
def allowed():
    try:
        run_code("print(1)")
    except WorkerError as error:
        pytest.skip(str(error))


def test_what_is_printed_comes_back():
    assert run_code("print(2 + 2)\nprint('x')") == "4\nx\n"
    assert run_code("") == ""
    assert "ZeroDivisionError" in run_code("1 / 0")
    assert "SyntaxError" in run_code("def")


def test_no_network():
    code = "import socket\nsocket.create_connection(('127.0.0.1', 80), timeout=2)"
    assert "Error" in run_code(code)


def test_no_environment_and_no_folder(monkeypatch, tmp_path):
    monkeypatch.setenv("SECRET", "hidden")
    monkeypatch.chdir(tmp_path)
    told = run_code("import os\nprint(dict(os.environ).get('SECRET'), os.listdir('.'))")
    assert told == "None []\n"
    run_code("open('made', 'w').write('x')")
    assert not list(Path(tmp_path).iterdir())


def test_it_ends(monkeypatch):
    monkeypatch.setattr(sandbox, "SECONDS", 1)
    start = time.monotonic()
    assert run_code("import time\ntime.sleep(60)") == "stopped after 1 seconds"
    assert time.monotonic() - start < 10


def test_memory_and_output_are_limited():
    assert "MemoryError" in run_code("x = bytearray(2 * 10**9)")
    assert len(run_code("print('x' * 10**6)")) == sandbox.OUTPUT + 1


def test_where_it_is_not_allowed_nothing_runs(monkeypatch):
    blocked = sandbox._PROLOGUE.replace("if libc.unshare", "if True or libc.unshare")
    monkeypatch.setattr(sandbox, "_PROLOGUE", blocked)
    with pytest.raises(WorkerError, match="no program of a model is run"):
        run_code("print('ran')")


@pytest.mark.parametrize(
    ("code", "printed"),
    [
        ("import sys; print('a'); sys.exit(113)", "a\n"),
        ("import os; os._exit(113)", ""),
        ("import os; os.kill(os.getpid(), 9)", ""),
        ("print('\\ud800'.encode(errors='replace').decode())", "?\n"),
    ],
)
def test_no_program_ends_the_run(code, printed):
    assert run_code(code).partition("\nstopped by")[0] == printed


def test_text_that_is_no_utf8_is_run_all_the_same():
    assert run_code("print(1)  # \ud800") == "1\n"


def test_endless_output_fills_no_memory():
    code = "import os\nwhile True: os.write(1, b'x' * 65536)"
    assert len(run_code(code)) == sandbox.OUTPUT + 1


def test_what_a_program_starts_ends_with_it():
    mark = f"7{time.time_ns() % 10**9}.5"
    code = (
        "import os\nif os.fork() == 0:\n    os.setsid()\n"
        f"    os.execv('/bin/sleep', ['sleep', '{mark}'])\nprint('done')"
    )
    assert run_code(code) == "done\n"
    time.sleep(0.2)
    running = [p.read_bytes() for p in Path("/proc").glob("[0-9]*/cmdline") if p.exists()]
    assert not [line for line in running if mark.encode() in line]
