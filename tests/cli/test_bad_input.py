"""Whatever a user gets wrong: one line with what was given, what is allowed and what to do; nothing is written."""

import errno
import json
import pathlib
import shutil
import struct
import zlib

import numpy as np
import pytest
from PIL import Image
from safetensors.torch import load_file, save_file

from convlora import files
from convlora.adapter.saving import sealed
from convlora.files import sha256
from convlora.training.run import resume
from tests.cli.commands import assert_one_line, convlora, snapshot
from tests.sam.models import small_sam
from tests.training.runs import weights_hash, write_data


@pytest.fixture
def data(tmp_path):
    write_data(tmp_path / "data", count=6)
    return tmp_path / "data"


@pytest.fixture
def run(finished, tmp_path):
    """A copy that may be changed."""
    return pathlib.Path(shutil.copytree(finished.path, tmp_path / "finished"))


def bomb(path, side=20_000):
    """A PNG file of a few bytes whose header promises side² pixels."""

    def chunk(kind, body):
        return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))

    header = struct.pack(">IIBBBBB", side, side, 8, 2, 0, 0, 0)
    path.write_bytes(b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", b"") + chunk(b"IEND", b""))


def resize(path):
    Image.open(path).resize((30, 20), Image.Resampling.NEAREST).save(path)


def add_id(path, class_id):
    ids = np.array(Image.open(path))
    ids[0, :4] = class_id
    Image.fromarray(ids).save(path)


def truncate(path):
    content = path.read_bytes()
    path.write_bytes(content[: len(content) // 2])


def clear(folder):
    for path in folder.iterdir():
        path.unlink()


BAD_DATA = {
    "missing_images": (lambda d: shutil.rmtree(d / "images"), "images: .*does not exist; give a folder"),
    "missing_masks": (lambda d: shutil.rmtree(d / "masks"), "masks: .*does not exist; give a folder"),
    "a_file_as_images": (
        lambda d: (shutil.rmtree(d / "images"), (d / "images").write_text("")),
        "images: .*is a file; give a folder",
    ),
    "empty_images": (lambda d: clear(d / "images"), r"images: .*has no image files \(\.png .*holds nothing"),
    "empty_masks": (lambda d: clear(d / "masks"), r"masks: .*has no image files \(\.png .*holds nothing"),
    "an_image_without_a_mask": (
        lambda d: (d / "masks" / "i2.png").unlink(),
        r"1 image without a mask \(i2\.png\).*Rename, add or remove files",
    ),
    "a_mask_without_an_image": (
        lambda d: (d / "images" / "i2.png").unlink(),
        r"1 mask without an image \(i2\.png\).*Rename, add or remove files",
    ),
    "two_images_of_one_stem": (
        lambda d: shutil.copy(d / "images" / "i2.png", d / "images" / "i2.bmp"),
        r"files that share a name \(i2\.bmp, i2\.png.*Rename, add or remove files",
    ),
    "sizes_that_differ": (lambda d: resize(d / "masks" / "i2.png"), r"i2\.png.*20.*30"),
    "an_unknown_class": (lambda d: add_id(d / "masks" / "i2.png", 9), r"9.*pixels"),
    "a_truncated_image": (lambda d: truncate(d / "images" / "i2.png"), r"i2\.png: damaged.*Save it again"),
    "a_truncated_mask": (lambda d: truncate(d / "masks" / "i2.png"), r"i2\.png: damaged"),
    "text_as_image": (
        lambda d: (d / "images" / "i2.png").write_text("hello"),
        r"i2\.png: not a PNG, JPEG, TIFF, BMP or WebP image.*Convert it to PNG",
    ),
    "an_empty_file": (lambda d: (d / "images" / "i2.png").write_bytes(b""), r"i2\.png: .*an empty file"),
    "a_bomb": (
        lambda d: bomb(d / "images" / "i2.png"),
        r"i2\.png: 20000 x 20000 pixels .* 400\.0 megapixels, more than the 64 allowed\. Cut .* or raise",
    ),
    "a_broken_link": (
        lambda d: ((d / "images" / "i2.png").unlink(), (d / "images" / "i2.png").symlink_to("nowhere")),
        r"i2\.png|images",
    ),
}


@pytest.mark.parametrize("command", ["check", "train"])
@pytest.mark.parametrize("name", BAD_DATA)
def test_bad_data_are_one_line_and_nothing_is_written(capsys, data, workspace, command, name):
    spoil, message = BAD_DATA[name]
    spoil(data)
    arguments = ["--images", data / "images", "--masks", data / "masks", "--classes", "background,leaf"]
    output = data.parent / "run"
    if command == "train":
        arguments += ["--output", output, "--model", workspace / "sam"]
    assert_one_line(convlora(capsys, command, *arguments), 3, message)
    assert not output.exists()


def test_images_and_masks_in_one_folder_are_refused(capsys, data):
    outcome = convlora(capsys, "check", "--images", data / "images", "--masks", data / "images")
    assert_one_line(outcome, 3, "are the same folder.*one of their own")


def train_arguments(data, workspace, output, *more):
    quick = [
        "--max_steps",
        "4",
        "--evaluate_every",
        "2",
        "--batch_size",
        "2",
        "--device",
        "cpu",
        "--test_fraction",
        "0",
    ]
    places = ["--images", data / "images", "--masks", data / "masks", "--model", workspace / "sam", "--output", output]
    return ["train", *places, *quick, *more]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--learning_rat", "1"], "unknown setting 'learning_rat'. Did you mean 'learning_rate'?.*--help"),
        (["--adapter.ran", "1"], "unknown setting 'adapter.ran'. Did you mean 'adapter.r'?"),
        (["--method", "lorra"], "method='lorra' must be one of conv-lora, lora, dora, "),
        (["--epochs", "many"], "setting 'epochs' must be int, not many"),
        (["--batch_size", "0"], "batch_size=0 must be at least 1"),
        (["--learning_rate", "inf"], "learning_rate"),
        (["--device", "gpu"], "device='gpu' must be one of auto, cpu"),
        (["--adapter.lora_dropout", "1.5"], "adapter.lora_dropout=1.5 must be at least 0 and less than 1"),
        (["--adapter.target_modules", "none"], r"target_modules=\['none'\] cannot be adapted.*such as qkv, proj"),
        (["--adapter.target_modules", "attn"], r"target_modules=\['attn'\] cannot be adapted.*such as qkv, proj"),
        (["--config", "nowhere.yaml"], "nowhere.yaml"),
        (["stray"], "unexpected argument 'stray'"),
        (["--loss", "structure", "--classes", "background,a,b"], "structure"),
    ],
)
def test_wrong_settings_are_one_line_and_nothing_is_written(capsys, data, workspace, tmp_path, arguments, message):
    outcome = convlora(capsys, *train_arguments(data, workspace, tmp_path / "run", *arguments))
    assert_one_line(outcome, 2, message)
    assert not (tmp_path / "run").exists()


def test_a_model_that_is_not_there_is_one_line(capsys, data, tmp_path):
    outcome = convlora(capsys, *train_arguments(data, tmp_path, tmp_path / "run"))
    assert_one_line(outcome, 4, "no SAM checkpoint at '.*/sam'.*Give 'sam-tiny', a folder")
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize("kind", ["files", "run", "file"])
def test_an_output_in_use_is_refused_and_unchanged(capsys, data, workspace, finished, tmp_path, kind):
    output = tmp_path / "run"
    if kind == "run":
        shutil.copytree(finished.path, output)
    elif kind == "files":
        output.mkdir()
        (output / "note.txt").write_text("mine")
    else:
        output.write_text("mine")
    before = snapshot(output)
    message = {"files": "is not empty", "run": "holds a run already.*convlora resume", "file": "a file, not a folder"}
    outcome = convlora(capsys, *train_arguments(data, workspace, output))
    assert_one_line(outcome, 6, message[kind])
    assert snapshot(output) == before


@pytest.mark.parametrize(
    ("number", "message"),
    [(errno.EACCES, "permission denied; choose a folder"), (errno.EROFS, "read-only; choose another output folder")],
)
def test_an_output_that_is_not_writable_is_one_line(
    capsys, data, workspace, finished, tmp_path, monkeypatch, number, message
):
    real = pathlib.Path.mkdir

    def refuse(self, *args, **kwargs):
        if self.name == "locked":
            raise OSError(number, "refused", str(self))
        return real(self, *args, **kwargs)

    monkeypatch.setattr(pathlib.Path, "mkdir", refuse)
    output = tmp_path / "locked"
    outcome = convlora(capsys, *train_arguments(data, workspace, output))
    assert_one_line(outcome, 6, f"cannot write {output}", message)
    outcome = convlora(capsys, "predict", finished.path, data / "images", "--output", output)
    assert_one_line(outcome, 6, f"cannot write {output}", message)
    assert not output.exists()


def test_a_disk_that_fills_up_during_training_keeps_the_last_checkpoint(capsys, data, workspace, tmp_path, monkeypatch):
    real = files.fsync

    def full(path):
        if ".checkpoint-4.tmp" in str(path) and path.name.startswith(".optimizer"):
            raise OSError(errno.ENOSPC, "No space left on device")
        real(path)

    output = tmp_path / "run"
    with monkeypatch.context() as patch:
        patch.setattr(files, "fsync", full)
        outcome = convlora(capsys, *train_arguments(data, workspace, output))
    assert_one_line(outcome, 6, "the disk is full; free some space")
    assert [path.name for path in (output / "checkpoints").iterdir()] == ["checkpoint-2"]
    assert not (output / "adapter").exists()
    whole = tmp_path / "whole"
    assert convlora(capsys, *train_arguments(data, workspace, whole)).code == 0
    assert convlora(capsys, "resume", output).code == 0
    from convlora.training.folder import RunFolder

    assert weights_hash(RunFolder(output)) == weights_hash(RunFolder(whole))


def test_a_loss_that_is_not_finite_is_one_line_that_names_images(capsys, data, workspace, tmp_path):
    output = tmp_path / "run"
    outcome = convlora(
        capsys, *train_arguments(data, workspace, output, "--learning_rate", "1e30", "--precision", "fp32")
    )
    assert_one_line(outcome, 5, r"stopped at step \d: .*(nan|inf|not finite)", r"i\d")
    assert not (output / "adapter").exists()


def predict_arguments(run, data, *more):
    return ["predict", run, data / "images", "--output", data.parent / "masks", *more]


def test_weights_of_another_base_model_are_refused(capsys, data, run, tmp_path):
    small_sam(seed=1).save_pretrained(tmp_path / "other")
    outcome = convlora(capsys, *predict_arguments(run, data, "--model", tmp_path / "other"))
    assert_one_line(outcome, 4, "trained on another base model")
    assert not (tmp_path / "masks").exists()


def change_tensors(run, change):
    """Rewrite the adapter with care: its hash in the manifest is right."""
    weights = run / "adapter" / "adapter_model.safetensors"
    tensors = load_file(weights)
    change(tensors, next(key for key in tensors if "lora_A" in key))
    save_file(tensors, weights, metadata={"format": "pt"})
    manifest = json.loads((run / "adapter" / "manifest.json").read_text())
    manifest["files"]["adapter_model.safetensors"] = sha256(weights)
    (run / "adapter" / "manifest.json").write_text(json.dumps(sealed(manifest)))


def flip(path):
    content = bytearray(path.read_bytes())
    content[-5] ^= 1
    path.write_bytes(bytes(content))


BAD_WEIGHTS = {
    "a_flipped_bit": (
        lambda run: flip(run / "adapter" / "adapter_model.safetensors"),
        r"adapter_model\.safetensors was changed after it was saved.*Copy it again",
    ),
    "a_missing_tensor": (lambda run: change_tensors(run, lambda t, k: t.pop(k)), "tensor .*lora_A.* is missing"),
    "an_extra_tensor": (lambda run: change_tensors(run, lambda t, k: t.update(extra=t[k] + 0)), "extra is not known"),
    "a_shape_that_differs": (lambda run: change_tensors(run, lambda t, k: t.update({k: t[k][:1] + 0})), "has shape"),
    "a_nan": (lambda run: change_tensors(run, lambda t, k: t[k].fill_(float("nan"))), "lora_A.* is not finite"),
    "an_infinity": (lambda run: change_tensors(run, lambda t, k: t[k].fill_(float("inf"))), "lora_A.* is not finite"),
    "no_weights": (lambda run: (run / "adapter" / "adapter_model.safetensors").unlink(), "is missing. Copy"),
    "no_manifest": (lambda run: (run / "adapter" / "manifest.json").unlink(), r"holds no manifest\.json"),
    "torn_manifest": (lambda run: truncate(run / "adapter" / "manifest.json"), r"manifest\.json is not readable JSON"),
    "no_adapter": (lambda run: shutil.rmtree(run / "adapter"), "is not finished. Continue it with `convlora resume"),
    "nothing": (shutil.rmtree, "is not a folder. Give a run folder"),
}


@pytest.mark.parametrize("name", BAD_WEIGHTS)
def test_a_damaged_adapter_is_one_line_and_nothing_is_written(capsys, data, run, name):
    spoil, message = BAD_WEIGHTS[name]
    spoil(run)
    before = snapshot(run)
    assert_one_line(convlora(capsys, *predict_arguments(run, data)), 4, message)
    assert_one_line(convlora(capsys, "evaluate", run, "--split", "val"), 4, message)
    assert not (data.parent / "masks").exists() and snapshot(run) == before


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (lambda run: (run / "config.yaml").unlink(), r"has no config\.yaml.*convlora train"),
        (lambda run: (run / "config.yaml").write_text("a: ["), r"config\.yaml"),
        (lambda run: (run / "config.yaml").write_bytes(b"\xff\xfe"), r"config\.yaml"),
        (lambda run: (run / "split.json").write_text("{"), r"split\.json is missing or damaged"),
    ],
)
def test_a_damaged_run_is_not_resumed(capsys, run, spoil, message):
    shutil.rmtree(run / "adapter")
    spoil(run)
    before = snapshot(run)
    assert_one_line(convlora(capsys, "resume", run), 4, message)
    assert snapshot(run) == before


