import numpy as np
import pytest
import tifffile
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from convlora.data.dataset import SegmentationDataset
from convlora.data.findings.checking import check_data
from convlora.data.labels.bits import IGNORED, pack
from convlora.data.pixels.masks import read_mask
from convlora.data.readers.finding import find_data
from convlora.data.readers.multilabel import ChannelMask
from convlora.data.settings import DataSettings, ImageLimits
from convlora.errors import DataError, ImageError, MaskError, SettingsError
from tests.data.files import noise, save

LIMITS = ImageLimits()


def channels(count, seed=0, size=(7, 9)):
    return np.random.default_rng(seed).random((count, *size)) < 0.4


def data_of(folder, masks, suffix="png", **values):
    """Settings of a data set whose masks (H, W, C) are given."""
    for i, mask in enumerate(masks):
        save(folder / "images" / f"s{i}.png", noise(*mask.shape[:2], seed=i))
        path = folder / "masks" / f"s{i}.{suffix}"
        path.parent.mkdir(exist_ok=True)
        if suffix == "png":
            save(path, mask)
        else:
            tifffile.imwrite(path, mask, photometric="minisblack", planarconfig="contig")
    places = {"images": str(folder / "images"), "masks": str(folder / "masks")}
    return DataSettings(**places, task="multilabel", val_fraction=0, test_fraction=0, **values)


@pytest.mark.parametrize(
    ("suffix", "count", "value", "dtype"),
    [("png", 3, 255, "uint8"), ("png", 3, 1, "uint8"), ("tif", 2, 1, "uint8"), ("tif", 7, 900, "uint16")],
)
def test_channel_c_is_class_c_wherever_it_is_not_0(tmp_path, suffix, count, value, dtype):
    truth = [channels(count, seed) for seed in range(3)]
    masks = [(np.moveaxis(one, 0, -1) * value).astype(dtype) for one in truth]
    checked = check_data(data_of(tmp_path, masks, suffix))
    assert checked.labels.multilabel and checked.labels.num_classes == count + 1
    assert f"masks of {count} channels: channel c is not 0 where class c is" in checked.notes
    assert checked.class_pixels[1:] == tuple(np.sum(truth, axis=(0, 2, 3)))
    assert checked.class_pixels[0] == sum((~one.any(0)).sum() for one in truth) and checked.labelled_pixels == 3 * 63
    dataset = SegmentationDataset(checked.splits["train"], checked.labels, limits=LIMITS)
    for i, one in enumerate(truth):
        np.testing.assert_array_equal(dataset[i]["mask"], pack(one))


def test_names_colours_and_a_map_are_those_of_the_channels(tmp_path):
    masks = [np.moveaxis(channels(3), 0, -1).astype(np.uint8)]
    settings = data_of(
        tmp_path,
        masks,
        classes=["background", "nucleus", "cell", "mitosis"],
        class_map={"mitosis": "nucleus"},
        class_colours={"cell": "#00ff00"},
    )
    checked = check_data(settings)
    assert checked.labels.classes == ("background", "nucleus", "cell")
    assert checked.labels.palette[2] == (0, 255, 0)
    one = channels(3)
    assert checked.class_pixels[1:] == ((one[0] | one[2]).sum(), one[1].sum())


def test_an_empty_last_channel_of_a_picture_may_have_no_name_but_not_one_that_is_used(tmp_path):
    mask = np.moveaxis(channels(3), 0, -1) * np.uint8(255)
    names = ["background", "a", "b"]
    with pytest.raises(DataError, match="has 3 channels, but --classes names 2 beside the background"):
        check_data(data_of(tmp_path, [mask], classes=names))
    mask[..., 2] = 0
    assert check_data(data_of(tmp_path, [mask], classes=names)).labels.classes == tuple(names)
    with pytest.raises(SettingsError, match=r"are 4 beside the background, but the masks have 3 channels"):
        check_data(data_of(tmp_path, [mask], classes=[*names, "c", "d"]))


def test_one_value_may_be_ignored_in_any_channel(tmp_path):
    mask = np.zeros((4, 5, 3), dtype=np.uint8)
    mask[0, 0, 1], mask[1, 1, 0], mask[2, 2] = 1, 9, (1, 9, 0)
    settings = data_of(tmp_path, [mask], ignore_index=9)
    values = read_mask(find_data(settings).samples[0].mask)
    assert values[0, 0] == 2 and values[1, 1] == values[2, 2] == IGNORED and (values != 0).sum() == 3
    assert check_data(settings).ignored_pixels == 2


def test_masks_of_several_values_lossy_ones_and_odd_ones_are_refused(tmp_path):
    mask = np.zeros((8, 8, 3), dtype=np.uint8)
    mask[:2], mask[2:4, :, 1] = 255, 1
    path = save(tmp_path / "a.png", mask)
    with pytest.raises(MaskError, match=r"a\.png, channel 2: holds 1, 255 beside 0, but one value says"):
        ChannelMask(path, 3, 3, None).read_mask(LIMITS)
    jpeg = save(tmp_path / "a.jpg", mask)
    with pytest.raises(MaskError, match="lossy compression smears"):
        ChannelMask(jpeg, 3, 3, None).read_mask(LIMITS)
    with pytest.raises(MaskError, match="has 3 channels, but other masks have 5"):
        ChannelMask(path, 5, 5, None).read_mask(LIMITS)
    clear = np.full((8, 8, 4), 200, dtype=np.uint8)
    with pytest.raises(MaskError, match="its fourth channel is alpha, and some pixels are transparent"):
        ChannelMask(save(tmp_path / "b.png", clear), 3, 3, None).read_mask(LIMITS)
    clear[..., 3] = 255
    assert (ChannelMask(save(tmp_path / "c.png", clear), 3, 3, None).read_mask(LIMITS) == 7).all()
    tifffile.imwrite(tmp_path / "nan.tif", np.full((4, 4, 5), np.nan, np.float32), planarconfig="contig")
    with pytest.raises((MaskError, ImageError)):
        ChannelMask(tmp_path / "nan.tif", 5, 5, None).read_mask(LIMITS)
    with pytest.raises(ImageError):
        ChannelMask(tmp_path / "none.tif", 5, 5, None).read_mask(LIMITS)
    with pytest.raises(ImageError, match="megapixels"):
        ChannelMask(path, 3, 3, None).read_mask(ImageLimits(max_pixels=10))


@given(st.binary(max_size=60))
@settings(max_examples=30, deadline=None)
def test_broken_files_are_an_image_error(tmp_path_factory, junk):
    path = tmp_path_factory.mktemp("junk") / "a.png"
    path.write_bytes(b"\x89PNG\r\n\x1a\n" + junk)
    with pytest.raises(ImageError):
        ChannelMask(path, 3, 3, None).read_mask(LIMITS)


def test_masks_of_one_channel_are_read_as_ever_and_each_class_by_itself(tmp_path):
    ids = np.uint8([[0, 1, 2], [2, 2, 255]])
    for name, picture in (("ids", Image.fromarray(ids)), ("palette", Image.fromarray(ids).convert("P"))):
        folder = tmp_path / name
        settings = data_of(folder, [np.stack([ids] * 3, -1)])
        picture.save(folder / "masks" / "s0.png")
        checked = check_data(settings)
        assert checked.class_pixels == (1, 1, 3) and checked.ignored_pixels == 1
        dataset = SegmentationDataset(checked.splits["train"], checked.labels, limits=LIMITS)
        assert dataset[0]["mask"].tolist() == [[0, 1, 2], [2, 2, IGNORED]]
