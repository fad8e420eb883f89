"""A language model that learns from tokens that were drawn: their log-probabilities, and steps.

All sequences of a pass lie in one forest (`prmkit.training.forward`): the question is computed
once for all responses to it, and so is whatever they begin with alike; nothing is padded.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, nullcontext
from copy import copy
from typing import TYPE_CHECKING, Any, NamedTuple

from prmkit.checkpoints import start_causal_lm, start_token_classifier
from prmkit.errors import PrmkitError
from prmkit.rl.rollouts import Rollout, Turn
from prmkit.rl.team import Team
from prmkit.training import forward
from prmkit.training.log_probs import CHUNK, logits_of
from prmkit.training.trees import plant

if TYPE_CHECKING:
    from pathlib import Path

    from torch import Tensor


class Machine(NamedTuple):
    """Where and how passes run.

    Attributes:
        device: cpu or cuda.
        bf16: whether passes are in bfloat16; weights are float32 in any case.
        tokens: of a pass at most, where one sequence has no more.
        team: who else computes; each process does a share.
    """

    device: str
    bf16: bool
    tokens: int
    team: Team = Team()

    def passing(self) -> AbstractContextManager[Any]:
        """The precision of passes."""
        import torch

        if not self.bf16:
            return nullcontext()
        return torch.autocast(self.device.partition(":")[0], dtype=torch.bfloat16)


class Asked(NamedTuple):
    """Tokens after a prompt, of which each is asked how likely it is.

    Attributes:
        prompt: what comes before, at least one token.
        ids: the tokens that are asked about.
        turns: where they were drawn in several turns, those after the first.
    """

    prompt: tuple[int, ...]
    ids: tuple[int, ...]
    turns: tuple[Turn, ...] = ()

    @property
    def n_tokens(self) -> int:
        """Tokens that a pass computes, unless it shares some with others."""
        return len(self.prompt) + len(self.ids) + sum(len(turn.more) for turn in self.turns)

    def texts(self) -> tuple[list[list[int]], list[list[int]]]:
        """What was read and drawn, and before which of its tokens stand those asked about.

        It is one text where the context of each turn begins with all of the turn before. Else
        another begins there, so that each token has before it what it was drawn after.

        Returns:
            The texts, and of each the places before the tokens asked about, in order.
        """
        first = len(self.ids) - sum(turn.n for turn in self.turns)
        text = [*self.prompt, *self.ids[:first]]
        texts, places, at = [text], [[*range(len(self.prompt) - 1, len(text) - 1)]], first
        for turn in self.turns:
            if turn.kept < len(text):
                text = text[: turn.kept]
                texts.append(text)
                places.append([])
            text += turn.more
            start = len(text) - 1
            text += self.ids[at : at + turn.n]
            places[-1] += range(start, start + turn.n)
            at += turn.n
        return texts, places


def sequences(rollouts: Sequence[Rollout]) -> list[Asked]:
    """The responses as sequences."""
    return [Asked(one.prompt, one.ids, one.turns) for one in rollouts]


def passes(items: Sequence[Asked], most: int, together: int = 1) -> list[list[int]]:
    """Sequences of at most `most` tokens a pass; neighbours, which share their question.

    Args:
        items: the sequences.
        most: tokens, unless the least that stays together has more.
        together: each so many, from the first on, are never torn apart.
    """
    found: list[list[int]] = []
    held = 0
    for at in range(0, len(items), together):
        some = range(at, min(at + together, len(items)))
        n = sum(items[i].n_tokens for i in some)
        if not found or held + n > most:
            found.append([])
            held = 0
        found[-1] += some
        held += n
    return found


class Learner:
    """Weights in float32, an optimiser for them, and passes over forests.

    Args:
        model: a transformers model, whose attention is replaced.
        machine: where it is to run.
        learning_rate: of AdamW; None for a model that does not learn.
        max_grad_norm: gradients are cut to it.
        warmup: steps in which the learning rate rises.
    """

    def __init__(
        self,
        model: Any,
        machine: Machine,
        learning_rate: float | None = None,
        max_grad_norm: float = 1.0,
        warmup: int = 0,
    ):
        import torch

        forward.install()
        self.model = model.float().to(machine.device).eval()
        self.model.set_attn_implementation(forward.NAME)
        self.machine, self._norm = machine, max_grad_norm
        self.optimizer: Any = None
        self.scheduler: Any = None
        if learning_rate is None:
            self.model.requires_grad_(False)
            return
        self.optimizer = torch.optim.AdamW(
            self.model.parameters(), lr=learning_rate, weight_decay=0.0
        )
        self.scheduler = torch.optim.lr_scheduler.LambdaLR(
            self.optimizer, lambda n: min((n + 1) / (warmup + 1), 1.0)
        )

    def hidden(self, items: Sequence[Asked]) -> Tensor:
        """[L, H] hidden states before each token that is asked about, sequence after sequence."""
        import torch

        texts, wanted = [], []
        for one in items:
            own, places_in_own = one.texts()
            texts += own
            wanted += places_in_own
        forest = plant(texts, wanted)
        body = getattr(self.model, self.model.base_model_prefix)
        with self.machine.passing():
            rows = forward.hidden_states(body, forest)
        places = torch.tensor([place for of_one in forest.places for place in of_one])
        return rows[places.to(rows.device)]

    def own_passes(self, items: Sequence[Asked], together: int = 1) -> list[list[int]]:
        """This process' passes over some sequences, by their numbers; see `passes`."""
        lengths = [one.n_tokens for one in items]
        weights = [sum(lengths[at : at + together]) for at in range(0, len(items), together)]
        share = self.machine.team.share_by(weights)
        first = share.start * together
        own = items[first : share.stop * together]
        return [
            [first + i for i in numbers] for numbers in passes(own, self.machine.tokens, together)
        ]

    def read_by(
        self,
        numbers: Callable[[Sequence[Asked]], Tensor],
        k: int,
        items: Sequence[Asked],
        width: int,
    ) -> Tensor:
        """[K, B, T] numbers of all sequences, on the CPU; no gradient.

        Args:
            numbers: [K, L] of all tokens of one pass.
            k: K.
            items: B sequences.
            width: T.
        """
        import torch

        found = torch.zeros(k, len(items), width)
        with torch.no_grad():
            for chosen in self.own_passes(items):
                some = [items[i] for i in chosen]
                if not any(one.ids for one in some):
                    continue
                told = numbers(some).float().cpu()
                for i, own in zip(chosen, _by_sequence(told, some), strict=True):
                    found[:, i, : own.shape[1]] = own
        return self.machine.team.add(found)

    def step(self) -> float:
        """One step of the optimiser; the norm of the gradients before they are cut.

        Raises:
            PrmkitError: if that is no number; the weights stay what they are.
        """
        import torch

        self.machine.team.add_gradients(self.model)
        norm = float(torch.nn.utils.clip_grad_norm_(self.model.parameters(), self._norm))
        if not math.isfinite(norm):
            raise PrmkitError(
                f"the norm of the gradients is {norm}; a lower learning rate may help, or there "
                "are weights that are no numbers. The last checkpoint is from before"
            )
        self.optimizer.step()
        self.scheduler.step()
        self.optimizer.zero_grad(set_to_none=True)
        return norm


