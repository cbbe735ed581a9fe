import shlex

import pytest

from convlora.cli import doctor
from convlora.data.settings import DataSettings
from convlora.doctor.examine import Findings
from convlora.doctor.machine import Machine
from convlora.doctor.prediction import Measurement, all_settings, choose
from convlora.doctor.steps import Facts
from convlora.settings import from_arguments
from convlora.training.settings import TrainSettings
from tests.cli.commands import assert_one_line, convlora

FACTS = Facts("cpu", "fp32", False, 4, None, (0, 0), 512, 16, 1000, 0.4e9)
POINTS = [
    Measurement("conv-lora", 256, 1, 0.4e9, 1.0e9, 0.5),
    Measurement("conv-lora", 256, 4, 0.4e9, 2.5e9, 2.0),
    Measurement("conv-lora", 512, 1, 0.4e9, 2.5e9, 15.0),
]


@pytest.fixture
def found(monkeypatch):
    def use(budget=5e9, facts=FACTS, load=0.5, check=None):
        settings = all_settings(POINTS, (256, 512))
        chosen = choose(settings, budget)
        asked = {}

        def examine(given, available, **more):
            asked.update(more, available=available, settings=given)
            return Findings(facts, (256, 512), budget, settings, {"full": 9e9}, check, chosen)

        monkeypatch.setattr(doctor, "examine", examine)
        monkeypatch.setattr(doctor, "this_machine", lambda: Machine("A CPU", 8, load, int(16e9), int(12e9), {"t": "1"}))
        return asked

    return use


def command_of(out):
    (line,) = [line for line in out.splitlines() if "convlora train" in line]
    return from_arguments(TrainSettings, shlex.split(line)[2:], prog="", description="")


def test_the_command_that_is_printed_is_one_that_train_understands(capsys, found):
    asked = found()
    outcome = convlora(capsys, "doctor", "--precision", "fp32", "--device", "cpu")
    assert outcome.code == 0 and outcome.errors == [] and asked["available"] == 12e9 and asked["most"] == 8
    settings = command_of(outcome.out)
    assert (settings.image_size, settings.batch_size, settings.method) == (512, 2, "conv-lora")
    assert (settings.precision, settings.device, settings.images) == ("fp32", "cpu", "IMAGES")


def test_the_table_marks_what_was_measured_and_what_does_not_fit(capsys, found):
    found()
    out = convlora(capsys, "doctor").out
    rows = {tuple(line.split()[:2]): " ".join(line.split()[2:]) for line in out.splitlines() if "GB" in line}
    assert rows["conv-lora", "256"] == "1.00 GB 0.50 s* 1.50 GB 1.00 s 2.50 GB 2.00 s* 4.50 GB 4.00 s"
    assert rows["conv-lora", "512"] == "2.50 GB 15 s* 4.50 GB 30 s 8.50 GB - 16.5 GB -"
    for piece in (
        "A CPU, 8 cores",
        "12.0 GB of it free",
        "GPU:       none",
        "4 threads, in fp32",
        "full was not tried",
    ):
        assert piece in out
    assert "note:" not in out


def test_given_images_are_counted_into_the_time_and_the_command(capsys, found, workspace):
    asked = found()
    data = workspace / "data"
    out = convlora(capsys, "doctor", "--images", data / "images", "--masks", data / "masks").out
    assert "images: 9, 7 of them to train on" in out and "an epoch: 4 steps of the setting below, about 2 min" in out
    assert asked["most"] == 7 and 7 * 4 * 1600 < asked["reserved"] < 7 * 4 * 4096
    settings = command_of(out)
    assert isinstance(settings, DataSettings)
    assert (settings.images, settings.masks) == (str(data / "images"), str(data / "masks"))


def test_a_check_shows_by_how_much_the_prediction_was_wrong(capsys, found):
    setting = next(s for s in all_settings(POINTS, (256, 512)) if (s.size, s.batch) == (512, 2))
    found(check=(setting, Measurement("conv-lora", 512, 2, 0.0, 5.0e9, 24.0)))
    assert "measured 5.00 GB and 24 s (memory -10 %, time +25 %)" in convlora(capsys, "doctor").out


def test_a_machine_where_nothing_fits_is_told_what_to_do(capsys, found):
    found(budget=0.5e9)
    out = convlora(capsys, "doctor").out
    assert "None of conv-lora, lora, decoder fits into 0.50 GB" in out and "convlora train" not in out


def test_a_gpu_and_a_busy_machine_are_shown(capsys, found):
    found(facts=Facts("cuda", "bf16", True, 4, "A GPU", (int(80e9), int(70e9)), 512, 16, 1000, 0.4e9), load=5.0)
    out = convlora(capsys, "doctor").out
    assert "A GPU, 80.0 GB, 70.0 GB of it free" in out and "trains on: GPU, in bf16" in out
    assert "note: other programs keep 5.0 of the 8 cores busy" in out


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--precision", "int8"], "precision='int8' must be one of auto, fp32, bf16, fp16"),
        (["--device", "tpu"], "device='tpu' must be one of auto, cpu"),
        (["--masks", "m"], "give --images, too"),
    ],
)
def test_wrong_settings_are_one_line(capsys, arguments, message):
    assert_one_line(convlora(capsys, "doctor", *arguments), 2, message)
