r"""Final answers: found in a text, and compared.

Comparing is math-verify's work. It runs in processes of its own that can be killed, since one
comparison, such as of ``9^{9^{9}}``, may take forever, and since math-verify's own time limit
works in the main thread alone and cancels the caller's alarm. So a `Checker` may be used from any
thread and from async code, and each comparison has a hard limit.
"""

from __future__ import annotations

import asyncio
import atexit
import contextlib
import json
import os
import queue
import re
import select
import subprocess
import sys
import threading
from collections import OrderedDict
from collections.abc import Sequence
from pathlib import Path
from types import TracebackType
from typing import Any, Literal, Self

from prmkit.errors import WorkerError

Verdict = Literal["equal", "different", "timeout", "unparsable"]
"""Of a comparison; only ``equal`` and ``different`` say something about the answers."""

_BOXED = re.compile(r"\\(?:boxed|fbox)\s*\{")
_HASHES = re.compile(r"^\s*####\s*(\S.*?)\s*$", re.MULTILINE)
_HEADING = re.compile(r"^#+ Answer\s*\n+(\S.*?)\s*\Z", re.MULTILINE | re.DOTALL)
_SENTENCE = re.compile(
    r"(?:(?:final|the|my)\s+answer\s+is|^\**(?:final\s+)?answer)\**\s*:?\**\s*"
    r"((?:\$[^$\n]+\$|\\\([^\n]+?\\\)|(?:\d[.,](?=\d)|[^\n.]|\.(?=\S))+))",
    re.IGNORECASE | re.MULTILINE,
)
_NUMBER = re.compile(r"-?(?:\d{1,3}(?:,\d{3})+|\d+)(?:\.\d+)?(?:/\d+)?")


def extract_answer(text: str, *, last_number: bool = False) -> str | None:
    r"""The final answer that a solution states, or None.

    Looked for in this order, the last of its kind in the text: ``\boxed{…}``; a line
    ``#### …`` (GSM8K); a heading ``# Answer`` with what follows (PRM800K); ``the answer is …``
    or a line ``Answer: …``.

    Args:
        text: the solution.
        last_number: if none of these is there, take the last number of the text.
    """
    boxed = _last_boxed(text)
    if boxed is not None:
        return boxed
    for pattern in (_HASHES, _HEADING, _SENTENCE):
        found = [m.group(1) for m in pattern.finditer(text)]
        if found:
            return _bare(found[-1]) or None
    if last_number:
        numbers = _NUMBER.findall(text)
        return numbers[-1] if numbers else None
    return None


def _last_boxed(text: str) -> str | None:
    r"""What the last ``\boxed{…}`` whose braces balance holds."""
    starts = [m.end() for m in _BOXED.finditer(text)]
    for start in reversed(starts):
        depth, at = 1, start
        while at < len(text) and depth:
            if text[at] == "\\":
                at += 1
            elif text[at] in "{}":
                depth += 1 if text[at] == "{" else -1
            at += 1
        if not depth:
            return text[start : at - 1].strip() or None
    return None


def _bare(answer: str) -> str:
    """An answer without what does not belong to it: marks of emphasis, dollars, a full stop."""
    answer = answer.strip().strip("*").strip().rstrip(".。").strip()
    pairs = (("$$", "$$"), ("$", "$"), ("\\(", "\\)"), ("\\[", "\\]"))
    for left, right in pairs:
        if len(answer) > len(left) + len(right) and answer.startswith(left):
            inner = answer[len(left) : -len(right)]
            if answer.endswith(right) and left not in inner:
                return inner.strip()
    return answer


_INTEGER = re.compile(r"[+-]?\d+")
_THOUSANDS = re.compile(r"(?<=\d),(?=\d{3}(?:\D|$))")
_WORDS = re.compile(r"(?:\\(?:text|mathrm|textbf)\s*\{\s*)?([^\W\d_]{2,}(?:[ -][^\W\d_]+)*)\s*\}?")
_LETTER = re.compile(r"\(?\s*([A-Z])\s*[).]?")
_DECIMAL = re.compile(r"([+-]?)0*(\d+)(?:\.(\d+))?")