class Speaker(Learner):
    """A causal language model: how likely it is to write each token.

    Args:
        folder: where it is loaded from.
        machine: where it is to run.
        temperature: that divides its logits.
        learner: see `Learner`.
    """

    def __init__(
        self, folder: Path | str, machine: Machine, temperature: float = 1.0, **learner: Any
    ):
        super().__init__(start_causal_lm(folder), machine, **learner)
        self._temperature = temperature

    def at(self, temperature: float) -> Speaker:
        """The same weights at another temperature."""
        other = copy(self)
        other._temperature = temperature
        return other

    def alone(self) -> Speaker:
        """The same, read by this process alone."""
        other = copy(self)
        other.machine = self.machine._replace(team=Team())
        return other

    def log_probs(self, items: Sequence[Asked]) -> tuple[Tensor, Tensor]:
        """[L] log-probabilities of all tokens of one pass, and [L] entropies, without gradient."""
        import torch
        from torch.utils.checkpoint import checkpoint

        rows = self.hidden(items)
        wanted = torch.tensor([t for one in items for t in one.ids], device=rows.device)

        def of_some(some: Tensor, tokens: Tensor) -> tuple[Tensor, Tensor]:
            with self.machine.passing():
                logits = logits_of(self.model, some).float() / self._temperature
            logs = logits.log_softmax(-1)
            # Last, so that on the way back, where it is not needed, it is not computed again.
            wanted = logs.gather(1, tokens[:, None]).squeeze(1)
            with torch.no_grad():
                entropy = -(logs.exp() * logs).sum(-1)
            return wanted, entropy

        # The logits of all tokens at once would be the largest thing in memory.
        found = [
            checkpoint(of_some, some, tokens, use_reentrant=False)
            for some, tokens in zip(
                torch.split(rows, CHUNK), torch.split(wanted, CHUNK), strict=True
            )
        ]
        return torch.cat([p for p, _ in found]), torch.cat([e for _, e in found])

    def read(self, items: Sequence[Asked], width: int) -> tuple[Tensor, Tensor]:
        """[B, T] log-probabilities and entropies of all sequences, on the CPU; no gradient."""
        import torch

        found = self.read_by(lambda some: torch.stack(self.log_probs(some)), 2, items, width)
        return found[0], found[1]


