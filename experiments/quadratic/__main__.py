"""The theory against SGD on quadratics with really sampled batches (Eq. 2, 3, 6; Fig. 3; beyond).

    python -m experiments.quadratic        some minutes on 2 cores, no data

Measured means over independent replicas are compared with theory in standard errors, z:
(a) variances and correlation times for every way to draw batches and three optimisers, (b) noise
autocorrelations, (c) the position within the epoch, (d) finite windows, (e) Fig. 3.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import jax
import numpy as np
import optax

from antisgd import heavy_ball, results, sampling, theory
from antisgd.plotting import quadratic as plots
from antisgd.study.fields import setting
from experiments import cli, outcome
from experiments.quadratic import simulations as sim
from experiments.quadratic import summary as texts

RATE, MOMENTUM, AVERAGE_DECAY = 0.1, 0.9, 0.9
BATCH, STEPS = 4, 20
EXAMPLES, RAGGED = BATCH * STEPS, BATCH * STEPS + 2
LAG_EPOCHS = 3
DRIFTS = ("none", "mean", "mean_velocity", "line")


class Size(NamedTuple):
    """How much is simulated; the defaults are the experiment's.

    Attributes:
        replicas: independent runs of SGD.
        curvatures: side by side.
        epochs: of the recorded window of (a) and (b).
        window_epochs: of the windows of (c) and (d).
        settle_epochs: before them; the flattest direction relaxes in 3.3 epochs.
        chunk: replicas simulated together.
        dimension: of Fig. 3.
        isotropic_steps: M of Fig. 3, whose window is ten epochs.
        isotropic_batch: S of Fig. 3.
    """

    replicas: int = 1000
    curvatures: int = 24
    epochs: int = 20
    window_epochs: int = 10
    settle_epochs: int = 30
    chunk: int = 250
    dimension: int = 2500
    isotropic_steps: int = 1200
    isotropic_batch: int = 3


class Part(NamedTuple):
    """What a part found: label → quantity → comparison, and the curvatures or lags beside it."""

    x: np.ndarray
    found: dict[str, dict[str, sim.Comparison]]


@dataclass(frozen=True, kw_only=True)
class Options:
    """The key and the folder."""

    seed: int = setting(0, "Key of everything random.")
    output_dir: str = setting("runs/quadratic", "Run folder.")
    overwrite: bool = setting(False, "Start afresh in a run folder that holds something.")


def main(options: Options) -> None:
    """Runs all parts with the flags' settings."""
    run(Path(options.output_dir), options.seed, Size(), overwrite=options.overwrite)


def run(folder: Path, seed: int, size: Size, *, overwrite: bool = False) -> None:
    """Simulates, compares and writes arrays, figures, summary.json and the report."""
    with results.held(folder):
        settings = {"seed": seed} | size._asdict()
        results.open_run(folder, settings, overwrite=overwrite)
        results.describe(folder, data="quadratic losses, no pictures")
        keys = jax.random.split(jax.random.key(seed), 3)
        table = laws(keys[0])
        noise = sampled_noise(keys[1], table, size)
        parts = {
            "variances": variances(table, noise, size),
            "autocorrelations": autocorrelations(table, noise, size),
        } | windows(table, noise, size)
        fig03 = isotropic(keys[2], size)
        for name, part in parts.items():
            results.write_arrays(folder / f"{name}.npz", x=part.x, **_named(part))
        results.write_arrays(folder / "isotropic.npz", **fig03)
        rows = [one for name, part in parts.items() for one in texts.part_rows(name, part)]
        rows += [*texts.isotropic_rows(fig03), texts.overall_row(parts)]
        panels = {f"quadratic_{name}": plots.BUILDERS[name](part) for name, part in parts.items()}
        outcome.write(folder, rows, panels | {"fig03": plots.two_bases(fig03)})


def _named(part: Part) -> dict[str, np.ndarray]:
    return {
        f"{label}/{quantity}/{field}": getattr(one, field)
        for label, quantities in part.found.items()
        for quantity, one in quantities.items()
        for field in ("measured", "error", "expected")
    }


