"""What a user gets wrong about classes, overlap, groups and folds: one line that says what to do."""

import numpy as np
import pytest
import tifffile
from PIL import Image

from tests.cli.commands import assert_one_line, convlora
from tests.training.overlapping import write_overlapping
from tests.training.runs import write_data

NAMED = ["--classes", "background,leaf,stem"]


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    folder = tmp_path_factory.mktemp("clumsy")
    write_data(folder / "data", classes=3)
    write_overlapping(folder / "overlapping")
    (folder / "grey").mkdir()
    for path in (folder / "data/masks").iterdir():
        Image.fromarray(np.asarray(Image.open(path)) * np.uint8(64)).save(folder / "grey" / path.name)
    return folder


@pytest.mark.parametrize(
    ("arguments", "code", "pieces"),
    [
        (["--class_map", "leaf"], 2, ["must be pairs name=value, as in a=b,c=d"]),
        (["--class_map", "leaf=a,leaf=b"], 2, ["gives a name twice"]),
        (["--class_map", "leaf=a,1=b"], 2, ["class_map gives 'leaf' two new names; give it one"]),
        (["--class_map", "leef=a"], 2, ["'leef' is not among the classes background, leaf, stem", "mean 'leaf'"]),
        (["--class_map", "9=a"], 2, ["'9' is not among the classes background, leaf, stem"]),
        (["--class_map", "leaf="], 2, ["class_map: 'leaf' has no new name"]),
        (["--class_map", "leaf=Ignore"], 2, ["leaf=Ignore would make a class of that name; write leaf=ignore"]),
        (["--class_map", "leaf=background,stem=background"], 2, ["leaves no class beside background; keep at least"]),
        (["--class_colours", "leaf=red"], 2, ["leaf='red' must be '#' and six hexadecimal digits"]),
        (["--class_colours", "leef=#ff0000"], 2, ["'leef' is not among the classes", "mean 'leaf'"]),
        (["--class_colours", "leaf=#ff0000,stem=#FF0000"], 2, ["leaf and stem are both #FF0000; give each its own"]),
        (["--classes", "background,,stem"], 2, ["classes=background,,stem holds an empty name"]),
        (["--classes", "background,leaf,leaf"], 2, ["holds a name twice"]),
        (["--classes", "background,leaf"], 3, ["values 2 in .* List all classes with --classes"]),
        (["--task", "overlap"], 2, ["task='overlap' must be one of exclusive, multilabel"]),
        (["--folds", "10"], 3, ["folds=10 are more than there are images: 9. Give fewer folds"]),
        (["--folds", "4", "--group", r"i([0-2])?\d?"], 2, ["does not match 6 of 9 image names"]),
        (["--folds", "4", "--group", "(i)"], 3, ["folds=4 are more than there are groups of images: 1"]),
        (["--folds", "3", "--fold", "3"], 2, ["fold=3 must be between 0 and 2"]),
        (["--fold", "1"], 2, ["fold=1 is given without folds"]),
        (["--folds", "2", "--val_fraction", "0.5"], 2, ["val_fraction=0.5 and folds=2, .* leave nothing to train on"]),
        (["--group", "("], 2, [r"group='\(' is not a regular expression"]),
        (["--train_images_per_class", "2", "--train_images", "2"], 2, ["give one of them"]),
    ],
)
def test_wrong_settings(capsys, place, arguments, code, pieces):
    folders = ["--images", place / "data/images", "--masks", place / "data/masks"]
    outcome = convlora(capsys, "check", *folders, *([] if "--classes" in arguments else NAMED), *arguments)
    assert_one_line(outcome, code, *pieces)


