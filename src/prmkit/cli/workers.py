"""What engines run: scoring, sampling and labelling of one batch of records.

A worker is started from a small description, in this process or on another machine. On CPUs the
number of threads shows in the last digits of scores, so a description says it: that of the process
that gives the command.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from prmkit.checkpoints import fingerprint
from prmkit.cli.names import (
    DEFAULT_POLICY,
    judge,
    known_name,
    model_folder,
    open_policy,
    open_scorer,
)
from prmkit.labelling import Budget, OmegaSettings, RolloutStore, drive
from prmkit.labelling.methods import MethodSettings, task
from prmkit.ledger import Ledger
from prmkit.policies.base import SamplingSettings
from prmkit.policies.settings import PolicySettings
from prmkit.records import Problem, Record, Scored, Trajectory
from prmkit.scorers.settings import ModelSettings
from prmkit.splitting import splitter

if TYPE_CHECKING:
    from prmkit.policies.base import Policy
    from prmkit.scorers.base import Scorer


def threads_here() -> int:
    """How many threads this process computes with."""
    import torch

    return torch.get_num_threads()


def _use(threads: int) -> None:
    import torch

    torch.set_num_threads(threads)


def absolute(model: str) -> str:
    """A model's name as a process in another working directory needs it."""
    name = known_name(model)
    return str(Path(name).absolute()) if Path(name).is_dir() else name


def scoring_depends_on(how: ModelSettings) -> dict[str, Any]:
    """What a model's scores depend on, told without loading it."""
    folders = [how.model, *([how.reference] if how.reference else [])]
    return {"model": how, "files": [fingerprint(model_folder(name)) for name in folders]}


@dataclass(frozen=True, kw_only=True)
class StartScoring:
    """Starts a `ScoreWorker`.

    Attributes:
        how: the reward model.
        together: records that are scored together.
        threads: that it computes with.
    """

    how: ModelSettings
    together: int
    threads: int

    @classmethod
    def of(cls, how: ModelSettings, together: int) -> StartScoring:
        """The same model as in this process, for any other."""
        reference = absolute(how.reference) if how.reference else None
        there = replace(how, model=absolute(how.model), reference=reference)
        return cls(how=there, together=together, threads=threads_here())

    def __call__(self) -> ScoreWorker:
        """Load the model."""
        _use(self.threads)
        return ScoreWorker(open_scorer(self.how), self.together)


class ScoreWorker:
    """Puts a scorer's scores after those that records have.

    Args:
        scorer: who judges.
        together: records that are scored together: what is beside a solution shows in the last
            digits of its scores.
    """

    def __init__(self, scorer: Scorer, together: int):
        self._scorer, self._together = scorer, together

    def __call__(self, batch: Sequence[Record]) -> list[Record]:
        """The records, each with one more of scores."""
        results: list[Scored] = []
        for at in range(0, len(batch), self._together):
            group = [record.trajectory for record in batch[at : at + self._together]]
            results += self._scorer.score(group)
        return [r.replace(scores=(*r.scores, s)) for r, s in zip(batch, results, strict=True)]


def anywhere(speaker: PolicySettings) -> PolicySettings:
    """A policy's settings for a process in another working directory."""
    tokenizer = absolute(speaker.tokenizer) if speaker.tokenizer else None
    if speaker.server is not None:
        return replace(speaker, tokenizer=tokenizer)
    return replace(speaker, policy=absolute(speaker.policy or DEFAULT_POLICY))


def files_of(speaker: PolicySettings) -> Any:
    """The files of a policy, where they are here."""
    if speaker.server is not None or speaker.policy is None:
        return None
    return fingerprint(model_folder(speaker.policy))


@dataclass(frozen=True, kw_only=True)
class StartSampling:
    """Starts a `SampleWorker`.

    Attributes:
        speaker: the policy.
        samples: solutions of each problem.
        split: how text becomes steps.
        drawing: how completions are drawn.
        seed: of the run.
        threads: that it computes with.
    """

    speaker: PolicySettings
    samples: int
    split: str
    drawing: SamplingSettings
    seed: int
    threads: int

    def __call__(self) -> SampleWorker:
        """Load the model."""
        _use(self.threads)
        return SampleWorker(*open_policy(self.speaker), self)


class SampleWorker:
    """Samples solutions of problems.

    Args:
        policy: who solves.
        about: what its words depend on.
        how: its description.
    """

    def __init__(self, policy: Policy, about: Mapping[str, Any], how: StartSampling):
        self.policy, self.about, self._how = policy, about, how

    def solve(
        self,
        problems: Sequence[Problem],
        ledger: Ledger | None = None,
        on_progress: Callable[[int], None] | None = None,
    ) -> Iterator[tuple[Trajectory, ...]]:
        """The solutions of each problem; see `prmkit.policies.sampling.sample`."""
        from prmkit.policies.sampling import sample

        return sample(
            self.policy,
            problems,
            self._how.samples,
            splitter(self._how.split),
            judge(),
            settings=self._how.drawing,
            seed=self._how.seed,
            ledger=ledger,
            on_progress=on_progress,
        )

    def __call__(self, batch: Sequence[Record]) -> list[Record]:
        """The solutions of the records' problems, those of one problem together."""
        solved = self.solve([record.trajectory.problem for record in batch])
        return [Record(trajectory=trajectory) for group in solved for trajectory in group]


@dataclass(frozen=True, kw_only=True)
class StartLabelling:
    """Starts a `LabelWorker`.

    Attributes:
        speaker: the completer, or the judge.
        method: how steps are labelled.
        omega: constants of OmegaPRM's tree.
        drawing: how completions are drawn.
        seed: of the run.
        in_flight: solutions under way at a time.
        threads: that it computes with.
    """

    speaker: PolicySettings
    method: MethodSettings
    omega: OmegaSettings
    drawing: SamplingSettings
    seed: int
    in_flight: int
    threads: int

    def __call__(self) -> LabelWorker:
        """Load the model."""
        _use(self.threads)
        return LabelWorker(*open_policy(self.speaker), self)


class LabelWorker:
    """Labels the steps of solutions.

    Args:
        policy: the completer, or the judge.
        about: what its words depend on.
        how: its description.
    """

    def __init__(self, policy: Policy, about: Mapping[str, Any], how: StartLabelling):
        self.policy, self.about, self._how = policy, about, how

    def store(self, ledger: Ledger | None = None) -> RolloutStore:
        """Where its rollouts come from, and are kept."""
        return RolloutStore(self.policy, judge(), self._how.drawing, self._how.seed, ledger)

    def label(
        self,
        records: Iterable[Record],
        store: RolloutStore,
        budget: Budget | None = None,
        on_round: Callable[[], None] | None = None,
    ) -> Iterator[tuple[Record, list[Record]]]:
        """Each record with what becomes of it; see `prmkit.labelling.drive`."""
        return drive(
            records,
            task(self._how.method, self._how.omega),
            store,
            in_flight=self._how.in_flight,
            budget=budget,
            on_round=on_round,
        )

    def __call__(self, batch: Sequence[Record]) -> list[Record]:
        """What becomes of the records, in order."""
        return [made for _, found in self.label(batch, self.store()) for made in found]