def laws(key: jax.Array) -> dict[str, sim.Law]:
    """Every way to draw batches, N = 80 or, where ragged, 82 examples, S = 4."""
    even, ragged = (sim.examples(key, n) for n in (EXAMPLES, RAGGED))

    def law(scheme, gradients, noise, cycle):
        stream = sim.sampled_stream(scheme, gradients, BATCH, noise.variance)
        return sim.Law(stream, noise, cycle)

    plain = {
        "with_replacement": (theory.with_replacement(EXAMPLES, BATCH), 1),
        "independent_batches": (theory.independent_batches(EXAMPLES, BATCH), 1),
        "without_replacement": (theory.without_replacement(STEPS, BATCH), STEPS),
        "shuffle_once": (theory.shuffle_once(STEPS, BATCH), STEPS),
        "flip_flop": (theory.flip_flop(STEPS, BATCH), 2 * STEPS),
    }
    table = {name: law(getattr(sampling, name), even, *rest) for name, rest in plain.items()}
    table["drop_last"] = law(
        sampling.drop_last, ragged, theory.drop_last(RAGGED, BATCH), RAGGED // BATCH
    )
    table["partial_last"] = law(
        sampling.without_replacement, ragged, theory.partial_last(RAGGED, BATCH), STEPS + 1
    )
    table["spanning_batches"] = law(
        sampling.spanning_batches, ragged, theory.spanning_batches(RAGGED, BATCH),
        RAGGED // np.gcd(RAGGED, BATCH),
    )  # fmt: skip
    table["anti_pgd"] = sim.Law(sim.anti_pgd_stream(even), theory.anti_pgd(), 1)
    return table


def curvatures(size: Size) -> np.ndarray:
    """λ from a tenth of λ_cross to near the stability edge of Nesterov momentum."""
    cross = theory.crossover_eigenvalue(RATE, MOMENTUM, STEPS)
    edge = 2 * (1 + MOMENTUM) / (1 + 2 * MOMENTUM) / RATE
    return np.geomspace(cross / 10, 0.9 * edge, size.curvatures)


def sampled_noise(key: jax.Array, table: dict[str, sim.Law], size: Size) -> dict[str, np.ndarray]:
    """Each law's noise for all parts, [steps, replicas]: to settle, a window, and lags beyond."""
    steps = (size.settle_epochs + size.epochs + 2 + LAG_EPOCHS) * STEPS + 1
    return {
        name: sim.noise_stream(law.stream, jax.random.fold_in(key, i), steps, size.replicas)
        for i, (name, law) in enumerate(table.items())
    }


def _whole_cycles(law: sim.Law, size: Size) -> int:
    return law.cycle * round(size.epochs * STEPS / law.cycle)


def _chunks(noise: np.ndarray, size: Size) -> Iterator[np.ndarray]:
    for start in range(0, size.replicas, size.chunk):
        yield noise[:, start : start + size.chunk]


def variances(table: dict[str, sim.Law], noise: dict[str, np.ndarray], size: Size) -> Part:
    """(a) Stationary variances and correlation times, [k], against Eq. 6 and its kin."""
    x, settle = curvatures(size), size.settle_epochs * STEPS
    plain = heavy_ball.heavy_ball(RATE, MOMENTUM)
    nesterov = optax.sgd(RATE, MOMENTUM, nesterov=True)
    cases = [(name, name, plain, 0.0) for name in table]
    for name in ("without_replacement", "with_replacement"):
        cases += [(f"nesterov_{name}", name, nesterov, 0.0)]
        cases += [(f"average_{name}", name, plain, AVERAGE_DECAY)]
    found = {}
    for label, name, optimizer, decay in cases:
        steps = settle + _whole_cycles(table[name], size)
        samples = [
            sim.squares(sim.simulate(chunk, x, optimizer, settle, decay))
            for chunk in _chunks(noise[name][:steps], size)
        ]
        found[label] = _compared(samples, *_expected(label, x, table[name].noise))
    return Part(x, found)


def _compared(samples: list, weight: np.ndarray, velocity: np.ndarray) -> dict:
    theta, v = (np.concatenate(one) for one in zip(*samples, strict=True))
    return {
        "weight": sim.compare(theta, weight),
        "velocity": sim.compare(v, velocity),
        "correlation_time": sim.compare_ratio(2 * theta, v, 2 * weight / velocity),
    }


