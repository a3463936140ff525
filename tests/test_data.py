"""Every form of CIFAR-10 gives the same pictures; whatever is wrong is said in one line."""

import hashlib
import io
import json
import os
import pickle
import struct
import sys
import tarfile
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from types import SimpleNamespace
from typing import NamedTuple

import jax
import numpy as np
import pytest
from PIL import Image

from antisgd import data
from antisgd.data import cifar10

EPS = np.finfo(np.float32).eps
COUNT = 20
STEMS = [f"data_batch_{i}" for i in range(1, 6)] + ["test_batch"]
TFDS = "tensorflow_datasets.core.features."
TFDS_FEATURES = {
    "pythonClassName": f"{TFDS}features_dict.FeaturesDict",
    "featuresDict": {
        "features": {
            "image": {
                "pythonClassName": f"{TFDS}image_feature.Image",
                "image": {
                    "dtype": "uint8",
                    "encodingFormat": "png",
                    "shape": {"dimensions": ["32", "32", "3"]},
                },
            },
            "label": {
                "pythonClassName": f"{TFDS}class_label_feature.ClassLabel",
                "classLabel": {"numClasses": "10"},
            },
        }
    },
}
DIGITS_START = [6, 6, 6, 2, 5, 6, 6, 2, 2, 1, 1, 9]


@pytest.fixture
def pictures(monkeypatch):
    monkeypatch.setattr(cifar10, "PER_FILE", COUNT)
    rng = np.random.default_rng(0)
    images = rng.integers(0, 256, (6 * COUNT, 32, 32, 3), np.uint8)
    return images, rng.integers(0, 10, 6 * COUNT).astype(np.uint8)


def batches(pictures):
    """Stem → (pixels [n, 3072] with the channels one after another, labels) of each file."""
    images, labels = pictures
    planar = images.transpose(0, 3, 1, 2).reshape(6, COUNT, 3072)
    return dict(zip(STEMS, zip(planar, labels.reshape(6, COUNT), strict=True), strict=True))


def binary(pixels, labels):
    return np.concatenate([labels[:, None], pixels], 1).tobytes()


def python2_pickle(pixels, labels, dtype=b"u1"):
    """A batch as Python 2 pickled it with protocol 2: byte strings, numpy.core by name."""

    def string(value):
        return b"T" + struct.pack("<i", len(value)) + value

    def numbers(*values):
        return b"".join(b"J" + struct.pack("<i", value) for value in values)

    described = b"cnumpy\ndtype\n" + string(dtype) + numbers(0, 1) + b"\x87R("
    described += numbers(3) + string(b"|") + b"NNN" + numbers(-1, -1, 0) + b"tb"
    array = b"cnumpy.core.multiarray\n_reconstruct\ncnumpy\nndarray\n" + numbers(0) + b"\x85"
    array += string(b"b") + b"\x87R(" + numbers(1) + numbers(*pixels.shape) + b"\x86"
    array += described + b"\x89" + string(pixels.tobytes()) + b"tb"
    listed = b"](" + numbers(*labels) + b"e"
    fields = string(b"batch_label") + string(b"batch") + string(b"labels") + listed
    return b"\x80\x02}(" + fields + string(b"data") + array + b"u."


def python3_pickle(pixels, labels):
    return pickle.dumps({"data": pixels, "labels": [int(label) for label in labels]}, 4)


def write_folder(folder, pictures, encode=binary, suffix=".bin"):
    folder.mkdir(parents=True)
    for stem, batch in batches(pictures).items():
        (folder / f"{stem}{suffix}").write_bytes(encode(*batch))
    return folder


def write_archive(path, pictures, encode=binary, suffix=".bin", prefix="cifar-10-batches-bin/"):
    with tarfile.open(path, "w:gz" if path.suffix == ".gz" else "w") as tar:
        for stem, batch in batches(pictures).items():
            content = encode(*batch)
            member = tarfile.TarInfo(f"{prefix}{stem}{suffix}")
            member.size = len(content)
            tar.addfile(member, io.BytesIO(content))
    return path


