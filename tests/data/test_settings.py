import subprocess
import sys

import pytest

from convlora.data.augmentation.settings import AugmentationSettings
from convlora.data.settings import DataSettings


def test_the_defaults_have_no_problems():
    assert DataSettings(images="x").problems() == [] and AugmentationSettings().problems() == []
    assert DataSettings(images="x", max_megapixels=1.5).limits.max_pixels == 1_500_000


@pytest.mark.parametrize(
    ("values", "problem"),
    [
        ({"val_fraction": 1.0}, "val_fraction=1.0 must be at least 0 and less than 1"),
        ({"test_fraction": float("nan")}, "test_fraction=nan must be"),
        ({"val_fraction": 0.5, "test_fraction": 0.5}, "val_fraction + test_fraction = 0.5 + 0.5 must be less than 1"),
        ({"train_fraction": 0.0}, "train_fraction=0.0 must be more than 0 and at most 1"),
        ({"train_fraction": float("nan")}, "train_fraction=nan must be"),
        ({"train_images": 0}, "train_images=0 must be at least 1"),
        ({"train_images": 5, "train_fraction": 0.1}, "train_images=5 and train_fraction=0.1 say the same in two ways"),
        ({"mask_format": "rgb"}, "mask_format='rgb' must be one of auto, ids, binary"),
        ({"ignore_index": 256}, "ignore_index=256 must be between 0 and 255"),
        ({"max_megapixels": 0.0}, "max_megapixels=0.0 must be finite and more than 0"),
        ({"max_megapixels": float("inf")}, "max_megapixels=inf must be"),
        ({"group": "(a"}, "group='(a' is not a regular expression: "),
        ({"group": "a"}, "group='a' has no group; put parentheses"),
    ],
)
def test_each_wrong_value_is_one_problem(values, problem):
    problems = DataSettings(images="x", **values).problems()
    assert len(problems) == 1 and problems[0].startswith(problem)


@pytest.mark.parametrize("name", ["rotate", "scale", "brightness", "contrast", "saturation"])
@pytest.mark.parametrize("value", [-0.1, 181.0, float("nan")])
def test_augmentation_outside_of_its_range_is_a_problem(name, value):
    problems = AugmentationSettings(**{name: value}).problems()
    assert len(problems) == 1 and problems[0].startswith(f"augmentation.{name}={value} must be between 0 and ")


def test_settings_load_without_numpy():
    code = "import sys, convlora.data.settings; sys.exit('numpy' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
