"""The loop: a policy draws, what it drew is judged, and it learns from that.

    problems ─▶ policy draws ─▶ verifier and reward model judge ─▶ advantages ─▶ the policy learns
                    ▲                                                                  │
                    └───────────────────────── its new weights ◀───────────────────────┘

Each step depends on the settings, its number and the weights alone, so that a run that is killed
goes on from its last checkpoint as if it had not been.
"""

from __future__ import annotations

import logging
import random
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

from prmkit.checkpoints import find_checkpoint, save_model
from prmkit.environments.playing import EpisodeSettings
from prmkit.errors import EnvironmentFailed, InvalidSetting, RunFolderError
from prmkit.ledger import seed_for
from prmkit.policies.base import SamplingSettings
from prmkit.policies.sampling import Judge
from prmkit.records import Problem
from prmkit.rl import saving
from prmkit.rl.batch import batch_of
from prmkit.rl.credit import earned
from prmkit.rl.meanings import check_meanings
from prmkit.rl.monitors import MonitorSettings, Watch, measure
from prmkit.rl.parts import Parts, assemble
from prmkit.rl.practice import Practice, Questions, Verdict
from prmkit.rl.rollouts import Rollout
from prmkit.rl.settings import (
    PREFERENCES,
    ImplicitSettings,
    RewardSettings,
    RLSettings,
    RolloutSettings,
    UpdateSettings,
    check_together,
)
from prmkit.rl.team import close_team, open_team
from prmkit.rl.voice_settings import VoiceSettings
from prmkit.scorers.base import Scorer
from prmkit.splitting import splitter

__all__ = ["Loop", "Plan", "RLResult", "train_policy"]

logger = logging.getLogger(__name__)

Row = dict[str, Any]


@dataclass(frozen=True, kw_only=True)
class Plan:
    """All settings of a run.

    Attributes:
        run: what, and for how long.
        rollouts: what is drawn.
        rewards: what it earns.
        update: how that teaches.
        implicit: of implicit rewards.
        monitors: what is watched.
        voice: where responses are drawn.
        episodes: of an agent: how it acts in its environment; None where problems are answered.
    """

    run: RLSettings
    rollouts: RolloutSettings = field(default_factory=RolloutSettings)
    rewards: RewardSettings = field(default_factory=RewardSettings)
    update: UpdateSettings = field(default_factory=UpdateSettings)
    implicit: ImplicitSettings = field(default_factory=ImplicitSettings)
    monitors: MonitorSettings = field(default_factory=MonitorSettings)
    voice: VoiceSettings = field(default_factory=VoiceSettings)
    episodes: EpisodeSettings | None = None

    @property
    def by_steps(self) -> bool:
        """Whether a step of time, for γ and λ, is a whole step and not a token."""
        if self.update.per is None:
            return self.episodes is not None
        return self.update.per == "step"

    @property
    def longest(self) -> int:
        """Tokens of a response, or of all turns of an episode, at most."""
        turns = 1 if self.episodes is None else self.episodes.max_steps
        return turns * self.rollouts.max_new_tokens

    def check(self, has_scorer: bool) -> None:
        """Refuse what does not go together; see `prmkit.rl.settings.check_together`."""
        check_together(self.run, self.rewards, has_scorer, self.rollouts.samples)
        check_meanings(self, has_scorer)
        if self.episodes is not None and self.run.algorithm == "step-dpo":
            raise InvalidSetting(
                "step-dpo compares texts after one and the same beginning, which episodes in an "
                "environment do not have; dpo compares whole episodes"
            )
        if self.update.minibatches > self.rollouts.problems:
            raise InvalidSetting(
                f"minibatches is {self.update.minibatches}, and problems of a step "
                f"{self.rollouts.problems}: responses to one problem stay together, so that there "
                "are no more minibatches than problems"
            )
        if self.run.algorithm == "reinforce" and (
            self.update.epochs > 1 or self.update.minibatches > 1
        ):
            raise InvalidSetting(
                "reinforce learns from what the policy itself drew: epochs and minibatches are 1; "
                "reinforce++ clips, and may learn more often"
            )


