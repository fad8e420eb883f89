"""``prm convert``."""

from __future__ import annotations

from typing import Annotated

from cyclopts import Parameter

from prmkit.cli.console import DONE, INCOMPLETE, bars, print_json, say, tell_skipped
from prmkit.formats.files import ConvertSettings
from prmkit.formats.files import convert as run


def convert(
    settings: Annotated[ConvertSettings, Parameter(name="*")], *, json: bool = False
) -> int:
    """Convert a file of labelled steps from one format to another.

    Formats: prmkit, prm800k, math_shepherd, rlhflow, stepwise, openrlhf, processbench, prmbench,
    gsm8k, gsm8k_solutions, openai_chat, openai_tools, and bon_pool (read only). A bad row stops the
    conversion with its file and line, and no output is left.

    Args:
        json: print what was done as JSON.
    """
    with bars(quiet=json) as progress:
        done = 0

        def told(more: int) -> None:
            nonlocal done
            done += more
            progress("convert", done, None)

        result = run(settings, on_progress=told)
    if json:
        print_json(
            {
                "records": result.records,
                "from": result.from_format,
                "to": settings.to,
                "target": str(settings.target),
                "skipped": [row._asdict() for row in result.skipped],
            }
        )
    else:
        tell_skipped(result.skipped, settings.source)
        say(
            f"{result.records} records from {settings.source} ({result.from_format}) "
            f"to {settings.target} ({settings.to}), {len(result.skipped)} skipped"
        )
    return INCOMPLETE if result.skipped else DONE
