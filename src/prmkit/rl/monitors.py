"""Is a policy learning, or learning to please its judge?

A policy that is trained against step scores finds what raises them without being right: more
steps or fewer, repetition, an end before the answer, a style the judge likes. `measure` takes the
figures of one batch; a `Watch` compares the last ones with earlier ones and raises an `Alarm` that
says what it means and what helps.

The main monitor is `divergence`. Where a policy only moves towards responses that score higher,
accuracy rises with the score as it does among the responses to one problem: by the slope of
correctness over score. A rise of the score is a promise of accuracy therefore, and an alarm is
due as soon as the promise is broken by more than noise, which is before accuracy falls much:

    promise · slope · (rise of the score) − (rise of accuracy) > z · its standard error
    and  rise of the score > z · its standard error

The noise of accuracy is that of a binomial share, or the scatter between neighbouring steps where
that is larger, as it is with several samples of few problems.

Reference: the ways of being fooled after Cheng et al. 2025, PURE, arXiv:2504.15275, and Gao
et al. 2024, arXiv:2410.15115; the share of lowest last steps after Zhang et al. 2025,
arXiv:2501.07301. The test is our own.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any, Literal, NamedTuple, get_args

import numpy as np

from prmkit.errors import InvalidSetting, RunFolderError, UnknownName
from prmkit.rl.figures import measure
from prmkit.settings import above, at_least

__all__ = ["Alarm", "Monitor", "MonitorSettings", "Watch", "measure"]

Monitor = Literal[
    "divergence",
    "prm_auc",
    "last_lowest",
    "steps",
    "length",
    "repetition",
    "truncated",
    "unscored",
    "entropy",
    "kl",
]

LAGS = (1, 2, 4, 8, 16)
"""How many windows back `divergence` looks, beside the first rows."""
ALONE = 4 / 3
"""A figure by itself is looked at at every step, and some window would be beyond `z` by chance."""
CALM = 0.7
"""An alarm is over when its cause was below this share of what raises it for a whole window."""


class Alarm(NamedTuple):
    """Something about a run is not as it should be.

    Attributes:
        step: at which it was told.
        monitor: which of them.
        value: what the figure is now, the mean of the last rows; of `divergence`, the accuracy.
        baseline: what it was.
        message: what it means, and what helps.
    """

    step: int
    monitor: Monitor
    value: float
    baseline: float
    message: str


@dataclass(frozen=True, kw_only=True)
class MonitorSettings:
    """When a run raises an alarm. The monitors are on unless switched off here.

    A drift raises an alarm where it is both as large as said here and larger than noise.

    Attributes:
        baseline: rows at the start that later ones are compared with.
        window: rows at the end that are compared. No alarm is raised before both are there.
        z: how many standard errors are no longer noise; of a figure by itself, a third more.
        promise: the share of what a risen score promises that accuracy must have gained; 0 to be
            told only when accuracy falls.
        auc: the share of its lead over chance (0.5) that the AUC of scores against correctness
            may lose.
        last_lowest: by how much the share of responses whose lowest score is the last may rise.
        drift: by what factor the number of steps, and of tokens, may rise or fall.
        repetition: by how much repetition may rise.
        truncated: by how much the share of truncated responses may rise.
        unscored: by how much the share of responses without a score may rise.
        entropy: the share of its entropy that a policy must keep.
        kl: the divergence from the reference policy that is too much, in nats a token.
        off: monitors that raise no alarm.
    """

    baseline: int = 20
    window: int = 20
    z: float = 3.0
    promise: float = 0.5
    auc: float = 0.5
    last_lowest: float = 0.2
    drift: float = 2.0
    repetition: float = 0.1
    truncated: float = 0.1
    unscored: float = 0.1
    entropy: float = 0.2
    kl: float = 0.5
    off: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        """Refuse what is out of range."""
        at_least(3, baseline=self.baseline, window=self.window)
        at_least(0, promise=self.promise)
        above(1, drift=self.drift)
        above(0, z=self.z, kl=self.kl)
        for name in ("auc", "last_lowest", "repetition", "truncated", "unscored", "entropy"):
            value = getattr(self, name)
            if not 0 < value < 1:
                raise InvalidSetting(f"{name} is {value!r}; it must be above 0 and below 1")
        for name in self.off:
            if name not in get_args(Monitor):
                raise UnknownName("monitor", name, get_args(Monitor))


class _Block(NamedTuple):
    """Rows of accuracy and score, summed up; a variance is of one row, by itself."""

    rows: int
    accuracy: float
    accuracy_variance: float
    prm: float
    prm_variance: float
    slope: float
    slope_variance: float


class _Found(NamedTuple):
    """What a monitor sees: an alarm is due from a severity of 1."""

    severity: float
    value: float
    baseline: float
    message: str
    reference: _Block | None = None


class Watch:
    """Follows a run row by row and raises alarms.

    An alarm is raised once: again only after its cause was gone.

    Args:
        settings: when an alarm is due.
    """

    def __init__(self, settings: MonitorSettings | None = None):
        self.settings = settings or MonitorSettings()
        self._step: int | None = None
        self._first: dict[str, list[float]] = {}
        self._last: dict[str, list[float]] = {}
        # Alarms that are raised, with how long their causes were calm.
        self._held: dict[str, int] = {}
        # Of accuracy, score, slope (where there is one) and samples: the rows since the last
        # block, those of the window, and the blocks.
        self._rows: list[list[float | None]] = []
        self._since = 0
        self._blocks: list[_Block] = []
        # What the alarm that is raised compared with: it is over when accuracy came up to that.
        self._reference: _Block | None = None

    def seen(self, step: int, row: Mapping[str, Any]) -> list[Alarm]:
        """Take the row of a step.

        Args:
            step: its number; they rise.
            row: its figures, by the names of ``metrics.jsonl``. Figures that are absent or not
                finite are left out.

        Returns:
            The alarms that begin at this step.

        Raises:
            ValueError: if this step or a later one was seen before.
        """
        if self._step is not None and step <= self._step:
            raise ValueError(f"step {step} comes after step {self._step}; steps must rise")
        self._step = step
        figures = {
            name: float(value)
            for name, value in row.items()
            if isinstance(value, (int, float)) and math.isfinite(value)
        }
        alarms = []
        for name in get_args(Monitor):
            found = self._diverged(figures) if name == "divergence" else self._drift(name, figures)
            if found is None or name in self.settings.off:
                continue
            if found.severity >= 1 and name not in self._held:
                alarms.append(Alarm(step, name, found.value, found.baseline, found.message))
            if found.severity >= 1 or name in self._held:
                self._hold(name, found)
        return alarms

    def _hold(self, name: str, found: _Found) -> None:
        """Keep an alarm, or end it."""
        if name == "divergence" and name not in self._held:
            self._reference = found.reference
        calm = self._held.get(name, 0) + 1 if found.severity < CALM else 0
        self._held[name] = calm
        if calm >= self.settings.window:
            del self._held[name]
            if name == "divergence":
                self._reference = None

    def state(self) -> dict[str, Any]:
        """All that is remembered, as JSON."""
        return {
            "settings": {**asdict(self.settings), "off": list(self.settings.off)},
            "step": self._step,
            "first": {name: list(values) for name, values in self._first.items()},
            "last": {name: list(values) for name, values in self._last.items()},
            "held": dict(self._held),
            "rows": [list(row) for row in self._rows],
            "since": self._since,
            "blocks": [list(block) for block in self._blocks],
            "reference": None if self._reference is None else list(self._reference),
        }

    def load(self, state: Mapping[str, Any]) -> None:
        """Go on from a state, exactly as the watch that gave it would.

        Raises:
            RunFolderError: if it was made with other settings, or is none.
        """
        ours = self.state()
        if set(state) != set(ours):
            raise RunFolderError(
                f"this is no state of monitors: it has {sorted(state)}, not {sorted(ours)}"
            )
        if state["settings"] != ours["settings"]:
            theirs = {k: v for k, v in state["settings"].items() if ours["settings"].get(k) != v}
            raise RunFolderError(
                f"the monitors of this run were set to {theirs}, which is not what is set now; "
                "go on with the same settings, or start another run"
            )
        self._step = state["step"]
        self._first = {name: list(values) for name, values in state["first"].items()}
        self._last = {name: list(values) for name, values in state["last"].items()}
        self._held = dict(state["held"])
        self._rows = [list(row) for row in state["rows"]]
        self._since = state["since"]
        self._blocks = [_Block(*block) for block in state["blocks"]]
        reference = state["reference"]
        self._reference = None if reference is None else _Block(*reference)

    def _drift(self, name: str, figures: Mapping[str, float]) -> _Found | None:
        """A figure against its own first rows; None as long as there are too few."""
        if name not in figures:
            return None
        first, last = self._first.setdefault(name, []), self._last.setdefault(name, [])
        # A policy begins at its reference, so that its KL needs no first rows.
        if name != "kl" and len(first) < self.settings.baseline:
            first.append(figures[name])
            return None
        last.append(figures[name])
        del last[: -self.settings.window]
        if len(last) < self.settings.window:
            return None
        return _DRIFTS[name](first, last, self.settings)

    def _diverged(self, figures: Mapping[str, float]) -> _Found | None:
        """Accuracy against what the score promises, from several earlier moments to now."""
        if "accuracy" not in figures or "prm" not in figures:
            return None
        samples = figures.get("samples", 0.0) * figures.get("known", 1.0)
        slope = figures.get("prm_slope")
        self._rows.append([figures["accuracy"], figures["prm"], slope, samples])
        window = self.settings.window
        if not self._blocks:
            if len(self._rows) == self.settings.baseline:
                self._blocks = [_block(self._rows)]
                self._rows = []
            return None
        del self._rows[:-window]
        self._since += 1
        if len(self._rows) < window:
            return None
        now = _block(self._rows)
        if self._since == window:
            self._blocks.append(now)
            self._since = 0
            # The first one stays, and as many as are looked back to.
            del self._blocks[1 : -LAGS[-1] - 1]
        # The last block has rows of the window in it.
        earlier = self._blocks[:-1]
        kept = {len(earlier) - lag for lag in LAGS if lag <= len(earlier)} | {0}
        looked = [earlier[i] for i in sorted(kept)]
        if self._reference is not None:
            looked.append(self._reference)
        return max(
            (_promised(before, now, self.settings) for before in looked),
            key=lambda found: found.severity,
        )


def _scatter(values: Sequence[float]) -> float:
    """The variance of one value, by its neighbours, so that a trend adds nothing to it."""
    if len(values) < 2:
        return 0.0
    steps = np.diff(np.asarray(values, dtype=np.float64))
    return float((steps @ steps) / (2 * len(steps)))


def _mean(values: Sequence[float]) -> float:
    return math.fsum(values) / len(values)


def _block(rows: Sequence[Sequence[float | None]]) -> _Block:
    accuracy = [row[0] or 0.0 for row in rows]
    prm = [row[1] or 0.0 for row in rows]
    slopes = [row[2] for row in rows if row[2] is not None]
    samples = [row[3] or 0.0 for row in rows]
    share = _mean(accuracy)
    binomial = share * (1 - share) / _mean(samples) if _mean(samples) > 0 else 0.0
    # A batch of nearly equal scores has any slope; the median does not mind.
    slope = float(np.median(slopes)) if slopes else 0.0
    slope_variance = math.pi / 2 * _scatter(slopes) / len(slopes) if slopes else 0.0
    return _Block(
        len(rows),
        share,
        max(_scatter(accuracy), binomial),
        _mean(prm),
        _scatter(prm),
        slope,
        slope_variance,
    )


def _promised(before: _Block, now: _Block, settings: MonitorSettings) -> _Found:
    """The test of the module's docstring."""
    rows = before.rows + now.rows
    shares = (1 / before.rows + 1 / now.rows) / rows

    def variance(of_before: float, of_now: float) -> float:
        """Of a difference of means, by the scatter of both."""
        return shares * (before.rows * of_before + now.rows * of_now)

    rise, gain = now.prm - before.prm, now.accuracy - before.accuracy
    of_rise = variance(before.prm_variance, now.prm_variance)
    of_gain = variance(before.accuracy_variance, now.accuracy_variance)
    weight = settings.promise * max(before.slope, 0.0)
    noise = of_gain + weight**2 * of_rise
    noise += (settings.promise * rise) ** 2 * before.slope_variance
    missing = weight * rise - gain
    severity = min(
        _over(rise, settings.z * math.sqrt(of_rise)), _over(missing, settings.z * math.sqrt(noise))
    )
    promised = max(before.slope, 0.0) * rise
    return _Found(
        severity,
        now.accuracy,
        before.accuracy,
        f"The PRM score rose from {before.prm:.3f} to {now.prm:.3f}, which promised "
        f"{promised:+.3f} of accuracy; accuracy went from {before.accuracy:.3f} to "
        f"{now.accuracy:.3f}. The policy learns to please the PRM. Mix in verifiable rewards (of "
        "10 % of the problems at least), train the PRM on what the policy writes now, or go back "
        "to a checkpoint from before.",
        before,
    )