def framed(record):
    """As TFRecord files hold it: length, a checksum, the record, a checksum."""
    return struct.pack("<QI", len(record), 0) + record + bytes(4)


def write_prepared(folder, pictures, monkeypatch, file_format):
    """A folder in tensorflow-datasets' layout and, in the place of the library, its few calls."""
    images, labels = pictures
    folder.mkdir(parents=True)
    (folder / "dataset_info.json").write_text("{}")
    rows = {"train": slice(0, 5 * COUNT), "test": slice(5 * COUNT, None)}
    contents = [
        bytes([label]) + image.tobytes() for image, label in zip(images, labels, strict=True)
    ]
    records = {split: contents[row] for split, row in rows.items()}
    for split, all_of_it in records.items():
        for shard, part in enumerate((all_of_it[:7], all_of_it[7:])):
            (folder / f"{split}-{shard}").write_bytes(b"".join(map(framed, part)))

    def decode(record):
        image = np.frombuffer(record[1:], np.uint8).reshape(32, 32, 3)
        return {"image": image, "label": record[0], "id": b""}

    splits = {s: SimpleNamespace(filepaths=[folder / f"{s}-{i}" for i in (0, 1)]) for s in rows}
    info = SimpleNamespace(
        file_format=SimpleNamespace(value=file_format),
        splits=splits,
        features=SimpleNamespace(deserialize_example_np=decode),
    )
    builder = SimpleNamespace(info=info)
    if file_format == "array_record":
        builder.as_data_source = lambda split: [decode(record) for record in records[split]]
    library = SimpleNamespace(builder_from_directory=lambda path: builder)
    monkeypatch.setitem(sys.modules, "tensorflow_datasets", library)
    return folder


PYTHON2 = {"encode": python2_pickle, "suffix": ""}
PYTHON3 = {"encode": python3_pickle, "suffix": ""}
FORMS = {
    "binary folder": lambda p, x, m: write_folder(p / "anything", x),
    "folder around it": lambda p, x, m: write_folder(p / "cifar-10-batches-bin", x).parent,
    "binary archive": lambda p, x, m: write_archive(p / "cifar.tar.gz", x),
    "archive without a folder": lambda p, x, m: write_archive(p / "c.tar", x, prefix="./"),
    "folder around the archive": lambda p, x, m: (
        write_archive(p / "cifar-10-binary.tar.gz", x).parent
    ),
    "python folder": lambda p, x, m: write_folder(p / "cifar-10-batches-py", x, **PYTHON2).parent,
    "python archive": lambda p, x, m: write_archive(p / "cifar-10-python.tar.gz", x, **PYTHON2),
    "pickled again": lambda p, x, m: write_folder(p / "again", x, **PYTHON3),
    "array_record": lambda p, x, m: (
        write_prepared(p / "cifar10" / "3.0.2", x, m, "array_record").parent.parent
    ),
    "tfrecord": lambda p, x, m: write_prepared(p / "3.0.2", x, m, "tfrecord"),
}


@pytest.mark.parametrize("form", FORMS)
def test_every_form_gives_the_same_pictures_in_the_same_order(
    form, tmp_path, pictures, monkeypatch
):
    images, labels = pictures
    dataset = data.load("cifar10", directory=str(FORMS[form](tmp_path, pictures, monkeypatch)))
    expected = data.standardise(images, 255)
    np.testing.assert_array_equal(dataset.train.images, expected[: 5 * COUNT])
    np.testing.assert_array_equal(dataset.test.images, expected[5 * COUNT :])
    np.testing.assert_array_equal(dataset.train.labels, labels[: 5 * COUNT])
    np.testing.assert_array_equal(dataset.test.labels, labels[5 * COUNT :])
    assert dataset.train.images.dtype == np.float32 and dataset.train.labels.dtype == np.int32


