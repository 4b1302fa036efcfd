"""mnist: where the files come from, and what damaged ones say. The files are small and ours; MD5 sums are swapped."""

from __future__ import annotations

import gzip
import hashlib
import http.server
import threading
from pathlib import Path

import numpy as np
import pytest

from hw4fast.data import forget, load, mnist
from hw4fast.errors import UserError
from hw4fast.files import data_folder

NAMES = list(mnist.MD5)
TRAIN_IMAGES, TRAIN_LABELS, TEST_IMAGES, TEST_LABELS = NAMES


def idx(array: np.ndarray, magic: int) -> bytes:
    return np.array([magic, *array.shape], ">i4").tobytes() + array.astype(np.uint8).tobytes()


def pictures(n: int) -> np.ndarray:
    return np.random.Generator(np.random.PCG64(n)).integers(0, 256, (n, 28, 28), dtype=np.uint8)


def raw_files() -> dict[str, bytes]:
    return {
        TRAIN_IMAGES: idx(pictures(6), mnist.IMAGES_MAGIC),
        TRAIN_LABELS: idx(np.arange(6), mnist.LABELS_MAGIC),
        TEST_IMAGES: idx(pictures(3), mnist.IMAGES_MAGIC),
        TEST_LABELS: idx(np.array([9, 0, 5]), mnist.LABELS_MAGIC),
    }


@pytest.fixture
def files() -> dict[str, bytes]:
    return {name: gzip.compress(content, mtime=0) for name, content in raw_files().items()}


