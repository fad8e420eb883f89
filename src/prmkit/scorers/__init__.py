"""Who judges: scorers give each step of a trajectory a number."""
