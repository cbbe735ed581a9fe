import base64
import io
import re

import numpy as np
import pytest
from PIL import Image

from convlora.checking.check import check
from convlora.checking.pictures import Pictures, shown_for
from convlora.checking.settings import CheckSettings
from convlora.data.augmentation.settings import AugmentationSettings
from tests.data.files import save


@pytest.fixture(scope="module")
def checked(tmp_path_factory):
    """Five grey images of 400 × 200 with squares of 4, 8, 12, 16 and 20 pixels."""
    folder = tmp_path_factory.mktemp("squares")
    for i in range(1, 6):
        mask = np.zeros((200, 400), dtype=np.uint8)
        mask[100 : 100 + 4 * i, 300 : 300 + 4 * i] = 1
        save(folder / "images" / f"s{i}.png", np.full((200, 400), 90, dtype=np.uint8) + 40 * mask)
        save(folder / "masks" / f"s{i}.png", mask)
    return check(CheckSettings(images=str(folder / "images"), masks=str(folder / "masks")))


@pytest.fixture(scope="module")
def pictures(checked):
    return Pictures([s for own in checked.data.splits.values() for s in own], checked.data.labels, checked.settings)


def pixels(picture):
    data = re.fullmatch(r"data:image/\w+;base64,(.*)", picture.url).group(1)
    return np.asarray(Image.open(io.BytesIO(base64.b64decode(data))).convert("RGB")).astype(int)


def coloured(picture):
    return np.ptp(pixels(picture), axis=-1) > 20


def test_a_whole_image_is_shown_with_the_mask_in_its_place(pictures):
    marked = coloured(pictures.whole("s5", "one"))
    assert marked.shape == (128, 256)
    # 400 pixels are shown as 256: the square of 300..320, 100..120 lies at 192..204.8, 64..76.8
    rows, columns = np.nonzero(marked)
    assert abs(columns.min() - 192) <= 1 and abs(columns.max() - 204) <= 1
    assert abs(rows.min() - 64) <= 1 and abs(rows.max() - 76) <= 1


def test_what_is_small_is_cut_out_and_in_the_middle(pictures):
    marked = coloured(pictures.around("s5", 1, "one"))
    rows, columns = np.nonzero(marked)
    assert marked.shape == (256, 256)
    assert abs(rows.mean() - 128) < 8 and abs(columns.mean() - 128) < 8 and 0.04 < marked.mean() < 0.12
    assert pictures.around("s5", 1, "one").caption == "one, a part"


def test_views_start_with_the_image_itself_and_show_outlines_only(pictures):
    views = pictures.views("s5", AugmentationSettings(preset="none"))
    assert len(views) == 7 and len({view.url for view in views}) == 1
    assert 0 < coloured(views[0]).sum() < coloured(pictures.whole("s5", "")).sum()
    assert len({view.url for view in pictures.views("s5", AugmentationSettings(preset="aerial"))}) == 7


def test_examples_go_from_the_least_to_the_most(checked):
    assert shown_for(checked.survey, 1) == ["s1", "s2", "s4", "s5"]
    assert shown_for(checked.survey, 1, count=9) == ["s1", "s2", "s3", "s4", "s5"]
    assert shown_for(checked.survey, 2) == []