@pytest.fixture(autouse=True)
def nowhere(tmp_path, monkeypatch):
    """No data folder, an empty cache, no mirror."""
    monkeypatch.delenv("HW4FAST_DATA", raising=False)
    monkeypatch.setenv("HW4FAST_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("HW4FAST_MNIST_MIRRORS", " ")
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    forget()
    yield
    forget()


def write(folder: Path, files: dict[str, bytes]) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    for name, content in files.items():
        (folder / name).write_bytes(content)


def put(tmp_path, monkeypatch, files: dict[str, bytes]) -> Path:
    write(tmp_path / "data" / "mnist", files)
    monkeypatch.setenv("HW4FAST_DATA", str(tmp_path / "data"))
    return tmp_path / "data" / "mnist"


# -- reading -----------------------------------------------------------------------------------------------------


def test_the_files_in_the_data_folder_are_read(files, tmp_path, monkeypatch):
    put(tmp_path, monkeypatch, files)
    data = load("mnist")
    assert np.array_equal(data.train.images, pictures(6)[..., None]) and data.train.images.dtype == np.uint8
    assert data.train.labels.tolist() == [0, 1, 2, 3, 4, 5] and data.train.labels.dtype == np.int64
    assert np.array_equal(data.test.images, pictures(3)[..., None]) and data.test.labels.tolist() == [9, 0, 5]
    assert data.class_names == tuple("0123456789")
    assert not (tmp_path / "cache").exists()
    assert load("mnist") is data


def test_the_files_in_the_cache_are_read(files, tmp_path):
    write(tmp_path / "cache" / "mnist", files)
    assert len(load("mnist").train) == 6


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize(
    "damage",
    [
        lambda content: content[:-20],
        lambda content: b"",
        lambda content: b"<html>404</html>",
        lambda content: content[:-6] + bytes([content[-6] ^ 1]) + content[-5:],
    ],
    ids=["cut", "empty", "no-gzip", "one-bit"],
)
def test_a_damaged_archive_names_itself(name, damage, files, tmp_path, monkeypatch):
    folder = put(tmp_path, monkeypatch, {**files, name: damage(files[name])})
    with pytest.raises(UserError, match=r"damaged or unreadable|not an IDX file") as caught:
        load("mnist")
    assert str(folder / name) in str(caught.value) and "delete it" in str(caught.value)


WRONG = {
    "magic-of-labels": (TRAIN_IMAGES, idx(pictures(6), mnist.LABELS_MAGIC)),
    "magic-of-images": (TRAIN_LABELS, idx(np.arange(6), mnist.IMAGES_MAGIC)),
    "too-short": (TRAIN_IMAGES, idx(pictures(6), mnist.IMAGES_MAGIC)[:-1]),
    "too-long": (TEST_LABELS, idx(np.array([9, 0, 5]), mnist.LABELS_MAGIC) + b"\0"),
    "nothing": (TEST_LABELS, b""),
    "magic-alone": (TEST_LABELS, idx(np.array([9, 0, 5]), mnist.LABELS_MAGIC)[:4]),
    "negative-sides": (TEST_IMAGES, np.array([mnist.IMAGES_MAGIC, 3, -28, -28], ">i4").tobytes() + bytes(3 * 784)),
    "other-sides": (TEST_IMAGES, idx(pictures(3).reshape(3, 14, 56), mnist.IMAGES_MAGIC)),
    "no-image": (TEST_IMAGES, idx(pictures(0), mnist.IMAGES_MAGIC)),
    "no-label": (TEST_LABELS, idx(np.arange(0), mnist.LABELS_MAGIC)),
}


@pytest.mark.parametrize("case", WRONG)
def test_a_file_of_another_kind_names_itself(case, files, tmp_path, monkeypatch):
    name, content = WRONG[case]
    folder = put(tmp_path, monkeypatch, {**files, name: gzip.compress(content)})
    with pytest.raises(UserError, match="not an IDX file of the expected kind") as caught:
        load("mnist")
    assert str(folder / name) in str(caught.value) and "delete it" in str(caught.value)


@pytest.mark.parametrize(
    ("name", "content", "words"),
    [
        (TRAIN_LABELS, idx(np.arange(5), mnist.LABELS_MAGIC), "6 train images but 5 labels"),
        (TEST_IMAGES, idx(pictures(4), mnist.IMAGES_MAGIC), "4 t10k images but 3 labels"),
        (TEST_LABELS, idx(np.array([9, 10, 0]), mnist.LABELS_MAGIC), "t10k labels go up to 10, not to 9"),
    ],
)
def test_labels_belong_to_images(name, content, words, files, tmp_path, monkeypatch):
    put(tmp_path, monkeypatch, {**files, name: gzip.compress(content)})
    with pytest.raises(UserError, match=words):
        load("mnist")


def test_the_real_files(monkeypatch):
    folder = REAL and REAL / "mnist"
    if folder is None or not all((folder / name).is_file() for name in NAMES):
        pytest.skip("HW4FAST_DATA names no folder with mnist/")
    monkeypatch.setenv("HW4FAST_DATA", str(REAL))
    data = load("mnist")
    assert data.train.images.shape == (60000, 28, 28, 1) and data.test.images.shape == (10000, 28, 28, 1)
    assert np.bincount(data.train.labels).tolist() == [5923, 6742, 5958, 6131, 5842, 5421, 5918, 6265, 5851, 5949]
    assert np.bincount(data.test.labels).tolist() == [980, 1135, 1032, 1010, 982, 892, 958, 1028, 974, 1009]
    assert data.preprocessing.mean == (pytest.approx(data.train.images.mean() / 255, abs=5e-5),)
    assert data.preprocessing.std == (pytest.approx(data.train.images.std() / 255, abs=5e-5),)
    for name, md5 in mnist.MD5.items():
        assert hashlib.md5((folder / name).read_bytes()).hexdigest() == md5


REAL = data_folder()  # before `nowhere` unsets it


# -- downloading -------------------------------------------------------------------------------------------------


class Mirror:
    """A web server on 127.0.0.1 that gives `files`; `asked` are the paths that were asked for."""

    def __init__(self, files: dict[str, bytes], promised: int = 0, garbage: bool = False) -> None:
        self.files, self.asked = files, []
        mirror = self

        class Handler(http.server.BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                mirror.asked.append(self.path)
                content = mirror.files.get(self.path.rpartition("/")[2])
                if garbage:
                    self.wfile.write(b"what?\r\n\r\n")
                    return
                if content is None:
                    self.send_error(404)
                    return
                self.send_response(200)
                self.send_header("Content-Length", str(len(content) + promised))
                self.end_headers()
                self.wfile.write(content)

            def log_message(self, *_: object) -> None:
                pass

        self.server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self.server.server_address[1]}/sub/"
        threading.Thread(target=self.server.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True).start()


@pytest.fixture
def mirror():
    """Makes mirrors; they end with the test."""
    made = []

    def make(*arguments, **options) -> Mirror:
        made.append(Mirror(*arguments, **options))
        return made[-1]

    yield make
    for one in made:
        one.server.shutdown()
        one.server.server_close()


@pytest.fixture
def right_sums(files, monkeypatch):
    monkeypatch.setattr(mnist, "MD5", {name: hashlib.md5(content).hexdigest() for name, content in files.items()})


def use(monkeypatch, *urls: str) -> None:
    monkeypatch.setenv("HW4FAST_MNIST_MIRRORS", " ".join(urls))


@pytest.mark.usefixtures("right_sums")
@pytest.mark.parametrize("slash", ["/", ""])
def test_downloads_once_into_the_cache(slash, files, mirror, tmp_path, monkeypatch):
    server = mirror(files)
    use(monkeypatch, server.url.rstrip("/") + slash)
    assert load("mnist").train.labels.tolist() == [0, 1, 2, 3, 4, 5]
    assert server.asked == [f"/sub/{name}" for name in NAMES]
    cached = {path.name: path.read_bytes() for path in (tmp_path / "cache" / "mnist").iterdir()}
    assert cached == files
    forget()
    load("mnist")
    assert len(server.asked) == 4


@pytest.mark.usefixtures("right_sums")
def test_only_what_is_missing_is_fetched(files, mirror, tmp_path, monkeypatch):
    write(tmp_path / "cache" / "mnist", {TRAIN_IMAGES: files[TRAIN_IMAGES]})
    server = mirror(files)
    use(monkeypatch, server.url)
    load("mnist")
    assert server.asked == [f"/sub/{name}" for name in NAMES[1:]]


@pytest.mark.usefixtures("right_sums")
@pytest.mark.parametrize("broken", ["404", "cut-short", "garbage", "nobody", "wrong-sum", "no-url"])
def test_a_broken_mirror_is_passed_over(broken, files, mirror, monkeypatch):
    bad = {
        "404": lambda: mirror({}).url,
        "cut-short": lambda: mirror(files, promised=1000).url,
        "garbage": lambda: mirror(files, garbage=True).url,
        "nobody": lambda: "http://127.0.0.1:1/",
        "wrong-sum": lambda: mirror({name: content + b"\0" for name, content in files.items()}).url,
        "no-url": lambda: "mnist-mirror/",
    }[broken]()
    good = mirror(files)
    use(monkeypatch, bad, good.url)
    assert len(load("mnist").test) == 3
    assert good.asked == [f"/sub/{name}" for name in NAMES]


def test_a_wrong_sum_is_refused(files, mirror, tmp_path, monkeypatch):
    server = mirror(files)  # ours are not the real files
    use(monkeypatch, server.url)
    with pytest.raises(UserError, match="wrong MD5 sum") as caught:
        load("mnist")
    assert server.url + TRAIN_IMAGES in str(caught.value)
    assert not (tmp_path / "cache").exists()


@pytest.mark.usefixtures("right_sums")
def test_what_was_tried_is_told(files, mirror, tmp_path, monkeypatch):
    (tmp_path / "data").mkdir()
    monkeypatch.setenv("HW4FAST_DATA", str(tmp_path / "data"))
    one, other = mirror({}), mirror({name: files[name] for name in NAMES[:3]})
    use(monkeypatch, one.url, other.url)
    with pytest.raises(UserError) as caught:
        load("mnist")
    text = str(caught.value)
    places = (str(tmp_path / "data"), str(tmp_path / "cache"), one.url + TEST_LABELS, other.url + TEST_LABELS)
    assert all(place in text for place in places) and "404" in text
    assert "HW4FAST_DATA" in text and text.endswith("digits")
    assert TRAIN_IMAGES in {path.name for path in (tmp_path / "cache" / "mnist").iterdir()}  # kept for the next time


def test_without_a_data_folder_that_is_told(tmp_path):
    with pytest.raises(UserError, match="HW4FAST_DATA: is not set"):
        load("mnist")


def test_the_sums_and_mirrors_are_torchvisions():
    from torchvision.datasets import MNIST

    assert [(name, mnist.MD5[name]) for name in NAMES] == MNIST.resources
    assert sorted(mnist.MIRRORS) == sorted(MNIST.mirrors)