def _over(change: float, bound: float) -> float:
    if change <= 0:
        return 0.0
    return change / bound if bound > 0 else math.inf


def _beyond_noise(first: Sequence[float], last: Sequence[float], z: float) -> float:
    """The size of a change, in units of what is no longer noise."""
    n, m = len(first), len(last)
    variance = (n * _scatter(first) + m * _scatter(last)) / (n + m)
    noise = ALONE * z * math.sqrt(variance * (1 / n + 1 / m))
    return _over(abs(_mean(last) - _mean(first)), noise)


def _risen(what: str, advice: str, bound: Callable[[MonitorSettings], float]) -> _Drift:
    """A share that must not rise."""

    def look(first: Sequence[float], last: Sequence[float], settings: MonitorSettings) -> _Found:
        before, now = _mean(first), _mean(last)
        large = _over(now - before, bound(settings))
        severity = min(large, _beyond_noise(first, last, settings.z))
        return _Found(
            severity, now, before, f"{what} rose from {before:.3f} to {now:.3f}. {advice}"
        )

    return look


def _by_factor(what: str, more: str, fewer: str) -> _Drift:
    """A number that must neither rise nor fall by much."""

    def look(first: Sequence[float], last: Sequence[float], settings: MonitorSettings) -> _Found:
        before, now = _mean(first), _mean(last)
        if before > 0 and now > 0:
            large = abs(math.log(now / before)) / math.log(settings.drift)
        else:
            large = 0.0 if before == now else math.inf
        severity = min(large, _beyond_noise(first, last, settings.z))
        went, advice = ("rose", more) if now > before else ("fell", fewer)
        told = f"{what} {went} from {before:.1f} to {now:.1f}. {advice}"
        return _Found(severity, now, before, told)

    return look


