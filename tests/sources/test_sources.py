"""Where tasks come from: each layout gives its rows in order, and a bad row is a row with a reason."""

from __future__ import annotations

import io
import json
import os
import tarfile
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import Image

from editr1.config import Component, create
from editr1.errors import DataError
from editr1.sources.base import BadRow, SourceRow


def png(colour: str, side: int = 40) -> bytes:
    buffer = io.BytesIO()
    Image.effect_noise((side, side), 50).convert("RGB").save(buffer, "PNG") if colour == "noise" else Image.new(
        "RGB", (side, side), colour
    ).save(buffer, "PNG")
    return buffer.getvalue()


def rows(kind: str, **options: object) -> list[SourceRow | BadRow]:
    source = create("sources", Component(kind, options))
    found = list(source)
    assert [type(row) for row in source] == [type(row) for row in found], "a source must be readable twice"
    return found


def reasons(found: list[SourceRow | BadRow]) -> list[str]:
    """Why rows are none, those whose picture cannot be had included."""
    reasons = []
    for row in found:
        if isinstance(row, BadRow):
            reasons.append(row.reason)
            continue
        try:
            row.load()
        except DataError as error:
            reasons.append(str(error))
    return reasons


def readable(row: SourceRow | BadRow) -> bool:
    return isinstance(row, SourceRow) and not reasons([row])


@pytest.mark.parametrize("suffix", ["jsonl", "csv"])
def test_a_table_of_the_users_own(tmp_path: Path, suffix: str) -> None:
    root = tmp_path / "data"
    root.mkdir()
    (root / "a.png").write_bytes(png("red"))
    (root / "empty.png").write_bytes(b"")
    (tmp_path / "secret.png").write_bytes(png("blue"))
    names = ["a.png", "missing.png", "empty.png", "../secret.png", str(tmp_path / "secret.png"), ""]
    lines = [{"file": name, "text": "make it green", "kind": "colour"} for name in names]
    path = root / f"tasks.{suffix}"
    if suffix == "csv":
        path.write_text("file,text,kind\n" + "".join(f"{r['file']},{r['text']},{r['kind']}\n" for r in lines) + "too,few\n")
    else:
        path.write_text("".join(json.dumps(r) + "\n" for r in lines) + "{cut\n")
    found = rows("table", path=str(path), image="file", instruction="text")
    first = found[0]
    assert isinstance(first, SourceRow)
    assert (first.load(), first.instruction, first.kind, first.origin) == (png("red"), "make it green", "colour", f"(tasks.{suffix} row 1)")
    for reason, part in zip(reasons(found), ["cannot read", "zero bytes", "outside", "outside", "expected a path", "bad_row"], strict=True):
        assert part in reason


def test_several_source_pictures_in_one_column_or_in_several(tmp_path: Path) -> None:
    for name in ("a", "b"):
        (tmp_path / f"{name}.png").write_bytes(png("red" if name == "a" else "blue"))
    listed = tmp_path / "listed.jsonl"
    lists = (["a.png", "b.png"], [], ["a.png", ""])
    listed.write_text("".join(json.dumps({"image": names, "instruction": "x"}) + "\n" for names in lists))
    found = rows("table", path=str(listed))
    assert isinstance(found[0], SourceRow)
    assert found[0].load() == (png("red"), png("blue"))
    assert found[0].stamp is not None
    assert len(found[0].stamp().split(" ")) >= 2
    assert [reason[:10] for reason in reasons(found[1:])] == ["bad_image:", "bad_image:"]

    pq.write_table(pa.table({"first": [{"bytes": png("red")}], "second": ["b.png"], "instruction": ["x"]}), tmp_path / "two.parquet")
    (row,) = rows("table", path=str(tmp_path / "two.parquet"), image=["first", "second"])
    assert isinstance(row, SourceRow)
    assert row.load() == (png("red"), png("blue"))


def test_values_that_are_no_text_reach_the_stage(tmp_path: Path) -> None:
    (tmp_path / "a.png").write_bytes(png("red"))
    path = tmp_path / "t.jsonl"
    path.write_text('{"image": "a.png", "instruction": NaN}\n{"image": 3, "instruction": "x"}\n[1]\n')
    found = rows("table", path=str(path))
    assert isinstance(found[0], SourceRow)
    assert found[0].instruction is None  # which the tasks stage drops with a reason
    assert len(reasons(found)) == 2


def test_a_plain_folder(tmp_path: Path) -> None:
    (tmp_path / "sub").mkdir()
    for name, text in {"b.png": "first\n\n second \n", "sub/a.JPG": "third", "c.webp": None}.items():
        (tmp_path / name).write_bytes(png("red"))
        if text is not None:
            (tmp_path / name).with_suffix(".txt").write_text(text)
    found = rows("folder", path=str(tmp_path))
    assert [row.instruction for row in found if isinstance(row, SourceRow)] == ["first", "second", "third"]
    assert "there is no c.txt" in reasons(found)[0]


