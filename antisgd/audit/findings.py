"""What an audit finds: one statement a question, and a level for all of them together."""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from antisgd import display

__all__ = ["LEVEL", "WORDS", "Finding", "at_level", "bonferroni", "untested"]

# Probability that a run that is what it is said to be gets any finding at all.
LEVEL = 0.01
# A finding's word in the verdict.
WORDS = {
    "momentum": "momentum mis-stated",
    "sampling": "sampled otherwise than said",
    "noise": "noise beyond the sampling",
    "stationarity": "drifting",
    "drift": "drifting",
    "carriers": "carried by few examples",
    "curvature": "anharmonic",
}


class Finding(NamedTuple):
    """The answer to one question.

    Attributes:
        name: a key of `WORDS`.
        statistic: the number that decides, see `sentence`; nan if nothing could be tested.
        error: its standard error if nothing is wrong, nan if it has none.
        p_value: how often a sound run would look so; nan if nothing could be tested. Questions
            that need no chance (an identity, a share) have 0 or 1.
        sentence: in words, with the numbers.
        flagged: whether it counts against the run, all questions taken together.
    """

    name: str
    statistic: float
    error: float
    p_value: float
    sentence: str
    flagged: bool = False

    def __repr__(self) -> str:
        return display.described(self)


def untested(name: str, sentence: str) -> Finding:
    """A question that this recording cannot answer, and why."""
    return Finding(name, np.nan, np.nan, np.nan, sentence)


def bonferroni(p_values: np.ndarray) -> float:
    """The smallest p-value times their number: valid however the tests depend on each other."""
    return float(min(1.0, np.size(p_values) * np.min(p_values)))


def at_level(findings: Sequence[Finding], level: float) -> tuple[Finding, ...]:
    """Flags by Holm's method: P(any flag on a sound run) ≤ level, however they depend.

    The number of tests is that of all `WORDS`, asked or not: what is flagged does not depend on
    which arrays were left out.
    """
    remaining, flagged = len(WORDS), set()
    tested = [one for one in findings if np.isfinite(one.p_value)]
    for one in sorted(tested, key=lambda one: one.p_value):
        if one.p_value * remaining > level:
            break
        flagged.add(one.name)
        remaining -= 1
    return tuple(one._replace(flagged=one.name in flagged) for one in findings)
