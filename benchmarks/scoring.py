"""Scoring speed, as ratios measured in one run on the same inputs.

    python benchmarks/scoring.py [--device cpu|cuda] [--hidden N] [--layers N] [--out FILE]

The model is random, in the layout of Qwen2.5-Math-PRM; what it says does not matter here. Each way
is run `ROUNDS` times in turn with the others, and its median counts.
"""

from __future__ import annotations

import argparse
import platform
import random
import statistics
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch

from prmkit import __version__
from prmkit.checkpoints import quiet_transformers
from prmkit.files import write_json
from prmkit.records import Problem, Step, StepScores, Trajectory
from prmkit.scorers.backends.hf import HFBackend
from prmkit.scorers.discriminative import DiscriminativeScorer
from prmkit.scorers.families import DISCRIMINATIVE, Rendered
from prmkit.testing import tiny_checkpoint

RESULTS = Path(__file__).parent / "results" / "scoring.json"
FAMILY = DISCRIMINATIVE["qwen_prm"]
ROUNDS = 3
N_SOLUTIONS = 24
BATCH = 8
DEPTH, WIDTH, CANDIDATES = 10, 4, 4
STORY = (
    "so the number of apples is three times four plus one and how many has she then because "
    "each of them costs two and there are six more in the basket which makes the sum"
)


def text(rng: random.Random, n_words: int) -> str:
    """Words whose tokens are a little more than themselves."""
    words = STORY.split()
    return " ".join(rng.choice(words) for _ in range(n_words)).capitalize() + "."


def solutions(rng: random.Random, n: int) -> list[Trajectory]:
    """Problems of their own, 8 to 10 steps; about 400 tokens each, lengths spread."""
    made = []
    for i in range(n):
        size = rng.lognormvariate(0, 0.5)
        steps = [
            text(rng, max(2, round(size * rng.randint(6, 18)))) for _ in range(rng.randint(8, 10))
        ]
        made.append(
            Trajectory(
                problem=Problem(id=str(i), prompt=text(rng, rng.randint(12, 24))),
                steps=tuple(Step(text=step) for step in steps),
            )
        )
    return made


class Stock:
    """The same weights in the stock class of transformers, and the head, as snippets use them."""

    def __init__(self, folder: Path, backend: HFBackend):
        from transformers import AutoModel

        with quiet_transformers():
            model = AutoModel.from_pretrained(folder, dtype=backend.body.dtype)
        self.model = model.to(backend.device).eval()
        self.head = backend.head
        self.device = backend.device

    @torch.inference_mode()
    def bare(self, rows: Sequence[Sequence[int]]) -> None:
        """Each row alone, unpadded, nothing read: the least that the tokens cost."""
        for row in rows:
            self.model(input_ids=torch.tensor([row], device=self.device), use_cache=False)
        self._wait()

    @torch.inference_mode()
    def alone(self, rows: Sequence[Rendered]) -> list[list[float]]:
        """Each row alone in one unpadded pass, read at its steps."""
        scores = []
        for row in rows:
            ids = torch.tensor([row.ids], device=self.device)
            hidden = self.model(input_ids=ids, use_cache=False).last_hidden_state[0, row.positions]
            scores.append(FAMILY.read(self.head(hidden.float()).tolist()))
        return scores

    @torch.inference_mode()
    def per_step(self, rows: Sequence[Rendered]) -> list[list[float]]:
        """One pass per prefix of steps, read at its last token."""
        scores = []
        for row in rows:
            numbers = []
            for position in row.positions:
                ids = torch.tensor([row.ids[: position + 1]], device=self.device)
                hidden = self.model(input_ids=ids, use_cache=False).last_hidden_state[:, -1]
                numbers.append(self.head(hidden.float())[0].tolist())
            scores.append(FAMILY.read(numbers))
        return scores

    @torch.inference_mode()
    def padded(self, rows: Sequence[Rendered]) -> list[list[float]]:
        """Batches in the order of arrival, padded to the longest."""
        scores = []
        for at in range(0, len(rows), BATCH):
            batch = rows[at : at + BATCH]
            longest = max(len(row.ids) for row in batch)
            ids = torch.tensor([row.ids + [0] * (longest - len(row.ids)) for row in batch])
            mask = torch.tensor(
                [[1] * len(row.ids) + [0] * (longest - len(row.ids)) for row in batch]
            )
            out = self.model(
                input_ids=ids.to(self.device), attention_mask=mask.to(self.device), use_cache=False
            ).last_hidden_state
            numbers = self.head(out.float()).cpu()
            scores += [
                FAMILY.read(of_row[row.positions].tolist())
                for of_row, row in zip(numbers, batch, strict=True)
            ]
        return scores

    def _wait(self) -> None:
        if self.device != "cpu":
            torch.cuda.synchronize()


