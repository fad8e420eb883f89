"""Steps cut where a model hesitates, and joined where it does not."""

from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from prmkit.chat import encode_question, encode_text
from prmkit.errors import InvalidRecord, InvalidSetting, NothingToMeasure
from prmkit.records import Problem, Record, Step, StepLabels, Trajectory
from prmkit.scorers.backends.log_probs import LogProbs
from prmkit.training.dynamic import (
    Token,
    coarse_to_fine,
    joined,
    recut,
    threshold_of,
    tokens_of,
)


def solution(*texts, separator="", **about):
    return Trajectory(
        problem=Problem(id="p", prompt="Mia has 12 apples?"),
        steps=tuple(Step(text=t) for t in texts),
        separator=separator,
        **about,
    )


def tokens(*pairs):
    return [Token(start, math.log(p)) for start, p in pairs]


def test_a_step_begins_where_the_model_is_unsure():
    text = solution("one two\n", "three four\n")
    found = tokens((0, 0.9), (4, 0.1), (8, 0.99), (14, 0.2))
    cut = recut(text, found, math.log(0.5))
    assert [s.text for s in cut.steps] == ["one ", "two\nthree ", "four\n"]
    assert cut.text == text.text
    assert [s.text for s in recut(text, found, math.log(0.15)).steps] == [
        "one ",
        "two\nthree four\n",
    ]


def test_steps_without_a_decision_are_joined_to_the_one_before():
    text = solution("one two", "three four", "five", separator="\n")
    found = tokens((0, 0.9), (4, 0.1), (8, 0.99), (14, 0.9), (19, 0.2))
    cut = recut(text, found, math.log(0.5), at="steps")
    assert [s.text for s in cut.steps] == ["one two\nthree four\n", "five"]
    assert cut.text == text.text
    assert cut.separator == ""
    whole = recut(text, found, math.log(0.05), at="steps")
    assert [s.text for s in whole.steps] == [text.text]


def test_what_an_environment_answered_is_not_cut():
    acted = solution("look").model_copy(
        update={"steps": (Step(text="look", observation="a door"), Step(text="go"))}
    )
    with pytest.raises(InvalidRecord, match="not ours to cut"):
        recut(acted, [], 0.0)
    with pytest.raises(InvalidRecord, match="cannot be joined"):
        joined(Record(trajectory=acted), 2)
    assert joined(Record(trajectory=acted), 1).trajectory == acted


TEXTS = st.lists(st.text(max_size=8), min_size=1, max_size=6)


@given(TEXTS, st.sampled_from(["", "\n", " | "]), st.data())
def test_no_character_is_lost(texts, separator, data):
    text = solution(*texts, separator=separator)
    n = len(text.text)
    places = data.draw(st.lists(st.integers(0, max(n - 1, 0)), unique=True))
    found = [Token(p, -data.draw(st.floats(0, 10))) for p in sorted(places) if p < n]
    for at in ("tokens", "steps"):
        cut = recut(text, found, -5.0, at=at)
        assert cut.text == text.text
        assert all(step.text for step in cut.steps)
        more = recut(text, found, -1.0, at=at)
        assert len(more.steps) >= len(cut.steps)


def test_the_share_of_decisions():
    found = [
        tokens(*[(i, (i + 1) / 100) for i in range(50)]),
        tokens(*[(i, 0.99) for i in range(50)]),
    ]
    threshold = threshold_of(found, 0.02)
    assert sum(t.log_prob < threshold for of_one in found for t in of_one) == 2
    # The first solution has both: the harder one is cut, and the easier one is not.
    assert all(t.log_prob > threshold for t in found[1])
    with pytest.raises(InvalidSetting, match="share is 0"):
        threshold_of(found, 0)
    with pytest.raises(NothingToMeasure):
        threshold_of([[]], 0.1)


def test_tokens_are_those_that_the_model_reads(tiny_lm):
    import torch
    from transformers import AutoModelForCausalLM

    model = LogProbs(tiny_lm, device="cpu")
    texts = [solution("Mia has 3 apples.\n", "So 8 é€ 日.\n"), solution("")]
    first, empty = tokens_of(model, texts)
    assert empty == []
    text = texts[0].text
    question = encode_question(model.tokenizer, texts[0].problem)
    ids = encode_text(model.tokenizer, text)
    stock = AutoModelForCausalLM.from_pretrained(tiny_lm)
    logits = stock(input_ids=torch.tensor([question + ids])).logits[0].log_softmax(-1)
    plain = [logits[len(question) + i - 1, token].item() for i, token in enumerate(ids)]
    starts = [t.start for t in first]
    assert starts == sorted(set(starts))
    assert starts[0] == 0
    assert min(t.log_prob for t in first) == pytest.approx(min(plain), abs=1e-3)
    if len(first) == len(ids):
        assert [t.log_prob for t in first] == pytest.approx(plain, abs=1e-3)
    cut = recut(texts[0], first, threshold_of([first], 0.2))
    assert cut.text == text
    assert 1 < len(cut.steps) < len(first)


def test_joined_labels_by_hand():
    soft = Record(
        trajectory=solution("a", "b", "c", "d", "e", separator="\n"),
        labels=StepLabels(
            values=(1.0, 0.75, 0.5, None, 0.0),
            kind="soft",
            successes=(4, 3, 2, None, 0),
            trials=(4, 4, 4, None, 4),
            certainty=(0.9, 0.8, 0.7, None, 0.6),
        ),
    )
    pairs = joined(soft, 2)
    assert [s.text for s in pairs.trajectory.steps] == ["a\nb", "c\nd", "e"]
    assert pairs.trajectory.text == soft.trajectory.text
    assert pairs.labels.values == (0.75, None, 0.0)
    assert pairs.labels.successes == (3, None, 0)
    assert pairs.labels.certainty == (0.8, None, 0.6)
    human = soft.replace(labels=StepLabels(values=(1, -1, 0, 1, None), kind="human"))
    assert joined(human, 2).labels.values == (-1, 0, None)
    assert joined(human, 9).labels.values == (-1,)
    assert joined(soft, 1) == soft


def test_each_granularity_once():
    record = Record(
        trajectory=solution("a", "b", "c"), labels=StepLabels(values=(1, 1, 0), kind="hard")
    )
    found = coarse_to_fine([record])
    assert [len(r.trajectory.steps) for r in found] == [1, 2, 3]
    assert [r.labels.values for r in found] == [(0,), (1, 0), (1, 1, 0)]
    single = Record(trajectory=solution("a"), labels=StepLabels(values=(1,), kind="hard"))
    assert coarse_to_fine([single]) == [single]
