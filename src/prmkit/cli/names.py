"""Names at the command line to folders, scorers and judges."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import asdict, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from prmkit.checkpoints import find_checkpoint, fingerprint
from prmkit.embedded.build import WEIGHTS
from prmkit.errors import FormatError, UnknownName
from prmkit.policies.sampling import Judge, Outcome
from prmkit.policies.settings import PolicySettings
from prmkit.records import Problem, Record
from prmkit.scorers.settings import ModelSettings

if TYPE_CHECKING:
    from prmkit.policies.base import Policy
    from prmkit.scorers.base import Scorer

DEFAULT_POLICY = "embedded/policy"
EMBEDDED = ("embedded/base", "embedded/policy", "embedded/prm")


def model_folder(name: str) -> Path:
    """The folder of a model: a path, an id of the Hugging Face hub, or ``embedded/prm`` and such.

    Raises:
        UnknownName: if it begins with ``embedded/`` and is none of those that ship.
        CheckpointError: if there is none.
    """
    if name.startswith("embedded/") and not Path(name).exists():
        if name not in EMBEDDED:
            raise UnknownName("embedded model", name, EMBEDDED)
        return WEIGHTS / name.removeprefix("embedded/")
    return find_checkpoint(name)


def known_name(name: str) -> str:
    """The folder of an embedded model by its name; any other name as it is."""
    return str(model_folder(name)) if name.startswith("embedded/") else name


def open_scorer(settings: ModelSettings) -> Scorer:
    """The scorer that the settings name.

    Raises:
        UnknownName: if it is an embedded model that does not ship.
        CheckpointError: if there is none, or it is of another kind.
    """
    from prmkit.scorers.loading import load_scorer

    return load_scorer(known_name(settings.model), settings)


def open_policy(settings: PolicySettings) -> tuple[Policy, dict[str, Any]]:
    """The policy that the settings name, and what its words depend on: its name and its files.

    Raises:
        UnknownName: if it is an embedded model that does not ship, or the server has another one.
        CheckpointError: if there is none, or it is of another kind.
        PolicyError: if the server draws no completion.
    """
    from prmkit.policies.loading import load_policy

    tokenizer = settings.tokenizer and str(model_folder(settings.tokenizer))
    if settings.server is not None:
        served = load_policy(replace(settings, tokenizer=tokenizer))
        return served, {"policy": served.name, "served": True}
    folder = model_folder(settings.policy or DEFAULT_POLICY)
    policy = load_policy(replace(settings, policy=str(folder)))
    return policy, {"policy": policy.name, "files": fingerprint(folder)}


def about_model(settings: ModelSettings, scorer: Scorer) -> dict[str, Any]:
    """What a model's scores depend on: its settings and its files."""
    folders = [settings.model, *([settings.reference] if settings.reference else [])]
    return {
        "model": asdict(settings),
        "name": scorer.name,
        "files": [fingerprint(model_folder(name)) for name in folders],
    }


def judge() -> Judge:
    """Judges solutions: by the world's own judge where the problem is of the embedded world."""
    from prmkit.embedded.quickstart import judge as world_judge
    from prmkit.policies.sampling import judge_by_answer

    def by_kind(problem: Problem, text: str) -> Outcome:
        is_world = "world" in problem.meta
        return world_judge(problem, text) if is_world else judge_by_answer(problem, text)

    return by_kind


def distinct_problems(records: Iterable[Record], path: Path) -> list[Problem]:
    """The problems of records, each once, in order.

    Raises:
        FormatError: if two different problems have the same id, which names their results.
    """
    known: dict[str, Problem] = {}
    for record in records:
        problem = record.trajectory.problem
        there = known.setdefault(problem.id, problem)
        if there != problem:
            raise FormatError(f"two different problems have the id {problem.id!r}", path)
    return list(known.values())
