"""Models in this process: token ids in, numbers at the wanted positions out.

All rows of a call go through the model in few passes without padding. What rows have in common at
their beginning, such as the problem of several solutions, is computed once.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from prmkit.checkpoints import load_tokenizer
from prmkit.scorers.backends.packed import Cache, Ran, Segment, run
from prmkit.scorers.backends.weights import load_body, load_head
from prmkit.scorers.families.base import Rendered
from prmkit.scorers.families.heads import Head

if TYPE_CHECKING:
    import torch

MAX_TOKENS = {"cpu": 1024, "gpu": 32768}
"""Tokens of one forward pass: on a CPU, few enough for its caches."""
SHARED = 8
"""A beginning shorter than this is not worth a pass of its own."""


class _Part(NamedTuple):
    """Rows of one pass that begin alike.

    Attributes:
        begin: token ids that they share; empty where there is one row.
        rows: which rows.
    """

    begin: tuple[int, ...]
    rows: list[int]


class HFBackend:
    """A body and a head on this machine.

    Args:
        path: the model's folder.
        head: which head of it is read.
        device: ``"cpu"``, ``"cuda"``, …; by default a GPU where there is one; ``"auto"`` spreads a
            model over all GPUs.
        max_tokens: tokens of one forward pass.

    Raises:
        CheckpointError: if the folder does not hold such a model.
    """

    def __init__(
        self,
        path: Path | str,
        head: Head,
        *,
        device: str | None = None,
        max_tokens: int | None = None,
    ):
        self.tokenizer = load_tokenizer(path)
        self.body, self.device = load_body(path, device)
        width = self.body.config.hidden_size
        self.head = load_head(Path(path), head, self.tokenizer, width).to(self.device).eval()
        self.context: int | None = getattr(self.body.config, "max_position_embeddings", None)
        kind = "cpu" if self.device == "cpu" else "gpu"
        self.max_tokens = max_tokens or MAX_TOKENS[kind]

    def numbers(self, rows: Sequence[Rendered]) -> list[list[list[float]]]:
        """[S, K] numbers of each row, read at its positions."""
        results: list[list[list[float]]] = [[] for _ in rows]
        begins: dict[tuple[int, ...], Cache] = {}
        for parts in self._passes(rows):
            new = [p.begin for p in parts if p.begin and p.begin not in begins]
            # Beginnings of earlier passes are not needed again, but for one that goes on here.
            begins = {p.begin: begins[p.begin] for p in parts if p.begin in begins}
            if new:
                ran = run(self.body, [Segment(begin) for begin in new], keep=True)
                begins |= dict(zip(new, ran.caches, strict=True))
            jobs = [(i, part.begin) for part in parts for i in part.rows]
            segments = [
                Segment(rows[i].ids[len(begin) :], begins[begin] if begin else None)
                for i, begin in jobs
            ]
            ends = any(rows[i].ends for i, _ in jobs)
            ran = run(self.body, segments, keep=ends)
            hidden = (
                self._behind([rows[i] for i, _ in jobs], segments, ran)
                if ends
                else ran.hidden[
                    [
                        start + position - len(begin)
                        for (i, begin), start in zip(jobs, ran.starts, strict=True)
                        for position in rows[i].positions
                    ]
                ]
            )
            flat = iter(self.read(hidden))
            for i, _ in jobs:
                results[i] = [next(flat) for _ in rows[i].positions]
        return results

    def read(self, hidden: torch.Tensor) -> list[list[float]]:
        """The head's numbers, [N, K], for hidden states, [N, H]."""
        import torch

        with torch.inference_mode():
            found = self.head(hidden.to(device=self.device, dtype=torch.float32))
            numbers: list[list[float]] = found.cpu().tolist()
        return numbers

    def _behind(
        self, rows: Sequence[Rendered], segments: Sequence[Segment], ran: Ran
    ) -> torch.Tensor:
        """Hidden states at the last token of each step's end, put behind its position."""
        import torch

        last = []
        for row, segment, own in zip(rows, segments, ran.caches, strict=True):
            before = [] if segment.after is None else [segment.after]
            done = 0 if segment.after is None else segment.after.length
            whole = Cache.joined([*before, own])
            # Attention copies a prefix for each that follows it: few at a time.
            few = max(self.max_tokens // (done + len(segment.ids)), 1)
            for at in range(0, len(row.positions), few):
                ends = row.ends[at : at + few]
                behind = [
                    Segment(end, whole.cut(position + 1))
                    for position, end in zip(row.positions[at : at + few], ends, strict=True)
                ]
                again = run(self.body, behind)
                last += [
                    again.hidden[start + len(end) - 1]
                    for start, end in zip(again.starts, ends, strict=True)
                ]
        return torch.stack(last)

    def _passes(self, rows: Sequence[Rendered]) -> Iterator[list[_Part]]:
        """Rows in groups of about `max_tokens` tokens to compute, with what they share."""
        alike: dict[tuple[int, ...], list[int]] = {}
        for i, row in enumerate(rows):
            if row.positions:
                # Not its last token: an empty first step is read there.
                alike.setdefault(tuple(row.ids[: max(row.begin - 1, 0)]), []).append(i)
        parts: list[_Part] = []
        spent = 0
        for begin, members in alike.items():
            shared = begin if len(members) > 1 and len(begin) >= SHARED else ()
            for i in members:
                cost = len(rows[i].ids) - len(shared)
                if parts and spent + cost > self.max_tokens:
                    yield parts
                    parts, spent = [], 0
                if shared and parts and parts[-1].begin == shared:
                    parts[-1].rows.append(i)
                else:
                    parts.append(_Part(shared, [i]))
                    spent += len(shared)
                spent += cost
        if parts:
            yield parts