@pytest.mark.parametrize("name", ["missing", "empty", "no_images"])
def test_predict_without_images_is_one_line(capsys, data, finished, name):
    if name == "missing":
        shutil.rmtree(data / "images")
    else:
        clear(data / "images")
    if name == "no_images":
        (data / "images" / "notes.txt").write_text("hello")
    assert_one_line(convlora(capsys, *predict_arguments(finished.path, data)), 3, "images: ")
    assert not (data.parent / "masks").exists()


def test_predict_with_a_broken_image_writes_the_others_and_names_it(capsys, data, finished):
    truncate(data / "images" / "i2.png")
    bomb(data / "images" / "i3.png")
    outcome = convlora(capsys, *predict_arguments(finished.path, data))
    assert_one_line(outcome, 3, "2 of 6 images were left out, the others were predicted", r"i2\.png", r"i3\.png")
    assert sorted(path.name for path in (data.parent / "masks").iterdir()) == ["i0.png", "i1.png", "i4.png", "i5.png"]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--batch_size", "0"], "batch_size=0 must be at least 1"),
        (["--device", "gpu"], "device='gpu' must be auto, cpu"),
        (["--device", "cuda:99"], "device='cuda:99' is not available here.*Use auto or cpu"),
        (["--overlay"], "unknown setting 'overlay'. Did you mean 'overlays'?"),
        (["third"], "unexpected argument 'third': only RUN IMAGES may be given without a --flag"),
    ],
)
def test_wrong_settings_of_predict_are_one_line(capsys, data, finished, arguments, message):
    assert_one_line(convlora(capsys, *predict_arguments(finished.path, data, *arguments)), 2, message)
    assert not (data.parent / "masks").exists()


