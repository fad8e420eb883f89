"""Records of every shape, ugly corners included."""

from __future__ import annotations

from hypothesis import strategies as st

from prmkit.records import (
    Message,
    Problem,
    Record,
    Step,
    StepLabels,
    StepScores,
    Trajectory,
    Unscored,
)
from prmkit.testing import UGLY_TEXTS

TEXTS = st.one_of(st.text(max_size=30), st.sampled_from(UGLY_TEXTS))
NUMBERS = st.floats(allow_nan=False, allow_infinity=False)
JSON = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**53), 2**53) | NUMBERS | TEXTS,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(TEXTS, inner, max_size=3),
    max_leaves=6,
)
META = st.dictionaries(TEXTS, JSON, max_size=3)


@st.composite
def problems(draw):
    conversation = draw(st.booleans())
    messages = st.lists(
        st.builds(Message, role=st.sampled_from(["system", "user", "assistant"]), content=TEXTS),
        min_size=1,
        max_size=3,
    ).map(tuple)
    return Problem(
        id=draw(TEXTS),
        prompt=None if conversation else draw(TEXTS),
        messages=draw(messages) if conversation else None,
        answer=draw(st.none() | TEXTS),
        images=tuple(draw(st.lists(TEXTS, max_size=2))),
        meta=draw(META),
    )


@st.composite
def trajectories(draw, min_steps=0):
    steps = st.builds(Step, text=TEXTS, observation=st.none() | TEXTS)
    return Trajectory(
        problem=draw(problems()),
        steps=tuple(draw(st.lists(steps, min_size=min_steps, max_size=5))),
        separator=draw(st.sampled_from(["", "\n", "\n\n", " ки\n"])),
        finish=draw(st.sampled_from(["eos", "answer", "length", "aborted", "error", "open"])),
        answer=draw(st.none() | TEXTS),
        correct=draw(st.none() | st.booleans()),
        generator=draw(st.none() | TEXTS),
    )


def label_values(kind):
    return {
        "hard": st.sampled_from([0.0, 1.0]),
        "soft": st.floats(0, 1),
        "human": st.sampled_from([-1.0, 0.0, 1.0]),
    }[kind]


@st.composite
def step_labels(draw, n_steps, kinds=("hard", "soft", "human")):
    kind = draw(st.sampled_from(kinds))
    values = tuple(draw(st.none() | label_values(kind)) for _ in range(n_steps))
    counts = draw(st.booleans())
    trials = tuple(draw(st.none() | st.integers(0, 9)) for _ in range(n_steps))
    won = tuple(None if t is None else draw(st.integers(0, t)) for t in trials)
    return StepLabels(
        values=values,
        kind=kind,
        successes=won if counts else None,
        trials=trials if counts else None,
        source=draw(st.none() | TEXTS),
    )


@st.composite
def step_scores(draw, n_steps):
    if draw(st.booleans()):
        return Unscored(reason=draw(TEXTS), model=draw(st.none() | TEXTS))
    semantics = draw(st.sampled_from(["correctness", "value", "advantage", "log_ratio"]))
    value = st.floats(0, 1) if semantics == "correctness" else NUMBERS
    values = tuple(draw(value) for _ in range(n_steps))
    return StepScores(values=values, semantics=semantics, model=draw(TEXTS))


@st.composite
def records(draw):
    trajectory = draw(trajectories())
    n_steps = len(trajectory.steps)
    return Record(
        trajectory=trajectory,
        labels=draw(st.none() | step_labels(n_steps)),
        scores=tuple(draw(st.lists(step_scores(n_steps), max_size=2))),
        meta=draw(META),
    )
