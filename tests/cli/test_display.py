import pytest

from convlora.cli.display import training_display
from convlora.training.events import Progress, Started


@pytest.mark.parametrize(
    ("metric", "shown"), [("iou", "iou 0.500 dice 0.667"), ("ber", "iou 0.500 dice 0.667 ber 12.000")]
)
def test_a_validation_shows_the_score_that_picks_the_checkpoint(capsys, metric, shown):
    scores = {"ber": 12.0, "dice": 0.667, "iou": 0.5, "miou": 0.6}
    with training_display() as display:
        display(Started(None, 1, 10, "fp32", None, 0, 4, metric))
        display(Progress(2, 4, 1.0, scores=scores))
    assert f"  step 2: validation {shown}\n" in capsys.readouterr().out
