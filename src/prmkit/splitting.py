r"""Text to steps: every character is kept, so that the steps join back to the text exactly.

A splitter is a function from text to steps; what stands between two steps stays at the end of
the first. Code blocks (between fences) and LaTeX displays (``$$``, ``\[``, environments) are
never cut; `by_line` and `by_sentence` keep inline formulas and code whole too.
"""

from __future__ import annotations

import re
from bisect import bisect_left, bisect_right
from collections.abc import Callable, Iterable
from functools import partial

from prmkit.errors import InvalidSetting, UnknownName

Splitter = Callable[[str], list[str]]
"""From text to steps; ``"".join(split(text)) == text``."""

_NEWLINE = r"(?:\r\n|\r(?!\n)|[\n\x85\u2028\u2029])"
_BLANK = re.compile(rf"{_NEWLINE}(?:[ \t]*{_NEWLINE})+")
_LINE = re.compile(rf"{_NEWLINE}(?:[ \t]*{_NEWLINE})*")

_STEP_WORD = r"(?:step|schritt|étape|paso|passo|шаг|krok|adım|الخطوة|चरण|bước)"
_NUMBERED = re.compile(
    rf"(?:\A|(?<=[\n\r\x85\u2028\u2029]))[ \t]*(?:\#+[ \t]*)?[*_]*"
    rf"(?:(?P<word>{_STEP_WORD}[ \t]*(?P<a>\d+)"
    r"|(?:步骤|ステップ|단계)[ \t]*(?P<b>\d+)|第(?P<c>\d+)步)"
    rf"|(?P<bare>\d+)(?=[.)][*_]*[ \t]))",
    re.IGNORECASE,
)

_CLOSERS = "\"'”’»)\\]}」』"
# An end of sentence, what closes it, and white space; CJK stops need no space after them.
_SENTENCE = re.compile(rf"[.!?…؟۔।॥]+[{_CLOSERS}*_]*(?=\s)\s+|[。！？]+[{_CLOSERS}*_]*\s*")
_ABBREVIATION = re.compile(
    r"(?:\b(?:e\.g|i\.e|cf|vs|etc|approx|resp|Dr|Mr|Mrs|Ms|Prof|St|Fig|Eq|Eqs|Sec|No|Nr|Thm|Lem"
    r"|z\.B|d\.h|bzw|p|pp)|\b[A-Z]|(?:\A|[\n\r][ \t]*[*_]*)\d+)\.\Z"
)
_PROSE = re.compile(r"[^\W\d_]{2,}\s+[^\W\d_]{2,}")
_TEXT_COMMAND = re.compile(r"\\(?:text|mathrm|textbf|mbox|operatorname)\s*\{[^{}]*\}|\\[A-Za-z]+")
_INLINE_LIMIT = 2000


def by_blank_line(text: str) -> list[str]:
    """One step per paragraph; blank lines separate."""
    return _cut(text, (m.end() for m in _BLANK.finditer(text)), _blocks(text))


def by_line(text: str) -> list[str]:
    """One step per line; blank lines stay with the line before them."""
    return _cut(text, (m.end() for m in _LINE.finditer(text)), _blocks(text) + _inline(text))


def by_number(text: str) -> list[str]:
    """One step per number: ``Step 3:``, ``3.`` or ``3)`` at the start of a line.

    The numbers go up by one from 0 or 1, in the manner of the first one; other numbers, such as
    those of a list inside of a step, separate nothing. What stands before the first number is a
    step of its own.
    """
    blocks = _blocks(text)
    cuts: list[int] = []
    expected, with_word = None, None
    for match in _NUMBERED.finditer(text):
        if _inside(blocks, match.start()) or (cuts and match.start() == cuts[-1]):
            continue
        number = int(match["a"] or match["b"] or match["c"] or match["bare"])
        first = expected is None and number in (0, 1)
        if first or (number == expected and with_word == bool(match["word"])):
            cuts.append(match.start())
            expected, with_word = number + 1, bool(match["word"])
    return _cut(text, cuts, blocks)


def by_sentence(text: str) -> list[str]:
    """One step per sentence, in many scripts; a blank line ends a sentence too."""
    ends = [
        m.end()
        for m in _SENTENCE.finditer(text)
        if not _ABBREVIATION.search(text, max(0, m.start() - 20), m.start() + 1)
    ]
    ends += [m.end() for m in _BLANK.finditer(text)]
    return _cut(text, ends, _blocks(text) + _inline(text))


def by_thought(text: str) -> list[str]:
    """One step per paragraph of long reasoning; ``<think>`` and ``</think>`` are limits too.

    The closing tag stays with the last thought, so what follows it, the answer to the user, is
    never in one step with reasoning.
    """
    ends = [m.end() for m in _BLANK.finditer(text)]
    for tag in re.finditer(rf"</think>(?:[ \t]*{_NEWLINE})*|<think>", text):
        ends.append(tag.start() if tag.group() == "<think>" else tag.end())
    return _cut(text, ends, _blocks(text))


def by_marker(text: str, marker: str) -> list[str]:
    """One step per `marker`, which stays at the end of its step.

    Raises:
        InvalidSetting: if the marker is empty.
    """
    if not marker:
        raise InvalidSetting("the marker is empty; give the text that ends a step")
    ends = (m.end() for m in re.finditer(re.escape(marker) + r"[ \t]*\n?", text))
    return _cut(text, ends, _blocks(text))


