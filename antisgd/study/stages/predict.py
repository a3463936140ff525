"""The prediction without a free parameter: what a period will show, from θ_K alone (Sec. 5).

Hessian products and per-example gradients at θ_K and at a few drawn weights; no trajectory.
"""

import logging
from contextlib import closing
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.flatten_util import ravel_pytree

from antisgd import results, theory
from antisgd.lanczos import SpectralDensity
from antisgd.study import interruption
from antisgd.study.conditions import Conditions, conditions_of
from antisgd.study.problem import Problem
from antisgd.study.settings import Settings
from antisgd.study.stages import drawn
from antisgd.study.stages.value_checkpoint import Kept, ValueCheckpoint

__all__ = ["Prediction", "predict"]

# Below what two pairs leave uncertain, and the iterations that it may take.
TOLERANCE, ITERATIONS = 0.05, 15
# Of λ_cross: flat within an epoch.
FLAT = 1e-3
# Iterations that most take, for the time that is left.
USUAL = 4

_log = logging.getLogger(__name__)


class Prediction(NamedTuple):
    """What is predicted of the period of one scheme, along p of the k directions.

    Attributes:
        places: among all that were found, [p]: positive stable curvature, and noise.
        start_noise: σ_δg² at θ_K, [p].
        curvature: λ averaged over the weights that the period visits, [p]; all [p] empty where
            refused.
        noise: σ_δg², averaged alike, [p]; of reshuffled examples as they are drawn, see own_step.
        weight: σ_θ² in the window, mean velocity removed, [p].
        velocity: σ_v², the same, [p].
        correlation_time: 2·weight/velocity, [p].
        time_band: 95 % of directions lie within, over correlation_time, [p, 2].
        measured: places within [p] of the directions that were averaged, [n].
        pair_curvature: averaged over θ_K, at those, from each pair of draws alone, [pairs, n].
        pair_noise: the same of the noise.
        changing: share of the noise that does not cancel over an epoch because the examples'
            gradients change within it, mean over p, from each pair of draws alone, [pairs]; empty
            where the law's epochs do not cancel.
        own_step: noise of examples drawn before their own step of the epoch over that of all, [p];
            1 where the scheme does not draw each once an epoch.
        length_outside: of what is drawn outside the k directions, r.m.s.; nan: nothing was.
        iterations: until the averages were consistent.
        refused: why there is no prediction; empty if there is one.
    """

    places: np.ndarray
    start_noise: np.ndarray
    curvature: np.ndarray
    noise: np.ndarray
    weight: np.ndarray
    velocity: np.ndarray
    correlation_time: np.ndarray
    time_band: np.ndarray
    measured: np.ndarray
    pair_curvature: np.ndarray
    pair_noise: np.ndarray
    changing: np.ndarray
    own_step: np.ndarray
    length_outside: float
    iterations: int
    refused: str


def predict(
    problem: Problem,
    settings: Settings,
    params: Any,
    vectors: np.ndarray,
    eigenvalues: np.ndarray,
    density: SpectralDensity | None,
    folder: Path,
) -> dict[str, Prediction]:
    """Scheme → what its period will show; kept in prediction_SCHEME.npz, where it is read again.

    Args:
        problem: loss and examples.
        settings: of the study.
        params: θ_K.
        vectors: directions, [k, d].
        eigenvalues: [k].
        density: of all eigenvalues, for the spread outside the k directions; None: none is drawn.
        folder: of the network.
    """
    made, C, aside = {}, None, None
    for scheme in settings.sampling:
        path = folder / f"prediction_{scheme}.npz"
        made_of = {"pairs": len(eigenvalues), "epochs": settings.analysis_epochs}
        if not _holds(path, made_of, density is not None):
            if C is None:
                C = drawn.noise_at(problem, settings, params, vectors)
                if density is not None:
                    aside = drawn.noise_aside(problem, settings, params, vectors)
            one = _predicted(
                problem, settings, params, vectors, eigenvalues, C, aside, density, scheme,
                folder / "checkpoints" / path.name,
            )  # fmt: skip
            results.write_arrays(
                path, **made_of, with_density=density is not None, **one._asdict()
            )  # fmt: skip
        arrays = results.read_arrays(path)
        found: dict[str, Any] = {name: arrays[name] for name in Prediction._fields}
        for name, kind in (("length_outside", float), ("iterations", int), ("refused", str)):
            found[name] = kind(found[name])
        made[scheme] = Prediction(**found)
        if made[scheme].refused:
            _log.warning("no prediction %s: %s", scheme, made[scheme].refused)
    return made


def _holds(path: Path, made_of: dict[str, int], drawn: bool) -> bool:
    """Whether it is of these directions and epochs, with the density where there is one now."""
    if not path.exists():
        return False
    arrays = results.read_arrays(path)
    same = all(name in arrays and int(arrays[name]) == value for name, value in made_of.items())
    whole = all(name in arrays for name in Prediction._fields)
    return same and whole and (bool(arrays["with_density"]) or not drawn)


