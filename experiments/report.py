"""report.html of a run folder: one self-contained page that a colleague can be sent.

python -m experiments.report RUN_FOLDER        writes RUN_FOLDER/report.html anew
"""

import base64
import math
import re
import sys
from collections.abc import Mapping, Sequence
from html import escape
from pathlib import Path
from typing import Any

from antisgd import results

__all__ = ["render"]

# Rows shown large at the top where the run has them, and their short names.
HEADLINES = {
    "test_accuracy": "test accuracy after training",
    "best_accuracy_difference": "accuracy without minus with replacement",
    "noise_autocorrelation_near_without_replacement": "noise autocorrelation at short lags",
    "weight_exponent_without_replacement": "exponent of the weight variance",
    "velocity_exponent_without_replacement": "exponent of the velocity variance",
    "tau_over_theory_window_without_replacement": "correlation time over theory, without repl.",
    "tau_over_theory_window_with_replacement": "correlation time over theory, with repl.",
    "regime_ratio": "correlation time, with over without repl.",
    "loss_fluctuation_reduction": "reduction of the loss fluctuation",
}
MOST_HEADLINES = 8

# Figure name → title and what to notice.
CAPTIONS = {
    "fig01": ("Fig. 1: autocorrelation of the gradient noise", "Within one epoch the noise is "
              "anti-correlated, rising from −1/(M−1) to zero along the line of Eq. 2; beyond an "
              "epoch nothing is left. Of independent directions 95 % lie in the grey band."),
    "fig02": ("Fig. 2: variances and correlation time against curvature", "Left: the weight "
              "variance bends at λ_cross, flat to its right and proportional to λ to its left, "
              "while the velocity variance stays proportional to λ. Right: the correlation time "
              "falls as 1/λ in steep directions and stops at τ_SGD in flat ones."),
    "fig03": ("Fig. 3: the original basis against principal components", "What is isotropic "
              "looks anisotropic in the eigenbasis of its own recorded covariance."),
    "fig04": ("Fig. 4: the first convolution in two bases", "The exponents depend on the basis: "
              "the eigenbasis of Σ inflates them, that of the Hessian does not."),
    "fig05": ("Fig. 5: density of the Hessian eigenvalues found", "A few steep directions, and a "
              "multitude of flat ones left of λ_cross, where the anti-correlations act."),
    "fig06": ("Fig. 6: noise autocorrelation in both regimes", "With replacement the "
              "anti-correlation is gone: it is the epochs that make it."),
    "fig07": ("Fig. 7: variances and correlation times in both regimes", "Right of λ_cross both "
              "columns agree. Left of it, with replacement, the correlation time goes on growing "
              "until the finite window cuts it off (the dashed line)."),
    "fig08": ("Fig. 8: loss and accuracy", "In the shaded analysis period the loss should hardly "
              "change: the theory assumes a stationary state."),
    "fig09": ("Fig. 9: other batch sizes", "Each batch size follows its own theory line."),
    "fig10": ("Fig. 10: τ_SGD and λ_cross, hyperparameters varied", "Lines are Eq. 109."),
    "fig11": ("Fig. 11: discarding eigenvectors", "Accuracy falls in two steps: at the first few "
              "eigenvectors, and again far below λ_cross, where the weights have projections "
              "larger than a random vector's (the red band)."),
    "fig12": ("Fig. 12: ResNet-20", "The same laws in a deeper network."),
    "fig13": ("Fig. 13: noise variance in two eigenbases", "Points on the line mean that noise "
              "covariance and Hessian share their eigenvectors."),
    "fig14": ("Fig. 14: noise variance against curvature", "An exponent of one would mean that "
              "the noise covariance is proportional to the Hessian."),
    "seeds": ("Sec. 7: test accuracy of every seed", "Each grey line is one seed in both regimes; "
              "the error bars are one standard error of the mean, the pairs decide."),
}  # fmt: skip

