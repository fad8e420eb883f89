"""What ``prm play`` and ``prm label`` share about episodes: their environment, and their scores."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pydantic import TypeAdapter

from prmkit.cli.names import about_model, open_scorer
from prmkit.environments.base import MakeEnvironment, Planner, task_name
from prmkit.environments.catalogue import environment
from prmkit.environments.playing import EpisodeSettings
from prmkit.errors import InvalidSetting
from prmkit.ledger import Ledger, seed_for
from prmkit.records import Scored, Trajectory, Unscored
from prmkit.scorers.settings import ModelSettings

if TYPE_CHECKING:
    from prmkit.scorers.base import Scorer

GAMES = Path("games")
"""Where TextWorld's games are kept, if nothing else is said."""

TOGETHER = 32
"""Episodes that are scored together, about."""

_STORED = TypeAdapter(list[Scored])


@dataclass(frozen=True, kw_only=True)
class AgentSettings:
    """How turns of agents are labelled.

    Attributes:
        env: of mc: go on from each turn in this environment (crafting, tools, babyai, textworld,
            agentgym:KIND=URL, openenv=URL or gymnasium:ID), instead of writing on; the problems'
            meta name it, their task and its seed.
        max_steps: with env: turns of an episode, those before included.
        threads: with env: environments that do something at once.
        games: with env: folder in which TextWorld's games are kept.
        gamma: of temporal and counted: what is left of an outcome one turn earlier.
        lam: of temporal: how far it looks ahead, from 0 (the next promise) to 1 (the outcome).
    """

    env: str | None = None
    max_steps: int = 20
    threads: int = 1
    games: Path = GAMES
    gamma: float = 1.0
    lam: float = 0.95

    def __post_init__(self) -> None:
        EpisodeSettings(max_steps=self.max_steps, threads=self.threads)
        for name in ("gamma", "lam"):
            if not 0 <= getattr(self, name) <= 1:
                raise InvalidSetting(f"{name} is {getattr(self, name)!r}; it must be from 0 to 1")

    @property
    def described(self) -> dict[str, Any]:
        """What labels depend on."""
        return {k: v for k, v in asdict(self).items() if k not in ("threads", "games")}


def chosen(name: str, games: Path, kinds: Sequence[str] = ()) -> tuple[MakeEnvironment, list[str]]:
    """What makes an environment of a name, and which kinds of its tasks are meant.

    Args:
        name: of the environment.
        games: the folder for compiled games.
        kinds: of tasks; by default the environment's first one.

    Raises:
        UnknownName: if there is no such environment, or it knows no such kind of task.
        MissingDependency: if it needs a package that is not installed.
    """
    if games != GAMES and name != "textworld":
        raise InvalidSetting(f"games are TextWorld's; they have no meaning for {name}")
    make = environment(name, games)
    one = make()
    try:
        found = [task_name(kind, one.tasks) for kind in kinds or ("",)]
    finally:
        one.close()
    if len({*found}) < len(found):
        raise InvalidSetting(f"a kind of task is given twice: {', '.join(found)}")
    return make, found


def planner(make: MakeEnvironment, name: str) -> Planner:
    """An environment that can demonstrate how its tasks are solved.

    Raises:
        InvalidSetting: if it cannot.
    """
    one = make()
    if not isinstance(one, Planner):
        one.close()
        raise InvalidSetting(f"{name} has no planner, so it demonstrates nothing; name a policy")
    return one


class TurnScorer:
    """Scores episodes turn by turn; what was scored once is found again.

    Args:
        settings: which model.
        folder: of the run, where scores are noted.
    """

    def __init__(self, settings: ModelSettings, folder: Path):
        self.scorer: Scorer = open_scorer(settings)
        # Where a model runs may change; which one it is may not.
        self._about = about_model(replace(settings, server=None, device=None), self.scorer)
        self._place = folder / "scores.sqlite"

    def __enter__(self) -> TurnScorer:
        self._ledger = Ledger(self._place, self._about)
        return self

    def __exit__(self, *error: Any) -> None:
        self._ledger.close()

    def score(self, trajectories: Sequence[Trajectory]) -> list[Scored]:
        """One result per episode; what is scored together shows in the last digits."""
        key = f"{seed_for(0, *(trajectory.key for trajectory in trajectories)):016x}"
        stored = self._ledger.get(key)
        if stored is not None:
            return _STORED.validate_json(stored)
        found: list[Scored | None] = [_not_played(one) for one in trajectories]
        there = [i for i, one in enumerate(found) if one is None]
        results = self.scorer.score([trajectories[i] for i in there]) if there else []
        for i, scored in zip(there, results, strict=True):
            found[i] = scored
        whole = [scored for scored in found if scored is not None]
        self._ledger.put({key: _STORED.dump_json(whole).decode()})
        return whole


def _not_played(trajectory: Trajectory) -> Unscored | None:
    return Unscored(reason="it could not be played") if trajectory.finish == "error" else None


def in_chunks(
    groups: Iterator[Sequence[Any]], n: int, together: int = TOGETHER
) -> Iterator[list[Sequence[Any]]]:
    """Groups of `n`, a few at a time: about `together` items, and always the same ones."""
    size = max(1, together // n)
    chunk: list[Sequence[Any]] = []
    for group in groups:
        chunk.append(group)
        if len(chunk) == size:
            yield chunk
            chunk = []
    if chunk:
        yield chunk