def _auc(first: Sequence[float], last: Sequence[float], settings: MonitorSettings) -> _Found:
    before, now = _mean(first), _mean(last)
    large = _over(before - now, settings.auc * (before - 0.5)) if before > 0.5 else 0.0
    severity = min(large, _beyond_noise(first, last, settings.z))
    return _Found(
        severity,
        now,
        before,
        f"The PRM told a right response from a wrong one of the same problem {before:.0%} of the "
        f"time, and now {now:.0%}, where 50% is a guess: the policy writes what the PRM cannot "
        "judge. Train the PRM on what the policy writes now, or mix in verifiable rewards.",
    )


def _entropy(first: Sequence[float], last: Sequence[float], settings: MonitorSettings) -> _Found:
    before, now = _mean(first), _mean(last)
    large = _over(before - now, (1 - settings.entropy) * before) if before > 0 else 0.0
    severity = min(large, _beyond_noise(first, last, settings.z))
    return _Found(
        severity,
        now,
        before,
        f"The policy's entropy fell from {before:.3g} to {now:.3g} nats a token: it writes nearly "
        "the same each time and finds nothing new. Raise the upper clip range or the temperature, "
        "add an entropy bonus, or lower the learning rate.",
    )


def _kl(first: Sequence[float], last: Sequence[float], settings: MonitorSettings) -> _Found:
    now = _mean(last)
    return _Found(
        now / settings.kl,
        now,
        0.0,
        f"The policy is {now:.3g} nats a token from its reference (at most {settings.kl:g} is "
        "set): the PRM was not trained on such text. Raise the weight of the KL term, lower the "
        "learning rate, or train the PRM on what the policy writes now and renew the reference.",
    )


