"""Records as typed columns: what a dataclass looks like in Arrow, and how a batch of rows becomes records again.

    str, Literal -> string     int -> int64     float -> float64     bool -> bool     tuple[X, ...] -> list<X>
    dict[str, X] -> list<struct<key, value>>, which every reader of Parquet knows
    a record -> struct         several records (`Judgement | ParseFailure`) -> one struct with the fields of all, those of the others null

A table has the columns `row_key` (the item that a row was made from) and `row_dropped` (why it left no record, else null), and then one
for each field of its record, all null in a dropped row.
"""

from __future__ import annotations

import dataclasses
import io
import types
import typing
from collections.abc import Callable, Iterator, Sequence
from functools import cache
from itertools import accumulate, pairwise
from typing import Any

import msgspec

from editr1.records import all_fields, hints, record_options

if typing.TYPE_CHECKING:
    import pyarrow as pa  # 0.1 s, and `import editr1` shall be fast

KEY, DROPPED = "row_key", "row_dropped"


@cache
def schema_of(record: type) -> pa.Schema:
    """The columns of a table of these records."""
    import pyarrow as pa

    fields = [pa.field(name, arrow_type(hint)) for name, hint in hints(record).items()]
    return pa.schema([pa.field(KEY, pa.string()), pa.field(DROPPED, pa.string()), *fields])


def arrow_type(hint: Any) -> pa.DataType:
    """The type of a field's column. Raises TypeError for a type that has none."""
    import pyarrow as pa

    plain = {str: pa.string(), int: pa.int64(), float: pa.float64(), bool: pa.bool_()}
    origin, args = typing.get_origin(hint), typing.get_args(hint)
    if hint in plain:
        return plain[hint]
    if dataclasses.is_dataclass(hint):
        return pa.struct([(name, arrow_type(kind)) for name, kind in hints(typing.cast(type, hint)).items()])
    if origin is typing.Literal and all(isinstance(option, str) for option in args):
        return pa.string()
    if origin in (typing.Union, types.UnionType):
        records = record_options(hint)
        if len(records) > 1:
            return pa.struct([(name, arrow_type(kind)) for name, kind in all_fields(records).items()])
        (only,) = (option for option in args if option is not types.NoneType)
        return arrow_type(only)
    if origin is tuple and args[-1] is ...:
        return pa.list_(arrow_type(args[0]))
    if origin is dict and args[0] is str:
        return pa.list_(pa.struct([("key", pa.string()), ("value", arrow_type(args[1]))]))
    raise TypeError(f"a field of type {hint} cannot be a column of a table")


def reads(record: type, found: pa.Schema) -> bool:
    """Whether a table with these columns holds such records, perhaps from before a field with a default was added."""
    import pyarrow as pa

    return found.names[:2] == [KEY, DROPPED] and _fits(pa.struct([found.field(index) for index in range(2, len(found.names))]), record)


def _fits(found: pa.DataType, hint: Any) -> bool:
    """Whether a column of type `found` holds values of a field: as `arrow_type` says, or from before a field with a default was added."""
    origin, args = typing.get_origin(hint), typing.get_args(hint)
    if origin in (typing.Union, types.UnionType) and len(record_options(hint)) < 2:
        return _fits(found, next(option for option in args if option is not types.NoneType))
    if origin is tuple and args[-1] is ... and hasattr(found, "value_type"):
        return _fits(found.value_type, args[0])
    if not dataclasses.is_dataclass(hint):
        return bool(found.equals(arrow_type(hint)))
    record = typing.cast(type, hint)
    there = {field.name: field.type for field in found} if hasattr(found, "fields") else {}
    expected = [name for name in hints(record) if name in there or name not in _defaults(record)]
    return list(there) == expected and all(_fits(there[name], hints(record)[name]) for name in expected)


@cache
def _defaults(record: type) -> dict[str, Any]:
    """What a field holds in tables from before it was there."""
    return {field.name: field.default for field in dataclasses.fields(record) if field.default is not dataclasses.MISSING}


def to_batch(record: type, rows: Sequence[tuple[str, bytes | None, str | None]]) -> pa.Table:
    """The table of (key, line of JSON or None, why there is none). Raises ValueError for a line that is no such record."""
    import pyarrow.json

    maps = [name for name, hint in hints(record).items() if typing.get_origin(hint) is dict]
    lines = b"\n".join(
        b'{"%b":%b,"%b":%b%b' % (KEY.encode(), _json(key), DROPPED.encode(), _json(dropped), b"}" if line is None else _rest(line, maps))
        for key, line, dropped in rows
    )
    options = pyarrow.json.ReadOptions(use_threads=False, block_size=len(lines) + 1)
    parse = pyarrow.json.ParseOptions(explicit_schema=schema_of(record), unexpected_field_behavior="error")
    return pyarrow.json.read_json(io.BytesIO(lines), read_options=options, parse_options=parse)


