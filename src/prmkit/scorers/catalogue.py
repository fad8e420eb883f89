"""What is known of families and checkpoints, as tables for people; and how to serve them."""

from __future__ import annotations

import json
import shlex
import sys
from pathlib import Path
from typing import Any

from prmkit.chat import single_token
from prmkit.checkpoints import load_tokenizer
from prmkit.errors import CheckpointError, UnknownCheckpoint, UnknownName
from prmkit.scorers.checkpoints import BY_ID, CHECKPOINTS, QWEN_PRM, find
from prmkit.scorers.convert_model import folded
from prmkit.scorers.families import DISCRIMINATIVE, GENERATIVE, IMPLICIT, Discriminative
from prmkit.scorers.families.heads import (
    Head,
    Linear,
    MeanRow,
    StackedHeads,
    TokenRows,
    TokenShare,
    TwoLayers,
)
from prmkit.scorers.loading import FAMILIES, resolve


def family_rows() -> list[dict[str, Any]]:
    """One row per family: what is read where, and what the scores mean."""
    rows = [
        {
            "family": f.name,
            "reads": told(f.head),
            "scores": f.semantics,
            "about": f.about or _about(f.begin),
        }
        for f in DISCRIMINATIVE.values()
    ]
    rows += [
        {
            "family": i.name,
            "reads": "two language models" if i.compares else "one language model",
            "scores": i.semantics,
            "about": i.about or _about(i.begin),
        }
        for i in IMPLICIT.values()
    ]
    rows += [
        {
            "family": g.name,
            "reads": "words",
            "scores": g.semantics,
            "about": g.about or _about(g.critique),
        }
        for g in GENERATIVE.values()
    ]
    return rows


def told(head: Head) -> str:
    """A head in a few words."""
    if isinstance(head, TokenRows):
        return "logits of " + " and ".join(map(repr, head.tokens))
    if isinstance(head, TokenShare):
        return f"probability of {head.token!r}"
    if isinstance(head, MeanRow):
        return "the mean logit of the vocabulary"
    if isinstance(head, Linear):
        return f"{head.keys[0]}, {head.n_outputs} output{'s' if head.n_outputs > 1 else ''}"
    if isinstance(head, TwoLayers):
        return f"two layers, {head.n_outputs} outputs"
    return "an ensemble of small heads"


def _about(function: Any) -> str:
    """The first line of the module that a family's function is in."""
    module = sys.modules[getattr(function, "func", function).__module__]
    return (module.__doc__ or "").strip().partition("\n")[0]


def checkpoint_rows(part: str | None = None) -> list[dict[str, Any]]:
    """One row per known checkpoint whose id holds `part`.

    Raises:
        UnknownCheckpoint: if there is none.
    """
    rows = [
        {
            "id": c.id,
            "family": c.family,
            "scores": semantics_of(c.family),
            "aggregation": c.aggregation,
            "evidence": c.facts(),
            "golden_ids": dict(c.tokens),
            "licence": c.licence,
            "note": _note(c.note, c.reference, c.base),
        }
        for c in CHECKPOINTS
        if part is None or part.lower() in c.id.lower()
    ]
    if not rows:
        raise UnknownCheckpoint(part or "", BY_ID)
    return rows


def _note(note: str, reference: str | None, base: str | None) -> str:
    parts = [
        f"compared with {reference}" if reference else "",
        f"adapts {base}" if base else "",
        note,
    ]
    return "; ".join(part for part in parts if part)


def semantics_of(family: str) -> str:
    """What the scores of a family mean."""
    if family in DISCRIMINATIVE:
        return DISCRIMINATIVE[family].semantics
    if family in IMPLICIT:
        return IMPLICIT[family].semantics
    return GENERATIVE[family].semantics


SERVERS = ("vllm", "sglang")


def launch_lines(server: str, model: str | None, family: str | None = None) -> dict[str, str]:
    """How to start a server with a model, and how to score by it.

    Args:
        server: ``vllm`` or ``sglang``.
        model: an id of the table, or a local folder.
        family: how a model reads its steps that neither the table nor its folder's note tells.

    Raises:
        UnknownName: if there is no such server or family.
        UnknownCheckpoint: if the model is of no known family.
        CheckpointError: if that server cannot serve the family.
    """
    if server not in SERVERS:
        raise UnknownName("server", server, SERVERS)
    if model is None:
        raise UnknownCheckpoint("", BY_ID)
    is_local = Path(model).is_dir()
    known = find(model)
    if is_local:
        found = resolve(model, family)
        name, layout = found.family, found.folded
    elif family is None and known is None:
        raise UnknownCheckpoint(model, BY_ID)
    else:
        name, layout = family or (known.family if known else ""), None
    if name not in FAMILIES:
        raise UnknownName("family of reward models", name, FAMILIES)
    if name not in DISCRIMINATIVE:
        raise CheckpointError(f"{model} is of the family {name!r}, which is not read from a server")
    reads = DISCRIMINATIVE[name] if layout is None else folded(DISCRIMINATIVE[name], layout)
    tag = _own_tag(Path(model), reads) if is_local else None
    quoted = shlex.quote(model)
    start = _vllm(quoted, reads, tag) if server == "vllm" else _sglang(quoted, reads)
    port = 8000 if server == "vllm" else 30000
    named = f" --family {family}" if family is not None else ""
    return {
        "start": start,
        "score": (
            f"prm score FILE --model {quoted}{named} --server {server}=http://127.0.0.1:{port} "
            f"--served-as {quoted}"
        ),
    }


def _own_tag(folder: Path, family: Discriminative) -> int | None:
    """The id of a folder's step tag, where it is another one than vLLM takes it for."""
    if not isinstance(family.head, TwoLayers):
        return None
    tag = single_token(load_tokenizer(folder), family.tags[0])
    return None if tag == QWEN_PRM[family.tags[0]] else tag


def _vllm(model: str, family: Discriminative, tag: int | None) -> str:
    head = family.head
    if isinstance(head, TokenRows | TokenShare):
        return f"vllm serve {model} --enable-prefix-caching"
    if isinstance(head, TwoLayers):
        pooler = {"task": "token_classify", "tok_pooling_type": "STEP", "step_tag_id": tag}
        own = f" --pooler-config '{json.dumps(pooler)}'" if tag is not None else ""
        return f"vllm serve {model} --runner pooling{own}"
    if isinstance(head, Linear) and head.keys[0] == "score" and family.end is None:
        every = json.dumps({"task": "token_classify", "tok_pooling_type": "ALL"})
        return f"vllm serve {model} --runner pooling --pooler-config '{every}'"
    raise CheckpointError(_no_class("vLLM", model, family))


def _sglang(model: str, family: Discriminative) -> str:
    if isinstance(family.head, TokenRows):
        return f"python -m sglang.launch_server --model-path {model} --port 30000"
    raise CheckpointError(_no_class("SGLang", model, family))


def _no_class(server: str, model: str, family: Discriminative) -> str:
    name = Path(model).name
    foldable = isinstance(family.head, MeanRow | Linear) and family.end is None
    way = (
        f"fold it first: prm convert-model {model} {name}-folded"
        if foldable and server == "vLLM"
        else "use it in this process, without --server"
    )
    unit = "an ensemble" if isinstance(family.head, StackedHeads) else told(family.head)
    return f"{server} has no class for the head of {family.name!r} ({unit}); {way}"
