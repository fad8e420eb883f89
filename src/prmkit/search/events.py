"""The events of a trace that cost something, as a run notes them."""

from __future__ import annotations

import math
from typing import Any

from prmkit.search.judging import Scores
from prmkit.search.speaking import Child, Passage
from prmkit.search.tree import Cost, Node


def child_event(node: Node, child: Child, whole: bool, seconds: float) -> dict[str, Any]:
    """A piece that was drawn, or could not be."""
    return {
        "event": "child",
        "path": list(node.path),
        "text": child.text,
        "finish": node.finish,
        "ids": None if child.ids is None else list(child.ids),
        "whole": whole,
        "cost": list(child.cost),
        "t": round(seconds, 4),
        **({"error": child.error} if child.error else {}),
    }


def score_event(node: Node, found: Scores, seconds: float) -> dict[str, Any]:
    """The scores of a node, or why there are none."""
    what = {"unscored": found.unscored} if found.values is None else {"values": list(found.values)}
    return {
        "event": "score",
        "path": list(node.path),
        **what,
        "length": found.length,
        "cost": list(found.cost),
        "t": round(seconds, 4),
    }


def likelihood_event(passage: Passage, log: float, cost: Cost, seconds: float) -> dict[str, Any]:
    """How likely a text is."""
    return {
        "event": "likelihood",
        "path": list(passage.node.path),
        "after": list(passage.after.path),
        # JSON knows no infinity.
        "log": log if math.isfinite(log) else None,
        "cost": list(cost),
        "t": round(seconds, 4),
    }
