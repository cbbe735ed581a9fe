import time

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from convlora.data.readers.xml_files import elements, outermost
from convlora.errors import DataError

BOMB = "".join(f'<!ENTITY a{i} "{f"&a{i - 1};" * 10}">' for i in range(1, 12))


def write(tmp_path, content, encoding="utf-8"):
    path = tmp_path / "a.xml"
    path.write_bytes(content.encode(encoding) if isinstance(content, str) else content)
    return path


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16"])
def test_elements_come_whole_one_after_another(tmp_path, encoding):
    path = write(tmp_path, '<all>x<a k="1"><b>é</b></a> <c/></all>', encoding)
    found = list(elements(path, "all"))
    assert [(e.tag, e.attrib) for e in found] == [("a", {"k": "1"}), ("c", {})] and found[0].findtext("b") == "é"
    assert outermost(path) == "all"


@pytest.mark.parametrize("encoding", ["utf-8", "utf-16"])
@pytest.mark.parametrize(
    "doctype",
    [
        f'<!DOCTYPE all [<!ENTITY a0 "ha">{BOMB}]>',
        '<!DOCTYPE all [<!ENTITY a11 SYSTEM "file:///etc/passwd">]>',
        '<!DOCTYPE all SYSTEM "http://localhost/x.dtd">',
        "<!DOCTYPE all>",
    ],
)
def test_document_types_and_entities_are_refused_in_any_encoding(tmp_path, doctype, encoding):
    path = write(tmp_path, f"{doctype}<all><a>&a11;</a></all>", encoding)
    start = time.perf_counter()
    with pytest.raises(DataError, match="declares a document type or entities"):
        list(elements(path, "all"))
    assert time.perf_counter() - start < 1
    assert outermost(path) == "all"  # so that the format is known, and the refusal told


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("", "not a whole XML file"),
        ("<all><a>", "not a whole XML file"),
        ("<all/><all/>", "not a whole XML file"),
        ("<other/>", "its outermost element is 'other', not 'all'"),
        ("<all>" + "<a>" * 100_000, "nested more than 32 levels"),
        ('<?xml version="1.0" encoding="nonsense"?><all/>', "not a whole XML file"),
        (b"\x00\xff\xfe", "not a whole XML file"),
    ],
)
def test_what_is_no_such_file_is_refused(tmp_path, content, message):
    with pytest.raises(DataError, match=message):
        list(elements(write(tmp_path, content), "all"))


def test_a_missing_file_is_told(tmp_path):
    with pytest.raises(DataError, match="cannot be opened"):
        list(elements(tmp_path / "none.xml", "all"))
    assert outermost(tmp_path / "none.xml") is None


@settings(max_examples=300, deadline=None)
@given(st.binary(max_size=80) | st.text("<>/!?=\"'&; axl", max_size=80).map(lambda text: f"<all>{text}</all>".encode()))
def test_random_bytes_give_elements_or_an_error(tmp_path_factory, content):
    path = tmp_path_factory.getbasetemp() / "random.xml"
    path.write_bytes(content)
    outermost(path)
    try:
        list(elements(path, "all"))
    except DataError as error:
        assert "\n" not in str(error)
