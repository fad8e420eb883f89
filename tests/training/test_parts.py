"""One pass over a forest against a plain forward pass over each sequence."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from prmkit.checkpoints import load_tokenizer, start_causal_lm, start_token_classifier
from prmkit.records import Problem, Record, Step, StepLabels, Trajectory
from prmkit.scorers.families import discriminative
from prmkit.tiny_checkpoints import tiny_checkpoint
from prmkit.training.kinds import KINDS, objective
from prmkit.training.loop import released, trainable
from prmkit.training.parts import make_part
from prmkit.training.targets import make_examples
from prmkit.training.trees import plant


def tree_of_records():
    """Two problems; of the first one several solutions that share steps, with alternatives."""

    def record(name, texts, values, kind="hard"):
        steps = tuple(Step(text=f"{t}\n") for t in texts)
        trajectory = Trajectory(
            problem=Problem(id=name, prompt=f"{name} has 12 apples?"), steps=steps
        )
        return Record(trajectory=trajectory, labels=StepLabels(values=values, kind=kind))

    return [
        record("Mia", ("12 + 5 = 17", "17 - 9 = 8"), (1, 1)),
        record("Mia", ("12 + 5 = 17", "17 + 9 = 26"), (1, 0)),
        record("Mia", ("12 + 5 = 17", "17 - 9 = 8", "So 8."), (None, None, 1)),
        record("Mia", ("12 - 5 = 7",), (0,)),
        record("Ben", ("2 * 3 = 6", "6 + 1 = 7"), (0.75, 0.25), "soft"),
        record("Mia", ("12 + 5 = 17", "17 - 9 = 8"), (1, 1)),
    ]


def plain_loss(model, examples, aim):
    """Each sequence through the stock class alone, its loss in plain Python."""
    numbers, targets, weights, owner, prefix = [], [], [], [], []
    known = {}
    for e in examples:
        body = getattr(model, model.base_model_prefix)
        hidden = body(input_ids=torch.tensor([e.ids]), use_cache=False).last_hidden_state[0]
        rows = hidden[e.positions]
        if aim.tokens:
            numbers.append(rows @ model.get_output_embeddings().weight[list(aim.tokens)].T)
        else:
            numbers.append(model.score(rows))
        targets += e.targets
        weights += e.weights
        owner += [e.solution] * len(e.targets)
        prefix += [known.setdefault(tuple(e.ids[:s]), len(known)) for s in e.starts]
    return aim.of_numbers(
        torch.cat(numbers), torch.tensor(targets), torch.tensor(weights),
        torch.tensor(owner), torch.tensor(prefix),
    )  # fmt: skip


def gradients(model):
    return {n: p.grad.clone() for n, p in model.named_parameters() if p.grad is not None}


CASES = ["step", "value", "rank", "pairs", "outcome", "outcome_tokens", "classes"]


def rated(record):
    """Ratings instead of labels."""
    values = [None if v is None else 2 * round(v) - 1 for v in record.labels.values]
    return record.replace(labels=StepLabels(values=tuple(values), kind="human"))


def check_gradients(model, aim, examples, share, plain):
    """The loss and all gradients of one pass over a forest, against those of plain passes."""
    plain.backward()
    expected = gradients(model)
    model.zero_grad()
    trainable(model, aim)
    part = make_part(examples, share)
    n = sum(len(e.ids) for e in examples)
    assert (part.forest.n_tokens < n) == share
    ours = model(part)
    ours.backward()
    assert ours.item() == pytest.approx(plain.item(), rel=1e-6)
    assert ours.item() > 0
    found = gradients(model)
    assert found.keys() == expected.keys()
    for name in expected:
        apart = (found[name] - expected[name]).abs().max()
        assert apart <= 2e-6 * expected[name].abs().max(), name
    assert aim.items(examples) > 0
    return released(model)


@pytest.mark.parametrize("kind", CASES)
@pytest.mark.parametrize("share", [True, False])
def test_a_forest_gives_the_loss_and_gradients_of_plain_passes(tiny_lm, kind, share):
    torch.manual_seed(0)
    tokenizer = load_tokenizer(tiny_lm)
    known, family = KINDS[kind], discriminative(KINDS[kind].family)
    aim = objective(kind, family, tokenizer)
    records = tree_of_records()
    if known.what == "ratings":
        records = [rated(r) for r in records]
    examples, dropped = make_examples(
        records, family, tokenizer, None, what=known.what, every_token=known.every_token
    )
    assert not dropped
    # In float64, but the norms of transformers' classes are in float32 all the same.
    model = start_token_classifier(tiny_lm, aim.n_outputs).double().train()
    torch.nn.init.normal_(model.score.weight)
    model = check_gradients(model, aim, examples, share, plain_loss(model, examples, aim))
    assert type(model).__name__ == "LlamaForTokenClassification"


@pytest.mark.parametrize("tied", [False, True])
@pytest.mark.parametrize("family", ["math_shepherd", "rlhflow"])
def test_so_does_one_that_reads_two_tokens(tmp_path, family, tied):
    """Tied, the rows learn as outputs and as embeddings at once."""
    base = tiny_checkpoint(family, tmp_path)
    read_by, tokenizer = discriminative(family), load_tokenizer(base)
    aim = objective("tokens", read_by, tokenizer)
    examples, _ = make_examples(tree_of_records(), read_by, tokenizer, None)
    model = start_causal_lm(base).double().train()
    if tied:
        model.lm_head.weight = model.model.embed_tokens.weight
    model = check_gradients(model, aim, examples, True, plain_loss(model, examples, aim))
    assert ("lm_head.weight" in dict(model.named_parameters())) != tied


@given(st.lists(st.lists(st.integers(0, 2), min_size=1, max_size=6), min_size=1, max_size=8))
def test_a_forest_holds_each_sequence_and_each_shared_token_once(sequences):
    positions = [list(range(len(s))) for s in sequences]
    forest = plant(sequences, positions)
    tokens = [t for node in forest.nodes for t in node.ids]
    for ids, places in zip(sequences, forest.places, strict=True):
        assert [tokens[p] for p in places] == ids
    prefixes = {tuple(s[: n + 1]) for s in sequences for n in range(len(s))}
    assert forest.n_tokens == len(prefixes)
    for number, node in enumerate(forest.nodes):
        assert node.parent < number
        chain = forest.chain(number)
        assert sum(len(forest.nodes[n].ids) for n in chain[:-1]) == node.start
    apart = plant(sequences, positions, share=False)
    assert [n.ids for n in apart.nodes] == sequences
