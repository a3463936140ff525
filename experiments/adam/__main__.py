"""Adam and RMSProp on a small transformer, beside the theory at frozen second moments.

    python -m experiments.adam

Trains to a minimum, then records along the leading eigenvectors of D^{-½}HD^{-½} while the second
moments are frozen (the theory has to hold), as they are (b2 0.999), and fast (b2 0.9 of Adam, where
it need not), without and with replacement, from the same weights. The windows' variances stand
beside the theory in the metric of the begin, and in the one that the period had on average.
Sequences of a Markov chain; minutes on 2 cores.
"""

from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import jax
import numpy as np

from antisgd import plotting, results
from antisgd.study.findings.rows import Panels, Rows, mean_row, row
from antisgd.study.settings import check_bounds, setting
from experiments import cli, outcome
from experiments.adam import network, optimisers, period

__all__ = ["ARMS", "Options", "main"]

ARMS = {"adam": ("frozen", "slow", "fast"), "rmsprop": ("frozen", "slow")}
TITLES = {"adam": "Adam", "rmsprop": "RMSProp"}
COLUMNS = {"frozen": "frozen", "slow": "$b_2$ = {memory:g}", "fast": "$b_2$ = {fast_memory:g}"}
SCHEMES = ("without_replacement", "with_replacement")
SHOWN = "sequences of a Markov chain"
AGREEMENT = {
    "weight": "weight variance", "velocity": "velocity variance",
    "correlation_time": "correlation time",
}  # fmt: skip
THEORIES = {"begin": "at the begin of the period", "averaged": "at its mean noise and mean step"}
CHANGES = {
    "noise_change": "mean noise variance over that of the begin",
    "step_change": "mean step over that of the begin",
    "curvature_change": "curvature at the end over the begin",
    "fluctuation": "deviation of 1/D in time over its mean, r.m.s. over weights",
}
Networks = list[dict[str, np.ndarray]]
# Bins a decade of λ/λ_cross.
PER_DECADE = 3


@dataclass(frozen=True, kw_only=True)
class Options:
    """The training and what is recorded of it."""

    num_examples: int = setting(200, "N, sequences.", least=10)
    batch_size: int = setting(10, "S.", least=1)
    first_learning_rate: float = setting(3e-3, "Of the first half of the training.")
    learning_rate: float = setting(5e-5, "Eta at its end and in the periods.")
    memory: float = setting(0.999, "b2: share of the second moments that a step leaves.")
    fast_memory: float = setting(0.9, "The same of the arm 'fast'.")
    epochs: int = setting(1500, "Epochs before the periods.", least=1)
    windows: int = setting(10, "Windows of a period, after one that settles.", least=1)
    window_epochs: int = setting(10, "Epochs of a window.", least=1)
    eigenpairs: int = setting(40, "Directions.", least=1)
    seeds: int = setting(3, "Networks of each optimiser.", least=1)
    output_dir: str = setting("runs/adam", "Run folder.", decides=False)


OPTIONS = (Options(),)


def main(options: Options) -> None:
    """Trains, records and compares, network by network, and writes it into the run folder.

    Raises:
        ValueError: impossible options, or a folder of another run.
    """
    check_bounds(options)
    settings = {name: value for name, value in asdict(options).items() if name != "output_dir"}
    folder = results.open_run(Path(options.output_dir), {"dataset": "markov", **settings})
    results.describe(folder, network="transformer", data=SHOWN)
    rows: Rows = []
    found = {
        name: [_network(folder, name, seed, options) for seed in range(options.seeds)]
        for name in optimisers.NAMES
    }
    for name in optimisers.NAMES:
        rows += _rows(name, found[name])
    panels: Panels = {
        f"adam_{scheme}": _figure(found["adam"], scheme, options) for scheme in SCHEMES
    }
    outcome.write(folder, rows, panels, shown=SHOWN)


