"""Tables of the user's own, as editors, spreadsheets and other programs write them."""

from __future__ import annotations

import json
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from editr1.errors import DataError
from editr1.store import check_columns, read_inside, read_table, stamp_inside

ROW = {"a": "one\u2028two", "b": "zwei; drei, vier", "label": "a"}
HEADER = "a,b,label"


def write(path: Path, text: str, encoding: str = "utf-8") -> Path:
    path.write_bytes(text.encode(encoding))
    return path


@pytest.mark.parametrize("end", ["\n", "\r\n"])
@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig"])
@pytest.mark.parametrize("delimiter", [",", ";", "\t"])
def test_a_csv_is_read_as_it_was_meant(tmp_path: Path, end: str, encoding: str, delimiter: str) -> None:
    cells = delimiter.join(f'"{value}"' for value in ROW.values())
    text = f"{HEADER.replace(',', delimiter)}{end}{cells}{end}"
    assert list(read_table(write(tmp_path / "t.csv", text, encoding))) == [ROW]


@pytest.mark.parametrize("end", ["\n", "\r\n"])
@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig"])
def test_json_lines_are_read_as_they_were_meant(tmp_path: Path, end: str, encoding: str) -> None:
    text = end.join([json.dumps(ROW, ensure_ascii=False), "", json.dumps(ROW), "{cut", "[1]", '{"a": "smile \\ud83d"}'])
    good, same, *bad = read_table(write(tmp_path / "t.jsonl", text, encoding))
    assert good == same == ROW
    assert ["is not JSON" in str(bad[0]), "no JSON object" in str(bad[1]), "half of a surrogate pair" in str(bad[2])] == [True] * 3


def test_a_cell_of_a_csv_may_be_long_and_loosely_quoted(tmp_path: Path) -> None:
    (tmp_path / "t.csv").write_text(f'a,b\n{"x" * 200_000},"say "yes" now"\n1,2\n')
    assert list(read_table(tmp_path / "t.csv")) == [{"a": "x" * 200_000, "b": 'say yes" now"'}, {"a": "1", "b": "2"}]
    for text in ("", "a,b", "a,b\n"):
        (tmp_path / "t.csv").write_text(text)
        assert list(read_table(tmp_path / "t.csv")) == []


def test_parquet_is_read_as_well(tmp_path: Path) -> None:
    pq.write_table(pa.Table.from_pylist([ROW, ROW]), tmp_path / "t.parquet")
    assert list(read_table(tmp_path / "t.parquet")) == [ROW, ROW]
    (tmp_path / "t.parquet").write_bytes(b"PAR1")
    with pytest.raises(DataError, match="cannot be read as Parquet"):
        list(read_table(tmp_path / "t.parquet"))


@pytest.mark.parametrize(
    ("name", "data", "message"),
    [
        ("t.csv", b"a,a,label\n1,2,3\n", "two columns of one name: 'a'"),
        ("t.csv", b'a,"label\n1,2\n', "a quotation mark of the header is never closed"),
        ("t.csv", b'a,label\n1,"two\nlines"\n3,"open\n4,5\n6,7\n', "a quotation mark in line 4 is never closed"),
        ("t.csv", "a,b\nä,ö\n".encode("latin-1"), "not UTF-8"),
        ("t.csv", "a,b\n1,2\n".encode("utf-16"), "not UTF-8"),
        ("t.xlsx", b"PK", "unknown kind of table"),
    ],
)
def test_what_cannot_be_read_is_said_in_one_line(tmp_path: Path, name: str, data: bytes, message: str) -> None:
    (tmp_path / name).write_bytes(data)
    with pytest.raises(DataError, match=message):
        list(read_table(tmp_path / name))


def test_a_column_that_is_a_letter_off_is_named(tmp_path: Path) -> None:
    path = tmp_path / "t.csv"
    check_columns(path, ROW, ("a", "b", "label"), ("annotator",))
    check_columns(path, ROW | {"date": "today"}, ("a", "b", "label"), ("annotator",))
    with pytest.raises(DataError, match="no column 'lable' in its first row: did you mean 'label'"):
        check_columns(path, ROW, ("lable",))
    with pytest.raises(DataError, match="has a column 'anotator': did you mean 'annotator'"):
        check_columns(path, ROW | {"anotator": "x"}, ("a", "b", "label"), ("annotator", "source"))


def test_names_stay_inside_their_root_and_links_are_followed_where_they_may_be(tmp_path: Path) -> None:
    root = tmp_path / "root"
    root.mkdir()
    (tmp_path / "blob").write_bytes(b"data")
    (root / "link.png").symlink_to("../blob")
    assert read_inside(root, "link.png") == b"data"
    assert stamp_inside(root, "link.png")
    with pytest.raises(DataError, match="it is a link"):
        read_inside(root, "link.png", links=False)
    for name in ("../blob", str(tmp_path / "blob"), "x/../../blob", "a\x00b"):
        with pytest.raises(DataError, match=r"outside|zero byte"):
            read_inside(root, name)
        assert stamp_inside(root, name) == ""
