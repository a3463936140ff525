"""The page of an audit: its verdict in sentences, six panels, a row for each direction."""

import base64
from html import escape
from pathlib import Path
from typing import Any

import numpy as np

from antisgd import plotting, results
from antisgd.audit.examination import Audit
from antisgd.audit.findings import LEVEL, WORDS
from antisgd.audit.noise import gradients

__all__ = ["figure", "summary", "text", "write"]

_STYLE = """
body { margin: 0 auto; max-width: 62rem; padding: 1.5rem; color: #1b1f24;
  font: 16px/1.55 system-ui, -apple-system, "Segoe UI", Roboto, "Liberation Sans", sans-serif; }
h1 { font-size: 1.4rem; margin: 0 0 .25rem; } h2 { font-size: 1.1rem; margin: 2rem 0 .5rem; }
.soft { color: #5b6470; } .flagged { color: #a33800; font-weight: 600; }
table { border-collapse: collapse; width: 100%; font-size: .9rem; }
th { text-align: left; color: #5b6470; } th, td { padding: .35rem .6rem .35rem 0;
  border-bottom: 1px solid #d9dde2; vertical-align: top; }
td.number, th.number { text-align: right; font-variant-numeric: tabular-nums; }
img { max-width: 100%; height: auto; } summary { cursor: pointer; margin: .75rem 0; }
"""
_CAPTION = (
    "(a) Where each example stands in two epochs that follow each other: an even cloud if orders "
    "are independent; without epochs, how often each example was used. (b) Autocorrelation of the "
    "gradient noise, mean over directions. (c) Batch gradients of all directions: tails far above "
    "the Gaussian mean that few examples carry the noise. (d) Three directions over time. (e) "
    "Motion along Legendre polynomials of time over what a stationary run makes of it; the first "
    "two degrees are what drifts. (f) Correlation times, a straight line taken off, beside the "
    "finite-window theory at the recorded curvatures."
)


def write(found: Audit, folder: Path) -> None:
    """Writes audit.html, audit.json and the figure as PNG and PDF into a folder."""
    results.write_figure(folder / "audit", figure(found))
    results.write_json(folder / "audit.json", summary(found))
    picture = base64.b64encode((folder / "audit.png").read_bytes()).decode()
    results.write_text(folder / "audit.html", _html(found, picture))


def figure(found: Audit) -> Any:
    """The six panels, a matplotlib figure."""
    return plotting.audit_page(_arrays(found), "verdict: " + ", ".join(found.words))


def _arrays(found: Audit) -> plotting.AuditArrays:
    """What the figure shows."""
    recording, table = found.recording, found.directions
    theta = recording.weights - recording.weights.mean(axis=0)
    k = theta.shape[1]
    order = np.arange(k) if recording.curvatures is None else np.argsort(-recording.curvatures)
    chosen = np.unique([0, k // 2, k - 1])
    names = [f"no. {i}" for i in chosen]
    if recording.curvatures is not None and k > 2:
        names = ["steepest", "middle", "flattest"]
    g, _ = gradients(recording, found.momentum)
    g = g - g.mean(axis=0)
    uses, places = _uses(found)
    return plotting.AuditArrays(
        found.lags, found.autocorrelation, found.autocorrelation_theory, found.band,
        table.curvatures, table.correlation_time, table.expected, table.low, table.high,
        found.modes.scores, (theta / theta.std(axis=0))[:, order[chosen]], names,
        g / g.std(axis=0), places, uses, found.steps_per_epoch, found.crossover, found.limit,
    )  # fmt: skip


def _uses(found: Audit) -> tuple[np.ndarray | None, np.ndarray | None]:
    """How often each example was used, and its batches in the first two epochs, if all have one."""
    indices = found.recording.indices
    if indices is None:
        return None, None
    N, M = found.recording.num_examples, found.steps_per_epoch
    uses = np.bincount(indices[indices >= 0], minlength=N)
    places = np.full((2, N), -1)
    for epoch in (0, 1):
        rows = indices[epoch * M : (epoch + 1) * M]
        step = np.broadcast_to(np.arange(len(rows))[:, None], rows.shape)
        places[epoch, rows[rows >= 0]] = step[rows >= 0]
    seen = (places >= 0).all(axis=0)
    return uses, places[:, seen] if seen.mean() > 0.8 else None


def text(found: Audit) -> str:
    """The verdict in lines, for a terminal."""
    lines = ["verdict: " + ", ".join(found.words), ""]
    for one in found.verdict:
        mark = "!" if one.flagged else "-" if np.isfinite(one.p_value) else "?"
        p = f" (p = {one.p_value:.2g})" if np.isfinite(one.p_value) else ""
        lines.append(f"  {mark} {one.name}: {one.sentence}{p}")
    return "\n".join([*lines, "", f"  {_scales(found)}"])


def _scales(found: Audit) -> str:
    return (
        f"λ_cross = {found.crossover:.4g}, τ_SGD = {found.limit:.0f} steps, "
        f"M = {found.steps_per_epoch}, β = {found.momentum:.4g}, "
        f"{len(found.recording.updates)} steps along {found.recording.updates.shape[1]} directions"
    )


def summary(found: Audit) -> dict[str, Any]:
    """The audit as numbers and words, for audit.json."""
    table = found.directions._asdict()
    return {
        "words": list(found.words),
        "findings": [one._asdict() for one in found.verdict],
        "law": None if found.law is None else found.law.name,
        "steps": len(found.recording.updates),
        "steps_per_epoch": found.steps_per_epoch,
        "momentum": found.momentum,
        "crossover": found.crossover,
        "limit": found.limit,
        "directions": {name: [float(f"{x:.6g}") for x in table[name]] for name in table},
    }


def _html(found: Audit, picture: str) -> str:
    rows = "".join(_finding(one) for one in found.verdict)
    columns = found.directions._fields[:-1]
    head = "".join(f"<th class=number>{name.replace('_', ' ')}</th>" for name in columns)
    values = zip(*found.directions[:-1], strict=True)
    body = "".join(
        "<tr>" + "".join(f"<td class=number>{x:.4g}</td>" for x in row) + "</tr>" for row in values
    )
    verdict = escape(", ".join(found.words))
    return (
        "<!doctype html>\n<html lang=en><head><meta charset=utf-8>"
        f"<title>antisgd: audit</title><style>{_STYLE}</style></head><body>"
        f"<h1>Audit: {verdict}</h1><p class=soft>{escape(_scales(found))}. A run that is what it "
        f"is said to be gets any finding at all once in {1 / LEVEL:.0f} times.</p>"
        f"<table><tr><th>question</th><th>answer</th><th class=number>p</th></tr>{rows}</table>"
        f"<h2>Figures</h2><img alt='six panels' src='data:image/png;base64,{picture}'>"
        f"<p class=soft>{escape(_CAPTION)}</p><h2>Directions</h2><details><summary>all "
        f"{len(found.directions.curvatures)}</summary><table><tr>{head}</tr>{body}</table>"
        "</details></body></html>\n"
    )


def _finding(one: Any) -> str:
    p = "" if not np.isfinite(one.p_value) else f"{one.p_value:.2g}"
    style = " class=flagged" if one.flagged else ""
    name = f"{one.name}: {WORDS[one.name]}" if one.flagged else one.name
    return (
        f"<tr><td{style}>{escape(name)}</td><td>{escape(one.sentence)}</td>"
        f"<td class=number>{p}</td></tr>"
    )
