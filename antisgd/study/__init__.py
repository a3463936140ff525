"""The measuring pipeline on any network: train, find eigenpairs, record, compare, report.

    problem = study.Problem(init, loss, train)
    study.run(problem, study.Settings(epochs=30, eigenpairs=200), "runs/mine")

In reading order: `problem` and `settings` say what is measured and how, `stages` compute results
and keep them, `findings` make rows and figures of results, `preflight` says what a run will need,
`report` makes the page, `outcome` writes it with rows and figures, and `run` puts them together by
one table of stages.
"""

from antisgd.study.problem import Problem
from antisgd.study.run import measure, run
from antisgd.study.settings import Place, Settings

__all__ = ["Place", "Problem", "Settings", "measure", "run"]
