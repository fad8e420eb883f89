"""What a model learns: the seam between the loop and the kinds of models.

The loop runs a decoder over forests of sequences and divides a step's loss by its items; which head
is put on the hidden states, what is compared with what, and what an item is, an objective says.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple, Protocol

from prmkit.checkpoints import start_causal_lm
from prmkit.training.batches import BatchSettings
from prmkit.training.losses import LossName
from prmkit.training.parts import Part
from prmkit.training.targets import Example

if TYPE_CHECKING:
    from torch import Tensor


class Place(NamedTuple):
    """Where a run takes place.

    Attributes:
        base: the model that it starts from.
        folder: of its checkpoints.
        batches: how much goes through a model at once.
        rank: which process this is.
        world: of how many.
        bf16: whether its passes are in bfloat16.
    """

    base: Path
    folder: Path
    batches: BatchSettings = BatchSettings()
    rank: int = 0
    world: int = 1
    bf16: bool = False


class Objective(Protocol):
    """A loss with the head that it is for."""

    @property
    def loss(self) -> LossName:
        """Which loss."""

    @property
    def together(self) -> bool:
        """Whether what a step has of one problem must go through the model in one pass."""

    @property
    def n_classes(self) -> int | None:
        """Outputs of a token classifier; None of a language model."""

    def start(self, base: Path) -> Any:
        """The model to train, in float32 on the CPU."""

    def note(self, base: str) -> dict[str, Any]:
        """What a model's note says besides its family, kind and loss.

        Args:
            base: folder or id of the model that it was trained from.
        """

    def complete(self, examples: Sequence[Example], model: Any, place: Place) -> list[Example]:
        """The examples with what only a model can tell, before the first step.

        Args:
            examples: of the run.
            model: made by `start`, on the forest's attention.
            place: where the run takes place.
        """

    def head(self, model: Any) -> Any:
        """The layer behind the decoder that the loss needs."""

    def items(self, examples: Sequence[Example]) -> float:
        """What some examples, which go through the model together, count for in a step's mean."""

    def __call__(self, model: Any, rows: Tensor, part: Part) -> Tensor:
        """The sum of the loss over its items.

        Args:
            model: whose head is put on the rows.
            rows: [L, H] hidden states at the places of the part.
            part: what is right there.
        """


class NothingMore:
    """Of objectives that need no more than the examples; see `Objective`."""

    def note(self, base: str) -> dict[str, Any]:
        """See `Objective`."""
        del base
        return {}

    def complete(self, examples: Sequence[Example], model: Any, place: Place) -> list[Example]:
        """See `Objective`."""
        del model, place
        return list(examples)


class OfLanguageModel:
    """Of objectives whose model is a language model; see `Objective`."""

    @property
    def n_classes(self) -> int | None:
        """See `Objective`."""
        return None

    def start(self, base: Path) -> Any:
        """See `Objective`."""
        return start_causal_lm(base)

    def head(self, model: Any) -> Any:
        """See `Objective`."""
        return model.get_output_embeddings()
