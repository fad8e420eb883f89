"""What the embedded PRM is taught, part by part, and the loss over it."""

from __future__ import annotations

import math
import random
from collections import Counter

import pytest
import torch

from prmkit.embedded import lessons
from prmkit.embedded.fitting import Weights, loss_of
from prmkit.embedded.judge import Referee, judge
from prmkit.embedded.lessons import KNOWN, NEW, Batch, calculation_pieces, language_row, verdict_row
from prmkit.embedded.solutions import MistakeRates, write_solution
from prmkit.embedded.vocabulary import build_tokenizer
from prmkit.embedded.world import MEANINGS, World, make_problem, problems, sentence_meanings
from worlds import hand_made


@pytest.fixture(scope="module")
def tokenizer():
    return build_tokenizer()


def test_pieces_of_a_step():
    assert calculation_pieces("So Mia has 12 + 5 = 17 apples.\n") == [
        ("So Mia has", None),
        (" 12", 0),
        (" +", 1),
        (" 5", 2),
        (" =", None),
        (" 17 apples.\n", 3),
    ]
    assert calculation_pieces("The answer is 17.\n") == [("The answer is", None), (" 17.\n", 3)]
    with pytest.raises(ValueError, match="neither a calculation nor an answer"):
        calculation_pieces("Hello.\n")


@pytest.mark.parametrize(
    ("calculation", "n"),
    [
        ((12, "+", 5), 3),
        ((5, "+", 12), 3),  # a sum is read either way
        ((12, "-", 5), 1),  # right number, wrong operation
        ((12, "+", 9), 2),  # right number and operation, wrong second number
        ((9, "+", 5), 0),
        ((17, "*", 2), 0),  # 17 has not been found yet
    ],
)
def test_how_much_of_a_calculation_fits(calculation, n):
    assert Referee(hand_made()).n_fitting(*calculation) == n


def test_after_a_step_the_next_relation_may_come():
    referee = Referee(hand_made())
    assert referee.step("12 + 5 = 17") == "right"
    assert referee.n_fitting(17, "*", 2) == 3
    assert referee.n_fitting(17, "+", 17) == 3  # doubling as a sum
    assert referee.n_fitting(17, "/", 2) == 1
    assert referee.n_fitting(12, "+", 5) == 3  # said again


def taught(row, tokenizer):
    """The tokens that are taught something, with what."""
    return [
        (tokenizer.decode([token]), verdict)
        for token, verdict in zip(row.ids, row.verdict, strict=True)
        if verdict >= 0
    ]


def test_a_row_by_hand(tokenizer, monkeypatch):
    """Right up to the wrong number, wrong from it on, later steps at their ends alone."""
    steps = ["Mia has 12 + 5 = 17 apples.\n", "Ben has 17 * 9 = 99 pens.\n", "The answer is 99.\n"]
    monkeypatch.setattr(lessons, "make_problem", lambda split, index: hand_made())
    monkeypatch.setattr(lessons, "write_solution", lambda problem, rng, rates: steps)
    row = verdict_row(0, random.Random(0), tokenizer, MistakeRates())
    assert taught(row, tokenizer) == [
        (" 12", 1), (" +", 1), (" 5", 1), (" 17", 1), (" apples", 1), (".", 1), ("\n", 1),
        (" 17", 1), (" *", 1), (" 9", 0), (" 99", 0), (" pens", 0), (".", 0), ("\n", 0),
        ("\n", 0),
    ]  # fmt: skip
    known = "".join(
        tokenizer.decode([t]) for t, k in zip(row.ids, row.next_token, strict=True) if k
    )
    assert known == steps[0]


def test_rows_agree_with_the_judge(tokenizer):
    """At step ends, what is taught is what the judge says of everything so far."""
    end = tokenizer("\n")["input_ids"][-1]
    for index in range(300):
        row = verdict_row(index, random.Random(index), tokenizer, MistakeRates())
        problem = make_problem("train", index)
        steps = write_solution(problem, random.Random(index), MistakeRates())
        first = judge(problem, steps).first_error
        ends = [v for t, v in zip(row.ids, row.verdict, strict=True) if t == end]
        assert ends == [int(first is None or i < first) for i in range(len(steps))]
        # Once wrong, always wrong.
        verdicts = [v for v in row.verdict if v >= 0]
        assert verdicts == sorted(verdicts, reverse=True)


HEAD = torch.nn.Identity()


class Body(torch.nn.Module):
    """Hidden states that are the ids themselves, one-hot."""

    def forward(self, input_ids, use_cache):
        hidden = torch.nn.functional.one_hot(input_ids, 2).float()
        return type("Out", (), {"last_hidden_state": hidden})


def test_loss_by_hand():
    """Logits are the hidden states: of the token itself 1, of the other one 0."""
    batch = Batch(
        ids=torch.tensor([[0, 0, 1]]),
        next_token=torch.tensor([[False, True, True]]),
        meaning=torch.tensor([[1, -1, -1]]),
        verdict=torch.tensor([[-1, -1, 1]]),
    )
    likely = math.log(1 + math.exp(-1))  # where the logit of the target is the larger one
    unlikely = math.log(1 + math.exp(1))

    def loss(batch, head=HEAD):
        weights = Weights(next_token=0.5, meaning=2.0, verdict=3.0)
        reader = torch.nn.Identity()
        return loss_of(Body(), torch.eye(2), reader, head, batch, weights).item()

    read, told = 2 * unlikely, 3 * likely
    assert loss(batch) == pytest.approx((likely + unlikely) / 4 + read + told, rel=1e-6)
    assert loss(batch, None) == pytest.approx((likely + unlikely) / 4 + read, rel=1e-6)
    # A batch with nothing to predict costs the rest, and is a number.
    nothing = batch._replace(next_token=torch.zeros(1, 3, dtype=torch.bool))
    assert loss(nothing) == pytest.approx(read + told, rel=1e-6)


def test_meanings_by_hand(tokenizer, monkeypatch):
    problem = hand_made()
    assert [told and MEANINGS[told] for _, told in sentence_meanings(problem)] == [
        0, "+", 0, "*", None
    ]  # fmt: skip
    monkeypatch.setattr(lessons, "make_problem", lambda split, index: problem)
    row = language_row(0, random.Random(0), tokenizer, MistakeRates())
    told = [
        (tokenizer.decode([token]).strip(), meaning)
        for token, meaning in zip(row.ids, row.meaning, strict=True)
        if meaning >= 0
    ]
    # Mia has 12. Mia gets 5 from Ruth. Ben is 9 years old. Ben has 2 times as many as Mia.
    assert told == [
        ("Mia", NEW), (".", 0), ("Mia", KNOWN), ("Ruth", NEW), (".", 1), ("Ben", NEW), (".", 0),
        ("Ben", KNOWN), ("Mia", KNOWN), (".", 3), ("Ben", KNOWN),
    ]  # fmt: skip


@pytest.mark.parametrize("split", ["train", "ood"])
def test_every_relation_is_in_the_meaning_of_one_sentence(split):
    for problem in problems(split, 300):
        found = sentence_meanings(problem)
        assert "".join(sentence for sentence, _ in found) == problem.text
        told = Counter(MEANINGS[m] for _, m in found if m)
        expected = Counter()
        relations = World.of(problem).relations
        for before, relation in zip([None, *relations], relations, strict=False):
            if relation.role == "total":
                grouped = before is not None and before.role == "groups"
                expected[f"{relation.op} groups" if grouped else relation.op] += 1
        assert told == expected
