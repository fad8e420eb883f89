"""``prm doctor``."""

from __future__ import annotations

import importlib.metadata
import os
import platform
import re
import sys
from typing import Any

from rich.table import Table
from rich.text import Text

from prmkit.cli.console import DONE, FAILED, out, print_json
from prmkit.embedded.build import WEIGHTS


def doctor(*, json: bool = False) -> int:
    """Tell what is installed, which devices there are, and what is missing and how to get it.

    Ends with code 1 if something is missing that every installation needs.

    Args:
        json: print the findings as JSON.
    """
    found = examine()
    if json:
        print_json(found)
    else:
        _show(found)
    return DONE if found["ok"] else FAILED


def examine() -> dict[str, Any]:
    """What there is: versions, packages by extra, devices, the shipped models."""
    packages = _packages()
    core = packages.pop("")
    missing = {
        extra: [name for name, version in of_extra.items() if version is None]
        for extra, of_extra in packages.items()
    }
    models = {
        name: (WEIGHTS / name / "model.safetensors").is_file() for name in ("base", "policy", "prm")
    }
    return {
        "ok": all(core.values()) and all(models.values()),
        "python": platform.python_version(),
        "platform": platform.platform(),
        "executable": sys.executable,
        "packages": core,
        "extras": packages,
        "missing": {
            extra: {"packages": names, "install": f"pip install 'prmkit[{extra}]'"}
            for extra, names in missing.items()
            if names
        },
        "devices": _devices(),
        "embedded_models": models,
    }


def _packages() -> dict[str, dict[str, str | None]]:
    """Versions of what prmkit may use, by extra ("" for the core); None where not installed."""
    result: dict[str, dict[str, str | None]] = {"": {"prmkit": _version("prmkit")}}
    for line in importlib.metadata.requires("prmkit") or ():
        name = re.match(r"[A-Za-z0-9_.-]+", line)
        extra = re.search(r"extra\s*==\s*['\"](\w+)['\"]", line)
        group = extra[1] if extra else ""
        if name and name[0] != "prmkit" and group not in ("dev", "all"):
            result.setdefault(group, {})[name[0]] = _version(name[0])
    return result


def _version(package: str) -> str | None:
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return None


def _devices() -> dict[str, Any]:
    devices: dict[str, Any] = {"cpu_cores": len(os.sched_getaffinity(0)), "gpus": []}
    if _version("torch") is None:
        devices["torch"] = "torch is not installed, so nothing can be said of GPUs"
        return devices
    import torch

    devices["torch_threads"] = torch.get_num_threads()
    for index in range(torch.cuda.device_count()):
        card = torch.cuda.get_device_properties(index)
        devices["gpus"].append(
            {
                "name": card.name,
                "memory_gib": round(card.total_memory / 2**30, 1),
                "bf16": torch.cuda.is_bf16_supported(),
            }
        )
    return devices


def _show(found: dict[str, Any]) -> None:
    console = out()
    table = Table(title="prm doctor", show_header=False, title_justify="left")
    table.add_column()
    table.add_column()
    table.add_row("Python", f"{found['python']}  {found['executable']}")
    for name, version in found["packages"].items():
        table.add_row(name, version or Text("missing", "bold red"))
    for extra, packages in found["extras"].items():
        told = ", ".join(f"{name} {version or '(missing)'}" for name, version in packages.items())
        table.add_row(f"extra {extra}", told)
    devices = found["devices"]
    table.add_row("CPU cores", str(devices["cpu_cores"]))
    gpus = [f"{gpu['name']}, {gpu['memory_gib']} GiB" for gpu in devices["gpus"]]
    table.add_row("GPUs", "; ".join(gpus) or devices.get("torch", "none"))
    models = [name for name, there in found["embedded_models"].items() if there]
    table.add_row("embedded models", ", ".join(models) or Text("missing", "bold red"))
    console.print(table)
    for extra, lack in found["missing"].items():
        names = ", ".join(lack["packages"])
        console.print(Text(f"for what needs {names}: {lack['install']}  (extra {extra})"))
    if not all(found["embedded_models"].values()):
        console.print(
            Text(
                "the embedded models are missing: reinstall prmkit, or make them again with "
                "python -m prmkit.embedded.build"
            )
        )
