"""What a study computes, one module a stage: compute a result, keep it in the folder, read it.

Importing the package loads none of them.
"""

__all__ = [
    "analysis",
    "cohorts",
    "covariance",
    "density",
    "discard",
    "drawn",
    "eigenpairs",
    "period",
    "predict",
    "record",
    "solve_checkpoint",
    "table",
    "track",
    "train",
    "validity",
]
