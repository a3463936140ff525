"""All questions in their order: what one answer settles, the next takes over."""

from typing import NamedTuple

import numpy as np

from antisgd import display, theory
from antisgd.audit import indices
from antisgd.audit.curvature import Directions, curvature_finding, directions
from antisgd.audit.drift import Modes, drift_finding, modes, stationarity_finding
from antisgd.audit.findings import LEVEL, WORDS, Finding, at_level, untested
from antisgd.audit.indices import IndexLaw, law_of_indices, tabulated
from antisgd.audit.motion import momentum_finding
from antisgd.audit.noise import (
    NoiseSeries,
    carriers_finding,
    law_finding,
    mean_autocorrelation,
    noise_series,
)
from antisgd.audit.recording import Recording, checked

__all__ = ["Audit", "audit"]


class Audit(NamedTuple):
    """What a recorded run says of itself.

    Attributes:
        verdict: findings in the order in which they were asked; those with `flagged` count.
        words: the verdict in words, "stationary" if nothing moves the minimum.
        law: what the indices say, None without indices.
        noise: the law that the theory was taken at; None if it has none.
        steps_per_epoch: M.
        momentum: β that the theory was taken at: the stated one, unless the weights deny it.
        crossover: λ_cross = 3(1−β)/(ηM).
        limit: τ_SGD = (M/3)(1+β)/(1−β), update steps.
        directions: each direction beside the theory.
        modes: slow motion along each direction.
        lags: update steps, [L].
        autocorrelation: of the noise, mean over directions, [L]; None without noise or curvatures.
        autocorrelation_theory: by the law; None without one.
        band: deviation of the mean if the noise were independent, [L].
        recording: what was audited, from the first whole epoch on.
    """

    verdict: tuple[Finding, ...]
    words: tuple[str, ...]
    law: IndexLaw | None
    noise: theory.Noise | None
    steps_per_epoch: int
    momentum: float
    crossover: float
    limit: float
    directions: Directions
    modes: Modes
    lags: np.ndarray
    autocorrelation: np.ndarray | None
    autocorrelation_theory: np.ndarray | None
    band: np.ndarray | None
    recording: Recording

    def __repr__(self) -> str:
        return display.described(self)