def _predicted(
    problem: Problem,
    settings: Settings,
    params: Any,
    vectors: np.ndarray,
    eigenvalues: np.ndarray,
    C: np.ndarray,
    aside: jax.Array | None,
    density: SpectralDensity | None,
    scheme: str,
    checkpoint: Path,
) -> Prediction:
    conditions = conditions_of(problem.num_examples, settings, problem.optimizer)
    law, edge = conditions.noise_law(scheme), 2 * (1 + conditions.momentum)
    rated = conditions.learning_rate * eigenvalues
    index = np.flatnonzero((rated > 0) & (rated < edge) & (C > 0))
    noise = law.variance * C[index]
    outside, length = (0.0, 0.0), np.nan
    if density is not None and aside is not None:
        outside = _spread_outside(
            conditions, law, density, eigenvalues, problem.noiseless_curvature
        )
        length = outside[0] * np.sqrt(np.mean(np.sum(np.square(aside), axis=1)))
    if not index.size:
        return _refusal(index, noise, length, "no direction has curvature and noise")
    flat, restore = ravel_pytree(params)
    drawing = drawn.Drawing(
        problem, settings.microbatch, flat, restore, jnp.asarray(vectors[index]),
        eigenvalues[index], noise, drawn.spread_out(index.size), law.variance, aside, outside,
        jax.random.key(settings.seed),
    )  # fmt: skip
    try:
        return _solved(drawing, conditions, scheme, length, index, checkpoint)
    except (ArithmeticError, ValueError) as error:
        return _refusal(index, noise, length, str(error))


def _spread_outside(
    conditions: Conditions,
    law: theory.Noise,
    density: SpectralDensity,
    eigenvalues: np.ndarray,
    noiseless: float,
) -> tuple[float, float]:
    """Deviation per unit noise of an example outside, over the period and within an epoch.

    Of noise ∝ |λ − noiseless| over the rest of the density.
    """
    rest = density.nodes < eigenvalues.min()
    if not rest.any():
        return 0.0, 0.0
    nodes, noise = density.nodes[rest], density.weights[rest]
    noise = noise * np.abs(nodes - noiseless)
    seen = theory.visited_weights(
        nodes, conditions.learning_rate, conditions.momentum, law,
        conditions.epochs * conditions.steps_per_epoch,
    ).variance  # fmt: skip
    both = np.array([seen, _within_epoch(conditions, law, nodes)])
    period, epoch = np.sqrt(law.variance * both @ noise / noise.sum())
    return float(period), float(epoch)


def _within_epoch(conditions: Conditions, law: theory.Noise, curvature: np.ndarray) -> np.ndarray:
    """Variance of the weights about the mean of an epoch, per unit noise variance, [k].

    The flattest and those of negative curvature do within an epoch what one of none does.
    """
    bent = np.maximum(curvature, FLAT * conditions.crossover)
    return conditions.window_variances(bent, law, conditions.steps_per_epoch, drift="mean").weight


def _solved(
    drawing: drawn.Drawing,
    conditions: Conditions,
    scheme: str,
    length: float,
    index: np.ndarray,
    checkpoint: Path,
) -> Prediction:
    """The fixed point, what of the noise does not cancel there, and what the window shows."""
    made_of = {
        "eigenvalues": drawing.eigenvalues, "noise": drawing.noise, "outside": drawing.outside,
        "epochs": conditions.epochs,
    }  # fmt: skip
    law, cancels = conditions.noise_law(scheme), scheme == "without_replacement"
    draws = 2 * drawn.PAIRS * (USUAL + cancels)
    with (
        interruption.postponed() as asked,
        closing(
            ValueCheckpoint(checkpoint, made_of, asked, checkpoint.stem.replace("_", " "), draws)
        ) as kept,
    ):
        averages, last = drawn.make_averages(drawing, kept)
        found = theory.visited_averages(
            averages, len(drawing.eigenvalues), conditions.learning_rate, conditions.momentum,
            law, conditions.epochs * conditions.steps_per_epoch, tolerance=TOLERANCE,
            max_iterations=ITERATIONS,
        )  # fmt: skip
        shares, own_step = np.zeros((0, 1)), np.ones(index.size)
        if cancels:
            spread = found.noise * _within_epoch(conditions, law, found.curvature)
            shares = drawn.changing_shares(drawing, found.mean, spread, kept)
            own_step = _own_step(drawing, conditions, found.mean, kept)
    changing, found = shares.mean(axis=1), found._replace(noise=found.noise * own_step)
    return _shown(conditions, scheme, drawing, found, last[0], changing, own_step, length, index)


def _own_step(
    drawing: drawn.Drawing, conditions: Conditions, mean: np.ndarray, kept: Kept
) -> np.ndarray:
    beta = conditions.momentum
    full_step = conditions.learning_rate / ((1 - beta) * conditions.batch_size)
    share = theory.own_step_share(conditions.steps_per_epoch, beta)
    return drawn.own_step_noise(drawing, mean, full_step, share, kept)


def _shown(
    conditions, scheme, drawing, found, pairs, changing, own_step, length, index
) -> Prediction:
    """What the window shows at the averaged curvature and noise, as far as that cancels."""
    steps = conditions.epochs * conditions.steps_per_epoch
    law, start = conditions.noise_law(scheme), conditions.starting_law
    if changing.size:
        law = theory.uncancelled(law, float(changing.mean()))
        start = law if conditions.training_scheme == scheme else start
    window = found.curvature, conditions.learning_rate, conditions.momentum, law, steps
    seen = theory.window_variances(*window, start=start)
    band = theory.window_spread(*window, start=start, quantiles=(0.025, 0.975)).correlation_time
    return Prediction(
        index, drawing.noise, found.curvature, found.noise, found.noise * seen.weight,
        found.noise * seen.velocity, seen.correlation_time, band, drawing.measured,
        pairs[:, 0], pairs[:, 1], changing, own_step, length, found.iterations, "",
    )  # fmt: skip


def _refusal(index: np.ndarray, noise: np.ndarray, length: float, why: str) -> Prediction:
    nothing, two = np.zeros(0), np.zeros((0, 2))
    return Prediction(
        index, noise, nothing, nothing, nothing, nothing, nothing, two, np.zeros(0, int),
        two.T, two.T, nothing, nothing, length, 0, why,
    )  # fmt: skip
