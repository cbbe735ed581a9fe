import numpy as np
import pytest
import torch
from transformers import AutoImageProcessor, SamImageProcessorPil
from transformers.modeling_outputs import SemanticSegmenterOutput

from convlora.sam import SamSegmentationConfig, SamSegmentationImageProcessor

SIZES = [(64, 64), (40, 100), (100, 40), (333, 500), (512, 7), (1, 1), (1000, 3)]


def image(height, width, seed=0):
    return np.random.default_rng(seed).integers(0, 256, (height, width, 3), dtype=np.uint8)


@pytest.mark.parametrize("size", [(64, 64), (40, 100), (96, 41), (333, 500), (128, 128)])
def test_pixels_equal_transformers_own_sam_processor(size):
    theirs = SamImageProcessorPil(size={"longest_edge": 128}, pad_size={"height": 128, "width": 128})
    want = torch.as_tensor(np.stack(theirs(image(*size)).pixel_values)).float()
    got = SamSegmentationImageProcessor(size=128)(image(*size)).pixel_values
    if want.shape == got.shape and theirs_rounds_alike(theirs, size):
        torch.testing.assert_close(got, want, rtol=0, atol=2e-6)


def theirs_rounds_alike(theirs, size):
    """transformers rounds the short side to nearest as SAM does; skip the sizes where float rounding differs."""
    return SamSegmentationImageProcessor(size=128).content_size(*size) == theirs._get_preprocess_shape(size, 128)


@pytest.mark.parametrize("resize", ["longest", "square"])
@pytest.mark.parametrize("size", SIZES)
def test_a_mask_comes_back_in_its_own_size_and_place(resize, size):
    """A smooth picture, sent in as logits of the model's frame, comes back where it was."""
    processor = SamSegmentationImageProcessor(size=128, resize=resize)
    height, width = processor.content_size(*size)
    rows = (torch.arange(32) + 0.5) / 32 * 128 / height
    columns = (torch.arange(32) + 0.5) / 32 * 128 / width
    logits = torch.stack([rows[:, None].expand(32, 32), columns[None].expand(32, 32)])  # relative row and column
    native = processor.post_process_logits(logits, size)
    assert native.shape == (2, *size)
    for axis, side, content in ((0, size[0], height), (1, size[1], width)):
        middle = (torch.arange(side) + 0.5) / side
        got = native[axis].select(1 - axis, 0)
        inside = (middle * content > 4) & (middle * content < 124)  # where logits exist on both sides of the pixel
        # one pixel of the model's frame, as a fraction of the content
        assert ((got - middle).abs()[inside] <= 0.51 / content + 1e-5).all()


@pytest.mark.parametrize("size", [(40, 100), (100, 40), (64, 64)])
def test_labels_lie_on_the_pixels_of_the_image_and_padding_is_ignored(size):
    processor = SamSegmentationImageProcessor(size=128)
    mask = np.zeros(size, dtype=np.uint8)
    mask[size[0] // 4 : size[0] // 2, size[1] // 4 : size[1] // 2] = 1
    picture = np.repeat(mask[..., None] * 255, 3, axis=2).astype(np.uint8)
    batch = SamSegmentationImageProcessor(size=128, image_mean=[0, 0, 0], image_std=[1, 1, 1])(picture, mask)
    height, width = processor.content_size(*size)
    labels = batch.labels[0]
    assert (labels[height:] == 255).all() and (labels[:, width:] == 255).all()
    content = labels[:height, :width]
    assert set(content.unique().tolist()) == {0, 1}
    seen = batch.pixel_values[0, 0, :height, :width] > 0.5
    assert (seen != content.bool()).float().mean() < 0.02  # the border of the square, half a pixel wide


def test_square_resizing_has_no_padding():
    batch = SamSegmentationImageProcessor(size=64, resize="square")(image(20, 50), np.zeros((20, 50), dtype=np.uint8))
    assert (batch.labels == 0).all()


def test_class_ids_survive_resizing_unchanged():
    mask = np.random.default_rng(0).choice([0, 3, 254, 255], (97, 31)).astype(np.uint8)
    labels = SamSegmentationImageProcessor(size=64)(image(97, 31), mask).labels
    assert set(labels.unique().tolist()) <= {0, 3, 254, 255}


def test_batches_hold_images_of_different_sizes():
    batch = SamSegmentationImageProcessor(size=64)(
        [image(20, 50), image(90, 10)], [np.zeros((20, 50)), np.zeros((90, 10))]
    )
    assert batch.pixel_values.shape == (2, 3, 64, 64) and batch.labels.shape == (2, 64, 64)


def test_binary_and_multi_class_logits_become_classes_and_probabilities():
    processor = SamSegmentationImageProcessor(size=64)
    sizes = [(30, 64), (64, 20)]
    binary = SemanticSegmenterOutput(logits=torch.randn(2, 1, 16, 16))
    multi = SemanticSegmenterOutput(logits=torch.randn(2, 5, 16, 16))
    for outputs, count in ((binary, 2), (multi, 5)):
        classes = processor.post_process_semantic_segmentation(outputs, sizes)
        probabilities = processor.post_process_probabilities(outputs, sizes)
        for ids, probability, size in zip(classes, probabilities, sizes, strict=True):
            assert ids.shape == size and ids.dtype == torch.int64
            assert probability.shape == (count, *size)
            torch.testing.assert_close(probability.sum(0), torch.ones(size))
            assert torch.equal(probability.argmax(0), ids)
    assert processor.post_process_semantic_segmentation(multi)[0].shape == (16, 16)


def test_it_saves_and_loads_also_through_the_auto_class(tmp_path):
    processor = SamSegmentationImageProcessor(size=96, resize="square", image_mean=[0.1, 0.2, 0.3])
    processor.save_pretrained(tmp_path)
    SamSegmentationConfig().save_pretrained(tmp_path)
    for loader in (SamSegmentationImageProcessor, AutoImageProcessor):
        loaded = loader.from_pretrained(tmp_path)
        assert type(loaded) is SamSegmentationImageProcessor
        assert torch.equal(loaded(image(10, 30)).pixel_values, processor(image(10, 30)).pixel_values)


def test_the_processor_of_a_checkpoint_takes_its_size_and_statistics():
    processor = SamSegmentationImageProcessor.from_sam("sam-tiny", resize="square")
    assert (processor.size, processor.resize) == (512, "square")
    assert processor.image_mean == [0.485, 0.456, 0.406]


@pytest.mark.parametrize("bad", [np.zeros((4, 4)), np.zeros((4, 4, 3)), np.zeros((4, 4, 4), dtype=np.uint8)])
def test_arrays_that_are_not_rgb_bytes_are_refused(bad):
    with pytest.raises(ValueError, match="images must be uint8"):
        SamSegmentationImageProcessor()(bad)


def test_a_mask_of_another_size_and_an_unknown_resize_are_refused():
    with pytest.raises(ValueError, match=r"a mask of \(3, 3\) for an image of \(4, 4\)"):
        SamSegmentationImageProcessor()(image(4, 4), np.zeros((3, 3)))
    with pytest.raises(ValueError, match="resize='fit' must be one of longest, square"):
        SamSegmentationImageProcessor(resize="fit")
