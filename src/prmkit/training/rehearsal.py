"""What a training would do, told without loading weights."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict
from typing import Any, NamedTuple

from prmkit.checkpoints import find_checkpoint, load_config
from prmkit.records import Record
from prmkit.training.batches import StepPlan
from prmkit.training.card import counts_by_label
from prmkit.training.targets import Example
from prmkit.training.trainer import (
    HeldOut,
    Parts,
    Prepared,
    TrainSettings,
    looks_of,
    n_steps_of,
    plans_of,
    prepare,
)
from prmkit.training.trees import plant

_COUNTED = 200
"""Steps whose passes are laid out to count their tokens; the rest is like them."""


class Memory(NamedTuple):
    """Bytes that one process needs, estimated; a library's own and fragments come on top.

    Attributes:
        weights: in float32.
        gradients: of what is trained.
        optimizer: the two moments of AdamW.
        activations: of the largest pass, kept for its gradients.
    """

    weights: int
    gradients: int
    optimizer: int
    activations: int

    @property
    def total(self) -> int:
        """All of it."""
        return sum(self)


class Rehearsal(NamedTuple):
    """What would be trained.

    Attributes:
        solutions: how many.
        labels: how many steps have each label.
        dropped: what is left out or cut, by reason.
        tokens: quantiles of the lengths of solutions, by name.
        limit: tokens of a sequence at most.
        steps: optimiser steps.
        passes: forward passes of one process in all steps.
        tokens_expanded: tokens of the sequences of the steps that were counted.
        tokens_computed: tokens that are computed for them, what is shared once.
        parameters: of the model.
        trained: parameters that are trained.
        memory: see `Memory`.
        examples: solutions as the model reads them, each read place marked with its label.
    """

    solutions: int
    labels: dict[str, int]
    dropped: dict[str, int]
    tokens: dict[str, int]
    limit: int | None
    steps: int
    passes: int
    tokens_expanded: int
    tokens_computed: int
    parameters: int
    trained: int
    memory: Memory
    examples: list[str]

    def told(self) -> dict[str, Any]:
        """As JSON has it."""
        memory = {**self.memory._asdict(), "total": self.memory.total}
        return {**self._asdict(), "memory": memory}


def rehearsal(
    records: Sequence[Record],
    settings: TrainSettings,
    parts: Parts,
    held_out: HeldOut | None = None,
    learner: Sequence[Record] = (),
    *,
    world: int = 1,
) -> Rehearsal:
    """Tell what `prmkit.training.trainer.train` would do with the same arguments.

    Args:
        records: with labels of the kind.
        settings: see `TrainSettings`.
        parts: the other settings.
        held_out: what the model is judged by.
        learner: episodes, of the loss inverse.
        world: processes.

    Raises:
        PrmkitError: as `prmkit.training.trainer.prepare`.
    """
    parts.machine.check(world)
    parts.watch.check(held_out is not None)
    prepared = prepare(records, settings, parts.implicit, parts.promises, learner)
    looks_of(held_out, prepared, parts.batches)
    n_steps = n_steps_of(prepared, settings, parts.batches)
    plans = plans_of(prepared, settings, parts.batches, n_steps, world)
    expanded, computed, largest = _tokens(prepared.examples, plans[:_COUNTED], parts)
    lengths = sorted(len(example.ids) for example in prepared.examples)
    parameters, trained = _parameters(settings, parts, prepared)
    return Rehearsal(
        len({example.solution for example in prepared.examples}),
        counts_by_label(prepared),
        asdict(prepared.dropped),
        {
            name: lengths[min(int(share * len(lengths)), len(lengths) - 1)]
            for name, share in (
                ("min", 0),
                ("median", 0.5),
                ("p90", 0.9),
                ("p99", 0.99),
                ("max", 1),
            )
        },
        prepared.limit,
        n_steps,
        sum(len(plan.shares[0]) for plan in plans),
        expanded,
        computed,
        parameters,
        trained,
        _memory(settings, parts, parameters, trained, largest, world),
        [_marked(example, prepared.tokenizer) for example in _some(prepared.examples)],
    )


def _tokens(
    examples: Sequence[Example], plans: Sequence[StepPlan], parts: Parts
) -> tuple[int, int, int]:
    """Tokens of the sequences, tokens that are computed, and those of the largest pass."""
    expanded = computed = largest = 0
    for plan in plans:
        for one in (one for share in plan.shares for one in share if one):
            ids = [examples[i].ids for i in one]
            forest = plant(ids, [[] for _ in ids], share=parts.batches.share)
            expanded += sum(map(len, ids))
            computed += forest.n_tokens
            largest = max(largest, forest.n_tokens)
    return expanded, computed, largest


def _parameters(settings: TrainSettings, parts: Parts, prepared: Prepared) -> tuple[int, int]:
    """Of the model, and of what is trained; counted on a model without weights."""
    import torch
    from transformers import AutoModelForCausalLM, AutoModelForTokenClassification

    from prmkit.training.adapters import adapted

    config = load_config(find_checkpoint(settings.base))
    n_classes = prepared.objective.n_classes
    if n_classes is not None:
        config.num_labels = n_classes
    kind: Any = AutoModelForCausalLM if n_classes is None else AutoModelForTokenClassification
    with torch.device("meta"):
        model = kind.from_config(config)
        if parts.adapters.lora_rank:
            adapted(model, parts.adapters)
    every = list(model.parameters())
    return sum(p.numel() for p in every), sum(p.numel() for p in every if p.requires_grad)


def _memory(
    settings: TrainSettings,
    parts: Parts,
    parameters: int,
    trained: int,
    largest: int,
    world: int,
) -> Memory:
    """Weights and states are counted; activations are those of a Llama-like layer.

    Per token and layer about 8 H + 2 K + 4 I numbers are kept: norms, residuals, queries, keys,
    values, attention's output, and the four of a gated feed-forward layer (H hidden, K of keys
    and values, I intermediate). Attention itself keeps none: it is computed again.

    Reference: Korthikanti et al. 2022, arXiv:2205.05198, section 4.1, without the scores.
    """
    config = load_config(find_checkpoint(settings.base))
    width = config.hidden_size
    heads = getattr(config, "num_attention_heads", 1)
    kept = getattr(config, "num_key_value_heads", None) or heads
    inner = getattr(config, "intermediate_size", None) or 4 * width
    of_layer = 8 * width + 2 * width * kept // heads + 4 * inner
    layers = config.num_hidden_layers
    numbers = layers * width + of_layer if settings.checkpoint_gradients else layers * of_layer
    spread = world if parts.machine.parallel == "sharded" else 1
    size = 2 if parts.machine.bf16 else 4
    return Memory(
        4 * parameters // spread,
        4 * trained // spread,
        8 * trained // spread,
        largest * numbers * size,
    )


def _some(examples: Sequence[Example]) -> list[Example]:
    """Up to three: one of the shortest, of the middle, and of the longest."""
    order = sorted(range(len(examples)), key=lambda i: len(examples[i].ids))
    chosen = dict.fromkeys((order[0], order[len(order) // 2], order[-1]))
    return [examples[i] for i in chosen]


def _marked(example: Example, tokenizer: Any) -> str:
    """A sequence as text, with the label behind each token that is read."""
    text, at = "", 0
    for position, target in zip(example.positions, example.targets, strict=True):
        text += tokenizer.decode(example.ids[at : position + 1], skip_special_tokens=False)
        text += f"⟦{target:g}⟧"
        at = position + 1
    return text + str(tokenizer.decode(example.ids[at:], skip_special_tokens=False))
