"""Runs the fenced code of a page of documentation, and compares what it prints.

    python scripts/fences.py check PAGE…    as the tests do
    python scripts/fences.py fill PAGE…     write what is printed into the page

Fences of ``python`` and ``bash`` run in order, in one empty folder; the Python ones of a page
share their names. An ``output`` fence after one holds what it prints. Fences in other languages
are not run. Each command ``prm`` has a process of its own, forked from one that has loaded the
libraries once: importing them takes longer than most commands do.
"""

from __future__ import annotations

import contextlib
import io
import json
import multiprocessing
import os
import re
import shlex
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import NamedTuple

_FENCE = re.compile(r"^```(?P<language>\w+)\n(?P<body>.*?)^```$\n?", re.MULTILINE | re.DOTALL)
_NUMBER = re.compile(r"-?\d+(?:\.\d+)?(?:e-?\d+)?")
_SHELL = re.compile(r"[|&;<>()$`*?~#!]|^(?!prm )", re.MULTILINE)
"""What the shell reads in its own way, and lines that are no command of prmkit."""
LOADED = ("prmkit.cli.train", "transformers.trainer", "transformers.models.llama.modeling_llama")
CONTEXT = multiprocessing.get_context("forkserver")
CONTEXT.set_forkserver_preload([*LOADED])
ABSOLUTE, RELATIVE = 0.1, 0.05
RUN = ("python", "bash")


class Fence(NamedTuple):
    """A fence: its language, what is in it, and where it is in the page."""

    language: str
    body: str
    start: int
    end: int


def fences(page: str) -> list[Fence]:
    return [Fence(m["language"], m["body"], m.start(), m.end()) for m in _FENCE.finditer(page)]


def run(path: Path) -> list[str]:
    """What each fence that runs prints, in order; each page in a process and folder of its own."""
    with tempfile.TemporaryDirectory() as folder:
        ran = subprocess.run(
            [sys.executable, __file__, "run-here", str(path.resolve())],
            cwd=folder,
            env={**os.environ, "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}"},
            capture_output=True,
            text=True,
            check=False,
        )
    if ran.returncode:
        raise SystemExit(f"{path}: {ran.stderr}")
    printed: list[str] = json.loads(ran.stdout.splitlines()[-1])
    return printed


def run_here(path: Path) -> list[str]:
    names: dict[str, object] = {"__name__": "__main__"}
    printed = []
    for fence in fences(path.read_text(encoding="utf-8")):
        if fence.language == "python":
            out = io.StringIO()
            with contextlib.redirect_stdout(out):
                exec(compile(fence.body, str(path), "exec"), names)
            printed.append(out.getvalue())
        elif fence.language == "bash":
            lines = fence.body.replace("\\\n", " ").strip()
            if _SHELL.search(lines):
                code, out, err = _in_shell(fence.body)
            else:
                code, out, err = _commands(lines.splitlines())
            if code:
                raise SystemExit(f"{fence.body}\n{out}{err}")
            printed.append(out)
    return printed


def _in_shell(text: str) -> tuple[int, str, str]:
    ran = subprocess.run(
        ["bash", "-euo", "pipefail", "-c", text], capture_output=True, text=True, check=False
    )
    return ran.returncode, ran.stdout, ran.stderr


def _commands(lines: list[str]) -> tuple[int, str, str]:
    """Run commands ``prm``, up to the first one that fails: its exit code, and what they print."""
    code, said = 0, ["", ""]
    with tempfile.TemporaryDirectory() as folder:
        files = [Path(folder, name) for name in ("out", "err")]
        for line in lines:
            child = CONTEXT.Process(target=_command, args=(shlex.split(line)[1:], *files))
            child.start()
            child.join()
            code = child.exitcode or 0
            said = [text + file.read_text() for text, file in zip(said, files, strict=True)]
            if code:
                break
    return code, said[0], said[1]


def _command(arguments: list[str], *files: Path) -> None:
    """In a process of its own: run a command, with what it prints in files."""
    for number, file in enumerate(files, 1):
        os.dup2(os.open(file, os.O_WRONLY | os.O_CREAT | os.O_TRUNC), number)
    from prmkit.cli import main

    main(arguments)


def differences(path: Path) -> list[str]:
    """What a page prints otherwise than it says; runs the page."""
    page = path.read_text(encoding="utf-8")
    found, outputs = fences(page), iter(run(path))
    wrong = []
    for fence, following in zip(found, [*found[1:], None], strict=True):
        if fence.language not in RUN:
            continue
        printed = next(outputs)
        if following is None or following.language != "output":
            if fence.language == "python" and printed:
                wrong.append(f"{path}: prints {printed!r}, and no output fence follows")
        elif not alike(following.body, printed):
            wrong.append(f"{path}: says {following.body!r}, prints {printed!r}")
    return wrong


def alike(said: str, printed: str) -> bool:
    """Equal texts, but for numbers that differ a little."""
    if _NUMBER.sub("0", said) != _NUMBER.sub("0", printed):
        return False
    pairs = zip(_NUMBER.findall(said), _NUMBER.findall(printed), strict=True)
    return all(_near(a, b) for a, b in pairs)


def _near(a: str, b: str) -> bool:
    if a == b:
        return True
    # Whole numbers are counts, not measurements.
    return ("." in a or "." in b) and abs(float(a) - float(b)) <= max(
        ABSOLUTE, RELATIVE * abs(float(a))
    )


def fill(path: Path) -> None:
    """Put what each Python fence prints into the output fence after it."""
    page = path.read_text(encoding="utf-8")
    outputs = iter(run(path))
    parts, at = [], 0
    for fence in fences(page):
        if fence.language == "output":
            # The empty line before the old output goes with it.
            parts.append(page[at : fence.start].strip("\n"))
            at = fence.end
            continue
        parts.append(page[at : fence.end])
        at = fence.end
        if fence.language in RUN:
            printed = next(outputs)
            if fence.language == "python" and printed:
                parts.append(f"\n```output\n{printed}```\n")
    path.write_text("".join([*parts, page[at:]]), encoding="utf-8")


def main(how: str, pages: list[Path]) -> int:
    if how == "run-here":
        print(json.dumps(run_here(pages[0])))
        return 0
    if how == "fill":
        for page in pages:
            fill(page)
        return 0
    wrong = [line for page in pages for line in differences(page)]
    print("\n".join(wrong) or f"{len(pages)} pages print what they say")
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1], [Path(p) for p in sys.argv[2:]]))
