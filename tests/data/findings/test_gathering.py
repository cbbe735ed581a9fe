"""Each finding on the embedded set with exactly that flaw; the set itself has none."""

import dataclasses
import re

import pytest

from convlora.data.augmentation.settings import AugmentationSettings
from convlora.data.findings.finding import HARMS
from convlora.training.settings import TrainSettings
from tests.data.findings.sets import FLAWS, findings_with, hela


def test_nothing_is_found_in_the_embedded_set():
    assert findings_with(None) == []


@pytest.mark.parametrize("kind", FLAWS)
def test_a_flaw_is_found_and_nothing_else(kind):
    (finding,) = findings_with(kind)
    assert finding.kind == kind and finding.harm in HARMS
    assert not finding.text.endswith(".") and "\n" not in str(finding)


@pytest.mark.parametrize("kind", FLAWS)
def test_the_flags_that_a_remedy_names_exist(kind):
    flags = {field.name for field in dataclasses.fields(TrainSettings)}
    flags |= {f"augmentation.{field.name}" for field in dataclasses.fields(AugmentationSettings)}
    assert set(re.findall(r"--([\w.]+)", findings_with(kind)[0].remedy)) <= flags


def test_findings_name_the_samples_that_are_spoilt():
    train, test = hela().of("train"), hela().of("test")
    names = {
        kind: findings_with(kind)[0].names
        for kind in ("inverted", "shifted", "equal-across-splits", "repeated", "stray")
    }
    assert set(names["inverted"]) == set(train[:3])
    assert set(names["shifted"]) == set(names["repeated"]) == set(train[:2])
    assert set(names["equal-across-splits"]) == {train[0], test[0]}
    assert set(names["stray"]) == {train[0], train[5]}


def test_a_shift_of_all_masks_is_told_to_the_pixel_and_the_right_way():
    assert "outlines lie 6 pixels below and 4 pixels to the left of the edges" in findings_with("all-shifted")[0].text


def test_as_few_tiles_as_need_be_are_advised():
    assert re.search(r"Train with --tile 512; then 1\d % are", findings_with("tiny-objects")[0].remedy)
