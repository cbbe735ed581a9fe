from types import SimpleNamespace

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from monai.data.utils import dense_patch_slices
from PIL import Image
from torch import nn

from convlora.errors import SettingsError
from convlora.sam import SamForSemanticSegmentation, SamSegmentationImageProcessor, tiling
from convlora.sam.segmenting import segment, segment_bands
from convlora.sam.tiling import slide, slide_bands, tile_starts
from tests.sam.models import small_sam

CPU = torch.device("cpu")
SIZES = [(100, 130), (64, 200), (40, 200), (200, 40), (65, 65), (333, 64)]


class Convolution(nn.Module):
    """Logits at the input's size: colours, averaged over all pixels at most `radius` away."""

    def __init__(self, radius=0, classes=3):
        super().__init__()
        self.layer = nn.Conv2d(3, classes, 2 * radius + 1, padding=radius)
        weights = torch.randn(classes, 3, 1, 1, generator=torch.Generator().manual_seed(0))
        with torch.no_grad():
            self.layer.weight.copy_(weights / (2 * radius + 1) ** 2)
            self.layer.bias.zero_()

    def forward(self, pixel_values):
        return SimpleNamespace(logits=self.layer(pixel_values))


def noise(size, seed=0):
    return np.random.default_rng(seed).integers(0, 255, (*size, 3), dtype=np.uint8)


