"""The report holds every row and figure, computes z, escapes what it shows, links to nothing."""

import json
import re
import struct
import subprocess
import sys
import zlib
from html.parser import HTMLParser

import pytest

from antisgd.study import report
from antisgd.study.findings.rows import row
from antisgd.study.report import page as pages
from experiments import paper
from experiments import report as command
from tests import tiny

VOID = {"meta", "img"}


def png(width):
    """A white picture of one row."""

    def chunk(kind, data):
        return (
            struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))
        )

    header = struct.pack(">IIBBBBB", width, 1, 8, 0, 0, 0, 0)
    pixels = zlib.compress(b"\0" + b"\xff" * width)
    parts = chunk(b"IHDR", header) + chunk(b"IDAT", pixels) + chunk(b"IEND", b"")
    return b"\x89PNG\r\n\x1a\n" + parts


ROWS = [
    row("test_accuracy", "Fig. 8", "test accuracy", 0.62, paper=0.63),
    row("weight_exponent_without_replacement", "Fig. 2", "exponent of the weight variance", 1.1,
        0.008, paper=1.077, paper_error=0.006, n=5000, note="robust <error>"),
    row("far", "Fig. 2", "far off", 2.0, 0.03, paper=1.0, paper_error=0.04),
    row("tau", "Fig. 2", "correlation time <s & more", 6333.3, 12.0, unit="steps", n=300),
    row("tiny", "Fig. 1", "noise autocorrelation", -0.00108, 0.00003),
    row("failed", "Fig. 7", "not a number", 1.0) | {"here": None},
]  # fmt: skip


@pytest.fixture
def run_folder(tmp_path):
    config = {
        "settings": {"dataset": "digits", "batch_size": 10, "sampling": ["with", "without"]},
        "provenance": {
            "command": "python -m experiments.lenet --dataset=digits --note='<b>'",
            "date": "2026-01-02 03:04 UTC",
            "git_commit": "0123456789ab",
            "versions": {"jax": "0.10.2"},
        },
        "data_fingerprint": "feedbeef",
    }
    (tmp_path / "config.json").write_text(json.dumps(config))
    (tmp_path / "summary.json").write_text(json.dumps(ROWS))
    (tmp_path / "figures").mkdir()
    for name, width in (("fig02", 1400), ("fig01", 10), ("fig02_seed1", 10), ("other_one", 10)):
        (tmp_path / "figures" / f"{name}.png").write_bytes(png(width))
        (tmp_path / "figures" / f"{name}.pdf").write_bytes(b"%PDF")
    return tmp_path


def rendered(run_folder):
    """As the paper's experiments are shown."""
    return report.render(run_folder, paper.CAPTIONED, paper.HEADLINED)


def cells(page, identifier):
    """The texts of a row's cells."""
    inside = re.search(f"<tr id='{identifier}'>(.*?)</tr>", page)[1]
    return [re.sub("<.*?>", "", cell) for cell in re.findall("<td.*?>(.*?)</td>", inside)]


def test_every_row_is_there_once_with_its_numbers(run_folder):
    page = rendered(run_folder)
    for one in ROWS:
        assert page.count(f"<tr id='{one['id']}'>") == 1
    assert cells(page, "test_accuracy")[2:] == ["0.63", "0.62", "", ""]
    assert cells(page, "tau")[2:] == ["6333 ± 12 steps", "300"]
    assert cells(page, "tiny")[2] == "(−1.080 ± 0.030)·10−3"
    assert cells(page, "failed")[2:] == ["", ""]


def test_z_is_the_difference_over_both_errors_and_large_ones_stand_out(run_folder):
    page = rendered(run_folder)
    paper, here, z, n = cells(page, "weight_exponent_without_replacement")[2:]
    assert (paper, here, n) == ("1.0770 ± 0.0060", "1.1000 ± 0.0080", "5,000")
    assert z == "+2.3"  # 0.023 / 0.01
    assert cells(page, "far")[4] == "+20.0"
    assert page.count("class='number far'") == 1


def test_every_figure_is_embedded_whole_with_its_title_and_notice(run_folder):
    page = rendered(run_folder)
    order = re.findall("<figure id='(.*?)'>", page)
    assert order == ["fig01", "fig02", "fig02_seed1", "other_one"]
    assert page.count("src='data:image/png;base64,iVBOR") == 4
    assert "<h3>Fig. 2: variances and correlation time against curvature</h3>" in page
    assert "against curvature, seed 1</h3>" in page
    assert "width=700 " in page  # half of the picture's pixels
    # Only what is wider than a phone scrolls there.
    assert page.count("<div class=wide>") == 1
    for title, notice in paper.CAPTIONED.values():
        assert title and notice.endswith(".")


def test_a_study_of_ones_own_shows_its_figures_by_their_own_names(run_folder):
    for path in (run_folder / "figures").glob("*.png"):
        path.rename(path.with_name(path.name.replace("fig02", "variances")))
    page = report.render(run_folder)
    assert "<h3>Variances and correlation time against curvature</h3>" in page
    assert "<h3>Variances and correlation time against curvature, seed 1</h3>" in page
    assert "Fig. 2:" not in page
    assert {caption.title for caption in report.CAPTIONS.values() if not caption.notice} == set()