class RLResult(NamedTuple):
    """What a run did.

    Attributes:
        out: the run folder.
        policy: the folder of the policy that was taught.
        rows: as in metrics.jsonl.
    """

    out: Path
    policy: Path
    rows: list[Row]


def train_policy(
    problems: Sequence[Problem],
    plan: Plan,
    judge: Judge,
    *,
    scorer: Scorer | None = None,
    held_out: Sequence[Problem] = (),
    on_row: Callable[[Row], None] | None = None,
) -> RLResult:
    """Teach a policy; goes on where an earlier run in the same folder was.

    Started by torchrun in several processes of one machine, each calls this, draws and learns from
    a share, and all come to the same weights. The first one writes, and is told the rows.

    Args:
        problems: what it practises on, in an order of the seed's.
        plan: the settings.
        judge: the verifier.
        scorer: a reward model that scores steps. Its scores are watched even where they do not
            count.
        held_out: problems of evaluations.
        on_row: told each row of metrics.jsonl, evaluations too.

    Raises:
        InvalidSetting: if settings do not go together, or problems lack what they need.
        CheckpointError: if a model cannot be loaded.
        RunFolderError: if a checkpoint is damaged.
    """
    if plan.episodes is not None:
        raise InvalidSetting("episodes are played in an environment: see prmkit.rl.train_agent")
    practice = Questions(problems, held_out, splitter(plan.rollouts.split), judge)
    return Loop(practice, plan, scorer).run(on_row)


