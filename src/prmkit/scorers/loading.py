"""A scorer from a name: a folder, or an id of the Hugging Face hub.

How a model reads its steps is said, in this order: by the caller (`family`), by the note that
prmkit writes beside its models, by the table of published checkpoints.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

from prmkit.chat import single_token
from prmkit.checkpoints import find_checkpoint, find_note, is_hub_id, load_tokenizer
from prmkit.errors import CheckpointError, InvalidSetting, UnknownCheckpoint, UnknownName
from prmkit.policies.hf import HFPolicy
from prmkit.scorers import calibration
from prmkit.scorers.base import Scorer
from prmkit.scorers.checkpoints import BY_ID, Checkpoint, find
from prmkit.scorers.convert_model import ADAPTER, Layout, folded, is_adapter, layout_of
from prmkit.scorers.discriminative import Backend, DiscriminativeScorer
from prmkit.scorers.families import DISCRIMINATIVE, GENERATIVE, IMPLICIT, Discriminative
from prmkit.scorers.generative import GenerativeScorer
from prmkit.scorers.implicit import ImplicitScorer
from prmkit.scorers.settings import ModelSettings

FAMILIES = (*DISCRIMINATIVE, *IMPLICIT, *GENERATIVE)
"""The names of all families."""


class Resolved(NamedTuple):
    """What is known of a model before its weights are read.

    Attributes:
        folder: where it is.
        family: the name of its family.
        known: its line of the table, where it has one.
        folded: the layout that its head was folded into, if it was.
        reference: the model that its note says it is compared with, if it does.
    """

    folder: Path
    family: str
    known: Checkpoint | None
    folded: Layout | None
    reference: str | None = None


def resolve(model: Path | str, family: str | None = None) -> Resolved:
    """Find a model's folder and family.

    Raises:
        UnknownCheckpoint: if nobody says what family the model is of.
        UnknownName: if there is no such family.
        CheckpointError: if there is no such folder, or it holds an adapter alone.
    """
    if family is not None and family not in FAMILIES:
        raise UnknownName("family of reward models", family, FAMILIES)
    known = find(model)
    if is_adapter(model):
        raise CheckpointError(
            f"{str(model)!r} is an adapter ({ADAPTER}), not a whole model. Merge it with its base "
            f"first: prm convert-model {model} OUT --layout merged"
        )
    try:
        folder = find_checkpoint(model)
    except CheckpointError:
        if known is None and family is None and not Path(model).exists() and is_hub_id(model):
            # A slip of the pen rather than a missing download: show what is near.
            raise UnknownCheckpoint(str(model), BY_ID) from None
        raise
    note = find_note(folder)
    name = family or note.get("family") or (known and known.family)
    if not name:
        raise UnknownCheckpoint(str(model), BY_ID)
    if name not in FAMILIES:
        raise UnknownName("family of reward models", name, FAMILIES)
    return Resolved(folder, name, known, layout_of(note), note.get("reference"))


def load_scorer(model: Path | str | None = None, settings: ModelSettings | None = None) -> Scorer:
    """Load the scorer of a model.

    Args:
        model: a folder, or an id of the hub; by default the one that the settings name.
        settings: how it is read, and where it runs.

    Raises:
        UnknownCheckpoint: if nobody says what family the model is of.
        UnknownName: if there is no such family or kind of server.
        InvalidSetting: if a setting means nothing to the family.
        CheckpointError: if the folder does not hold such a model, or not such a tokenizer.
    """
    settings = settings or ModelSettings()
    found = resolve(settings.model if model is None else model, settings.family)
    if found.known is not None and settings.family is None:
        check_tokens(found.folder, found.known)
    _check_settings(found.family, settings)
    scorer = _scorer(found, settings)
    calibrator = None if settings.uncalibrated else calibration.load(found.folder)
    if calibrator is not None and calibrator.family not in (None, found.family):
        raise CheckpointError(
            f"{found.folder / calibration.FILE} was fitted on scores of the family "
            f"{calibrator.family!r}, and the model is read as {found.family!r}; leave it aside "
            "with --uncalibrated, or fit it again: prm calibrate"
        )
    return scorer if calibrator is None else calibration.CalibratedScorer(scorer, calibrator)


def _check_settings(family: str, settings: ModelSettings) -> None:
    """Refuse settings that would be ignored."""
    compares = family in IMPLICIT and IMPLICIT[family].compares
    idle = {
        "--reference": settings.reference is not None and not compares,
        "--samples": settings.samples is not None and family not in GENERATIVE,
        "--critique-tokens": settings.critique_tokens is not None and family not in GENERATIVE,
        "--allow-code": settings.allow_code
        and not (family in GENERATIVE and GENERATIVE[family].runs_code),
        "--on-separator": settings.on_separator != "escape" and family not in DISCRIMINATIVE,
    }
    for option, is_idle in idle.items():
        if is_idle:
            raise InvalidSetting(f"{option} means nothing to the family {family!r}; leave it out")
    if settings.served_as is not None and settings.server is None:
        raise InvalidSetting("--served-as means nothing without --server; leave it out")
    if settings.device is not None and settings.server is not None:
        raise InvalidSetting("--device means nothing to a server; leave it out")


def _scorer(found: Resolved, settings: ModelSettings) -> Scorer:
    if found.family in DISCRIMINATIVE:
        family = DISCRIMINATIVE[found.family]
        if found.folded is not None:
            family = folded(family, found.folded)
        return DiscriminativeScorer(
            found.folder,
            family=family,
            device=settings.device,
            on_separator=settings.on_separator,
            backend=_backend(found.folder, family, settings) if settings.server else None,
        )
    if settings.server:
        raise CheckpointError(
            f"the family {found.family!r} is not read from a server; leave --server out"
        )
    if found.family in IMPLICIT:
        table = found.known.reference if found.known else None
        other = settings.reference or found.reference or table
        return ImplicitScorer(
            found.folder,
            None if other is None else find_checkpoint(other),
            family=IMPLICIT[found.family],
            device=settings.device,
        )
    return GenerativeScorer(
        HFPolicy(found.folder, device=settings.device),
        GENERATIVE[found.family],
        n_samples=settings.samples,
        max_new_tokens=settings.critique_tokens,
        allow_code=settings.allow_code,
    )


def _backend(folder: Path, family: Discriminative, settings: ModelSettings) -> Backend:
    """The server that the settings name, as ``vllm=URL`` or ``sglang=URL``."""
    from prmkit.endpoint import Endpoint, EndpointSettings
    from prmkit.scorers.backends.sglang import SGLangBackend
    from prmkit.scorers.backends.vllm import VLLMBackend

    kinds: dict[str, Callable[..., Backend]] = {"vllm": VLLMBackend, "sglang": SGLangBackend}
    kind, _, url = (settings.server or "").partition("=")
    if kind not in kinds or not url.startswith(("http://", "https://")):
        raise UnknownName(
            "server (KIND=URL)", settings.server or "", (f"{k}=http://…" for k in kinds)
        )
    endpoint = Endpoint(EndpointSettings(url=url))
    return kinds[kind](endpoint, settings.served_as or folder.name, folder, family.head)


def check_tokens(folder: Path, known: Checkpoint) -> None:
    """Compare the ids that a tokenizer gives with those of the published checkpoint.

    Raises:
        CheckpointError: naming both ids, where they differ.
    """
    if not known.tokens:
        return
    tokenizer = load_tokenizer(folder)
    for text, expected in known.tokens.items():
        found = single_token(tokenizer, text)
        if found != expected:
            raise CheckpointError(
                f"the tokenizer in {str(folder)!r} gives {text!r} the id {found}; that of "
                f"{known.id} gives it {expected}. Use the checkpoint's own tokenizer, or name "
                f"the family yourself (--family {known.family}) if it is another model"
            )
