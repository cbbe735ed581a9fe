import errno
import os
import threading
import time
import weakref

import numpy as np
import pytest
import torch
from PIL import Image

from convlora import files
from convlora.data.pixels.images import read_image
from convlora.errors import ImageError, OutputError, PairingError, SettingsError
from convlora.inference import folder as folder_module
from convlora.inference import pipeline
from convlora.inference.drawing import class_colour
from convlora.inference.folder import predict_folder
from convlora.inference.predictor import Predictor
from convlora.inference.settings import PredictSettings
from convlora.sam import SamSegmentationImageProcessor


def settings(finished, images, output, **changes):
    return PredictSettings(**{"run": str(finished.path), "images": str(images), "output": str(output), **changes})


def write_images(folder, *names, size=(20, 30)):
    folder.mkdir(exist_ok=True)
    for seed, name in enumerate(names):
        pixels = np.random.default_rng(seed).integers(0, 255, (*size, 3), dtype=np.uint8)
        Image.fromarray(pixels).save(folder / name)
    return folder


def names(folder):
    return sorted(path.name for path in folder.iterdir())


def pixels(path):
    return np.asarray(Image.open(path))


class Fixed:
    """A predictor whose answer is known: class 1 (or 2) where the first channel of the image says so."""

    def __init__(self, classes=2):
        self.id2label = {i: str(i) for i in range(classes)}
        self.colours = {i: class_colour(i) for i in range(classes)}
        self.multilabel = False
        self.processor = SamSegmentationImageProcessor()

    def logits(self, images):
        for image in images:
            channel = torch.from_numpy(image[..., 0].astype(np.float32))
            if len(self.id2label) == 2:
                yield (channel - 100)[None] / 50
            else:
                yield torch.stack([(channel == i * 50).float() * 4 for i in range(len(self.id2label))])


@pytest.fixture
def fixed(monkeypatch):
    def use(classes=2):
        monkeypatch.setattr(folder_module.Predictor, "from_folder", lambda *a, **k: Fixed(classes))

    return use


@pytest.mark.parametrize("batch_size", [1, 4])
def test_masks_are_the_predictors_answers_at_each_images_own_size(workspace, finished, tmp_path, batch_size):
    images = workspace / "data" / "images"
    seen = []
    given = settings(finished, images, tmp_path / "new" / "masks", batch_size=batch_size)
    paths = predict_folder(given, lambda *counts: seen.append(counts))
    assert [path.name for path in paths] == names(images) == names(tmp_path / "new" / "masks")
    predictor = Predictor.from_folder(finished.path)
    for path in paths:
        mask = Image.open(path)
        image = read_image(images / path.name)
        assert mask.mode == "L" and mask.size == (image.shape[1], image.shape[0])
        difference = (np.asarray(mask) != predictor(image)).mean()
        assert difference == 0 if batch_size == 1 else difference < 0.002  # other sums may flip a logit of 0
    assert seen[0] == (0, 9) and seen[-1] == (9, 9) and seen == sorted(seen)


def test_one_image_can_be_given_instead_of_a_folder(workspace, finished, tmp_path):
    (path,) = predict_folder(settings(finished, workspace / "data" / "images" / "i3.png", tmp_path / "out"))
    assert path == tmp_path / "out" / "i3.png" and names(tmp_path / "out") == ["i3.png"]


def test_overlay_and_probability_lie_on_the_pixels_of_the_mask(finished, tmp_path, fixed):
    fixed()
    image = np.zeros((11, 17, 3), dtype=np.uint8)
    image[2:5, 9:16, 0] = 200
    (tmp_path / "in").mkdir()
    Image.fromarray(image).save(tmp_path / "in" / "a.png")
    predict_folder(settings(finished, tmp_path / "in", tmp_path / "out", overlays=True, probabilities=True))
    assert names(tmp_path / "out") == ["a.png", "a_overlay.png", "a_probability.png"]
    inside = image[..., 0] == 200
    np.testing.assert_array_equal(pixels(tmp_path / "out" / "a.png"), inside)
    probability = pixels(tmp_path / "out" / "a_probability.png")
    assert probability.dtype == np.uint16
    want = {True: 65535 / (1 + np.exp(-2.0)), False: 65535 / (1 + np.exp(2.0))}
    assert np.abs(probability - np.where(inside, want[True], want[False])).max() <= 1
    drawn = pixels(tmp_path / "out" / "a_overlay.png")
    np.testing.assert_array_equal((drawn != image).any(-1), inside)
    assert tuple(drawn[2, 9]) == class_colour(1)