class Tree:
    """A beam search's candidates: at each level, some new steps after each open prefix."""

    def __init__(self, rng: random.Random):
        self.problem = Problem(id="tree", prompt=text(rng, 24))
        self.levels = [
            [[text(rng, rng.randint(8, 16)) for _ in range(CANDIDATES)] for _ in range(WIDTH)]
            for _ in range(DEPTH)
        ]

    def reuse(self, scorer: DiscriminativeScorer) -> list[list[float]]:
        """With `start` and `extend` of a fresh scorer: new tokens alone."""
        beams = [scorer.start(self.problem)] * WIDTH
        found = []
        for level in self.levels:
            pairs = [(beam, step) for beam, of in zip(beams, level, strict=True) for step in of]
            scores, states = scorer.extend(
                [beam for beam, _ in pairs], [Step(text=step) for _, step in pairs]
            )
            found.append(scores)
            beams = [states[i] for i in self.best(scores)]
        return found

    def again(self, score: Callable[[list[Trajectory]], list[list[float]]]) -> list[list[float]]:
        """Every candidate's whole text at every level."""
        beams: list[tuple[str, ...]] = [()] * WIDTH
        found = []
        for level in self.levels:
            texts = [(*beam, step) for beam, of in zip(beams, level, strict=True) for step in of]
            scores = [of[-1] for of in score([self.trajectory(steps) for steps in texts])]
            found.append(scores)
            beams = [texts[i] for i in self.best(scores)]
        return found

    def trajectory(self, steps: Sequence[str]) -> Trajectory:
        """A candidate's whole text."""
        return Trajectory(problem=self.problem, steps=tuple(Step(text=s) for s in steps))

    @staticmethod
    def best(scores: Sequence[float]) -> list[int]:
        """Which candidates stay."""
        return sorted(range(len(scores)), key=lambda i: -scores[i])[:WIDTH]

    def distinct(self, tokenizer: Any) -> int:
        """Tokens of the problem and of all candidates, each once."""
        return len(FAMILY.begin(self.problem, tokenizer)) + sum(
            len(FAMILY.step(Step(text=step), depth, tokenizer).ids)
            for depth, level in enumerate(self.levels)
            for of in level
            for step in of
        )


def medians(ways: dict[str, Callable[[], Any]]) -> dict[str, float]:
    """Seconds of each way, the median of `ROUNDS`, the ways taking turns; one round to warm up."""
    seconds: dict[str, list[float]] = {name: [] for name in ways}
    for turn in range(ROUNDS + 1):
        for name, way in ways.items():
            start = time.perf_counter()
            way()
            if turn:
                seconds[name].append(time.perf_counter() - start)
    return {name: statistics.median(of) for name, of in seconds.items()}


def matrix_rate(device: str, dtype: Any) -> float:
    """FLOP/s of a large matrix product on this device."""
    size = 1024 if device == "cpu" else 8192
    a, b = (torch.randn(size, size, device=device, dtype=dtype) for _ in range(2))
    best = 0.0
    for _ in range(8):
        start = time.perf_counter()
        (a @ b).sum().item()
        best = max(best, 2 * size**3 / (time.perf_counter() - start))
    return best


def nearly(a: Sequence[Sequence[float]], b: Sequence[Sequence[float]]) -> float:
    """The largest difference of two lots of scores."""
    return max(abs(x - y) for p, q in zip(a, b, strict=True) for x, y in zip(p, q, strict=True))


def alike(
    differences: dict[str, float], stock: Stock, rows: Sequence[Rendered], device: str
) -> None:
    """Stop where the ways give different scores."""
    # In bfloat16 the plain ways differ among themselves by what rounding does.
    rounding = nearly(stock.per_step(rows), stock.padded(rows))
    slack = 1e-4 if device == "cpu" else max(5e-2, 2 * rounding)
    if max(differences.values()) > slack:
        raise SystemExit(
            f"the ways give different scores, so their times mean nothing: {differences}; "
            f"{slack} would be rounding"
        )


