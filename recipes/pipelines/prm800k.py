"""Train a PRM from nothing on human ratings, PRM800K's, and see what it learnt.

    python recipes/pipelines/prm800k.py TRAIN TEST OUT [--epochs 1] [--hidden 128] [--results FILE]

TRAIN and TEST are files of PRM800K. Tokenizer and model are made here: a small BPE of the training
texts, a small Llama of random weights. It learns from every rated alternative of every step;
alternatives share all that comes before them, which is computed once. A neutral rating counts as
right. What tells nothing of mathematics, a step's place and length, is measured beside it.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from tokenizers import Regex, Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

from prmkit import DiscriminativeScorer, LabelPolicy, Record, TrainSettings, read_records, train
from prmkit.checkpoints import save_model
from prmkit.evaluation.figures import harmonic
from prmkit.evaluation.ranking import wins
from prmkit.evaluation.statistics import Bootstrap, Ranking, Statistic, Sums, ratio, summed
from prmkit.files import write_json
from prmkit.training.batches import BatchSettings


def read(path: Path) -> list[Record]:
    """One record per rated alternative; none of a last group whose place is not sure."""
    records = list(read_records(path, "prm800k", view="completions"))
    last: dict[str, int] = {}
    for r in records:
        if r.meta.get("last_group_ambiguous"):
            name, at = r.trajectory.problem.id, len(r.trajectory.steps)
            last[name] = max(last.get(name, 0), at)
    kept = [r for r in records if len(r.trajectory.steps) != last.get(r.trajectory.problem.id)]
    policy = LabelPolicy(neutral="positive")
    return [r.replace(labels=policy.apply(r.labels)) for r in kept if r.labels]


def start(folder: Path, records: Sequence[Record], hidden: int) -> None:
    """A tokenizer of these texts and a model of random weights."""
    torch.manual_seed(0)
    made = Tokenizer(models.BPE())
    pieces = Regex(r" ?\p{L}+|\p{N}|\\\p{L}+| ?[^\s\p{L}\p{N}]|\s+")
    made.pre_tokenizer = pre_tokenizers.Sequence(
        [pre_tokenizers.Split(pieces, "isolated"), pre_tokenizers.ByteLevel(False, use_regex=False)]
    )
    made.decoder = decoders.ByteLevel()
    alphabet, special = pre_tokenizers.ByteLevel.alphabet(), ["<pad>", "<s>"]
    learning = trainers.BpeTrainer(
        vocab_size=2048, special_tokens=special, initial_alphabet=alphabet, show_progress=False
    )
    solved = [r.trajectory for r in records]
    texts = dict.fromkeys(x for t in solved for x in (t.problem.text, t.steps[-1].text))
    made.train_from_iterator(texts, learning)
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=made, pad_token="<pad>", bos_token="<s>")
    config = LlamaConfig(
        vocab_size=len(tokenizer), hidden_size=hidden, intermediate_size=hidden * 8 // 3,
        num_hidden_layers=4, num_attention_heads=max(1, hidden // 32),
        max_position_embeddings=8192, pad_token_id=0, bos_token_id=1, eos_token_id=None,
    )  # fmt: skip
    save_model(folder, LlamaForCausalLM(config), tokenizer, {"family": "none"})


def auc(scores: Any, right: Any, groups: Any, parts: Any) -> Statistic:
    """Pairs in which the right one is above: of all (`parts` None), or of each part alone."""
    values, truth, numbers = np.array(scores), np.array(right, bool), np.array(groups)
    if parts is None:
        return Ranking(values, truth, numbers)
    part = np.unique(np.array(parts), return_inverse=True)[1]
    of_part = [np.flatnonzero(part == p) for p in range(part.max() + 1)]
    won, pairs = zip(*(wins(values[where], truth[where]) for where in of_part), strict=True)
    homes = np.array([numbers[where[0]] for where in of_part])
    return Sums(summed([won, pairs], homes, max(groups) + 1), ratio, sum(pairs))


def first_errors(scores: Any, right: Any, threshold: float, groups: Any) -> Statistic:
    """ProcessBench's F1: what comes before a rated step is right: it is the first error or none."""
    called = [next((i for i, v in enumerate(s) if v < threshold), None) for s in scores]
    hits = [c == (None if r else len(s) - 1) for c, r, s in zip(called, right, scores, strict=True)]
    wrong = ~np.array(right, bool)
    columns = [hits & wrong, wrong, hits & ~wrong, ~wrong]
    return Sums(summed(columns, np.array(groups), max(groups) + 1), harmonic, len(hits))