SPLITTERS: dict[str, Splitter] = {
    "blank_line": by_blank_line,
    "line": by_line,
    "number": by_number,
    "sentence": by_sentence,
    "thought": by_thought,
}
"""Every splitter that needs no argument, by name."""


def splitter(name: str) -> Splitter:
    r"""A splitter by name; ``marker:TEXT`` splits after TEXT, where ``\n`` and ``\t`` are known.

    Raises:
        UnknownName: if there is none of that name.
    """
    if name.startswith("marker:"):
        marker = name.removeprefix("marker:").replace("\\n", "\n").replace("\\t", "\t")
        if marker:
            return partial(by_marker, marker=marker)
    if name not in SPLITTERS:
        raise UnknownName("splitter", name, (*SPLITTERS, "marker:TEXT"))
    return SPLITTERS[name]


Span = tuple[int, int]


def _inside(spans: list[Span], at: int) -> bool:
    return any(start < at < end for start, end in spans)


def _cut(text: str, ends: Iterable[int], kept: list[Span]) -> list[str]:
    """The text cut at `ends`, except inside of `kept` spans; no step is white space alone."""
    kept = _merged(kept)
    starts = [start for start, _ in kept]
    steps: list[str] = []
    at = 0
    for end in sorted({*ends, len(text)}):
        span = bisect_left(starts, end) - 1
        if span >= 0 and end < kept[span][1]:
            continue
        piece = text[at:end]
        if not piece:
            continue
        if not piece.strip():
            # White space belongs to the step before it, or begins the first.
            if steps:
                steps[-1] += piece
                at = end
            continue
        steps.append(piece)
        at = end
    if at < len(text):
        steps.append(text[at:])
    return steps


def _merged(spans: list[Span]) -> list[Span]:
    """Sorted, with overlapping spans joined."""
    merged: list[Span] = []
    for start, end in sorted(spans):
        if merged and start < merged[-1][1]:
            merged[-1] = (merged[-1][0], max(end, merged[-1][1]))
        else:
            merged.append((start, end))
    return merged


_OPENER = re.compile(
    r"(?m:^[ \t]*(?:[-*+][ \t]+|\d+[.)][ \t]+)?(?P<fence>`{3,}|~{3,}))"
    r"|(?<!\\)(?P<dollars>\$\$)|(?<!\\)(?P<bracket>\\\[)|(?P<begin>\\begin\{)"
)
_ENVIRONMENT = re.compile(r"\\(begin|end)\{([A-Za-z]+\*?)\}")


def _blocks(text: str) -> list[Span]:
    r"""Code between fences, ``$$ $$``, ``\[ \]`` and LaTeX environments, in order.

    A fence that is never closed reaches to the end, as in Markdown; an unclosed formula is none.
    """
    spans: list[Span] = []
    environments = _environments(text)
    # After one closer is missing, no later one of its kind can be found either.
    missing: set[str] = set()
    at = 0
    while match := _OPENER.search(text, at):
        kind = match.lastgroup or ""
        end = -1
        if kind == "fence":
            fence = match["fence"]
            closing = re.compile(rf"(?m:^[ \t]*{re.escape(fence[0])}{{{len(fence)},}}[ \t]*$)")
            found = closing.search(text, match.end())
            end = found.end() if found else len(text)
        elif kind == "begin":
            end = environments.get(match.start(), -1)
        elif kind not in missing:
            closer = {"dollars": "$$", "bracket": "\\]"}[kind]
            there = text.find(closer, match.end())
            end = there + 2 if there >= 0 else -1
            if end < 0:
                missing.add(kind)
        if end > 0:
            spans.append((match.start(), end))
        at = max(match.end(), end)
    return spans


def _environments(text: str) -> dict[int, int]:
    r"""Where each ``\begin{x}`` that has an ``\end{x}`` starts, and where that ends."""
    open_ones: dict[str, list[int]] = {}
    spans: dict[int, int] = {}
    for match in _ENVIRONMENT.finditer(text):
        if match[1] == "begin":
            open_ones.setdefault(match[2], []).append(match.start())
        elif open_ones.get(match[2]):
            spans[open_ones[match[2]].pop()] = match.end()
    return spans


_DOLLAR_OPENS = re.compile(r"(?<![\\$])\$(?=[^\s$])")
_DOLLAR_CLOSES = re.compile(r"(?<![\s\\$])\$(?![\d$])")


def _inline(text: str) -> list[Span]:
    r"""Inline code, ``\( \)`` and ``$ $``, none across a blank line.

    Dollars may be money: a pair counts as a formula under Pandoc's rule for the characters
    beside them, and only where what they hold is not prose.
    """
    spans = [
        (m.start(), m.end())
        for m in re.finditer(rf"\\\((?:(?!\\\)).){{0,{_INLINE_LIMIT}}}\\\)|`[^`\n]+`", text, re.S)
        if not _BLANK.search(m.group())
    ]
    closers = [m.start() for m in _DOLLAR_CLOSES.finditer(text)]
    at = 0
    while match := _DOLLAR_OPENS.search(text, at):
        at = match.end()
        next_closer = bisect_right(closers, match.start() + 1)
        if next_closer == len(closers):
            break
        end = closers[next_closer]
        if end - at > _INLINE_LIMIT:
            continue
        held = text[at:end]
        if not _BLANK.search(held) and not _PROSE.search(_TEXT_COMMAND.sub(" ", held)):
            spans.append((match.start(), end + 1))
            at = end + 1
    return spans
