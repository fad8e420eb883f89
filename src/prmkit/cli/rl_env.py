"""What ``prm rl --env`` practises on: tasks of an environment."""

from __future__ import annotations

from dataclasses import dataclass, fields
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

from cyclopts import Parameter

from prmkit.cli.episodes import GAMES, chosen
from prmkit.cli.play import seeds_of
from prmkit.environments.base import Task
from prmkit.environments.playing import EpisodeSettings
from prmkit.errors import InvalidSetting

if TYPE_CHECKING:
    from prmkit.rl.episodes import Acting


@dataclass(frozen=True, kw_only=True)
class RLEnvironment:
    """An environment to act in, in place of problems: responses are episodes, their steps turns.

    Attributes:
        env: crafting, tools, babyai, babyai-words or textworld; or agentgym:KIND=URL,
            openenv=URL, gymnasium:ID (docs/agents.md).
        task: a kind of the environment's tasks, by name; give it once per kind. An unknown name
            lists those there are; by default the first.
        seeds: of each kind: how many tasks, such as 1000 (0 to 999), or which, such as 0-999.
        held_out_seeds: of each kind: tasks of evaluations, which are not practised on, such as
            1000-1099; by default nothing is evaluated.
        max_steps: turns of an episode; one that has not ended by then has failed at its task.
        in_flight: episodes under way at a time; they share calls of the policy.
        threads: environments that do something at once.
        games: folder in which TextWorld's games are kept.
    """

    env: str | None = None
    task: Annotated[tuple[str, ...], Parameter(name="--task")] = ()
    seeds: str = "1000"
    held_out_seeds: str | None = None
    max_steps: int = EpisodeSettings.max_steps
    in_flight: int = 128
    threads: int = 1
    games: Path = GAMES

    def __post_init__(self) -> None:
        EpisodeSettings(max_steps=self.max_steps, in_flight=self.in_flight, threads=self.threads)
        if self.env is None:
            for field in fields(self):
                if getattr(self, field.name) != field.default:
                    raise InvalidSetting(
                        f"{field.name} has no meaning without an environment (--env)"
                    )

    @property
    def episodes(self) -> EpisodeSettings | None:
        """How episodes are played; None without an environment."""
        if self.env is None:
            return None
        return EpisodeSettings(
            max_steps=self.max_steps, in_flight=self.in_flight, threads=self.threads
        )

    def practice(self) -> Acting:
        """What is practised on.

        Raises:
            InvalidSetting: if seeds are none, or are held out and practised on.
            UnknownName: if there is no such environment, or it knows no such kind of task.
            MissingDependency: if it needs a package that is not installed.
        """
        from prmkit.rl.episodes import Acting

        settings = self.episodes
        assert self.env is not None
        assert settings is not None
        make, kinds = chosen(self.env, self.games, self.task)
        practised = [Task(seed, kind) for kind in kinds for seed in seeds_of(self.seeds)]
        wanted = () if self.held_out_seeds is None else seeds_of(self.held_out_seeds)
        held_out = [Task(seed, kind) for kind in kinds for seed in wanted]
        return Acting(make, practised, held_out, settings)
