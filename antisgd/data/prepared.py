"""CIFAR-10 as tensorflow-datasets prepares it, read without TensorFlow."""

import struct
from collections.abc import Iterable, Iterator
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np

__all__ = ["read"]


def read(folder: Path, **splits: int) -> list[tuple[np.ndarray, np.ndarray]]:
    """Reads the named splits of a prepared folder, as array_record or as tfrecord.

    Args:
        folder: holds dataset_info.json, features.json and the shards (cifar10/3.0.2).
        **splits: pictures that each split must have.

    Returns:
        Images uint8 [n, 32, 32, 3] and labels int64 [n] of each split, in the shards' order.

    Raises:
        ValueError: the extra 'tfds' is not installed; contents that are damaged or not CIFAR-10.
    """
    try:
        import tensorflow_datasets as tfds

        builder = tfds.builder_from_directory(str(folder))
        return [_gather(_examples(builder, name), count) for name, count in splits.items()]
    except ImportError as error:
        raise ValueError(
            f"{folder} is a tensorflow-datasets folder and needs more packages "
            f"(no module {error.name}): pip install tensorflow-datasets array-record"
        ) from error
    # tensorflow-datasets and its readers have no common base for what they raise.
    except Exception as error:
        reason = " ".join(f"{type(error).__name__}: {error}".split())
        raise ValueError(
            f"{folder} is no prepared CIFAR-10, or a damaged one ({reason}): prepare it again with "
            "tensorflow_datasets.load('cifar10'), or give an official distribution as --data_dir"
        ) from error


def _examples(builder: Any, split: str) -> Iterable[dict[str, Any]]:
    if builder.info.file_format.value != "tfrecord":
        return builder.as_data_source(split=split)
    records = _tfrecords(builder.info.splits[split].filepaths)
    return map(builder.info.features.deserialize_example_np, records)


def _tfrecords(shards: Iterable[Any]) -> Iterator[bytes]:
    """Each record: its length (8 bytes), a checksum (4), the data, a checksum (4)."""
    for shard in shards:
        content, start = Path(shard).read_bytes(), 0
        while start < len(content):
            (length,) = struct.unpack_from("<Q", content, start)
            yield content[start + 12 : start + 12 + length]
            start += 16 + length


def _gather(examples: Iterable[dict[str, Any]], count: int) -> tuple[np.ndarray, np.ndarray]:
    images, labels = np.empty((count, 32, 32, 3), np.uint8), np.empty(count, np.int64)
    found = 0
    for found, example in enumerate(islice(examples, count + 1), start=1):
        if found <= count:
            images[found - 1], labels[found - 1] = example["image"], example["label"]
    if found != count:
        raise ValueError(f"{'more' if found > count else found} pictures, expected {count}")
    return images, labels