def test_the_hand_written_pickle_is_one_that_python_reads(pictures):
    pixels, labels = batches(pictures)["data_batch_2"]
    batch = pickle.loads(python2_pickle(pixels, labels), encoding="bytes")
    np.testing.assert_array_equal(batch[b"data"], pixels)
    np.testing.assert_array_equal(batch[b"labels"], labels)


class Malicious:
    """Runs a command when unpickled without protection."""

    def __init__(self, marker):
        self.marker = marker

    def __reduce__(self):
        return os.mkdir, (str(self.marker),)


def test_a_malicious_pickle_is_refused_and_runs_nothing(tmp_path, pictures):
    marker = tmp_path / "ran"
    folder = write_folder(tmp_path / "py", pictures, **PYTHON2)
    content = pickle.dumps({b"data": Malicious(marker), b"labels": []}, 4)
    (folder / "data_batch_3").write_bytes(content)
    with pytest.raises(ValueError, match=r"data_batch_3 .*mkdir, only arrays and bytes") as raised:
        data.load("cifar10", directory=folder)
    assert "\n" not in str(raised.value) and not marker.exists()
    pickle.loads(content)
    assert marker.exists()


def broken_folder(change, **form):
    def make(path, pictures, monkeypatch):
        folder = write_folder(path / "folder", pictures, **form)
        change(folder)
        return folder

    return make


def broken_archive(change=lambda path: None, **form):
    def make(path, pictures, monkeypatch):
        archive = write_archive(path / "archive.tar.gz", pictures, **form)
        change(archive)
        return archive

    return make


def truncate(name="", keep=0.6):
    def change(path):
        content = (path / name).read_bytes()
        (path / name).write_bytes(content[: int(keep * len(content))])

    return change


def overwrite(name, content):
    return lambda path: (path / name).write_bytes(content)


def flip(path):
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 64
    path.write_bytes(content)


def relabel(folder):
    content = bytearray((folder / "data_batch_2.bin").read_bytes())
    content[3 * 3073] = 10
    (folder / "data_batch_2.bin").write_bytes(content)


def directory_in_its_place(folder):
    (folder / "test_batch.bin").unlink()
    (folder / "test_batch.bin").mkdir()


def only_links(archive):
    with tarfile.open(archive, "w:gz") as tar:
        for stem in STEMS:
            member = tarfile.TarInfo(f"cifar-10-batches-bin/{stem}.bin")
            member.type, member.linkname = tarfile.SYMTYPE, "/etc/passwd"
            tar.addfile(member)


def empty_folder(path, pictures, monkeypatch):
    (path / "empty").mkdir()
    return path / "empty"


def without_tfds(path, pictures, monkeypatch):
    folder = write_prepared(path / "3.0.2", pictures, monkeypatch, "tfrecord")
    monkeypatch.setitem(sys.modules, "tensorflow_datasets", None)
    return folder


def short_shard(path, pictures, monkeypatch):
    folder = write_prepared(path / "3.0.2", pictures, monkeypatch, "tfrecord")
    (folder / "train-1").write_bytes(b"")
    return folder


def lost_shard(path, pictures, monkeypatch):
    folder = write_prepared(path / "3.0.2", pictures, monkeypatch, "tfrecord")
    (folder / "train-1").unlink()
    return folder


def cifar100_pickle(pixels, labels):
    return pickle.dumps({b"data": pixels, b"fine_labels": [int(label) for label in labels]}, 4)


def float_pickle(pixels, labels):
    return python2_pickle(pixels, labels, dtype=b"f4")


