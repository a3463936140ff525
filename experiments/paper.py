"""The paper's values, and the conditions under which each may stand beside those of a run."""

import re
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

from antisgd.study import Settings
from antisgd.study.findings.rows import Panels, Rows
from antisgd.study.report import CAPTIONS, HEADLINES, Caption
from antisgd.study.run import Presentation
from experiments.choices import variants
from experiments.pictures import Pictures, on_the_papers

__all__ = [
    "CAPTIONED",
    "CHOICES",
    "FIRST_LAYER",
    "HEADLINED",
    "LENET",
    "RESNET20",
    "Value",
    "beside",
    "lenet",
    "numbered",
    "resnet20",
]

Row = Mapping[str, Any]


class Value(NamedTuple):
    """A number of the paper.

    Attributes:
        value: as printed.
        error: one standard error, half of the 2σ that the paper gives.
        holds: (settings, row of the run) → whether the run made the same thing.
        note: what differs all the same.
    """

    value: float
    error: float | None = None
    holds: Callable[[Settings, Row], bool] = lambda settings, row: True
    note: str = ""


def _trained_to_the_end(settings: Settings, row: Row) -> bool:
    return settings.epochs >= 100


def _all_directions(settings: Settings, row: Row) -> bool:
    return row["n"] == 5000


def _twenty_epochs(settings: Settings, row: Row) -> bool:
    return settings.analysis_epochs == 20


_DIRECTIONS = "the paper's are 5,000 directions"
# "0.8 ± 0.2 points" is taken as one standard error: the paper does not say.
LENET = {
    "train_accuracy": Value(1.0, holds=_trained_to_the_end),
    "test_accuracy": Value(0.63, holds=_trained_to_the_end),
    "best_test_accuracy": Value(0.645, note="the paper's value is the mean of 20"),
    "best_accuracy_without_replacement": Value(0.645),
    "best_accuracy_with_replacement": Value(0.637),
    "best_accuracy_difference": Value(0.645 - 0.637, 0.002),
    "eigenvalues_above_crossover": Value(35),
    "density_above_crossover": Value(35),
    "smallest_eigenvalue": Value(0.005, holds=_all_directions),
    "weight_exponent_without_replacement": Value(1.077, 0.006, note=_DIRECTIONS),
    "velocity_exponent_without_replacement": Value(1.066, 0.001, note=_DIRECTIONS),
    "loss_fluctuation_reduction": Value(0.62, holds=_all_directions),
    "loss_fluctuation_reduction_5000": Value(0.62, note="the paper's from 5,000 eigenvalues found"),
    # "Roughly one order of magnitude".
    "plateau": Value(10.0, holds=_twenty_epochs),
    "cosine_similarity_recorded": Value(0.82, note=_DIRECTIONS),
    "noise_exponent_recorded": Value(1.075, 0.001, note=_DIRECTIONS),
    "accuracy_without_0": Value(0.63),
    "accuracy_without_35": Value(0.54),
    "accuracy_without_5000": Value(0.44),
    "accuracy_without_7000": Value(0.10),
}
RESNET20 = {
    "train_accuracy": Value(1.0),
    "test_accuracy": Value(0.73),
    "weight_exponent_without_replacement": Value(0.820, 0.0495),
    "velocity_exponent_without_replacement": Value(0.965, 0.0025),
}
FIRST_LAYER = {
    "weight_exponent_pca": Value(1.537, 0.006),
    "velocity_exponent_pca": Value(1.134, 0.001),
    "weight_exponent_hessian": Value(1.018, 0.004),
    "velocity_exponent_hessian": Value(1.017, 0.001),
}
# App. J and Fig. 8, beside every choice.
CHOICES = {
    f"{key}_{name}": Value(value)
    for name in variants.CHOICES
    for key, value in (
        ("above_crossover", 35),
        ("test_accuracy", 0.63),
        ("accuracy_without_35", 0.54),
    )
}
# Rows that make sense beside the paper's LeNet only.
LENETS = ("best_test_accuracy", "loss_fluctuation_reduction")

# Figure of a study → its number in the paper: Figures 1-14 of LeNet, and those that stand for
# Fig. 12 and App. K.
FIGURES = {
    "noise_autocorrelation": "fig01",
    "variances": "fig02",
    "eigenvalues": "fig05",
    "spectrum": "fig05_density",
    "noise_autocorrelation_schemes": "fig06",
    "variances_schemes": "fig07",
    "training_curves": "fig08",
    "discarded_directions": "fig11",
    "leading_variances": "fig13",
    "noise_against_curvature": "fig14",
}
RESNET20_FIGURES = FIGURES | {
    "noise_autocorrelation": "noise_autocorrelation",
    "variances": "fig12",
    "eigenvalues": "eigenvalue_density",
    "training_curves": "training_curves",
}