STYLE = """
:root { color-scheme: light; --ink: #1b1f24; --soft: #5b6470; --line: #d9dde2; --pale: #f5f7f9; }
* { box-sizing: border-box; }
body { margin: 0 auto; max-width: 66rem; padding: 1.5rem; color: var(--ink); background: #fff;
  font: 16px/1.55 system-ui, -apple-system, "Segoe UI", Roboto, "Liberation Sans", sans-serif; }
h1 { font-size: 1.6rem; line-height: 1.25; margin: 0 0 .25rem; }
h2 { font-size: 1.15rem; margin: 2.5rem 0 .75rem; padding-top: .75rem;
  border-top: 1px solid var(--line); }
h3 { font-size: 1rem; margin: 0 0 .25rem; }
p { margin: .25rem 0 .75rem; max-width: 46rem; }
.soft, small { color: var(--soft); }
.cards { display: grid; grid-template-columns: repeat(auto-fill, minmax(14rem, 1fr)); gap: .75rem; }
.card { background: var(--pale); border-radius: .5rem; padding: .75rem 1rem; }
.card b { display: block; font-size: 1.3rem; font-weight: 600; line-height: 1.35; }
table { border-collapse: collapse; width: 100%; font-size: .9rem; }
th { text-align: left; color: var(--soft); font-weight: 600; }
th, td { padding: .4rem .6rem .4rem 0; border-bottom: 1px solid var(--line);
  vertical-align: top; overflow-wrap: anywhere; }
.number { text-align: right; white-space: nowrap; font-variant-numeric: tabular-nums; }
td:first-child { white-space: nowrap; }
td small { display: block; line-height: 1.35; }
.far { color: #a33800; font-weight: 600; }
figure { margin: 0 0 2.25rem; }
figure img { display: block; max-width: 100%; height: auto; margin: .5rem 0; }
pre { background: var(--pale); border-radius: .5rem; padding: .75rem 1rem; white-space: pre-wrap;
  overflow-wrap: anywhere; font-size: .85rem; }
dl { display: grid; grid-template-columns: minmax(8rem, auto) 1fr; gap: .2rem 1rem;
  font-size: .9rem; margin: 0; }
dt { color: var(--soft); } dd { margin: 0; overflow-wrap: anywhere; }
summary { cursor: pointer; margin: .75rem 0; }
@media (max-width: 40rem) {
  body { padding: 1rem; }
  .cards { grid-template-columns: repeat(2, minmax(0, 1fr)); } .card { padding: .6rem .7rem; }
  .card b { font-size: 1.05rem; }
  thead, td:empty { display: none; }
  tr { display: block; padding: .6rem 0; border-bottom: 1px solid var(--line); }
  td { display: block; border: 0; padding: 0; } td:first-child { color: var(--soft); }
  td.number { display: inline-block; text-align: left; margin-right: 1rem; }
  td.number::before { content: attr(data-name) " "; color: var(--soft); font-weight: 400; }
  td.number:empty { display: none; } .wide { overflow-x: auto; } .wide img { max-width: 40rem; }
}
sup, sub { line-height: 0; }
@media print { figure, tr { break-inside: avoid; } }
"""


def render(run_folder: Path) -> str:
    """The report of a run folder as one HTML page without scripts or links to elsewhere.

    Takes config.json, summary.json and figures/*.png as they are.

    Raises:
        FileNotFoundError: the folder holds no finished run.
        ValueError: a damaged JSON file.
    """
    for name in ("config.json", "summary.json"):
        if not (run_folder / name).exists():
            raise FileNotFoundError(f"{run_folder} holds no {name}: give the folder of a run")
    config = results.read_json(run_folder / "config.json")
    rows = results.read_json(run_folder / "summary.json")
    command = config["provenance"]["command"]
    name = re.search(r"experiments\.(\w+)|$", command)[1] or "run"
    title = f"antisgd: {name}, {config['settings'].get('dataset', 'no data')}"
    parts = [
        f"<h1>{escape(title)}</h1>",
        "<p class=soft>Anti-correlated noise in epoch-based stochastic gradient descent, "
        "measured and compared with theory and paper. Errors are one standard error.</p>",
        _headlines(rows),
        _against_paper(rows),
        _figures(sorted((run_folder / "figures").glob("*.png"))),
        _beyond_paper(rows),
        _provenance(config, command),
    ]
    return (
        "<!doctype html>\n<html lang=en><head><meta charset=utf-8>"
        "<meta name=viewport content='width=device-width, initial-scale=1'>"
        f"<title>{escape(title)}</title><style>{STYLE}</style></head>\n<body>\n"
        + "\n".join(parts)
        + "\n</body></html>\n"
    )


def _headlines(rows: Sequence[Mapping[str, Any]]) -> str:
    by_id = {row["id"]: row for row in rows}
    chosen = [(name, by_id[key]) for key, name in HEADLINES.items() if key in by_id]
    if not chosen:
        chosen = [(row["quantity"], row) for row in rows if row["paper"] is not None]
    cards = "".join(_card(name, row) for name, row in chosen[:MOST_HEADLINES])
    return f"<div class=cards>{cards}</div>" if cards else ""


def _card(name: str, row: Mapping[str, Any]) -> str:
    paper = _number(row["paper"], row["paper_error"])
    beside = f"paper: {paper}" if paper else escape(row["paper_item"])
    value = f"{_number(row['here'], row['here_error'])} {_unit(row)}".strip()
    return f"<div class=card>{escape(name)}<b>{value}</b><small>{beside}</small></div>"


def _unit(row: Mapping[str, Any]) -> str:
    return "" if row["unit"] in ("1", "", None) else escape(row["unit"])


def _number(value: float | None, error: float | None = None) -> str:
    """A value with its error to two digits, in powers of ten where it is very small or large."""
    if value is None:
        return ""
    size = max(abs(value), abs(error or 0))
    power = math.floor(math.log10(size)) if size else 0
    if -3 < power < 6:
        return _plain(value, error)
    scaled = _plain(value / 10**power, error / 10**power if error else None)
    scaled = f"({scaled})" if error else scaled
    return f"{scaled}·10<sup>{power}</sup>".replace("-", "−")


