"""What decides the numbers of a study, and how they are computed: frozen, checked, as JSON.

A setting has one name everywhere: field, command-line flag, key of config.json. It is changed by
`dataclasses.replace`; two settings live in one process.
"""

import dataclasses
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from antisgd import devices
from antisgd.study.fields import check_bounds, setting, to_json
from antisgd.study.stages import table

__all__ = [
    "MICROBATCH", "SCHEMES", "Analysis", "Eigenpairs", "Place", "Processes", "Run", "Settings",
    "Training",
]  # fmt: skip

STAGES = table.names()
SCHEMES = ("without_replacement", "with_replacement")
# Examples at a time where nobody has asked the memory.
MICROBATCH = 500


@dataclasses.dataclass(frozen=True, kw_only=True)
class Training:
    """How the networks are trained (defaults: the paper's values)."""

    seed: int = setting(0, "Key of everything random.")
    seeds: int = setting(
        1,
        "Networks trained in each regime of --sampling. Paper: 1, and 20 for the accuracies of "
        "Sec. 7. 1: one network, trained with the first "
        "regime. --seeds=20 trains 40 networks (20 seeds x 2 regimes, Sec. 7): 40 times the "
        "training work of one, side by side on an accelerator, hours on a laptop.",
        least=1,
    )
    batch_size: int = setting(50, "S, pictures a step. Paper: 50.", least=1)
    learning_rate: float = setting(
        5e-3, "Eta of the first epoch, inside the velocity (Eq. 1). Paper: 0.005."
    )
    learning_rate_decay: float = setting(
        0.98, "Factor on eta after each epoch of --epochs; constant afterwards. Paper: 0.98."
    )
    momentum: float = setting(0.9, "Beta, in [0, 1). Paper: 0.9.")
    epochs: int = setting(100, "Passes over the pictures before the analysis. Paper: 100.", least=0)
    sampling: tuple[str, ...] = setting(
        SCHEMES,
        "Regimes: how examples are drawn, in the analysis period and, with --seeds above 1, in "
        "training. Repeat the flag for more than one.",
        choices=SCHEMES,
    )
    curve_examples: int | None = setting(
        None,
        "The first so many training and test pictures give each epoch's loss and accuracy; 10,000 "
        "of each if not given. Fewer where a pass over them takes longer than an epoch.",
        least=1,
        kind=int,
    )

    @property
    def trained_schemes(self) -> tuple[str, ...]:
        """Sampling schemes that are trained with: all of them for several seeds, else the first."""
        return self.sampling if self.seeds > 1 else self.sampling[:1]

    @property
    def networks(self) -> int:
        """Networks trained side by side."""
        return len(self.trained_schemes) * self.seeds

    @property
    def final_learning_rate(self) -> float:
        """η of the analysis period."""
        return self.learning_rate * self.learning_rate_decay**self.epochs


@dataclasses.dataclass(frozen=True, kw_only=True)
class Eigenpairs:
    """The eigenpairs that are looked for."""

    eigenpairs: int = setting(
        5000,
        "k, leading Hessian eigenpairs at theta_K. Paper: 5,000, in Fig. 11 10,000.",
        least=1,
    )
    basis_memory: float | None = setting(
        None,
        "GiB that the basis of the eigen-solve may take before it is restarted, which costs more "
        "products; without it as much as it needs.",
        least=0.0,
        kind=float,
        decides=False,
    )

    track_every: int | None = setting(
        None, "Epochs between leading eigenvalues along training; none without it.", least=1,
        kind=int,
    )  # fmt: skip
    track_eigenpairs: int | None = setting(
        None, "How many of them, with --track_every; 10 if not given.", least=1, kind=int
    )

    @property
    def basis_limit(self) -> int | None:
        """Bytes that the basis may take; None: as many as it needs."""
        return None if self.basis_memory is None else int(self.basis_memory * 2**30)


@dataclasses.dataclass(frozen=True, kw_only=True)
class Analysis:
    """The analysis period."""

    analysis_epochs: int = setting(
        20,
        "Passes over the pictures recorded after training. Paper: 20, in Fig. 4 10.",
        least=1,
    )
    analysis_periods: int = setting(
        1,
        "Analysis periods of a network in each regime, all from theta_K along the same "
        "eigenvectors, each with a stream of examples of its own; above 1 rows of their mean, with "
        "its error over periods. Paper: 1.",
        least=1,
    )
    analysis_seeds: int = setting(
        1,
        "How many of the networks (of the first regime) get eigenpairs and an analysis period; "
        "0 only trains. Paper: 1.",
        least=0,
    )
    full_gradient: str = setting(
        "exact",
        "The full gradient in the noise: exact, computed at every step (paper), or quadratic, from "
        "the eigenpairs, corrected with exact ones once an epoch (cheap; its error is reported).",
        choices=("exact", "quadratic"),
    )

    @property
    def exact(self) -> bool:
        """Whether the full gradient is computed at every step."""
        return self.full_gradient == "exact"


