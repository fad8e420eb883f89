"""Records to examples."""

from __future__ import annotations

from prmkit.embedded.vocabulary import build_tokenizer
from prmkit.records import Problem, Record, Step, StepLabels, Trajectory
from prmkit.scorers.families import discriminative
from prmkit.training.targets import make_examples


class Counting:
    """A tokenizer that notes what it is given."""

    def __init__(self):
        self.tokenizer = build_tokenizer()
        self.given = []

    def __getattr__(self, name):
        return getattr(self.tokenizer, name)

    def __call__(self, text, **settings):
        self.given.append((text, *settings.items()))
        return self.tokenizer(text, **settings)


def test_what_alternatives_share_is_tokenised_once():
    before = [Step(text=f"Ana has {n} pens.\n") for n in range(10)]
    problem = Problem(id="a", prompt="Ana?")
    records = [
        Record(
            trajectory=Trajectory(problem=problem, steps=(*before, Step(text=f"So {n}.\n"))),
            labels=StepLabels(values=(None,) * 10 + (float(n % 2),), kind="hard"),
        )
        for n in range(8)
    ]
    family, counting = discriminative("step_end"), Counting()
    examples, _ = make_examples(records, family, counting, None)
    assert len(counting.given) == len(set(counting.given))
    tokenizer = build_tokenizer()
    for example, record in zip(examples, records, strict=True):
        assert example.ids == family.render(record.trajectory, tokenizer).ids