def _plain(value: float, error: float | None) -> str:
    if not error:
        return (f"{value:.0f}" if abs(value) >= 1000 else f"{value:.4g}").replace("-", "−")
    decimals = min(max(1 - math.floor(math.log10(error)), 0), 6)
    return f"{value:.{decimals}f} ± {error:.{decimals}f}".replace("-", "−")


def _against_paper(rows: Sequence[Mapping[str, Any]]) -> str:
    compared = [row for row in rows if row["paper"] is not None]
    if not compared:
        return ""
    return (
        "<h2>Paper against here</h2><p class=soft>z is the difference over both errors, where "
        "both are known. A run of another size or on other data need not agree.</p>"
        + _table(compared, ("paper", "here", "z", "n"))
    )


def _beyond_paper(rows: Sequence[Mapping[str, Any]]) -> str:
    others = [row for row in rows if row["paper"] is None]
    return "<h2>More numbers of this run</h2>" + _table(others, ("here", "n")) if others else ""


def _table(rows: Sequence[Mapping[str, Any]], columns: Sequence[str]) -> str:
    head = "".join(f"<th class=number>{name}</th>" for name in columns)
    body = "".join(_row(row, columns) for row in rows)
    return (
        f"<table><thead><tr><th>item</th><th>quantity</th>{head}</tr></thead>"
        f"<tbody>{body}</tbody></table>"
    )


def _row(row: Mapping[str, Any], columns: Sequence[str]) -> str:
    z = _z(row)
    cells = {
        "paper": _number(row["paper"], row["paper_error"]),
        "here": f"{_number(row['here'], row['here_error'])} {_unit(row)}".strip(),
        "z": "" if z is None else f"{z:+.1f}".replace("-", "−"),
        "n": "" if row["n"] is None else f"{row['n']:,}",
    }
    far = " far" if z is not None and abs(z) > 3 else ""
    numbers = "".join(
        f"<td class='number{far if name == 'z' else ''}' data-name={name}>{cells[name]}</td>"
        for name in columns
    )
    note = f"<small>{escape(row['note'])}</small>" if row["note"] else ""
    return (
        f"<tr id='{escape(row['id'])}'><td>{escape(row['paper_item'])}</td>"
        f"<td>{escape(row['quantity'])}{note}</td>{numbers}</tr>"
    )


def _z(row: Mapping[str, Any]) -> float | None:
    """(here − paper) over the root of both squared errors; None without both."""
    known = [row[key] for key in ("here", "here_error", "paper", "paper_error")]
    if None in known or not row["here_error"] and not row["paper_error"]:
        return None
    return (row["here"] - row["paper"]) / math.hypot(row["here_error"], row["paper_error"])


def _figures(paths: Sequence[Path]) -> str:
    if not paths:
        return ""
    note = "<p class=soft>The same as PDF, for print, lie beside in figures/.</p>"
    return f"<h2>Figures</h2>{note}" + "".join(_figure(path) for path in paths)


def _figure(path: Path) -> str:
    base, _, seed = path.stem.partition("_seed")
    title, notice = CAPTIONS.get(base, (path.stem, ""))
    title += f", seed {seed}" if seed else ""
    picture = path.read_bytes()
    # The width stands at byte 16 of a PNG. Fewer page than picture pixels: sharp, and text alike.
    width, encoded = round(0.7 * int.from_bytes(picture[16:20])), base64.b64encode(picture).decode()
    heading, text = (
        re.sub("_(SGD|cross)", r"<sub>\1</sub>", escape(words)) for words in (title, notice)
    )
    return (
        f"<figure id='{escape(path.stem)}'><h3>{heading}</h3><div{' class=wide' * (width > 600)}>"
        f"<img alt='{escape(title)}' width={width} src='data:image/png;base64,{encoded}'>"
        f"</div><figcaption><p>{text}</p></figcaption></figure>\n"
    )


def _provenance(config: Mapping[str, Any], command: str) -> str:
    provenance = {key: value for key, value in config["provenance"].items() if key != "command"}
    versions = provenance.pop("versions", {})
    rest = {key: value for key, value in config.items() if key not in ("settings", "provenance")}
    return (
        f"<h2>How this was made</h2><pre>{escape(command)}</pre>{_list(provenance | rest)}"
        f"<details open><summary>settings</summary>{_list(config['settings'])}</details>"
        f"<details open><summary>versions</summary>{_list(versions)}</details>"
    )


def _list(entries: Mapping[str, Any]) -> str:
    items = ""
    for key, value in entries.items():
        text = ", ".join(map(str, value)) if isinstance(value, list) else str(value)
        items += f"<dt>{escape(key)}</dt><dd>{escape(text)}</dd>"
    return f"<dl>{items}</dl>"


def main(arguments: Sequence[str]) -> None:
    """Renders the report of the run folder given on the command line."""
    if len(arguments) != 1:
        raise ValueError("usage: python -m experiments.report RUN_FOLDER")
    folder = Path(arguments[0])
    results.write_text(folder / "report.html", render(folder))
    print(f"wrote {folder / 'report.html'}")


if __name__ == "__main__":
    try:
        main(sys.argv[1:])
    except (ValueError, OSError) as error:
        sys.exit(f"error: {error}")
