"""Runs that are killed at random moments end with the bits of one that nobody disturbed."""

import signal
import time
from collections import Counter

import numpy as np
import pytest

from antisgd import results
from antisgd.study import interruption
from tests import tiny

SHORT = ("--stages=train,eigenpairs,analysis", "--sampling=without_replacement")
# With a basis that is restarted, which is written anew then.
LONG = ("--epochs=60", "--analysis_epochs=15", "--eigenpairs=12", "--basis_memory=8e-5")
# One death in every stage, of each kind; the numbers of writes are those of SHORT.
DOOMS = (
    tiny.Doom(writes=6, seconds=0.01),
    tiny.Doom(writes=20, torn=True),
    tiny.Doom(writes=130, number=signal.SIGTERM),
)


def same_bits(first, second):
    tiny.same_arrays(first, second)
    for path in (first / "figures").glob("*"):
        assert path.read_bytes() == (second / "figures" / path.name).read_bytes(), path
    for path in first.glob("summary.json"):
        for row, other in zip(*map(results.read_json, (path, second / path.name)), strict=True):
            assert row == other


def stages_of(folder):
    """Which stages have begun to write."""
    names = ("checkpoints/training.npz", "checkpoints/eigenpairs.npz",
             "trajectory_without_replacement/checkpoint.npz")  # fmt: skip
    return sum((folder / name).exists() for name in names)


def test_killed_in_every_stage_and_started_again(tmp_path):
    whole, killed = tmp_path / "whole", tmp_path / "killed"
    assert tiny.live(whole, *SHORT)[0] == 0
    for stage, doom in enumerate(DOOMS, 1):
        code, words = tiny.live(killed, *SHORT, doom=doom)
        assert code == (-signal.SIGKILL if doom.number == signal.SIGKILL else 1), words
        assert stages_of(killed) == stage
    assert "stopping at the next checkpoint" in words
    assert "stopped; the same command goes on" in words
    code, words = tiny.live(killed, *SHORT)
    assert code == 0, words
    same_bits(whole, killed)


def random_doom(rng):
    number = rng.choice([signal.SIGKILL, signal.SIGTERM, signal.SIGINT], p=[0.8, 0.1, 0.1])
    torn = bool(number == signal.SIGKILL and rng.random() < 0.3)
    # Some 600 writes make a run of LONG: so many that the deaths of one lie in all its stages.
    return tiny.Doom(int(rng.integers(1, 80)), rng.uniform(0, 0.5), int(number), torn)


def lost(folder, began):
    """Seconds since the newest checkpoint, or since the process began."""
    written = [path.stat().st_mtime for path in folder.rglob("*checkpoint*.npz")]
    written += [path.stat().st_mtime for path in folder.glob("checkpoints/*")]
    return time.time() - max([began, *written])


@pytest.mark.slow
def test_fifty_deaths_at_random_moments(tmp_path):
    whole, rng = tmp_path / "whole", np.random.default_rng(0)
    assert tiny.live(whole, *LONG)[0] == 0
    deaths, longest, runs, code = [], 0.0, 0, None
    while len(deaths) < 50 or code:
        folder, began = tmp_path / f"run_{runs}", time.time()
        doom = random_doom(rng) if len(deaths) < 50 else None
        code, words = tiny.live(folder, *LONG, doom=doom)
        if code == 0:
            same_bits(whole, folder)
            runs += 1
            continue
        assert code == -signal.SIGKILL or "stopped; the same command goes on" in words, words
        longest = max(longest, lost(folder, began))
        deaths.append((signal.Signals(doom.number).name + " torn" * doom.torn, stages_of(folder)))
    print(f"{len(deaths)} deaths in {runs} runs, at most {longest:.1f} s lost", Counter(deaths))
    assert runs > 1 and min(Counter(stage for _, stage in deaths)[n] for n in (1, 2, 3)) >= 5


def test_a_first_signal_waits_for_the_checkpoint_and_a_second_one_does_not(capfd):
    before = signal.getsignal(signal.SIGINT)
    interruption.install()
    with pytest.raises(KeyboardInterrupt), interruption.postponed() as asked:
        assert not asked()
        signal.raise_signal(signal.SIGTERM)
        assert asked()
        reached = True
    assert reached and "stopping at the next checkpoint" in capfd.readouterr().err
    with pytest.raises(KeyboardInterrupt), interruption.postponed():
        signal.raise_signal(signal.SIGINT)
        signal.raise_signal(signal.SIGINT)
        reached = False
    with pytest.raises(KeyboardInterrupt):
        signal.raise_signal(signal.SIGTERM)
    assert reached
    signal.signal(signal.SIGINT, before)


def test_a_loop_that_reaches_no_checkpoint_is_stopped_in_time(monkeypatch):
    before = signal.getsignal(signal.SIGINT)
    monkeypatch.setattr(interruption, "PATIENCE", 1)
    interruption.install()
    with pytest.raises(KeyboardInterrupt), interruption.postponed():
        signal.raise_signal(signal.SIGTERM)
        time.sleep(60)
        pytest.fail("the loop went on")
    signal.signal(signal.SIGINT, before)