def canonical(answer: str) -> str:
    r"""One form for the commonest ways to write an answer; equal forms are equal answers.

    Answers whose forms differ may still be equal, as ``1/2`` and ``0.5``: ask a `Checker`.
    """
    text = _bare(answer)
    text = text.replace("\\$", "").replace("\\!", "").replace("\\,", "").replace("\\ ", " ")
    text = text.removeprefix("$").removesuffix("$").strip()
    text = text.replace("{,}", ",").replace("\\left", "").replace("\\right", "")
    text = text.replace("\\dfrac", "\\frac").replace("\\tfrac", "\\frac").replace("−", "-")
    if letter := _LETTER.fullmatch(text):
        return letter[1]
    if words := _WORDS.fullmatch(text):
        return " ".join(words[1].casefold().split())
    number = _THOUSANDS.sub("", text.replace(" ", ""))
    if parts := _DECIMAL.fullmatch(number):
        fraction = (parts[3] or "").rstrip("0")
        value = parts[2] + ("." + fraction if fraction else "")
        return ("-" if parts[1] == "-" and value.strip("0.") else "") + value
    return re.sub(r"\s+", " ", text)


def _quick(gold: str, given: str) -> Verdict | None:
    """The verdict where no algebra is needed, else None."""
    a, b = canonical(gold), canonical(given)
    if not a or not b:
        return "unparsable"
    if a == b:
        return "equal"
    if _INTEGER.fullmatch(a) and _INTEGER.fullmatch(b):
        return "different"
    # As formulas, words are products of letters: "bat" would equal "tab".
    words = [_WORDS.fullmatch(text) or _LETTER.fullmatch(text) for text in (a, b)]
    return "different" if all(words) else None


