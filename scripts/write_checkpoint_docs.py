"""Writes docs/checkpoints.md from the table of families and checkpoints: ``make docs``."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from prmkit.scorers.catalogue import checkpoint_rows, family_rows

PAGE = Path(__file__).parents[1] / "docs" / "checkpoints.md"
HEAD = """# Checkpoints and families

Written by `make docs` from `src/prmkit/scorers/checkpoints.py` and the families beside it; `prm
models` prints the same.

A checkpoint below is named by its id, or by a folder called as its download is:
`prm score FILE --model Qwen/Qwen2.5-Math-PRM-7B`, `--model models/Qwen2.5-Math-PRM-7B`. Any other
model is read by naming its family: `--model DIR --family qwen_prm`. An id is looked for in the
local cache of the Hugging Face hub, and downloaded the first time. No code of a checkpoint runs:
its weights are safetensors, read into classes of our own.

## Checkpoints

*Evidence* says of each fact where it comes from: the authors' **source** was read, the model
**card** shows it, ids are **golden** (resolved on the published tokenizer), or it is
**unverified**. No weights of these were at hand when this was written, so each family is compared
with its published recipe on random weights. *Ids* are compared with the tokenizer when the
checkpoint is loaded, and a difference stops it. Licences were not surveyed: see each checkpoint's
own page.

| checkpoint | family | scores | authors' aggregation | evidence | ids | note |
|---|---|---|---|---|---|---|
"""
FAMILIES = """
## Families

What scores mean decides what may be done with them: `correctness` is a probability that the step
is right, `value` an estimate of the solution's outcome (of any size), `advantage` a change of it,
`log_ratio` a log-ratio of two models, or a log-probability.

| family | what it is | reads | scores |
|---|---|---|---|
"""
SERVERS = """
## Servers

`prm models --launch vllm ID` prints how to start a server with a checkpoint and how to score by it.
vLLM has classes for two-layer heads and token classifiers, and gives the log-probabilities of label
tokens; other heads that are one linear map can be folded into a token classifier first (`prm
convert-model`). SGLang scores families that read the logits of tokens. The rest is scored in this
process.
"""


def cell(value: Any) -> str:
    text = str(value) if value else ""
    return text.replace("|", "\\\\|").replace("\n", "\\\\n")


def ids(golden: dict[str, int]) -> str:
    return ", ".join(f"`{text!r}` {token}" for text, token in golden.items())


def pairs(evidence: dict[str, str]) -> str:
    return ", ".join(f"{fact}: {how}" for fact, how in evidence.items())


def page() -> str:
    rows = [
        (f"`{r['id']}`", f"`{r['family']}`", r["scores"], r["aggregation"], pairs(r["evidence"]),
         ids(r["golden_ids"]), r["note"])
        for r in checkpoint_rows()
    ]  # fmt: skip
    families = [(f"`{r['family']}`", r["about"], r["reads"], r["scores"]) for r in family_rows()]
    return HEAD + table(rows) + FAMILIES + table(families) + SERVERS


def table(rows: list[tuple[Any, ...]]) -> str:
    return "".join("| " + " | ".join(cell(value) for value in row) + " |\n" for row in rows)


if __name__ == "__main__":
    PAGE.write_text(page(), encoding="utf-8")
