"""``prm rl``."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from contextlib import redirect_stdout
from dataclasses import KW_ONLY, asdict, dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any
from typing import Literal as Literal

from cyclopts import Parameter

from prmkit.aggregate import Aggregation as Aggregation
from prmkit.checkpoints import fingerprint
from prmkit.cli.console import DONE, bars, figures, out, print_json, say
from prmkit.cli.names import distinct_problems, judge, model_folder
from prmkit.cli.reward_model import RLModel
from prmkit.cli.rl_env import RLEnvironment
from prmkit.embedded.world import Split, problems
from prmkit.environments.base import Task
from prmkit.errors import InvalidSetting, NothingToMeasure
from prmkit.formats.files import read_records
from prmkit.ledger import check_folder, run_folder
from prmkit.records import Problem
from prmkit.report.rl import write_rl
from prmkit.rl.curves import curves
from prmkit.rl.monitors import MonitorSettings
from prmkit.rl.settings import (
    PREFERENCES,
    SCORED,
    ImplicitSettings,
    RewardSettings,
    RLSettings,
    RolloutSettings,
    UpdateSettings,
)
from prmkit.rl.settings import Algorithm as Algorithm
from prmkit.rl.settings import Average as Average
from prmkit.rl.settings import Forward as Forward
from prmkit.rl.settings import KlKind as KlKind
from prmkit.rl.settings import Process as Process
from prmkit.rl.voice_settings import VoiceSettings
from prmkit.settings import at_least
from prmkit.training.settings import Curves, WatchSettings

if TYPE_CHECKING:
    from prmkit.rl.episodes import Acting
    from prmkit.rl.loop import Loop, Plan, RLResult
    from prmkit.rl.practice import Practice

HELD_OUT = 100
"""Problems of the embedded world that an evaluation has."""


# The types of inherited options are looked up by their names in this module.
@dataclass(frozen=True, kw_only=True)
class _Run(RLSettings):
    __doc__ = RLSettings.__doc__
    policy: str = "embedded/policy"
    out: Annotated[Path, Parameter(alias="-o")] = Path("runs/rl")


@dataclass(frozen=True, kw_only=True)
class _Rewards(RewardSettings):
    __doc__ = RewardSettings.__doc__
    reward: Process | None = None  # type: ignore[assignment]

    def __post_init__(self) -> None:
        if self.reward is not None:
            super().__post_init__()


@dataclass(frozen=True, kw_only=True)
class _Implicit(ImplicitSettings):
    __doc__ = ImplicitSettings.__doc__
    online: Annotated[bool, Parameter(negative="--frozen")] = True
    scaled: Annotated[bool, Parameter(negative="--unscaled")] = True


@dataclass(frozen=True)
class RLTask:
    """On which problems, and where they come from.

    Attributes:
        file: problems to practise on, in any format that prm convert reads; by default the
            embedded world's.
        eval: problems of evaluations, which are not practised on.
        world: split of the embedded world, where no file is given: train, test or ood; it is
            evaluated on 100 of its test problems.
        limit: problems at most; 0 for all of a file (of the embedded world's 4,000, and 100 to
            evaluate on).
        from_: format of the files; by default what their first rows say.
        resume: go on with what the run folder holds; --no-resume begins anew.
        report_to: where live curves go; auto is trackio where it is installed (the extra curves).
    """

    file: Annotated[Path | None, Parameter(name="--problems")] = None
    _: KW_ONLY
    eval: Path | None = None
    world: Split = "train"
    limit: int = 0
    from_: str | None = None
    resume: Annotated[bool, Parameter(negative="--no-resume")] = True
    report_to: Curves = "auto"

    def __post_init__(self) -> None:
        at_least(0, limit=self.limit)
        if self.file is not None and self.world != RLTask.world:
            raise InvalidSetting(f"world is {self.world}, and problems come from {self.file}")
        if self.from_ is not None and self.file is None and self.eval is None:
            raise InvalidSetting("from is the format of files, and none is given")

    def check_with(self, agent: RLEnvironment) -> None:
        """Refuse what is about problems where there is an environment.

        Raises:
            InvalidSetting: saying what.
        """
        if agent.env is None:
            return
        for name, instead in (
            ("file", "its tasks are practised on"),
            ("eval", "hold tasks of it out (--held-out-seeds)"),
            ("world", "its tasks are practised on"),
            ("limit", "say which tasks (--seeds)"),
        ):
            if getattr(self, name) != getattr(RLTask, name):
                given = "problems" if name == "file" else name
                raise InvalidSetting(
                    f"{given} has no meaning with the environment {agent.env}: {instead}"
                )


@dataclass(frozen=True, kw_only=True)
class RLRollouts:
    """What a policy writes in a step of training.

    Attributes:
        problems: a step; with env tasks.
        samples: responses to each problem; with env episodes of each task.
        temperature: at which they are drawn, and at which the policy is taught.
        max_new_tokens: of a response, with env of a turn; by default 512, for the embedded
            world's problems 200.
        split: how responses are cut into steps, see `prmkit.splitting`; by default blank_line,
            for the embedded world's problems line. With env the steps are the turns.
    """

    problems: Annotated[int, Parameter(name="--problems-per-step")] = RolloutSettings.problems
    samples: int = RolloutSettings.samples
    temperature: float = RolloutSettings.temperature
    max_new_tokens: int | None = None
    split: str | None = None

    def settings(self, practised: Sequence[Problem | Task]) -> RolloutSettings:
        """With the defaults for these problems."""
        is_world = all(isinstance(one, Problem) and "world" in one.meta for one in practised)
        tokens, split = self.max_new_tokens, self.split
        if tokens is None:
            tokens = 200 if is_world else RolloutSettings.max_new_tokens
        if split is None:
            split = "line" if is_world else RolloutSettings.split
        return RolloutSettings(
            problems=self.problems,
            samples=self.samples,
            temperature=self.temperature,
            max_new_tokens=tokens,
            split=split,
        )


def rl(
    task: Annotated[RLTask | None, Parameter(name="*")] = None,
    *,
    agent: Annotated[RLEnvironment | None, Parameter(name="*")] = None,
    run: Annotated[_Run | None, Parameter(name="*")] = None,
    rollouts: Annotated[RLRollouts | None, Parameter(name="*")] = None,
    model: Annotated[RLModel | None, Parameter(name="*")] = None,
    rewards: Annotated[_Rewards | None, Parameter(name="*")] = None,
    update: Annotated[UpdateSettings | None, Parameter(name="*")] = None,
    implicit: Annotated[_Implicit | None, Parameter(name="*")] = None,
    voice: Annotated[VoiceSettings | None, Parameter(name="*")] = None,
    monitors: MonitorSettings | None = None,
    json: bool = False,
) -> int:
    """Teach a policy by verified outcomes, step scores, or both, and watch that it is not fooled.

    With an environment (--env) it is taught to act: it practises on tasks, outcomes are successes,
    and a reward model scores turns.

    Interrupted, it goes on from its last checkpoint when it is given again. Several processes are
    started by torchrun: torchrun --nproc-per-node 8 --no-python prm rl …

    Args:
        monitors: when an alarm is raised.
        json: print the last row of metrics.jsonl as JSON.
    """
    task, model, agent = task or RLTask(), model or RLModel(), agent or RLEnvironment()
    run = run or _Run()
    rewards = _rewarded(rewards or _Rewards(), run.algorithm)
    acting, practised, held_out = _practised(task, agent)
    is_world = acting is None and run.policy.startswith("embedded/")
    if rewards.reward in SCORED and model.model is None and is_world:
        model = replace(model, model="embedded/prm")
    model.check()
    from prmkit.rl.loop import Loop, Plan
    from prmkit.rl.practice import Questions
    from prmkit.rl.team import open_team
    from prmkit.splitting import splitter

    own = implicit or _Implicit()
    if own.prm is not None:
        own = replace(own, prm=str(model_folder(own.prm)))
    folder = model_folder(run.policy)
    plan = Plan(
        run=replace(run, policy=str(folder)),
        rollouts=(rollouts or RLRollouts()).settings(practised),
        rewards=rewards,
        update=update or UpdateSettings(),
        implicit=own,
        monitors=monitors or MonitorSettings(),
        voice=voice or VoiceSettings(),
        episodes=agent.episodes,
    )
    plan.check(model.model is not None)
    watch = WatchSettings(report_to=task.report_to)
    watch.curves()
    _check_judged(plan, practised, held_out)
    described = _described(plan, model, practised, held_out)
    if agent.env is not None:
        described["env"] = agent.env
    if task.resume:
        check_folder(run.out, described)
    # Before models are loaded: each process has a GPU of its own.
    first = open_team(run.device, plan.rollouts.problems).first
    scorer = model.open(run.device)
    if first and not json and task.report_to == "auto" and not watch.curves():
        say("no live curves: trackio is not installed (the extra curves); see metrics.jsonl")
    # Nothing that could have been refused claims the folder.
    practice: Practice[Any] = acting or Questions(
        practised, held_out, splitter(plan.rollouts.split), judge()
    )
    loop = Loop(practice, plan, scorer)
    if not first:
        loop.run()
        return DONE
    with run_folder(run.out, described, resume=task.resume):
        result = _taught(loop, plan, watch, described, quiet=json)
        write_rl(run.out / "report.html", run.out, title=_title(plan))
    _tell(result, json)
    return DONE


def _practised(task: RLTask, agent: RLEnvironment) -> tuple[Acting | None, list[Any], list[Any]]:
    """An environment, if there is one, what is practised on, and what is held out."""
    task.check_with(agent)
    if agent.env is None:
        return None, *_problems(task)
    acting = agent.practice()
    return acting, [*acting.practised], [*acting.held_out]


def _taught(
    loop: Loop,
    plan: Plan,
    watch: WatchSettings,
    described: dict[str, Any],
    *,
    quiet: bool,
) -> RLResult:
    folder = plan.run.out

    def told(row: dict[str, Any]) -> None:
        draw(row)
        shown = [
            f"{name} {row[key]:.3f}"
            for name, key in (("right", "accuracy"), ("prm", "prm"), ("kl", "kl"))
            if key in row
        ]
        progress("rl", row["step"], plan.run.steps, "  ".join(shown))
        for alarm in row.get("alarms", ()):
            say(f"alarm at step {row['step']}: {alarm['message']}")
        if row["step"] and row["step"] % plan.run.save_every == 0:
            write_rl(folder / "report.html", folder, title=_title(plan))

    # Trackers greet on standard output, which is for results.
    with (
        bars(quiet=quiet) as progress,
        redirect_stdout(sys.stderr),
        curves(watch, folder, described) as draw,
    ):
        return loop.run(told)


def _title(plan: Plan) -> str:
    return f"{plan.run.algorithm} of {Path(plan.run.policy).name}"


def _rewarded(rewards: _Rewards, algorithm: Algorithm) -> _Rewards:
    """With the reward that the algorithm is about, where none is given."""
    if rewards.reward is not None:
        return rewards
    own: Process = "none"
    if algorithm == "prime":
        own = "implicit"
    elif algorithm in PREFERENCES:
        own = "score"
    return replace(rewards, reward=own)


def _check_judged(plan: Plan, practised: list[Any], held_out: list[Any]) -> None:
    """Refuse problems whose solutions cannot be judged, where it counts whether they are right.

    An environment judges its tasks itself.
    """
    by_outcome = plan.rewards.by_outcome or plan.run.algorithm == "dpo"
    is_bounded = plan.update.low is not None or plan.update.high is not None
    for found, what, how in (
        (practised if by_outcome or is_bounded else [], "to practise on", "or reward scores alone"),
        (held_out, "held out", "or evaluate on others"),
    ):
        asked = [one for one in found if isinstance(one, Problem)]
        unknown = [p.id for p in asked if p.answer is None and "world" not in p.meta]
        if unknown:
            raise InvalidSetting(
                f"{len(unknown)} of {len(found)} problems {what} have no answer, such as "
                f"{unknown[0]!r}, so that it is not known what is right: leave them out, {how}"
            )
    lacking = "problems to evaluate on (--eval)"
    if plan.episodes is not None:
        lacking = "tasks to evaluate on (--held-out-seeds)"
    if not held_out and plan.run.eval_samples != RLSettings.eval_samples:
        raise InvalidSetting(f"eval_samples has no meaning without {lacking}")
    if not held_out and plan.run.eval_every:
        raise InvalidSetting(f"eval_every has no meaning without {lacking}")


def _problems(task: RLTask) -> tuple[list[Problem], list[Problem]]:
    """What is practised on, and what is held out."""
    if task.file is None:
        practised = list(problems(task.world, task.limit or 4000))
    else:
        found = distinct_problems(read_records(task.file, task.from_), task.file)
        practised = found[: task.limit] if task.limit else found
        if not practised:
            raise NothingToMeasure(f"{task.file} holds no problem")
    if task.eval is None:
        # Far away from those that are practised on where they are of the same split.
        return practised, list(
            problems("test", min(task.limit or HELD_OUT, HELD_OUT), 60_000)
        ) if task.file is None else []
    held_out = distinct_problems(read_records(task.eval, task.from_), task.eval)
    if not held_out:
        raise NothingToMeasure(f"{task.eval} holds no problem")
    known = {problem.text for problem in practised}
    both = [problem.id for problem in held_out if problem.text in known]
    if both:
        raise InvalidSetting(
            f"{len(both)} problems of {task.eval} are practised on too, such as {both[0]!r}; "
            "hold them out"
        )
    return practised, held_out


def _described(
    plan: Plan, model: RLModel, practised: list[Any], held_out: list[Any]
) -> dict[str, Any]:
    """What a run's weights depend on."""
    told = {k: v for k, v in asdict(plan).items() if k not in ("run", "voice", "episodes")}
    del told["update"]["per"]
    if plan.by_steps:
        told["per"] = "step"
    if plan.episodes is not None:
        # How many share a call, no episode depends on.
        told["max_steps"] = plan.episodes.max_steps
    run = asdict(plan.run)
    # A run may be made longer, and saved at other times.
    for free in ("out", "steps", "save_every"):
        del run[free]
    models = [plan.run.policy, *model.names]
    if plan.implicit.prm:
        models.append(plan.implicit.prm)
    return {
        **run,
        **told,
        # Its seeds give other responses than this process draws; where it is does not matter.
        "drawn_by": "this process" if plan.voice.server is None else "a server",
        "scorer": model.described,
        "files": [fingerprint(model_folder(name)) for name in models],
        "problems": _named(practised),
        "held_out": _named(held_out),
    }