BAD = {
    "nowhere": (lambda p, x, m: p / "nowhere", FileNotFoundError, r"nowhere does not exist: exp"),
    "empty folder": (empty_folder, FileNotFoundError, r"empty holds none of them: expected the"),
    "file missing": (
        broken_folder(lambda f: (f / "data_batch_4.bin").unlink()),
        FileNotFoundError,
        r"folder lacks data_batch_4.bin: expected",
    ),
    "file truncated": (
        broken_folder(truncate("test_batch.bin")),
        ValueError,
        r"test_batch.bin is truncated or not CIFAR-10: 36,876 bytes, expected 61,460",
    ),
    "file too long": (
        broken_folder(overwrite("data_batch_1.bin", bytes(61_461))),
        ValueError,
        r"data_batch_1.bin .*61,461 bytes, expected 61,460",
    ),
    "label 10": (broken_folder(relabel), ValueError, r"data_batch_2.bin .*picture 3 has label 10,"),
    "folder for a file": (
        broken_folder(directory_in_its_place),
        OSError,
        r"cannot use .*test_batch.bin \(Is a directory\)",
    ),
    "archive truncated": (broken_archive(truncate()), ValueError, r"archive.tar.gz is truncated,"),
    "not an archive": (
        broken_archive(lambda path: path.write_text("<html>not found</html>")),
        ValueError,
        r"archive.tar.gz is truncated, damaged or no tar archive",
    ),
    "archive with one bit changed": (
        broken_archive(flip),
        ValueError,
        r"archive.tar.gz is truncated, damaged or no tar archive",
    ),
    "archive climbs out": (
        broken_archive(prefix="../../cifar-10-batches-bin/"),
        FileNotFoundError,
        r"archive.tar.gz lacks data_batch_1",
    ),
    "archive with absolute paths": (
        broken_archive(prefix="/etc/"),
        FileNotFoundError,
        r"archive.tar.gz lacks data_batch_1",
    ),
    "archive of links": (broken_archive(only_links), FileNotFoundError, r"lacks data_batch_1"),
    "pickle truncated": (
        broken_folder(truncate("data_batch_5"), **PYTHON2),
        ValueError,
        r"data_batch_5 is no batch of CIFAR-10's python distribution \(UnpicklingError",
    ),
    "no pickle": (
        broken_folder(overwrite("data_batch_1", b"version https://git-lfs"), **PYTHON2),
        ValueError,
        r"data_batch_1 is no batch",
    ),
    "pickle of CIFAR-100": (
        broken_folder(lambda f: None, encode=cifar100_pickle, suffix=""),
        ValueError,
        r"data_batch_1 is no batch .*KeyError: 'labels'",
    ),
    "pickle of floats": (
        broken_folder(lambda f: None, encode=float_pickle, suffix=""),
        ValueError,
        r"data_batch_1 is no batch",
    ),
    "without tensorflow-datasets": (without_tfds, ValueError, "pip install tensorflow-datasets"),
    "tfrecord too short": (short_shard, ValueError, r"7 pictures, expected 100"),
    "tfrecord missing": (lost_shard, ValueError, r"no prepared CIFAR-10.*No such file.*train-1"),
}


@pytest.mark.parametrize("case", BAD)
def test_bad_files_are_refused_in_one_line_that_helps(case, tmp_path, pictures, monkeypatch):
    make, error, message = BAD[case]
    directory = make(tmp_path, pictures, monkeypatch)
    before = sorted(tmp_path.rglob("*"))
    with pytest.raises(error, match=message) as raised:
        data.load("cifar10", directory=directory)
    text = str(raised.value)
    assert "\n" not in text and str(tmp_path) in text
    assert "--data_dir" in text or "pip install" in text
    assert sorted(tmp_path.rglob("*")) == before


class Server(NamedTuple):
    """A web server on the loopback: what it was asked, as (path, Range)."""

    url: str
    requests: list[tuple[str, str | None]]


