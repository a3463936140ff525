"""Long work shows how far it is: on a terminal as a bar, in a log as a few lines."""

import sys
from functools import partial

import pytest

from antisgd import display


@pytest.fixture(autouse=True)
def shown(monkeypatch):
    """The tests themselves may have been told to show no bars."""
    monkeypatch.setattr(display, "tqdm", partial(display.tqdm, disable=False))


def test_a_log_gets_a_line_at_the_start_and_at_the_end_of_short_work(capsys):
    with display.progress_bar("training", "epoch", 1000) as bar:
        for number in range(1000):
            bar.set_postfix_str(f"loss {number}", refresh=False)
            bar.update()
    log = capsys.readouterr().err
    first, last = log.splitlines()
    assert first.startswith("training: 0/1000 epochs [")
    assert last.startswith("training: 1000/1000 epochs [") and "loss 999]" in last
    assert "\r" not in log


def test_a_log_gets_a_line_now_and_then_of_long_work(capsys, monkeypatch):
    monkeypatch.setattr(display, "SECONDS_A_LINE", 0.0)
    with display.progress_bar("solve", "product", done=5) as bar:
        for _ in range(3):
            bar.total = 10
            bar.update()
    assert [line.split()[1] for line in capsys.readouterr().err.splitlines()] == [
        "5/?", "6/10", "7/10", "8/10", "8/10",
    ]  # fmt: skip


def test_a_terminal_gets_a_bar(capsys, monkeypatch):
    monkeypatch.setattr(sys.stderr, "isatty", lambda: True)
    with display.progress_bar("training", "epoch", 3) as bar:
        bar.update(3)
    log = capsys.readouterr().err
    assert "\r" in log and "100%" in log