def test_predict_into_the_current_folder_or_the_images_is_refused(capsys, data, finished, monkeypatch):
    monkeypatch.chdir(data / "images")
    before = snapshot(data)
    for arguments in (["--skip_existing"], []):
        outcome = convlora(capsys, "predict", finished.path, ".", "--output", ".", *arguments)
        assert_one_line(outcome, 6, "holds the images themselves. Choose a new folder")
    assert snapshot(data) == before


def test_relative_paths_hold_after_the_folder_changed(capsys, data, workspace, tmp_path, monkeypatch):
    shutil.copytree(workspace / "sam", tmp_path / "sam")
    monkeypatch.chdir(tmp_path)
    arguments = train_arguments(pathlib.Path("data"), pathlib.Path(), "run", "--max_steps", "1")
    assert convlora(capsys, *arguments).code == 0
    monkeypatch.chdir(tmp_path / "run")
    assert convlora(capsys, "predict", ".", "../data/images", "--output", "../masks").code == 0
    assert len(list((tmp_path / "masks").iterdir())) == 6
    assert convlora(capsys, "evaluate", ".", "--split", "val").code == 0


def test_demo_with_a_wrong_method_trains_nothing(capsys, tmp_path):
    outcome = convlora(capsys, "demo", "--output", tmp_path / "demo", "--methods", "decoder,convlora")
    assert_one_line(outcome, 2, "methods='decoder,convlora' must be some of conv-lora, lora, dora, ")
    assert not (tmp_path / "demo").exists()


def test_resuming_a_finished_run_scores_it_again_and_changes_no_weights(capsys, run):
    before = weights_hash(resume(run))
    outcome = convlora(capsys, "resume", run)
    assert outcome.code == 0 and "test IoU" in outcome.out
    assert weights_hash(resume(run)) == before
