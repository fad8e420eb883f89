"""Speed of training: `prmkit.training` against TRL's PRMTrainer, on the same solutions.

    make trl                                 # TRL in an environment of its own, .venv-trl
    python benchmarks/training_speed.py [--only NAME] [--rounds N] [--data DIR] [--out FILE]

The same weights, token ids, labels, solutions of an optimiser step, learning rate, schedule and
threads; float32 on the CPU. Every run is a process of its own; both sides are timed around
`transformers.Trainer.train`, which both of them are. Ways take turns, and medians count; CPU time
is given beside time, since other programs may be at work on the same cores. Models of both sides
are then read by the same scorer on solutions that neither has seen.

Without TRL's environment its ways are left out; without --data the trees are the world's own.
"""

from __future__ import annotations

import argparse
import json
import math
import os
import platform
import random
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
import transformers
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers

from prmkit import LabelPolicy, __version__, read_records
from prmkit.checkpoints import load_tokenizer, save_model, start_token_classifier
from prmkit.embedded.build import WEIGHTS
from prmkit.embedded.judge import true_labels
from prmkit.embedded.solutions import MistakeRates, write_solution
from prmkit.embedded.world import problems
from prmkit.evaluation.statistics import Bootstrap, Ranking, mean
from prmkit.files import write_json
from prmkit.records import Problem, Record, Step, StepLabels, Trajectory
from prmkit.scorers.discriminative import DiscriminativeScorer
from prmkit.scorers.families import discriminative
from prmkit.training.batches import BatchSettings
from prmkit.training.trainer import TrainSettings, train

HERE = Path(__file__).parent
RESULTS = HERE / "results" / "training_speed.json"
TRL = HERE.parent / ".venv-trl" / "bin" / "python"
PRM800K = HERE.parent.parent / "shared" / "data" / "prm800k"
FAMILY = "trl_line"
BATCH = 16
SIZES = {"4 layers of 256": (256, 4), "8 layers of 448": (448, 8)}
WAYS = {
    "prmkit": {"side": "ours", "share": True},
    "prmkit, nothing shared": {"side": "ours", "share": False},
    "TRL": {"side": "trl", "order": "random"},
    "TRL, by length": {"side": "trl", "order": "group_by_length"},
}


class Setting(NamedTuple):
    """What is trained.

    Attributes:
        name: of the setting.
        model: folder of the weights that all start from.
        records: what they learn from.
        held_out: on what they are compared, where they learn enough for that.
        last_only: whether only the last step of each record is labelled.
        learning_rate: of the cosine schedule.
        rounds: how often each way is run at most.
        ways: which are run.
    """

    name: str
    model: Path
    records: list[Record]
    held_out: list[Record]
    last_only: bool = False
    learning_rate: float = 3e-4
    rounds: int = 3
    ways: tuple[str, ...] = tuple(WAYS)


def written(split: str, n: int, start: int, lengths: Sequence[int] | None = None) -> list[Record]:
    """Solutions of the world with a learner's mistakes; long ones solve several stories.

    Args:
        split: of the world.
        n: how many.
        start: the first problem.
        lengths: characters of each at least, stories and steps together.
    """
    rng = random.Random(f"{split}/{start}")
    stories = iter(problems(split, 40 * n if lengths else n, start))
    records = []
    for i in range(n):
        texts, steps, values, size = [], [], [], 0
        while not texts or (lengths and size < lengths[i]):
            problem = next(stories)
            some = tuple(Step(text=t) for t in write_solution(problem, rng, MistakeRates()))
            labels = true_labels(Trajectory(problem=problem, steps=some))
            right_before = all(values)
            texts.append(problem.text)
            steps += some
            values += [float(right_before and v == 1) for v in labels.values]
            size = sum(map(len, texts)) + sum(len(s.text) for s in steps)
        trajectory = Trajectory(
            problem=Problem(id=f"{start}-{i}", prompt="\n\n".join(texts)), steps=tuple(steps)
        )
        labels = StepLabels(values=tuple(values), kind="hard")
        records.append(Record(trajectory=trajectory, labels=labels))
    return records


def spread(n: int) -> list[int]:
    """Characters of each solution: log-normal, from about 60 to 1,000 tokens, as PRM800K's."""
    rng = random.Random(1)
    tokens = (math.exp(rng.gauss(math.log(240), 0.75)) for _ in range(n))
    return [int(3.6 * min(max(t, 60), 1000)) for t in tokens]


