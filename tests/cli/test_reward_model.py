"""Options of a reward model: as a scorer's settings, as a run's folder has them, and of several."""

from __future__ import annotations

from dataclasses import asdict, replace

import pytest

from prmkit.cli import reward_model
from prmkit.cli.reward_model import RewardModel, RLModel, SearchModel
from prmkit.errors import InvalidSetting
from prmkit.records import Problem, Step, StepScores, Trajectory
from prmkit.scorers.settings import ModelSettings

EVERY = RewardModel(
    model="m", family="f", reference="r", scorer_server="vllm=http://x", served_as="s",
    on_separator="error", uncalibrated=True,
)  # fmt: skip
TRAJECTORY = Trajectory(problem=Problem(id="p", prompt="q"), steps=(Step(text="a"), Step(text="b")))


def test_every_option_reaches_the_scorer():
    assert EVERY.settings("cuda") == ModelSettings(
        model="m", family="f", reference="r", server="vllm=http://x", served_as="s",
        on_separator="error", uncalibrated=True,
    )  # fmt: skip
    assert replace(EVERY, scorer_server=None).settings("cuda").device == "cuda"
    assert SearchModel().settings(None) == ModelSettings()


def test_where_a_server_is_does_not_matter_to_a_run():
    assert EVERY.described == replace(EVERY, scorer_server="vllm=http://y").described
    told = {name: value for name, value in asdict(EVERY).items() if name != "scorer_server"}
    assert EVERY.described == told


@pytest.mark.parametrize("name", [name for name in asdict(EVERY) if name != "model"])
@pytest.mark.parametrize("kind", [RewardModel, RLModel])
def test_options_of_no_model_are_refused(kind, name):
    given = kind(**{name: getattr(EVERY, name)})
    with pytest.raises(InvalidSetting, match="without one"):
        given.check()
    replace(given, model="m").check()
    kind().check()


class Fixed:
    """Scores all steps alike."""

    semantics = "correctness"

    def __init__(self, name, value):
        self.name, self.value = name, value

    def score(self, trajectories):
        return [
            StepScores(values=(self.value,) * len(one.steps), semantics="correctness", model="m")
            for one in trajectories
        ]


@pytest.mark.parametrize(("together", "value"), [("mean", 0.5), ("min", 0.25)])
def test_an_ensemble_is_opened_and_put_together(monkeypatch, together, value):
    opened = []

    def open_scorer(settings):
        opened.append(settings)
        return Fixed(settings.model, {"a": 0.75, "b": 0.25, "c": 0.5}[settings.model])

    monkeypatch.setattr(reward_model, "open_scorer", open_scorer)
    given = RLModel(
        model="a", family="f", reference="r", uncalibrated=True, ensemble=("b", "c"),
        together=together,
    )  # fmt: skip
    (scored,) = given.open("cpu").score([TRAJECTORY])
    assert scored.values == pytest.approx((value, value))
    # How one model reads steps says nothing of another one.
    assert opened == [
        ModelSettings(model="a", family="f", reference="r", device="cpu", uncalibrated=True),
        ModelSettings(model="b", device="cpu", uncalibrated=True),
        ModelSettings(model="c", device="cpu", uncalibrated=True),
    ]
    assert given.names == ["a", "r", "b", "c"]
    assert RLModel().open("cpu") is None
