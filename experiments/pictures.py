"""The pictures that the experiments train on, and a network on them as a problem of a study."""

from dataclasses import dataclass
from typing import Any

from antisgd import data, objective
from antisgd.study import Problem, Settings
from antisgd.study.fields import setting, to_json

__all__ = ["Pictures", "on_the_papers", "problem"]


@dataclass(frozen=True, kw_only=True)
class Pictures:
    """Which pictures, and the penalty beside their loss."""

    dataset: str = setting(
        "cifar10", "Pictures. Paper: cifar10.", choices=("cifar10", "digits", "synthetic")
    )
    data_dir: str | None = setting(
        None,
        "CIFAR-10: official binary or python distribution (folder or archive) or a prepared "
        "tensorflow-datasets folder. Not given: the official archive is downloaded and cached.",
        kind=str,
        decides=False,
    )
    num_examples: int | None = setting(
        None,
        "N, the first so many training pictures; all if not given. Paper: all 50,000.",
        kind=int,
    )
    weight_decay: float = setting(
        1e-4,
        "c of the penalty c * sum(kernels^2), no factor 1/2. Paper: 1e-4, in Fig. 4 0.",
    )


def problem(model: Any, name: str, pictures: Pictures, settings: Settings) -> Problem:
    """A linen module on the pictures.

    Raises:
        ValueError, OSError: a negative penalty, no such pictures.
    """
    if not 0 <= pictures.weight_decay < float("inf"):
        raise ValueError(
            f"--weight_decay={pictures.weight_decay} is negative or no number: give 0 or more"
        )
    (train, test), shown = data.load_named(
        pictures.dataset, directory=pictures.data_dir, num_examples=pictures.num_examples,
        seed=settings.seed,
    )  # fmt: skip
    images = train.images[:1]
    return Problem(
        init=lambda key: model.init(key, images),
        loss=objective.make_loss(model.apply, pictures.weight_decay),
        train=train,
        test=test,
        metrics=lambda params, examples: objective.evaluate(model.apply, params, examples),
        name=name,
        data=shown,
        description=to_json(pictures),
        noiseless_curvature=2 * pictures.weight_decay,
    )


def on_the_papers(pictures: Pictures) -> bool:
    """Whether all of CIFAR-10 is used, so that the paper's values may stand beside the run's."""
    return pictures.dataset == "cifar10" and pictures.num_examples in (None, 50_000)