def test_the_title_names_network_and_data_where_they_are_known(run_folder):
    config = json.loads((run_folder / "config.json").read_text())
    known = config | {"network": "my <net>", "data": "my data"}
    (run_folder / "config.json").write_text(json.dumps(known))
    assert "<title>antisgd: my &lt;net&gt;, my data</title>" in report.render(run_folder)


def test_provenance_settings_and_command_are_there(run_folder):
    page = rendered(run_folder)
    assert "python -m experiments.lenet --dataset=digits --note=&#x27;&lt;b&gt;&#x27;" in page
    assert "<p class=soft>2026-01-02 03:04 UTC, commit 0123456789ab</p>" in page
    for text in ("0.10.2", "batch_size", "with, without", "feedbeef"):
        assert text in page
    assert "<title>antisgd: lenet, digits</title>" in page


def test_a_run_that_was_gone_on_with_names_both_commands(run_folder):
    config = json.loads((run_folder / "config.json").read_text())
    then = {"command": "python -m experiments.lenet --eigenpairs=60", "date": "2025-12-31"}
    (run_folder / "config.json").write_text(json.dumps(config | {"begun_with": then}))
    page = rendered(run_folder)
    assert "<dd>python -m experiments.lenet --eigenpairs=60 (2025-12-31)</dd>" in page


def test_the_page_needs_nothing_from_elsewhere(run_folder):
    page = rendered(run_folder)
    assert not re.search(r"https?:|<a |<link|<script|@import|url\(", page)
    assert set(re.findall(r"src='([^;,]{0,30})", page)) == {"data:image/png"}


class Balance(HTMLParser):
    """Follows the open elements of a page."""

    def __init__(self):
        super().__init__()
        self.open, self.texts = [], []

    def handle_starttag(self, tag, attributes):
        if tag not in VOID:
            self.open.append(tag)

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        self.texts.append(data)


def test_the_page_is_well_formed_and_escapes_what_it_shows(run_folder):
    parser = Balance()
    parser.feed(rendered(run_folder))
    assert parser.open == []
    assert "robust <error>" in parser.texts
    assert "correlation time <s & more" in parser.texts


def test_headlines_fall_back_on_rows_that_the_paper_has(run_folder):
    assert rendered(run_folder).count("<div class=card>") == 2
    (run_folder / "summary.json").write_text(json.dumps(ROWS[2:]))
    page = rendered(run_folder)
    assert page.count("<div class=card>") == 1
    assert "<div class=card>far off<b>2.000 ± 0.030</b>" in page


def test_headlines_have_the_papers_value_or_the_theorys_beside_them(run_folder):
    near = "noise_autocorrelation_near_without_replacement"
    rows = [
        row(near, "Fig. 1", "near", -0.0035, 0.0012, note="theory -0.00653; 29 directions"),
        row(
            "tau_over_theory_window_with_replacement",
            "Fig. 7",
            "tau",
            0.93,
            0.02,
            note="by the theory 0.95: one window",
        ),
        row("velocity_exponent_without_replacement", "Fig. 2", "without any", 1.5, 0.2),
    ]
    (run_folder / "summary.json").write_text(json.dumps(rows + ROWS[:1]))
    cards = re.findall("<div class=card>(.*?)</div>", rendered(run_folder))
    assert [re.sub(".*<small>|</small>", "", card) for card in cards] == [
        "paper: 0.63", "theory: −0.00653", "theory: 0.95",
    ]  # fmt: skip


def test_a_run_without_figures_or_paper_values_still_has_a_report(run_folder):
    for path in (run_folder / "figures").iterdir():
        path.unlink()
    (run_folder / "summary.json").write_text(json.dumps(ROWS[3:]))
    page = rendered(run_folder)
    assert "<figure" not in page
    assert "Paper against here" not in page
    assert page.count("<tr id=") == 3


@pytest.mark.parametrize(
    "value, error, text",
    [
        (None, None, ""),
        (0.0, None, "0"),
        (0.0, 0.0, "0"),
        (35, None, "35"),
        (63.3333, None, "63.33"),
        (12345.6, None, "12346"),
        (0.269, 0.0297, "0.269 ± 0.030"),
        (0.0, 0.002, "(0.0 ± 2.0)·10<sup>−3</sup>"),
        (2.5e7, None, "2.5·10<sup>7</sup>"),
        (-1e-4, 1e-2, "0.000 ± 0.010"),
    ],
)
def test_numbers_are_written_to_two_digits_of_their_error(value, error, text):
    assert pages._number(value, error).replace("−0.000", "0.000") == text


def test_a_folder_without_a_run_is_one_line_and_exit_code_one(run_folder):
    place = str(run_folder / "figures")
    found = subprocess.run(
        [sys.executable, "-m", "experiments.report", place],
        capture_output=True, text=True, cwd=tiny.ROOT, check=False,
    )  # fmt: skip
    assert found.returncode == 1
    assert re.fullmatch(r"error: .*holds no config\.json: give the folder of a run\n", found.stderr)


def test_the_command_writes_the_page_with_the_papers_captions(run_folder):
    command.main([str(run_folder)])
    assert (run_folder / "report.html").read_text() == rendered(run_folder)
