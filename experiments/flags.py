"""The flags that all experiments share (defaults: the paper's values), and how a main runs."""

import os
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import jax
from absl import app, flags, logging

from experiments import interruption

FLAGS = flags.FLAGS

STAGES = (
    "train", "eigenpairs", "analysis", "covariance", "discard", "validity", "density", "figures",
)  # fmt: skip
SAMPLING = ("without_replacement", "with_replacement")

# Programs that compile faster than this are not worth a file in the cache.
KEPT_COMPILE_SECONDS = 0.5

# What decides the numbers of a run: stored in its config.json and compared when it goes on.
SETTINGS = (
    "dataset", "num_examples", "seed", "seeds", "batch_size", "learning_rate",
    "learning_rate_decay", "momentum", "weight_decay", "epochs", "analysis_epochs",
    "analysis_seeds", "sampling", "eigenpairs", "full_gradient", "curve_examples",
)  # fmt: skip


def define(*, default_output_dir: str) -> None:
    """Defines the shared flags."""
    _define_pictures()
    _define_training()
    _define_analysis()
    flags.DEFINE_list(
        "stages",
        list(STAGES),
        f"Which of {','.join(STAGES)} to run, in this order. covariance: per-example gradients "
        "at theta_K (Fig. 13, 14); discard: Fig. 11; validity: curvature at the period's end, 16 "
        "Hessian products; density: the whole spectrum, 200 products.",
    )
    flags.DEFINE_string("output_dir", default_output_dir, "Run folder.")
    flags.DEFINE_bool("overwrite", False, "Start afresh in a run folder that holds something.")
    flags.DEFINE_integer(
        "microbatch_size",
        500,
        "Pictures a full-gradient or Hessian product takes at a time; more are faster on a GPU.",
        lower_bound=1,
    )
    flags.DEFINE_float(
        "basis_memory",
        None,
        "GiB that the basis of the eigen-solve may take before it is restarted, which costs more "
        "products; without it as much as it needs.",
        lower_bound=0,
    )
    flags.DEFINE_bool(
        "plan", False, "Only say what the run will need (memory, disk, rough time); run nothing."
    )


def _define_pictures() -> None:
    flags.DEFINE_enum(
        "dataset", "cifar10", ["cifar10", "digits", "synthetic"], "Pictures. Paper: cifar10."
    )
    flags.DEFINE_string(
        "data_dir",
        None,
        "CIFAR-10: official binary or python distribution (folder or archive) or a prepared "
        "tensorflow-datasets folder. Not given: the official archive is downloaded and cached.",
    )
    flags.DEFINE_integer(
        "num_examples",
        None,
        "N, the first so many training pictures; all if not given. Paper: all 50,000.",
    )
    flags.DEFINE_integer(
        "curve_examples",
        None,
        "The first so many training and test pictures give each epoch's loss and accuracy; 10,000 "
        "of each if not given. Fewer where a pass over them takes longer than an epoch.",
        lower_bound=1,
    )


def _define_training() -> None:
    flags.DEFINE_integer("seed", 0, "Key of everything random.")
    flags.DEFINE_integer(
        "seeds",
        1,
        "Networks trained in each regime of --sampling. Paper: 1, and 20 for the accuracies of "
        "Sec. 7. 1: one network, trained with the first "
        "regime. --seeds=20 trains 40 networks (20 seeds x 2 regimes, Sec. 7): 40 times the "
        "training work of one, side by side on an accelerator, hours on a laptop.",
        lower_bound=1,
    )
    flags.DEFINE_integer("batch_size", 50, "S, pictures a step. Paper: 50.", lower_bound=1)
    flags.DEFINE_float(
        "learning_rate", 5e-3, "Eta of the first epoch, inside the velocity (Eq. 1). Paper: 0.005."
    )
    flags.DEFINE_float(
        "learning_rate_decay",
        0.98,
        "Factor on eta after each epoch of --epochs; constant afterwards. Paper: 0.98.",
    )
    flags.DEFINE_float("momentum", 0.9, "Beta, in [0, 1). Paper: 0.9.")
    flags.DEFINE_float(
        "weight_decay",
        1e-4,
        "c of the penalty c * sum(kernels^2), no factor 1/2. Paper: 1e-4, in Fig. 4 0.",
    )
    flags.DEFINE_integer(
        "epochs", 100, "Passes over the pictures before the analysis. Paper: 100.", lower_bound=0
    )


