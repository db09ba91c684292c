"""Tables of the user's own, as editors, spreadsheets and other programs write them."""

from __future__ import annotations

import json
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from editr1.errors import DataError
from editr1.store import check_columns, name_in, read_inside, read_table, stamp_inside, whole_table
from editr1.store.foreign import column_names

ROW = {"a": "one\u2028two", "b": "zwei; drei, vier", "label": "a"}
HEADER = "a,b,label"
KEYS = ("key", "value", "kind")


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


def test_a_cell_of_a_csv_may_be_long_and_one_loosely_quoted_is_a_bad_row(tmp_path: Path) -> None:
    (tmp_path / "t.csv").write_text(f'a,b\n{"x" * 200_000},say "yes" now\n3,"say "yes" now"\n1,2\n')
    long, loose, last = read_table(tmp_path / "t.csv")
    assert (long, last) == ({"a": "x" * 200_000, "b": 'say "yes" now'}, {"a": "1", "b": "2"})
    assert str(loose).startswith("bad_row: line 3 has a quotation mark in the midst of a cell")
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
        ("t.ods", b"PK", "unknown kind of table"),
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


@pytest.mark.parametrize(
    ("name", "text", "found"),
    [
        ("t.csv", "sep=;\nkey;value\na;1\n", [{"key": "a", "value": "1"}]),
        ("t.csv", '\n\nkey, value ,kind\na, 1,"x,y"\n\n,,z,,\n', [dict(zip(KEYS, r.split("|"), strict=True)) for r in ("a|1|x,y", "||z")]),
        ("t.csv", ",key,value,,\n0,a,1,,\n", [{"key": "a", "value": "1"}]),
        ("t.tsv", "key\tvalue, in points\na\t1\n", [{"key": "a", "value, in points": "1"}]),
        ("t.csv", "key,value\ra,1\r", [{"key": "a", "value": "1"}]),
        ("t.jsonl", '{"key": "a", "value": NaN}\n', [{"key": "a", "value": None}]),
    ],
)  # fmt: skip
def test_what_spreadsheets_and_programs_put_around_a_table_is_no_part_of_it(tmp_path: Path, name: str, text: str, found: object) -> None:
    path = write(tmp_path / name, text)
    assert list(read_table(path)) == found
    assert [row for _, row in whole_table(path, ())] == found
    assert column_names(path) == list(found[0])  # type: ignore[index]


@pytest.mark.parametrize(
    ("text", "place"),
    [('{"a": 1, "a": 2}\n', "key 'a' occurs more than once"), ('\n{"a": ["\\ud83d"]}\n', "line 2 holds half of a surrogate pair")],
)
def test_a_row_of_which_nobody_knows_what_is_meant_is_a_bad_row(tmp_path: Path, text: str, place: str) -> None:
    path = write(tmp_path / "t.jsonl", text)
    assert place in str(next(read_table(path)))
    with pytest.raises(DataError, match=place):
        whole_table(path, ())


def test_a_name_is_a_text_or_a_whole_number() -> None:
    assert [name_in(cell) for cell in (" a ", 3, 3.0, None, float("nan"), "N/A")] == ["a", "3", "3", "", "", ""]
    for cell in (True, 2.5, ["a"], {"a": 1}, b"a"):
        with pytest.raises(DataError, match="no text and no whole number"):
            name_in(cell)


def test_other_ways_to_name_a_file_are_read_or_said(tmp_path: Path) -> None:
    root = tmp_path / "root"
    (root / "sub").mkdir(parents=True)
    (root / "sub" / "Ä b.png").write_bytes(b"data")
    file = root / "sub" / "Ä b.png"
    for name in ("sub\\Ä b.png", str(file), file.as_uri(), file.as_uri().replace("file://", "FILE://localhost")):
        assert read_inside(root, name) == b"data"
        assert stamp_inside(root, name)
    for name, said in [
        ("https://x.org/a.png", "download it"),
        ("data:image/png;base64," + "A" * 9999, "download it"),
        ("..\\a.png", "outside"),
        ("C:\\sub\\Ä b.png", "outside"),
        ("file:///etc/passwd", "outside"),
        ("file://host/a.png", "another machine"),
        ("sub/a\u0308 B.png ", "there is 'sub/Ä b.png'"),
    ]:
        with pytest.raises(DataError, match=said) as caught:
            read_inside(root, name)
        assert len(str(caught.value)) < 500
