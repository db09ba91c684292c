"""Recipes: a YAML file and dotted overrides, as plain values."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import yaml

from editr1.config.components import available
from editr1.errors import ConfigError, nearest

_ANCHOR_PREFIX = "x-"
_COMMAND_SECTIONS = ("demo", "serve", "study")
"""Of commands that are no stages."""


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
    with_overrides(recipe, overrides)
    known = {"seed", *available("stages"), *_COMMAND_SECTIONS}
    for name in recipe:
        if name not in known and not str(name).startswith(_ANCHOR_PREFIX):
            raise ConfigError(f"recipe {str(path)!r}: unknown section {name!r}; {nearest(str(name), known)}")
    return recipe


def with_overrides(recipe: dict[str, Any], overrides: Sequence[str]) -> dict[str, Any]:
    """The recipe itself, after `section.key=value` texts, the last one winning. Raises ConfigError for a malformed one."""
    for override in overrides:
        _apply(recipe, override)
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
        return yaml.safe_load(text)
    except yaml.MarkedYAMLError as error:
        line = error.problem_mark.line + 1 if error.problem_mark else "?"
        raise ConfigError(f"{where} is not YAML: {error.problem} in line {line}") from error


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
