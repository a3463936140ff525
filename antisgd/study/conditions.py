"""The conditions under which a period is recorded: all that theory needs to know of a study."""

from typing import NamedTuple

from antisgd import theory
from antisgd.study.settings import Settings

__all__ = ["Conditions", "conditions_of"]

_LAWS = {"without_replacement": theory.partial_last, "with_replacement": theory.with_replacement}


class Conditions(NamedTuple):
    """What theory needs to know of an analysis period.

    Attributes:
        num_examples: N.
        batch_size: S.
        learning_rate: η of the period, inside the velocity.
        momentum: β.
        epochs: length of the period.
        training_scheme: by which the batches before the period were drawn.
    """

    num_examples: int
    batch_size: int
    learning_rate: float
    momentum: float
    epochs: int
    training_scheme: str

    @property
    def steps_per_epoch(self) -> int:
        """M = ⌈N/S⌉."""
        return -(-self.num_examples // self.batch_size)

    @property
    def crossover(self) -> float:
        """λ_cross (Eq. 109b)."""
        return theory.crossover_eigenvalue(self.learning_rate, self.momentum, self.steps_per_epoch)

    @property
    def max_correlation_time(self) -> float:
        """τ_SGD (Eq. 109a), update steps."""
        return theory.max_correlation_time(self.momentum, self.steps_per_epoch)

    def noise_law(self, scheme: str) -> theory.Noise:
        """The law of a sampling scheme; N need not be a multiple of S."""
        return _LAWS[scheme](self.num_examples, self.batch_size)

    @property
    def starting_law(self) -> theory.Noise:
        """The law that training left the weights in."""
        return self.noise_law(self.training_scheme)


def conditions_of(num_examples: int, settings: Settings) -> Conditions:
    """The conditions of a study's analysis periods."""
    return Conditions(
        num_examples, settings.batch_size, settings.final_learning_rate, settings.momentum,
        settings.analysis_epochs, settings.sampling[0],
    )  # fmt: skip
