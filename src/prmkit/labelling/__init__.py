"""Where labels come from: estimators that ask for rollouts, and drivers that run them."""

from prmkit.labelling.consensus import Agreed, consensus, places
from prmkit.labelling.first_error import first_error, sequential
from prmkit.labelling.human import Annotation, Solution, annotated, gather, merged
from prmkit.labelling.in_process import Progress, RolloutStore, label, run
from prmkit.labelling.monte_carlo import monte_carlo, relative
from prmkit.labelling.omega import OmegaSettings, OmegaTree, omega
from prmkit.labelling.rollouts import Estimator, Rollout, Rollouts

__all__ = [
    "Agreed",
    "Annotation",
    "Estimator",
    "OmegaSettings",
    "OmegaTree",
    "Progress",
    "Rollout",
    "RolloutStore",
    "Rollouts",
    "Solution",
    "annotated",
    "consensus",
    "first_error",
    "gather",
    "label",
    "merged",
    "monte_carlo",
    "omega",
    "places",
    "relative",
    "run",
    "sequential",
]
