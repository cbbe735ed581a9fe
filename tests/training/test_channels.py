import dataclasses
import json
import shutil

import numpy as np
import pytest
import tifffile
from PIL import Image

from convlora.adapter.saving import sealed
from convlora.data.augmentation.settings import AugmentationSettings
from convlora.errors import ImageError
from convlora.evaluation.evaluate import evaluate
from convlora.evaluation.settings import EvaluateSettings
from convlora.inference.folder import predict_folder
from convlora.inference.predictor import Predictor
from convlora.inference.settings import PredictSettings
from convlora.training.run import resume, train
from convlora.training.settings import AdapterSettings
from tests.training.runs import Crash, crash_after, loss_curve, quick_settings, weights_hash, write_checkpoint


def write_bands(folder, count=12, seed=0):
    """Five bands of 16 bits with blobs in each; the masks are those of the last band alone. Once more as RGB .npy."""
    rng = np.random.default_rng(seed)
    for part in ("bands", "rgb", "masks"):
        (folder / part).mkdir(parents=True)
    rows, columns = np.mgrid[:64, :64]
    for i in range(count):
        blobs = []
        for _ in range(5):
            centre = rng.integers(14, 50, 2)
            blobs.append((rows - centre[0]) ** 2 + (columns - centre[1]) ** 2 < 150)
        image = np.stack([300 * (k + 1) + 400 * blob for k, blob in enumerate(blobs)], -1)
        image = (image + rng.normal(0, 20, image.shape)).astype(np.uint16)
        tifffile.imwrite(folder / "bands" / f"i{i}.tif", np.moveaxis(image, -1, 0), photometric="minisblack")
        np.save(folder / "rgb" / f"i{i}.npy", image[..., :3])
        Image.fromarray(blobs[4].astype(np.uint8) * 255).save(folder / "masks" / f"i{i}.png")


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    folder = tmp_path_factory.mktemp("channels")
    write_bands(folder)
    write_checkpoint(folder / "sam")
    return folder


def settings(place, output, images="bands", channels=5, **changes):
    data = {"images": str(place / images), "masks": str(place / "masks"), "channels": channels}
    return quick_settings(place, output, **data, **changes)


@pytest.fixture(scope="module")
def runs(place):
    """With all bands, and with the first three alone: 60 steps each."""
    longer = {"epochs": 15, "evaluate_every": 20, "batch_size": 2, "learning_rate": 3e-3}
    return {
        channels: train(settings(place, f"run{channels}", images, channels, **longer))
        for channels, images in ((5, "bands"), (3, "rgb"))
    }


def iou(run):
    return evaluate(EvaluateSettings(run=str(run.path), device="cpu", precision="fp32")).result.scores.summary["iou"]


def test_a_band_that_alone_shows_the_classes_is_learned_and_without_it_they_are_not(runs):
    assert iou(runs[5]) > 0.6 > 0.4 > iou(runs[3])


def test_the_statistics_of_the_training_images_are_those_that_prediction_uses(place, runs):
    processor = Predictor.from_folder(runs[5].path, precision="fp32").processor
    train_images = [tifffile.imread(s.image) for s in runs[5].read_split().samples["train"]]
    values = np.stack(train_images).astype(np.float64)
    np.testing.assert_allclose(processor.image_mean, values.mean((0, 2, 3)), rtol=1e-6)
    np.testing.assert_allclose(processor.image_std, values.std((0, 2, 3)), rtol=1e-6)
    assert processor.channels == 5


def test_folders_of_channels_are_predicted_and_others_are_named(place, runs, tmp_path):
    new = tmp_path / "new"
    new.mkdir()
    for name in ("i0", "i1"):
        np.save(new / f"{name}.npy", tifffile.imread(place / "bands" / f"{name}.tif"))
    options = {"run": str(runs[5].path), "device": "cpu", "precision": "fp32", "overlays": True}
    predict_folder(PredictSettings(images=str(place / "bands"), output=str(tmp_path / "a"), **options))
    predict_folder(PredictSettings(images=str(new), output=str(tmp_path / "b"), **options))
    for name in ("i0.png", "i1.png", "i0_overlay.png"):
        assert (tmp_path / "a" / name).read_bytes() == (tmp_path / "b" / name).read_bytes()
    with pytest.raises(ImageError, match=r"12 of 12 images were left out.*i0\.npy: has 3 channels, wanted 5"):
        predict_folder(PredictSettings(images=str(place / "rgb"), output=str(tmp_path / "c"), **options))


def test_a_run_of_channels_that_crashed_before_its_first_checkpoint_goes_on_to_the_same_weights(place):
    short = {"epochs": 1, "evaluate_every": 2}
    whole = train(settings(place, "whole", **short))
    with pytest.raises(Crash):
        train(settings(place, "crashed", **short), crash_after(1))
    statistics = json.loads((place / "crashed" / "split.json").read_text())["statistics"]
    again = resume(place / "crashed")
    assert weights_hash(again) == weights_hash(whole) and loss_curve(again) == loss_curve(whole)
    assert Predictor.from_folder(again.path, precision="fp32").processor.image_mean == statistics["mean"]


def test_crops_still_images_and_the_other_models_take_channels(place):
    still = AugmentationSettings(enabled=False)
    options = [
        {"tile": 48, "tile_sampling": "foreground"},
        {"augmentation": still, "adapter": AdapterSettings(blocks=1)},
        {"model": "unet", "method": "scratch", "image_size": 64},
    ]
    for i, chosen in enumerate(options):
        run = train(settings(place, f"option{i}", max_steps=1, evaluate_every=1, **chosen))
        predictor = Predictor.from_folder(run.path, precision="fp32")
        assert predictor.processor.channels == 5
        assert predictor(np.moveaxis(tifffile.imread(place / "bands" / "i0.tif"), 0, -1)).shape == (64, 64)


def test_the_report_shows_the_chosen_channels(place, runs, tmp_path):
    folder = tmp_path / "run"
    shutil.copytree(runs[5].path, folder)
    pages = []
    for chosen in ([4], [0, 1, 2]):
        manifest = json.loads((folder / "adapter" / "manifest.json").read_text())
        manifest["metadata"]["processor"]["display_channels"] = chosen
        (folder / "adapter" / "manifest.json").write_text(json.dumps(sealed(manifest)))
        evaluate(EvaluateSettings(run=str(folder), device="cpu", precision="fp32"))
        pages.append((folder / "report.html").read_text(encoding="utf-8"))
    assert all(page.count("data:image/png;base64,") > 8 for page in pages) and pages[0] != pages[1]


def test_statistics_as_sams_are_kept_for_rgb_and_measured_for_the_rest(place, tmp_path):
    for part in ("images", "masks"):
        (tmp_path / part).mkdir()
    rng = np.random.default_rng(0)
    for i in range(6):
        Image.fromarray(rng.integers(0, 256, (64, 64, 4), dtype=np.uint8)).save(tmp_path / "images" / f"i{i}.png")
        shutil.copy(place / "masks" / f"i{i}.png", tmp_path / "masks")
    chosen = settings(place, "sam-statistics", channels=4, channel_statistics="sam", max_steps=1, evaluate_every=1)
    chosen = dataclasses.replace(chosen, images=str(tmp_path / "images"), masks=str(tmp_path / "masks"))
    processor = Predictor.from_folder(train(chosen).path, precision="fp32").processor
    np.testing.assert_allclose(np.array(processor.image_mean[:3]) / 255, [0.485, 0.456, 0.406], rtol=1e-6)
    assert processor.image_mean[3] == pytest.approx(127.5, abs=3)
