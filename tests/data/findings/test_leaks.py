import re

import numpy as np
import pytest

from convlora.data.findings.checking import check_data
from convlora.data.findings.leaks import group_pattern
from convlora.data.settings import DataSettings
from tests.data.files import noise, save

SLICES = [f"patient{p:02d}_{s:03d}" for p in range(8) for s in range(5)]


@pytest.mark.parametrize(
    ("names", "pairs"),
    [
        (SLICES, [("patient00_000", "patient00_004"), ("patient03_001", "patient03_002")]),
        ([f"{place}-{year}" for place in "abcdef" for year in (2019, 2020, 2021)], [("a-2019", "a-2021")]),
        ([f"t{i:02d}_y{y}_x{y}" for i in range(6) for y in range(3)], [("t01_y0_x0", "t01_y2_x2")]),
    ],
)
def test_a_pattern_keeps_pairs_together_and_does_not_put_all_in_one_group(names, pairs):
    pattern = group_pattern(names, pairs)
    groups = {name: re.search(pattern, name).group(1) for name in names}
    assert all(groups[one] == groups[other] for one, other in pairs)
    assert len(set(groups.values())) >= 4


def test_there_is_no_pattern_for_names_that_tell_nothing():
    assert group_pattern(["ab", "cd", "ef", "gh"], [("ab", "gh")]) is None
    assert group_pattern(SLICES, [("patient00_000", "patient07_000")]) is None


def test_following_the_advice_on_slices_that_look_alike_ends_the_finding(tmp_path):
    for name in SLICES:
        volume = int(name[7:9])
        image = np.repeat(np.repeat(noise(16, 16, 1, seed=volume), 3, 0), 3, 1)
        image = (image * (1 - 0.02 * int(name[-3:]))).astype(np.uint8)
        save(tmp_path / "images" / f"{name}.png", image)
        save(tmp_path / "masks" / f"{name}.png", (image > 128).astype(np.uint8))
    folders = {"images": str(tmp_path / "images"), "masks": str(tmp_path / "masks")}
    (finding,) = (f for f in check_data(DataSettings(**folders)).findings if f.kind == "similar-across-splits")
    prefix = "Keep them in one split: --group '"
    assert finding.remedy.startswith(prefix)
    group = finding.remedy.removeprefix(prefix).removesuffix("'")
    kinds = {found.kind for found in check_data(DataSettings(**folders, group=group)).findings}
    assert "similar-across-splits" not in kinds
