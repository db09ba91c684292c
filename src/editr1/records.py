"""Records as lines of JSON, each with the schema version, and as typed columns of tables: frozen dataclasses out and back.

msgspec checks and decodes the dataclasses as they are. What it does not do for them is done here: to refuse an unknown field, and to take
one of several records (`either`), which their fields tell apart.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
import types
import typing
from abc import ABC, ABCMeta
from collections.abc import Iterator, Sequence
from functools import cache
from typing import Any, ClassVar, TypeVar, cast

import msgspec

from editr1.text import whole_text

if typing.TYPE_CHECKING:
    import pyarrow as pa  # 0.1 s, and `import editr1` shall be fast

SCHEMA_VERSION = 2
"""2: tables are Parquet with a column for each field. A record's line of JSON is the same since 1."""
_READABLE = (1, 2)

KEY, DROPPED = "row_key", "row_dropped"

T = TypeVar("T")


def stable_id(*parts: str) -> str:
    """16 hex digits that depend on the parts and their borders, the same on every machine.

    >>> stable_id("ab", "c") == stable_id("a", "bc")
    False
    """
    return hashlib.sha256("\x1f".join(parts).encode("utf-8", "surrogatepass")).hexdigest()[:16]


def derive_seed(run_seed: int, *parts: str | int) -> int:
    """A seed in [0, 2**31) for (run seed, item id, index): any row can be made again alone."""
    return int(stable_id(str(run_seed), *map(str, parts)), 16) % 2**31


def to_json(record: Any) -> str:
    """One line of JSON with the schema version. Keys keep the field order, so equal records give equal bytes.

    Half a surrogate pair, which no UTF-8 file can hold, becomes U+FFFD. Raises ValueError for a number that is not finite.
    """
    return f'{{"schema":{SCHEMA_VERSION},{encode(record).decode()[1:]}'


def encode(record: Any) -> bytes:
    """The record as `to_json` writes it, without the version."""
    try:
        line = msgspec.json.encode(record)
    except UnicodeEncodeError:
        return msgspec.json.encode(json.loads(whole_text(_checked(record))))
    if b"null" in line:  # how msgspec writes a number that is not finite
        _checked(record)
    return line


def _checked(record: Any) -> str:
    return json.dumps(to_plain(record), ensure_ascii=False, allow_nan=False)


def to_plain(record: Any) -> dict[str, Any]:
    """The record as dicts, lists and plain values."""
    return cast(dict[str, Any], msgspec.to_builtins(record))


def from_json(cls: type[T], line: str | bytes) -> T:
    """The record that `to_json` wrote. Raises ValueError for another version, a missing or unknown field, a value of another type."""
    problem = ""
    try:
        record = _decoder(cast(type, cls)).decode(line)
        ours = b'{"schema":%d,%b' % (SCHEMA_VERSION, msgspec.json.encode(record)[1:])
        if ours == (line.encode() if isinstance(line, str) else line):  # needs no second look
            return cast(T, record)
    except (msgspec.MsgspecError, UnicodeError) as error:
        problem = str(error).replace("Number out of range", "a number larger than any float")
    try:
        row = msgspec.json.decode(line)
    except (msgspec.MsgspecError, UnicodeError) as error:
        raise ValueError(f"no {cls.__name__}: {error}") from error
    version = row.pop("schema", None) if isinstance(row, dict) else SCHEMA_VERSION
    if version not in _READABLE:
        raise ValueError(f"row of schema version {version}, this program reads version {SCHEMA_VERSION}")
    if problem := problem or _unknown(row, to_plain(record), "$"):
        raise ValueError(f"no {cls.__name__}: {problem}")
    return cast(T, record)


@cache
def _decoder(cls: type) -> msgspec.json.Decoder[Any]:
    return msgspec.json.Decoder(cls, dec_hook=_one_of)


