import multiprocessing
import threading
import time

import pytest

from convlora.doctor.examine import examine
from convlora.doctor.isolation import MemoryRefusedError, isolated
from convlora.doctor.settings import DoctorSettings
from convlora.errors import SettingsError, WeightsError
from tests.sam.models import small_sam


@pytest.fixture
def checkpoint(tmp_path):
    small_sam().save_pretrained(tmp_path / "sam")
    return str(tmp_path / "sam")


def test_a_small_model_is_examined_with_real_steps(checkpoint):
    found = examine(DoctorSettings(model=checkpoint, device="cpu", precision="fp32"), 4e9)
    assert found.sizes == (32, 64) and found.facts.precision == "fp32" and found.facts.encoder > 1000
    measured = [setting for setting in found.settings if setting.measured]
    assert len(measured) == 13 and all(setting.seconds > 0 for setting in measured)
    # the libraries alone take 0.2 to 0.6 GB, and this model next to nothing
    assert all(1e8 < setting.peak < 2e9 for setting in found.settings)
    assert (found.chosen.method, found.chosen.size, found.chosen.batch) == ("conv-lora", 64, 8)
    said, seen = found.check
    assert said.peak == pytest.approx(seen.peak, rel=0.2)


def test_what_is_wrong_with_a_model_is_said_as_in_training(tmp_path, checkpoint):
    with pytest.raises(WeightsError, match="no SAM checkpoint at"):
        isolated("facts", str(tmp_path / "nothing"), "auto", "cpu")
    with pytest.raises(SettingsError, match="image_size=33 must be a multiple of the patch"):
        isolated("measure", checkpoint, "fp32", "cpu", "lora", 33, 1)
    with pytest.raises(SettingsError, match="method='none' must be one of"):
        isolated("measure", checkpoint, "fp32", "cpu", "none", 32, 1)
    with pytest.raises(RuntimeError, match="TypeError: "):  # what it did not foresee
        isolated("measure", checkpoint)


def test_a_process_that_the_system_kills_is_told_from_one_that_answers(checkpoint):
    def kill():
        while not (children := multiprocessing.active_children()):
            time.sleep(0.01)
        children[0].kill()

    killer = threading.Thread(target=kill)
    killer.start()
    with pytest.raises(MemoryRefusedError, match="exit code -9"):
        isolated("measure", checkpoint, "fp32", "cpu", "full", 64, 512)
    killer.join()
    assert multiprocessing.active_children() == []
