"""The training loop of the embedded models: endless examples, few minutes, two cores.

It is made for models from scratch on data without end, which the world gives for free. PRMs on
labelled records of a user are trained by `prmkit.training` instead.
"""

from __future__ import annotations

import random
import shutil
import time
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any, NamedTuple

from prmkit.chat import encode_question, encode_text
from prmkit.embedded.judge import judge
from prmkit.embedded.solutions import MistakeRates, write_solution
from prmkit.embedded.vocabulary import END
from prmkit.embedded.world import make_problem

if TYPE_CHECKING:
    import torch

POOL = 1024
"""Examples that are sorted by length together, so that batches hold like lengths."""


class Row(NamedTuple):
    """One solution to learn from.

    Attributes:
        ids: [T] tokens of question and solution.
        next_token: [T] whether this token is to be predicted.
        verdict: [T] 1 or 0 where the head is to tell if all is right so far; else -1.
    """

    ids: list[int]
    next_token: list[bool]
    verdict: list[int]


class Batch(NamedTuple):
    """Rows padded on the right: three [N, T] tensors, as in `Row`."""

    ids: torch.Tensor
    next_token: torch.Tensor
    verdict: torch.Tensor


def language_row(index: int, rng: random.Random, tokenizer: Any, rates: MistakeRates) -> Row:
    """A solution as a language model learns it: every token of it, and its end."""
    problem = make_problem("train", index)
    question = encode_question(tokenizer, problem)
    answer = encode_text(tokenizer, "".join(write_solution(problem, rng, rates)))
    answer.append(tokenizer.convert_tokens_to_ids(END))
    n_question, n_answer = len(question), len(answer)
    return Row(
        question + answer,
        [False] * n_question + [True] * n_answer,
        [-1] * (n_question + n_answer),
    )


def verdict_row(index: int, rng: random.Random, tokenizer: Any, rates: MistakeRates) -> Row:
    """A solution with mistakes as a PRM learns it.

    The head learns at every token from a step's result to its end, not at the end alone: the
    nearer the label is to the number that is wrong, the sooner it is learnt. Right steps are
    predicted as well, so that the model keeps what it knows.
    """
    problem = make_problem("train", index)
    steps = write_solution(problem, rng, rates)
    first_error = judge(problem, steps).first_error
    ids = encode_question(tokenizer, problem)
    next_token, verdict = [False] * len(ids), [-1] * len(ids)
    for number, step in enumerate(steps):
        right = first_error is None or number < first_error
        # Everything up to the result: "Now Mia has 12 + 5 =", "The answer is".
        result = step.rindex(" ", 0, _result_end(step))
        before, after = (encode_text(tokenizer, t) for t in (step[:result], step[result:]))
        ids += before + after
        next_token += [right] * (len(before) + len(after))
        verdict += [-1] * len(before) + [int(right)] * len(after)
    return Row(ids, next_token, verdict)


def _result_end(step: str) -> int:
    """Where the number after the last "=" (or "is") of a step ends."""
    start = step.rfind("= ") + 2 if "= " in step else step.rindex("is ") + 3
    return next((i for i in range(start, len(step)) if not step[i].isdigit()), len(step))


MakeRow = Callable[[int, random.Random], Row]


def batches(make_row: MakeRow, first: int, seed: int, n_tokens: int) -> Iterator[Batch]:
    """Endless batches of about `n_tokens` tokens, from training problem number `first` on."""
    rng = random.Random(seed)
    index = first
    while True:
        pool = sorted(
            (make_row(i, rng) for i in range(index, index + POOL)), key=lambda row: len(row.ids)
        )
        index += POOL
        groups: list[list[Row]] = [[]]
        for row in pool:
            if (len(groups[-1]) + 1) * len(row.ids) > n_tokens:
                groups.append([])
            groups[-1].append(row)
        rng.shuffle(groups)
        yield from map(_pad, groups)


