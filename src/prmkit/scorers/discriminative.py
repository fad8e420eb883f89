"""Scorers with a head: one forward pass gives the scores of all steps."""

from __future__ import annotations

import logging
import math
from collections.abc import Sequence
from itertools import accumulate
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple, Protocol

from prmkit.checkpoints import read_note
from prmkit.errors import InputTooLong, InvalidRecord, ScoringError
from prmkit.records import Problem, Semantics, Step, StepScores, Trajectory, Unscored
from prmkit.scorers.backends.hf import HFBackend
from prmkit.scorers.backends.tree import Node, PrefixTree
from prmkit.scorers.base import beyond_text
from prmkit.scorers.convert_model import folded, layout_of
from prmkit.scorers.families import Discriminative, Rendered, discriminative
from prmkit.scorers.families.base import Piece
from prmkit.scorers.separators import Guarded, Watching, guard
from prmkit.scorers.settings import OnSeparator

if TYPE_CHECKING:
    import torch

logger = logging.getLogger(__name__)


class Backend(Protocol):
    """Where the numbers come from: this process or a server."""

    @property
    def tokenizer(self) -> Any:
        """The checkpoint's own tokenizer."""

    @property
    def context(self) -> int | None:
        """How many tokens it reads at most; None where that is not known."""

    def numbers(self, rows: Sequence[Rendered]) -> Sequence[Sequence[Sequence[float]] | Unscored]:
        """[S, K] numbers of each row, read at its positions; or why there are none."""


def _noted(path: Path | str) -> Discriminative:
    """The family that a folder's note names, with its head as the note says."""
    note = read_note(path)
    family = discriminative(note["family"])
    layout = layout_of(note)
    return family if layout is None else folded(family, layout)


def _tell(n_escaped: int) -> None:
    if n_escaped:
        logger.warning("%d separator(s) inside of text were escaped", n_escaped)


def _at(node: Node, own: torch.Tensor, at: int) -> torch.Tensor:
    """[H] the hidden state of a node's token `at`; -1 is the one before it."""
    if at >= 0:
        return own[at]
    assert node.parent is not None
    assert node.parent.last is not None
    return node.parent.last


def _starts(pieces: Sequence[Piece]) -> list[int]:
    """Where each of some pieces begins when they are put together."""
    return [0, *accumulate(len(piece.ids) for piece in pieces[:-1])]


_PROBE = Trajectory(problem=Problem(id="probe", prompt=""), steps=(Step(text=""),))


class State(NamedTuple):
    """The end of a prefix that was scored, to go on from.

    Attributes:
        node: in the tree of kept keys and values.
        n_steps: how many steps it has.
    """

    node: Node
    n_steps: int


