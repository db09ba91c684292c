"""Recipes: YAML plus dotted overrides, turned into typed frozen dataclasses, and components named by id.

A recipe has one section a stage (or command), named after it, beside the top-level `seed`; keys that begin with `x-` are
ignored, as a home for YAML anchors:

    seed: 0
    score: {pool: [{name: a, vlm: {id: openai_api, options: {model: m, base_url: "http://localhost:8000/v1"}}}]}

Each component owns a frozen dataclass with its defaults, so a recipe shows only what differs. A key that nobody knows stops
the run before anything starts: a typo that silently becomes a default costs a GPU day.
"""

from __future__ import annotations

import dataclasses
import difflib
import importlib
import inspect
import pkgutil
import types
import typing
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal, TypeVar

import yaml

import editr1
from editr1.errors import ConfigError, nearest

T = TypeVar("T")

_FOLDERS = {"judges": "bench.judges"}  # component kinds whose folder is not named after them
_ANCHOR_PREFIX = "x-"


@dataclass(frozen=True)
class Component:
    """Something chosen by name: a file of the kind's folder, or `package.module:Name` for outside code.

    In YAML `{id: openai_api, options: {model: m}}`, or only the id.
    """

    id: str
    options: dict[str, Any] = field(default_factory=dict)
    """Keyword arguments of the component's `build`."""


# --- recipes ----------------------------------------------------------------------------------------


def load_recipe(path: Path | str, overrides: Sequence[str] = ()) -> dict[str, Any]:
    """The recipe's sections after the overrides (`"score.pool.0.temperature=0.5"`, values in YAML).

    Raises ConfigError for a missing file, broken YAML, a malformed override or a section that no stage or command owns.
    """
    try:
        text = Path(path).read_text(encoding="utf-8")
    except OSError as error:
        raise ConfigError(f"cannot read recipe {str(path)!r}: {error.strerror}; give the path of a YAML file with --config") from error
    recipe = parse_yaml(text, f"recipe {str(path)!r}")
    if recipe is None:
        recipe = {}
    if not isinstance(recipe, dict):
        raise ConfigError(f"recipe {str(path)!r} must be a mapping of sections, found {type(recipe).__name__}")
    for override in overrides:
        _apply(recipe, override)
    known = {"seed", *available("stages"), *available("commands")}
    for name in recipe:
        if name not in known and not str(name).startswith(_ANCHOR_PREFIX):
            raise ConfigError(f"recipe {str(path)!r}: unknown section {name!r}; {nearest(str(name), known)}")
    return recipe


def section(recipe: Mapping[str, Any], name: str, cls: type[T]) -> T:
    """The section `name` as a `cls`; an absent one gives the defaults. A `seed` field falls back on the recipe's seed."""
    raw = recipe.get(name)
    raw = {} if raw is None else raw
    if not isinstance(raw, Mapping):
        raise ConfigError(f"{name}: expected a mapping of settings, found {raw!r}")
    fields = {f.name for f in dataclasses.fields(typing.cast(Any, cls))}
    if "seed" in fields and "seed" not in raw and "seed" in recipe:
        raw = {**raw, "seed": recipe["seed"]}
    return typing.cast(T, _record(cls, raw, name))


def fill_in(value: Any, **names: str) -> Any:
    """The recipe with `{name}` in its texts replaced, such as `{run}` by the run directory; other braces stay.

    >>> fill_in({"gcpo": {"model": "{run}/06_rrm_sft"}}, run="runs/demo")
    {'gcpo': {'model': 'runs/demo/06_rrm_sft'}}
    """
    if isinstance(value, str):
        for name, text in names.items():
            value = value.replace(f"{{{name}}}", text)
        return value
    if isinstance(value, Mapping):
        return {key: fill_in(item, **names) for key, item in value.items()}
    return [fill_in(item, **names) for item in value] if isinstance(value, list) else value


def parse_yaml(text: str, where: str) -> Any:
    """The value of a YAML text. Raises ConfigError on one line, naming `where` and the line number."""
    try:
        return yaml.safe_load(text)
    except yaml.MarkedYAMLError as error:
        line = error.problem_mark.line + 1 if error.problem_mark else "?"
        raise ConfigError(f"{where} is not YAML: {error.problem} in line {line}") from error


