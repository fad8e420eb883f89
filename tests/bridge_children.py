"""Scripts that run in the environments of other trainers, and what they told."""

from __future__ import annotations

import json
import os
import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]


def told_by(script: Path, environment: str, *arguments: object, processes: int = 1):
    """Run a script by the Python of ``.venv-NAME`` (or PRMKIT_NAME), and read what it told.

    Several processes are started by torchrun. Skips where there is no such environment; it is
    made by ``make test-bridges``.
    """
    default = ROOT / f".venv-{environment}" / "bin" / "python"
    python = Path(os.environ.get(f"PRMKIT_{environment.upper()}", default))
    if not python.exists():
        pytest.skip(f"there is no {environment} at {python}; run: make test-bridges")
    start = ["-m", "torch.distributed.run", "--standalone", f"--nproc-per-node={processes}"]
    ran = subprocess.run(
        [str(python), *(start if processes > 1 else []), str(script), *map(str, arguments)],
        env={**os.environ, "PYTHONPATH": str(ROOT / "src"), "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        timeout=900,
        check=False,
    )
    assert ran.returncode == 0, ran.stderr[-3000:]
    lines = [line for line in ran.stdout.splitlines() if line.startswith("TOLD ")]
    assert lines, ran.stdout[-3000:]
    return json.loads(lines[-1].removeprefix("TOLD "))
