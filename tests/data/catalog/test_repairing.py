import numpy as np
import pytest
from PIL import Image

from convlora.data.catalog.repairing import repair_masks
from convlora.data.pixels.masks import read_mask
from convlora.data.samples import Sample
from convlora.errors import DataError, ImageError

RNG = np.random.default_rng(0)
TRUTH = RNG.random((30, 40)) < 0.4


def repair(tmp_path, picture, name="m.png", binary=True, size=(40, 30), **options):
    (tmp_path / "masks").mkdir()
    picture.save(tmp_path / "masks" / name, **options)
    Image.new("RGB", size).save(tmp_path / "i.png")
    sample = Sample("i", tmp_path / "i.png", tmp_path / "masks" / name)
    return repair_masks([sample], tmp_path / "new", binary=binary, progress=lambda done, total: None)


def grey(values):
    return Image.fromarray(np.asarray(values, dtype=np.uint8))


def palette(ids, *colours):
    picture = Image.fromarray(ids.astype(np.uint8), mode="P")
    picture.putpalette([value for colour in colours for value in colour])
    return picture


BLACK, WHITE, DARK_RED = (0, 0, 0), (255, 255, 255), (128, 0, 0)


@pytest.mark.parametrize("picture", [grey(TRUTH * 255), Image.fromarray(TRUTH)])
def test_a_plain_mask_stays_as_it_is(tmp_path, picture):
    result = repair(tmp_path, picture)
    assert result.masks == [tmp_path / "masks" / "m.png"] and (result.binarised, result.resized) == (0, 0)
    assert not (tmp_path / "new").exists()


@pytest.mark.parametrize(
    ("name", "picture"),
    [
        ("m.png", grey(np.where(TRUTH, RNG.integers(128, 256, TRUTH.shape), RNG.integers(0, 128, TRUTH.shape)))),
        ("m.jpg", grey(TRUTH * 255)),
        ("m.png", grey(TRUTH)),
        ("m.png", grey(TRUTH * 255).convert("RGB")),
        ("m.png", palette(TRUTH, BLACK, WHITE)),
        ("m.png", palette(~TRUTH, WHITE, BLACK)),
        ("m.png", palette(TRUTH, BLACK, DARK_RED)),
    ],
    ids=["grey edges", "jpeg", "0 and 1", "colour", "palette", "palette from white on", "palette of dark colours"],
)
def test_any_other_mask_becomes_0_and_255_at_half_of_the_range(tmp_path, name, picture):
    result = repair(tmp_path, picture, name, **({"quality": 100} if name.endswith("jpg") else {}))
    assert result.masks == [tmp_path / "new" / "masks" / f"{name}.40x30.png"]
    assert (result.binarised, result.resized) == (1, 0)
    assert np.array_equal(read_mask(result.masks[0]), TRUTH * 255)
    assert (tmp_path / "masks" / name).is_file()


def test_a_mask_of_another_size_becomes_as_large_as_its_image(tmp_path):
    result = repair(tmp_path, grey(TRUTH * 255), size=(80, 60))
    assert (result.binarised, result.resized) == (0, 1)
    assert np.array_equal(read_mask(result.masks[0]), np.kron(TRUTH * 255, np.ones((2, 2))))


def test_no_two_masks_become_one(tmp_path):
    (tmp_path / "m").mkdir()
    masks = {"0.png": grey(TRUTH * 200), "0.bmp": grey(~TRUTH * 200)}
    samples = []
    for i, (name, size) in enumerate([("0.png", (40, 30)), ("0.bmp", (40, 30)), ("0.png", (80, 60))]):
        masks[name].save(tmp_path / "m" / name)
        Image.new("RGB", size).save(tmp_path / f"{i}.png")
        samples.append(Sample(str(i), tmp_path / f"{i}.png", tmp_path / "m" / name))
    result = repair_masks(samples, tmp_path / "new", binary=True, progress=lambda done, total: None)
    wanted = [TRUTH, ~TRUTH, np.kron(TRUTH, np.ones((2, 2)))]
    assert all(np.array_equal(read_mask(mask), truth * 255) for mask, truth in zip(result.masks, wanted, strict=True))


def test_class_ids_are_never_binarised(tmp_path):
    ids = RNG.integers(0, 12, (30, 40))
    result = repair(tmp_path, grey(ids), binary=False, size=(80, 60))
    assert (result.binarised, result.resized) == (0, 1)
    assert np.array_equal(read_mask(result.masks[0]), np.kron(ids, np.ones((2, 2))))


def test_a_mask_that_cannot_be_meant_is_told(tmp_path):
    with pytest.raises(DataError, match=r"m\.png: a mask of colour mode I;16 is not expected"):
        repair(tmp_path, Image.fromarray(TRUTH.astype(np.uint16)))


def test_a_damaged_mask_is_told(tmp_path):
    (tmp_path / "masks").mkdir()
    (tmp_path / "masks" / "m.png").write_bytes(b"\x89PNG\r\n\x1a\n")
    Image.new("RGB", (4, 4)).save(tmp_path / "i.png")
    sample = Sample("i", tmp_path / "i.png", tmp_path / "masks" / "m.png")
    with pytest.raises(ImageError, match=r"m.png: damaged"):
        repair_masks([sample], tmp_path / "new", binary=True, progress=lambda done, total: None)
