"""Which reward teaches best? One policy, several rewards, the same number of responses each.

    python recipes/7_reinforce.py [PROBLEMS] [--held-out FILE] [--policy FOLDER] [--model FOLDER]
        [--steps N] [--out FOLDER]

PROBLEMS and FILE are in any format that ``prm convert`` reads, with reference answers; without
them, and without models, all is the embedded world's. The table tells how often each policy is
right on the problems held out, and whether a monitor found that it pleases its judge only.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path

from prmkit import load_scorer, read_records
from prmkit.embedded.build import WEIGHTS
from prmkit.embedded.quickstart import judge as world_judge
from prmkit.embedded.world import problems
from prmkit.policies.sampling import judge_by_answer
from prmkit.records import Problem
from prmkit.report.rl import write_rl
from prmkit.rl import (
    Plan,
    RewardSettings,
    RLSettings,
    RolloutSettings,
    UpdateSettings,
    train_policy,
)

WAYS = {
    "outcome": ("rloo", RewardSettings()),
    "prime": ("prime", RewardSettings(reward="implicit")),
    "scores": ("grpo", RewardSettings(reward="score")),
    "min-and-outcome": ("rloo", RewardSettings(reward="min", outcome_weight=1.0)),
}


def read(file: Path) -> list[Problem]:
    found = (record.trajectory.problem for record in read_records(file))
    return list({problem.id: problem for problem in found}.values())


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("problems", nargs="?", type=Path)
    parser.add_argument("--held-out", type=Path)
    parser.add_argument("--policy", type=Path, default=WEIGHTS / "policy")
    parser.add_argument("--model", type=Path, default=WEIGHTS / "prm")
    parser.add_argument("--steps", type=int, default=40)
    parser.add_argument("--problems-a-step", type=int, default=16)
    parser.add_argument("--samples", type=int, default=8)
    parser.add_argument("--learning-rate", type=float, default=3e-4)
    parser.add_argument("--evaluate", type=int, default=100, help="problems held out at most")
    parser.add_argument("--only", nargs="*", choices=list(WAYS), default=list(WAYS))
    parser.add_argument("--out", type=Path, default=Path("runs/reinforce"))
    options = parser.parse_args()
    practised: Sequence[Problem] = list(problems("train", 4000))
    held_out: Sequence[Problem] = list(problems("test", 100))
    split, judge = "line", world_judge
    if options.problems is not None:
        if options.held_out is None:
            parser.error("give --held-out, problems that are not practised on")
        practised, held_out = read(options.problems), read(options.held_out)
        split, judge = "blank_line", judge_by_answer
    held_out = held_out[: options.evaluate]
    scorer = load_scorer(options.model)
    for name in options.only:
        algorithm, rewards = WAYS[name]
        folder = options.out / name
        plan = Plan(
            run=RLSettings(
                policy=str(options.policy), out=folder, algorithm=algorithm, steps=options.steps
            ),
            rollouts=RolloutSettings(
                problems=options.problems_a_step,
                samples=options.samples,
                split=split,
                max_new_tokens=200 if options.problems is None else 1024,
            ),
            rewards=rewards,
            update=UpdateSettings(learning_rate=options.learning_rate),
        )
        result = train_policy(practised, plan, judge, scorer=scorer, held_out=held_out)
        write_rl(folder / "report.html", folder, title=name)
        first, last = (
            [row for row in result.rows if "eval_accuracy" in row][i]["eval_accuracy"]
            for i in (0, -1)
        )
        alarms = {a["monitor"] for row in result.rows for a in row.get("alarms", ())}
        print(
            f"{name:16} right {first:.3f} -> {last:.3f} after "
            f"{result.rows[-1]['sampled_tokens']} tokens; alarms: {', '.join(alarms) or 'none'}"
        )
    print(f"reports: {options.out}/*/report.html")


if __name__ == "__main__":
    main()
