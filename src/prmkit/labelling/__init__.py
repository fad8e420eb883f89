"""Where labels come from: estimators that ask for rollouts, and drivers that run them."""

from prmkit.labelling.in_process import label
from prmkit.labelling.monte_carlo import monte_carlo
from prmkit.labelling.rollouts import Estimator, Rollouts

__all__ = ["Estimator", "Rollouts", "label", "monte_carlo"]