class _Worker:
    """A process that compares pairs, one JSON line each; killed when it takes too long."""

    def __init__(self) -> None:
        path = os.pathsep.join([str(Path(__file__).parents[1]), *filter(None, sys.path)])
        self._process = subprocess.Popen(
            [sys.executable, "-m", "prmkit.answers"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            env={**os.environ, "PYTHONPATH": path},
            bufsize=0,
        )
        if self._line(60.0) != "ready":
            self.kill()
            raise WorkerError(
                "the process that compares answers did not start. Try it by hand: "
                f'{sys.executable} -m prmkit.answers, which should print "ready"'
            )

    def ask(self, gold: str, given: str, timeout: float) -> Verdict | None:
        """The verdict, ``timeout`` after the limit, or None where the process died."""
        assert self._process.stdin is not None
        try:
            self._process.stdin.write(json.dumps([gold, given, timeout]).encode() + b"\n")
        except OSError:
            return None
        answer = self._line(timeout)
        return "timeout" if answer == "" else answer

    def _line(self, timeout: float) -> Any:
        """One line of JSON; "" if none came in time, None if the process ended."""
        assert self._process.stdout is not None
        # A poll, since select() cannot watch file descriptors above 1,023.
        waiting = select.poll()
        waiting.register(self._process.stdout, select.POLLIN | select.POLLHUP)
        if not waiting.poll(timeout * 1000):
            return ""
        line = self._process.stdout.readline()
        return json.loads(line) if line.endswith(b"\n") else None

    def kill(self) -> None:
        self._process.kill()
        self._process.wait()
        for pipe in (self._process.stdin, self._process.stdout):
            if pipe is not None:
                pipe.close()


class Checker:
    """Compares answers in worker processes; safe to use from many threads at once.

    Args:
        workers: processes, started when they are needed.
        timeout: seconds that one comparison may take at most.
        remember: comparisons whose verdicts are kept.

    Example:
        >>> with Checker() as checker:
        ...     checker.compare("1/2", "0.5")
        'equal'
    """

    def __init__(self, *, workers: int = 1, timeout: float = 5.0, remember: int = 100_000):
        if workers < 1:
            raise ValueError(f"workers is {workers!r}; at least 1 is needed")
        if not timeout > 0:
            raise ValueError(f"timeout is {timeout!r} seconds; it must be above 0")
        self._workers, self._timeout, self._remember = workers, timeout, remember
        self._lock = threading.Lock()
        self._known: OrderedDict[tuple[str, str], Verdict] = OrderedDict()
        self._fill()

    def _fill(self) -> None:
        self._pid = os.getpid()
        self._idle: queue.LifoQueue[_Worker | None] = queue.LifoQueue()
        for _ in range(self._workers):
            self._idle.put(None)

    def compare(self, gold: str, given: str) -> Verdict:
        """Whether `given` is the answer `gold`; the order matters, the reference comes first.

        Returns:
            ``equal`` or ``different``; ``timeout`` if that took too long; ``unparsable`` if one
            of them cannot be read as mathematics or as a word.
        """
        quick = _quick(gold, given)
        if quick is not None:
            return quick
        with self._lock:
            known = self._known.get((gold, given))
            if known is not None:
                self._known.move_to_end((gold, given))
                return known
            if self._pid != os.getpid():
                # After a fork the pipes belong to the parent.
                self._fill()
        verdict = self._ask(gold, given)
        with self._lock:
            self._known[gold, given] = verdict
            if len(self._known) > self._remember:
                self._known.popitem(last=False)
        return verdict

    async def compare_async(self, gold: str, given: str) -> Verdict:
        """Like `compare`, without blocking the event loop."""
        return await asyncio.to_thread(self.compare, gold, given)

    def group(self, answers: Sequence[str | None]) -> list[int | None]:
        """Which class of equal answers each one is of, numbered as they come; None stays None."""
        classes: list[str] = []
        by_form: dict[str, int] = {}
        result: list[int | None] = []
        for answer in answers:
            if answer is None:
                result.append(None)
                continue
            form = canonical(answer)
            if form not in by_form:
                same = (
                    i for i, other in enumerate(classes) if self.compare(other, answer) == "equal"
                )
                by_form[form] = next(same, len(classes))
                if by_form[form] == len(classes):
                    classes.append(answer)
            result.append(by_form[form])
        return result

    def _ask(self, gold: str, given: str) -> Verdict:
        idle = self._idle
        worker = idle.get()
        try:
            for _ in range(2):
                worker = worker or _Worker()
                verdict = worker.ask(gold, given, self._timeout)
                if verdict not in ("timeout", None):
                    return verdict
                worker.kill()
                worker = None
                if verdict == "timeout":
                    return verdict
            # It died twice on this pair: memory, or the depth of an expression.
            return "unparsable"
        except BaseException:
            if worker is not None:
                worker.kill()
                worker = None
            raise
        finally:
            idle.put(worker)

    def close(self) -> None:
        """Stop the workers; a later comparison starts new ones."""
        if self._pid != os.getpid():
            return
        for _ in range(self._workers):
            worker = self._idle.get()
            if worker is not None:
                worker.kill()
        self._fill()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()


_shared: Checker | None = None
_shared_lock = threading.Lock()


def same_answer(gold: str, given: str) -> Verdict:
    """Compare with a `Checker` that the whole process shares; see `Checker.compare`."""
    return _shared_checker().compare(gold, given)


def group_answers(answers: Sequence[str | None]) -> list[int | None]:
    """Group with a `Checker` that the whole process shares; see `Checker.group`."""
    return _shared_checker().group(answers)


def _shared_checker() -> Checker:
    global _shared
    with _shared_lock:
        if _shared is None:
            _shared = Checker()
            atexit.register(_shared.close)
    return _shared


_WORKER_MEMORY = 2 * 2**30


def _serve() -> None:
    """The worker: pairs in, verdicts out, one JSON line each."""
    import resource
    import signal

    answers = os.fdopen(os.dup(1), "w", encoding="utf-8")
    # What libraries print must not be taken for a verdict.
    os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
    with contextlib.suppress(ValueError, OSError):
        resource.setrlimit(resource.RLIMIT_AS, (_WORKER_MEMORY, _WORKER_MEMORY))
    from math_verify import parse, verify

    def read(answer: str) -> Any:
        return parse(answer if "$" in answer else f"${answer}$", parsing_timeout=None)

    print(json.dumps("ready"), file=answers, flush=True)
    for line in sys.stdin:
        gold, given, timeout = json.loads(line)
        # Should the parent be gone, the kernel ends a comparison that hangs, even inside of C.
        signal.setitimer(signal.ITIMER_REAL, timeout + 5.0)
        try:
            a, b = read(gold), read(given)
            if a and b:
                same = verify(a, b, timeout_seconds=None)
                verdict: Verdict = "equal" if same else "different"
            else:
                verdict = "unparsable"
        except Exception:
            # Sympy fails in many ways on what people write.
            verdict = "unparsable"
        signal.setitimer(signal.ITIMER_REAL, 0)
        print(json.dumps(verdict), file=answers, flush=True)


if __name__ == "__main__":
    _serve()
