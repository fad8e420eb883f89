"""A model in training, judged on records that it is not trained on.

They are scored by the pass that it is trained with, as the finished model's scorer will score them;
what the scores are worth is for the caller to say.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from prmkit.chat import Tokenizer
from prmkit.errors import InvalidRecord
from prmkit.records import Record, StepScores, Unscored
from prmkit.scorers.families.base import Discriminative, Rendered
from prmkit.scorers.separators import guard
from prmkit.training.parts import make_part
from prmkit.training.targets import Example

if TYPE_CHECKING:
    from torch import Tensor

Judge = Callable[[Sequence[Record], Sequence[StepScores | Unscored]], Mapping[str, float]]
"""Figures of labelled records, by how they were scored."""

Numbers = dict[int, list[list[float]]]
"""[S, K] what the head gives, by the number of the record."""


class Looks:
    """Scores records with a model as it is, and has the scores judged.

    Args:
        records: with labels.
        family: how the model reads.
        tokenizer: the model's.
        limit: tokens that it reads at most; longer solutions are `Unscored`.
        judge: see `Judge`.
        pass_tokens: of one forward pass.
    """

    def __init__(
        self,
        records: Sequence[Record],
        family: Discriminative,
        tokenizer: Tokenizer,
        limit: int | None,
        judge: Judge,
        pass_tokens: int,
    ):
        self._records, self._family, self._judge = records, family, judge
        self._unscored: dict[int, Unscored] = {}
        rows: list[Example] = []
        for number, record in enumerate(records):
            try:
                rendered = guard(record.trajectory, family, tokenizer, "escape").rendered
            except InvalidRecord as error:
                self._unscored[number] = Unscored(reason=str(error))
                continue
            if limit is not None and rendered.longest > limit:
                reason = f"{rendered.longest} tokens; the model reads at most {limit}"
                self._unscored[number] = Unscored(reason=reason)
                continue
            rows += _rows(rendered, number, record.trajectory.problem.text)
        rows.sort(key=lambda e: (e.problem, e.ids))
        self._passes: list[list[Example]] = []
        room = 0
        for row in rows:
            if len(row.ids) > room or not self._passes:
                self._passes.append([])
                room = pass_tokens
            self._passes[-1].append(row)
            room -= len(row.ids)

    def __call__(self, model: Any) -> dict[str, float]:
        """The figures; all processes of a run call it together."""
        return dict(self._judge(self._records, self.scores(model)))

    def scores(self, model: Any) -> list[StepScores | Unscored]:
        """The scores of all records; all processes of a run call it together."""
        import torch

        world, rank = 1, 0
        if torch.distributed.is_available() and torch.distributed.is_initialized():
            world, rank = torch.distributed.get_world_size(), torch.distributed.get_rank()
        own: Numbers = {}
        was = model.training
        model.eval()
        with torch.no_grad():
            # As many passes for each process: sharded models wait for one another.
            for at in range(0, len(self._passes), world):
                chosen = self._passes[at + rank] if at + rank < len(self._passes) else []
                numbers = model(make_part(chosen, True), read=True)
                _keep(own, chosen, numbers)
        model.train(was)
        _reshard(model)
        whole: list[Numbers | None] = [own]
        if world > 1:
            whole = [None] * world
            torch.distributed.all_gather_object(whole, own)
        # Rows of one record may have gone to several processes, each step to one.
        found: dict[int, dict[int, list[float]]] = {}
        for part in whole:
            for key, value in (part or {}).items():
                number, step = divmod(key, _STEPS)
                for i, one in enumerate(value):
                    found.setdefault(number, {})[step + i] = one
        return [self._score(number, found.get(number, {})) for number in range(len(self._records))]

    def _score(self, number: int, found: Mapping[int, list[float]]) -> StepScores | Unscored:
        if number in self._unscored:
            return self._unscored[number]
        numbers = [found[step] for step in sorted(found)]
        if not all(math.isfinite(x) for of_step in numbers for x in of_step):
            return Unscored(reason="the model gave a number that is not finite")
        return StepScores(
            values=tuple(self._family.read(numbers)),
            semantics=self._family.semantics,
            model="in training",
        )


_STEPS = 1 << 32
"""Above the steps of any solution: a row's number is that of its record times this, and a step."""


def _rows(rendered: Rendered, number: int, problem: str) -> list[Example]:
    """A record's rows; the `solution` of each tells the record and the row's first step."""
    if not rendered.ends:
        n = len(rendered.positions)
        rated = ([0.0] * n, [1.0] * n, rendered.starts)
        return [Example(rendered.ids, rendered.positions, *rated, number * _STEPS, problem)]
    rows = []
    for i, end in enumerate(rendered.ends):
        ids = rendered.ids[: rendered.positions[i] + 1] + list(end)
        begin = [rendered.starts[i]]
        rows.append(Example(ids, [len(ids) - 1], [0.0], [1.0], begin, number * _STEPS + i, problem))
    return rows


def _keep(own: Numbers, chosen: Sequence[Example], numbers: Tensor) -> None:
    rows = numbers.float().cpu().tolist()
    at = 0
    for example in chosen:
        own[example.solution] = rows[at : at + len(example.positions)]
        at += len(example.positions)


def _reshard(model: Any) -> None:
    """Let go of the weights that sharded layers hold whole after a pass without gradients."""
    for module in model.modules():
        if hasattr(module, "reshard"):
            module.reshard()
