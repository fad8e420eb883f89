"""The card of a trained model: the README.md of its folder."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

from prmkit.training.kinds import KINDS

if TYPE_CHECKING:
    from prmkit.training.trainer import Parts, Prepared, TrainSettings

_IN_PRMKIT = """\
```python
from prmkit import Problem, Step, Trajectory, load_scorer

prm = load_scorer("FOLDER")
problem = Problem(id="1", prompt="Mia has 12 apples …")
steps = (Step(text="12 + 5 = 17.\\n"), Step(text="17 - 9 = 8.\\n"))
print(prm.score([Trajectory(problem=problem, steps=steps)]))
```
"""
_CLASSIFIER = """\
```python
from transformers import AutoModelForTokenClassification, AutoTokenizer

model = AutoModelForTokenClassification.from_pretrained("FOLDER")
tokenizer = AutoTokenizer.from_pretrained("FOLDER")
```
"""
_LANGUAGE_MODEL = _CLASSIFIER.replace("TokenClassification", "CausalLM")


def card(
    settings: TrainSettings,
    parts: Parts,
    prepared: Prepared,
    figures: Mapping[str, float],
    step: int,
    sources: Sequence[str],
) -> str:
    """The text of a model's card.

    Args:
        settings: of the training.
        parts: the other settings.
        prepared: what was trained on.
        figures: of the held-out solutions; empty without any.
        step: the optimiser step whose weights were kept.
        sources: where the data is from, a line each.
    """
    examples = prepared.examples
    objective = prepared.objective
    unit = KINDS[settings.kind].unit
    plain = _LANGUAGE_MODEL if objective.n_classes is None else _CLASSIFIER
    base = Path(settings.base).name
    n_solutions = len({e.solution for e in examples})
    n_problems = len({e.problem for e in examples})
    dropped = {k: v for k, v in asdict(prepared.dropped).items() if v}
    sections = [
        "---\nlibrary_name: transformers\ntags:\n- process-reward-model\n- prmkit\n---\n",
        f"# {settings.out.name}\n",
        f"A process reward model: it scores the steps of solutions. Trained with prmkit from "
        f"{_plain(base)}; kind `{settings.kind}`, family `{prepared.family.name}`, loss "
        f"`{objective.loss}`. Its scores are to be read as: {prepared.family.semantics}.\n",
        "## Data\n",
        *(f"- {_plain(line)}" for line in sources),
        f"- {n_solutions} solutions of {n_problems} problems; "
        f"{sum(len(e.targets) for e in examples)} {unit}",
        *([f"- left out: {_listed(dropped)}"] if dropped else []),
        *(f"- {_plain(line)}" for line in prepared.told),
        f"\n| label | {unit.removeprefix('labelled ')} |\n|---|---:|",
        *(f"| {label} | {n} |" for label, n in counts_by_label(prepared).items()),
        "",
        *_figures(figures, step),
        "## How to load it\n",
        "In prmkit:\n",
        _IN_PRMKIT,
        "In plain transformers, which reads no step ends by itself: `prmkit.json` names the "
        "family, which says where a step is read.\n",
        plain,
        "## Settings\n",
        "| setting | value |\n|---|---|",
        *(f"| {name} | {_plain(str(value))} |" for name, value in _told(settings, parts).items()),
        "",
    ]
    return "\n".join(sections)


def counts_by_label(prepared: Prepared) -> dict[str, int]:
    """How many steps have each label; soft ones in tenths."""
    targets = [target for example in prepared.examples for target in example.targets]
    if len(set(targets)) <= 3:
        return {f"{value:g}": n for value, n in sorted(Counter(targets).items())}
    tenths = Counter(min(int(target * 10), 9) for target in targets)
    return {f"{k / 10:.1f} to {(k + 1) / 10:.1f}": tenths[k] for k in sorted(tenths)}


def _figures(figures: Mapping[str, float], step: int) -> list[str]:
    if not figures:
        return []
    return [
        "## On held-out solutions\n",
        f"By the weights of optimiser step {step}, which are these.\n",
        "| figure | value |\n|---|---:|",
        *(f"| {name} | {value:.4f} |" for name, value in figures.items()),
        "",
    ]


def _told(settings: TrainSettings, parts: Parts) -> dict[str, Any]:
    told = asdict(settings) | {"base": Path(settings.base).name}
    for part in (parts.batches, parts.adapters, parts.watch, parts.promises):
        told |= asdict(part)
    # Where it ran is nobody's concern.
    return {k: v for k, v in told.items() if k not in ("out", "report_to")}


def _listed(counts: Mapping[str, int]) -> str:
    return ", ".join(f"{name.replace('_', ' ')} {n}" for name, n in counts.items())


def _plain(text: str) -> str:
    """Text of unknown origin without what Markdown or HTML reads as its own."""
    for sign in "\\`*_[]<>|":
        text = text.replace(sign, "\\" + sign if sign not in "<>" else f"&#{ord(sign)};")
    return " ".join(text.split())
