"""``prm search --replay``: recorded candidates, chosen from again."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from prmkit.cli.console import DONE, figures, out, print_json
from prmkit.cli.names import judge, open_scorer
from prmkit.errors import InvalidSetting
from prmkit.files import write_json
from prmkit.scorers.settings import ModelSettings
from prmkit.search.drive import grouping
from prmkit.search.replay import Replayed, recorded, replay, traces_in
from prmkit.search.settings import SearchSettings

if TYPE_CHECKING:
    from prmkit.cli.search import SearchRun


def replayed(run: SearchRun, how: ModelSettings, settings: SearchSettings, json: bool) -> int:
    """Choose again, and tell what changes.

    The candidates are scored by the model that is named; where it is the one whose scores were
    noted, and for a choice by majority, nothing is scored.
    """
    assert run.replay is not None
    if run.file is not None:
        raise InvalidSetting("give problems or --replay, not both: a replay has its own problems")
    searches = [recorded(path) for path in traces_in(run.replay)]
    scorer = None
    if settings.choice != "majority":
        scorer = open_scorer(how)
        if all(search.about["scorer"] == scorer.name for search in searches):
            scorer = None
    found = list(replay(searches, scorer, settings, judge(), grouping(settings.answers)))
    rows = [_row(one) for one in found]
    metrics = _metrics(found)
    metrics["scorer"] = scorer.name if scorer else "as noted"
    write_json(run.out / "replay.json", {"metrics": metrics, "problems": rows})
    if json:
        print_json({**metrics, "out": str(run.out / "replay.json")})
    else:
        out().print(figures("prm search --replay", list(metrics.items())))
    return DONE


def _row(one: Replayed) -> dict[str, Any]:
    node = one.chosen.node
    return {
        "problem": one.recorded.problem.id,
        "trace": str(one.recorded.path),
        "chosen": None if node is None else list(node.path),
        "answer": one.answer,
        "correct": one.correct,
        "answer_before": one.before[0],
        "correct_before": one.before[1],
    }


def _metrics(found: list[Replayed]) -> dict[str, Any]:
    judged = [one for one in found if one.recorded.problem.answer is not None]
    before = [one for one in judged if one.recorded.end is not None]
    return {
        "problems": len(found),
        "right": _share([bool(one.correct) for one in judged]),
        "right_before": _share([bool(one.before[1]) for one in before]),
        "other_answers": sum(one.answer != one.before[0] for one in found),
        "policy_tokens": 0,
    }


def _share(values: list[bool]) -> float | None:
    return round(sum(values) / len(values), 4) if values else None