def measure(folder: Path, device: str) -> dict[str, Any]:
    """All figures for one model."""
    backend = HFBackend(folder, FAMILY.head, device=device)
    tokenizer: Any = backend.tokenizer
    stock = Stock(folder, backend)

    def fresh() -> DiscriminativeScorer:
        # Nothing is kept from an earlier round.
        return DiscriminativeScorer(folder, family=FAMILY, backend=backend)

    scorer = fresh()
    rng = random.Random(7)
    some = solutions(rng, N_SOLUTIONS)
    rows = [FAMILY.render(t, tokenizer) for t in some]
    lengths = [len(row.ids) for row in rows]

    def ours(trajectories: list[Trajectory]) -> list[list[float]]:
        scored = [one for one in scorer.score(trajectories) if isinstance(one, StepScores)]
        assert len(scored) == len(trajectories)
        return [list(one.values) for one in scored]

    pool = [some[0].model_copy(update={"steps": t.steps}) for t in some]
    pool_rows = [FAMILY.render(t, tokenizer) for t in pool]
    tree = Tree(rng)

    def rescored(read: Callable[[list[Rendered]], Any]) -> Any:
        return tree.again(lambda some: read([FAMILY.render(t, tokenizer) for t in some]))

    differences = {
        "per_step": nearly(ours(some), stock.per_step(rows)),
        "padded": nearly(ours(some), stock.padded(rows)),
        "tree": nearly(tree.reuse(scorer), tree.again(ours)),
    }
    alike(differences, stock, rows, device)
    computed = scorer.prefixes().computed
    distinct = tree.distinct(tokenizer)
    seconds = medians(
        {
            "ours": lambda: ours(some),
            "bare": lambda: stock.bare([row.ids for row in rows]),
            "padded": lambda: stock.padded(rows),
            "per_step": lambda: stock.per_step(rows),
            "pool": lambda: ours(pool),
            "pool_bare": lambda: stock.bare([row.ids for row in pool_rows]),
            "tree_reuse": lambda: tree.reuse(fresh()),
            "tree_again": lambda: tree.again(ours),
            "tree_alone": lambda: rescored(stock.alone),
            "tree_padded": lambda: rescored(stock.padded),
        }
    )
    parameters = sum(p.numel() for p in backend.body.layers.parameters())
    rate = sum(lengths) / seconds["ours"]
    return {
        "model": {"layers' parameters": parameters, "dtype": str(backend.body.dtype)},
        "inputs": {
            "solutions": len(some),
            "steps": sum(len(t.steps) for t in some),
            "tokens": {"mean": statistics.mean(lengths), "min": min(lengths), "max": max(lengths)},
            "tree": {"depth": DEPTH, "width": WIDTH, "candidates": CANDIDATES, "tokens": distinct},
        },
        "largest_difference": differences,
        "seconds": seconds,
        "ratios": {
            "one_pass_per_step_to_ours": seconds["per_step"] / seconds["ours"],
            "padded_batches_to_ours": seconds["padded"] / seconds["ours"],
            "ours_to_bare_forward": seconds["ours"] / seconds["bare"],
            "bare_forward_to_ours_on_one_problem": seconds["pool_bare"] / seconds["pool"],
            "tree_rescored_to_reuse": seconds["tree_alone"] / seconds["tree_reuse"],
            "tree_rescored_in_padded_batches_to_reuse": seconds["tree_padded"]
            / seconds["tree_reuse"],
            "tree_rescored_by_our_score_to_reuse": seconds["tree_again"] / seconds["tree_reuse"],
            "tree_computed_to_distinct_tokens": computed / distinct,
        },
        "tokens_per_second": rate,
        "share_of_matrix_rate": 2 * parameters * rate / matrix_rate(device, backend.body.dtype),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    parser.add_argument("--hidden", type=int)
    parser.add_argument("--layers", type=int)
    parser.add_argument("--out", type=Path, default=RESULTS)
    options = parser.parse_args()
    on_cpu = options.device == "cpu"
    hidden = options.hidden or (512 if on_cpu else 2048)
    layers = options.layers or (8 if on_cpu else 24)
    with tempfile.TemporaryDirectory() as folder:
        tiny_checkpoint("qwen_prm", folder, hidden=hidden, layers=layers)
        found = measure(Path(folder), options.device)
    machine = (
        f"{platform.machine()}, {torch.get_num_threads()} threads"
        if on_cpu
        else (torch.cuda.get_device_name())
    )
    about = {"prmkit": __version__, "torch": torch.__version__, "machine": machine}
    write_json(options.out, about | _rounded(found))
    for name, ratio in found["ratios"].items():
        print(f"{name}: {ratio:.2f}")


def _rounded(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _rounded(v) for key, v in value.items()}
    return float(f"{value:.4g}") if isinstance(value, float) else value


if __name__ == "__main__":
    main()