SPEED_KEYS = frozenset({"engine", "batch_size", "concurrency"})


def to_plain(value: Any, without: frozenset[str] = frozenset()) -> Any:
    """A config as plain JSON values, the same for equal configs; fields named in `without` are left out at every depth.

    `without=SPEED_KEYS` gives what a result depends on: how fast it was made does not change it.
    """
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return {f.name: to_plain(getattr(value, f.name), without) for f in dataclasses.fields(value) if f.name not in without}
    if isinstance(value, Mapping):
        return {str(key): to_plain(item, without) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [to_plain(item, without) for item in value]
    return str(value) if isinstance(value, Path) else value


def _apply(recipe: dict[str, Any], override: str) -> None:
    name, equals, text = override.partition("=")
    if not equals or not name:
        raise ConfigError(f"override {override!r} must have the form section.key=value")
    node: Any = recipe
    *parents, last = name.split(".")
    for part in parents:
        node = _child(node, part, override)
    value = parse_yaml(text, f"override {override!r}")
    if isinstance(node, list):
        node[_index(node, last, override)] = value
    else:
        node[last] = value


def _child(node: Any, part: str, override: str) -> Any:
    if isinstance(node, list):
        return node[_index(node, part, override)]
    child = node.get(part)
    if child is None:
        child = node[part] = {}
    if isinstance(child, str):  # a component given by its bare id gains options
        child = node[part] = {"id": child}
    if not isinstance(child, dict | list):
        raise ConfigError(f"override {override!r}: {part!r} is the value {child!r}, not a group of settings")
    return child


def _index(node: list[Any], part: str, override: str) -> int:
    if not part.isdigit() or int(part) >= len(node):
        raise ConfigError(f"override {override!r}: {part!r} is no index of a list of {len(node)} entries (they count from 0)")
    return int(part)


# --- typed values -----------------------------------------------------------------------------------


def _record(cls: Any, raw: Mapping[str, Any], where: str) -> Any:
    hints = typing.get_type_hints(cls)
    fields = {f.name: f for f in dataclasses.fields(cls) if f.init}
    for key in raw:
        if key not in fields:
            raise ConfigError(f"{where}: unknown key {key!r}; {nearest(str(key), fields)}")
    values = {key: _value(hints[key], _over_default(fields[key], value), f"{where}.{key}") for key, value in raw.items()}
    missing = [name for name, f in fields.items() if name not in values and _required(f)]
    if missing:
        raise ConfigError(f"{where}: {missing[0]!r} is required; set it in the recipe or with --set {where}.{missing[0]}=...")
    try:
        return cls(**values)
    except ValueError as error:  # a rule that crosses fields, from __post_init__
        raise ConfigError(f"{where}: {error}") from error


def _required(f: dataclasses.Field[Any]) -> bool:
    return f.default is dataclasses.MISSING and f.default_factory is dataclasses.MISSING


def _over_default(f: dataclasses.Field[Any], value: Any) -> Any:
    """Settings of a group keep the defaults that the enclosing config gives the group, where they say nothing else."""
    if not isinstance(value, Mapping) or f.default_factory is dataclasses.MISSING:
        return value
    default = f.default_factory()
    if not dataclasses.is_dataclass(default) or isinstance(default, Component):  # options belong to one id, not to its successor
        return value
    return {**{g.name: getattr(default, g.name) for g in dataclasses.fields(default)}, **value}


def _value(hint: Any, value: Any, where: str) -> Any:
    origin, args = typing.get_origin(hint), typing.get_args(hint)
    if hint is Any:
        return value
    if origin in (typing.Union, types.UnionType):
        return _union(args, value, where)
    if origin is Literal:
        if value not in args:
            raise ConfigError(f"{where}: unknown value {value!r}; {nearest(str(value), map(str, args))}")
        return value
    if origin in (tuple, list, Sequence):
        return _sequence(origin, args, value, where)
    if origin in (dict, Mapping):
        if not isinstance(value, Mapping):
            raise _mismatch(where, "a mapping", value)
        return {str(key): _value(args[1], item, f"{where}.{key}") for key, item in value.items()}
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
                return _value(option, value, where)
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
    items = [_value(hint, item, f"{where}.{i}") for i, (hint, item) in enumerate(zip(hints, value, strict=True))]
    return items if origin is list else tuple(items)


def _nested(hint: Any, value: Any, where: str) -> Any:
    if isinstance(value, hint):
        return value
    if hint is Component and isinstance(value, str):
        return Component(value)
    if not isinstance(value, Mapping):
        raise _mismatch(where, "a mapping of settings", value)
    return _record(hint, value, where)


def _scalar(hint: Any, value: Any, where: str) -> Any:
    if hint is bool and isinstance(value, bool):
        return value
    if hint is int and isinstance(value, int) and not isinstance(value, bool):
        return value
    if hint is float and isinstance(value, int | float | str) and not isinstance(value, bool):
        try:
            return float(value)  # YAML 1.1 reads 1e-4 (no dot) as text
        except ValueError:
            pass
    if hint is Path and isinstance(value, str | Path):
        return Path(value)
    if hint is str and isinstance(value, str):
        return value
    raise _mismatch(where, {bool: "true or false", int: "a whole number", float: "a number"}.get(hint, hint.__name__), value)


def _mismatch(where: str, expected: str, value: Any) -> ConfigError:
    return ConfigError(f"{where}: expected {expected}, found {value!r}")


# --- components -------------------------------------------------------------------------------------


def available(kind: str) -> list[str]:
    """The ids of a kind: the files of its folder, without the base and private parts. Imports nothing."""
    place = _FOLDERS.get(kind, kind)
    folder = Path(editr1.__file__).parent.joinpath(*place.split("."))
    names = (m.name for m in pkgutil.iter_modules([str(folder)]) if m.name != "base" and not m.name.startswith("_"))
    return sorted(name for name in names if f"{place}.{name}" not in _FOLDERS.values())  # bench/judges is a kind of its own


def load(kind: str, id: str) -> Callable[..., Any]:
    """The factory of a component: `build` of the file `id` in the kind's folder, or what `package.module:Name` names.

    Raises ConfigError for an unknown id (listing those found), module or attribute, and for a missing optional package.
    """
    if ":" in id:
        module, _, attribute = id.partition(":")
    elif id in available(kind):
        module, attribute = f"editr1.{_FOLDERS.get(kind, kind)}.{id}", "build"
    else:
        raise ConfigError(f"unknown component {id!r} of kind {kind!r}; {nearest(id, available(kind))}; outside code: 'package.module:Name'")
    try:
        found = getattr(importlib.import_module(module), attribute, None)
    except ModuleNotFoundError as error:
        raise ConfigError(f"cannot load {id!r} of kind {kind!r}: no module named {error.name!r}; install it or correct the id") from error
    if not callable(found):
        raise ConfigError(f"cannot load {id!r} of kind {kind!r}: module {module!r} has no callable {attribute!r}")
    return typing.cast(Callable[..., Any], found)


def create(kind: str, component: Component, **fixed: Any) -> Any:
    """What the component's factory makes of its options (and of `fixed`, values that the caller supplies).

    Raises ConfigError for an option that the factory does not take, naming the nearest, and for a missing one.
    """
    factory = load(kind, component.id)
    parameters = inspect.signature(factory).parameters
    named = [n for n, p in parameters.items() if p.kind in (p.POSITIONAL_OR_KEYWORD, p.KEYWORD_ONLY)]
    takes_any = any(p.kind is p.VAR_KEYWORD for p in parameters.values())
    where = f"{kind} component {component.id!r}"
    for option in component.options:
        if option in fixed:
            raise ConfigError(f"{where}: option {option!r} is set by the stage that uses it; remove it")
        if option not in named and not takes_any:
            close = difflib.get_close_matches(option, named, n=1)
            hint = f"did you mean {close[0]!r}? " if close else ""
            raise ConfigError(f"{where}: unknown option {option!r}; {hint}(it takes: {', '.join(named) or 'none'})")
    options = {**component.options, **fixed}
    missing = [n for n in named if n not in options and parameters[n].default is inspect.Parameter.empty]
    if missing:
        raise ConfigError(f"{where}: option {missing[0]!r} is required")
    return factory(**options)