def imgedit(folder: Path) -> dict[str, bytes]:
    """A download in the published layout: tables, one split tar, one whole tar, one unpacked picture."""
    pictures = {f"part1/{i}/original.png": png("noise") for i in range(4)} | {"part2/x.png": png("noise")}
    tars = {"part1.tar": [n for n in pictures if n.startswith("part1")], "part2.tar": ["part2/x.png"]}
    for tar_name, names in tars.items():
        buffer = io.BytesIO()
        with tarfile.open(fileobj=buffer, mode="w") as tar:
            for name in names:
                info = tarfile.TarInfo(f"./{name}")
                info.size = len(pictures[name])
                tar.addfile(info, io.BytesIO(pictures[name]))
        data = buffer.getvalue()
        if tar_name == "part1.tar":
            third = len(data) // 3 + 1
            for i in range(3):
                (folder / f"{tar_name}.split.{i:03d}").write_bytes(data[i * third : (i + 1) * third])
        else:
            (folder / tar_name).write_bytes(data)
    pictures["loose/y.png"] = png("blue")
    (folder / "loose").mkdir()
    (folder / "loose" / "y.png").write_bytes(pictures["loose/y.png"])
    single = [{"input_images": [f"part1/{i}/original.png"], "output_images": ["o"], "prompt": f"edit {i}"} for i in range(3)]
    single.append({"input_images": ["gone.png"], "output_images": ["o"], "prompt": "lost"})
    single.append({"input_images": [], "output_images": [], "prompt": "none"})
    turns = [
        {"input_images": ["part1/3/original.png"], "output_images": ["o"], "prompt": "turn one"},
        {"input_images": ["part2/x.png", "loose/y.png"], "output_images": ["o"], "prompt": "turn two"},
        {"input_images": ["loose/y.png"], "output_images": ["o"], "prompt": "turn three"},
    ]
    pq.write_table(pa.Table.from_pylist(single), folder / "add.parquet")
    pq.write_table(pa.Table.from_pylist([{"data": turns}]), folder / "multi.parquet")
    return pictures


def test_imgedit_in_its_published_layout(tmp_path: Path) -> None:
    pictures = imgedit(tmp_path)
    found = rows("imgedit", path=str(tmp_path))
    good = [row for row in found if readable(row)]
    assert [row.instruction for row in good] == ["edit 0", "edit 1", "edit 2", "turn one", "turn two", "turn three"]
    expected = [f"part1/{i}/original.png" for i in range(4)] + ["part2/x.png", "loose/y.png"]
    assert [row.load() for row in good] == [pictures[name] for name in expected]
    assert [row.kind for row in good] == ["add"] * 3 + ["multi"] * 3
    assert good[4].origin == "(multi.parquet row 0) turn 2"
    assert ["cannot read" in reason or "input_images" in reason for reason in reasons(found)] == [True, True]
    assert len(rows("imgedit", path=str(tmp_path), tables="multi*.parquet")) == 3


def test_a_missing_piece_of_a_tar_is_named(tmp_path: Path) -> None:
    imgedit(tmp_path)
    (tmp_path / "part1.tar.split.000").unlink()
    with pytest.raises(DataError, match=r"part1\.tar cannot be read as a tar .* is a piece missing\? found 2"):
        rows("imgedit", path=str(tmp_path))


def test_a_source_that_is_not_there_is_named(tmp_path: Path) -> None:
    for kind, path in [("table", "no.jsonl"), ("folder", "nowhere"), ("imgedit", "nowhere")]:
        with pytest.raises(DataError, match="there is no f"):
            rows(kind, path=str(tmp_path / path))


def test_a_mistyped_column_is_named_instead_of_dropping_every_row(tmp_path: Path) -> None:
    path = tmp_path / "edits.csv"
    path.write_text("image,instruction\na.png,make it red\n")
    with pytest.raises(DataError, match=r"no column 'instuction' .* did you mean 'instruction'"):
        rows("table", path=str(path), instruction="instuction")


@pytest.mark.parametrize("kind", ["folder", "table"])
def test_a_changed_file_changes_its_stamp(tmp_path: Path, kind: str) -> None:
    (tmp_path / "a.png").write_bytes(png("red"))
    (tmp_path / "a.txt").write_text("make it green\u2028now\r\n", newline="")
    (tmp_path / "t.jsonl").write_text('{"image": "a.png", "instruction": "make it green\\u2028now"}\n')
    (row,) = rows(kind, path=str(tmp_path if kind == "folder" else tmp_path / "t.jsonl"))
    assert isinstance(row, SourceRow)
    assert row.instruction == "make it green\u2028now"
    assert row.stamp is not None
    stamp = row.stamp()
    (tmp_path / "a.png").write_bytes(png("noise"))
    assert row.stamp() != stamp
    assert row.load() == (tmp_path / "a.png").read_bytes()


def test_links_of_a_folder_of_the_users_own_are_followed(tmp_path: Path) -> None:
    (tmp_path / "blobs").mkdir()
    (tmp_path / "blobs" / "1").write_bytes(png("red"))
    (tmp_path / "snap").mkdir()
    (tmp_path / "snap" / "a.png").symlink_to("../blobs/1")
    (tmp_path / "snap" / "t.jsonl").write_text('{"image": "a.png", "instruction": "x"}\n{"image": "../blobs/1", "instruction": "x"}\n')
    first, second = rows("table", path=str(tmp_path / "snap" / "t.jsonl"))
    assert readable(first)
    assert "outside" in reasons([second])[0]


def test_an_odd_file_of_a_folder_is_a_bad_row_and_a_name_need_not_be_utf_8(tmp_path: Path) -> None:
    for name in ("folder", "pipe", "latin"):
        (tmp_path / f"{name}.png").write_bytes(png("red"))
    (tmp_path / "folder.txt").mkdir()
    os.mkfifo(tmp_path / "pipe.txt")  # opened plainly, it would wait for its writer for ever
    (tmp_path / "latin.txt").write_bytes(b"\xe9")
    Path(os.fsdecode(os.fsencode(tmp_path) + b"/\xff.png")).write_bytes(png("red"))
    Path(os.fsdecode(os.fsencode(tmp_path) + b"/\xff.txt")).write_text("make it green")
    *bad, good = rows("folder", path=str(tmp_path))
    assert isinstance(good, SourceRow)
    assert good.stamp is not None
    assert (good.load(), good.stamp().encode()[:3]) == (png("red"), "\ufffd".encode())
    for reason, part in zip(reasons(bad), ["no regular file", "not UTF-8", "no regular file"], strict=True):
        assert part in reason
