import numpy as np
import pytest
import torch

from convlora.sam import SamForSemanticSegmentation, SamSegmentationImageProcessor
from convlora.sam.segmenting import segment
from tests.sam.models import small_sam

SIZES = [(64, 64), (37, 91), (1, 1), (1, 500), (500, 1), (3, 200)]


@pytest.fixture(scope="module")
def model():
    return SamForSemanticSegmentation.from_sam(small_sam()).eval()


def images(sizes):
    rng = np.random.default_rng(0)
    return [rng.integers(0, 255, (*size, 3), dtype=np.uint8) for size in sizes]


@pytest.mark.parametrize("resize", ["longest", "square"])
def test_logits_have_each_images_own_size(model, resize):
    processor = SamSegmentationImageProcessor(size=64, resize=resize)
    got = list(segment(model, processor, images(SIZES)))
    assert [tuple(logits.shape) for logits in got] == [(1, *size) for size in SIZES]
    assert all(logits.dtype == torch.float32 and logits.isfinite().all() for logits in got)


def test_a_batch_gives_the_answers_of_single_images(model):
    processor = SamSegmentationImageProcessor(size=64)
    given = images(SIZES)
    together = list(segment(model, processor, given))
    for image, logits in zip(given, together, strict=True):
        (alone,) = segment(model, processor, [image])
        # float32 sums of <= 200 products in another order: 200 * 2**-24 * |logit| < 1e-4 of the largest
        torch.testing.assert_close(logits, alone, rtol=0, atol=1e-4 * float(alone.abs().max()) + 1e-5)


def test_nothing_keeps_a_graph(model):
    (logits,) = segment(model, SamSegmentationImageProcessor(size=64), images([(8, 8)]))
    assert not logits.requires_grad and logits.is_inference()


def test_a_wrong_kind_of_image_is_refused(model):
    processor = SamSegmentationImageProcessor(size=64)
    with pytest.raises(ValueError, match=r"must be uint8 \(H, W, 3\)"):
        list(segment(model, processor, [np.zeros((4, 4, 3), dtype=np.float32)]))
    with pytest.raises(ValueError, match=r"must be uint8 \(H, W, 3\)"):
        list(segment(model, processor, [np.zeros((4, 4), dtype=np.uint8)]))
