"""The whole road in the embedded world: sample, label, train, score, evaluate, best-of-N.

Every stage leaves its part in the run folder and finds it again when the run is started anew.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, NamedTuple

from prmkit.aggregate import Aggregation
from prmkit.embedded.build import WEIGHTS
from prmkit.embedded.judge import judge as world_judge
from prmkit.embedded.judge import true_labels
from prmkit.embedded.world import problems
from prmkit.evaluation.pools import Measured, PoolSettings, measure_pools
from prmkit.files import atomic_text, write_json
from prmkit.labelling import Progress, label, monte_carlo
from prmkit.ledger import Ledger, claim_folder
from prmkit.policies.base import SamplingSettings
from prmkit.policies.hf import HFPolicy
from prmkit.policies.sampling import Outcome, sample
from prmkit.records import Problem, Record, Trajectory
from prmkit.scorers.base import Scorer
from prmkit.scorers.discriminative import DiscriminativeScorer
from prmkit.scorers.implicit import ImplicitScorer
from prmkit.settings import at_least
from prmkit.training.trainer import TrainSettings, train

Say = Callable[[str, int, int], None]
"""Told the stage, how much of it is done, and of how much."""

SAMPLING = SamplingSettings(temperature=0.8, max_new_tokens=200)
LOG_RATIO_THRESHOLD = -1.0
"""A step that is e times likelier to the policy than to the base is suspected to be wrong."""


@dataclass(frozen=True, kw_only=True)
class QuickstartSettings:
    """The embedded world from problems to a better answer.

    Attributes:
        out: the run folder.
        problems: test problems that are solved and scored.
        samples: solutions of each.
        label_problems: training problems whose solutions are labelled by rollouts.
        label_samples: solutions of each.
        rollouts: completions from each prefix.
        aggregate: step scores to one number.
        threshold: a step with a lower score is called wrong.
        seed: of everything that is drawn.
    """

    out: Path = Path("runs/quickstart")
    problems: int = 120
    samples: int = 16
    label_problems: int = 40
    label_samples: int = 2
    rollouts: int = 8
    aggregate: Aggregation = "min"
    threshold: float = 0.5
    seed: int = 0

    def __post_init__(self) -> None:
        at_least(1, problems=self.problems, samples=self.samples, rollouts=self.rollouts)
        at_least(1, label_problems=self.label_problems, label_samples=self.label_samples)


class QuickstartResult(NamedTuple):
    """What a quickstart leaves.

    Attributes:
        metrics: as in ``metrics.json``.
        records: the scored test solutions, of each problem together; labels are the truth.
        measured: the PRM's measurements, for the report.
    """

    metrics: dict[str, Any]
    records: list[list[Record]]
    measured: Measured


def judge(problem: Problem, text: str) -> Outcome:
    """The outcome of a solution in the embedded world."""
    found = world_judge(problem, text.splitlines(keepends=True))
    return Outcome(found.answer, found.correct)


def split_lines(text: str) -> list[str]:
    r"""The world's steps: lines, each with its ``\n``."""
    return [line + "\n" for line in text.split("\n")[:-1]] + (
        [text.rsplit("\n", 1)[-1]] if not text.endswith("\n") and text else []
    )


def quickstart(
    settings: QuickstartSettings, *, weights: Path = WEIGHTS, on_progress: Say | None = None
) -> QuickstartResult:
    """Run the whole road; resumes in its folder.

    Args:
        settings: see `QuickstartSettings`.
        weights: the folder of the shipped checkpoints.
        on_progress: told how far it is.

    Raises:
        RunFolderError: if the folder holds a run with other settings.
    """
    say = on_progress or (lambda stage, done, total: None)
    described = asdict(settings)
    del described["out"]
    claim_folder(settings.out, described)
    seconds: dict[str, float] = {}
    policy = HFPolicy(weights / "policy", device="cpu")
    with _timed(seconds, "sample"):
        test = _sample(policy, settings, "test", settings.problems, settings.samples, say)
        to_label = _sample(
            policy, settings, "train", settings.label_problems, settings.label_samples, say
        )
    with _timed(seconds, "label"):
        labelled = _label(policy, [t for group in to_label for t in group], settings, say)
    with _timed(seconds, "train"):
        prm_folder = _train(labelled, settings, weights, say)
    prm = DiscriminativeScorer(prm_folder, device="cpu")
    implicit = ImplicitScorer(weights / "base", weights / "policy", device="cpu")
    with _timed(seconds, "score"):
        scored = _score(test, (prm, implicit), say)
    with _timed(seconds, "evaluate"):
        how = PoolSettings(aggregation=settings.aggregate, threshold=settings.threshold)
        measured = measure_pools(scored, 0, how)
        by_ratio = PoolSettings(aggregation="min", threshold=LOG_RATIO_THRESHOLD)
        compared = measure_pools(scored, 1, by_ratio)
    metrics = {
        "policy": measured.policy_metrics(),
        "prm": measured.metrics(),
        "implicit": compared.metrics(),
        "labelling": _label_quality(labelled),
        "seconds": {stage: round(spent, 1) for stage, spent in seconds.items()},
    }
    _write(settings, metrics, scored)
    return QuickstartResult(metrics, scored, measured)


