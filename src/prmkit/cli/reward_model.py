"""Options of a reward model beside those of a policy, as several commands take them."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any, Literal

from prmkit.cli.names import open_scorer
from prmkit.errors import InvalidSetting
from prmkit.scorers.settings import ModelSettings, OnSeparator

if TYPE_CHECKING:
    from prmkit.scorers.base import Scorer


@dataclass(frozen=True, kw_only=True)
class RewardModel:
    """Which reward model scores steps or turns; it runs on the policy's device.

    Attributes:
        model: folder of a reward model, its id on the Hugging Face hub, or embedded/prm.
        family: how it reads steps (see prm models); by default what is known of the model.
        reference: of implicit families: the model that it is compared with, folder or id.
        scorer_server: instead of this process, a server with the model: vllm=URL or sglang=URL.
        served_as: the model's name on that server; by default that of its folder.
        on_separator: text that spells the token where steps end: escape it, or give no scores
            (error).
        uncalibrated: leave a calibration beside the model aside.
    """

    model: str | None = None
    family: str | None = None
    reference: str | None = None
    scorer_server: str | None = None
    served_as: str | None = None
    on_separator: OnSeparator = "escape"
    uncalibrated: bool = False

    def check(self) -> None:
        """Refuse options of a model that is not there.

        Raises:
            InvalidSetting: if there are some.
        """
        if self.model is None and self != type(self)():
            raise InvalidSetting("options of a reward model have no meaning without one (--model)")

    @property
    def described(self) -> dict[str, Any]:
        """What scores depend on; a server may have been begun again elsewhere."""
        return {k: v for k, v in asdict(self).items() if k != "scorer_server"}

    def settings(self, device: str | None) -> ModelSettings:
        """The same as the settings of a scorer; there must be a model."""
        assert self.model is not None
        return ModelSettings(
            model=self.model,
            family=self.family,
            reference=self.reference,
            server=self.scorer_server,
            served_as=self.served_as,
            on_separator=self.on_separator,
            uncalibrated=self.uncalibrated,
            device=None if self.scorer_server else device,
        )


@dataclass(frozen=True, kw_only=True)
class SearchModel(RewardModel):
    """Which reward model judges steps; without one nothing is searched."""

    model: str = "embedded/prm"


@dataclass(frozen=True, kw_only=True)
class RLModel(RewardModel):
    """Which reward models score the steps that a policy is taught by.

    Attributes:
        model: folder of a reward model, its id on the Hugging Face hub, or embedded/prm; by
            default embedded/prm where scores are needed and the policy is the embedded world's.
            Where scores do not count, they are watched.
        ensemble: further reward models, whose scores are put together with the first one's.
        together: how: mean, or min, which is harder to please.
    """

    ensemble: tuple[str, ...] = ()
    together: Literal["mean", "min"] = "min"

    def __post_init__(self) -> None:
        if self.together == "mean" and not self.ensemble:
            raise InvalidSetting("together has no meaning without an ensemble")

    @property
    def names(self) -> list[str]:
        """All models by which scores come about."""
        return [name for name in (self.model, self.reference, *self.ensemble) if name is not None]

    def open(self, device: str | None) -> Scorer | None:
        """The scorer, or None where none was named."""
        if self.model is None:
            return None
        scorer = open_scorer(self.settings(device))
        if not self.ensemble:
            return scorer
        from prmkit.scorers.ensemble import EnsembleScorer

        others = [
            open_scorer(ModelSettings(model=one, device=device, uncalibrated=self.uncalibrated))
            for one in self.ensemble
        ]
        return EnsembleScorer([scorer, *others], self.together)