class Critic(Learner):
    """The value of what is written so far, before each token.

    Args:
        folder: of the policy, whose body it begins with.
        machine: where it is to run.
        learner: see `Learner`.
    """

    def __init__(self, folder: Path | str, machine: Machine, **learner: Any):
        import torch

        model = start_token_classifier(folder, 1)
        with torch.no_grad():
            # So that nothing is expected of anything in the beginning, whatever the seed.
            model.score.weight.zero_()
            if model.score.bias is not None:
                model.score.bias.zero_()
        super().__init__(model, machine, **learner)

    def values(self, items: Sequence[Asked]) -> Tensor:
        """[L] values before all tokens of one pass."""
        rows = self.hidden(items)
        with self.machine.passing():
            found: Tensor = self.model.score(rows)[:, 0]
        return found.float()

    def read(self, items: Sequence[Asked], width: int) -> Tensor:
        """[B, T] the same of all sequences, on the CPU; no gradient."""
        return self.read_by(lambda some: self.values(some)[None], 1, items, width)[0]


def _by_sequence(numbers: Tensor, items: Sequence[Asked]) -> Iterator[Tensor]:
    """[K, L] of all tokens as [K, T] of each sequence."""
    at = 0
    for one in items:
        yield numbers[:, at : at + len(one.ids)]
        at += len(one.ids)


def mask_of(items: Sequence[Asked], like: Tensor) -> Tensor:
    """[B, T] where the tokens of sequences are, on the device of `like`."""
    import torch

    lengths = torch.tensor([len(one.ids) for one in items], device=like.device)
    places = torch.arange(max(len(one.ids) for one in items), device=like.device)
    return places[None] < lengths[:, None]


def padded(numbers: Tensor, items: Sequence[Asked]) -> Tensor:
    """[L] of all tokens of a pass as [B, T], zeros behind; gradients go through."""
    mask = mask_of(items, numbers)
    return numbers.new_zeros(mask.shape).masked_scatter(mask, numbers)


def learn(
    learner: Learner,
    items: Sequence[Asked],
    chosen: Sequence[int],
    loss: Callable[[list[int]], Tensor],
    together: int = 1,
) -> float:
    """Gradients of a loss that is a sum over passes, and a step.

    Args:
        learner: what learns.
        items: all sequences.
        chosen: which of them are learnt from.
        loss: of some sequences, by their numbers: their part of the whole loss.
        together: see `passes`.

    Returns:
        The norm of the gradients.
    """
    for numbers in learner.own_passes([items[i] for i in chosen], together):
        some = [chosen[n] for n in numbers]
        if any(items[i].ids for i in some):
            loss(some).backward()  # type: ignore[no-untyped-call]
    return learner.step()
