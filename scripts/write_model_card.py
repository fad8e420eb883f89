"""Writes the card of the shipped checkpoints from their notes and the benchmark: ``make docs``."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[1]
WEIGHTS = ROOT / "src" / "prmkit" / "embedded" / "weights"
RESULTS = ROOT / "benchmarks" / "results" / "embedded_world.json"
MODELS = ("base", "policy", "prm")

TEMPLATE = Path(__file__).with_name("model_card.md")


def _figures(results: dict[str, Any]) -> list[tuple[str, list[str]]]:
    splits = [results["test"], results["ood"]]
    n = splits[0]["samples"]

    def row(get: Any) -> list[str]:
        return [f"{value:.3f}" if value is not None else "–" for value in map(get, splits)]

    rows = [
        (name, row(lambda s, name=name: s["policy"][name]))
        for name in ("pass@1", f"majority@{n}", f"pass@{n}")
    ]
    for scorer, how in (("prm", "min"), ("implicit", "min")):
        key = f"{scorer}, {how}"
        for name in (
            f"best_of_{n}", f"weighted_vote_{n}", "margin_over_majority", "first_error_f1",
            "step_auc", "solution_auc", "within_problem_auc",
        ):  # fmt: skip
            cells = row(lambda s, key=key, name=name: s[key].get(name))
            if name == "margin_over_majority":
                cells = [
                    f"{cell} ({s[key]['margin_low']:+.3f} to {s[key]['margin_high']:+.3f})"
                    for cell, s in zip(cells, splits, strict=True)
                ]
            rows.append((f"{scorer}: {name.replace('_', ' ')}", cells))
    return rows


def card() -> str:
    notes = {name: json.loads((WEIGHTS / name / "prmkit.json").read_text()) for name in MODELS}
    results = json.loads(RESULTS.read_text())
    size = sum((WEIGHTS / name / "model.safetensors").stat().st_size for name in MODELS)
    config = json.loads((WEIGHTS / "base" / "config.json").read_text())
    width, inner = config["hidden_size"], config["intermediate_size"]
    per_layer = 4 * width * width + 3 * width * inner + 2 * width
    parameters = config["vocab_size"] * width + config["num_hidden_layers"] * per_layer + width
    settings = notes["base"]["settings"]
    return TEMPLATE.read_text(encoding="utf-8").format(
        parameters=parameters,
        mib=size / 2**20,
        minutes=sum(note["seconds"] for note in notes.values()) / 60,
        **{name: {**note, "minutes": note["seconds"] / 60} for name, note in notes.items()},
        mistakes=", ".join(f"{k} {v}" for k, v in notes["policy"]["mistakes"].items()),
        settings=", ".join(f"{k.replace('_', ' ')} {v}" for k, v in settings.items()),
        n=results["test"]["problems"],
        k=results["test"]["samples"],
        temperature=results["sampling"]["temperature"],
        rows="\n".join(f"| {name} | {' | '.join(cells)} |" for name, cells in _figures(results)),
    )


if __name__ == "__main__":
    (WEIGHTS / "README.md").write_text(card(), encoding="utf-8")
