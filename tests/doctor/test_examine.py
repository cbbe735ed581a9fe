import pytest

from convlora.doctor import examine as module
from convlora.doctor.examine import examine
from convlora.doctor.isolation import MemoryRefusedError
from convlora.doctor.prediction import Measurement
from convlora.doctor.settings import DoctorSettings
from convlora.doctor.steps import Facts
from convlora.errors import SettingsError

GIB = 2.0**30


class World:
    """A machine where a step takes 1 GiB, and 0.25 GiB for each image of 256 pixels."""

    def __init__(self, loaded=0.5 * GIB, seconds=0.5, refuses=()):
        self.loaded, self.seconds, self.refuses = loaded, seconds, refuses
        self.asked = []

    def __call__(self, function, model, precision, device, *place):
        *place, channels = place if function == "measure" else (*place, None)
        assert channels is None
        place = tuple(place)
        if function == "facts":
            return Facts("cpu", "fp32", False, 2, None, (0, 0), 512, 16, int(GIB / 16), self.loaded)
        self.asked.append(place)
        method, size, batch = place
        if place in self.refuses:
            raise MemoryRefusedError("no")
        images = batch * (size / 256) ** 2
        return Measurement(method, size, batch, self.loaded, GIB + 0.25 * GIB * images, self.seconds * images)


@pytest.fixture
def world(monkeypatch):
    def use(**changes):
        made = World(**changes)
        monkeypatch.setattr(module, "isolated", made)
        return made

    return use


def test_three_points_a_method_and_one_check_are_measured(world):
    made = world()
    seen = []
    found = examine(DoctorSettings(), 100 * GIB, progress=lambda *counts: seen.append(counts))
    assert made.asked == [
        *((m, s, b) for m in ("decoder", "lora", "conv-lora", "full") for s, b in ((256, 1), (256, 4), (512, 1))),
        ("conv-lora", 512, 8),
    ]
    said, measured = found.check
    assert said.peak == pytest.approx(measured.peak) == 9 * GIB and not said.measured
    assert found.chosen.measured and (found.chosen.method, found.chosen.size, found.chosen.batch) == (
        "conv-lora",
        512,
        8,
    )
    assert found.budget == 80 * GIB and len(found.settings) == 32 and found.too_large == {}
    assert seen == sorted(seen) and seen[0] == (0, 14) and seen[-1] == (14, 14)


def test_nothing_is_tried_that_is_expected_not_to_fit(world):
    made = world()
    found = examine(DoctorSettings(), 1.8 * GIB)
    # of (256, 4) the first point alone says 0.5 + 4 * 0.75; of (512, 1) it says 0.5 + 4 * 0.75, too
    assert made.asked == [("decoder", 256, 1), ("lora", 256, 1), ("conv-lora", 256, 1), ("full", 256, 1)]
    assert (found.chosen.size, found.chosen.batch, found.chosen.peak) == (256, 1, 1.25 * GIB)


def test_a_method_that_cannot_fit_is_left_out_with_what_it_needs(world):
    made = world(loaded=0.9 * GIB)
    found = examine(DoctorSettings(), 1.5 * GIB)  # "full" needs 16 bytes for each of GIB / 16 parameters more
    assert found.too_large == {"full": 1.9 * GIB}
    assert all(method != "full" for method, _, _ in made.asked)
    assert {setting.method for setting in found.settings} == {"decoder", "lora", "conv-lora"}


def test_images_in_memory_leave_less_for_training(world):
    world()
    assert examine(DoctorSettings(), 10 * GIB, reserved=2 * GIB).budget == pytest.approx(6.4 * GIB)


def test_a_process_that_dies_for_memory_ends_nothing_but_its_setting(world):
    world(refuses=[("lora", 256, 1), ("conv-lora", 512, 8)])
    found = examine(DoctorSettings(), 100 * GIB)
    assert found.too_large == {"lora": 100 * GIB} and found.check is None
    assert {setting.method for setting in found.settings} == {"decoder", "conv-lora", "full"}


def test_steps_that_take_too_long_are_predicted_only(world):
    made = world(seconds=20.0)
    found = examine(DoctorSettings(), 100 * GIB)
    assert {place[1:] for place in made.asked} == {(256, 1)} and found.check is None
    assert found.chosen.seconds == pytest.approx(640.0) and not found.chosen.measured


def test_a_model_that_cannot_be_loaded_is_named(monkeypatch):
    def refuse(*arguments):
        raise MemoryRefusedError("exit code -9")

    monkeypatch.setattr(module, "isolated", refuse)
    with pytest.raises(SettingsError, match="model='huge' alone does not fit"):
        examine(DoctorSettings(model="huge"), GIB)