def trees(data: Path, n: int) -> list[Record]:
    """Rated alternatives of PRM800K, or of the world where that is not there."""
    file = data / "phase1_train.jsonl"
    if file.is_file():
        policy = LabelPolicy(neutral="positive")
        by_tree: dict[str, list[Record]] = {}
        for record in read_records(file, "prm800k", view="completions"):
            if record.labels:
                tree = by_tree.setdefault(record.trajectory.problem.id, [])
                tree.append(record.replace(labels=policy.apply(record.labels)))
        # Whole trees from all over the file: its first ones are shallow.
        order = random.Random(4).sample(sorted(by_tree), len(by_tree))
        return [record for name in order for record in by_tree[name]][:n]
    print(f"no {file}: trees are made of the embedded world's solutions")
    rng = random.Random(2)
    found: list[Record] = []
    for record in written("train", n, 900_000, [1500] * n):
        steps = record.trajectory.steps
        for at in range(len(steps)):
            for _ in range(3):
                other = rng.choice(steps).text
                changed = (*steps[:at], Step(text=other))
                t = Trajectory(problem=record.trajectory.problem, steps=changed)
                value = float(other == steps[at].text)
                values = (None,) * at + (value,)
                found.append(Record(trajectory=t, labels=StepLabels(values=values, kind="hard")))
        if len(found) >= n:
            return found[:n]
    return found


