"""Leading eigenpairs and spectral density of a symmetric operator known by its products alone.

`leading_eigenpairs` is the solve that most people want; `init`, `extend` and `ritz` are its parts
for those who own the loop. The solver knows no network and writes no files.
"""

from antisgd.lanczos.basis import segments
from antisgd.lanczos.certificate import Certificate
from antisgd.lanczos.density import (
    SpectralDensity,
    extend_together,
    quadrature_rule,
    spectral_density,
)
from antisgd.lanczos.iteration import extend, init, restart
from antisgd.lanczos.memory import MemoryPlan, memory_plan
from antisgd.lanczos.products import linear_operator, lowered
from antisgd.lanczos.projection import Ritz, State, ritz
from antisgd.lanczos.solver import Eigenpairs, Progress, leading_eigenpairs

__all__ = [
    "Certificate",
    "Eigenpairs",
    "MemoryPlan",
    "Progress",
    "Ritz",
    "SpectralDensity",
    "State",
    "extend",
    "extend_together",
    "init",
    "leading_eigenpairs",
    "linear_operator",
    "lowered",
    "memory_plan",
    "quadrature_rule",
    "restart",
    "ritz",
    "segments",
    "spectral_density",
]
