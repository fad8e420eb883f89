"""What does a better answer cost? Searches at equal tokens, with a policy and a PRM of your own.

    python recipes/6_search.py [PROBLEMS] [--policy FOLDER] [--model FOLDER] [--limit N] [--n N]
        [--out FOLDER]

PROBLEMS is a file in any format that ``prm convert`` reads, with reference answers; without it, and
without models, the embedded world's. Each algorithm searches the same problems; the table is of
equal cost: how often each would have been right, had it been stopped at so many tokens.
"""

from __future__ import annotations

import argparse
from itertools import islice
from pathlib import Path

from prmkit import HFPolicy, load_scorer, read_records
from prmkit.embedded.build import WEIGHTS
from prmkit.embedded.quickstart import judge as world_judge
from prmkit.embedded.world import problems
from prmkit.evaluation.searches import compare_searches
from prmkit.policies.sampling import judge_by_answer
from prmkit.records import Problem
from prmkit.report.searches import write_searches
from prmkit.search import SearchSettings, algorithm, search


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("problems", nargs="?", type=Path)
    parser.add_argument("--policy", type=Path, default=WEIGHTS / "policy")
    parser.add_argument("--model", type=Path, default=WEIGHTS / "prm")
    parser.add_argument("--limit", type=int, default=20)
    parser.add_argument("--n", type=int, default=8)
    parser.add_argument("--out", type=Path, default=Path("runs/searches"))
    options = parser.parse_args()
    items: list[Problem] = list(problems("test", options.limit))
    settings, judge = SearchSettings(split="line", answers="text"), world_judge
    if options.problems is not None:
        read = (record.trajectory.problem for record in read_records(options.problems))
        items = list(islice({p.id: p for p in read}.values(), options.limit))
        settings, judge = SearchSettings(), judge_by_answer
    policy, scorer = HFPolicy(options.policy), load_scorer(options.model)

    ways = {
        "best-of-n": algorithm("best-of-n", n=options.n),
        "beam": algorithm("beam", n=options.n, width=min(4, options.n)),
        "particle-filter": algorithm("particle-filter", n=options.n),
        "adaptive": algorithm("adaptive", n=options.n),
    }
    for name, way in ways.items():
        found = list(
            search(
                items,
                way,
                policy,
                scorer,
                settings=settings,
                judge=judge,
                traces=options.out / name / "traces",
            )
        )
        right = sum(bool(one.correct) for one in found)
        tokens = sum(one.cost.tokens for one in found) / len(found)
        print(f"{name:16} {right} of {len(found)} right, {tokens:.0f} tokens each", flush=True)

    compared = compare_searches({name: options.out / name for name in ways}, judge)
    points = compared.points["tokens"][::3]
    print("tokens          ", *(f"{point:8g}" for point in points))
    for run in compared.runs:
        curve = run.curves["tokens"].accuracy[::3]
        print(f"{run.name:16}", *(f"{moment.mean:8.3f}" for moment in curve))
    write_searches(options.out / "report.html", compared)
    print(f"report: {options.out / 'report.html'}")


if __name__ == "__main__":
    main()
