"""Can a data order be designed that shakes the weights less than reshuffling? (beyond the paper)

    python -m experiments.orders --flagfile=experiments/presets/orders_demo.flags

Every example once an epoch, at the same learning rate. From the end of training LeNet is carried on
by five orders: reshuffling; flip-flop; one order for all epochs; a blind design, the positions of
the batches in a cycle of --cycle epochs that lower the loss fluctuation most at the network's own
spectrum (`theory.best_order`, with the bound that no design of so many epochs passes); and one
order whose batches are balanced by the examples' gradients (`theory.balanced_order`). Full training
loss at the weights, at the mean of an epoch's weights and at the mean of the period's, beside what
theory says of each from the end of training alone. The same orders on a quadratic first, where
theory is exact.

Every network takes all pictures at once for its loss: sized for some thousand of them.
"""

from dataclasses import dataclass

import numpy as np

from antisgd import models
from antisgd.plotting import orders as plots
from antisgd.study import Place, Settings, preflight
from antisgd.study.fields import check_bounds, setting, to_json
from antisgd.study.findings.rows import Panels
from antisgd.study.stages import eigenpairs
from antisgd.study.stages import train as training
from experiments import cli, outcome, pictures
from experiments.orders import descents, simulation
from experiments.orders.rows import TITLES, network_rows, quadratic_rows


@dataclass(frozen=True, kw_only=True)
class Orders:
    """How the orders are designed and compared."""

    cycle: int = setting(
        5, "Epochs of the blind design, after which a new order is drawn.", least=1
    )
    settle_epochs: int = setting(20, "Epochs under an order before the losses are taken.", least=1)


OPTIONS = cli.options(
    "orders", Orders(), seeds=5, eigenpairs=100, sampling=("without_replacement",)
)  # fmt: skip


def main(settings: Settings, chosen: pictures.Pictures, place: Place, own: Orders) -> None:
    """The quadratic, the training, each network's designs, all orders, the results."""
    settings.check()
    check_bounds(own)
    problem = pictures.problem(models.lenet(), "LeNet", chosen, settings)
    if problem.num_examples % settings.batch_size:
        raise ValueError(
            f"--batch_size={settings.batch_size} must divide the {problem.num_examples} pictures, "
            "so that every batch of an order can stand everywhere"
        )
    needed = work(settings, place)
    with preflight.opened(problem, settings, place, work=needed, config=to_json(own)) as folder:
        if folder is None:
            return
        simulated = simulation.simulate(own.cycle, settings.seed, folder / "quadratic.npz")
        trained = training.train(problem, settings, folder)
        expected = []
        for i in range(settings.seeds):
            params = training.network(trained, i).params
            pairs = eigenpairs.find(problem, settings, params, folder / f"network_{i}")
            path = folder / f"network_{i}" / "orders.npz"
            expected.append(descents.expect(problem, settings, params, pairs, own.cycle, path))
        found = {
            name: descents.descend(
                problem, settings, trained.states, expected, name, own.settle_epochs,
                folder / f"order_{name}.npz",
            )
            for name in descents.ORDERS
        }  # fmt: skip
        rows = quadratic_rows(simulated) + network_rows(expected, found)
        outcome.write(folder, rows, panels(simulated, expected, found), shown=problem.data)


def work(settings: Settings, place: Place) -> preflight.Work:
    """Training and eigenpairs; the descents say themselves how long they take."""
    solved = [place.folder / f"network_{i}" / "eigenpairs.npz" for i in range(settings.seeds)]
    return preflight.Work(
        pairs=settings.eigenpairs,
        directions=0,
        periods=0,
        train=int(place.missing(place.folder / "training.npz")),
        solves=sum(map(place.missing, solved)),
        records=0,
        products=0,
    )


def panels(
    simulated: dict[str, simulation.Simulated],
    expected: list[descents.Expected],
    found: dict[str, descents.Descent],
) -> Panels:
    """Fluctuations of weights and epoch means, on the quadratic and of the networks."""
    quadratic = [
        (TITLES[name], one.expected, one.measured, one.error) for name, one in simulated.items()
    ]
    unit, networks = np.array([one.weights[0] for one in expected]), []
    for place, name in enumerate(descents.ORDERS):
        one = found[name]
        each = np.stack([(one.weights - one.period) / unit, (one.means - one.period) / unit])
        theory_of = [
            np.mean([getattr(e, key)[place] for e in expected] / unit)
            for key in ("weights", "means")
        ]
        error = each.std(axis=1, ddof=1) / np.sqrt(len(unit)) if len(unit) > 1 else np.zeros(2)
        networks.append((TITLES[name], np.array(theory_of), each.mean(axis=1), error))
    return {"orders": plots.orders_figure({"quadratic": quadratic, "LeNet": networks})}


if __name__ == "__main__":
    cli.run(main, *OPTIONS)
