"""Recipes: YAML plus dotted overrides, turned into typed frozen dataclasses, and components named by id.

A recipe has one section a stage (or command), named after it, beside the top-level `seed`; keys that begin with `x-` are
ignored, as a home for YAML anchors:

    seed: 0
    score: {pool: [{name: a, vlm: {id: openai_api, options: {model: m, base_url: "http://localhost:8000/v1"}}}]}

Each component owns a frozen dataclass with its defaults, so a recipe shows only what differs. A key that nobody knows stops
the run before anything starts: a typo that silently becomes a default costs a GPU day.
"""

from editr1.config.components import Component, available, component_of, create, load, made, offered
from editr1.config.recipe import SPEED_KEYS, fill_in, load_recipe, parse_yaml, section, to_plain, with_overrides

__all__ = [
    "SPEED_KEYS",
    "Component",
    "available",
    "component_of",
    "create",
    "fill_in",
    "load",
    "load_recipe",
    "made",
    "offered",
    "parse_yaml",
    "section",
    "to_plain",
    "with_overrides",
]
