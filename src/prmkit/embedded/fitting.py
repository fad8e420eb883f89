"""The training loop of the embedded models: endless lessons, few minutes, two cores.

It is made for models from scratch on data without end, which the world gives for free. PRMs on
labelled records of a user are trained by `prmkit.training` instead.
"""

from __future__ import annotations

import shutil
import time
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any, NamedTuple

from prmkit.embedded.lessons import N_MEANINGS, Batch

if TYPE_CHECKING:
    import torch


class Fit(NamedTuple):
    """What a fit did: seconds, tokens read, and (step, loss) along the way."""

    seconds: float
    n_tokens: int
    losses: list[tuple[int, float]]


class Weights(NamedTuple):
    """How much each part of a lesson counts: the next tokens, the reading, the verdicts."""

    next_token: float = 1.0
    meaning: float = 1.0
    verdict: float = 1.0


def loss_of(
    body: Any, embeddings: Any, reader: Any, head: Any, batch: Batch, weights: Weights
) -> Any:
    """The weighted sum of the mean cross-entropies of a batch's parts.

    Args:
        body: ids to [N, T, H] hidden states.
        embeddings: [V, H] the tied output matrix.
        reader: hidden states to the logits of the meanings.
        head: hidden states to two logits, or None where no verdict is learnt.
        batch: what to learn.
        weights: of the parts.
    """
    hidden = body(input_ids=batch.ids, use_cache=False).last_hidden_state
    known = batch.next_token[:, 1:]
    logits = hidden[:, :-1][known] @ embeddings.T
    loss = weights.next_token * _mean_cross_entropy(logits, batch.ids[:, 1:][known])
    read = batch.meaning >= 0
    loss = loss + weights.meaning * _mean_cross_entropy(reader(hidden[read]), batch.meaning[read])
    if head is not None:
        told = batch.verdict >= 0
        loss = loss + weights.verdict * _mean_cross_entropy(head(hidden[told]), batch.verdict[told])
    return loss


def _mean_cross_entropy(logits: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
    """The mean over targets; 0 over none, as in a batch of one solution that is wrong at once."""
    from torch.nn import functional

    total = functional.cross_entropy(logits.float(), targets, reduction="sum")
    return total / max(len(targets), 1)


def fit(
    model: Any,
    stream: Iterator[Batch],
    *,
    n_steps: int,
    learning_rate: float,
    decay_from: float = 0.5,
    weights: Weights = Weights(),  # noqa: B008 - frozen
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
        weights: see `loss_of`.
        on_progress: told the steps done and the recent mean loss, every 50 steps.
    """
    import torch

    inner = [p for n, p in model.named_parameters() if p.ndim == 2 and ".layers." in n]
    others = [p for n, p in model.named_parameters() if not (p.ndim == 2 and ".layers." in n)]
    # Tells the meanings; it is needed for learning alone.
    reader = torch.nn.Linear(model.config.hidden_size, N_MEANINGS)
    optimisers: list[torch.optim.Optimizer] = [
        torch.optim.Muon(inner, lr=learning_rate, weight_decay=0.01, momentum=0.95),
        torch.optim.AdamW(
            [*others, *reader.parameters()],
            lr=3e-3,
            betas=(0.9, 0.98),
            weight_decay=0.0,
            fused=True,
        ),
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
            loss = loss_of(body, embeddings, reader, head, batch, weights)
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
