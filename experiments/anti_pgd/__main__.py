"""Does anti-correlated noise find flatter minima? (Sec. 7, Conclusion; Orvieto et al. 2022)

    python -m experiments.anti_pgd --flagfile=experiments/presets/anti_pgd_demo.flags

From the same initial weights LeNet descends in six ways: by minibatches without and with
replacement, and by full batches without noise, with white noise, with anti-correlated noise (the
law of Eq. 2 with M = 2) and with much stronger anti-correlated noise. All make --epochs times
ceil(N/S) steps. The injected noise is isotropic and has in every epoch the mean per-weight variance
of the minibatch noise of the same seed's run without replacement; the strong one --strong_factor
times that deviation, because Orvieto et al. add steps of the weights, not of the gradients, and
those are far larger. Full batches without noise then bring every network to its minimum, where
accuracy, trace and leading eigenvalues of the Hessian are compared over the seeds. At last the
injected noise is put on again in these minima, and the variances of the weights along the leading
eigenvectors are compared with theory.

Every step of full batches takes all pictures: sized for digits, not for 50,000 pictures on a CPU.
"""

from antisgd import models, results
from antisgd.plotting import injected as plots
from antisgd.study import Place, Settings, preflight
from antisgd.study.fields import check_bounds, to_json
from antisgd.study.findings.rows import Panels
from experiments import cli, outcome, pictures
from experiments.anti_pgd import descents as ways
from experiments.anti_pgd import minima
from experiments.anti_pgd.rows import (
    TITLES,
    minima_rows,
    noise_rows,
    precision_rows,
    window_rows,
)

OPTIONS = cli.options("anti_pgd", ways.Injected(), seeds=5, eigenpairs=20)


def main(
    settings: Settings, chosen: pictures.Pictures, place: Place, injected: ways.Injected
) -> None:
    """Trains all ways, settles, examines the minima, injects noise there, writes the results."""
    settings.check()
    check_bounds(injected)
    if settings.epochs < 1:
        raise ValueError("--epochs=0 leaves no minibatch noise to match: give at least 1")
    problem = pictures.problem(models.lenet(), "LeNet", chosen, settings)
    needed, own = work(settings, place), to_json(injected)
    settings = preflight.sized(problem, settings, place, needed)
    with preflight.opened(problem, settings, place, work=needed, config=own) as folder:
        if folder is None:
            return
        trained = ways.train(problem, settings, injected, folder)
        settled = ways.settle(problem, settings, injected, trained, folder)
        found = {
            name: minima.examine(problem, settings, params, folder, name)
            for name, params in settled.items()
        }
        windows = {
            name: minima.windows(
                problem, settings, injected, settled[name], trained[name].deviations[:, -1],
                folder, name,
            )
            for name in ways.INJECTED
        }  # fmt: skip
        for name, one in found.items():
            results.write_arrays(folder / f"minima_{name}.npz", **one._asdict())
        rows = minima_rows(found) + precision_rows(found)
        rows += noise_rows(trained) + window_rows(windows)
        outcome.write(folder, rows, panels(found, windows), shown=problem.data)


def work(settings: Settings, place: Place) -> preflight.Work:
    """Eigenpairs of every network; the descents say themselves how long they take."""
    places = [place.folder / f"{name}_{i}" for name in ways.METHODS for i in range(settings.seeds)]
    return preflight.Work(
        pairs=settings.eigenpairs,
        directions=0,
        periods=0,
        train=0,
        solves=sum(place.missing(one / "eigenpairs.npz") for one in places),
        records=0,
        products=0,
    )


def panels(found: dict[str, minima.Minima], windows: dict[str, list[minima.Window]]) -> Panels:
    """The minima side by side, and the weights that noise shakes in them."""
    quantities = {
        "test accuracy (%)": [100 * one.curves[:, 3] for one in found.values()],
        "trace of the Hessian": [one.trace for one in found.values()],
        "largest eigenvalue": [one.eigenvalues[:, 0] for one in found.values()],
    }
    shaken = {TITLES[name]: seeds for name, seeds in windows.items()}
    return {
        "anti_pgd_minima": plots.minima(quantities, list(TITLES.values())),
        "anti_pgd_variances": plots.shaken_weights(shaken),
    }


if __name__ == "__main__":
    cli.run(main, *OPTIONS)
