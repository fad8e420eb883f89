"""Where labels come from: estimators that ask for rollouts, drivers that run them, and people."""

from prmkit.labelling.consensus import Agreed, confident, consensus, places
from prmkit.labelling.critiques import critiques_of, with_critiques
from prmkit.labelling.first_error import first_error, sequential
from prmkit.labelling.human import Annotation, Solution, annotated, gather, merged
from prmkit.labelling.in_process import Budget, Progress, drive, label, run
from prmkit.labelling.judge import judge
from prmkit.labelling.monte_carlo import monte_carlo, relative
from prmkit.labelling.omega import OmegaSettings, OmegaTree, omega
from prmkit.labelling.rollouts import Estimator, Rollout, Rollouts, Task
from prmkit.labelling.self_consistency import Consistent, self_consistency
from prmkit.labelling.store import RolloutStore

__all__ = [
    "Agreed",
    "Annotation",
    "Budget",
    "Consistent",
    "Estimator",
    "OmegaSettings",
    "OmegaTree",
    "Progress",
    "Rollout",
    "RolloutStore",
    "Rollouts",
    "Solution",
    "Task",
    "annotated",
    "confident",
    "consensus",
    "critiques_of",
    "drive",
    "first_error",
    "gather",
    "judge",
    "label",
    "merged",
    "monte_carlo",
    "omega",
    "places",
    "relative",
    "run",
    "self_consistency",
    "sequential",
    "with_critiques",
]
