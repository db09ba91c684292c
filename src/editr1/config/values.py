"""Plain values of a recipe as a type hint wants them, or a message that names the key; and settings back as plain values."""

from __future__ import annotations

import dataclasses
import numbers
import types
import typing
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from editr1.errors import ConfigError, nearest
from editr1.text import without_secrets

_UNIONS, _LISTS, _GROUPS = (typing.Union, types.UnionType), (tuple, list, Sequence), (dict, Mapping)


@dataclass(frozen=True)
class Component:
    """Something chosen by name: a file of the kind's folder, or `package.module:Name` for outside code.

    In YAML `{id: openai_api, options: {model: m}}`, or only the id.
    """

    id: str
    options: dict[str, Any] = field(default_factory=dict)
    """Keyword arguments of the component's `build`."""


def to_plain(value: Any, without: frozenset[str] = frozenset()) -> Any:
    """A config as plain JSON values, the same for equal configs; fields named in `without` are left out at every depth.

    `without=SPEED_KEYS` gives what a result depends on: how fast it was made does not change it. Options that hold a key, and the secrets
    of an address, are never in it: what it gives is written into runs and reports.
    """
    return without_secrets(_plain(value, without))


def _plain(value: Any, without: frozenset[str]) -> Any:
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return {f.name: _plain(getattr(value, f.name), without) for f in dataclasses.fields(value) if f.name not in without}
    if isinstance(value, Mapping):
        return {str(key): _plain(item, without) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(item, without) for item in value]
    return str(value) if isinstance(value, Path) else value


def at_least(low: float, settings: object, *names: str) -> None:
    """Raises ValueError for the first of these settings that is below `low`, or not a number. None means "not set", and passes."""
    for name in names:
        value = getattr(settings, name)
        if value is not None and not value >= low:
            raise ValueError(f"{name} is {value}, expected at least {low:g}")


def positive(settings: object, *names: str) -> None:
    """As `at_least` of 0, which itself is refused too."""
    for name in names:
        value = getattr(settings, name)
        if value is not None and not value > 0:
            raise ValueError(f"{name} is {value}, expected a positive number")


def record(cls: Any, raw: Mapping[str, Any], where: str) -> Any:
    """The dataclass of these settings. Raises ConfigError, naming the key, for an unknown, missing or wrong one."""
    hints = typing.get_type_hints(cls)
    fields = {f.name: f for f in dataclasses.fields(cls) if f.init}
    for key in raw:
        if key not in fields:
            raise ConfigError(f"{where}: unknown key {key!r}; {nearest(str(key), fields)}")
    values = {key: typed(hints[key], _over_default(fields[key], value), f"{where}.{key}") for key, value in raw.items()}
    missing = [name for name, f in fields.items() if name not in values and f.default is f.default_factory is dataclasses.MISSING]
    if missing:
        raise ConfigError(f"{where}: {missing[0]!r} is required; set it in the recipe or with --set {where}.{missing[0]}=...")
    try:
        return cls(**values)
    except ValueError as error:  # a rule that crosses fields, from __post_init__
        raise ConfigError(f"{where}: {error}") from error


def _over_default(f: dataclasses.Field[Any], value: Any) -> Any:
    """Settings of a group keep the defaults that the enclosing config gives the group, where they say nothing else."""
    if not isinstance(value, Mapping) or f.default_factory is dataclasses.MISSING:
        return value
    default = f.default_factory()
    if not dataclasses.is_dataclass(default) or isinstance(default, Component):  # options belong to one id, not to its successor
        return value
    return {**{g.name: getattr(default, g.name) for g in dataclasses.fields(default)}, **value}


def is_plain(hint: Any) -> bool:
    """Whether a hint is of nothing but values that `typed` can tell apart: numbers, texts, paths, choices, and groups of those."""
    if typing.get_origin(hint) is Literal or hint in (bool, int, float, str, Path, type(None), Any, Ellipsis):
        return True
    return typing.get_origin(hint) in (*_UNIONS, *_LISTS, *_GROUPS) and all(map(is_plain, typing.get_args(hint)))


def typed(hint: Any, value: Any, where: str) -> Any:
    """The value as the hint says, texts of numbers and paths read as such. Raises ConfigError, naming `where`, for another type."""
    origin, args = typing.get_origin(hint), typing.get_args(hint)
    if hint is Any:
        return value
    if origin in _UNIONS:
        return _union(args, value, where)
    if origin is Literal:
        if value not in args:
            raise ConfigError(f"{where}: unknown value {value!r}; {nearest(str(value), map(str, args))}")
        return value
    if origin in _LISTS:
        return _sequence(origin, args, value, where)
    if origin in _GROUPS:
        if not isinstance(value, Mapping):
            raise _mismatch(where, "a mapping", value)
        return {str(key): typed(args[1], item, f"{where}.{key}") for key, item in value.items()}
    if dataclasses.is_dataclass(hint):
        return _nested(hint, value, where)
    return _scalar(hint, value, where)


def _union(options: tuple[Any, ...], value: Any, where: str) -> Any:
    if value is None and type(None) in options:
        return None
    errors: list[ConfigError] = []
    for option in options:
        if option is not type(None):
            try:
                return typed(option, value, where)
            except ConfigError as error:
                errors.append(error)
    raise errors[-1]


def _sequence(origin: Any, args: tuple[Any, ...], value: Any, where: str) -> Any:
    if not isinstance(value, list | tuple):
        raise _mismatch(where, "a list", value)
    fixed = origin is tuple and Ellipsis not in args
    if fixed and len(value) != len(args):
        raise _mismatch(where, f"a list of {len(args)} values", value)
    hints = args if fixed else [args[0]] * len(value)
    items = [typed(hint, item, f"{where}.{i}") for i, (hint, item) in enumerate(zip(hints, value, strict=True))]
    return items if origin is list else tuple(items)


def _nested(hint: Any, value: Any, where: str) -> Any:
    if isinstance(value, hint):
        return value
    if hint is Component and isinstance(value, str):
        return Component(value)
    if not isinstance(value, Mapping):
        raise _mismatch(where, "a mapping of settings", value)
    return record(hint, value, where)


def _scalar(hint: Any, value: Any, where: str) -> Any:
    if hint is bool and isinstance(value, bool):
        return value
    if hint is int and isinstance(value, numbers.Integral) and not isinstance(value, bool):
        return int(value)
    if hint is float and isinstance(value, numbers.Real | str) and not isinstance(value, bool):
        try:
            return float(value)
        except ValueError:
            pass
    if hint is Path and isinstance(value, str | Path):
        return Path(value)
    if hint is str and isinstance(value, str | Path):
        return str(value)
    expected = {bool: "true or false", int: "a whole number", float: "a number", str: "a text (in quotes where it looks like a number)"}
    raise _mismatch(where, expected.get(hint, hint.__name__), value)


def _mismatch(where: str, expected: str, value: Any) -> ConfigError:
    return ConfigError(f"{where}: expected {expected}, found {to_plain(value)!r}")
