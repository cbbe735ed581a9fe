import pytest

from convlora.data.readers.finding import find_data
from convlora.data.readers.pairing import find_samples
from convlora.data.settings import DataSettings
from convlora.errors import PairingError

FILES = ["images/a.png", "images/b.jpg", "masks/a.png", "masks/b.png", "notes.txt"]


def read(tmp_path, text, encoding="utf-8"):
    for name in FILES:
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).touch()
    (tmp_path / "list.csv").write_bytes(text.encode(encoding))
    return find_samples(str(tmp_path / "list.csv"), None)


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig"])
@pytest.mark.parametrize("end", ["\n", "\r\n"])
def test_rows_become_samples_beside_the_file(tmp_path, encoding, end):
    rows = ["split, image ,mask,site", "train,images/b.jpg,masks/b.png,x", "", "val, images/a.png,masks/a.png ,y", ""]
    samples = read(tmp_path, end.join(rows), encoding)
    assert [(s.name, s.split) for s in samples] == [("a", "val"), ("b", "train")]
    assert samples[0].image == tmp_path / "images/a.png" and samples[0].mask == tmp_path / "masks/a.png"


def test_the_column_may_be_called_label_and_splits_may_be_missing(tmp_path):
    samples = read(tmp_path, "image,label\nimages/a.png,masks/a.png\n")
    assert [(s.name, s.split) for s in samples] == [("a", None)]


def test_equal_stems_are_told_apart_by_their_paths(tmp_path):
    samples = read(tmp_path, "image,mask\nimages/a.png,masks/b.png\nmasks/a.png,masks/b.png\n")
    assert [s.name for s in samples] == ["images/a.png", "masks/a.png"]


def test_absolute_paths_are_taken(tmp_path):
    assert read(tmp_path, f"image,mask\n{tmp_path}/images/a.png,masks/a.png\n")[0].image == tmp_path / "images/a.png"


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "must name the columns image, mask"),
        ("image,mask\n", "no rows below its header"),
        ("images/a.png,masks/a.png\n", "its first line is 'images/a.png,masks/a.png', but must name"),
        ("image;mask\nimages/a.png;masks/a.png\n", "separated by semicolons; use commas"),
        ("image\tmask\n", "separated by tabs; use commas"),
        ("image,mask,label\n", "must name the columns"),
        ("image,mask,mask\n", "must name the columns"),
        ("image,mask\nimages/a.png\n", "1 rows do not have 2 fields like the header, first row 2"),
        ("image,mask\nimages/none.png,masks/none.png\n", "2 missing files: images/none.png, masks/none.png"),
        ("image,mask\nimages/a.png,\n", r"1 empty image or mask fields: row with images/a\.png"),
        ("image,mask\nimages/a.png,notes.txt\n", r"1 files that are not images .*: notes\.txt"),
        ("image,mask\nimages/a.png,images/a.png\n", "1 images that are their own mask"),
        ("image,mask\n" + "images/a.png,masks/a.png\n" * 2, "1 images listed more than once: images/a.png"),
        ("image,mask,split\nimages/a.png,masks/a.png,dev\n", "1 splits other than train, val, test: dev"),
        ('image,mask\n"images/a.png,masks/a.png\n', "not a CSV file"),
        ("image,mask\n" + "none.png,x.gif\nnone.png,x.gif\n", "missing files: .*not images .*more than once"),
    ],
)
def test_what_is_wrong_is_told(tmp_path, text, message):
    with pytest.raises(PairingError, match=rf"list\.csv: .*{message}"):
        read(tmp_path, text)


def test_other_encodings_and_missing_files_are_told(tmp_path):
    with pytest.raises(PairingError, match="not UTF-8 text; save"):
        read(tmp_path, "image,mask\né,è\n", "latin-1")
    with pytest.raises(PairingError, match="cannot be opened"):
        find_samples(str(tmp_path / "none.csv"), None)


def test_a_mask_of_several_images_is_told(tmp_path):
    for row, notes in (
        ("images/b.jpg,masks/b.png", []),
        ("images/b.jpg,masks/a.png", ["masks of several images each: "]),
    ):
        read(tmp_path, f"image,mask\nimages/a.png,masks/a.png\n{row}\n")
        assert [note[:30] for note in find_data(DataSettings(images=str(tmp_path / "list.csv"))).notes] == notes


def test_names_of_columns_count_in_upper_and_lower_case(tmp_path):
    samples = read(tmp_path, "Image,MASK,Split,Group\nimages/a.png,masks/a.png,test,p1\n")
    assert [(s.split, s.group) for s in samples] == [("test", "p1")]
