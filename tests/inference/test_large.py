import shutil
import signal
import subprocess
import sys
import time

import numpy as np
import pytest
import rasterio

from convlora import files
from convlora.errors import ImageError, OutputError, SettingsError
from convlora.inference import folder as folder_module
from convlora.inference import streaming
from convlora.inference.folder import predict_folder
from convlora.inference.streaming import count_tiles
from tests.data.scientific.makers import save_geotiff
from tests.inference.known import Known
from tests.inference.test_folder import settings
from tests.inference.test_georeferenced import IN_WINDOWS, names, patches

SIZE = (260, 150)
ROWS, COLUMNS = count_tiles(SIZE, 64, 0.25)


@pytest.fixture
def raster(tmp_path):
    bands = patches(SIZE)
    bands[:, 50:80, 40:60] = 0
    return save_geotiff(tmp_path / "images" / "town.tif", bands, nodata=0)


@pytest.fixture
def counted(monkeypatch):
    """A predictor, and the tiles that it was shown."""
    seen = []

    class Counted(Known):
        def bands(self, read, size, **options):
            def noted(boxes):
                seen.extend((rows.start, columns.start) for rows, columns in boxes)
                return read(boxes)

            return super().bands(noted, size, **options)

    monkeypatch.setattr(folder_module.Predictor, "from_folder", lambda *a, **k: Counted(**options))
    options = {}
    return seen, options


def windows(finished, raster, output, **changes):
    return settings(finished, raster.parent, output, **{"max_megapixels": IN_WINDOWS, **changes})


def stop_after(tiles):
    def progress(done, total):
        if done > tiles:
            raise KeyboardInterrupt

    return progress


@pytest.mark.parametrize("polygons", [None, "geojson"])
@pytest.mark.parametrize("overlap", [0.25, 0.6])
@pytest.mark.parametrize("tiles", [0, COLUMNS, 2 * COLUMNS + 1, ROWS * COLUMNS - 1])
def test_a_raster_that_was_stopped_anywhere_is_continued_to_the_same_files(
    tmp_path, finished, raster, counted, tiles, overlap, polygons
):
    seen, options = counted
    options["overlap"] = overlap
    predict_folder(windows(finished, raster, tmp_path / "whole", polygons=polygons))
    tops = sorted({top for top, _ in seen})
    seen.clear()
    given = windows(finished, raster, tmp_path / "out", polygons=polygons, skip_existing=True)
    with pytest.raises(KeyboardInterrupt):
        predict_folder(given, progress_windows=stop_after(tiles))
    assert names(tmp_path / "out") == [".town.bands"]  # nothing that looks like a result
    assert not list((tmp_path / "out").rglob("*.tmp"))
    bands = len(names(tmp_path / "out" / ".town.bands")) - 1
    seen.clear()
    counts = []
    predict_folder(given, progress_windows=lambda *count: counts.append(count))
    rows, columns = count_tiles(SIZE, 64, overlap)
    assert tiles < COLUMNS or bands > 0 or overlap == 0.6
    assert len(seen) == columns * sum(top + 64 > tops[bands] for top in tops)  # those that reach into what is to do
    assert counts[0] == (bands * columns, rows * columns) and counts[-1] == (rows * columns, rows * columns)
    assert counts == sorted(counts)
    assert names(tmp_path / "out") == names(tmp_path / "whole")
    for name in names(tmp_path / "whole"):
        assert (tmp_path / "out" / name).read_bytes() == (tmp_path / "whole" / name).read_bytes()


def test_progress_counts_each_tile_once(tmp_path, finished, raster, counted):
    images, tiles = [], []
    given = windows(finished, raster, tmp_path / "out", batch_size=2)
    predict_folder(given, lambda *c: images.append(c), progress_windows=lambda *c: tiles.append(c))
    assert images == [(0, 1), (1, 1)]
    steps = [(2 * i + j) + 3 * row for row in range(ROWS) for i, j in ((0, 2), (1, 1))]  # of two, and what is left
    assert COLUMNS == 3 and tiles == [(done, ROWS * COLUMNS) for done in [0, *steps]]


