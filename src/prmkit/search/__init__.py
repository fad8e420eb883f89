"""Better answers: search for solutions, guided by step scores, within a budget.

requests, tree     what an algorithm asks for, and what comes of it
run, trace         one problem's search: budget, events; what is in its trace is not done again
drive, overlap     what answers: in rounds, or policy and scorer at the same time
speaking, judging  the policy's side and the scorer's
acting             the policy's side where steps are actions in an environment
catalogue          the algorithms by name, and presets with other libraries' semantics
choice             the final answer, by a vote of the candidates
replay, anytime    recorded searches: chosen from again, and stopped earlier
laws               what every algorithm keeps
"""

from prmkit.search.acting import Acting, set_tasks
from prmkit.search.catalogue import algorithm
from prmkit.search.drive import DriveSettings, Found, search
from prmkit.search.settings import Budget, SearchSettings

__all__ = [
    "Acting",
    "Budget",
    "DriveSettings",
    "Found",
    "SearchSettings",
    "algorithm",
    "search",
    "set_tasks",
]