@contextmanager
def _timed(seconds: dict[str, float], stage: str) -> Iterator[None]:
    start = time.perf_counter()
    yield
    seconds[stage] = time.perf_counter() - start


def _sample(
    policy: HFPolicy, settings: QuickstartSettings, split: Any, n: int, samples: int, say: Say
) -> list[tuple[Trajectory, ...]]:
    items = list(problems(split, n))
    done = 0

    def progress(more: int) -> None:
        nonlocal done
        done += more
        say(f"sample {split}", done, len(items))

    about = {"split": split, "samples": samples, "seed": settings.seed, "policy": policy.name}
    with Ledger(settings.out / f"sample-{split}.sqlite", about) as ledger:
        return list(
            sample(
                policy,
                items,
                samples,
                split_lines,
                judge,
                settings=SAMPLING,
                seed=settings.seed,
                ledger=ledger,
                on_progress=progress,
            )
        )


def _label(
    policy: HFPolicy, trajectories: Sequence[Trajectory], settings: QuickstartSettings, say: Say
) -> list[Record]:
    done = 0

    def progress(more: Progress) -> None:
        nonlocal done
        done += more.trajectories
        say("label", done, len(trajectories))

    about = {"rollouts": settings.rollouts, "seed": settings.seed, "policy": policy.name}
    with Ledger(settings.out / "label.sqlite", about) as ledger:
        return list(
            label(
                trajectories,
                lambda t: monte_carlo(t, n_rollouts=settings.rollouts, kind="hard"),
                policy,
                judge,
                settings=SAMPLING,
                seed=settings.seed,
                in_flight=16,
                ledger=ledger,
                on_progress=progress,
            )
        )


def _train(
    labelled: Sequence[Record], settings: QuickstartSettings, weights: Path, say: Say
) -> Path:
    """The shipped PRM, trained a little further on the fresh labels."""
    folder = settings.out / "prm"
    if not folder.is_dir():
        train(
            labelled,
            TrainSettings(
                base=str(weights / "prm"), out=folder, learning_rate=2e-5, seed=settings.seed
            ),
            on_progress=lambda done, total, logs: say("train", done, total),
        )
    return folder


def _score(
    groups: Sequence[Sequence[Trajectory]], scorers: Sequence[Scorer], say: Say
) -> list[list[Record]]:
    """Records with the scores of each scorer, in order, and the world's true labels."""
    scored = []
    for done, group in enumerate(groups, 1):
        by_scorer = [scorer.score(group) for scorer in scorers]
        scored.append(
            [
                Record(
                    trajectory=trajectory,
                    labels=true_labels(trajectory),
                    scores=tuple(results[i] for results in by_scorer),
                )
                for i, trajectory in enumerate(group)
            ]
        )
        say("score", done, len(groups))
    return scored


def _label_quality(labelled: Sequence[Record]) -> dict[str, float]:
    """The rollout labels against the truth."""
    hits = [
        record.labels is not None
        and record.labels.first_error == true_labels(record.trajectory).first_error
        for record in labelled
    ]
    rollouts = sum(
        sum(ran or 0 for ran in record.labels.trials[:-1])
        for record in labelled
        if record.labels is not None and record.labels.trials
    )
    return {
        "rollouts": rollouts,
        "solutions": len(labelled),
        "first_error_accuracy": round(sum(hits) / len(hits), 4),
    }


def _write(
    settings: QuickstartSettings, metrics: dict[str, Any], scored: Sequence[Sequence[Record]]
) -> None:
    with atomic_text(settings.out / "records.jsonl") as out:
        for group in scored:
            out.writelines(record.model_dump_json() + "\n" for record in group)
    write_json(settings.out / "metrics.json", metrics)