def _network(folder: Path, name: str, seed: int, options: Options) -> dict[str, np.ndarray]:
    """The arrays of one network, 'arm/scheme/metric/field' → [k] or a number."""
    path = folder / f"{name}_seed{seed}.npz"
    if path.exists():
        return results.read_arrays(path)
    data, start, stream = jax.random.split(jax.random.key(seed), 3)
    tokens = network.sequences(data, options.num_examples)
    state = period.train(name, tokens, start, options)
    basis = period.basis_of(state, tokens, name, options)
    arrays = {}
    for arm in ARMS[name]:
        for scheme in SCHEMES:
            one = period.compared(name, arm, state, tokens, basis, scheme, stream, options)
            named = one._asdict().items()
            arrays |= {f"{arm}-{scheme}-{field}": value for field, value in named}
    every = np.ones(len(tokens), np.float32)
    arrays["loss"] = network.loss(state.params, tokens, every)
    results.write_arrays(path, **arrays)
    return results.read_arrays(path)


def _ratios(found: Networks, case: str, field: str, when: str) -> list[np.ndarray]:
    """Measured over theory along the directions of each network."""
    if field == "correlation_time":
        weight, velocity = (_ratios(found, case, one, when) for one in ("weight", "velocity"))
        return [w / v for w, v in zip(weight, velocity, strict=True)]
    return [one[f"{case}-{field}"] / one[f"{case}-{field}_{when}"] for one in found]


def _rows(name: str, found: Networks) -> Rows:
    title = TITLES[name]
    loss = np.array([one["loss"] for one in found])
    made = [mean_row(f"{name}_loss", "beyond", f"{title}: training loss, penalty included", loss)]
    for arm in ARMS[name]:
        for scheme in SCHEMES:
            where = f"{title}, {arm} second moments, {scheme.replace('_', ' ')}"
            for field, words in AGREEMENT.items():
                for when, theory in THEORIES.items():
                    ratios = _ratios(found, f"{arm}-{scheme}", field, when)
                    identifier = f"{name}_{arm}_{field}_{when}_{scheme}"
                    quantity = f"{where}: {words} over theory {theory}"
                    made.append(_ratio_row(identifier, quantity, ratios))
            for field, words in CHANGES.items():
                means = np.array([np.mean(one[f"{arm}-{scheme}-{field}"]) for one in found])
                identifier = f"{name}_{arm}_{field}_{scheme}"
                made.append(mean_row(identifier, "beyond", f"{where}: {words}", means))
    return made


def _ratio_row(identifier: str, quantity: str, ratios: list[np.ndarray]) -> dict[str, Any]:
    """A row with the mean; of three networks the scatter alone may be small by chance."""
    means, every = np.array([one.mean() for one in ratios]), np.concatenate(ratios)
    networks, directions = (
        one.std(ddof=1) / np.sqrt(len(one)) if len(one) > 1 else 0.0 for one in (means, every)
    )
    note = (
        f"{len(every)} directions; the larger error of that over networks, {networks:.2g}, and "
        f"over directions, {directions:.2g}"
    )
    error = max(networks, directions)
    return row(identifier, "beyond", quantity, means.mean(), error, n=len(means), note=note)


def _figure(found: Networks, scheme: str, options: Options) -> Any:
    """Measured over the theory at averages in bins of λ/λ_cross, a column an arm of Adam."""
    columns = {}
    for arm in ARMS["adam"]:
        case = f"{arm}-{scheme}"
        position = [one[f"{case}-position"] for one in found]
        columns[f"Adam, {COLUMNS[arm].format(**asdict(options))}"] = {
            field: _bins(position, _ratios(found, case, field, "averaged")) for field in AGREEMENT
        }
    return plotting.binned_agreement(columns)


def _bins(position: list[np.ndarray], ratio: list[np.ndarray]) -> plotting.Bins:
    """Means over all directions of a bin; their error by the scatter over directions."""
    x, y = np.concatenate(position), np.concatenate(ratio)
    place = np.floor(PER_DECADE * np.log10(x)).astype(int)
    inside = [place == one for one in np.unique(place) if np.sum(place == one) > 2]
    error = [y[one].std(ddof=1) / np.sqrt(one.sum()) for one in inside]
    centre = [np.exp(np.log(x[one]).mean()) for one in inside]
    means, numbers = [y[one].mean() for one in inside], [one.sum() for one in inside]
    return plotting.Bins(*map(np.array, (centre, means, error, numbers)))


if __name__ == "__main__":
    cli.run(main, *OPTIONS)
