"""What a trace holds already, for a run that goes on from it.

A child that could not be drawn is asked for again; a server that was away may be back. Then the
algorithm may decide otherwise from there on, and what was noted of another decision is no longer
meant: a place in the tree may hold another text than before.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from prmkit.search.trace import as_read

Path = tuple[int, ...]


class Known:
    """The events of a trace that a run has not yet come to.

    Args:
        found: in the trace.
    """

    def __init__(self, found: Sequence[dict[str, Any]]):
        self._children = {
            tuple(e["path"]): e for e in found if e["event"] == "child" and e["finish"] != "error"
        }
        self._scores = {tuple(e["path"]): e for e in found if e["event"] == "score"}
        self._likelihoods = {
            (tuple(e["path"]), tuple(e["after"])): e for e in found if e["event"] == "likelihood"
        }
        self._notes = [e for e in found if e["event"] == "note"]

    def __bool__(self) -> bool:
        """Whether anything that costs is left."""
        return bool(self._children or self._scores or self._likelihoods)

    def child(self, path: Path, whole: bool) -> dict[str, Any] | None:
        """The child that was drawn there, in the way that is wanted."""
        event = self._children.get(path)
        if event is None or event["whole"] != whole:
            return None
        return self._children.pop(path)

    def score(self, path: Path) -> dict[str, Any] | None:
        """The scores that a node was given."""
        return self._scores.pop(path, None)

    def likelihood(self, key: tuple[Path, Path]) -> dict[str, Any] | None:
        """How likely a text was said to be."""
        return self._likelihoods.pop(key, None)

    def note(self, event: Mapping[str, Any]) -> bool:
        """Whether a decision was noted."""
        event = as_read(event)
        if event not in self._notes:
            return False
        self._notes.remove(event)
        return True

    def displace(self, path: Path) -> None:
        """Something new is at a place: what was noted of it, and behind it, is of another text."""
        if not self:
            return
        n = len(path)
        self._children = {p: e for p, e in self._children.items() if p[:n] != path}
        self._scores = {p: e for p, e in self._scores.items() if p[:n] != path}
        self._likelihoods = {k: e for k, e in self._likelihoods.items() if k[0][:n] != path}
        self._notes = [e for e in self._notes if all(p[:n] != path for p in _sources(e))]


def _sources(note: Mapping[str, Any]) -> list[Path]:
    """What was put elsewhere by a decision."""
    if note["kind"] == "cut":
        return [tuple(note["of"])]
    if note["kind"] == "join":
        return [tuple(path) for one in note["joined"] for path in one["of"]]
    return []
