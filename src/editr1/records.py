"""Records as lines of JSON: frozen dataclasses out (`to_json`) and back (`from_json`), each with the schema version.

msgspec checks and decodes; the dataclasses stay as they are. What it cannot do with a dataclass it does with a struct made from it:
refuse an unknown field, and take one of several records (`Judgement | ParseFailure`), which their fields tell apart.
"""

from __future__ import annotations

import dataclasses
import json
import types
import typing
from collections.abc import Callable
from functools import cache
from operator import attrgetter
from typing import Any, TypeVar, cast

import msgspec

from editr1.text import whole_text

SCHEMA_VERSION = 2
"""2: tables are Parquet with a column for each field. A record's line of JSON is the same since 1."""
_READABLE = (1, 2)

T = TypeVar("T")


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
    decoder, build = _reader(cast(Any, cls))
    try:
        found = decoder.decode(line)
    except (msgspec.MsgspecError, UnicodeError) as error:
        problem = str(error).replace("Number out of range", "a number larger than any float")
        raise ValueError(f"{_version_problem(line) or ''}no {cls.__name__}: {problem}") from error
    if found.schema not in _READABLE:
        raise ValueError(f"row of schema version {found.schema}, this program reads version {SCHEMA_VERSION}")
    return cast(T, build(found))


def _version_problem(line: str | bytes) -> str | None:
    """A clause about the version, where a broken row says that another program wrote it."""
    try:
        row = msgspec.json.decode(line)
    except (msgspec.MsgspecError, UnicodeError):
        return None
    version = row.get("schema") if isinstance(row, dict) else SCHEMA_VERSION
    return None if version in _READABLE else f"row of schema version {version}, this program reads version {SCHEMA_VERSION}; "


# --- from a dataclass to what msgspec decodes, and back ---------------------------------------------

Build = Callable[[Any], Any]


@cache
def hints(cls: type) -> dict[str, Any]:
    """The types of a record's fields."""
    found = typing.get_type_hints(cls)
    return {field.name: found[field.name] for field in dataclasses.fields(cls)}


def record_options(hint: Any) -> list[type]:
    """The records of a union such as `Judgement | ParseFailure | None`; empty for any other type."""
    if typing.get_origin(hint) not in (typing.Union, types.UnionType):
        return []
    return [cast(type, option) for option in typing.get_args(hint) if dataclasses.is_dataclass(option)]


def all_fields(records: list[type]) -> dict[str, Any]:
    """The fields of several records side by side, as one column or struct holds them."""
    merged: dict[str, Any] = {}
    for record in records:
        for name, hint in hints(record).items():
            assert merged.setdefault(name, hint) == hint, f"{name} has two types in {records}"
    return merged


@cache
def _reader(cls: type) -> tuple[msgspec.json.Decoder[Any], Build]:
    struct, build = _struct(cls, ("schema", int)), _builder(cls)
    assert build is not None
    return msgspec.json.Decoder(struct), build


@cache
def _struct(cls: type, *extra: tuple[str, Any]) -> type[msgspec.Struct]:
    fields: list[Any] = list(extra)
    for field in dataclasses.fields(cast(Any, cls)):
        default = {"default": field.default, "default_factory": field.default_factory}
        known = {key: value for key, value in default.items() if value is not dataclasses.MISSING}
        fields.append((field.name, _decodable(hints(cls)[field.name]), msgspec.field(**cast(Any, known))))
    return msgspec.defstruct(cls.__name__, fields, forbid_unknown_fields=True, kw_only=True)


def _decodable(hint: Any) -> Any:
    origin, args = typing.get_origin(hint), typing.get_args(hint)
    if dataclasses.is_dataclass(hint):
        return _struct(cast(type, hint))
    if origin in (typing.Union, types.UnionType):
        records = record_options(hint)
        if len(records) < 2:
            return typing.Union[tuple(_decodable(option) for option in args)]  # noqa: UP007  # from a tuple
        fields = [(name, typing.Union[_decodable(kind), msgspec.UnsetType], msgspec.UNSET) for name, kind in all_fields(records).items()]  # noqa: UP007
        one = msgspec.defstruct(" or ".join(r.__name__ for r in records), fields, forbid_unknown_fields=True)
        return typing.Union[(one, *(option for option in args if option not in records))]
    if origin is tuple:
        return tuple.__class_getitem__(tuple(option if option is ... else _decodable(option) for option in args))
    return hint


@cache
def _builder(hint: Any) -> Build | None:
    """What turns a decoded value into the record's; None where it is that already."""
    origin, args = typing.get_origin(hint), typing.get_args(hint)
    if dataclasses.is_dataclass(hint):
        return _record_builder(cast(type, hint))
    records = record_options(hint)
    if records:
        one = _record_builder(records[0]) if len(records) == 1 else _union_builder(records)
        return lambda value: one(value) if isinstance(value, msgspec.Struct) else value
    item = _builder(args[0]) if origin is tuple and args[-1] is ... else None  # `tuple[str, float]` holds plain values
    return (lambda values: tuple(map(item, values))) if item else None


def _record_builder(cls: type) -> Build:
    names = list(hints(cls))
    nested = [(index, build) for index, hint in enumerate(hints(cls).values()) if (build := _builder(hint))]
    get = attrgetter(*names)
    values_of = get if len(names) > 1 else lambda found: (get(found),)
    if not nested:
        return lambda found: cls(*values_of(found))

    def build_record(found: Any) -> Any:
        values = list(values_of(found))
        for index, build in nested:
            values[index] = build(values[index])
        return cls(*values)

    return build_record


def _union_builder(records: list[type]) -> Build:
    """The first record whose fields hold all that is there, and whose required ones are there."""
    names = list(all_fields(records))
    nested = {name: item for name, hint in all_fields(records).items() if (item := _builder(hint))}
    required = {record: _required(record) for record in records}

    def build(found: Any) -> Any:
        there = {name: value for name in names if (value := getattr(found, name)) is not msgspec.UNSET}
        for record in records:
            if there.keys() <= hints(record).keys() and required[record] <= there.keys():
                return record(**{name: nested[name](value) if name in nested else value for name, value in there.items()})
        raise ValueError(f"expected {' or '.join(r.__name__ for r in records)}, found the fields {', '.join(there) or 'of neither'}")

    return build


def _required(cls: type) -> set[str]:
    fields = dataclasses.fields(cls)
    return {f.name for f in fields if f.default is dataclasses.MISSING and f.default_factory is dataclasses.MISSING}
