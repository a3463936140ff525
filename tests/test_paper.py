"""The paper's values stand beside a run that did the same, and its numbers above the figures."""

import dataclasses

import pytest

from antisgd.study import Settings
from antisgd.study.findings.rows import row
from experiments import paper
from experiments.pictures import Pictures
from experiments.resnet20 import __main__ as resnet20

PAPERS = Pictures()


def found(*identifiers, n=None):
    return [row(name, "Fig. 2", "quantity", 0.6, n=n, note="of the run") for name in identifiers]


def beside(rows, settings=None, pictures=PAPERS):
    made = paper.beside(rows, paper.LENET, settings or Settings(), pictures)
    return {one["id"]: one["paper"] for one in made}


@pytest.mark.parametrize(
    ("pictures", "papers"),
    [
        (PAPERS, True),
        (Pictures(num_examples=50_000), True),
        (Pictures(num_examples=5000), False),
        (Pictures(dataset="digits"), False),
    ],
)
def test_the_papers_values_stand_beside_its_own_pictures_only(pictures, papers):
    rows = found("test_accuracy", "crossover_eigenvalue")
    expected = {"test_accuracy": 0.63 if papers else None, "crossover_eigenvalue": None}
    assert beside(rows, pictures=pictures) == expected
    known = [row("x", "Fig. 2", "quantity", 0.6, paper=0.63, paper_error=0.01)]
    (one,) = paper.only_on_its_pictures(known, pictures)
    assert (one["paper"], one["paper_error"]) == ((0.63, 0.01) if papers else (None, None))


@pytest.mark.parametrize(
    ("name", "value", "other"),
    [
        ("test_accuracy", 0.63, {"epochs": 99}),
        ("train_accuracy", 1.0, {"epochs": 99}),
        ("plateau", 10.0, {"analysis_epochs": 19}),
    ],
)
def test_a_value_of_another_run_does_not_stand_beside_it(name, value, other):
    assert beside(found(name)) == {name: value}
    assert beside(found(name), dataclasses.replace(Settings(), **other)) == {name: None}


def test_the_smallest_eigenvalue_of_the_paper_is_that_of_its_number_of_them():
    assert beside(found("smallest_eigenvalue", n=5000)) == {"smallest_eigenvalue": 0.005}
    assert beside(found("smallest_eigenvalue", n=60)) == {"smallest_eigenvalue": None}


def test_further_seeds_have_the_values_of_the_first_and_the_notes_of_both():
    name = "weight_exponent_without_replacement_seed3"
    (one,) = paper.beside(found(name), paper.LENET, Settings(), PAPERS)
    assert (one["paper"], one["paper_error"]) == (1.077, 0.006)
    assert one["note"] == "of the run; the paper's are 5,000 directions"


def test_figures_of_all_seeds_go_by_their_numbers_and_others_keep_their_names():
    panels = {"variances": 1, "variances_seed1": 2, "spectrum_seed12": 3, "seeds": 4}
    numbered = paper.numbered(panels, paper.FIGURES)
    assert numbered == {"fig02": 1, "fig02_seed1": 2, "fig05_density_seed12": 3, "seeds": 4}


def test_every_figure_has_a_caption_with_its_number():
    for name in [*paper.FIGURES.values(), "fig03", "fig04", "fig09", "fig10", "fig12"]:
        title, notice = paper.CAPTIONED[name]
        assert title.startswith(f"Fig. {int(name[3:5])}: ") and notice.endswith(".")


def test_the_main_experiment_shows_what_was_found_beside_the_paper():
    shown = paper.lenet(Settings(), PAPERS)
    rows, panels = shown.present(found("test_accuracy"), {"training_curves": 1})
    assert rows[0]["paper"] == 0.63 and panels == {"fig08": 1}
    assert shown.captions["fig08"].title.startswith("Fig. 8: ")
    smooth = paper.lenet(Settings(), PAPERS, smooth=True)
    assert smooth.present(found("test_accuracy"), {})[0][0]["paper"] is None
    assert shown.marks and smooth.marks is None


def test_the_papers_values_are_those_of_the_resnet_with_halved_errors():
    rows = found(*paper.RESNET20, "crossover_eigenvalue", "best_test_accuracy")
    settings, pictures, *_ = resnet20.OPTIONS
    shown = paper.resnet20(settings, pictures)
    rows, panels = shown.present(rows, {"variances": 1, "leading_variances": 2})
    assert {one["id"]: (one["paper"], one["paper_error"]) for one in rows} == {
        "train_accuracy": (1.0, None),
        "test_accuracy": (0.73, None),
        "weight_exponent_without_replacement": (0.82, 0.099 / 2),
        "velocity_exponent_without_replacement": (0.965, 0.005 / 2),
        "crossover_eigenvalue": (None, None),
    }
    assert {one["paper_item"] for one in rows} == {"Fig. 12"}
    assert panels == {"fig12": 1, "fig13": 2}
