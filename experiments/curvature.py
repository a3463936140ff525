"""The eigenpair stage: leading Hessian eigenpairs at θ_K over all training pictures, resumable."""

import time
from pathlib import Path
from typing import Any

import jax
import numpy as np
from absl import flags, logging
from tqdm import tqdm

from antisgd import hessian, lanczos, results
from experiments import training

FLAGS = flags.FLAGS

CHECKPOINT_SECONDS = 60.0


def matvec_at(problem: training.Problem, params: Any) -> Any:
    """Product with the Hessian of the full training loss, penalty included (design section 4)."""
    return hessian.hessian_vector_product(
        problem.loss, params, problem.dataset.train, microbatch_size=FLAGS.microbatch_size
    )
