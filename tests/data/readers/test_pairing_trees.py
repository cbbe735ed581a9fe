"""Pairs and what is reported add up to the files that are there, in random trees of folders."""

import re

import numpy as np
import pytest

from convlora.data.readers.finding import find_data
from convlora.data.settings import DataSettings
from convlora.errors import PairingError

TREES = 250  # of each kind: 500
_REPORTED = (
    "images? without a mask|masks? without an image|files? that shares? a name|"
    "images? (?:and masks )?that fits? several times|files? that fits? neither pattern"
)
_STEMS = ("a", "b", "c", "d 1", "é", "e\u0301", "x_mask", "a_mask", "A")
_SUFFIXES = (".png", ".jpg", ".PNG", ".bmp")


def random_tree(folder, rng, places, decorated):
    """Touch files of random names; return how many images there are."""
    files = set()
    whole = rng.random() < 0.3  # a tree in which all may pair up
    for place in places:
        (folder / place).mkdir(parents=True, exist_ok=True)
    for stem in rng.choice(_STEMS, rng.integers(1, 7), replace=False).tolist():
        for place in places:
            if whole or rng.random() < 0.75:
                suffix = ".png" if whole else str(rng.choice(_SUFFIXES))
                ending = str(rng.choice(["", "_mask"])) if decorated and not whole else ""
                files.add(folder / place / f"{stem}{ending}{suffix}")
    for file in files:
        file.touch()
    for name in (".hidden.png", "notes.txt"):
        (folder / places[0] / name).touch()
    return len(files)


def assert_adds_up(settings, count, seed):
    try:
        data = find_data(settings)
    except PairingError as error:
        text = str(error)
        pairs = re.match(r"(\d+) pairs? among ", text)
        if pairs is None:
            assert re.search(r"has no image files|holds no image files|no image", text), text
            return False
        held = sum(int(number) for number in re.findall(r"(\d+) (?:images|image files|masks)? ?in /", text))
        reported = sum(int(number) for number, _ in re.findall(rf"(\d+) ({_REPORTED}) \(", text))
        reported = reported or sum(int(number) for number, _ in re.findall(rf"(\d+) ({_REPORTED})", text))
        assert 2 * int(pairs[1]) + reported == held == count, (seed, text)
        return True
    assert 2 * len(data.samples) == count, (seed, [sample.name for sample in data.samples])
    return True


@pytest.mark.parametrize("kind", ["two folders", "pattern"])
def test_pairs_and_what_is_reported_are_all_the_files(tmp_path, kind):
    told = 0
    for seed in range(TREES):
        rng, root = np.random.default_rng(seed), tmp_path / str(seed)
        if kind == "two folders":
            count = random_tree(root, rng, ["images", "masks"], decorated=False)
            settings = DataSettings(images=str(root / "images"), masks=str(root / "masks"))
        elif seed % 2:
            count = random_tree(root, rng, ["p1", "p2", "p1/deep"], decorated=True)
            settings = DataSettings(images=str(root), mask_pattern="{stem}_mask.png")
        else:
            count = random_tree(root, rng, ["x/images", "x/masks", "y/images", "y/masks"], decorated=False)
            settings = DataSettings(
                images=str(root), mask_pattern="{parent}/../masks/{stem}", image_pattern="{stem}.png"
            )
        told += assert_adds_up(settings, count, seed)
    assert told > 0.8 * TREES