def audit(recording: Recording, *, level: float = LEVEL) -> Audit:
    """Asks a recorded run for its sampling, momentum, stationarity, noise and curvature.

    All p-values are two-sided; Holm's method holds the probability that a run which is what it is
    said to be gets any finding below the level. What an earlier answer contradicts is replaced for
    the later ones: the law read off the indices, the momentum that the weights show. The variances
    are not judged where the minimum moves or few examples carry the noise.

    Args:
        recording: weights or updates along directions, and whatever else there is of it.
        level: of all questions together.

    Raises:
        ValueError: a recording whose parts do not fit, or fewer than four epochs.
    """
    recording = checked(recording)
    N, S = recording.num_examples, recording.batch_size
    law = None if recording.indices is None else law_of_indices(recording.indices, N)
    if law is not None and law.first_epoch:
        recording = checked(from_step(recording, law.first_epoch))
    M = _steps_per_epoch(recording.claimed, N, S) if law is None else law.steps_per_epoch
    noise = tabulated(recording.claimed, N, S) if law is None else law.noise
    closed = law is None or law.p_value >= indices.LEVEL
    laws = _possible(noise, M) if law is None else [noise] if noise and closed else []
    momentum, beta = momentum_finding(recording, laws, law_known=law is not None)
    cross = 3 * (1 - beta) / (recording.learning_rate * M)
    series = noise_series(recording, beta, cross)
    sampling, beyond = _sampling(recording, law, series, noise, M)
    if law is None and _early([momentum, sampling], level) >= {"sampling"}:
        noise = _rival(noise, M)
    moved = modes(recording, beta, noise if noise and closed else theory.with_replacement())
    balance, _ = stationarity_finding(recording, beta, noise, M)
    asked = [momentum, sampling, beyond, balance, drift_finding(moved)]
    asked.append(carriers_finding(recording, beta, M))
    found = directions(recording, beta, noise if closed else None)
    windows = _unjudged(_early(asked, level), series)
    asked.append(curvature_finding(recording, found, windows=windows))
    said = _early(asked, level)
    if "curvature" in said:
        asked[0], _ = momentum_finding(recording, laws, law_known=law is not None, parabola=False)
    if said & {"drift", "stationarity"} and recording.gradients is recording.noise is None:
        asked[0] = untested("momentum", "not judged: weights alone, of a minimum that moves")
    if said & {"curvature", "drift", "stationarity"}:
        asked = _without_curvatures(asked, series)
    verdict = at_level(asked, level)
    lags = np.arange(1, min(2 * M, len(recording.updates) // 2))
    r, band = (None, None) if series is None else mean_autocorrelation(series, int(lags[-1]))
    return Audit(
        verdict, _words(verdict), law, noise, M, beta, cross, M / 3 * (1 + beta) / (1 - beta),
        found, moved, lags, None if r is None else r[1:],
        None if noise is None else theory.autocorrelation(noise, lags),
        None if band is None else band[1:], recording,
    )  # fmt: skip


def from_step(recording: Recording, first: int) -> Recording:
    """The recording without its first steps: what stands at steps is cut, the rest stays."""
    cut = {
        name: getattr(recording, name)[first:]
        for name in ("weights", "updates", "gradients", "noise", "indices")
        if getattr(recording, name) is not None
    }
    return recording._replace(**cut)


def _steps_per_epoch(claimed: str, N: int, S: int) -> int:
    return N // S if claimed == "drop_last" else -(-N // S)


def _sampling(
    recording: Recording, law: IndexLaw | None, series: NoiseSeries | None,
    noise: theory.Noise | None, M: int,
) -> tuple[Finding, Finding]:  # fmt: skip
    """Is the sampling the claimed one, and the noise that of the sampling?"""
    N, S = recording.num_examples, recording.batch_size
    if law is None:
        beyond = untested("noise", "not told from the sampling: no indices were recorded")
        return law_finding("sampling", series, noise, M, _rival(noise, M)), beyond
    closed = noise if law.p_value >= indices.LEVEL else None
    beyond = law_finding("noise", series, closed, M)
    claimed = _same(recording.claimed, N, S)
    agrees = claimed in {_same(name, N, S) for name in (law.name, *law.others)}
    if agrees and S != law_batch(recording):
        agrees = False
    p = 1.0 if agrees else (law.p_value if law.name in ("windowed", "uneven") else 0.0)
    sentence = f"the indices are {law.name.replace('_', ' ')}: {law.sentence}"
    sentence += "" if agrees else f"; said was {recording.claimed.replace('_', ' ')}"
    return Finding("sampling", float(not agrees), np.nan, p, sentence), beyond


def law_batch(recording: Recording) -> int:
    """The size of a full batch in the indices."""
    return int(np.max(np.sum(np.asarray(recording.indices) >= 0, axis=1)))


def _same(name: str, N: int, S: int) -> str:
    """One name for schemes that are one where S divides N."""
    same = N % S == 0 and name in ("drop_last", "spanning_batches")
    return "without_replacement" if same else name


def _rival(noise: theory.Noise | None, M: int) -> theory.Noise:
    """The other kind of sampling: epochs against independent draws."""
    white = noise is not None and noise.white > 0.5
    return theory.without_replacement(M) if white else theory.with_replacement()


def _possible(noise: theory.Noise | None, M: int) -> list[theory.Noise]:
    """Laws that a run without indices may have: the claimed one and both plain kinds."""
    known = [] if noise is None else [noise]
    return [*known, theory.without_replacement(M), theory.with_replacement()]


def _early(asked: list[Finding], level: float) -> set[str]:
    """What is found already."""
    return {one.name for one in at_level(asked, level) if one.flagged}


def _unjudged(early: set[str], series: NoiseSeries | None) -> str | None:
    """Why the variances are not compared with theory, if they are not."""
    if early & {"drift", "stationarity"}:
        return "the minimum moves"
    if "carriers" in early:
        return "few examples carry the noise, whose sums are not Gaussian"
    if "noise" in early and series is not None and series.exact:
        return "the noise is more than that of the sampling"
    return None


def _without_curvatures(asked: list[Finding], series: NoiseSeries | None) -> list[Finding]:
    """Noise that was made from curvatures says nothing where these do not hold."""
    if series is None or series.exact:
        return asked
    words = "not judged: the noise was made from the curvatures of a minimum that does not hold"
    return [untested(one.name, words) if one.name == "noise" else one for one in asked]


def _words(verdict: tuple[Finding, ...]) -> tuple[str, ...]:
    said = tuple(dict.fromkeys(WORDS[one.name] for one in verdict if one.flagged))
    return said if WORDS["drift"] in said else ("stationary", *said)
