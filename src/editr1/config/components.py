"""Components by name: which exist, and making one from its options."""

from __future__ import annotations

import importlib
import inspect
import pkgutil
import typing
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import editr1
from editr1.config.values import Component, is_plain, typed
from editr1.errors import ConfigError, nearest
from editr1.text import without_secrets

_FOLDERS = {"judges": "bench/judges"}  # component kinds whose folder is not named after them


def available(kind: str) -> list[str]:
    """The ids of a kind: the files of its folder without the base and private parts, a file of several by those. Imports no component."""
    folder = Path(editr1.__file__).parent / _FOLDERS.get(kind, kind)
    shared = _shared(kind)
    names = {module.name for module in pkgutil.iter_modules([str(folder)])} - {"base", "judges", *shared.values()}
    return sorted({name for name in names if not name.startswith("_")} | shared.keys())


def _package(kind: str) -> str:
    return f"editr1.{_FOLDERS.get(kind, kind).replace('/', '.')}"


def _shared(kind: str) -> Mapping[str, str]:
    """Ids that share a file, as the folder's `SHARED` names them: the file has an object of the id's name, with `build` or callable."""
    shared: Mapping[str, str] = getattr(importlib.import_module(_package(kind)), "SHARED", {})
    return shared


def _component(kind: str, id: str) -> Any:
    """What holds the functions of a component: its file, or its part of a shared one."""
    shared = _shared(kind)
    module = importlib.import_module(f"{_package(kind)}.{shared.get(id, id)}")
    return getattr(module, id) if id in shared else module


def offered(kind: str, name: str) -> dict[str, Callable[..., Any]]:
    """The optional function `name` of every component of a kind that has one, by id. Raises ConfigError for a missing optional package."""
    try:
        components = {id: _component(kind, id) for id in available(kind)}
    except ModuleNotFoundError as error:
        raise ConfigError(f"cannot load the files of kind {kind!r}: no module named {error.name!r}; install it") from error
    return {id: getattr(component, name) for id, component in components.items() if callable(getattr(component, name, None))}


def load(kind: str, id: str) -> Callable[..., Any]:
    """The factory of a component: `build` of the file `id` in the kind's folder, or what `package.module:Name` names.

    Raises ConfigError for an unknown id (listing those found), module or attribute, and for a missing optional package.
    """
    module, colon, name = id.partition(":")
    attribute = name if colon else "build"
    if colon and not all(part.isidentifier() for part in (*module.split("."), *name.split("."))):
        raise ConfigError(f"cannot load {id!r} of kind {kind!r}: outside code is named as 'package.module:Name'")
    if not colon and id not in available(kind):
        raise ConfigError(f"unknown component {id!r} of kind {kind!r}; {nearest(id, available(kind))}; outside code: 'package.module:Name'")
    try:
        part = importlib.import_module(module) if colon else _component(kind, id)
        found = getattr(part, attribute, part)
    except ModuleNotFoundError as error:
        raise ConfigError(f"cannot load {id!r} of kind {kind!r}: no module named {error.name!r}; install it or correct the id") from error
    if not callable(found):
        raise ConfigError(f"cannot load {id!r} of kind {kind!r}: it has no callable {attribute!r}")
    return typing.cast(Callable[..., Any], found)


def create(kind: str, component: Component, **fixed: Any) -> Any:
    """What the component's factory makes of its options (and of `fixed`, values that the caller supplies).

    Raises ConfigError for an option that the factory does not take, naming the nearest, for a missing one, and for a value of another
    type than the factory's hint says.
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
            raise ConfigError(f"{where}: unknown option {option!r}; {nearest(option, named)}")
    options = {**_typed_options(factory, component.options, where), **fixed}
    missing = [n for n in named if n not in options and parameters[n].default is inspect.Parameter.empty]
    if missing:
        raise ConfigError(f"{where}: option {missing[0]!r} is required")
    return factory(**options)


def _typed_options(factory: Callable[..., Any], options: Mapping[str, Any], where: str) -> dict[str, Any]:
    """The options as the factory's hints want them, where those are of plain values; a judge's model, say, is taken as it comes."""
    try:
        hints = typing.get_type_hints(factory.__init__ if inspect.isclass(factory) else factory)
    except (NameError, TypeError):  # outside code: names that only a type checker sees, or no function
        return dict(options)
    found = dict(options)
    for name in found.keys() & hints.keys():
        if is_plain(hints[name]):
            try:
                found[name] = typed(hints[name], found[name], f"{where}: option {name!r}")
            except ConfigError:
                if without_secrets({name: ""}):
                    raise
                raise ConfigError(f"{where}: option {name!r} is no text; put it in quotes") from None
    return found


def component_of(kind: str, named: Component | Mapping[str, Any] | str) -> Component:
    """The component that a recipe names: an id, or `{id: ..., options: {...}}`. Raises ConfigError for another shape."""
    if isinstance(named, Component):
        return named
    if isinstance(named, str):
        return Component(named)
    shape = f"a component of kind {kind!r} must be an id or {{id: ..., options: {{...}}}}"
    if not isinstance(named, Mapping):
        raise ConfigError(f"{shape}, found {named!r}")
    if not isinstance(named.get("id"), str) or named.keys() - {"id", "options"}:
        raise ConfigError(f"{shape}, found the keys {sorted(map(str, named))}")
    options = named.get("options") or {}
    if not isinstance(options, Mapping):
        raise ConfigError(f"{shape}, found the options {options!r}")
    return Component(named["id"], dict(options))


def made(kind: str, named: Any) -> Any:
    """What a recipe names, created; or the thing itself where somebody has made it. Raises ConfigError as `create` does."""
    return create(kind, component_of(kind, named)) if isinstance(named, Component | Mapping | str) else named