@pytest.fixture
def serve(monkeypatch, tmp_path):
    """Starts servers of given contents; the download's address and cache point to the last."""
    servers = []

    def start(content, *, cut=(), ranges=True, md5=None):
        """`cut` holds for each request in turn after how many bytes the connection breaks."""
        requests, cuts = [], list(cut)

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self):
                asked = self.headers["Range"] if ranges else None
                requests.append((self.path, self.headers["Range"]))
                first = int(asked[len("bytes=") : -1]) if asked else 0
                if content is None or first >= len(content):
                    return self.send_error(404 if content is None else 416)
                self.send_response(206 if asked else 200)
                self.send_header("Content-Length", str(len(content) - first))
                self.end_headers()
                keep = cuts.pop(0) if cuts else None
                self.wfile.write(content[first:][:keep])

            def log_message(self, *arguments):
                pass

        server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        servers.append(server)
        threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01}).start()
        url = f"http://127.0.0.1:{server.server_port}/cifar-10-binary.tar.gz"
        monkeypatch.setattr(cifar10, "URL", url)
        monkeypatch.setattr(cifar10, "MD5", md5 or hashlib.md5(content or b"").hexdigest())
        return Server(url, requests)

    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    for name in ("http_proxy", "HTTP_PROXY", "all_proxy", "ALL_PROXY"):
        monkeypatch.delenv(name, raising=False)
    yield start
    for server in servers:
        server.shutdown()
        server.server_close()


@pytest.mark.skipif(os.geteuid() == 0, reason="root may read everything")
@pytest.mark.parametrize("locked", ["cifar-10-batches-bin/data_batch_3.bin", "."])
def test_files_that_may_not_be_read_are_named(tmp_path, pictures, locked):
    folder = write_folder(tmp_path / "around" / "cifar-10-batches-bin", pictures).parent
    (folder / locked).chmod(0)
    try:
        with pytest.raises(PermissionError, match=r"^cannot use .*\(Permission denied\): get htt"):
            data.load("cifar10", directory=folder)
    finally:
        (folder / locked).chmod(0o700)


@pytest.fixture
def archive(tmp_path, pictures):
    return write_archive(tmp_path / "served.tar.gz", pictures).read_bytes()


def in_cache(tmp_path):
    return sorted(path.name for path in (tmp_path / "cache").rglob("*") if path.is_file())


def assert_loaded(pictures):
    dataset = data.load("cifar10")
    np.testing.assert_array_equal(dataset.train.labels, pictures[1][: 5 * COUNT])
    np.testing.assert_array_equal(dataset.test.images, data.standardise(pictures[0], 255)[-COUNT:])


def test_download_is_cached_with_a_progress_bar(serve, archive, pictures, tmp_path, capsys):
    server = serve(archive)
    assert_loaded(pictures)
    assert server.url in (bar := capsys.readouterr().err) and "100%" in bar
    assert_loaded(pictures)
    assert len(server.requests) == 1 and capsys.readouterr().err == ""
    assert (tmp_path / "cache" / "antisgd" / "cifar-10-binary.tar.gz").read_bytes() == archive
    assert in_cache(tmp_path) == ["cifar-10-binary.tar.gz"]


def test_a_cut_download_goes_on_where_it_was(serve, archive, pictures, tmp_path):
    server = serve(archive, cut=[1000, 500])
    assert_loaded(pictures)
    assert [asked for _, asked in server.requests] == [None, "bytes=1000-", "bytes=1500-"]
    assert in_cache(tmp_path) == ["cifar-10-binary.tar.gz"]


def test_a_server_without_ranges_is_asked_from_the_start(serve, archive, pictures):
    server = serve(archive, cut=[1000], ranges=False)
    assert_loaded(pictures)
    assert [asked for _, asked in server.requests] == [None, "bytes=1000-"]


def test_a_download_that_brings_nothing_new_stops_and_is_continued_later(
    serve, archive, pictures, tmp_path
):
    serve(archive, cut=[1000, 0])
    with pytest.raises(OSError, match=r"^cannot download .* beyond byte 1,000 .*--data_dir$"):
        data.load("cifar10")
    assert in_cache(tmp_path) == ["cifar-10-binary.tar.gz.part"]
    server = serve(archive)
    assert_loaded(pictures)
    assert [asked for _, asked in server.requests] == ["bytes=1000-"]