def test_values_that_are_listed_one_by_one(capsys, place):
    folders = ["--images", place / "data/images", "--masks", place / "grey"]
    outcome = convlora(capsys, "check", *folders, "--class_map", "64=leaf,128=ignore")
    assert outcome.code == 0
    assert "note: masks hold 0, 64, 128: read as background (0), leaf (64), ignored (128) (--class_map)" in outcome.out
    outcome = convlora(capsys, "check", *folders, "--class_map", "0=leaf,64=stem,128=stem", "--ignore_index", "0")
    assert "read as leaf (0), stem (64, 128) (--class_map)" in outcome.out
    outcome = convlora(capsys, "check", *folders, "--class_map", "64=leaf,128=stem", "--ignore_index", "0")
    assert "read as leaf (64), stem (128), ignored (0) (--class_map)" in outcome.out
    outcome = convlora(capsys, "check", *folders, "--class_map", "64=leaf,128=Background")
    assert_one_line(outcome, 2, "128=Background would make a class of that name; write 128=background")


def test_a_class_that_the_source_calls_ignore_is_ignored_and_a_note_says_so(capsys, place):
    folders = ["--images", place / "data/images", "--masks", place / "data/masks"]
    outcome = convlora(capsys, "check", *folders, "--classes", "background,leaf,ignore")
    assert outcome.code == 0 and "note: pixels of the class ignore are ignored" in outcome.out
    assert "\n  leaf: " in outcome.out and "\n  ignore: " not in outcome.out


def multilabel(place, *arguments, masks=None):
    masks = masks or place / "overlapping/channels"
    return ["check", "--images", place / "overlapping/images", "--masks", masks, *arguments]


def test_masks_of_several_channels(capsys, place, tmp_path):
    paths = sorted((place / "overlapping/channels").iterdir())
    masks = {path.stem: np.asarray(Image.open(path)) for path in paths}
    assert_one_line(convlora(capsys, *multilabel(place)), 3, r"^convlora: 9 problems: .*more\).*, --task multilabel;")
    given = ["--task", "multilabel"]
    outcome = convlora(capsys, *multilabel(place, *given, "--classes", "background,a,b"))
    assert_one_line(outcome, 3, "has 3 channels, but --classes names 2 beside the background", "Name all; --class_map")
    outcome = convlora(capsys, *multilabel(place, *given, "--classes", "background,a,b,c,d"))
    assert_one_line(outcome, 2, "are 4 beside the background, but the masks have 3 channels")
    outcome = convlora(capsys, *multilabel(place, *given, "--mask_format", "ids"))
    assert_one_line(outcome, 2, "mask_format=ids is for masks of one channel, but .* has 3, .*; leave it out")
    for name, mask in masks.items():
        Image.fromarray(mask[..., 0] if name == "i0" else mask).save(tmp_path / f"{name}.png")
    outcome = convlora(capsys, *multilabel(place, *given, masks=tmp_path))
    assert_one_line(outcome, 3, "i0.png: has 1 channel, but .*i1.png has 3; .* each class is a channel of every mask")
    for name, mask in masks.items():
        Image.fromarray(mask[..., 0] if name == "i4" else mask).save(tmp_path / f"{name}.png")
    outcome = convlora(capsys, *multilabel(place, *given, masks=tmp_path))
    assert_one_line(outcome, 3, "i4.png: has 1 channel, but other masks have 3")


def test_a_tiff_of_many_channels_is_told_apart_from_a_damaged_file(capsys, place, tmp_path):
    for path in (place / "overlapping/channels").iterdir():
        mask = np.asarray(Image.open(path))
        five = np.concatenate([mask, mask[..., :2]], -1)
        tifffile.imwrite(tmp_path / f"{path.stem}.tif", five, photometric="minisblack", planarconfig="contig")
    outcome = convlora(capsys, *multilabel(place, masks=tmp_path))
    assert_one_line(outcome, 3, "say --task multilabel if each of its channels is a class")
    assert convlora(capsys, *multilabel(place, "--task", "multilabel", masks=tmp_path)).code == 0


def test_a_remedy_that_all_problems_share_is_said_once(capsys, place):
    outcome = convlora(capsys, *multilabel(place))
    (line,) = outcome.errors
    assert line.count("a mask in colour") == 5 and line.count("Say what the colours mean") == 1
    assert line.endswith("as PNG.")