@dataclasses.dataclass(frozen=True, kw_only=True)
class Run:
    """What is computed, and in which pieces: decides no number."""

    stages: tuple[str, ...] = setting(
        STAGES,
        f"Which of {','.join(STAGES)} to run, in this order. covariance: per-example gradients "
        "at theta_K (Fig. 13, 14); discard: Fig. 11; validity: curvature along the periods, by "
        "products and by secants, in time 352 Hessian products; density: the whole spectrum, 200 "
        "products; predict: both periods from theta_K alone, in time some 1024 products, with the "
        "spread outside the eigenpairs if density was run; track: with --track_every.",
        decides=False,
    )
    microbatch_size: int | None = setting(
        None,
        "Pictures a full-gradient or Hessian product takes at a time; if not given 500, on a GPU "
        "2,000, or what fits beside the rest in the memory of the device.",
        least=1,
        kind=int,
        decides=False,
    )
    block_size: int | None = setting(
        None,
        "Vectors that the Hessian multiplies at a time; if not given by the number of eigenpairs, "
        "and fewer where the memory of the device asks for it.",
        least=1,
        kind=int,
        decides=False,
    )

    precision: str = setting(
        "highest",
        "Of the matrix products in the Hessian products of the eigenpairs: highest, or what the "
        "device has that is faster, such as BF16_BF16_F32_X3 or TF32_TF32_F32; refused where its "
        "noise exceeds the tolerance of a pair.",
        decides=False,
    )

    @property
    def microbatch(self) -> int:
        """Examples at a time: as given, or as `preflight` found that they fit."""
        return self.microbatch_size or MICROBATCH


@dataclasses.dataclass(frozen=True, kw_only=True)
class Settings(Training, Eigenpairs, Analysis, Run):
    """Everything that a study can be told, but for where it lies."""

    def check(self) -> None:
        """Refuses impossible settings before anything is computed.

        Raises:
            ValueError: naming the setting and the remedy.
        """
        check_bounds(self)
        if not 0 <= self.momentum < 1:
            raise ValueError(f"--momentum={self.momentum} is outside [0, 1): give for example 0.9")
        if not self.learning_rate > 0:
            raise ValueError(f"--learning_rate={self.learning_rate} is not positive")
        if not 0 < self.learning_rate_decay <= 1:
            raise ValueError(f"--learning_rate_decay={self.learning_rate_decay} is outside (0, 1]")
        if self.eigenpairs < 3 and self.analysis_seeds and "analysis" in self.stages:
            raise ValueError(
                f"--eigenpairs={self.eigenpairs}: statistics over directions and power laws need "
                "at least 3; give more, or leave analysis out of --stages"
            )
        if self.track_every is not None and self.track_every > self.epochs:
            raise ValueError(
                f"--track_every={self.track_every} is more than --epochs={self.epochs}: give less"
            )
        if self.track_eigenpairs is not None and self.track_every is None:
            raise ValueError("--track_eigenpairs needs --track_every=EPOCHS")
        unknown = sorted(set(self.stages) - set(STAGES))
        if unknown:
            raise ValueError(f"--stages: unknown {', '.join(unknown)}; there are {STAGES}")
        if len(set(self.sampling)) != len(self.sampling):
            raise ValueError("--sampling names a regime twice")
        if self.analysis_seeds > self.seeds:
            raise ValueError(
                f"--analysis_seeds={self.analysis_seeds} is more than --seeds={self.seeds}"
            )

    def to_json(self) -> dict[str, Any]:
        """What decides the numbers, as JSON values."""
        return to_json(self)

    @classmethod
    def from_json(cls, values: Mapping[str, Any]) -> "Settings":
        """The settings with these values, all others being the defaults.

        Raises:
            ValueError: a name that is no setting.
        """
        known = {field.name for field in dataclasses.fields(cls)}
        if unknown := sorted(set(values) - known):
            raise ValueError(
                f"no setting {', '.join(unknown)}: there are {', '.join(sorted(known))}"
            )
        given: dict[str, Any] = {
            name: tuple(value) if isinstance(value, list) else value
            for name, value in values.items()
        }
        return cls(**given)


@dataclasses.dataclass(frozen=True, kw_only=True)
class Place:
    """Where a run lies and how it begins."""

    output_dir: str = setting("runs/study", "Run folder.")
    overwrite: bool = setting(False, "Start afresh in a run folder that holds something.")
    plan: bool = setting(
        False, "Only say what the run will need (memory, disk, rough time); run nothing."
    )
    json: bool = setting(False, "With --plan: as JSON, in bytes and seconds.")

    @property
    def folder(self) -> Path:
        """The run folder."""
        return Path(self.output_dir)

    def missing(self, path: Path) -> bool:
        """Whether a result is still to be made."""
        return self.overwrite or not devices.told(path.exists)


@dataclasses.dataclass(frozen=True, kw_only=True)
class Processes:
    """Processes that share the work of one run."""

    distributed: bool = setting(
        False,
        "Share the work with the other processes of this command, on all hosts: under Slurm, Open "
        "MPI and on TPU pods they find each other. The run folder has to be seen by all of them.",
    )
    coordinator: str | None = setting(
        None, "HOST:PORT of process 0, where they do not find each other.", kind=str
    )
    processes: int | None = setting(None, "Their number, with --coordinator.", least=1, kind=int)
    process: int | None = setting(
        None, "Number of this one, from 0, with --coordinator.", least=0, kind=int
    )
