"""Every error that prmkit raises on purpose.

    PrmkitError
    ├── InvalidRecord (ValueError)  a record breaks its contract
    ├── InvalidSetting (ValueError)  a setting is out of its range
    ├── FormatError (ValueError)  a file cannot be read as the format named; has file and line
    │   └── AmbiguousFormat  several formats fit the file: the candidates are named
    ├── LabelPolicyNeeded (ValueError)  labels cannot be converted without a decision of yours
    ├── UnknownName (KeyError)  no such format, splitter, family, …; names the near matches
    │   └── UnknownCheckpoint  a model of no known family; says how to name one
    ├── CheckpointError (ValueError)  a model folder is missing something or is of another kind
    ├── PolicyError (RuntimeError)  a policy could not answer a request
    ├── EnvironmentFailed (RuntimeError)  an environment crashed, is away, or was used wrongly
    ├── SearchError (RuntimeError)  a search was asked for what cannot be done
    ├── BackendError (RuntimeError)  a model server refused a request or did not answer
    │   └── BadStatus  it answered with a failure; has the status
    │       └── RequestRefused  and will not do it at another time either
    ├── ScoringError (RuntimeError)  a scorer could not score what had to be scored
    ├── WorkerError (RuntimeError)  a helper process cannot be started
    ├── InputTooLong (ValueError)  more tokens than the model can read
    ├── RunFolderError (ValueError)  a run folder belongs to other settings or is damaged
    ├── NothingToMeasure (ValueError)  a mean over no item
    ├── LawBroken (AssertionError)  an implementation breaks a law of its interface
    └── MissingDependency (ImportError)  an optional package is absent; names the install command
        └── MissingTrainer  another trainer, which prmkit works with and does not bring

A message says what was given, what was expected and what to do.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterable
from pathlib import Path


class PrmkitError(Exception):
    """The root of all errors that prmkit raises on purpose."""


class InvalidRecord(PrmkitError, ValueError):
    """A record breaks its contract, such as labels that do not match the steps."""


class InvalidSetting(PrmkitError, ValueError):
    """A setting is out of its range; the message names the range."""


class FormatError(PrmkitError, ValueError):
    """A file is not what its format says.

    Args:
        message: what is wrong and what was expected.
        path: the file.
        line: 1-based line (JSON lines), row (Parquet) or item (JSON lists).
    """

    def __init__(self, message: str, path: Path | str | None = None, line: int | None = None):
        self.message, self.path, self.line = message, path, line
        super().__init__(message, path, line)

    def __str__(self) -> str:
        where = ":".join(str(part) for part in (self.path, self.line) if part is not None)
        return f"{where}: {self.message}" if where else self.message


class AmbiguousFormat(FormatError):
    """Several formats fit a file; the message names them."""


class LabelPolicyNeeded(PrmkitError, ValueError):
    """A conversion of labels would lose or invent something without an explicit decision."""


class UnknownName(PrmkitError, KeyError):
    """A name that no table holds.

    Args:
        kind: what was looked up, such as ``"format"``.
        name: what was given.
        known: what the table holds.
    """

    def __init__(self, kind: str, name: str, known: Iterable[str]):
        self.kind, self.name, self.known = kind, name, tuple(sorted(known))
        super().__init__(kind, name, self.known)

    def __str__(self) -> str:
        near = difflib.get_close_matches(self.name, self.known, n=2, cutoff=0.5)
        hint = f" Did you mean {' or '.join(repr(n) for n in near)}?" if near else ""
        return f"no {self.kind} is called {self.name!r}.{hint} Known: {', '.join(self.known)}."


class UnknownCheckpoint(UnknownName):
    """A model of no known family.

    Args:
        name: what was given.
        known: the known checkpoints.
    """

    def __init__(self, name: str, known: Iterable[str]):
        super().__init__("checkpoint", name, known)

    def __reduce__(self) -> tuple[type, tuple[str, tuple[str, ...]]]:
        return type(self), (self.name, self.known)

    def __str__(self) -> str:
        return (
            super().__str__().partition(" Known: ")[0]
            + " If it is of a known family, name it with family=… (--family NAME); the families "
            "and the known checkpoints are listed by: prm models"
        )


class CheckpointError(PrmkitError, ValueError):
    """A model folder lacks a file, is damaged, or holds another kind of model."""


class PolicyError(PrmkitError, RuntimeError):
    """A policy could not answer a request."""


class EnvironmentFailed(PrmkitError, RuntimeError):
    """An environment crashed, cannot be reached, answers nonsense, or was used wrongly."""


class SearchError(PrmkitError, RuntimeError):
    """A search was asked for what cannot be done, such as scores without a scorer."""


class BackendError(PrmkitError, RuntimeError):
    """A model server refused a request, did not answer, or answered something else."""


class BadStatus(BackendError):
    """A model server is there, and answered with a failure as often as it was asked.

    Args:
        message: what was asked, and what it answered.
        status: of HTTP.
    """

    def __init__(self, message: str, status: int):
        self.message, self.status = message, status
        super().__init__(message, status)

    def __str__(self) -> str:
        return self.message


class RequestRefused(BadStatus):
    """A model server answered that it will not do what was asked, now or later."""


class ScoringError(PrmkitError, RuntimeError):
    """A scorer could not score a trajectory where a score was asked for, not a reason."""


class WorkerError(PrmkitError, RuntimeError):
    """A process that prmkit needs, such as the one that compares answers, cannot be started."""


class InputTooLong(PrmkitError, ValueError):
    """An input has more tokens than the model can read."""


class RunFolderError(PrmkitError, ValueError):
    """A run folder was made with other settings, or is damaged."""


class NothingToMeasure(PrmkitError, ValueError):
    """A mean was asked for over no item."""


class MissingDependency(PrmkitError, ImportError):
    """An optional package is not installed.

    Args:
        package: the package that is missing.
        extra: the extra of prmkit that brings it.
        purpose: what it is needed for.
    """

    def __init__(self, package: str, extra: str, purpose: str):
        self.package, self.extra, self.purpose = package, extra, purpose
        super().__init__(package, extra, purpose)

    def __str__(self) -> str:
        return (
            f"{self.purpose} needs the package {self.package!r}, which is not installed. "
            f"Install it with: pip install 'prmkit[{self.extra}]'"
        )


class MissingTrainer(MissingDependency):
    """A trainer that prmkit has a bridge to is not installed."""

    def __str__(self) -> str:
        return (
            f"{self.purpose} needs the package {self.package!r}, which is not installed and which "
            f"no extra of prmkit brings. Install it with: pip install '{self.package}'"
        )


class LawBroken(PrmkitError, AssertionError):
    """An implementation breaks a law of its interface; the message says which and how."""
