"""Policies learn from step scores: rewards, returns, advantages, losses, and the loop."""
