"""One layer in two bases (Fig. 4, App. E): eigenvectors of H against those of Σ.

    python -m experiments.first_layer                                             the paper's size
    python -m experiments.first_layer --flagfile=experiments/presets/first_layer_demo.flags

Trains LeNet without penalty, records the weights of the first convolution for ten epochs, and
shows variances and correlation times along the principal components of the recorded weights, as
Feng & Tu (2021) analyse them, beside those along the eigenvectors of the layer's whole Hessian.
"""

import jax
import numpy as np

from antisgd import models, plotting
from antisgd.study import Place, Problem, Settings, preflight
from antisgd.study.conditions import Conditions, conditions_of
from antisgd.study.findings.rows import Rows, exponent_row, row
from antisgd.study.stages import record, train
from antisgd.study.stages.analysis import Analysis
from experiments import cli, outcome, paper, pictures
from experiments.first_layer.layer import LAYER, SCHEME, both_bases, embedded, layer_hessian

OPTIONS = cli.options(
    "first_layer", pictures=pictures.Pictures(weight_decay=0.0), analysis_epochs=10,
    sampling=(SCHEME,),
)  # fmt: skip
TITLES = {"pca": "eigenvectors of Σ", "hessian": "eigenvectors of H"}


def main(settings: Settings, chosen: pictures.Pictures, place: Place) -> None:
    """Training, the layer's Hessian, ten recorded epochs, both bases."""
    settings.check()
    problem = pictures.problem(models.lenet(), "LeNet", chosen, settings)
    needed, own = work(problem, place), {"layer": LAYER}
    settings = preflight.sized(problem, settings, place, needed)
    with preflight.opened(problem, settings, place, work=needed, config=own) as folder:
        if folder is None:
            return
        state = train.network(train.train(problem, settings, folder), 0)
        values, vectors = np.linalg.eigh(layer_hessian(problem, settings, state.params, folder))
        values, vectors = values[::-1], vectors[:, ::-1]
        recorded = record.record(
            problem, settings, state, embedded(problem, state.params, vectors.T), values,
            scheme=SCHEME, folder=folder / f"trajectory_{SCHEME}",
        )  # fmt: skip
        conditions = conditions_of(problem.num_examples, settings)
        analyses = both_bases(recorded, values, conditions)
        made = paper.beside(rows(conditions, analyses, values), paper.FIRST_LAYER, settings, chosen)
        outcome.write(folder, made, {"fig04": figure(conditions, analyses)}, shown=problem.data)


def work(problem: Problem, place: Place) -> preflight.Work:
    """The layer's Hessian, column by column, and one period along as many directions."""
    shapes = jax.eval_shape(problem.init, jax.random.key(0))
    columns = shapes["params"]["Conv_0"]["kernel"].size
    unrecorded = place.missing(place.folder / f"trajectory_{SCHEME}" / "anchors.npz")
    return preflight.Work(
        pairs=0,
        directions=columns,
        periods=1,
        train=int(place.missing(place.folder / "training.npz")),
        solves=0,
        records=int(unrecorded),
        products=columns * unrecorded,
    )


def rows(conditions: Conditions, analyses: dict[str, Analysis], values: np.ndarray) -> Rows:
    """Exponents in both bases, the drift mode, and whether all curvatures lie below λ_cross."""
    made = []
    for basis, one in analyses.items():
        for name, law in one.fits.items():
            quantity = f"exponent of the {name} variance, {TITLES[basis]}"
            made.append(exponent_row(f"{name}_exponent_{basis}", "Fig. 4", quantity, law))
    time = analyses["pca"].measured.correlation_time
    quantity = "correlation time of the drift mode over the median, eigenvectors of Σ"
    made.append(row("drift_mode", "Fig. 4", quantity, time[0] / np.median(time), n=time.size))
    quantity = "largest eigenvalue of the layer's Hessian over the crossover"
    note = "the paper finds all below it"
    made.append(
        row(
            "largest_over_crossover",
            "Fig. 4",
            quantity,
            values[0] / conditions.crossover,
            note=note,
        )
    )
    negative = np.sum(values <= 0)
    quantity = "eigenvalues of the layer's Hessian that are not positive"
    made.append(row("not_positive", "Fig. 4", quantity, negative, n=values.size))
    return made


def figure(conditions: Conditions, analyses: dict[str, Analysis]):
    """Fig. 4."""
    titled = {TITLES[basis]: one for basis, one in analyses.items()}
    return plotting.variances_figure(titled, conditions.crossover, conditions.max_correlation_time)


if __name__ == "__main__":
    cli.run(main, *OPTIONS)