def from_plain(rows: Sequence[Any], cls: type[T]) -> list[T]:
    """The records of dicts with their fields; an unknown field says nothing. Raises msgspec.ValidationError for what is no such record."""
    return msgspec.convert(rows, list[cls], dec_hook=_one_of)  # type: ignore[valid-type]


def _unknown(found: Any, known: Any, at: str) -> str:
    """A complaint about the first field that is in a row and not in the record that it became; empty where there is none."""
    if isinstance(found, dict):
        if odd := found.keys() - known.keys():
            return f"Object contains unknown field `{min(odd)}` - at `{at}`"
        return next(filter(None, (_unknown(value, known[name], f"{at}.{name}") for name, value in found.items())), "")
    if isinstance(found, list):
        return next(filter(None, (_unknown(*pair, f"{at}[{i}]") for i, pair in enumerate(zip(found, known, strict=True)))), "")
    return ""


# --- one of several records -------------------------------------------------------------------------


class Either(ABC):
    """The type of a field that holds one of several records."""

    options: ClassVar[tuple[type, ...]]


def either(*records: type) -> type[Either]:
    """The type of values that are one of these records. msgspec refuses a union of dataclasses, and asks us about a class of our own."""
    made = ABCMeta(" or ".join(record.__name__ for record in records), (Either,), {"options": records})
    for record in records:
        made.register(record)
    return cast(type[Either], made)


def _one_of(kind: type, value: Any) -> Any:
    """The first record that takes all the fields that are there; in a row of a table those of the others are null."""
    if not issubclass(kind, Either) or not isinstance(value, dict):
        raise ValueError(f"Expected `object`, got `{'null' if value is None else type(value).__name__}`")
    there = {name for name in value if value[name] is not None}
    for record, required, known in _options(kind):
        if required <= there <= known:
            return msgspec.convert(value, record, dec_hook=_one_of)
    raise ValueError(f"expected {kind.__name__}, found the fields {', '.join(sorted(there)) or 'of neither'}")


@cache
def _options(kind: type[Either]) -> list[tuple[type, set[str], set[str]]]:
    return [(record, hints(record).keys() - defaulted(record), set(hints(record))) for record in kind.options]


@cache
def defaulted(cls: type) -> set[str]:
    """The fields of a record that older tables and lines may lack."""
    fields = dataclasses.fields(cls)
    return {f.name for f in fields if f.default is not dataclasses.MISSING or f.default_factory is not dataclasses.MISSING}


@cache
def hints(cls: type) -> dict[str, Any]:
    """The types of a record's fields."""
    found = typing.get_type_hints(cls)
    return {field.name: found[field.name] for field in dataclasses.fields(cls)}


# --- columns ------------------------------------------------------------------------------------------
#
#    str, Literal -> string     int -> int64     float -> float64     bool -> bool     tuple[X, ...] -> list<X>
#    dict[str, X] -> list<struct<key, value>>, which every reader of Parquet knows
#    a record -> struct         one of several records -> one struct with the fields of all, those of the others null
#
# A table has the columns `row_key` (the item that a row was made from) and `row_dropped` (why it left no record, else null), and then
# one for each field of its record, all null in a dropped row.


@cache
def schema_of(record: type) -> pa.Schema:
    """The columns of a table of these records."""
    import pyarrow as pa

    return pa.schema([(KEY, pa.string()), (DROPPED, pa.string()), *arrow_type(record)])


def arrow_type(hint: Any) -> pa.DataType:
    """The type of a field's column. Raises TypeError for a type that has none."""
    import pyarrow as pa

    plain = {str: pa.string(), int: pa.int64(), float: pa.float64(), bool: pa.bool_()}
    hint = _not_none(hint)
    origin, args = typing.get_origin(hint), typing.get_args(hint)
    if hint in plain:
        return plain[hint]
    if fields := _fields(hint):
        return pa.struct([(name, arrow_type(kind)) for name, kind in fields.items()])
    if origin is typing.Literal and all(isinstance(option, str) for option in args):
        return pa.string()
    if origin is tuple and args[-1] is ...:
        return pa.list_(arrow_type(args[0]))
    if origin is dict and args[0] is str:
        return pa.list_(pa.struct([("key", pa.string()), ("value", arrow_type(args[1]))]))
    raise TypeError(f"a field of type {hint} cannot be a column of a table")