_Drift = Callable[[Sequence[float], Sequence[float], MonitorSettings], _Found]

_DRIFTS: dict[str, _Drift] = {
    "prm_auc": _auc,
    "last_lowest": _risen(
        "The share of responses whose lowest score is the last step's",
        "The steps before the answer please the PRM whatever the answer is, or the PRM judges the "
        "answer alone. Add the outcome as a reward at the end, or count a step's reward only "
        "where the outcome agrees.",
        lambda s: s.last_lowest,
    ),
    "steps": _by_factor(
        "Steps of a response",
        "Trivial right steps are added where the rewards of steps are summed. Take the min-form, "
        "clip or delta rewards, or differences of scores (progress).",
        "Step ends are avoided where a sum of negative rewards or a baseline by steps punishes "
        "them, or the response stops before its answer. Take a baseline by tokens, add the "
        "outcome as a reward at the end, or cut steps by another rule than a separator.",
    ),
    "length": _by_factor(
        "Tokens of a response",
        "More tokens earn more where rewards are summed over them. Normalise rewards by length, "
        "or let overlong responses lose reward; look whether accuracy rises with it.",
        "Responses stop early: the few steps that are left score well, or the answer is left "
        "out. Add the outcome as a reward at the end.",
    ),
    "repetition": _risen(
        "Repetition (steps or runs of tokens that stood in the response before)",
        "Steps known to be right are said again. Take the min-form or differences of scores "
        "(progress) in place of a sum; lower the learning rate if the text falls apart.",
        lambda s: s.repetition,
    ),
    "truncated": _risen(
        "The share of responses cut off at the limit of tokens",
        "They have no answer to be judged. Raise the limit, leave cut responses out of the loss, "
        "or let overlong ones lose reward.",
        lambda s: s.truncated,
    ),
    "unscored": _risen(
        "The share of responses without a score",
        "The policy writes what the PRM cannot read, and what is not scored teaches nothing. "
        "Look at the reasons; let such responses have the lowest reward.",
        lambda s: s.unscored,
    ),
    "entropy": _entropy,
    "kl": _kl,
}
