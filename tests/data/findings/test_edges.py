import numpy as np
import pytest

from convlora.data.findings.edges import REACH, edge_fit

ROWS, COLUMNS = np.mgrid[:120, :140]


def discs(down=0, right=0):
    centres = ((35, 40), (80, 90))
    return np.any([(ROWS - y - down) ** 2 + (COLUMNS - x - right) ** 2 < 15**2 for y, x in centres], 0)


@pytest.mark.parametrize("shift", [(0, 0), (5, 0), (-3, 7), (10, -12)])
def test_the_best_shift_takes_the_mask_back_to_the_image(shift):
    fit = edge_fit(100 * discs().astype(np.float32), discs(*shift).astype(np.int32))
    # outlines are two pixels wide and edges are smoothed: the top is flat by about one pixel
    assert np.abs(np.add(fit.best, shift)).max() <= 1
    assert fit.gains.max() > 2 and fit.gains.shape == (2 * REACH + 1, 2 * REACH + 1)


def test_gains_equal_a_sum_by_hand_and_shifts_do_not_wrap_around():
    from scipy import ndimage

    grey, mask = np.random.default_rng(0).normal(0, 30, (50, 60)).astype(np.float32), np.zeros((50, 60), dtype=int)
    mask[2:30, 40:59] = 1
    outline = np.zeros((50, 60), dtype=bool)
    for row in range(50):
        for column in range(60):
            around = (
                mask[max(0, row - 1) : row + 2, column].tolist() + mask[row, max(0, column - 1) : column + 2].tolist()
            )
            outline[row, column] = len(set(around)) > 1
    smooth = ndimage.gaussian_filter(grey, 1.0, truncate=3.0)
    edges = np.hypot(ndimage.sobel(smooth, 0), ndimage.sobel(smooth, 1))
    edges = (edges - edges.mean()) / edges.std()
    gains = edge_fit(grey, mask).gains
    for down, right in ((0, 0), (-5, 9), (16, -16), (7, 16)):
        places = [(r + down, c + right) for r, c in np.argwhere(outline)]
        want = sum(edges[r, c] for r, c in places if 0 <= r < 50 and 0 <= c < 60) / outline.sum()
        assert gains[REACH + down, REACH + right] == pytest.approx(want, abs=1e-4)


def test_without_outlines_or_edges_there_is_no_answer():
    grey, mask = 100 * discs().astype(np.float32), discs().astype(int)
    assert edge_fit(grey, np.zeros_like(mask)) is None
    assert edge_fit(np.full_like(grey, 7), mask) is None
    assert edge_fit(grey[:10, :10], mask[:10, :10]) is None
