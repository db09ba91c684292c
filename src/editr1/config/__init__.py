"""Recipes: YAML plus dotted overrides, turned into typed frozen dataclasses and back, and components named by id.

A recipe has one section a stage (or command), named after it, beside the top-level `seed`; keys that begin with `x-` are ignored, as a
home for YAML anchors:

    seed: 0
    score: {pool: [{name: a, vlm: {id: openai_api, options: {model: m, base_url: "http://localhost:8000/v1"}}}]}

Each component owns a frozen dataclass with its defaults, so a recipe shows only what differs. A key that nobody knows, or a value of
another type, stops the run before anything starts: a typo that silently becomes a default costs a GPU day.
"""

from __future__ import annotations

import dataclasses
import re
import typing
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, TypeVar

import yaml

from editr1.config.components import available, component_of, create, load, made, offered
from editr1.config.values import Component, at_least, positive, record, to_plain
from editr1.errors import ConfigError, nearest

__all__ = [
    "SPEED_KEYS",
    "Component",
    "at_least",
    "available",
    "component_of",
    "create",
    "fill_in",
    "load",
    "load_recipe",
    "made",
    "offered",
    "parse_yaml",
    "positive",
    "section",
    "to_plain",
    "with_overrides",
]

_ANCHOR_PREFIX = "x-"
_COMMAND_SECTIONS = ("demo", "serve", "study")
"""Of commands that are no stages."""
SPEED_KEYS = frozenset({"engine", "batch_size", "concurrency"})

T = TypeVar("T")


def load_recipe(path: Path | str, overrides: Sequence[str] = ()) -> dict[str, Any]:
    """The recipe's sections after the overrides (`"score.pool.0.temperature=0.5"`, values in YAML).

    Raises ConfigError for a missing file, broken YAML, a malformed override or a section that no stage or command owns.
    """
    try:
        text = Path(path).read_text(encoding="utf-8-sig")
    except OSError as error:
        raise ConfigError(f"cannot read recipe {str(path)!r}: {error.strerror}; give the path of a YAML file with --config") from error
    except UnicodeDecodeError as error:
        raise ConfigError(f"recipe {str(path)!r} is not UTF-8 text ({error.reason} at byte {error.start}); convert it") from error
    recipe = parse_yaml(text, f"recipe {str(path)!r}")
    if recipe is None:
        recipe = {}
    if not isinstance(recipe, dict):
        raise ConfigError(f"recipe {str(path)!r} must be a mapping of sections, found {type(recipe).__name__}")
    with_overrides(recipe, overrides)
    known = {"seed", *available("stages"), *_COMMAND_SECTIONS}
    for name in recipe:
        if name not in known and not str(name).startswith(_ANCHOR_PREFIX):
            raise ConfigError(f"recipe {str(path)!r}: unknown section {name!r}; {nearest(str(name), known)}")
    return recipe


def with_overrides(recipe: dict[str, Any], overrides: Sequence[str]) -> dict[str, Any]:
    """The recipe itself, after `section.key=value` texts, the last one winning. Raises ConfigError for a malformed one."""
    for override in overrides:
        name, equals, text = override.partition("=")
        if not equals or not name:
            raise ConfigError(f"override {override!r} must have the form section.key=value")
        node: Any = recipe
        *parents, last = name.split(".")
        for part in parents:
            node = _child(node, part, name)
        node[_index(node, last, name) if isinstance(node, list) else last] = parse_yaml(text, f"override {name!r}")
    return recipe


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
        return _Loader(text).get_single_data()
    except yaml.MarkedYAMLError as error:
        line = error.problem_mark.line + 1 if error.problem_mark else "?"
        raise ConfigError(f"{where} is not YAML: {error.problem} in line {line}") from error
    except (yaml.YAMLError, ValueError) as error:  # a control character; a date that is none
        raise ConfigError(f"{where} is not YAML: {' '.join(str(error).split())}") from error


class _Loader(yaml.SafeLoader):
    """Refuses a key that stands twice in one group: the first value would be lost without a word. Reads 1e-4 as the number that it is in
    YAML 1.2; in YAML 1.1 it is text without its dot."""

    def compose_mapping_node(self, anchor: Any) -> yaml.MappingNode:
        node = super().compose_mapping_node(anchor)
        seen = set()
        for key, _ in node.value:
            if (name := (key.tag, str(key.value))) in seen and key.tag != "tag:yaml.org,2002:merge":
                raise yaml.MarkedYAMLError(problem=f"the key {key.value!r} stands a second time", problem_mark=key.start_mark)
            seen.add(name)
        return node


_Loader.add_implicit_resolver("tag:yaml.org,2002:float", re.compile(r"[-+]?[0-9]+[eE][-+]?[0-9]+$"), list("-+0123456789"))


def _child(node: Any, part: str, name: str) -> Any:
    if isinstance(node, list):
        return node[_index(node, part, name)]
    child = node.get(part)
    if child is None:
        child = node[part] = {}
    if isinstance(child, str):  # a component given by its bare id gains options
        child = node[part] = {"id": child}
    if not isinstance(child, dict | list):
        raise ConfigError(f"override {name!r}: {part!r} is the value {to_plain(child)!r}, not a group of settings")
    return child


def _index(node: list[Any], part: str, name: str) -> int:
    if not part.isdecimal() or int(part) >= len(node):
        raise ConfigError(f"override {name!r}: {part!r} is no index of a list of {len(node)} entries (they count from 0)")
    return int(part)


# --- plain values and dataclasses ---------------------------------------------------------------------


def section(recipe: Mapping[str, Any], name: str, cls: type[T]) -> T:
    """The section `name` as a `cls`; an absent one gives the defaults. A `seed` field falls back on the recipe's seed."""
    raw = recipe.get(name)
    raw = {} if raw is None else raw
    if not isinstance(raw, Mapping):
        raise ConfigError(f"{name}: expected a mapping of settings, found {to_plain(raw)!r}")
    fields = {f.name for f in dataclasses.fields(typing.cast(Any, cls))}
    if "seed" in fields and "seed" not in raw and "seed" in recipe:
        raw = {**raw, "seed": recipe["seed"]}
    return typing.cast(T, record(cls, raw, name))