def smooth(size, seed=0):
    """An image of patches of about 30 pixels, as things have them."""
    picture = Image.fromarray(noise((size[0] // 30, size[1] // 30), seed))
    return np.array(picture.resize(size[::-1], Image.Resampling.BICUBIC))


def whole(model, image, processor):
    """The answer to an image that is not cut and not resized."""
    mean, std = (torch.tensor(v).view(3, 1, 1) * 255 for v in (processor.image_mean, processor.image_std))
    with torch.inference_mode():
        pixels = (torch.from_numpy(image).permute(2, 0, 1).float() - mean) / std
        return model(pixels[None]).logits[0]


def processor_of(tile, **options):
    return SamSegmentationImageProcessor(**{"size": tile, "tile": tile, **options})


@given(st.integers(1, 80), st.integers(0, 300), st.sampled_from([0.0, 0.1, 0.25, 0.333, 0.5, 0.9]))
@settings(max_examples=300, deadline=None)
def test_tiles_start_where_monai_has_them_and_cover_all(tile, more, overlap):
    length = tile + more
    starts = tile_starts(length, tile, overlap)
    interval = tile if tile == length else max(1, int(tile * (1 - overlap)))  # as monai's _get_scan_interval
    assert starts == sorted({piece[0].start for piece in dense_patch_slices((length,), (tile,), (interval,))})
    covered = np.zeros(length, dtype=bool)
    for start in starts:
        covered[start : start + tile] = True
    assert covered.all() and starts[0] == 0 and starts[-1] + tile == length


@pytest.mark.parametrize("overlap", [0.0, 0.25, 0.5, 0.77])
@pytest.mark.parametrize("size", SIZES)
def test_a_model_of_single_pixels_gives_the_answer_of_the_whole_image(size, overlap):
    model, processor, image = Convolution(), processor_of(64, overlap=overlap), noise(size)
    (got,) = segment(model, processor, [image])
    want = whole(model, image, processor)
    # a weighted mean of equal numbers, and a product in another order: some roundings of float32
    torch.testing.assert_close(got, want, rtol=1e-5, atol=1e-5)
    assert torch.equal(got.argmax(0), want.argmax(0))


@pytest.mark.parametrize(("radius", "overlap"), [(2, 0.25), (2, 0.5), (5, 0.5)])
def test_a_model_of_a_small_field_differs_near_the_seams_alone(radius, overlap):
    model, processor, image = Convolution(radius), processor_of(128, overlap=overlap), smooth((300, 410))
    (got,) = segment(model, processor, [image])
    want = whole(model, image, processor)
    # a tile's answer is wrong where the field of a pixel reaches over an edge of the tile that is none of the image's
    near = torch.zeros(300, 410, dtype=torch.bool)
    for top in tile_starts(300, 128, overlap):
        for edge in (top, top + 128):
            near[max(0, edge - radius) : edge + radius] |= 0 < edge < 300
    for left in tile_starts(410, 128, overlap):
        for edge in (left, left + 128):
            near[:, max(0, edge - radius) : edge + radius] |= 0 < edge < 410
    assert 0.05 < near.float().mean() < 0.6
    torch.testing.assert_close(got[:, ~near], want[:, ~near], rtol=1e-4, atol=1e-4)
    equal = got.argmax(0) == want.argmax(0)
    assert equal[~near].all() and not torch.allclose(got, want, atol=1e-4)
    # Near them the wrong answer weighs 1/1000 to 1/300 where the right one of the next tile weighs 1 with half of a
    # tile in common, and exp(-(1 - 2 * 0.25)**2 / (8 * 0.125**2)) = 0.14 with a quarter: an error of up to some percent
    # in the logits, which turns pixels at the borders of classes alone.
    assert equal.float().mean() >= 0.999


def test_a_model_of_one_answer_shows_no_seams():
    model, processor = Convolution(classes=1), processor_of(64)
    with torch.no_grad():
        model.layer.weight.zero_()
        model.layer.bias.fill_(0.731)
    (got,) = segment(model, processor, [noise((150, 170))])
    assert float((got - 0.731).abs().max()) < 1e-6


def test_no_step_in_the_weights_is_seen_between_tiles_that_disagree():
    shares = []
    for top in (0, 48):  # the first tile says 0, the others 1

        def predict(boxes, top=top):
            return torch.stack([torch.full((1, 64, 64), float(rows.start > 0)) for rows, _ in boxes])

        shares.append(slide(predict, (112, 64), 64, 0.25, batch_size=1, device=CPU)[0, :, 32])
    steps = shares[0].diff()
    # 0 to 1 over the 16 shared rows: no step is larger than a third, and none goes back
    assert shares[0][0] == 0 and shares[0][-1] == 1 and steps.min() >= 0 and float(steps.max()) < 0.34


@pytest.mark.parametrize("overlap", [0.0, 0.25, 0.5, 0.77])
@pytest.mark.parametrize("size", SIZES)
def test_bands_are_the_whole_bit_for_bit_from_whichever_one_they_begin(size, overlap):
    def predict(boxes):
        answers = []
        for rows, columns in boxes:
            generator = torch.Generator().manual_seed(int(rows.start * 10_007 + columns.start))
            shape = (3, int(rows.stop - rows.start), int(columns.stop - columns.start))
            answers.append(torch.randn(shape, generator=generator))
        return torch.stack(answers)

    want = slide(predict, size, 64, overlap, batch_size=2, device=CPU)
    tops = tile_starts(size[0], min(64, size[0]), overlap)
    for first, top in enumerate(tops):
        bands = [
            (at, logits.clone()) for at, logits in slide_bands(predict, size, 64, overlap, batch_size=3, first=first)
        ]
        assert [at for at, _ in bands] == tops[first:]
        assert torch.equal(torch.cat([logits for _, logits in bands], dim=1), want[:, top:])


@pytest.mark.parametrize("tile", [40, 64, 90])
def test_bands_of_a_sam_are_its_answer_in_memory(tile):
    model = SamForSemanticSegmentation.from_sam(small_sam()).eval()
    processor, image = SamSegmentationImageProcessor(size=64, tile=tile), noise((150, 201))
    (want,) = segment(model, processor, [image])
    read = lambda boxes: [image[box] for box in boxes]  # noqa: E731
    bands = [logits.clone() for _, logits in segment_bands(model, processor, read, (150, 201))]
    assert torch.equal(torch.cat(bands, dim=1), want) and want.shape == (1, 150, 201)


def test_images_up_to_a_tile_are_shown_whole_at_the_scale_of_tiles():
    seen = []

    class Watched(Convolution):
        def forward(self, pixel_values):
            seen.append(pixel_values)
            return super().forward(pixel_values)

    for resize in ("longest", "square"):
        seen.clear()
        processor = SamSegmentationImageProcessor(size=64, resize=resize, tile=128)
        list(segment(Watched(), processor, [noise((60, 128)), noise((30, 20))]))
        ((wide, small),) = seen  # one batch
        assert wide[:, :30].abs().min(0).values.max() > 0 and not wide[:, 30:].any()  # half as large, then padding
        assert not small[:, 15:].any() and not small[:, :, 10:].any() and small[:, :15, :10].any()


def test_as_many_tiles_as_images_are_segmented_at_a_time():
    sizes = []

    class Watched(Convolution):
        def forward(self, pixel_values):
            sizes.append(len(pixel_values))
            return super().forward(pixel_values)

    images = [noise((64, 150)), noise((20, 20)), noise((64, 64))]
    got = list(segment(Watched(), processor_of(64), images))
    assert [tuple(logits.shape[1:]) for logits in got] == [image.shape[:2] for image in images]
    assert sizes == [3, 1, 1]


def test_without_monai_only_images_that_are_cut_are_refused(monkeypatch):
    monkeypatch.setitem(__import__("sys").modules, "monai.inferers", None)
    assert len(list(segment(Convolution(), processor_of(64), [noise((64, 64))]))) == 1
    with pytest.raises(SettingsError, match=r"needs monai, which is not installed.*convlora\[tiles\]"):
        list(segment(Convolution(), processor_of(64), [noise((64, 65))]))


def test_what_is_in_memory_does_not_grow_with_the_height(monkeypatch):
    held = []
    zeros = torch.zeros
    monkeypatch.setattr(tiling.torch, "zeros", lambda *size: held.append(int(np.prod(size))) or zeros(*size))
    for height in (100, 1000):
        held.clear()
        predict = lambda boxes: torch.ones(len(boxes), 1, 32, 32)  # noqa: E731
        assert (
            sum(logits.shape[1] for _, logits in slide_bands(predict, (height, 64), 32, 0.25, batch_size=1)) == height
        )
        assert max(held) == 32 * 64
