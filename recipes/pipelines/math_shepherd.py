"""Math-Shepherd: a verifier from rollouts alone, that says + or - behind each step.

    python recipes/pipelines/math_shepherd.py OUT [--policy MODEL | --server URL] [--base MODEL]
        [--data FILE --test FILE] [--problems 24] [--samples 4] [--rollouts 8] [--best-of 16]

A policy solves training problems; each step is labelled by K of its completions, hard (any of them
is right) and soft (the share that is); a language model learns from either to say one of two tokens
behind each step; and the lowest step of a solution picks the best of N, against the majority.
DATA and TEST are problems with answers, in any format that `prm convert` reads (GSM8K's files).
Without them all is the embedded world's, whose small model learns next to nothing from so few
solutions: what is shown there is the way, not what comes of it.

Reference: Wang et al. 2023, arXiv:2312.08935 (K = 8; picking from 256; lowest step). Learning rate
and batch for models of billions are those of RLHFlow's training of the same objective
(RLHF-Reward-Modeling, math-rm/llama-3.1-prm.yaml: 2e-6, 32 solutions, one epoch).
"""

from __future__ import annotations

import argparse
from functools import partial
from pathlib import Path

from prmkit import (
    PolicySettings,
    Problem,
    SamplingSettings,
    TrainSettings,
    label,
    load_policy,
    load_scorer,
    monte_carlo,
    read_records,
    sample,
    splitter,
    train,
)
from prmkit.embedded.build import WEIGHTS
from prmkit.embedded.world import Split, problems
from prmkit.evaluation.benchmarks import BENCHMARKS
from prmkit.evaluation.cases import Case
from prmkit.evaluation.judgements import Judgement
from prmkit.evaluation.run import MeasureSettings, measure
from prmkit.evaluation.tables import interval
from prmkit.ledger import Ledger
from prmkit.policies.sampling import judge_by_answer
from prmkit.records import Record, Trajectory
from prmkit.training.batches import BatchSettings


def problems_of(file: Path | None, split: Split, n: int) -> list[Problem]:
    if file is None:
        return list(problems(split, n))
    found = {r.trajectory.problem.id: r.trajectory.problem for r in read_records(file)}
    return list(found.values())[:n]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("out", type=Path)
    parser.add_argument("--policy", help="who solves and completes; a model, or its name there:")
    parser.add_argument("--server", help="an OpenAI-compatible server with the policy")
    parser.add_argument("--base", help="the language model that becomes the verifier")
    parser.add_argument("--family", help="how it reads: math_shepherd, rlhflow, …")
    parser.add_argument("--data", type=Path)
    parser.add_argument("--test", type=Path)
    parser.add_argument("--split", default="line", help="where steps end; blank_line, …")
    parser.add_argument("--problems", type=int, default=24)
    parser.add_argument("--test-problems", type=int, default=40)
    parser.add_argument("--samples", type=int, default=4)
    parser.add_argument("--rollouts", type=int, default=8)
    parser.add_argument("--best-of", type=int, default=16)
    parser.add_argument("--max-new-tokens", type=int)
    parser.add_argument("--learning-rate", type=float)
    parser.add_argument("--epochs", type=float)
    options = parser.parse_args()
    small = options.base is None
    policy = load_policy(
        PolicySettings(
            policy=options.policy or (None if options.server else str(WEIGHTS / "policy")),
            server=options.server,
        )
    )
    drawing = SamplingSettings(
        temperature=0.8, max_new_tokens=options.max_new_tokens or (200 if small else 1024)
    )

    def solutions(file: Path | None, split: Split, n: int, of_each: int) -> list[Trajectory]:
        items = problems_of(file, split, n)
        about = {"policy": policy.name, "problems": [p.id for p in items], "of each": of_each}
        with Ledger(options.out / f"{split}.sqlite", about) as ledger:
            steps = splitter(options.split)
            drawn = sample(
                policy, items, of_each, steps, judge_by_answer, settings=drawing, ledger=ledger
            )
            return [trajectory for pool in drawn for trajectory in pool]

    taught = [
        t for t in solutions(options.data, "train", options.problems, options.samples) if t.steps
    ]
    asked = solutions(options.test, "test", options.test_problems, options.best_of)
    cases = [Case(f"{i}", Record(trajectory=t), "", t.problem.id) for i, t in enumerate(asked)]
    judges = {}
    # Both kinds of labels come from the same rollouts, which are drawn once.
    with Ledger(options.out / "rollouts.sqlite", {"policy": policy.name}) as ledger:
        for kind in ("hard", "soft"):
            method = partial(monte_carlo, n_rollouts=options.rollouts, kind=kind)
            labelled = label(
                taught, method, policy, judge_by_answer, settings=drawing, ledger=ledger
            )
            settings = TrainSettings(
                base=options.base or str(WEIGHTS / "policy"),
                out=options.out / kind,
                kind="tokens",
                # The tag of Math-Shepherd is one token to Mistral, and many to the embedded model.
                family=options.family or ("rlhflow" if small else "math_shepherd"),
                learning_rate=options.learning_rate or (5e-4 if small else 2e-6),
                epochs=options.epochs or (3 if small else 1),
            )
            result = train(
                list(labelled), settings, batches=BatchSettings(batch_size=8 if small else 32)
            )
            print(f"{kind}: {result.n_examples} solutions, {result.n_labels} labels, {result.out}")
            scored = load_scorer(result.out).score(asked)
            judges[kind] = [Judgement(one) for one in scored]
    evaluation = measure(BENCHMARKS["best_of_n"], cases, judges, MeasureSettings(aggregate="min"))
    n = options.best_of
    for name, model in evaluation.models.items():
        for figure in (f"majority_{n}", f"weighted_vote_{n}/min", f"best_of_{n}/min", f"pass_{n}"):
            print(f"{name}, {figure}: {interval(model.figures[figure], 1, 3)}")


if __name__ == "__main__":
    main()
