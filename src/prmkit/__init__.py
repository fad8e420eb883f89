"""prmkit: label the steps of reasoning, train models that score them, and use the scores.

The modules in the order in which a trajectory travels:

    records       what travels: problems, steps, trajectories, labels, scores
    formats       files to records and back
    splitting     text to steps
    answers       final answers, found and compared
    policies      who speaks: prefixes to completions
    environments  where an agent acts: actions to observations
    labelling     how good each step really is, by rollouts
    training      labels to weights
    scorers       who judges: trajectories to step scores
    aggregate     step scores to one number
    search        better answers, guided by step scores, within a budget
    evaluation    is the judge right?
    embedded      a small world of word problems with a small policy and a small PRM
    testing       the laws of scorers, policies, environments and searches, for your own ones

The names below come from them, loaded when they are first used: importing prmkit loads neither
torch nor transformers.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

__version__ = "0.1.0"

_HOMES = {
    "DiscriminativeScorer": "scorers.discriminative",
    "EnsembleScorer": "scorers.ensemble",
    "GenerativeScorer": "scorers.generative",
    "HFPolicy": "policies.hf",
    "ImplicitScorer": "scorers.implicit",
    "LabelPolicy": "formats.labels",
    "Message": "records",
    "ModelSettings": "scorers.settings",
    "OpenAIPolicy": "policies.openai",
    "PolicySettings": "policies.settings",
    "PrmkitError": "errors",
    "Problem": "records",
    "Record": "records",
    "SamplingSettings": "policies.base",
    "SelfConsistencyScorer": "scorers.self_consistency",
    "Step": "records",
    "StepLabels": "records",
    "StepScores": "records",
    "TrainSettings": "training.trainer",
    "Trajectory": "records",
    "Unscored": "records",
    "aggregate_scores": "aggregate",
    "fit_combination": "scorers.ensemble",
    "label": "labelling.in_process",
    "load_policy": "policies.loading",
    "load_scorer": "scorers.loading",
    "monte_carlo": "labelling.monte_carlo",
    "read_records": "formats.files",
    "same_answer": "answers",
    "sample": "policies.sampling",
    "score_reasoning_steps": "scorers.convenience",
    "splitter": "splitting",
    "train": "training.trainer",
    "write_records": "formats.files",
}

if TYPE_CHECKING:
    from prmkit.aggregate import aggregate_scores
    from prmkit.answers import same_answer
    from prmkit.errors import PrmkitError
    from prmkit.formats.files import read_records, write_records
    from prmkit.formats.labels import LabelPolicy
    from prmkit.labelling.in_process import label
    from prmkit.labelling.monte_carlo import monte_carlo
    from prmkit.policies.base import SamplingSettings
    from prmkit.policies.hf import HFPolicy
    from prmkit.policies.loading import load_policy
    from prmkit.policies.openai import OpenAIPolicy
    from prmkit.policies.sampling import sample
    from prmkit.policies.settings import PolicySettings
    from prmkit.records import (
        Message,
        Problem,
        Record,
        Step,
        StepLabels,
        StepScores,
        Trajectory,
        Unscored,
    )
    from prmkit.scorers.convenience import score_reasoning_steps
    from prmkit.scorers.discriminative import DiscriminativeScorer
    from prmkit.scorers.ensemble import EnsembleScorer, fit_combination
    from prmkit.scorers.generative import GenerativeScorer
    from prmkit.scorers.implicit import ImplicitScorer
    from prmkit.scorers.loading import load_scorer
    from prmkit.scorers.self_consistency import SelfConsistencyScorer
    from prmkit.scorers.settings import ModelSettings
    from prmkit.splitting import splitter
    from prmkit.training.trainer import TrainSettings, train

__all__ = [
    "DiscriminativeScorer",
    "EnsembleScorer",
    "GenerativeScorer",
    "HFPolicy",
    "ImplicitScorer",
    "LabelPolicy",
    "Message",
    "ModelSettings",
    "OpenAIPolicy",
    "PolicySettings",
    "PrmkitError",
    "Problem",
    "Record",
    "SamplingSettings",
    "SelfConsistencyScorer",
    "Step",
    "StepLabels",
    "StepScores",
    "TrainSettings",
    "Trajectory",
    "Unscored",
    "aggregate_scores",
    "fit_combination",
    "label",
    "load_policy",
    "load_scorer",
    "monte_carlo",
    "read_records",
    "same_answer",
    "sample",
    "score_reasoning_steps",
    "splitter",
    "train",
    "write_records",
]


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module 'prmkit' has no attribute {name!r}")
    return getattr(import_module(f"prmkit.{_HOMES[name]}"), name)


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
