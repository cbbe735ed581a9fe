import math

import numpy as np
import pytest
import torch
from PIL import Image
from transformers.models.sam.modeling_sam import SamVisionAttention

from convlora.adapter.windows import cut_windows
from convlora.analysis import attention
from convlora.analysis.attention import attention_distances, distance_sums
from convlora.data.dataset import SegmentationDataset
from convlora.data.labels.format import LabelFormat
from convlora.data.samples import Sample
from convlora.data.settings import ImageLimits
from convlora.inference.predictor import Predictor
from tests.sam.models import small_config

SIZES = [(40, 64), (64, 64), (64, 27)]  # (height, width); the input is 64 wide, 8 pixels a token


@pytest.fixture(scope="module")
def dataset(tmp_path_factory):
    folder = tmp_path_factory.mktemp("images")
    samples = []
    for i, size in enumerate(SIZES):
        pixels = np.random.default_rng(i).integers(0, 255, (*size, 3), dtype=np.uint8)
        Image.fromarray(pixels).save(folder / f"{i}.png")
        Image.fromarray(np.zeros(size, dtype=np.uint8)).save(folder / f"{i}_mask.png")
        samples.append(Sample(str(i), folder / f"{i}.png", folder / f"{i}_mask.png", "test"))
    return SegmentationDataset(samples, LabelFormat(("a", "b"), "ids", 255), limits=ImageLimits())


def brute_force(weights, places, valid):
    """Token by token, from the definition; weights (heads, n, n), places (n, 2) in pixels."""
    sums, count = np.zeros(len(weights)), 0
    for q in np.flatnonzero(valid):
        count += 1
        for head in range(len(weights)):
            keys = np.flatnonzero(valid)
            total = sum(weights[head, q, k] for k in keys)
            sums[head] += sum(weights[head, q, k] / total * math.dist(places[q], places[k]) for k in keys)
    return sums, count


def eager_distances(predictor, dataset):
    """Distances from the weights that transformers' eager attention returns."""
    encoder = predictor.model.get_base_model().sam.vision_encoder
    kinds = {layer.attn: type(layer.attn) for layer in encoder.layers}
    seen, hooks = [], []
    for attention_layer in kinds:
        attention_layer.__class__ = SamVisionAttention
        hooks.append(attention_layer.register_forward_hook(lambda module, inputs, output: seen.append(output[1])))
    found = dict.fromkeys(range(len(kinds)), (0, 0))
    for i in range(len(dataset)):
        height, width = predictor.processor.content_size(*dataset[i]["image"].shape[:2])
        seen.clear()
        predictor.logits([dataset[i]["image"]])
        for number, (layer, weights) in enumerate(zip(encoder.layers, seen, strict=True)):
            side = layer.window_size or 8
            per_row = -(-8 // side)
            weights = weights.view(-1, 2, side * side, side * side).double().numpy()  # windows, heads
            for window in range(len(weights)):
                top, left = window // per_row * side, window % per_row * side
                tokens = [(top + r, left + c) for r in range(side) for c in range(side)]
                valid = np.array([r * 8 < height and c * 8 < width and r < 8 and c < 8 for r, c in tokens])
                sums, count = brute_force(weights[window], 8 * np.array(tokens), valid)
                found[number] = (found[number][0] + sums, found[number][1] + count)
    for hook, (attention_layer, kind) in zip(hooks, kinds.items(), strict=True):
        hook.remove()
        attention_layer.__class__ = kind
    return {number: sums / count for number, (sums, count) in found.items()}


@pytest.mark.parametrize("batch_size", [1, 2])
def test_distances_are_those_of_the_eager_weights_before_and_after(finished, dataset, batch_size):
    predictor = Predictor.from_folder(finished.path, device="cpu", precision="fp32")
    with torch.no_grad():
        for name, parameter in predictor.model.named_parameters():
            if "lora_B" in name:
                torch.nn.init.normal_(parameter, std=0.3)
    after = attention_distances(predictor, dataset, batch_size=batch_size)
    with predictor.model.disable_adapter():
        before = attention_distances(predictor, dataset, batch_size=batch_size)
        want_before = eager_distances(predictor, dataset)
    for got, want in ((after, eager_distances(predictor, dataset)), (before, want_before)):
        assert list(got) == [0, 1]
        for number in want:
            # a softmax of some 60 float32 scores and sums of some 150 queries: 1e-6 relative each
            np.testing.assert_allclose(got[number], want[number], rtol=1e-4)
    assert all(np.abs(before[number] / after[number] - 1).max() > 1e-3 for number in before)


def layer_and_qkv(window=3, side=3, grids=2):
    torch.manual_seed(0)
    layer = SamVisionAttention(small_config().vision_config, window)
    with torch.no_grad():
        for parameter in layer.parameters():
            torch.nn.init.normal_(parameter, std=0.3)
        return layer, layer.qkv(torch.randn(grids, side, side, 24))


@torch.no_grad()
def test_the_result_does_not_depend_on_how_many_queries_are_taken_at_a_time(monkeypatch):
    layer, qkv = layer_and_qkv()
    valid = torch.ones(2, 3, 3, dtype=torch.bool)
    valid[1, 1:] = False
    want = distance_sums(layer, qkv, valid)
    for scores in (1, 2 * 2 * 9 * 4, 2 * 2 * 9 * 7):
        monkeypatch.setattr(attention, "_SCORES", scores)
        got = distance_sums(layer, qkv, valid)
        torch.testing.assert_close(got[0], want[0])
        assert got[1] == want[1] == 9 + 3


@torch.no_grad()
def test_memory_does_not_grow_with_the_square_of_the_tokens(monkeypatch):
    layer, qkv = layer_and_qkv(window=0, side=24, grids=1)
    monkeypatch.setattr(attention, "_SCORES", 2 * 576 * 20)
    sizes = []

    class Record(torch.utils._python_dispatch.TorchDispatchMode):
        def __torch_dispatch__(self, func, types, args=(), kwargs=None):
            out = func(*args, **(kwargs or {}))
            sizes.extend(t.numel() for t in (out if isinstance(out, tuple | list) else [out]) if torch.is_tensor(t))
            return out

    with Record():
        distance_sums(layer, qkv, torch.ones(1, 24, 24, dtype=torch.bool))
    assert max(sizes) <= max(2 * 576 * 20, qkv.numel())


@torch.no_grad()
def test_equal_attention_gives_the_mean_distance_of_all_pairs_and_a_single_token_none():
    layer, qkv = layer_and_qkv()
    for parameter in (layer.rel_pos_h, layer.rel_pos_w):
        parameter.zero_()
    sums, count = distance_sums(layer, torch.zeros_like(qkv), torch.ones(2, 3, 3, dtype=torch.bool))
    pairs = [math.dist((a, b), (c, d)) for a in range(3) for b in range(3) for c in range(3) for d in range(3)]
    np.testing.assert_allclose((sums / count).numpy(), np.mean(pairs), rtol=1e-5)
    alone = torch.zeros(2, 3, 3, dtype=torch.bool)
    alone[1, 2, 0] = True
    sums, count = distance_sums(layer, qkv, alone)
    assert sums.tolist() == [0, 0] and count == 1


def test_windows_are_cut_as_the_layer_cuts_them(finished):
    encoder = Predictor.from_folder(finished.path).model.get_base_model().sam.vision_encoder
    tokens = torch.randn(2, 8, 8, 3)
    want, _ = encoder.layers[0].window_partition(tokens, 3)
    assert torch.equal(cut_windows(tokens, (3, 3)), want)