def test_what_is_there_is_not_predicted_again(tmp_path, finished, raster, counted):
    seen, _ = counted
    save_geotiff(raster.with_name("second.tif"), patches(SIZE, seed=1))
    predict_folder(windows(finished, raster, tmp_path / "out"))
    (tmp_path / "out" / "second.tif").unlink()
    (tmp_path / "out" / "town.tif").write_bytes(b"mine")
    seen.clear()
    paths = predict_folder(windows(finished, raster, tmp_path / "out", skip_existing=True))
    assert len(seen) == ROWS * COLUMNS and [path.name for path in paths] == ["second.tif", "town.tif"]
    assert (tmp_path / "out" / "town.tif").read_bytes() == b"mine"
    with pytest.raises(OutputError, match="is not empty"):
        predict_folder(windows(finished, raster, tmp_path / "out"))


@pytest.mark.parametrize("change", ["raster", "overlap", "intensity", "about", "folder"])
def test_bands_of_something_else_are_not_used(tmp_path, finished, raster, counted, change):
    seen, options = counted
    given = windows(finished, raster, tmp_path / "out")
    with pytest.raises(KeyboardInterrupt):
        predict_folder(given, progress_windows=stop_after(2 * COLUMNS))
    about = tmp_path / "out" / ".town.bands" / "about.json"
    seen.clear()
    if change == "raster":
        save_geotiff(raster, patches(SIZE, seed=5))
    elif change == "overlap":
        options["overlap"] = 0.3
    elif change == "intensity":
        given = windows(finished, raster, tmp_path / "out", intensity="full")
    elif change == "about":
        about.write_bytes(b"\xff{")
    else:
        about.unlink()
    predict_folder(given)
    assert (0, 0) in seen and names(tmp_path / "out") == ["town.tif"]
    with rasterio.open(tmp_path / "out" / "town.tif") as mask, rasterio.open(raster) as image:
        bands = image.read()
        empty = (bands == 0).all(axis=0) & (change != "raster")
        np.testing.assert_array_equal(mask.read(1), np.where(empty, 255, Known().expected(bands)))


def test_a_process_killed_while_it_writes_leaves_nothing_once_it_was_continued(
    tmp_path, finished, raster, counted, monkeypatch
):
    given = windows(finished, raster, tmp_path / "out", polygons="gpkg", skip_existing=True)

    def killed(path):  # a kill runs no cleaning up, so what is being written stays
        if path.name.startswith(".town.tif."):
            shutil.copy(path, path.with_name(".town.tif.left.tmp"))
            raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(files, "fsync", killed)
        with pytest.raises(KeyboardInterrupt):
            predict_folder(given)
    assert list((tmp_path / "out").rglob("*.left.tmp")) and not list((tmp_path / "out").glob("town.*"))
    predict_folder(given)
    assert names(tmp_path / "out") == ["town.gpkg", "town.tif"]


def test_the_bands_of_a_raster_that_is_there_are_removed(tmp_path, finished, raster, counted):
    given = windows(finished, raster, tmp_path / "out", skip_existing=True)
    with pytest.raises(KeyboardInterrupt):
        predict_folder(given, progress_windows=stop_after(2 * COLUMNS))
    (tmp_path / "out" / "town.tif").write_bytes(b"written by a process that was killed just then")
    predict_folder(given)
    assert names(tmp_path / "out") == ["town.tif"]


def test_a_damaged_band_is_told_and_leaves_no_mask(tmp_path, finished, raster, counted):
    given = windows(finished, raster, tmp_path / "out")
    with pytest.raises(KeyboardInterrupt):
        predict_folder(given, progress_windows=stop_after(2 * COLUMNS))
    (tmp_path / "out" / ".town.bands" / "000000").write_bytes(b"torn")
    with pytest.raises(OutputError, match=r"000000 cannot be read again.*Remove its folder, and start again"):
        predict_folder(given)
    assert names(tmp_path / "out") == [".town.bands"]