def test_several_classes_have_one_probability_file_each(finished, tmp_path, fixed):
    fixed(3)
    image = np.zeros((6, 9, 3), dtype=np.uint8)
    image[:, :3, 0], image[:, 6:, 0] = 50, 100
    (tmp_path / "in").mkdir()
    Image.fromarray(image).save(tmp_path / "in" / "a.png")
    predict_folder(settings(finished, tmp_path / "in", tmp_path / "out", probabilities=True))
    assert names(tmp_path / "out") == ["a.png", "a_probability_1.png", "a_probability_2.png"]
    np.testing.assert_array_equal(pixels(tmp_path / "out" / "a.png"), image[..., 0] // 50)
    for i in (1, 2):
        probability = pixels(tmp_path / "out" / f"a_probability_{i}.png")
        np.testing.assert_array_equal(probability > 32767, image[..., 0] == 50 * i)


def test_a_prediction_that_was_cut_off_continues_with_skip_existing(finished, tmp_path, fixed, monkeypatch):
    fixed()
    images = write_images(tmp_path / "in", *(f"{i:02}.png" for i in range(40)))
    given = settings(finished, images, tmp_path / "out", overlays=True, skip_existing=True)

    def stop(done, total):
        if done == 2:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        predict_folder(given, stop)
    written = names(tmp_path / "out")  # the writers may be a few images ahead of what was reported
    count = len(written) // 2
    assert written == sorted(f"{i:02}{end}.png" for i in range(count) for end in ("", "_overlay")) and 2 <= count < 20
    (tmp_path / "out" / "01.png").unlink()  # as if it had been killed before the mask
    (tmp_path / "out" / "00.png").write_bytes(b"mine")
    seen = []
    assert len(predict_folder(given, lambda *counts: seen.append(counts))) == 40
    assert seen == [(i, 40) for i in range(count - 1, 41)]
    assert (tmp_path / "out" / "00.png").read_bytes() == b"mine"
    assert len(names(tmp_path / "out")) == 80


def test_overlays_that_are_asked_for_later_are_added(finished, tmp_path, fixed):
    fixed()
    images = write_images(tmp_path / "in", "a.png")
    predict_folder(settings(finished, images, tmp_path / "out"))
    predict_folder(settings(finished, images, tmp_path / "out", overlays=True, skip_existing=True))
    assert names(tmp_path / "out") == ["a.png", "a_overlay.png"]


@pytest.mark.parametrize("batch_size", [1, 3])
def test_a_broken_image_among_good_ones_is_named_and_the_others_are_written(finished, tmp_path, fixed, batch_size):
    fixed()
    images = write_images(tmp_path / "in", "a.png", "b.png", "c.png", "d.png")
    data = (images / "b.png").read_bytes()
    (images / "b.png").write_bytes(data[: len(data) // 2])
    with pytest.raises(ImageError, match=r"1 of 4 images were left out, the others were predicted: .*b\.png") as caught:
        predict_folder(settings(finished, images, tmp_path / "out", batch_size=batch_size))
    assert caught.value.exit_code == 3
    assert names(tmp_path / "out") == ["a.png", "c.png", "d.png"]


def test_a_folder_with_files_is_refused_and_stays_as_it_is(finished, tmp_path, fixed):
    fixed()
    images = write_images(tmp_path / "in", "a.png")
    output = write_images(tmp_path / "out", "z.png")
    with pytest.raises(OutputError, match=r"is not empty \(it holds z\.png\).*--skip_existing"):
        predict_folder(settings(finished, images, output))
    assert names(output) == ["z.png"]


@pytest.mark.parametrize("skip_existing", [False, True])
def test_the_folder_of_the_images_is_no_place_for_masks(finished, tmp_path, fixed, monkeypatch, skip_existing):
    fixed()
    images = write_images(tmp_path / "in", "a.png")
    before = (images / "a.png").read_bytes()
    (tmp_path / "link").symlink_to(images)
    monkeypatch.chdir(images)
    for output in (images, tmp_path / "link", "."):
        with pytest.raises(OutputError, match="holds the images themselves"):
            predict_folder(settings(finished, images, output, skip_existing=skip_existing))
    assert names(images) == ["a.png"] and (images / "a.png").read_bytes() == before


def test_a_folder_inside_the_images_folder_can_take_the_masks(finished, tmp_path, fixed):
    fixed()
    images = write_images(tmp_path / "in", "a.png")
    predict_folder(settings(finished, images, images / "masks"))
    assert names(images / "masks") == ["a.png"]
    predict_folder(settings(finished, images, images / "masks", skip_existing=True))


def test_images_of_one_stem_keep_their_suffix(finished, tmp_path, fixed):
    fixed()
    images = write_images(tmp_path / "in", "a.png", "a.bmp")
    predict_folder(settings(finished, images, tmp_path / "out"))
    assert names(tmp_path / "out") == ["a.bmp.png", "a.png.png"]


def test_an_overlay_that_would_be_another_images_mask_is_refused(finished, tmp_path, fixed):
    fixed()
    images = write_images(tmp_path / "in", "a.png", "a_overlay.png")
    with pytest.raises(PairingError, match=r"a and a_overlay would both be written to a_overlay\.png"):
        predict_folder(settings(finished, images, tmp_path / "out", overlays=True))
    assert not (tmp_path / "out").exists()
    predict_folder(settings(finished, images, tmp_path / "out"))
    assert names(tmp_path / "out") == ["a.png", "a_overlay.png"]


ODD = [
    "with space.png",
    "ümläut 日本.png",
    "-dash.png",
    "new\nline.png",
    "a'b\"c.png",
    "%s{0}$x.png",
    "n" * 245 + ".png",
]


def test_odd_names_are_kept(finished, tmp_path, fixed):
    fixed()
    odd = [*ODD, os.fsdecode(b"bytes\xff.png")]
    images = write_images(tmp_path / "in", *odd)
    predict_folder(settings(finished, images, tmp_path / "out"))
    assert names(tmp_path / "out") == sorted(odd)


def test_images_behind_links_are_read(finished, tmp_path, fixed):
    fixed()
    images = write_images(tmp_path / "in", "a.png")
    (tmp_path / "links").mkdir()
    (tmp_path / "links" / "b.png").symlink_to(images / "a.png")
    (tmp_path / "folder").symlink_to(tmp_path / "links")
    predict_folder(settings(finished, tmp_path / "folder", tmp_path / "out"))
    assert names(tmp_path / "out") == ["b.png"]


def test_a_full_disk_leaves_no_part_of_a_file(finished, tmp_path, fixed, monkeypatch):
    fixed()
    images = write_images(tmp_path / "in", "a.png", "b.png")
    real = files.fsync

    def full(path):
        if path.name.startswith(".b"):
            raise OSError(errno.ENOSPC, "No space left on device")
        real(path)

    monkeypatch.setattr(files, "fsync", full)
    with pytest.raises(OutputError, match=r"cannot write .*b\.png: the disk is full") as caught:
        predict_folder(settings(finished, images, tmp_path / "out"))
    assert caught.value.exit_code == 6 and names(tmp_path / "out") == ["a.png"]


def test_a_file_in_place_of_the_output_folder_is_refused(finished, tmp_path, fixed):
    fixed()
    images = write_images(tmp_path / "in", "a.png")
    (tmp_path / "out").write_text("mine")
    for output in (tmp_path / "out", tmp_path / "out" / "below"):
        with pytest.raises(OutputError, match="a file, not a folder"):
            predict_folder(settings(finished, images, output))
    assert (tmp_path / "out").read_text() == "mine"


class Alive:
    """Counts decoded images from the start of their decoding until nobody holds them."""

    def __init__(self):
        self.lock, self.now, self.most = threading.Lock(), 0, 0

    def read(self, path, limits, channels):
        with self.lock:
            self.now += 1
            self.most = max(self.most, self.now)
        image = read_image(path, limits)
        weakref.finalize(image, self.gone)
        return image

    def gone(self):
        with self.lock:
            self.now -= 1


@pytest.mark.parametrize("slow", ["reading", "segmenting", "writing"])
@pytest.mark.parametrize("batch_size", [1, 3])
def test_few_images_are_in_memory_whatever_is_slow(finished, tmp_path, monkeypatch, slow, batch_size):
    alive = Alive()

    def wait(stage, value=None):
        time.sleep(0.01 if slow == stage else 0)
        return value

    class Slow(Fixed):
        def logits(self, images):
            return wait("segmenting", list(super().logits(images)))

    drawn = folder_module.overlay
    monkeypatch.setattr(folder_module.Predictor, "from_folder", lambda *a, **k: Slow())
    monkeypatch.setattr(folder_module, "read_pixels", lambda *a: wait("reading", alive.read(*a)))
    monkeypatch.setattr(folder_module, "overlay", lambda *a, **k: wait("writing", drawn(*a, **k)))
    images = write_images(tmp_path / "in", *(f"{i:02}.png" for i in range(40)))
    predict_folder(settings(finished, images, tmp_path / "out", overlays=True, batch_size=batch_size))
    length = pipeline.queue_length(batch_size)
    # read ahead, segmented, waiting to be written, and in the hands of threads that are about to let go
    assert 0 < alive.most <= length + batch_size + length + pipeline.THREADS
    assert alive.now == 0


def test_what_is_written_does_not_depend_on_the_threads(workspace, finished, tmp_path, monkeypatch):
    images = workspace / "data" / "images"
    written = []
    for threads in (1, 4):
        monkeypatch.setattr(pipeline, "THREADS", threads)
        output = tmp_path / str(threads)
        predict_folder(settings(finished, images, output, overlays=True, probabilities=True, batch_size=2))
        written.append({path.name: path.read_bytes() for path in output.iterdir()})
    assert written[0] == written[1] and len(written[0]) == 27


def test_processes_share_the_images_and_leave_each_others_files_alone(finished, tmp_path, fixed):
    fixed()
    images = write_images(tmp_path / "in", *(f"{i}.png" for i in range(5)), "0_overlay.png")
    seen = []
    given = settings(finished, images, tmp_path / "out", probabilities=True)
    second = predict_folder(given, lambda *counts: seen.append(counts), rank=1, world=2)
    assert [path.name for path in second] == ["0_overlay.png", "2.png", "4.png"] and seen[-1] == (3, 3)
    first = predict_folder(given, rank=0, world=2)  # finds the other's files in the folder
    assert [path.name for path in first] == ["0.png", "1.png", "3.png"]
    assert len(names(tmp_path / "out")) == 12
    for rank in (0, 1):
        with pytest.raises(OutputError, match="is not empty"):
            predict_folder(given, rank=rank, world=2)


def test_foreign_files_are_refused_by_every_process(finished, tmp_path, fixed):
    fixed()
    images = write_images(tmp_path / "in", "a.png", "b.png")
    (tmp_path / "out").mkdir()
    for name in ("notes.txt", "c.png", "a_probability_x.png"):
        (tmp_path / "out" / name).write_text("")
        for rank in (0, 1):
            with pytest.raises(OutputError, match=f"it holds {name}"):
                predict_folder(settings(finished, images, tmp_path / "out"), rank=rank, world=2)
        (tmp_path / "out" / name).unlink()


def test_a_process_without_images_has_nothing_to_do(finished, tmp_path, fixed):
    fixed()
    images = write_images(tmp_path / "in", "a.png")
    assert predict_folder(settings(finished, images, tmp_path / "out"), rank=1, world=2) == []


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"batch_size": 0}, "batch_size=0 must be at least 1"),
        ({"max_megapixels": float("nan")}, "max_megapixels=nan must be finite"),
        ({"max_megapixels": -1.0, "device": "gpu"}, r"max_megapixels=-1.0 .*; device='gpu' must be auto, cpu"),
    ],
)
def test_settings_out_of_range_are_refused(finished, tmp_path, changes, message):
    with pytest.raises(SettingsError, match=message):
        settings(finished, tmp_path, tmp_path, **changes)