class Loop:
    """A run whose models are loaded, before anything is written. See `train_policy`.

    Args:
        practice: what is practised on.
        plan: the settings.
        scorer: a reward model of steps.
    """

    def __init__(self, practice: Practice[Any], plan: Plan, scorer: Scorer | None):
        plan.check(scorer is not None)
        what = "problem" if plan.episodes is None else "task"
        if not practice.practised:
            raise InvalidSetting(f"there is no {what} to practise on")
        if plan.run.eval_every and not practice.held_out:
            raise InvalidSetting(f"eval_every has no meaning without {what}s to evaluate on")
        self._practice, self._problems, self._plan = practice, practice.practised, plan
        self._scorer = scorer
        base = find_checkpoint(plan.run.policy)
        self.team = open_team(plan.run.device, plan.rollouts.problems)
        self._parts: Parts = assemble(base, plan, scorer, self.team)
        voice = self._parts.voice
        if voice.end is None:
            raise InvalidSetting(f"{voice.name!r} has no end token, so that no response would end")
        self._sampling = SamplingSettings(
            temperature=plan.rollouts.temperature, max_new_tokens=plan.rollouts.max_new_tokens
        )
        self._watch = Watch(plan.monitors)
        self._told = {"sampled_tokens": 0, "seconds": 0.0}
        if plan.episodes is not None:
            self._told["env_steps"] = 0
        self._settled: saving.Point | None = None
        """The step that the weights are of, where they are of one: it may be a checkpoint. One
        name for all of it, so that Ctrl-C finds the step before or the step after."""
        self._order: tuple[int, list[int]] = (-1, [])

    def run(self, on_row: Callable[[Row], None] | None = None) -> RLResult:
        """All steps that are left; `on_row` as for `train_policy`."""
        on_row = on_row or (lambda row: None)
        out, settings = self._plan.run.out, self._plan.run
        out.mkdir(parents=True, exist_ok=True)
        done = self._resume(on_row)
        try:
            if done == 0 and not saving.rows(out):
                self._write({"step": 0, **self._told, **self._evaluate()}, on_row)
            while done < settings.steps:
                row = self._step(done + 1)
                done += 1
                self._tell(row, on_row)
                if done == settings.steps or done % settings.save_every == 0:
                    self._save()
        except KeyboardInterrupt:
            self._save()
            raise
        folder = self.team.once(self._finish)
        close_team(self.team)
        return RLResult(out, folder, saving.rows(out))

    def _resume(self, on_row: Callable[[Row], None]) -> int:
        """Go on from the last checkpoint; how many steps are done."""
        run = self._plan.run
        there = saving.points(run.out)
        if there and (last := saving.number(there[-1])) > run.steps:
            raise RunFolderError(
                f"the run in {run.out} has done {last} steps, and steps is {run.steps}. Give at "
                "least as many, or another folder with --out"
            )
        learners, first = self._parts.learners, self.team.first
        point = self.team.in_turn(lambda: saving.load(run.out, learners, first=first))
        # At the start too: a server may still have what an earlier run taught it.
        self._parts.speak_anew(self._practice.question)
        if point is None:
            return 0
        self._told = point.state["told"]
        self._watch.load(point.state["watch"])
        logger.info("going on after step %d", point.step)
        rows = saving.rows(run.out)
        if not rows or rows[-1]["step"] < point.step:
            # Ctrl-C came between the step and its row, such as in an evaluation.
            self._tell(point.state["row"], on_row)
        return point.step

    def _save(self) -> None:
        if not self.team.first:
            return
        out, point = self._plan.run.out, self._settled
        if point and all(saving.number(p) != point.step for p in saving.points(out)):
            saving.save(out, point, self._parts.learners)

    def _tell(self, row: Row, on_row: Callable[[Row], None]) -> None:
        """Write the row of a step, after the evaluation that may be due."""
        run, step = self._plan.run, row["step"]
        if step == run.steps or (run.eval_every and step % run.eval_every == 0):
            row = {**row, **self._evaluate()}
        self._write(row, on_row)

    def _write(self, row: Row, on_row: Callable[[Row], None]) -> None:
        if not self.team.first:
            return
        saving.append(self._plan.run.out, row)
        on_row(row)

    def _chosen(self, step: int) -> list[Any]:
        """What a step practises on: all of it in turn, in another order each time round."""
        size, total = self._plan.rollouts.problems, len(self._problems)
        found = []
        for at in range((step - 1) * size, step * size):
            turn, place = divmod(at, total)
            if self._order[0] != turn:
                order = list(range(total))
                random.Random(seed_for(self._plan.run.seed, "order", str(turn))).shuffle(order)
                self._order = turn, order
            found.append(self._problems[self._order[1][place]])
        return found

    def _roll_out(self, step: int) -> list[Rollout]:
        """What is learnt from in a step; each process draws for its share of the problems.

        Raises:
            EnvironmentFailed: if no episode could be played to its end.
        """
        chosen, plan = self._chosen(step), self._plan
        own, seed = self.team.share(len(chosen)), seed_for(plan.run.seed, "step", str(step))
        found = self.team.together(
            lambda: self._practice.roll_out(
                self._parts.voice, chosen, own, plan.rollouts.samples, self._sampling, seed,
                self._scorer,
            )
        )  # fmt: skip
        errors = [one.error for one in found if one.error is not None]
        if errors:
            told = f"{len(errors)} of {len(found)} episodes of step {step} could not be played"
            if len(errors) == len(found):
                raise EnvironmentFailed(
                    f"{told}: {errors[0]}. When the environment is mended, give the same command "
                    "again: the run goes on from its last checkpoint"
                )
            if self.team.first:
                logger.warning("%s (%.300s); they teach nothing", told, errors[0])
        return found

    def _step(self, step: int) -> Row:
        """Draw, judge, learn."""
        begun = time.perf_counter()
        rollouts = self._roll_out(step)
        self._settled = None
        figures = self._learn(rollouts)
        self._parts.speak_anew(self._practice.question)
        self._told["sampled_tokens"] += sum(len(one.ids) for one in rollouts)
        self._told["seconds"] += time.perf_counter() - begun
        played = [one for one in rollouts if one.error is None]
        failed: Row = {}
        if self._plan.episodes is not None:
            # One that failed has cost its steps too.
            self._told["env_steps"] += sum(len(one.trajectory.steps) for one in rollouts)
            failed = {"not_played": len(rollouts) - len(played)}
        rewards = self._plan.rewards
        # Pairs go by scores; what is paid for there is not a sum over steps.
        by_pairs = self._plan.run.algorithm in PREFERENCES
        kind = None if self._scorer is None else self._scorer.semantics
        paid = None if by_pairs else earned(played, rewards, kind)
        row: Row = {
            "step": step,
            "problems": self._plan.rollouts.problems,
            "samples": self._plan.rollouts.samples,
            **self._told,
            **failed,
            **measure(played, aggregation=rewards.aggregate, earned=paid),
            **figures,
        }
        row["alarms"] = [alarm._asdict() for alarm in self._watch.seen(step, row)]
        state = {"told": dict(self._told), "watch": self._watch.state(), "row": row}
        self._settled = saving.Point(step, state)
        return row

    def _learn(self, rollouts: list[Rollout]) -> Row:
        """Change the weights by what was drawn; figures of it."""
        n = self._plan.rollouts.samples
        if self._plan.run.algorithm in PREFERENCES:
            return self._parts.learn_pairs(rollouts)
        groups = [rollouts[at : at + n] for at in range(0, len(rollouts), n)]
        taught = [group for group in map(self._teaching, groups) if group]
        if not taught:
            return {"kept": 0.0}
        numbers = [i for i, group in enumerate(taught) for _ in group]
        batch = batch_of([one for group in taught for one in group], numbers)
        figures, advantages = self._parts.learn(batch)
        teaching = {g for g, any_ in zip(numbers, advantages.any(1).tolist(), strict=True) if any_}
        return {**figures, "kept": len(teaching) / len(groups)}

    def _teaching(self, group: list[Rollout]) -> list[Rollout]:
        """The responses to a problem that teach, none where it is too hard or too easy.

        One without tokens teaches nothing, and is no attempt that others were better than. Where
        outcomes count, neither is one of which it is not known whether it is right.
        """
        low, high = self._plan.update.taught(self._plan.run.algorithm)
        found = [one for one in group if one.ids]
        known = [one for one in found if one.trajectory.correct is not None]
        if self._plan.rewards.by_outcome:
            found = known
        if low > 0 or high < 1:
            right = sum(one.trajectory.correct is True for one in known)
            if not known or not low <= right / len(known) <= high:
                return []
        return found

    def _evaluate(self) -> Row:
        """The share of right answers to what is held out: of samples, and of the likeliest."""
        if not self._practice.held_out:
            return {}
        found: Row = {"eval_problems": len(self._practice.held_out)}
        greedy = SamplingSettings(
            temperature=0.0, max_new_tokens=self._plan.rollouts.max_new_tokens
        )
        ways = [("eval_greedy", 1, greedy)]
        if self._plan.run.eval_samples:
            ways.append(("eval_accuracy", self._plan.run.eval_samples, self._sampling))
        for name, n, sampling in ways:
            verdicts = self._judged(n, sampling)
            right = [one.right for one in verdicts if one.right is not None]
            if not right:
                raise EnvironmentFailed(
                    f"no episode of an evaluation could be played: {verdicts[0].error}"
                )
            found[name] = sum(right) / len(right)
        return found

    def _judged(self, n: int, sampling: SamplingSettings) -> list[Verdict]:
        """Of `n` attempts at each problem held out; each process draws for its share."""
        own = self.team.share(len(self._practice.held_out))
        # The same chances at each evaluation, so that two of them differ by the policy alone.
        seed = seed_for(0, "eval")
        return self.team.together(
            lambda: self._practice.judged(self._parts.voice, own, n, sampling, seed)
        )

    def _finish(self) -> Path:
        """The policy as a folder, and an implicit reward model that learnt."""
        tokenizer = self._parts.voice.tokenizer
        run = self._plan.run
        base = str(find_checkpoint(run.policy).resolve())
        note = {"family": "policy", "base": base, "algorithm": run.algorithm, "steps": run.steps}
        folder = run.out / "policy"
        save_model(folder, self._parts.policy.model, tokenizer, note)
        if self._parts.prm is not None and "prm" in self._parts.learners:
            told = {"family": "log_ratio", "reference": base, "beta": self._plan.implicit.beta}
            save_model(run.out / "prm", self._parts.prm.model, tokenizer, told)
        return folder