def test_a_broken_raster_is_named_and_the_others_are_predicted(tmp_path, finished, raster, counted):
    other = save_geotiff(raster.with_name("broken.tif"), patches(SIZE, seed=1), compress="deflate", blockysize=16)
    content = other.read_bytes()
    other.write_bytes(content[: len(content) * 2 // 3])
    with pytest.raises(ImageError, match=r"1 of 2 images were left out, the others were predicted: .*broken\.tif"):
        predict_folder(windows(finished, raster, tmp_path / "out"))
    assert [name for name in names(tmp_path / "out") if not name.startswith(".")] == ["town.tif"]


@pytest.mark.parametrize(
    ("changes", "tile", "message"),
    [
        ({"overlays": True}, 64, r"^town: more than the 0\.005 megapixels .* --overlays and --probabilities are not"),
        ({"probabilities": True}, 64, r"--overlays and --probabilities are not written"),
        ({}, None, r"the run knows no tiles\. Give --tile"),
        ({}, 80, r"and so is a tile of 80 x 80 pixels; give a smaller --tile"),
    ],
)
def test_what_large_rasters_cannot_have_is_told_before_anything_is_done(
    tmp_path, finished, raster, counted, changes, tile, message
):
    counted[1]["tile"] = tile
    with pytest.raises(SettingsError, match=message):
        predict_folder(windows(finished, raster, tmp_path / "out", **changes))
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("stored", [{}, {"tiled": True, "blockxsize": 16, "blockysize": 16}])
def test_little_is_read_at_a_time_whatever_the_width(tmp_path, finished, counted, monkeypatch, stored):
    bands = patches((70, 900))
    bands[:, :5] = 0
    image = save_geotiff(tmp_path / "images" / "wide.tif", bands, nodata=0, **stored)
    monkeypatch.setattr(streaming, "_READ_BYTES", 64 * 100 * 9)  # 100 columns of a tile's height, while decoded
    reads = []
    window = streaming.GeoImage.read_window
    valid = streaming.GeoImage.valid
    monkeypatch.setattr(streaming.GeoImage, "read_window", lambda *a: reads.append(a[3:5]) or window(*a))
    monkeypatch.setattr(streaming.GeoImage, "valid", lambda *a: reads.append(a[3:5]) or valid(*a))
    predict_folder(windows(finished, image, tmp_path / "out", max_megapixels=0.05))
    assert len(reads) > 20 and max(height * width for height, width in reads) <= 6400
    with rasterio.open(tmp_path / "out" / "wide.tif") as mask:
        np.testing.assert_array_equal(mask.read(1), np.where((bands == 0).all(0), 255, Known().expected(bands)))


def test_a_killed_command_goes_on_and_gives_the_file_of_one_that_was_not(tmp_path, finished, raster):
    """With the real model, which is another answer than that of `Known`, and a real SIGKILL."""
    command = [sys.executable, "-m", "convlora.cli.main", "predict", str(finished.path), str(raster), "--output"]
    options = ["--tile", "64", "--overlap", "0.5", "--max_megapixels", str(IN_WINDOWS), "--device", "cpu"]
    start = subprocess.Popen([*command, str(tmp_path / "out"), *options], stderr=subprocess.DEVNULL)
    bands = tmp_path / "out" / ".town.bands"
    deadline = time.monotonic() + 120
    while not (bands / "000001").exists() and start.poll() is None and time.monotonic() < deadline:
        time.sleep(0.002)
    start.send_signal(signal.SIGKILL)
    start.wait()
    assert names(tmp_path / "out") == [".town.bands"] and (bands / "000001").exists()
    kept = {file.name: file.stat().st_mtime_ns for file in bands.iterdir() if file.name.isdigit()}
    predict_folder(windows(finished, raster, tmp_path / "whole", tile=64, overlap=0.5, device="cpu"))
    stamps = {}
    real = shutil.rmtree

    def remembering(path, *a, **k):
        stamps.update({file.name: file.stat().st_mtime_ns for file in path.iterdir()})
        real(path, *a, **k)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(shutil, "rmtree", remembering)
        predict_folder(
            windows(finished, raster, tmp_path / "out", tile=64, overlap=0.5, device="cpu", skip_existing=True)
        )
    assert kept.items() <= stamps.items()
    assert (tmp_path / "out" / "town.tif").read_bytes() == (tmp_path / "whole" / "town.tif").read_bytes()
    assert names(tmp_path / "out") == ["town.tif"]
    predict_folder(settings(finished, raster.parent, tmp_path / "memory", tile=64, overlap=0.5, device="cpu"))
    assert (tmp_path / "memory" / "town.tif").read_bytes() == (tmp_path / "whole" / "town.tif").read_bytes()