def _expected(label: str, x: np.ndarray, noise: theory.Noise) -> tuple[np.ndarray, np.ndarray]:
    """Variances of the weights, or of their average, and of their steps."""
    if not label.startswith(("nesterov", "average")):
        return theory.stationary_variances(x, RATE, MOMENTUM, noise)
    nesterov = label.startswith("nesterov")
    system = theory.heavy_ball_system(RATE, MOMENTUM, nesterov=nesterov)
    system = system if nesterov else theory.with_weight_average(system, AVERAGE_DECAY)
    covariance, lagged = theory.stationary_covariance(x, system, noise)
    place = 0 if nesterov else -1
    weight = covariance[:, place, place]
    return weight, 2 * (weight - lagged[:, place, place])


def autocorrelations(table: dict[str, sim.Law], noise: dict[str, np.ndarray], size: Size) -> Part:
    """(b) Noise autocorrelations over three epochs of lags, in units of the theory's variance."""
    lags = np.arange(LAG_EPOCHS * STEPS + 1)
    found = {}
    for name, law in table.items():
        recorded = noise[name][size.settle_epochs * STEPS :]
        products = sim.lagged_products(recorded, _whole_cycles(law, size), lags[-1])
        expected = theory.autocorrelation(law.noise, lags)
        found[name] = {"autocorrelation": sim.compare_difference(products, expected)}
    return Part(lags, found)


def windows(table: dict[str, sim.Law], noise: dict[str, np.ndarray], size: Size) -> dict[str, Part]:
    """(c) Variances by position within the epoch, (d) in finite windows that start with one."""
    x, settle = curvatures(size), size.settle_epochs * STEPS
    end = settle + size.window_epochs * STEPS
    optimizer = heavy_ball.heavy_ball(RATE, MOMENTUM)
    plain, white = "without_replacement", "with_replacement"
    found, phase = {}, {}
    regimes = {plain: (plain, plain), white: (white, white), "switched": (plain, white)}
    for label, (before, after) in regimes.items():
        joined = np.concatenate([noise[before][:settle], noise[after][settle:end]])
        drifts, positions = {drift: [] for drift in DRIFTS}, []
        for chunk in _chunks(joined, size):
            weights = sim.simulate(chunk, x, optimizer, settle)
            positions.append(sim.position_squares(weights, STEPS))
            for drift in DRIFTS:
                drifts[drift].append(sim.window_squares(weights, drift))
        law, start = table[after].noise, table[before].noise
        for drift in DRIFTS:
            expected = theory.window_variances(
                x, RATE, MOMENTUM, law, end - settle, drift=drift, start=start
            )
            found[f"{label}_{drift}"] = _compared(drifts[drift], *expected[:2])
        if label == plain:
            phase[label] = _compared(positions, *theory.phase_variances(x, RATE, MOMENTUM, law))
    return {"phase": Part(x, phase), "windows": Part(x, found)}


def isotropic(key: jax.Array, size: Size) -> dict[str, np.ndarray]:
    """(e) Isotropic quadratic and noise: both bases, [d] each, and the expected values (Fig. 3).

    η λ is that of λ_cross. Σ and Σ_v are those of the window, about their means.
    """
    M, settle = size.isotropic_steps, 4 * size.isotropic_steps
    noise = sim.isotropic_noise(key, size.dimension, size.isotropic_batch, M, 14)
    curvature = np.array([theory.crossover_eigenvalue(RATE, MOMENTUM, M)])
    optimizer = heavy_ball.heavy_ball(RATE, MOMENTUM)
    weights = sim.simulate(noise, curvature, optimizer, settle)[:, :, 0].astype(np.float32)
    velocities = np.diff(weights, axis=0)
    weights -= weights.mean(axis=0)
    velocities -= velocities.mean(axis=0)
    own = {"weight": (weights**2).mean(axis=0), "velocity": (velocities**2).mean(axis=0)}
    values, vectors = np.linalg.eigh(weights.T @ weights / len(weights))
    principal = {
        "weight": values[::-1],
        "velocity": ((velocities @ vectors[:, ::-1]) ** 2).mean(axis=0),
    }
    law = theory.without_replacement(M)
    weight, velocity = (
        theory.window_variances(curvature, RATE, MOMENTUM, law, 10 * M, drift=drift)[i]
        for i, drift in enumerate(("mean", "mean_velocity"))
    )
    return (
        {f"own_{name}": value for name, value in own.items()}
        | {f"principal_{name}": value for name, value in principal.items()}
        | {"expected_weight": weight, "expected_velocity": velocity}
    )


if __name__ == "__main__":
    cli.run(main, Options())
