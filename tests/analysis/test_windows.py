import numpy as np
import pytest

from convlora.analysis.encoding import content_tokens
from convlora.analysis.windows import visible, window_edges
from convlora.evaluation.routing import LayerChoice
from convlora.sam.processing import SamSegmentationImageProcessor


@pytest.mark.parametrize("resize", ["longest", "square"])
@pytest.mark.parametrize("size", [(64, 64), (100, 140), (231, 70), (20, 64)])
def test_pixels_of_a_window_reach_the_inputs_window_and_no_other(size, resize):
    processor = SamSegmentationImageProcessor(size=64, resize=resize)
    rows, columns = window_edges(processor, size, 24)
    assert rows[0] == columns[0] == 0 and rows[-1] == size[0] and columns[-1] == size[1]
    black = np.zeros((*size, 3), dtype=np.uint8)
    ground = processor(black).pixel_values
    reach = 2 * max(size) / 64  # resampling mixes neighbours
    for i in range(len(rows) - 1):
        for j in range(len(columns) - 1):
            image = black.copy()
            top, bottom = rows[i] + reach, rows[i + 1] - reach
            left, right = columns[j] + reach, columns[j + 1] - reach
            image[int(np.ceil(top)) : int(bottom), int(np.ceil(left)) : int(right)] = 255
            if not image.any():
                continue
            changed = np.argwhere((processor(image).pixel_values != ground).any(1)[0].numpy())
            assert (changed // 24 == [i, j]).all()


def test_windows_of_padding_alone_are_left_out():
    processor = SamSegmentationImageProcessor(size=64)
    choice = LayerChoice(0, "attn.qkv", np.arange(9).reshape(3, 3))
    edges = window_edges(processor, (20, 64), 24)
    assert visible(choice, edges).tolist() == [[0, 1, 2]]
    assert visible(choice, window_edges(processor, (64, 64), 24)).tolist() == choice.scales.tolist()


def test_a_single_window_is_the_whole_image():
    rows, columns = window_edges(SamSegmentationImageProcessor(size=64), (30, 50), 64)
    assert rows.tolist() == [0, 30] and columns.tolist() == [0, 50]


@pytest.mark.parametrize("size", [(64, 64), (50, 64), (41, 64), (100, 33), (1, 64)])
def test_content_tokens_are_those_that_a_white_image_changes(size):
    processor = SamSegmentationImageProcessor(size=64)
    white = processor(np.full((*size, 3), 255, dtype=np.uint8)).pixel_values
    changed = (white != 0).any(1).view(1, 8, 8, 8, 8).any(4).any(2)
    assert (content_tokens(processor, [size], (8, 8)) == changed).all()