@pytest.mark.parametrize("stale", [b"rest of another file", b"longer" * 1_000_000])
def test_the_rest_of_another_download_is_thrown_away(serve, archive, pictures, tmp_path, stale):
    server = serve(archive)
    (tmp_path / "cache" / "antisgd").mkdir(parents=True)
    (tmp_path / "cache" / "antisgd" / "cifar-10-binary.tar.gz.part").write_bytes(stale)
    assert_loaded(pictures)
    assert [asked for _, asked in server.requests] == [f"bytes={len(stale)}-", None]


def test_a_wrong_checksum_is_refused_and_nothing_kept(serve, archive, tmp_path):
    server = serve(archive, md5="0" * 32)
    with pytest.raises(OSError, match=rf"came with MD5 {hashlib.md5(archive).hexdigest()}") as one:
        data.load("cifar10")
    assert "\n" not in str(one.value) and "--data_dir" in str(one.value)
    assert in_cache(tmp_path) == [] and len(server.requests) == 1


def test_a_damaged_archive_in_the_cache_is_fetched_again(serve, archive, pictures, tmp_path):
    server = serve(archive)
    assert_loaded(pictures)
    flip(tmp_path / "cache" / "antisgd" / "cifar-10-binary.tar.gz")
    assert_loaded(pictures)
    assert len(server.requests) == 2


def test_no_such_file_and_no_server_are_said_in_one_line(serve, tmp_path, monkeypatch):
    serve(None)
    with pytest.raises(OSError, match=r"^cannot download .*HTTP Error 404.*--data_dir$"):
        data.load("cifar10")
    monkeypatch.setattr(cifar10, "URL", "http://127.0.0.1:9/cifar-10-binary.tar.gz")
    with pytest.raises(OSError, match=r"^cannot download .*refused.*--data_dir$"):
        data.load("cifar10")
    assert in_cache(tmp_path) == []


def test_a_cache_that_cannot_be_written_is_named(serve, archive, tmp_path):
    server = serve(archive)
    (tmp_path / "cache").write_text("a file where the folder should be")
    with pytest.raises(OSError, match=r"^cannot use .*cache.*--data_dir") as raised:
        data.load("cifar10")
    assert "\n" not in str(raised.value) and server.requests == []


def test_the_official_archive_is_asked_for():
    assert cifar10.URL == "https://www.cs.toronto.edu/~kriz/cifar-10-binary.tar.gz"
    assert cifar10.MD5 == "c32a1d4ab5d03f1284b67883e8d87530"


