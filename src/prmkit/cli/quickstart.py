"""``prm quickstart``."""

from __future__ import annotations

from dataclasses import asdict
from typing import Annotated, Any

from cyclopts import Parameter
from rich.table import Table
from rich.text import Text

from prmkit.cli.console import DONE, bars, out, print_json
from prmkit.embedded.quickstart import QuickstartResult, QuickstartSettings
from prmkit.embedded.quickstart import quickstart as run


def quickstart(
    settings: Annotated[QuickstartSettings | None, Parameter(name="*")] = None,
    *,
    json: bool = False,
) -> int:
    """Run the whole road in the embedded world, and write a report.

    A small policy solves word problems; training solutions are labelled by rollouts; the PRM
    that ships is trained further on them; it scores the test solutions, finds wrong steps, and
    picks answers. The folder holds config.json, records.jsonl, metrics.json and report.html.

    Args:
        json: print the metrics as JSON.
    """
    from prmkit.report import Report, write_report

    settings = settings or QuickstartSettings()
    with bars(quiet=json) as progress:
        result = run(settings, on_progress=progress)
    page = settings.out / "report.html"
    described = {k: v for k, v in asdict(settings).items() if k != "out"}
    labelling = {
        "of the labels, first error right": result.metrics["labelling"]["first_error_accuracy"],
        **{k: v for k, v in result.metrics["labelling"].items() if k != "first_error_accuracy"},
    }
    write_report(
        Report(
            title="prm quickstart: from problems to better answers",
            pools=result.records,
            threshold=settings.threshold,
            aggregation=settings.aggregate,
            measured=result.measured,
            settings=described,
            figures={
                "labels by rollouts": labelling,
                "the implicit scorer, untrained": _short(result.metrics["implicit"]),
                "seconds": result.metrics["seconds"],
            },
        ),
        page,
    )
    if json:
        print_json({**result.metrics, "report": str(page)})
        return DONE
    out().print(_table(settings, result))
    out().print(Text(f"report: {page}"))
    return DONE


def _short(metrics: dict[str, Any]) -> dict[str, Any]:
    return {k: v for k, v in metrics.items() if "margin" not in k and k != "unscored"}


def _table(settings: QuickstartSettings, result: QuickstartResult) -> Table:
    n = settings.samples
    policy, prm = result.metrics["policy"], result.metrics["prm"]
    implicit, labelling = result.metrics["implicit"], result.metrics["labelling"]
    table = Table(title=f"{settings.problems} test problems, {n} solutions of each")
    table.add_column("")
    table.add_column("PRM", justify="right")
    table.add_column("implicit", justify="right")
    table.add_column("no scores", justify="right")
    rows: list[tuple[str, Any, Any, Any]] = [
        ("the first answer is right (pass@1)", None, None, policy["pass@1"]),
        (f"the majority of {n} is right", None, None, policy[f"majority@{n}"]),
        (f"the best of {n} is right", prm[f"best_of_{n}"], implicit[f"best_of_{n}"], None),
        (
            f"the weighted vote of {n} is right",
            prm[f"weighted_vote_{n}"],
            implicit[f"weighted_vote_{n}"],
            None,
        ),
        (f"any of {n} is right (pass@{n})", None, None, policy[f"pass@{n}"]),
        (
            "first wrong step found (ProcessBench's F1)",
            prm.get("first_error_f1"),
            implicit.get("first_error_f1"),
            None,
        ),
        (
            "right above wrong within a problem (AUC)",
            prm.get("within_problem_auc"),
            implicit.get("within_problem_auc"),
            None,
        ),
        ("labels by rollouts: first error right", None, None, labelling["first_error_accuracy"]),
    ]
    for name, *values in rows:
        table.add_row(name, *("" if v is None else f"{v:.3f}" for v in values))
    return table