def beside(rows: Rows, values: Mapping[str, Value], settings: Settings, pictures: Pictures) -> Rows:
    """The rows with the paper's values, where the run is on its pictures and did the same."""
    if not on_the_papers(pictures):
        return rows
    made = []
    for row in rows:
        known = values.get(re.sub(r"(_seed\d+|_over_networks|_over_periods)$", "", row["id"]))
        if known is not None and known.holds(settings, row):
            note = "; ".join(part for part in (row["note"], known.note) if part)
            row = row | {"paper": known.value, "paper_error": known.error, "note": note}
        made.append(row)
    return made


def only_on_its_pictures(rows: Rows, pictures: Pictures) -> Rows:
    """Rows that have their values of the paper already, which go where the pictures are others."""
    if on_the_papers(pictures):
        return rows
    return [row | {"paper": None, "paper_error": None} for row in rows]


def numbered(panels: Panels, numbers: Mapping[str, str]) -> Panels:
    """The figures under their numbers in the paper, those of further seeds too."""
    made = {}
    for name, panel in panels.items():
        base, mark, seed = name.partition("_seed")
        made[numbers.get(base, base) + mark + seed] = panel
    return made


def lenet(settings: Settings, pictures: Pictures, *, smooth: bool = False) -> Presentation:
    """The main experiment: LeNet's values, which a smooth one has not, and Figures 1-14."""
    values = {} if smooth else LENET

    def present(rows: Rows, panels: Panels) -> tuple[Rows, Panels]:
        return beside(rows, values, settings, pictures), numbered(panels, FIGURES)

    prefix = "accuracy_without_"
    marks = {
        int(name.removeprefix(prefix)): known.value
        for name, known in LENET.items()
        if name.startswith(prefix) and name.removeprefix(prefix).isdecimal()
    }
    shown = marks if on_the_papers(pictures) and not smooth else None
    return Presentation(present, CAPTIONED, HEADLINED, shown)


def resnet20(settings: Settings, pictures: Pictures) -> Presentation:
    """Fig. 12 and App. K."""

    def item(row: Row) -> str:
        if not row["paper_item"].startswith(("Fig.", "App.")):
            return row["paper_item"]
        return "Fig. 12" if row["paper_item"] == "Fig. 2" else "App. K"

    def present(rows: Rows, panels: Panels) -> tuple[Rows, Panels]:
        own = [row | {"paper_item": item(row)} for row in rows if row["id"] not in LENETS]
        made = beside(own, RESNET20, settings, pictures)
        return made, numbered(panels, RESNET20_FIGURES)

    return Presentation(present, CAPTIONED, HEADLINED)


def _captions() -> dict[str, Caption]:
    """Of every figure of the paper, by its number."""
    made = dict(CAPTIONS)
    for name, figure in FIGURES.items():
        title, notice = CAPTIONS[name]
        number = int(figure[3:5])
        made[figure] = Caption(f"Fig. {number}: {title[0].lower()}{title[1:]}", notice)
    title, notice = made["fig11"]
    made["fig11"] = Caption(
        title, notice.replace("without.", "without; in the paper it falls in two steps, the second "
                              "far below λ_cross.", 1),
    )  # fmt: skip
    return made | _FURTHER


_ADAM = (
    "Measured over the theory of frozen second moments in D^{-½}HD^{-½}, with the period's mean "
    "noise and mean step; the directions of all networks. 'Frozen' keeps D as it is at the begin."
)
_FURTHER = {
    "adam_with_replacement": Caption("Adam, drawn with replacement", _ADAM),
    "adam_without_replacement": Caption("Adam, reshuffled", _ADAM),
    "fig03": Caption(
        "Fig. 3: the original basis against principal components",
        "What is isotropic looks anisotropic in the eigenbasis of its own recorded covariance.",
    ),
    "fig04": Caption(
        "Fig. 4: the first convolution in two bases",
        "The exponents depend on the basis: compare those of the eigenbasis of Σ, which a finite "
        "recording inflates, with those of the Hessian's.",
    ),
    "fig09": Caption("Fig. 9: other batch sizes", "Each batch size follows its own theory line."),
    "fig10": Caption(
        "Fig. 10: τ_SGD and λ_cross, hyperparameters varied",
        "The points should lie on the lines, which are Eq. 109.",
    ),
    "fig12": Caption("Fig. 12: ResNet-20", "The same laws in a deeper network."),
    "orders": Caption(
        "Designed data orders",
        "Loss above that at the minimum (quadratic) or at the mean weights of the whole period "
        "(LeNet), in units of what theory has under reshuffling; short lines are theory. One order "
        "leaves no noise in the mean of an epoch's weights, one balanced order little in the "
        "weights.",
    ),
    "seeds": Caption(f"Sec. 7: {CAPTIONS['seeds'].title.lower()}", CAPTIONS["seeds"].notice),
}
CAPTIONED = _captions()
HEADLINED = HEADLINES | {
    "weight_exponent_pca": ("exponent of the weight variance, eigenvectors of Σ", ""),
    "weight_exponent_hessian": ("exponent of the weight variance, eigenvectors of H", ""),
    "largest_z": ("largest deviation from theory, in standard errors", ""),
}