def _named(some: Sequence[Problem | Task]) -> str:
    """How many problems or tasks, and what tells them from others."""
    from prmkit.ledger import seed_for

    texts = [
        one.model_dump_json() if isinstance(one, Problem) else f"{one.name}/{one.seed}"
        for one in some
    ]
    return f"{len(some)}, {seed_for(0, *texts):x}"


def _tell(result: RLResult, json: bool) -> None:
    last = result.rows[-1]
    if json:
        print_json({**last, "out": str(result.out), "policy": str(result.policy)})
        return
    evaluated = [row for row in result.rows if "eval_problems" in row]
    rows: list[tuple[str, Any]] = [
        ("steps", last["step"]),
        ("sampled tokens", last["sampled_tokens"]),
    ]
    if "env_steps" in last:
        rows.append(("environment steps", last["env_steps"]))
        failed = sum(row.get("not_played", 0) for row in result.rows)
        rows.append(("episodes that could not be played", failed))
    for name, key in (("right, of samples", "eval_accuracy"), ("right, likeliest", "eval_greedy")):
        if len(evaluated) > 1 and key in evaluated[0]:
            rows += [
                (f"{name}: before", round(evaluated[0][key], 4)),
                (f"{name}: after", round(evaluated[-1][key], 4)),
            ]
    alarms = [alarm for row in result.rows for alarm in row.get("alarms", ())]
    rows.append(("alarms", len(alarms)))
    out().print(figures("prm rl", rows))
    say(f"policy: {result.policy}")
    say(f"report: {result.out / 'report.html'}")