class DiscriminativeScorer:
    """Scores all steps of a trajectory in one forward pass.

    Args:
        path: a model folder: one that `prm train` wrote, or a published checkpoint of a family.
        family: how the model reads steps; by default what the folder's note says.
        device: ``"cpu"``, ``"cuda"``, …; by default a GPU where there is one.
        max_tokens: tokens of one forward pass.
        on_separator: what becomes of text that spells the token at which steps are read:
            ``escape`` tokenises it otherwise, ``error`` leaves the trajectory unscored and says
            why. Either way no position moves.
        backend: where the numbers come from; by default the folder, in this process.

    Raises:
        CheckpointError: if the folder is not such a model.
    """

    def __init__(
        self,
        path: Path | str,
        *,
        family: Discriminative | None = None,
        device: str | None = None,
        max_tokens: int | None = None,
        on_separator: OnSeparator = "escape",
        backend: Backend | None = None,
    ):
        self.family = family or _noted(path)
        self._backend = backend or HFBackend(
            path, self.family.head, device=device, max_tokens=max_tokens
        )
        # Tags, heads and templates that are not there are told now, not at the first solution.
        guard(_PROBE, self.family, self._backend.tokenizer, "escape")
        self._on_separator: OnSeparator = on_separator
        self._tree: PrefixTree | None = None
        self.name = Path(path).name

    counts = True

    @property
    def semantics(self) -> Semantics:
        """What its scores mean."""
        return self.family.semantics

    def score(self, trajectories: Sequence[Trajectory]) -> list[StepScores | Unscored]:
        """See `prmkit.scorers.base.Scorer.score`.

        A trajectory longer than the model can read is `Unscored`, never cut.
        """
        results: list[StepScores | Unscored | None] = [None] * len(trajectories)
        rows: dict[int, Rendered] = {}
        n_escaped = 0
        for i, trajectory in enumerate(trajectories):
            without = beyond_text(trajectory)
            if without is not None:
                results[i] = Unscored(reason=without, model=self.name)
                continue
            try:
                guarded = guard(
                    trajectory, self.family, self._backend.tokenizer, self._on_separator
                )
            except InvalidRecord as error:
                results[i] = Unscored(reason=str(error), model=self.name)
                continue
            reason = self._refused(guarded)
            n_escaped += guarded.escaped if guarded.refused is None else 0
            if reason is None:
                rows[i] = guarded.rendered
            else:
                results[i] = Unscored(reason=reason, model=self.name)
        _tell(n_escaped)
        for i, numbers in zip(rows, self._backend.numbers(list(rows.values())), strict=True):
            results[i] = numbers if isinstance(numbers, Unscored) else self._read(numbers)
        return [result for result in results if result is not None]

    def _refused(self, guarded: Guarded) -> str | None:
        """Why a trajectory is not scored, or None."""
        if guarded.refused is not None:
            return guarded.refused
        row, limit = guarded.rendered, self._backend.context
        n_tokens = row.longest
        if limit is not None and n_tokens > limit:
            return f"{n_tokens} tokens; the model reads at most {limit}"
        return None

    def _read(self, numbers: Sequence[Sequence[float]]) -> StepScores | Unscored:
        if not all(math.isfinite(x) for of_step in numbers for x in of_step):
            return Unscored(reason="the model gave a number that is not finite", model=self.name)
        values = self.family.read(numbers)
        return StepScores(values=tuple(values), semantics=self.semantics, model=self.name)

    def n_tokens(self, trajectories: Sequence[Trajectory]) -> list[int]:
        """See `prmkit.scorers.base.CountingScorer.n_tokens`."""
        found = []
        for trajectory in trajectories:
            try:
                guarded = guard(
                    trajectory, self.family, self._backend.tokenizer, self._on_separator
                )
            except InvalidRecord:
                found.append(0)
                continue
            found.append(0 if guarded.refused is not None else guarded.rendered.longest)
        return found

    @property
    def extends(self) -> bool:
        """Whether prefixes are kept; not where the numbers come from a server."""
        return isinstance(self._backend, HFBackend)

    def length(self, state: State) -> int:
        """Tokens up to a state."""
        return state.node.length

    def start(self, problem: Problem) -> State:
        """The state before the first step of a problem, to be extended.

        Raises:
            InputTooLong: if the model cannot read that much.
            InvalidRecord: if the problem holds images, or a separator where those are errors.
            ScoringError: if the numbers come from a server, which keeps no state for us.
        """
        tree = self.prefixes()
        without = beyond_text(Trajectory(problem=problem))
        if without is not None:
            raise InvalidRecord(without)
        watching = Watching(self._backend.tokenizer, self.family.tags)
        ids = self.family.begin(problem, watching)
        self._check(watching, len(ids))
        _tell(watching.n_escaped)
        (node,), _ = tree.grow([None], [ids])
        return State(node, 0)

    def extend(
        self, states: Sequence[State], steps: Sequence[Step]
    ) -> tuple[list[float], list[State]]:
        """Score one more step after each state; see `extend_by`."""
        if len(states) != len(steps):
            raise ValueError(f"{len(steps)} steps for {len(states)} states; give one each")
        values, new = self.extend_by(states, [[step] for step in steps])
        return [value for (value,) in values], new

    def extend_by(
        self, states: Sequence[State], steps: Sequence[Sequence[Step]]
    ) -> tuple[list[list[float]], list[State]]:
        """Score one step or more after each state; only the new tokens are computed.

        The scores are those that `score` gives to the whole trajectory. A state may be extended
        any number of times.

        Args:
            states: made by `start`, `extend` or `extend_by` of this scorer.
            steps: of each state, at least one.

        Returns:
            Of each state, the scores of its new steps; and the states after them.

        Raises:
            InputTooLong: if the model cannot read that much.
            InvalidRecord: if a step holds a separator, and separators are errors.
            ScoringError: if the model gives a number that is not finite.
        """
        import torch

        if len(states) != len(steps) or not all(steps):
            raise ValueError(f"{len(steps)} lists of steps for {len(states)} states, none empty")
        if not states:
            return [], []
        tree = self.prefixes()
        end = self.family.end(self._backend.tokenizer) if self.family.end else []
        pieces = [self._pieces(*one, end) for one in zip(states, steps, strict=True)]
        nodes, hidden = tree.grow(
            [state.node for state in states],
            [[token for piece in own for token in piece.ids] for own in pieces],
        )
        # Where each step is read, in its node's own tokens.
        places = [
            (node, states_of, start + piece.at, piece)
            for node, states_of, own in zip(nodes, hidden, pieces, strict=True)
            for start, piece in zip(_starts(own), own, strict=True)
        ]
        read = (
            tree.behind(
                [node for node, _, _, _ in places],
                [at + 1 for _, _, at, _ in places],
                [[*piece.tail, *end] for _, _, _, piece in places],
            )
            if end
            else [_at(node, own, at) for node, own, at, _ in places]
        )
        numbers = tree.backend.read(torch.stack(read))
        if not all(math.isfinite(x) for of_step in numbers for x in of_step):
            raise ScoringError(f"{self.name} gave a number that is not finite")
        flat = iter(self.family.read(numbers))
        values = [[next(flat) for _ in own] for own in pieces]
        new = [
            State(node, state.n_steps + len(own))
            for node, state, own in zip(nodes, states, pieces, strict=True)
        ]
        return values, new

    def _pieces(self, state: State, steps: Sequence[Step], end: Sequence[int]) -> list[Piece]:
        """The token ids of steps that follow a state."""
        pieces, length, n_escaped = [], state.node.length, 0
        for number, step in enumerate(steps, state.n_steps):
            watching = Watching(self._backend.tokenizer, self.family.tags)
            piece = self.family.step(step, number, watching)
            n_new = max(len(piece.ids), piece.at + 1 + len(piece.tail) + len(end))
            self._check(watching, length + n_new)
            length += len(piece.ids)
            pieces.append(piece)
            n_escaped += watching.n_escaped
        _tell(n_escaped)
        return pieces

    def prefixes(self) -> PrefixTree:
        """The prefixes that are kept, and how many tokens were computed for them.

        Raises:
            ScoringError: if the numbers come from a server, which keeps none for us.
        """
        if not isinstance(self._backend, HFBackend):
            raise ScoringError(
                f"{self.name} is scored by a server, which keeps no prefixes for us; use score()"
            )
        if self._tree is None:
            self._tree = PrefixTree(self._backend)
        return self._tree

    def _check(self, watching: Watching, n_tokens: int) -> None:
        refusal = watching.refusal(self._on_separator)
        if refusal is not None:
            raise InvalidRecord(refusal)
        limit = self._backend.context
        if limit is not None and n_tokens > limit:
            raise InputTooLong(f"{n_tokens} tokens; {self.name!r} reads at most {limit}")
