"""What a step beam search gains from prefixes that policy and scorer keep.

    python benchmarks/search_prefixes.py [--problems N] [--device D] [--out FILE]

Beam search (width 4, 4 expansions a beam, depth 8): with keys and values of prefixes kept on both
sides, and with everything computed anew for every step, on the same models; results are compared.
Beside their own questions of 50 tokens, the embedded models are asked the same with other questions
before them, as prompts with worked examples are long. They have a million parameters, so that most
of the time is not the models' at all: the same is measured with the same models made wider with
zeros, which say the same at the cost of a larger one.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import shutil
import tempfile
import time
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file

from prmkit import __version__
from prmkit.embedded.build import WEIGHTS
from prmkit.embedded.world import problems
from prmkit.files import write_json
from prmkit.policies.hf import HFPolicy
from prmkit.policies.sampling import Outcome
from prmkit.records import Problem, StepScores, Trajectory, Unscored
from prmkit.scorers.discriminative import DiscriminativeScorer
from prmkit.search import DriveSettings, Found, SearchSettings, algorithm, search

RESULTS = Path(__file__).parent / "results" / "search_prefixes.json"
BEAM = {"n": 16, "width": 4, "max_steps": 8, "distinct": False}
WIDER = 8
"""Times as wide: from a million parameters to sixty."""


def widened(source: Path, target: Path, times: int) -> Path:
    """A Llama that says what another says, with `times` as many numbers everywhere.

    New rows and columns are zeros. A norm's mean is taken over more numbers, so its weights shrink
    by the root of what the numbers grew by, and so does what is added to the mean.
    """
    shutil.copytree(source, target)
    config = json.loads((source / "config.json").read_text())
    config |= {
        key: config[key] * times
        for key in (
            "hidden_size", "intermediate_size", "num_attention_heads", "num_key_value_heads",
        )
    } | {"rms_norm_eps": config["rms_norm_eps"] / times}  # fmt: skip
    tensors = {}
    for name, old in load_file(source / "model.safetensors").items():
        # What goes in and comes out of a layer grows; words and verdicts stay as many.
        grows = [
            not (d == 0 and name.startswith(("model.embed", "score"))) for d in range(old.ndim)
        ]
        shape = [n * times if more else n for n, more in zip(old.shape, grows, strict=True)]
        new = torch.zeros(shape)
        new[tuple(slice(n) for n in old.shape)] = old.float()
        tensors[name] = new * times**-0.5 if "norm" in name else new
    save_file(tensors, target / "model.safetensors", metadata={"format": "pt"})
    (target / "config.json").write_text(json.dumps(config | {"dtype": "float32"}))
    return target


class Anew:
    """A scorer that keeps nothing: every text is read from its beginning, as peers do."""

    def __init__(self, scorer: DiscriminativeScorer):
        self._scorer, self.semantics, self.name = scorer, scorer.semantics, scorer.name
        self.computed = 0

    def score(self, trajectories: Sequence[Trajectory]) -> list[StepScores | Unscored]:
        """One text at a time, so that not even the question is shared."""
        self.computed += sum(self._scorer.n_tokens(trajectories))
        return [found for one in trajectories for found in self._scorer.score([one])]


def went(
    policy: HFPolicy, scorer: Any, items: Sequence[Problem], step_tokens: int
) -> tuple[list[Found], float]:
    settings = SearchSettings(
        split="line", max_step_tokens=step_tokens, max_tokens=200, answers="text", answer_ends=False
    )
    begun = time.perf_counter()
    found = list(
        search(
            items,
            partial(algorithm("beam", **BEAM)),
            policy,
            scorer,
            settings=settings,
            driving=DriveSettings(in_flight=1),
            judge=lambda problem, text: Outcome(text, None),
        )
    )
    return found, time.perf_counter() - begun


def measure(
    policy: Path, prm: Path, items: Sequence[Problem], step_tokens: int, device: str
) -> dict[str, Any]:
    """Both ways on the same problems."""
    kept = HFPolicy(policy, device=device)
    scorer = DiscriminativeScorer(prm, device=device)
    went(kept, scorer, items[:1], step_tokens)
    before, read = kept.computed, scorer.prefixes().computed
    ours, fast = went(kept, scorer, items[1:], step_tokens)
    computed = kept.computed - before, scorer.prefixes().computed - read
    anew, plain = (
        HFPolicy(policy, device=device, max_kept=0),
        DiscriminativeScorer(prm, device=device),
    )
    slowly = Anew(plain)
    start = anew.computed
    theirs, slow = went(anew, slowly, items[1:], step_tokens)
    same = sum(
        [(n.path, n.text) for n in a.root.walk()] == [(n.path, n.text) for n in b.root.walk()]
        for a, b in zip(ours, theirs, strict=True)
    )
    # Each token of the tree once: the question, and every node's own.
    drawn = sum(one.cost.policy_tokens for one in ours)
    questions = sum(len(kept.question_ids(item)) for item in items[1:])
    scored = sum(one.cost.scorer_tokens for one in ours)
    return {
        "problems": len(items) - 1,
        "seconds_kept": fast,
        "seconds_anew": slow,
        "times_faster": slow / fast,
        "same_trees": same,
        "policy": {
            "computed": computed[0],
            "of_the_tree": drawn + questions,
            "ratio": computed[0] / (drawn + questions),
            "computed_anew": anew.computed - start,
        },
        "scorer": {
            "computed": computed[1],
            "of_the_tree": scored,
            "ratio": computed[1] / scored,
            "computed_anew": slowly.computed,
        },
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--problems", type=int, default=8)
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--out", type=Path, default=RESULTS)
    options = parser.parse_args()
    items = list(problems("test", options.problems + 1, 46_000))
    others = list(problems("test", 12, 47_000))
    rows = {}
    with tempfile.TemporaryDirectory() as temporary:
        for times in (1, WIDER):
            models = [WEIGHTS / "policy", WEIGHTS / "prm"]
            if times > 1:
                models = [widened(one, Path(temporary) / one.name, times) for one in models]
            for before in (0, 4, 12):
                # The policy knows one question at a time; what it answers here does not matter.
                longer = [
                    Problem(
                        id=item.id, prompt=" ".join([*(o.text for o in others[:before]), item.text])
                    )
                    for item in items
                ]
                name = f"{before} questions before, width x {times}"
                rows[name] = measure(*models, longer, 60, options.device)
                print(name, rows[name], flush=True)
    cores = f"{platform.machine()}, {len(os.sched_getaffinity(0))} cores"
    about = {
        "prmkit": __version__,
        "torch": torch.__version__,
        "machine": cores if options.device == "cpu" else torch.cuda.get_device_name(),
        "beam": BEAM,
    }
    write_json(options.out, {**about, "rows": rows})


if __name__ == "__main__":
    main()
