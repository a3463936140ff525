"""Which copy of CIFAR-10 a run saw is told by its pixels, and stands beside every kept result."""

import json
import os
from pathlib import Path

import numpy as np
import pytest
from scipy.optimize import nnls

from antisgd import pretrained
from antisgd.data import cifar10, copies
from experiments import kept

PICTURES = os.environ.get("ANTISGD_DATA_DIR")
FOLDERS = sorted(path.parent for path in kept.FOLDER.glob("*/config.json"))


def pictures_of(mean, deviation, count=1_000):
    """Pictures whose channels have these moments to one part in the number of pixels."""
    levels, n = np.array([0, 60, 120, 180, 255]), count * 32 * 32
    images = np.zeros((n, 3), np.uint8)
    for c in range(3):
        wanted = [1, mean[c] * 255, (mean[c] ** 2 + deviation[c] ** 2) * 255**2]
        weights, left = nnls(
            np.stack([np.ones(5), levels, levels**2]) / 255**2, np.array(wanted) / 255**2
        )
        assert left < 1e-12
        edges = np.rint(np.cumsum(weights) * n).astype(int)
        images[:, c] = levels[np.searchsorted(edges, np.arange(n), side="right").clip(max=4)]
    return images.reshape(count, 32, 32, 3)


@pytest.mark.parametrize("name", copies.KNOWN)
def test_a_copy_is_known_by_the_moments_of_its_channels(name):
    mean, deviation = copies.KNOWN[name]
    images = pictures_of(mean, deviation)
    assert copies.name_of(images) == name
    assert copies.name_of(images[::-1]) == name


@pytest.mark.parametrize("name", copies.KNOWN)
@pytest.mark.parametrize("moment", [0, 1])
def test_other_pictures_have_no_known_name(name, moment):
    """Six times the tolerance off in one channel, a sixth of what tells the two copies apart."""
    moments = np.array(copies.KNOWN[name])
    moments[moment, 2] += 6 * copies.TOLERANCE
    assert copies.name_of(pictures_of(*moments)) == "CIFAR-10 (unknown copy)"


@pytest.mark.skipif(PICTURES is None, reason="ANTISGD_DATA_DIR names no CIFAR-10")
def test_the_jpeg_copy_is_told_from_the_official_files():
    assert copies.name_of(cifar10.read(PICTURES)[0].images) == "CIFAR-10 (JPEG copy)"


@pytest.mark.parametrize("folder", FOLDERS, ids=lambda folder: folder.name)
def test_every_kept_run_names_its_pictures_and_no_copy_passes_for_the_official_files(folder):
    config = json.loads((folder / "config.json").read_text())
    on_page = kept.PAGE.read_text().split(f"## {folder.name}\n")[1].split("\n## ")[0]
    assert config["data"] in on_page
    if config["settings"].get("dataset") == "cifar10":
        assert config["data"].startswith("CIFAR-10 (") or config["data"] == copies.OFFICIAL
        same = trained_on_the_same_pictures(config["data_fingerprint"])
        assert same is None or same == config["data"]


def trained_on_the_same_pictures(fingerprint):
    """What the pretrained network's record calls these pictures, if they are all of its."""
    record = pretrained.load("lenet_cifar10")
    return record.data if record.data_fingerprint == fingerprint else None


def test_a_run_that_does_not_name_its_pictures_is_not_kept(tmp_path):
    config = {"settings": {"dataset": "cifar10"}, "provenance": {"command": "python -m x"}}
    (tmp_path / "config.json").write_text(json.dumps(config))
    with pytest.raises(ValueError, match="does not say what its data are called"):
        kept.portable_config(tmp_path)


@pytest.mark.parametrize("page", ["docs/results.md", "docs/index.md", "docs/pieces.md"])
def test_no_sentence_of_the_docs_calls_a_run_on_the_copy_one_on_cifar_10(page):
    """Every paragraph that gives results on CIFAR-10 names the copy."""
    for paragraph in (Path(kept.ROOT) / page).read_text().split("\n\n"):
        if "CIFAR-10" in paragraph and not paragraph.startswith("|"):
            assert "JPEG copy" in paragraph, paragraph[:80]
