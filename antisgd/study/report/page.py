"""report.html of a run folder: one self-contained page that a colleague can be sent."""

import base64
import math
import re
from collections.abc import Mapping, Sequence
from html import escape
from pathlib import Path
from typing import Any

from antisgd import results
from antisgd.study.report.captions import CAPTIONS, Caption, caption
from antisgd.study.report.headlines import HEADLINES

__all__ = ["render"]

STYLE = Path(__file__).with_name("report.css")
MOST_HEADLINES = 8
# The theory's value where a row's note gives one.
THEORY = re.compile(r"theory (-?\d[\d.e-]*)")


def render(
    run_folder: Path,
    captions: Mapping[str, Caption] = CAPTIONS,
    headlines: Mapping[str, tuple[str, str | None]] = HEADLINES,
) -> str:
    """The report of a run folder as one HTML page without scripts or links to elsewhere.

    Takes config.json, summary.json and figures/*.png as they are.

    Args:
        run_folder: of a finished run.
        captions: name of a figure → its title and what to notice in it.
        headlines: rows shown large, see `HEADLINES`.

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
    name = config.get("network") or _experiment(command)
    shown = config.get("data") or config["settings"].get("dataset", "no data")
    title = f"antisgd: {name}, {shown}"
    parts = [
        f"<h1>{escape(title)}</h1>",
        "<p class=soft>SGD that goes through its examples epoch by epoch has anti-correlated "
        "gradient noise. What that does to a network's weights: measured, beside theory and paper. "
        "Errors are one standard error; n counts the directions, seeds or points behind it.</p>",
        f"<pre>{escape(command)}</pre><p class=soft>{escape(_made(config['provenance']))}</p>",
        _headlines(rows, headlines),
        _against_paper(rows),
        _figures(sorted((run_folder / "figures").glob("*.png")), captions),
        _beyond_paper(rows),
        _provenance(config),
    ]
    return (
        "<!doctype html>\n<html lang=en><head><meta charset=utf-8>"
        "<meta name=viewport content='width=device-width, initial-scale=1'>"
        f"<title>{escape(title)}</title><style>{STYLE.read_text()}</style></head>\n<body>\n"
        + "\n".join(parts)
        + "\n</body></html>\n"
    )


def _experiment(command: str) -> str:
    found = re.search(r"experiments\.(\w+)", command)
    return found[1] if found else "run"


def _made(provenance: Mapping[str, Any]) -> str:
    """When, from which commit and on what, in one line."""
    known = [provenance.get(key) for key in ("date", "git_commit", "device")]
    known[1] = known[1] and f"commit {known[1]}"
    return ", ".join(part for part in known if part)


def _headlines(
    rows: Sequence[Mapping[str, Any]], headlines: Mapping[str, tuple[str, str | None]]
) -> str:
    by_id = {row["id"]: row for row in rows}
    chosen = [
        (name, by_id[key], _beside(by_id[key]) or expected)
        for key, (name, expected) in headlines.items()
        if key in by_id
    ]
    cards = [_card(*one) for one in chosen if one[2] is not None]
    if not cards:
        compared = [row for row in rows if row["paper"] is not None]
        cards = [_card(row["quantity"], row, _beside(row)) for row in compared]
    return f"<div class=cards>{''.join(cards[:MOST_HEADLINES])}</div>" if cards else ""


def _beside(row: Mapping[str, Any]) -> str | None:
    """What a headline is to be compared with, as HTML: the paper's value, else the theory's."""
    if row["paper"] is not None:
        return f"paper: {_number(row['paper'], row['paper_error'])}"
    theory = THEORY.search(row["note"] or "")
    return f"theory: {theory[1]}".replace("-", "−") if theory else None


def _card(name: str, row: Mapping[str, Any], beside: str | None) -> str:
    value = f"{_number(row['here'], row['here_error'])} {_unit(row)}".strip()
    small = beside or escape(row["paper_item"])
    return f"<div class=card>{_marked(name)}<b>{value}</b><small>{small}</small></div>"


def _marked(words: str) -> str:
    """Words as HTML, with the indices of λ_cross and τ_SGD set low."""
    return re.sub("_(SGD|cross)", r"<sub>\1</sub>", escape(words))


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
    if not others:
        return ""
    return (
        f"<h2>More numbers of this run</h2><details><summary>all {len(others)}</summary>"
        f"{_table(others, ('here', 'n'))}</details>"
    )


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


def _figures(paths: Sequence[Path], captions: Mapping[str, Caption]) -> str:
    if not paths:
        return ""
    note = "<p class=soft>The run folder has the figures as PDF, too.</p>"
    return f"<h2>Figures</h2>{note}" + "".join(
        _figure(path, *caption(path.stem, captions)) for path in paths
    )


def _figure(path: Path, title: str, notice: str) -> str:
    picture = path.read_bytes()
    # The width stands at byte 16 of a PNG. Half as many page as picture pixels: sharp everywhere.
    width, encoded = int.from_bytes(picture[16:20]) // 2, base64.b64encode(picture).decode()
    return (
        f"<figure id='{escape(path.stem)}'><h3>{_marked(title)}</h3>"
        f"<div{' class=wide' * (width > 600)}>"
        f"<img alt='{escape(title)}' width={width} src='data:image/png;base64,{encoded}'>"
        f"</div><figcaption><p>{_marked(notice)}</p></figcaption></figure>\n"
    )


def _provenance(config: Mapping[str, Any]) -> str:
    provenance = {key: value for key, value in config["provenance"].items() if key != "command"}
    versions = provenance.pop("versions", {})
    rest = {key: value for key, value in config.items() if key not in ("settings", "provenance")}
    if "begun_with" in rest:
        rest["begun_with"] = f"{rest['begun_with']['command']} ({_made(rest['begun_with'])})"
    return (
        f"<h2>How this was made</h2>{_list(provenance | rest)}"
        f"<details open><summary>settings</summary>{_list(config['settings'])}</details>"
        f"<details open><summary>versions</summary>{_list(versions)}</details>"
    )


def _list(entries: Mapping[str, Any]) -> str:
    items = ""
    for key, value in entries.items():
        text = ", ".join(map(str, value)) if isinstance(value, list) else str(value)
        items += f"<dt>{escape(key)}</dt><dd>{escape(text)}</dd>"
    return f"<dl>{items}</dl>"