def _not_none(hint: Any) -> Any:
    """X of `X | None`: every column can hold null."""
    options = [option for option in typing.get_args(hint) if option is not types.NoneType]
    return options[0] if typing.get_origin(hint) in (typing.Union, types.UnionType) and len(options) == 1 else hint


def _fields(hint: Any) -> dict[str, Any]:
    """The fields of a record, or of several side by side; empty for any other type."""
    if dataclasses.is_dataclass(hint):
        return hints(typing.cast(type, hint))
    merged: dict[str, Any] = {}
    for record in hint.options if isinstance(hint, type) and issubclass(hint, Either) else ():
        for name, kind in hints(record).items():
            assert merged.setdefault(name, kind) == kind, f"{name} has two types in {hint.__name__}"
    return merged


def reads(record: type, found: pa.Schema) -> bool:
    """Whether a table with these columns holds such records, perhaps from before a field with a default was added."""
    import pyarrow as pa

    return found.names[:2] == [KEY, DROPPED] and _fits(pa.struct(list(found)[2:]), record)


def _fits(found: pa.DataType, hint: Any) -> bool:
    """Whether a column of type `found` holds values of a field: as `arrow_type` says, or from before a field with a default was added."""
    hint = _not_none(hint)
    if typing.get_origin(hint) is tuple and hasattr(found, "value_type"):
        return _fits(found.value_type, typing.get_args(hint)[0])
    if not dataclasses.is_dataclass(hint):
        return bool(found.equals(arrow_type(hint)))
    record = typing.cast(type, hint)
    there = {field.name: field.type for field in found} if hasattr(found, "fields") else {}
    expected = [name for name in hints(record) if name in there or name not in defaulted(record)]
    return list(there) == expected and all(_fits(there[name], hints(record)[name]) for name in expected)


def to_table(record: type, rows: Sequence[tuple[str, bytes | None, str | None]]) -> pa.Table:
    """The table of (key, line of JSON or None, why there is none). Raises ValueError or TypeError for a line that is no such record."""
    import pyarrow as pa

    found, names = [], hints(record).keys()
    for key, line, dropped in rows:
        values = {} if line is None else msgspec.json.decode(line)
        if line is not None and values.keys() != names:
            raise ValueError(f"row {key} has not the fields of {record.__name__}, but {', '.join(values)}")
        for name in _dicts(record) if values else ():
            values[name] = [{"key": part, "value": value} for part, value in values[name].items()]
        values[KEY], values[DROPPED] = key, dropped
        found.append(values)
    return pa.Table.from_pylist(found, schema=schema_of(record))


def records_of(record: type, batch: pa.RecordBatch) -> Iterator[tuple[str, Any]]:
    """(key, record) of the rows that have one, in order. Raises ValueError for a value that the record refuses."""
    rows = [row for row in batch.to_pylist() if row[DROPPED] is None]
    for name in _dicts(record):
        for row in rows:
            row[name] = {pair["key"]: pair["value"] for pair in row.get(name) or ()}
    try:
        return zip([row[KEY] for row in rows], from_plain(rows, record), strict=True)
    except msgspec.ValidationError as error:
        raise ValueError(str(error)) from error


@cache
def _dicts(record: type) -> list[str]:
    return [name for name, hint in hints(record).items() if typing.get_origin(hint) is dict]


def drops_of(batch: pa.RecordBatch) -> Iterator[tuple[str, str]]:
    """(key, reason) of the rows that were dropped."""
    return ((row[KEY], row[DROPPED]) for row in batch.to_pylist() if row[DROPPED] is not None)