def _pad(rows: list[Row]) -> Batch:
    import torch

    # Few different widths, so that compiled code is used again.
    width = -(-max(len(row.ids) for row in rows) // 8) * 8
    ids = torch.zeros(len(rows), width, dtype=torch.long)
    next_token = torch.zeros(len(rows), width, dtype=torch.bool)
    verdict = torch.full((len(rows), width), -1)
    for i, row in enumerate(rows):
        n = len(row.ids)
        ids[i, :n] = torch.tensor(row.ids)
        next_token[i, :n] = torch.tensor(row.next_token)
        verdict[i, :n] = torch.tensor(row.verdict)
    return Batch(ids, next_token, verdict)


class Fit(NamedTuple):
    """What a fit did: seconds, tokens read, and (step, loss) along the way."""

    seconds: float
    n_tokens: int
    losses: list[tuple[int, float]]


def loss_of(body: Any, embeddings: Any, head: Any, batch: Batch, language_weight: float) -> Any:
    """Cross-entropy of the verdicts plus `language_weight` times that of the next tokens.

    Args:
        body: ids to [N, T, H] hidden states.
        embeddings: [V, H] the tied output matrix.
        head: the two-class head, or None where only language is learnt.
        batch: what to learn.
        language_weight: weight of the next tokens.
    """
    from torch.nn import functional

    hidden = body(input_ids=batch.ids, use_cache=False).last_hidden_state
    known = batch.next_token[:, 1:]
    logits = hidden[:, :-1][known] @ embeddings.T
    loss = language_weight * functional.cross_entropy(logits.float(), batch.ids[:, 1:][known])
    if head is not None:
        judged = batch.verdict >= 0
        loss = loss + functional.cross_entropy(head(hidden[judged]).float(), batch.verdict[judged])
    return loss


def fit(
    model: Any,
    stream: Iterator[Batch],
    *,
    n_steps: int,
    learning_rate: float,
    decay_from: float = 0.5,
    language_weight: float = 1.0,
    on_progress: Callable[[int, float], None] | None = None,
) -> Fit:
    """Train a model in place for `n_steps` batches.

    Matrices inside the layers learn by Muon (orthogonalised momentum), all else by AdamW. The
    learning rate rises over 50 steps, holds, and falls to zero from `decay_from` on.

    Args:
        model: causal language model (no ``score``) or token classifier (with ``score``).
        stream: batches.
        n_steps: how many batches are learnt.
        learning_rate: of Muon; AdamW has 3e-3.
        decay_from: share of the steps after which the learning rate falls.
        language_weight: see `loss_of`.
        on_progress: told the steps done and the recent mean loss, every 50 steps.
    """
    import torch

    inner = [p for n, p in model.named_parameters() if p.ndim == 2 and ".layers." in n]
    others = [p for n, p in model.named_parameters() if not (p.ndim == 2 and ".layers." in n)]
    optimisers: list[torch.optim.Optimizer] = [
        torch.optim.Muon(inner, lr=learning_rate, weight_decay=0.01, momentum=0.95),
        torch.optim.AdamW(others, lr=3e-3, betas=(0.9, 0.98), weight_decay=0.0, fused=True),
    ]
    peaks = [group["lr"] for o in optimisers for group in o.param_groups]
    body = getattr(model, model.base_model_prefix)
    if shutil.which("c++") or shutil.which("g++"):
        body = torch.compile(body, dynamic=True)
    embeddings, head = model.get_input_embeddings().weight, getattr(model, "score", None)
    model.train()
    start, n_tokens, recent = time.perf_counter(), 0, []
    losses: list[tuple[int, float]] = []
    for step in range(n_steps):
        batch = next(stream)
        rise, fall = (step + 1) / 50, (1 - step / n_steps) / (1 - decay_from)
        groups = [group for o in optimisers for group in o.param_groups]
        for group, peak in zip(groups, peaks, strict=True):
            group["lr"] = peak * min(1.0, rise, fall)
        with torch.autocast("cpu", torch.bfloat16):
            loss = loss_of(body, embeddings, head, batch, language_weight)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        for optimiser in optimisers:
            optimiser.step()
            optimiser.zero_grad()
        recent.append(loss.item())
        n_tokens += batch.ids.numel()
        if (step + 1) % 50 == 0 or step + 1 == n_steps:
            losses.append((step + 1, sum(recent) / len(recent)))
            recent = []
            if on_progress is not None:
                on_progress(*losses[-1])
    model.eval()
    return Fit(time.perf_counter() - start, n_tokens, losses)
