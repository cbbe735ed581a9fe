import numpy as np
import pytest

from convlora.cli.printing import printable
from tests.cli.commands import assert_one_line, convlora
from tests.data.files import data_set, save


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("é 日本 <b> ±", "é 日本 <b> ±"),
        ("two\nlines\tand a tab\r", "two lines and a tab "),
        ("\x1b[31mred \x07", "\\x1b[31mred \\x07"),
        ("not unicode \udce9, turned \u202e", "not unicode \\udce9, turned \\u202e"),
    ],
)
def test_what_would_break_a_line_or_steer_the_terminal_is_written_out(text, shown):
    assert printable(text) == shown


def test_names_of_files_reach_the_terminal_harmless(capsys, tmp_path):
    folders = data_set(tmp_path, [np.eye(3, 2, dtype=np.uint8)] * 9)
    for part in ("images", "masks"):
        (tmp_path / part / "s00.png").rename(tmp_path / part / "a\n\x1b[31m \udce9.png")
    command = ["check", folders["images"], "--masks", folders["masks"]]
    outcome = convlora(capsys, *command, "--intensity", "full")
    assert outcome.code == 0 and "\x1b" not in outcome.out
    save(tmp_path / "images" / "s01.png", np.eye(4, dtype=np.uint8))
    (tmp_path / "images" / "a\n\x1b[31m \udce9.png").unlink()
    assert_one_line(convlora(capsys, *command), 3, r"a \\x1b\[31m \\udce9.png")
