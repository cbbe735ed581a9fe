"""Every format × mode against numpy: whatever is read is right, or refused; nothing is wrong without a word."""

import warnings

import numpy as np
import pytest

from convlora.data.findings.checking import check_data
from convlora.data.pixels.images import read_image
from convlora.data.pixels.masks import read_mask
from convlora.data.readers import finding
from convlora.data.readers.finding import find_data
from convlora.data.settings import FORMATS as READERS
from convlora.data.settings import DataSettings
from tests.data.formats import FORMATS
from tests.data.known import IDS, IMAGES, NAMES
from tests.data.scientific.formats import SLICED, VOLUME


def grey(image):
    return np.repeat(image[..., None], 3, axis=2)


@pytest.mark.parametrize("name", FORMATS)
def test_classes_and_pixels_of_every_format_are_those_that_were_written(tmp_path, name):
    warnings.simplefilter("ignore")
    write = FORMATS[name]
    settings = DataSettings(**write(tmp_path), val_fraction=0, test_fraction=0)
    checked = check_data(settings)
    samples = checked.splits["train"]
    assert len(samples) == len(IDS)
    binary = getattr(write, "binary", False)
    assert checked.labels.classes == (("background", "foreground") if binary else NAMES)
    for i, sample in enumerate(samples):
        ids = checked.labels.decode(read_mask(sample.mask), sample.mask)
        assert np.array_equal(ids, IDS[i] > 0 if binary else IDS[i]), sample.name
        if name.startswith(SLICED):
            window = (VOLUME[i] + 100.0) / 1020 * 255
            expected = grey(IMAGES[i][..., 0] if name == "tiff pages" else np.rint(window).astype(np.uint8))
        else:
            expected = IMAGES[i]
        assert np.array_equal(read_image(sample.image), expected), sample.name


def test_every_reader_is_in_the_matrix():
    covered = {name.partition(",")[0].partition(" ")[0] for name in FORMATS}
    assert set(READERS) - {"auto", "cityscapes"} <= covered  # whose classes are not free; its own tests cover it


@pytest.mark.parametrize("name", FORMATS)
def test_one_recogniser_at_most_answers(tmp_path, name):
    warnings.simplefilter("ignore")
    settings = DataSettings(**FORMATS[name](tmp_path))
    masks = None if settings.masks is None else tmp_path / settings.masks
    answers = {
        reader: finding._reader(reader).recognise(tmp_path / settings.images, masks)
        for reader in READERS
        if reader != "auto"
    }
    assert sum(answer is not None for answer in answers.values()) <= 1, answers
    assert find_data(settings).samples
