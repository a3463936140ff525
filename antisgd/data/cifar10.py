"""CIFAR-10 from its official distributions and from prepared tensorflow-datasets folders."""

from pathlib import Path

import numpy as np

PER_FILE = 10_000
FILES = [f"data_batch_{i}" for i in range(1, 6)] + ["test_batch"]


def read(directory):
    folder = Path(directory)
    if (folder / "cifar-10-batches-bin").is_dir():
        folder = folder / "cifar-10-batches-bin"
    images = np.empty((6 * PER_FILE, 3, 32, 32), np.uint8)
    labels = np.empty(6 * PER_FILE, np.uint8)
    for i, name in enumerate(FILES):
        records = np.fromfile(folder / f"{name}.bin", np.uint8).reshape(PER_FILE, 3073)
        rows = slice(i * PER_FILE, (i + 1) * PER_FILE)
        images[rows], labels[rows] = records[:, 1:].reshape(-1, 3, 32, 32), records[:, 0]
    images, cut = images.transpose(0, 2, 3, 1), 5 * PER_FILE
    return (images[:cut], labels[:cut]), (images[cut:], labels[cut:])
