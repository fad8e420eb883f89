"""prmkit: label the steps of reasoning, train models that score them, and use the scores."""

__version__ = "0.1.0"
