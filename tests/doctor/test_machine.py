import os

import pytest

from convlora.doctor.images import look_at
from convlora.doctor.machine import this_machine
from convlora.errors import DataError


def test_the_machine_is_described_in_bytes_and_cores():
    machine = this_machine()
    assert machine.processor and 1 <= machine.cores <= (os.cpu_count() or 1) and machine.load >= 0
    assert 1e8 < machine.available <= machine.memory
    assert set(machine.versions) == {"convlora", "torch", "transformers", "peft"}


def test_images_are_counted_and_their_training_share_is_that_of_a_run(workspace, finished):
    data = workspace / "data"
    without, with_masks = look_at(str(data / "images"), None), look_at(str(data / "images"), str(data / "masks"))
    assert without == with_masks and without.count == 9
    assert without.training == 7  # of 9, 0.15 are 1.35: one image each for validation and test
    (low_height, low_width), (high_height, high_width) = without.smallest, without.largest
    assert 40 * 40 <= low_height * low_width <= high_height * high_width < 64 * 64
    assert 7 * 4 * low_height * low_width <= without.decoded <= 7 * 4 * high_height * high_width


def test_a_folder_without_images_is_refused(tmp_path):
    with pytest.raises(DataError, match="has no image files"):
        look_at(str(tmp_path), None)