def _define_analysis() -> None:
    flags.DEFINE_integer(
        "analysis_epochs",
        20,
        "Passes over the pictures recorded after training. Paper: 20, in Fig. 4 10.",
        lower_bound=1,
    )
    flags.DEFINE_integer(
        "analysis_seeds",
        1,
        "How many of the networks (of the first regime) get eigenpairs and an analysis period; "
        "0 only trains. Paper: 1.",
        lower_bound=0,
    )
    flags.DEFINE_multi_enum(
        "sampling",
        list(SAMPLING),
        list(SAMPLING),
        "Regimes: how examples are drawn, in the analysis period and, with --seeds above 1, in "
        "training. Repeat the flag for more than one.",
    )
    flags.DEFINE_integer(
        "eigenpairs",
        5000,
        "k, leading Hessian eigenpairs at theta_K. Paper: 5,000, in Fig. 11 10,000.",
        lower_bound=1,
    )
    flags.DEFINE_enum(
        "full_gradient",
        "exact",
        ["exact", "quadratic"],
        "The full gradient in the noise: exact, computed at every step (paper), or quadratic, from "
        "the eigenpairs, corrected with exact ones once an epoch (cheap; its error is reported).",
    )


def settings() -> dict[str, Any]:
    """The settings that decide the numbers, from the parsed flags."""
    return {name: FLAGS[name].value for name in SETTINGS if name in FLAGS}


def check() -> None:
    """Refuses impossible settings before anything is computed.

    Raises:
        ValueError: naming the flag and the remedy.
    """
    if not 0 <= FLAGS.momentum < 1:
        raise ValueError(f"--momentum={FLAGS.momentum} is outside [0, 1): give for example 0.9")
    if not FLAGS.learning_rate > 0:
        raise ValueError(f"--learning_rate={FLAGS.learning_rate} is not positive")
    if not 0 < FLAGS.learning_rate_decay <= 1:
        raise ValueError(f"--learning_rate_decay={FLAGS.learning_rate_decay} is outside (0, 1]")
    if FLAGS.weight_decay < 0:
        raise ValueError(f"--weight_decay={FLAGS.weight_decay} is negative")
    unknown = set(FLAGS.stages) - set(STAGES)
    if unknown:
        raise ValueError(f"--stages: unknown {', '.join(sorted(unknown))}; there are {STAGES}")
    if len(set(FLAGS.sampling)) != len(FLAGS.sampling):
        raise ValueError("--sampling names a regime twice")
    if FLAGS.analysis_seeds > FLAGS.seeds:
        raise ValueError(
            f"--analysis_seeds={FLAGS.analysis_seeds} is more than --seeds={FLAGS.seeds}"
        )


def use_compilation_cache() -> None:
    """Keeps compiled programs between runs, so that a second start does not compile."""
    default = Path(os.environ.get("XDG_CACHE_HOME", Path.home() / ".cache")) / "antisgd" / "jax"
    jax.config.update(
        "jax_compilation_cache_dir", os.environ.get("ANTISGD_CACHE_DIR", str(default))
    )
    jax.config.update("jax_persistent_cache_min_compile_time_secs", KEPT_COMPILE_SECONDS)


def run(main: Callable[[Sequence[str]], None]) -> None:
    """Runs an experiment's main: a bad input ends in one line and exit code 1, no traceback."""
    logging.set_verbosity(logging.WARNING)
    # --help lists what belongs to the module that was started; the shared flags do.
    for flag in FLAGS.flags_by_module_dict().get(__name__, []):
        FLAGS.register_key_flag_for_module(sys.argv[0], flag)
    app.run(guarded(main), flags_parser=parse)


def parse(argv: Sequence[str]) -> list[str]:
    """Parses the command line: a bad flag ends in one line and exit code 1."""
    try:
        return FLAGS(argv)
    except flags.Error as error:
        sys.exit(f"error: {' '.join(str(error).split())}")


def guarded(main: Callable[[Sequence[str]], None]) -> Callable[[Sequence[str]], None]:
    """A main that turns bad input and interruptions into one line and exit code 1."""

    def run_main(argv):
        interruption.install()
        try:
            if len(argv) > 1:
                raise ValueError(f"unexpected argument {argv[1]}: flags begin with --")
            use_compilation_cache()
            main(argv)
        except KeyboardInterrupt:
            sys.exit("stopped; the same command goes on from the last checkpoint")
        except (ValueError, OSError, ArithmeticError, MemoryError) as error:
            logging.debug("where it happened", exc_info=True)
            sys.exit(f"error: {' '.join(str(error).split())}")
        except jax.errors.JaxRuntimeError as error:
            if "RESOURCE_EXHAUSTED" not in str(error):
                raise
            logging.debug("where it happened", exc_info=True)
            sys.exit(
                "error: the device's memory is full: lower --microbatch_size, restart the basis "
                "with --basis_memory=GIB or ask for fewer --eigenpairs; the same command goes on "
                "from the last checkpoint"
            )

    return run_main
