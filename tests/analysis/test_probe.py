import numpy as np
import pytest
import torch

from convlora.analysis.probe import RidgeClassifier, probe_scores, token_classes
from convlora.data.dataset import SegmentationDataset
from convlora.data.settings import ImageLimits
from convlora.inference.predictor import Predictor


def test_the_class_of_a_token_is_the_most_frequent_of_its_pixels():
    labels = torch.tensor(
        [
            [0, 0, 1, 1, 255, 255],
            [0, 2, 1, 0, 255, 1],
            [2, 2, 255, 255, 0, 1],
            [2, 2, 1, 1, 0, 1],
        ]
    )[None]
    # the ties are 1 against ignored, and 0 against 1: the first wins
    assert token_classes(labels, (2, 3), 3).tolist() == [[[0, 1, 3], [2, 1, 0]]]


@pytest.mark.parametrize("grid", [(4, 4), (2, 8)])
def test_token_classes_equal_a_count_in_a_loop(grid):
    labels = torch.randint(0, 5, (2, 16, 16), generator=torch.Generator().manual_seed(0))
    labels[labels == 4] = 255
    got = token_classes(labels, grid, 4)
    for b in range(2):
        for i, rows in enumerate(labels[b].chunk(grid[0])):
            for j, patch in enumerate(rows.chunk(grid[1], dim=1)):
                counts = [(patch == k).sum().item() for k in (0, 1, 2, 3, 255)]
                assert got[b, i, j] == counts.index(max(counts))


def samples(n=300, seed=0):
    rng = torch.Generator().manual_seed(seed)
    centres = 3 * torch.randn(3, 5, generator=torch.Generator().manual_seed(9))
    classes = torch.randint(0, 3, (n,), generator=rng)
    return 50 + centres[classes] * torch.tensor([1, 10, 0.1, 1, 1]) + torch.randn(n, 5, generator=rng), classes


def test_the_weights_solve_the_ridge_problem_of_standardised_features():
    features, classes = samples()
    probe = RidgeClassifier(3, penalty=0.05)
    for part in (slice(0, 7), slice(7, 200), slice(200, 300)):
        probe.add(features[part], classes[part])
    probe.fit()
    x = features.double().numpy()
    z = (x - x.mean(0)) / x.std(0)
    y = np.eye(3)[classes.numpy()]
    # the penalty as additional rows of an ordinary least-squares problem; the intercept is free
    rows = np.vstack(
        [np.hstack([z, np.ones((300, 1))]), np.hstack([np.sqrt(0.05 * 300) * np.eye(5), np.zeros((5, 1))])]
    )
    solution = np.linalg.lstsq(rows, np.vstack([y, np.zeros((5, 3))]), rcond=None)[0]
    np.testing.assert_allclose(x @ probe.weight.numpy() + probe.bias.numpy(), z @ solution[:5] + solution[5], atol=1e-8)


def test_classes_that_a_linear_map_tells_apart_are_told_apart():
    probe = RidgeClassifier(3)
    probe.add(*samples())
    probe.fit()
    features, classes = samples(seed=1)
    assert (probe.predict(features) == classes).float().mean() > 0.95


def test_a_constant_feature_and_a_class_without_samples_do_no_harm():
    features, classes = samples()
    features[:, 2] = 7.1
    probe = RidgeClassifier(4)
    probe.add(features, classes)
    probe.fit()
    assert probe.weight.isfinite().all() and (probe.weight[2] == 0).all()
    assert (probe.predict(features) == classes).float().mean() > 0.9


def test_fitting_to_nothing_is_refused():
    with pytest.raises(ValueError, match="no sample"):
        RidgeClassifier(2).fit()


@pytest.fixture(scope="module")
def data(finished):
    split = finished.read_split()
    return [SegmentationDataset(split.samples[part], split.labels, limits=ImageLimits()) for part in ("train", "test")]


def test_depths_are_probed_and_the_batch_size_does_not_matter(finished, data):
    predictor = Predictor.from_folder(finished.path, device="cpu", precision="fp32")
    done = []
    one = probe_scores(predictor, *data, [0, 1], progress=done.append)
    three = probe_scores(predictor, *data, [0, 1], batch_size=3)
    assert list(one) == ["block 0", "block 1", "embedding"] and done == list(range(1, 8))
    for name, score in one.items():
        assert score.accuracy == pytest.approx(three[name].accuracy, abs=0.02)
        assert score.accuracy > 0.8 and score.miou > 0.5  # bright discs on a dark ground


def test_images_without_a_class_give_no_scores(finished, data, monkeypatch):
    predictor = Predictor.from_folder(finished.path, device="cpu", precision="fp32")
    real = SegmentationDataset.__getitem__

    def ignored(self, key):
        item = real(self, key)
        return {**item, "mask": np.full_like(item["mask"], 255)}

    monkeypatch.setattr(SegmentationDataset, "__getitem__", ignored)
    assert probe_scores(predictor, *data, [0]) == {}
