"""Writes docs/cli.md from the help of every command: ``make docs``."""

from __future__ import annotations

import io
from pathlib import Path

from rich.console import Console

from prmkit.cli import app

PAGE = Path(__file__).parents[1] / "docs" / "cli.md"
COMMANDS = (
    "quickstart", "score", "evaluate", "evaluate-search", "compare", "search", "rl", "play",
    "sample", "label", "merge", "recut", "train", "convert", "calibrate", "models", "convert-model",
    "doctor",
)  # fmt: skip


def page() -> str:
    parts = ["# The command line\n", "Written by `make docs` from the commands' own help.\n"]
    for command in ("", *COMMANDS):
        shown = Console(file=io.StringIO(), width=100, color_system=None, legacy_windows=False)
        app.help_print([command] if command else [], console=shown)
        text = "\n".join(line.rstrip() for line in shown.file.getvalue().strip().splitlines())
        parts.append(f"## prm {command}".rstrip() + f"\n\n```text\n{text}\n```\n")
    return "\n".join(parts)


if __name__ == "__main__":
    PAGE.write_text(page(), encoding="utf-8")