@pytest.mark.skipif("ANTISGD_DATA_DIR" not in os.environ, reason="ANTISGD_DATA_DIR is not set")
def test_the_real_pictures():
    directory = os.environ["ANTISGD_DATA_DIR"]
    for pictures, count in zip(cifar10.read(directory), (50_000, 10_000), strict=True):
        assert pictures.images.shape == (count, 32, 32, 3)
        np.testing.assert_array_equal(np.bincount(pictures.labels), np.full(10, count // 10))
        # One standard error of a channel's mean over 10,000 pictures is about 0.4.
        means = pictures.images.mean((0, 1, 2))
        np.testing.assert_allclose(means, [125.3, 122.9, 113.9], atol=2)
    dataset = data.load("cifar10", directory=directory, num_examples=300)
    assert dataset.train.images.shape == (300, 32, 32, 3)
    assert dataset.test.images.shape == (10_000, 32, 32, 3)


def example(image, label):
    """A tf.train.Example of a PNG picture and its label, in protobuf's wire format."""

    def field(number, content):
        length, size = bytearray(), len(content)
        while size > 127:
            length.append(size % 128 + 128)
            size //= 128
        return bytes([8 * number + 2]) + bytes(length) + bytes([size]) + content

    png = io.BytesIO()
    Image.fromarray(image).save(png, "PNG")
    values = {b"image": field(1, field(1, png.getvalue())), b"label": field(3, b"\x08%c" % label)}
    return field(1, b"".join(field(1, field(1, k) + field(2, v)) for k, v in values.items()))


@pytest.mark.parametrize("file_format", ["tfrecord", "array_record"])
def test_the_real_library_reads_a_folder_in_its_layout(tmp_path, pictures, file_format):
    pytest.importorskip("tensorflow_datasets", reason="the extra 'tfds' is not installed")
    from array_record.python.array_record_module import ArrayRecordWriter

    splits = [{"name": n, "shardLengths": [str(k)]} for n, k in (("train", 100), ("test", 20))]
    for split in splits:
        split["filepathTemplate"] = "{DATASET}-{SPLIT}.{FILEFORMAT}-{SHARD_X_OF_Y}"
    names = {"fileFormat": file_format, "name": "cifar10", "version": "3.0.2", "splits": splits}
    (tmp_path / "dataset_info.json").write_text(json.dumps(names))
    (tmp_path / "features.json").write_text(json.dumps(TFDS_FEATURES))
    records = [example(*pair) for pair in zip(*pictures, strict=True)]
    for split, part in (("train", records[:100]), ("test", records[100:])):
        path = tmp_path / f"cifar10-{split}.{file_format}-00000-of-00001"
        if file_format == "tfrecord":
            path.write_bytes(b"".join(framed(record) for record in part))
            continue
        writer = ArrayRecordWriter(str(path), "group_size:1")
        for record in part:
            writer.write(record)
        writer.close()
    for split, rows in zip(cifar10.read(tmp_path), (slice(0, 100), slice(100, None)), strict=True):
        np.testing.assert_array_equal(split.images, pictures[0][rows])
        np.testing.assert_array_equal(split.labels, pictures[1][rows])


def test_every_channel_of_every_picture_has_mean_zero_and_variance_one():
    rng = np.random.default_rng(1)
    pixels = rng.integers(0, 256, (40, 32, 32, 3), np.uint8)
    images = data.standardise(pixels, 255)
    # Rounding to float32 moves each pixel by at most 2 eps, for |x| < 4.
    np.testing.assert_allclose(images.mean((1, 2), dtype=np.float64), 0, atol=2 * EPS)
    np.testing.assert_allclose(images.std((1, 2), dtype=np.float64), 1, atol=2 * EPS)
    x = pixels[7, :, :, 1].astype(np.float64)
    np.testing.assert_allclose(images[7, :, :, 1], (x - x.mean()) / x.std(), atol=2 * EPS)


def test_a_constant_channel_becomes_zero_and_the_smallest_contrast_does_not():
    pixels = np.full((2, 32, 32, 3), 201, np.uint8)
    pixels[1, 0, 0, 2] += 1
    images = data.standardise(pixels, 255)
    assert not images[0].any() and not images[1, ..., :2].any()
    np.testing.assert_allclose(images[1, ..., 2].std(dtype=np.float64), 1, rtol=32 * EPS)


def test_digits_are_split_once_with_all_classes_on_both_sides():
    from sklearn.datasets import load_digits

    dataset = data.load("digits", seed=3)
    assert dataset.train.images.shape == (1500, 8, 8, 1)
    assert dataset.test.images.shape == (297, 8, 8, 1)
    labels = np.concatenate([dataset.train.labels, dataset.test.labels])
    # The split is part of every published number: this is its beginning.
    assert labels[:12].tolist() == DIGITS_START
    np.testing.assert_array_equal(np.bincount(labels), np.bincount(load_digits().target))
    assert min(np.bincount(e.labels, minlength=10).min() for e in dataset) >= 15
    images = np.concatenate([dataset.train.images, dataset.test.images]).reshape(-1, 64)
    originals = data.standardise(load_digits().images[..., None], 16).reshape(-1, 64)
    rows = np.column_stack([images, labels])
    expected = np.column_stack([originals, load_digits().target])
    np.testing.assert_array_equal(*(a[np.lexsort(a.T)] for a in (rows, expected)))


def test_synthetic_pictures_follow_from_the_seed_and_have_the_shape_asked_for():
    one, same, other = (data.synthetic(40, seed=s, shape=(4, 6, 3)) for s in (5, 5, 6))
    assert one.train.images.shape == (40, 4, 6, 3) and one.test.images.shape == (10, 4, 6, 3)
    assert data.fingerprint(one) == data.fingerprint(same) != data.fingerprint(other)
    assert data.load("synthetic", num_examples=70, seed=2).train.images.shape == (70, 8, 8, 1)
    assert data.load("synthetic").train.images.shape == (1000, 8, 8, 1)


@pytest.mark.parametrize("shape", [(8, 8, 1), (6, 5, 3)])
def test_synthetic_classes_can_be_learned_but_not_separated(shape):
    train, test = jax.tree.map(np.asarray, data.synthetic(2000, seed=1, shape=shape))
    images = train.images.reshape(2000, -1)
    templates = np.stack([images[train.labels == label].mean(0) for label in range(10)])
    nearest = np.argmax(test.images.reshape(500, -1) @ templates.T, -1)
    assert 0.8 < np.mean(nearest == test.labels) < 0.99


@pytest.mark.parametrize("count", [0, 1501])
def test_too_many_or_no_examples_are_refused_with_how_many_there_are(count):
    with pytest.raises(ValueError, match=f"num_examples={count}, but digits has 1500"):
        data.load("digits", num_examples=count)


def test_a_number_of_examples_is_no_negative_one():
    with pytest.raises(ValueError, match="num_examples=-1 must be an integer of at least 0"):
        data.load("digits", num_examples=-1)


def test_num_examples_keeps_the_first_training_pictures_and_the_whole_test_set():
    whole, part = data.load("digits"), data.load("digits", num_examples=17)
    np.testing.assert_array_equal(part.train.images, whole.train.images[:17])
    np.testing.assert_array_equal(part.train.labels, whole.train.labels[:17])
    np.testing.assert_array_equal(part.test.images, whole.test.images)


def test_pictures_placed_in_chunks_are_those_standardised_at_once(monkeypatch):
    whole = data.load("digits")
    monkeypatch.setattr(data, "CHUNK", 7)
    assert data.fingerprint(data.load("digits")) == data.fingerprint(whole)


def test_synthetic_needs_pictures_and_a_seed_that_is_not_negative():
    for arguments in ({"num_examples": 0}, {"num_examples": 5, "seed": -1}):
        with pytest.raises(ValueError, match="num_examples >= 1 and seed >= 0"):
            data.load("synthetic", **arguments)


def test_an_unknown_name_is_refused_with_the_names_there_are():
    with pytest.raises(ValueError, match="'mnist': choose cifar10, digits or synthetic"):
        data.load("mnist")


def test_the_fingerprint_sees_every_pixel_label_and_shape():
    images = np.arange(8 * 4, dtype=np.float32).reshape(8, 2, 2, 1)
    dataset = data.Dataset(*(data.Examples(images[i : i + 4], np.arange(4)) for i in (0, 4)))
    train = dataset.train
    others = [
        dataset._replace(train=train._replace(images=train.images + np.eye(2)[None, ..., None])),
        dataset._replace(test=dataset.test._replace(labels=np.array([0, 1, 3, 2]))),
        dataset._replace(train=train._replace(images=train.images.reshape(4, 4, 1, 1))),
        dataset._replace(train=dataset.test, test=train),
    ]
    prints = [data.fingerprint(d) for d in (dataset, *others)]
    assert len(set(prints)) == 5 and data.fingerprint(dataset) == prints[0]
    assert all(len(p) == 64 and set(p) <= set("0123456789abcdef") for p in prints)
    assert data.fingerprint(jax.tree.map(jax.numpy.asarray, dataset)) == data.fingerprint(
        jax.tree.map(lambda a: np.asarray(jax.numpy.asarray(a)), dataset)
    )