def _json(value: str | None) -> bytes:
    return msgspec.json.encode(value)


def _rest(line: bytes, maps: Sequence[str]) -> bytes:
    """The fields of a record's line after a comma, dicts as lists of their pairs."""
    if maps:
        values = msgspec.json.decode(line)
        pairs = {name: [{"key": key, "value": value} for key, value in values[name].items()] for name in maps}
        line = msgspec.json.encode(values | pairs)
    return b"," + line[1:]


def records_of(record: type, batch: pa.RecordBatch) -> Iterator[tuple[str, Any]]:
    """(key, record) of the rows that have one, in order. Raises ValueError for a value that the record refuses."""
    import pyarrow.compute as pc

    batch = batch.filter(pc.is_null(batch[DROPPED]))
    columns = _columns(record, {name: batch[name] for name in batch.schema.names}, len(batch))
    return zip(batch[KEY].to_pylist(), map(record, *columns), strict=True)


def _columns(record: type, there: dict[str, Any], length: int) -> list[Sequence[Any]]:
    """The fields' values of each row."""
    return [_reader(hint)(there[name]) if name in there else [_defaults(record)[name]] * length for name, hint in hints(record).items()]


def drops_of(batch: pa.RecordBatch) -> Iterator[tuple[str, str]]:
    """(key, reason) of the rows that were dropped."""
    import pyarrow.compute as pc

    batch = batch.filter(pc.is_valid(batch[DROPPED]))
    return zip(batch[KEY].to_pylist(), batch[DROPPED].to_pylist(), strict=True)


Read = Callable[[Any], Sequence[Any]]
"""From an Arrow array to one Python value a row."""


@cache
def _reader(hint: Any) -> Read:
    """Columns are taken apart down to their leaves: an Arrow row at a time costs ten times as much."""
    origin, args = typing.get_origin(hint), typing.get_args(hint)
    if dataclasses.is_dataclass(hint):
        return _record_reader(typing.cast(type, hint))
    if origin is typing.Literal:
        return _literal_reader(args)
    if origin in (typing.Union, types.UnionType):
        records = record_options(hint)
        return _union_reader(records) if len(records) > 1 else _reader(*(option for option in args if option is not types.NoneType))
    if origin is tuple:
        return _list_reader(_reader(args[0]))
    if origin is dict:
        return lambda array: [{pair["key"]: pair["value"] for pair in pairs or ()} for pairs in array.to_pylist()]
    return _leaves


def _leaves(array: Any) -> Sequence[Any]:
    if array.null_count or len(array) == 0:
        return typing.cast(list[Any], array.to_pylist())
    return typing.cast(list[Any], array.to_numpy(zero_copy_only=False).tolist())


def _literal_reader(options: tuple[Any, ...]) -> Read:
    known = {*options, None}

    def read(array: Any) -> Sequence[Any]:
        values = _leaves(array)
        if odd := set(values) - known:
            raise ValueError(f"{min(odd)!r} is none of {', '.join(map(str, options))}")
        return values

    return read


def _list_reader(item: Read) -> Read:
    def read(array: Any) -> Sequence[Any]:
        flat = item(array.flatten())
        ends = accumulate(array.value_lengths().fill_null(0).to_pylist(), initial=0)
        lists = [tuple(flat[start:end]) for start, end in pairwise(ends)]
        return lists if not array.null_count else _where(array, lists)

    return read


def _record_reader(record: type) -> Read:
    def read(array: Any) -> Sequence[Any]:
        there = dict(zip((field.name for field in array.type), array.flatten(), strict=True))
        rows = zip(*_columns(record, there, len(array)), strict=True)
        if not array.null_count:
            return [record(*values) for values in rows]
        return [record(*values) if there else None for values, there in zip(rows, array.is_valid().to_pylist(), strict=True)]

    return read


def _union_reader(records: list[type]) -> Read:
    """A row is the first record that has all it needs: the fields of the others are null."""
    names = list(all_fields(records))
    readers = [_reader(hint) for hint in all_fields(records).values()]
    places = {record: [names.index(name) for name in hints(record)] for record in records}

    def one(values: Sequence[Any], there: bool) -> Any:
        for record, indices in places.items():
            own = [values[index] for index in indices]
            if there and None not in own:
                return record(*own)
        if there:
            raise ValueError(f"a row is neither {' nor '.join(record.__name__ for record in records)}")
        return None

    def read(array: Any) -> Sequence[Any]:
        rows = zip(*(reader(column) for reader, column in zip(readers, array.flatten(), strict=True)), strict=True)
        return [one(values, there) for values, there in zip(rows, array.is_valid().to_pylist(), strict=True)]

    return read


def _where(array: Any, values: Sequence[Any]) -> Sequence[Any]:
    return [value if there else None for value, there in zip(values, array.is_valid().to_pylist(), strict=True)]
