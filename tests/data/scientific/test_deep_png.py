import numpy as np
import pytest
from PIL import Image

from convlora.data.pixels.images import read_image
from convlora.data.readers.finding import find_data
from convlora.data.readers.pairing import find_images
from convlora.data.scientific.deep_png import is_deep_png, open_deep_png
from convlora.data.scientific.expanding import Reading
from convlora.data.settings import DataSettings, ImageLimits
from convlora.errors import ImageError
from tests.data.files import noise, png_header, save
from tests.data.scientific.makers import percentile_window, ramp, through

TWELVE = ramp((9, 14), np.uint16) // 16


def seen(path, rule="auto"):
    (sample,) = find_images(str(path), how=Reading(intensity=rule))
    return read_image(sample.image)


@pytest.mark.parametrize(
    ("rule", "window"),
    [("auto", percentile_window(TWELVE)), ("full", (0, 65535)), ("100,900", (100, 900))],
)
def test_grey_of_16_bits_is_seen_through_the_window(tmp_path, rule, window):
    path = save(tmp_path / "a.png", TWELVE)
    assert np.array_equal(seen(path, rule), np.repeat(through(TWELVE, *window)[..., None], 3, axis=2))


def test_all_values_of_the_type_give_what_a_plain_picture_gives(tmp_path):
    path = save(tmp_path / "a.png", ramp((9, 14), np.uint16))
    assert np.array_equal(seen(path, "full"), read_image(path))


def test_the_rule_is_told_and_kept(tmp_path):
    for i in range(3):
        save(tmp_path / "images" / f"s{i}.png", TWELVE)
        save(tmp_path / "masks" / f"s{i}.png", np.eye(9, 14, dtype=np.uint8))
    data = find_data(DataSettings(images=str(tmp_path / "images"), masks=str(tmp_path / "masks")))
    assert data.intensity == "percentile" and "--intensity percentile" in data.notes[-1]
    raw = find_data(DataSettings(images=str(tmp_path / "images"), masks=str(tmp_path / "masks"), channels=1))
    assert all(sample.image == tmp_path / "images" / f"{sample.name}.png" for sample in raw.samples)


def test_other_pictures_are_left_to_pillow(tmp_path):
    paths = [save(tmp_path / f"{n}.png", noise(6, 8, n)) for n in (1, 3, 4)]
    (tmp_path / "colour.png").write_bytes(png_header(6, 8, depth=16, colour=2))
    (tmp_path / "short.png").write_bytes(png_header(6, 8, depth=16, colour=0)[:20])
    paths += [tmp_path / "colour.png", tmp_path / "short.png", tmp_path / "none.png"]
    assert not any(map(is_deep_png, paths))


def test_what_cannot_be_read_is_one_line(tmp_path):
    path = tmp_path / "a.png"
    path.write_bytes(png_header(30_000, 30_000, depth=16, colour=0))
    with pytest.raises(ImageError, match=r"a.png: .* megapixels"):
        open_deep_png(path, ImageLimits())
    path.write_bytes(png_header(9, 14, depth=16, colour=0) + b"nothing")
    with pytest.raises(ImageError, match=r"a.png: damaged"):
        seen(path)
    exif = Image.Exif()
    exif[274] = 6
    save(path, TWELVE, exif=exif.tobytes())
    with pytest.raises(ImageError, match=r"a.png: is to be turned by a quarter \(EXIF\). Save it upright"):
        seen(path)