def measure(model: Path, known: Sequence[Record], records: Sequence[Record]) -> dict[str, Any]:
    """Figures with intervals over problems; the threshold is the best one for `known` records."""
    scorer = DiscriminativeScorer(model, device="cpu")
    both = (known, records)
    seen, scored = ([s.values for s in scorer.score([r.trajectory for r in x])] for x in both)
    right_known, right = ([r.labels.values[-1] == 1 for r in x] for x in both)
    numbers: dict[str, int] = {}
    groups = [numbers.setdefault(r.trajectory.problem.text, len(numbers)) for r in records]
    steps = [f"{r.trajectory.problem.id} {r.meta['position']}" for r in records]
    judges = {
        "prm": [s[-1] for s in scored],
        "earlier is better": [-float(len(s)) for s in scored],
        "shorter is better": [-float(len(r.trajectory.steps[-1].text)) for r in records],
    }
    sure, once, told = Bootstrap(len(numbers)), Bootstrap(1, 0), {}
    for name, scores in judges.items():
        ways = {"pooled": None, "within a problem": groups, "within a step": steps}
        for way, parts in ways.items():
            told[f"{name}, AUC {way}"] = sure.estimate(auc(scores, right, groups, parts))
    grid = np.quantile([v for s in seen for v in s], np.linspace(0, 0.3, 61))
    f1 = [once.value(first_errors(seen, right_known, t, [0] * len(seen))) or 0.0 for t in grid]
    best = float(grid[int(np.argmax(f1))])
    told["prm, first-error F1"] = sure.estimate(first_errors(scored, right, best, groups))
    shown = {k: {"value": e.value, "low": e.low, "high": e.high, "n": e.n} for k, e in told.items()}
    about = {"problems": len(numbers), "right": float(np.mean(right)), "threshold": best}
    return {"test": about, "figures": shown}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    for name in ("train", "test", "out", "--results"):
        parser.add_argument(name, type=Path)
    parser.add_argument("--epochs", type=float, default=1)
    parser.add_argument("--hidden", type=int, default=128)
    parser.add_argument("--max-tokens", type=int, default=1024)
    options = parser.parse_args()
    given = {k: str(v) if isinstance(v, Path) else v for k, v in vars(options).items()}
    records, test = read(options.train), read(options.test)
    base = str(options.out) + ".base"
    start(Path(base), records, options.hidden)
    settings = TrainSettings(
        base=base, out=options.out, epochs=options.epochs, learning_rate=1e-3, weight_decay=0.1,
        max_tokens=options.max_tokens,
    )  # fmt: skip
    began, busy = time.perf_counter(), time.process_time()
    # The alternatives of a trajectory go through the model together.
    result = train(records, settings, batches=BatchSettings(batch_size=128, group=16))
    seconds = {"wall": time.perf_counter() - began, "cpu": time.process_time() - busy}
    print(f"{result.n_labels} labelled steps in {seconds['wall']:.0f} s: {options.out}")
    found = measure(options.out, records[:: max(1, len(records) // 500)], test)
    for name, e in found["figures"].items():
        print(f"{name:<35} {e['value']:.3f} ({e['low']:.3f} to {e['high']:.3f})")
    trained = {"labels": result.n_labels, "dropped": vars(result.dropped), "losses": result.losses}
    if options.results:
        write_json(options.results, {"given": given, "seconds": seconds, "train": trained, **found})


if __name__ == "__main__":
    main()
