"""The table of published checkpoints: which family each belongs to, and how sure that is.

One line per checkpoint. ``tokens`` are golden ids: where a tokenizer resolves one of these texts to
another id, it is not the checkpoint's own and loading stops. Each fact has its evidence: ids are
*golden* (resolved on the published tokenizer), the recipe was read in the authors' *source* or on
the model *card*, or a fact is *unverified*. No weights were at hand when the table was made, so
no line says that scores were reproduced.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from prmkit.aggregate import Aggregation

Evidence = Literal["source", "card", "unverified"]

MISTRAL = {" ки": 12902, " +": 648, " -": 387}
MISTRAL_MINOS = {" и": 839}
QWEN = {"+": 10, "-": 12, " +": 488, " -": 481, "\n": 198, "\n\n": 271}
QWEN_PRM = {"<extra_0>": 151651}
LLAMA3 = {"+": 10, "-": 12, " +": 489, " -": 482, "\n\n": 271}


@dataclass(frozen=True, kw_only=True)
class Checkpoint:
    """What is known of a published checkpoint.

    Attributes:
        id: on the Hugging Face hub.
        family: how it is read, a name of `prm models --families`.
        aggregation: of its authors; None where they leave it to the user.
        reference: the model it is compared with, for implicit rewards.
        base: the model it adapts, for adapters.
        tokens: golden ids by text.
        evidence: where the recipe comes from.
        unverified: other facts that nobody has checked.
        licence: as its page states it; None where it was not looked up.
        note: what else a user should know.
    """

    id: str
    family: str
    aggregation: Aggregation | None = None
    reference: str | None = None
    base: str | None = None
    tokens: Mapping[str, int] = field(default_factory=dict)
    evidence: Evidence = "source"
    unverified: tuple[str, ...] = ()
    licence: str | None = None
    note: str = ""

    def facts(self) -> dict[str, str]:
        """The evidence of each fact."""
        known: dict[str, str] = {"recipe": self.evidence}
        if self.aggregation is not None:
            known["aggregation"] = self.evidence
        if self.tokens:
            known["ids"] = "golden"
        return known | dict.fromkeys(self.unverified, "unverified")


def _versa(name: str, tokens: Mapping[str, int]) -> Checkpoint:
    return Checkpoint(
        id=f"UW-Madison-Lee-Lab/{name}", family="versa_prm", aggregation="min", tokens=tokens
    )


def _gen_prm(name: str) -> Checkpoint:
    return Checkpoint(
        id=f"GenPRM/{name}",
        family="gen_prm",
        aggregation="min",
        note="its authors let it write and run programs, which gen_prm_code does",
    )


CHECKPOINTS: tuple[Checkpoint, ...] = (
    Checkpoint(
        id="peiyi9979/math-shepherd-mistral-7b-prm",
        family="math_shepherd",
        aggregation="min",
        tokens=MISTRAL,
    ),
    Checkpoint(
        id="RLHFlow/Llama3.1-8B-PRM-Mistral-Data",
        family="rlhflow",
        aggregation="mean",
        tokens={"+": 10, "-": 12},
        note="its own chat template decides whether a system header with a date is put in front",
    ),
    Checkpoint(
        id="RLHFlow/Llama3.1-8B-PRM-Deepseek-Data",
        family="rlhflow",
        aggregation="mean",
        tokens={"+": 10, "-": 12},
        note="trained with a blank line after the question, evaluated by its authors with a space; "
        "rlhflow_blank_line is the other reading",
    ),
    Checkpoint(
        id="Skywork/Skywork-o1-Open-PRM-Qwen-2.5-1.5B",
        family="skywork",
        tokens={"\n": 198},
        unverified=("beginning of text",),
    ),
    Checkpoint(
        id="Skywork/Skywork-o1-Open-PRM-Qwen-2.5-7B",
        family="skywork",
        tokens={"\n": 198},
        unverified=("beginning of text",),
    ),
    Checkpoint(
        id="Qwen/Qwen2.5-Math-PRM-7B",
        family="qwen_prm",
        aggregation="product",
        tokens=QWEN_PRM,
        evidence="card",
        note="the card's example scores are 1.0, 0.1904, 0.9766, 1.0",
    ),
    Checkpoint(
        id="Qwen/Qwen2.5-Math-PRM-72B",
        family="qwen_prm",
        aggregation="product",
        tokens=QWEN_PRM,
        evidence="card",
    ),
    Checkpoint(
        id="Qwen/Qwen2.5-Math-7B-PRM800K",
        family="qwen_prm",
        aggregation="product",
        tokens=QWEN_PRM,
        evidence="card",
        note="neutral ratings were positive, MATH-500 was left out",
    ),
    Checkpoint(id="Gen-Verse/ReasonFlux-PRM-7B", family="reasonflux", tokens=QWEN_PRM),
    Checkpoint(id="GAIR/ReasonEval-7B", family="reasoneval", aggregation="min"),
    Checkpoint(id="GAIR/ReasonEval-34B", family="reasoneval_34b", aggregation="min"),
    Checkpoint(
        id="jinachris/PURE-PRM-7B",
        family="pure",
        aggregation="softmin",
        tokens={"\n\n": 271},
        note="its ProcessBench script separates steps by one line end",
    ),
    Checkpoint(
        id="HuggingFaceH4/Qwen2.5-Math-1.5B-Instruct-PRM-0.2", family="trl", tokens={"\n\n": 271}
    ),
    Checkpoint(
        id="HuggingFaceH4/Qwen2.5-Math-7B-Instruct-PRM-0.2", family="trl", tokens={"\n\n": 271}
    ),
    Checkpoint(
        id="axolotl-ai-co/Qwen2.5-Math-PRM-7B",
        family="trl",
        tokens={"\n\n": 271},
        evidence="unverified",
    ),
    Checkpoint(
        id="trl-lib/Qwen2-0.5B-Reward-Math-Sheperd",
        family="trl_line",
        tokens={"\n": 198},
        evidence="unverified",
        note="the separator is the default of TRL at the time",
    ),
    Checkpoint(id="ScalableMath/llemma-7b-prm-prm800k-level-1to3-hf", family="llemma"),
    Checkpoint(id="ScalableMath/llemma-7b-prm-metamath-level-1to3-hf", family="llemma"),
    Checkpoint(id="ScalableMath/llemma-7b-oprm-prm800k-level-1to3-hf", family="llemma"),
    Checkpoint(
        id="Windy0822/ImplicitPRM_DPO",
        family="implicit_prm",
        aggregation="min",
        reference="meta-llama/Llama-3.1-8B-Instruct",
        evidence="card",
        note="the reference is the card's; the authors' evaluation script passes another one",
    ),
    Checkpoint(
        id="Windy0822/ImplicitPRM_CE",
        family="implicit_prm",
        aggregation="min",
        reference="meta-llama/Llama-3.1-8B-Instruct",
        evidence="card",
        note="the reference is the card's; the authors' evaluation script passes another one",
    ),
    Checkpoint(
        id="PRIME-RL/EurusPRM-Stage1",
        family="implicit_prm",
        aggregation="min",
        reference="Qwen/Qwen2.5-Math-7B-Instruct",
        evidence="card",
    ),
    Checkpoint(
        id="PRIME-RL/EurusPRM-Stage2",
        family="implicit_prm",
        aggregation="min",
        reference="Qwen/Qwen2.5-Math-7B-Instruct",
        evidence="card",
    ),
    Checkpoint(
        id="infly/Universal-PRM-7B",
        family="universal_prm",
        evidence="card",
        unverified=("name of the head's layer",),
        note="the card's example scores are 0.738, 0.727, 0.730, 0.738, 0.734",
    ),
    _versa("VersaPRM", {"+": 10, "-": 12, " \n\n\n\n": 23535}),
    _versa("VersaPRM-Base-8B", {"+": 10, "-": 12, " \n\n\n\n": 23535}),
    _versa("VersaPRM-Base-3B", {"+": 10, "-": 12, " \n\n\n\n": 23535}),
    _versa("VersaPRM-Aug", {"+": 10, "-": 12, " \n\n\n\n": 23535}),
    _versa("VersaPRM-Math-Subset", {"+": 10, "-": 12, " \n\n\n\n": 23535}),
    _versa("VersaPRM-Small-Subset", {"+": 10, "-": 12, " \n\n\n\n": 23535}),
    _versa("Llama-PRM800K", {"+": 10, "-": 12, " \n\n\n\n": 23535}),
    _versa("Qwen-PRM800K", {"+": 10, "-": 12, " \n\n\n\n": 22701}),
    Checkpoint(
        id="openreasoner/Math-psa",
        family="math_psa",
        aggregation="min",
        base="Qwen/Qwen2.5-Math-7B-Instruct",
        tokens={" +": 488, " -": 481, " \n\n\n\n\n": 76325},
        note="an adapter: merge it first with prm convert-model",
    ),
    Checkpoint(
        id="HanningZhang/Llama3.1-Math-PRM",
        family="er_prm",
        tokens={" +": 489, " -": 482, " ки": 116624},
    ),
    Checkpoint(id="Windy0822/PQM", family="pqm", aggregation="min"),
    Checkpoint(
        id="dmis-lab/llama-3.1-medprm-reward-v1.0",
        family="med_prm",
        aggregation="min",
        tokens={" +": 489, " -": 482, " ки": 128256},
    ),
    Checkpoint(
        id="ibm-granite/granite-3.3-8b-lora-math-prm",
        family="granite",
        aggregation="mean",
        base="ibm-granite/granite-3.3-8b-instruct",
        evidence="card",
        note="an adapter: merge it first with prm convert-model",
    ),
    Checkpoint(
        id="sail/ActPRM",
        family="act_prm",
        tokens=QWEN_PRM,
        note="the authors' example scores are 0.9994, 0.2317, 0.7312, 0.8314; their scripts "
        "disagree on the system message",
    ),
    Checkpoint(id="sail/ActPRM-X", family="act_prm", tokens=QWEN_PRM),
    _gen_prm("GenPRM-1.5B"),
    _gen_prm("GenPRM-7B"),
    _gen_prm("GenPRM-32B"),
    Checkpoint(id="launch/ThinkPRM-1.5B", family="think_prm", aggregation="last"),
    Checkpoint(id="launch/ThinkPRM-7B", family="think_prm", aggregation="last"),
    Checkpoint(id="launch/ThinkPRM-14B", family="think_prm", aggregation="last"),
    Checkpoint(id="kevinpro/R-PRM-7B-DPO", family="r_prm", aggregation="min"),
    Checkpoint(
        id="rl-llm-agent/Llama-3.2-3B-Instruct-*",
        family="agent_prm",
        aggregation="last",
        evidence="unverified",
        note="prompts differ by environment; the published ones are not all at hand",
    ),
)
"""Every known checkpoint."""

BY_ID: dict[str, Checkpoint] = {checkpoint.id: checkpoint for checkpoint in CHECKPOINTS}


def find(name: Path | str) -> Checkpoint | None:
    """The line of a hub id, or of a folder named like one; None if there is none.

    A folder may be a plain download (``…/Qwen2.5-Math-PRM-7B``) or a snapshot in the hub's cache
    (``…/models--Qwen--Qwen2.5-Math-PRM-7B/snapshots/…``).
    """
    text = str(name)
    if text in BY_ID:
        return BY_ID[text]
    parts = Path(text).parts[-3:]
    # The owner's folder with the model's in it says more than the model's name alone.
    paired = {"/".join(parts[-2:])}
    by_owner = next((c for c in CHECKPOINTS if _is_among(c.id, paired)), None)
    if by_owner is not None:
        return by_owner
    snapshot = parts[0] if len(parts) == 3 and parts[1] == "snapshots" else ""
    alone = {*parts[-1:], snapshot}
    for checkpoint in CHECKPOINTS:
        owner, _, model = checkpoint.id.partition("/")
        if any(
            _is_among(one, alone)
            for one in (model, f"models--{owner}--{model}", f"{owner}_{model}", f"{owner}--{model}")
        ):
            return checkpoint
    return None


def _is_among(name: str, found: Collection[str]) -> bool:
    """Whether a name, which may end with a star, is one of those found."""
    if name.endswith("*"):
        return any(one.startswith(name[:-1]) for one in found)
    return name in found
