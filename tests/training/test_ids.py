"""What is trained on is, id by id, what the scorer will read: ten thousand ugly solutions."""

from __future__ import annotations

import random

import pytest

from prmkit.errors import CheckpointError, InvalidSetting
from prmkit.records import Problem, Record, Step, StepLabels, Trajectory
from prmkit.scorers import implicit
from prmkit.scorers.discriminative import DiscriminativeScorer
from prmkit.scorers.families import DISCRIMINATIVE, IMPLICIT
from prmkit.scorers.families.heads import TokenRows
from prmkit.scorers.families.step_end import STEP_END_FAMILY
from prmkit.scorers.implicit import ImplicitScorer
from prmkit.testing import UGLY_TEXTS
from prmkit.tiny_checkpoints import LAYOUTS
from prmkit.tiny_tokenizers import TOKENIZERS
from prmkit.training.kinds import KINDS, objective
from prmkit.training.targets import make_examples, make_responses

SAMPLES = 10_000


def tokenizer_of(family):
    layout = LAYOUTS[family]
    return TOKENIZERS[layout.tokenizer](layout.words, layout.added)


def trainable_families():
    """Every family that some kind takes, with that kind."""
    found = {}
    for name, family in DISCRIMINATIVE.items():
        for kind in KINDS:
            if KINDS[kind].families is not DISCRIMINATIVE or name in found:
                continue
            try:
                objective(kind, family, tokenizer_of(name))
            except (InvalidSetting, CheckpointError):
                continue
            found[name] = kind
    return found


FAMILIES = trainable_families()
COMPARING = [name for name, family in IMPLICIT.items() if family.compares]


def ugly_records(n, seed, tags, what):
    """Records of pieces that are hard to tokenise, among them the family's own tags."""
    rng = random.Random(seed)
    pieces = (
        *UGLY_TEXTS[:-1], *tags, *(tag.strip() for tag in tags), "Step 3: ", "\r\n", "\t", "é", "+",
        "Mia has 12 + 5 = 17 apples.", "So the answer is 4.", " ", ".\n\n", "$x$", "𝔸",
    )  # fmt: skip

    def text():
        return "".join(rng.choices(pieces, k=rng.randint(0, 3)))

    records = []
    for i in range(n):
        # Another environment's answers are read, and not scored.
        steps = tuple(
            Step(text=text(), observation=text() if rng.random() < 0.1 else None)
            for _ in range(rng.randint(1, 3))
        )
        marks = (-1, 0, 1, None) if what == "ratings" else (0, 1, None)
        values = [rng.choice(marks) for _ in steps]
        correct = rng.choice((None, True, False)) if what == "outcome" else None
        records.append(
            Record(
                trajectory=Trajectory(
                    problem=Problem(id=str(i), prompt=text()), steps=steps, correct=correct
                ),
                labels=StepLabels(
                    values=tuple(values), kind="human" if what == "ratings" else "hard"
                ),
            )
        )
    return records


class Watched:
    """A backend that keeps what it is asked to read, and gives zeros."""

    context = None

    def __init__(self, tokenizer, n_numbers):
        self.tokenizer, self.n_numbers, self.rows = tokenizer, n_numbers, []

    def numbers(self, rows):
        self.rows += rows
        return [[[0.0] * self.n_numbers for _ in row.positions] for row in rows]


def test_the_families_are_those_that_can_be_trained():
    assert len(FAMILIES) >= 20
    assert {"tokens", "step", "value", "classes", "outcome"} <= set(FAMILIES.values())
    of_tokens = [n for n, f in DISCRIMINATIVE.items() if isinstance(f.head, TokenRows)]
    assert set(of_tokens) <= set(FAMILIES)


@pytest.mark.parametrize("name", FAMILIES)
def test_ids_and_positions_of_training_are_those_of_scoring(name, tmp_path):
    family, kind = DISCRIMINATIVE[name], KINDS[FAMILIES[name]]
    tokenizer = tokenizer_of(name)
    n = -(-SAMPLES // (len(FAMILIES) + len(COMPARING)))
    records = ugly_records(n, name, family.tags, kind.what)
    n_numbers = len(family.head.tokens) if isinstance(family.head, TokenRows) else None
    backend = Watched(tokenizer, n_numbers or family.head.n_outputs)
    DiscriminativeScorer(tmp_path, family=family, backend=backend).score(
        [r.trajectory for r in records]
    )
    examples, dropped = make_examples(records, family, tokenizer, None, what=kind.what)
    assert len(backend.rows) == n
    of_record = {}
    for example in examples:
        of_record.setdefault(example.solution, []).append(example)
    assert len(of_record) + dropped.unlabelled == n
    for number, rows in of_record.items():
        read, values = backend.rows[number], records[number].labels.values
        labelled = [i for i, value in enumerate(values) if value is not None]
        if kind.what == "outcome":
            known = records[number].trajectory.correct is not None
            labelled = [len(values) - 1] if known else labelled[-1:]
        if read.ends:
            assert [row.ids for row in rows] == [
                read.ids[: read.positions[i] + 1] + list(read.ends[i]) for i in labelled
            ]
            assert [row.positions for row in rows] == [[len(row.ids) - 1] for row in rows]
        else:
            (row,) = rows
            assert row.positions == [read.positions[i] for i in labelled]
            assert row.ids == read.ids[: row.positions[-1] + 1]
            assert row.starts == [read.starts[i] for i in labelled]


@pytest.mark.parametrize("name", COMPARING)
def test_tokens_that_count_in_training_are_those_that_count_in_scoring(name, monkeypatch):
    """Of implicit rewards: each token of each step, at the one before it."""
    family, tokenizer = IMPLICIT[name], tokenizer_of(name)
    n = -(-SAMPLES // (len(FAMILIES) + len(COMPARING)))
    records = [
        r.replace(trajectory=r.trajectory.model_copy(update={"correct": True}))
        for r in ugly_records(n, name, (), "outcome")
    ]
    asked = []

    class Zeros:
        context = None

        def __init__(self, path, **how):
            self.tokenizer = tokenizer

        def log_probs(self, rows, first):
            asked.extend(zip(rows, first, strict=True))
            return [[0.0] * (len(ids) - at) for ids, at in zip(rows, first, strict=True)]

    monkeypatch.setattr(implicit, "LogProbs", Zeros)
    scorer = ImplicitScorer("model", "reference", family=family)
    found = scorer.token_ratios([r.trajectory for r in records])
    examples, dropped = make_responses(records, family, tokenizer, None)
    assert len(examples) + dropped.unlabelled == n
    # Asked of both models: the first half are those of the one.
    assert len(asked) == 2 * n
    for example in examples:
        ids, first = asked[example.solution]
        by_step = found[example.solution]
        n_tokens = sum(map(len, by_step))
        assert example.positions == list(range(first - 1, first - 1 + n_tokens))
        assert example.ids == ids[: first + n_tokens]


def test_every_token_of_a_solution_has_its_outcome():
    """And no token of the question."""
    tokenizer = tokenizer_of("step_end")
    trajectory = Trajectory(
        problem=Problem(id="x", prompt="How many?"),
        steps=(Step(text="Mia has 2."), Step(text="So 3.")),
        correct=False,
    )
    record = Record(trajectory=trajectory)
    rendered = STEP_END_FAMILY.render(trajectory, tokenizer)
    ((example,), _) = make_examples(
        [record], STEP_END_FAMILY, tokenizer, None, what="outcome", every_token=True
    )
    assert example.ids == rendered.ids
    assert example.positions == list(range(rendered.begin, len(rendered.ids)))
    assert set(example.targets) == {0.0}
