"""Options of a command from a file: the names are those of the command line, which wins."""

from __future__ import annotations

import difflib
import json
import tomllib
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

from prmkit.errors import FormatError, MissingDependency


def expanded(arguments: Sequence[str], names: Callable[[], set[str]]) -> list[str]:
    """Arguments with those of the file that ``--config FILE`` names before them.

    Args:
        arguments: of the command, without its name.
        names: gives the options of the command, such as ``--learning-rate``.

    Raises:
        FormatError: if the file cannot be read, or names an option that is none.
    """
    rest: list[str] = []
    file: Path | None = None
    given = iter(arguments)
    for argument in given:
        name, sign, value = argument.partition("=")
        if name != "--config":
            rest.append(argument)
            continue
        found = value if sign else next(given, None)
        if not found:
            raise FormatError("--config names no file; give a TOML, JSON or YAML file")
        file = Path(found)
    if file is None:
        return rest
    said = {argument.partition("=")[0].replace("--no-", "--", 1) for argument in rest}
    return [*_options(file, names(), said), *rest]


def _options(file: Path, known: set[str], said: set[str]) -> Iterator[str]:
    for key, value in _read(file).items():
        option = f"--{key.strip('_').replace('_', '-')}"
        if option not in known:
            near = difflib.get_close_matches(option, known, n=2, cutoff=0.5)
            hint = f" Did you mean {' or '.join(n[2:] for n in near)}?" if near else ""
            raise FormatError(f"{key!r} is no option of this command.{hint}", file)
        if option in said:
            continue
        if isinstance(value, dict):
            raise FormatError(f"{key!r} holds a table; options are not nested", file)
        if isinstance(value, bool):
            yield f"{option}={str(value).lower()}"
        elif isinstance(value, list):
            for one in value:
                yield from (option, str(one))
        elif value is not None:
            yield from (option, str(value))


def _read(file: Path) -> dict[str, Any]:
    try:
        text = file.read_text(encoding="utf-8")
        if file.suffix == ".toml":
            found = tomllib.loads(text)
        elif file.suffix in (".yaml", ".yml"):
            found = _yaml(text)
        elif file.suffix == ".json":
            found = json.loads(text)
        else:
            raise FormatError("a file of options ends in .toml, .json, .yaml or .yml", file)
    except (tomllib.TOMLDecodeError, ValueError) as error:
        if isinstance(error, FormatError):
            raise
        raise FormatError(f"this cannot be read: {error}", file) from None
    if not isinstance(found, dict):
        raise FormatError(f"this holds a {type(found).__name__}, not options by name", file)
    return found


def _yaml(text: str) -> Any:
    try:
        import yaml
    except ImportError:
        raise MissingDependency("pyyaml", "hf", "reading YAML") from None
    try:
        return yaml.safe_load(text) or {}
    except yaml.YAMLError as error:
        raise ValueError(str(error)) from None
