"""The conditions under which a period is recorded, and what theory expects of it."""

from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np
import optax

from antisgd import theory
from antisgd.study.optimiser import described, heavy_ball_of, linear_system
from antisgd.study.settings import Settings

__all__ = ["Conditions", "conditions_of"]

_LAWS = {"without_replacement": theory.partial_last, "with_replacement": theory.with_replacement}
# Of λ_cross: below it a stationary covariance by Lyapunov's equation has lost too many digits.
_FLATTEST = 1e-4


class Conditions(NamedTuple):
    """What theory needs to know of an analysis period.

    Attributes:
        num_examples: N.
        batch_size: S.
        learning_rate: η of the period, inside the velocity.
        momentum: β, of heavy ball.
        epochs: length of the period.
        training_scheme: by which the batches before the period were drawn.
        optimizer: another optimiser than heavy ball, in words; empty for heavy ball.
        system: its matrices; None where it is not linear, and for heavy ball.
    """

    num_examples: int
    batch_size: int
    learning_rate: float
    momentum: float
    epochs: int
    training_scheme: str
    optimizer: str = ""
    system: theory.LinearOptimizer | None = None

    @property
    def steps_per_epoch(self) -> int:
        """M = ⌈N/S⌉."""
        return -(-self.num_examples // self.batch_size)

    @property
    def heavy_ball(self) -> bool:
        """Whether Eq. 1 is what moves the weights."""
        return not self.optimizer

    @property
    def has_theory(self) -> bool:
        """Whether the optimiser is linear."""
        return self.heavy_ball or self.system is not None

    @property
    def crossover(self) -> float:
        """λ_cross (Eq. 109b), of other linear optimisers 3/(M η_eff); nan without theory."""
        if self.heavy_ball:
            return theory.crossover_eigenvalue(
                self.learning_rate, self.momentum, self.steps_per_epoch
            )
        return self._scales[1]

    @property
    def max_correlation_time(self) -> float:
        """τ_SGD (Eq. 109a), update steps; of other linear optimisers see `linear_scales`."""
        if self.heavy_ball:
            return theory.max_correlation_time(self.momentum, self.steps_per_epoch)
        return self._scales[2]

    @property
    def _scales(self) -> tuple[float, float, float]:
        if self.system is None:
            return (np.nan, np.nan, np.nan)
        return theory.linear_scales(self.system, self.steps_per_epoch)

    def noise_law(self, scheme: str) -> theory.Noise:
        """The law of a sampling scheme; N need not be a multiple of S."""
        return _LAWS[scheme](self.num_examples, self.batch_size)

    @property
    def starting_law(self) -> theory.Noise:
        """The law that training left the weights in."""
        return self.noise_law(self.training_scheme)

    def stable(self, curvature: np.ndarray) -> np.ndarray:
        """Directions of positive curvature whose steps do not grow, bool [k]."""
        if self.heavy_ball:
            edge = 2 * (1 + self.momentum)
            return (curvature > 0) & (self.learning_rate * curvature < edge)
        if self.system is None:
            return np.zeros(np.shape(curvature), bool)
        A = self.system.free + np.asarray(curvature)[:, None, None] * self.system.curved
        return (curvature > 0) & (np.abs(np.linalg.eigvals(A)).max(axis=1) < 1)

    def stationary_variances(
        self, curvature: np.ndarray, law: theory.Noise
    ) -> tuple[np.ndarray, np.ndarray]:
        """Of weights and velocities per unit noise variance, [k] each; nan where unknown."""
        if self.heavy_ball:
            return theory.stationary_variances(curvature, self.learning_rate, self.momentum, law)
        found = np.full((2, np.size(curvature)), np.nan)
        known = self.stable(curvature) & (curvature > _FLATTEST * self.crossover)
        if known.any() and self.system is not None:
            P, lagged = theory.stationary_covariance(curvature[known], self.system, law)
            found[:, known] = P[:, 0, 0], 2 * (P - lagged)[:, 0, 0]
        return found[0], found[1]

    def window_variances(
        self, curvature: np.ndarray, law: theory.Noise, num_steps: int, **more: Any
    ) -> theory.WindowVariances:
        """`theory.window_variances` of the optimiser, along stable directions."""
        if self.system is not None:
            return theory.linear_window_variances(curvature, self.system, law, num_steps, **more)
        return theory.window_variances(
            curvature, self.learning_rate, self.momentum, law, num_steps, **more
        )

    def window_spread(
        self, curvature: np.ndarray, law: theory.Noise, num_steps: int, **more: Any
    ) -> theory.WindowSpread:
        """`theory.window_spread` of the optimiser, along stable directions."""
        if self.system is not None:
            return theory.linear_window_spread(curvature, self.system, law, num_steps, **more)
        return theory.window_spread(
            curvature, self.learning_rate, self.momentum, law, num_steps, **more
        )


def conditions_of(
    num_examples: int,
    settings: Settings,
    optimizer: Callable[[Any], optax.GradientTransformation] | None = None,
) -> Conditions:
    """The conditions of a study's analysis periods.

    Args:
        num_examples: N.
        settings: of the study.
        optimizer: that of the problem; None for heavy ball. One that is heavy ball, in whichever
            convention, has the η and β that it has.
    """
    rate = settings.final_learning_rate
    conditions = Conditions(
        num_examples, settings.batch_size, rate, settings.momentum, settings.analysis_epochs,
        settings.sampling[0],
    )  # fmt: skip
    if optimizer is None:
        return conditions
    system = linear_system(optimizer, rate)
    own = None if system is None else heavy_ball_of(system)
    if own is not None:
        return conditions._replace(learning_rate=own[0], momentum=own[1])
    words, _, _ = described(optimizer, rate).partition(";")
    return conditions._replace(optimizer=words, system=system)