def random_model(folder: Path, texts: Sequence[str], hidden: int, layers: int) -> Path:
    """A Qwen2 of random weights with two classes, and a BPE of these texts."""
    torch.manual_seed(3)
    made = Tokenizer(models.BPE())
    made.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    made.decoder = decoders.ByteLevel()
    learning = trainers.BpeTrainer(
        vocab_size=4096,
        special_tokens=["<pad>"],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    made.train_from_iterator(dict.fromkeys(texts), learning)
    tokenizer = transformers.PreTrainedTokenizerFast(tokenizer_object=made, pad_token="<pad>")
    config = transformers.Qwen2Config(
        vocab_size=len(tokenizer),
        hidden_size=hidden,
        intermediate_size=11 * hidden // 4,
        num_hidden_layers=layers,
        num_attention_heads=hidden // 64,
        num_key_value_heads=hidden // 64,
        max_position_embeddings=4096,
        pad_token_id=0,
        bos_token_id=None,
        eos_token_id=None,
        num_labels=2,
    )
    model = transformers.Qwen2ForTokenClassification(config)
    save_model(folder, model, tokenizer, {"family": FAMILY})
    return folder


def policy_with_head(folder: Path) -> Path:
    """The shipped policy with a new head of two classes."""
    torch.manual_seed(3)
    model = start_token_classifier(WEIGHTS / "policy", 2)
    save_model(folder, model, load_tokenizer(WEIGHTS / "policy"), {"family": FAMILY})
    return folder


def ours(spec: dict[str, Any]) -> None:
    """One run of our side, in a process of its own."""
    torch.set_num_threads(spec["threads"])
    told: dict[str, Any] = {}
    stock = transformers.Trainer.train
    begun = time.perf_counter()

    def timed(self: Any, *args: Any, **settings: Any) -> Any:
        start, busy = time.perf_counter(), time.process_time()
        done = stock(self, *args, **settings)
        told["seconds"] = time.perf_counter() - start
        told["cpu_seconds"] = time.process_time() - busy
        told["prepare_seconds"] = start - begun
        return done

    transformers.Trainer.train = timed
    lines = Path(spec["records"]).read_text().splitlines()
    result = train(
        [Record.model_validate_json(line) for line in lines],
        TrainSettings(
            base=spec["model"],
            out=Path(spec["out"]),
            family=FAMILY,
            learning_rate=spec["learning_rate"],
        ),
        batches=BatchSettings(batch_size=spec["batch_size"], group=16, share=spec["share"]),
    )
    assert result.n_examples == len(lines)
    assert not result.dropped
    told["peak_gib"] = peak_gib()
    print("TOLD " + json.dumps(told))


def peak_gib() -> float:
    """The most memory that this process had; what `resource` says begins with its parent's."""
    lines = Path("/proc/self/status").read_text().splitlines()
    line = next(line for line in lines if line.startswith("VmHWM:"))
    return int(line.split()[1]) / 2**20


def started(command: Sequence[str], threads: int) -> dict[str, Any]:
    """What a run in a process of its own says."""
    environment = os.environ | {"OMP_NUM_THREADS": str(threads), "TOKENIZERS_PARALLELISM": "false"}
    ran = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    line = next((x for x in ran.stdout.splitlines() if x.startswith("TOLD ")), None)
    if ran.returncode or line is None:
        raise SystemExit(f"{' '.join(command)} failed:\n{ran.stdout}\n{ran.stderr}")
    found: dict[str, Any] = json.loads(line[5:])
    return found


def row_of(record: Record) -> dict[str, Any]:
    """A record as TRL takes it; `written` and `trees` have line ends around steps alone."""
    assert record.labels
    return {
        "prompt": record.trajectory.problem.text,
        "completions": [step.text.strip("\n") for step in record.trajectory.steps],
        "labels": [bool(v) for v in record.labels.values],
    }


def quality(models: dict[str, Path], held_out: Sequence[Record]) -> dict[str, Any]:
    """Step AUC and accuracy of each model with intervals over solutions, and paired differences."""
    right = np.array([v == 1 for r in held_out if r.labels for v in r.labels.values])
    groups = np.repeat(np.arange(len(held_out)), [len(r.trajectory.steps) for r in held_out])
    sure = Bootstrap(len(held_out))
    figures: dict[str, dict[str, Any]] = {}
    for name, folder in models.items():
        scorer = DiscriminativeScorer(folder, family=discriminative(FAMILY), device="cpu")
        scored = scorer.score([r.trajectory for r in held_out])
        values = np.array([v for s in scored for v in s.values])
        figures[name] = {
            "step_auc": Ranking(values, right, groups),
            "step_accuracy": mean((values >= 0.5) == right, groups, len(held_out)),
        }
    first = next(iter(figures))
    told: dict[str, Any] = {"solutions": len(held_out), "steps": len(right)}
    for name, both in figures.items():
        told[name] = {key: list(sure.estimate(s))[:3] for key, s in both.items()}
        if name != first:
            told[name] |= {
                f"{first} - this, {key}": list(sure.difference(figures[first][key], s)[0])[:3]
                for key, s in both.items()
            }
    return told


def measure(setting: Setting, options: argparse.Namespace, place: Path) -> dict[str, Any]:
    """All ways in turn."""
    there = {n: w for n, w in WAYS.items() if w["side"] == "ours" or options.trl.is_file()}
    ways = {name: way for name, way in there.items() if name in setting.ways}
    records, rows = place / "records.jsonl", place / "rows.jsonl"
    records.write_text("".join(r.model_dump_json() + "\n" for r in setting.records))
    rows.write_text("".join(json.dumps(row_of(r)) + "\n" for r in setting.records))
    n_steps = -(-len(setting.records) // BATCH)
    spec = {
        "model": str(setting.model),
        "records": str(records),
        "rows": str(rows),
        "steps": n_steps,
        "batch_size": BATCH,
        "learning_rate": setting.learning_rate,
        "last_only": setting.last_only,
        "threads": options.threads,
    }
    tokenizer, family = load_tokenizer(setting.model), discriminative(FAMILY)
    lengths = [len(family.render(r.trajectory, tokenizer).ids) for r in setting.records]
    runs: dict[str, list[dict[str, Any]]] = {name: [] for name in ways}
    made: dict[str, Path] = {}
    for round_ in range(min(setting.rounds, options.rounds)):
        for name, way in ways.items():
            out = place / f"{name}-{round_}".replace(" ", "_").replace(",", "")
            file = place / "spec.json"
            file.write_text(json.dumps(spec | way | {"out": str(out)}))
            command = (
                [sys.executable, __file__, "--ours", str(file)]
                if way["side"] == "ours"
                else [str(options.trl), str(HERE / "trl_prm.py"), str(file)]
            )
            told = started(command, options.threads)
            made[name] = out
            if "first_ids" in told:
                rendered = family.render(setting.records[0].trajectory, tokenizer)
                assert told.pop("first_ids") == rendered.ids, "other token ids"
                assert told["tokens"] == sum(lengths), "other tokens"
            runs[name].append(told)
            print(f"{setting.name}, {name}: {told}", flush=True)
    shown: dict[str, Any] = {
        "rounds": len(runs["prmkit"]),
        "solutions": len(lengths),
        "steps": n_steps,
        "tokens_of_solutions": {
            "mean": statistics.mean(lengths), "min": min(lengths), "max": max(lengths),
        },
        "ways": {},
    }  # fmt: skip
    medians = {
        name: {key: statistics.median(r[key] for r in of) for key in of[0] if key != "versions"}
        for name, of in runs.items()
    }
    for name, of in medians.items():
        shown["ways"][name] = {
            "steps_per_second": n_steps / of["seconds"],
            "slowest_and_fastest": [
                n_steps / max(r["seconds"] for r in runs[name]),
                n_steps / min(r["seconds"] for r in runs[name]),
            ],
            "cpu_seconds_per_step": of["cpu_seconds"] / n_steps,
            "prepare_seconds": of["prepare_seconds"],
            "peak_gib": of["peak_gib"],
            "ours_to_this": of["seconds"] / medians["prmkit"]["seconds"],
            "ours_to_this_by_cpu_time": of["cpu_seconds"] / medians["prmkit"]["cpu_seconds"],
        }
    if setting.held_out:
        shown["quality"] = quality(made, setting.held_out)
    for name, way in shown["ways"].items():
        print(f"{setting.name}, {name}: {way}", flush=True)
    print(setting.name, shown.get("quality", ""), flush=True)
    return shown


def settings_of(options: argparse.Namespace, place: Path) -> list[Setting]:
    """What is measured."""
    long = written("train", 128, 800_000, spread(128))
    rated = trees(options.data, 192)
    texts = [
        text
        for r in (*long, *rated)
        for text in (r.trajectory.problem.text, *(s.text for s in r.trajectory.steps[-2:]))
    ]
    found = [
        Setting(
            "the same quality: the shipped policy on the world's solutions",
            policy_with_head(place / "policy"),
            written("train", 1200, 700_000),
            written("test", 400, 700_000),
            learning_rate=5e-4,
            rounds=1,
            ways=("prmkit", "TRL"),
        )
    ]
    for size, (hidden, layers) in SIZES.items():
        model = random_model(place / f"{hidden}x{layers}", texts, hidden, layers)
        found.append(Setting(f"spread lengths, {size}", model, long, []))
        found.append(Setting(f"PRM800K's trees, {size}", model, rated, [], last_only=True))
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--only", default="", help="settings whose name begins so")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--data", type=Path, default=PRM800K)
    parser.add_argument("--trl", type=Path, default=TRL)
    parser.add_argument("--out", type=Path, default=RESULTS)
    parser.add_argument("--ours", type=Path, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.ours:
        ours(json.loads(options.ours.read_text()))
        return
    if not options.trl.is_file():
        print(f"no {options.trl}: TRL is left out; `make trl` installs it")
    about: dict[str, Any] = {
        "prmkit": __version__,
        "torch": torch.__version__,
        "transformers": transformers.__version__,
        "trl": "1.13.0" if options.trl.is_file() else None,
        "machine": f"{platform.machine()}, {options.threads} thread",
        "batch_size": BATCH,
        "settings": {},
    }
    if options.only and options.out.is_file():
        # A part is measured again; the rest stays.
        about["settings"] = json.loads(options.out.read_text(encoding="utf-8"))["settings"]
    with tempfile.TemporaryDirectory() as temporary:
        place = Path(temporary)
        for number, setting in enumerate(settings_of(options, place)):
            if not setting.name.startswith(options.only):
                continue
            folder = place / f"run{number}"
            folder.mkdir()
            parameters = sum(
                p.numel() for p in start_token_classifier(setting.model, 2).parameters()
            )
            measured = measure(setting, options, folder)
            about["settings"][setting.name] = {"parameters": parameters, **measured}
            write_json(options.out, rounded(about))


def rounded(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: rounded(v) for key, v in value.items()}
    if isinstance(value, list):
        return [rounded(v) for v in value]
    return float(f"{value:.4g}") if isinstance(value, float) else value


if __name__ == "__main__":
    main()
