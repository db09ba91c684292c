"""Recipes become typed configs, and every mistake names the key and what was meant."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

import pytest

from editr1.config import Component, available, create, load, load_recipe, parse_yaml, section, to_plain
from editr1.errors import ConfigError


@dataclass(frozen=True)
class Member:
    name: str
    vlm: Component = field(default_factory=lambda: Component("openai_api"))
    temperature: float = 0.7


@dataclass(frozen=True)
class Config:
    seed: int = 0
    mode: Literal["fast", "exact"] = "exact"
    limit: int | None = None
    pool: tuple[Member, ...] = ()
    size: tuple[int, int] = (1, 2)
    shares: dict[str, float] = field(default_factory=dict)
    root: Path = Path(".")

    def __post_init__(self) -> None:
        if self.limit is not None and self.limit < 0:
            raise ValueError("limit must not be negative")


def recipe_file(tmp_path: Path, text: str) -> Path:
    path = tmp_path / "recipe.yaml"
    path.write_text(text)
    return path


def test_a_recipe_shows_only_what_differs(tmp_path: Path) -> None:
    text = "seed: 3\nscore:\n  pool: [{name: a, vlm: local, temperature: 1e-1}]\n  shares: {x: 1}\n  root: /data\n"
    recipe = load_recipe(recipe_file(tmp_path, text), ["score.pool.0.vlm.options.path=/m", "score.limit=5"])
    config = section(recipe, "score", Config)
    assert config == Config(3, limit=5, pool=(Member("a", Component("local", {"path": "/m"}), 0.1),), shares={"x": 1.0}, root=Path("/data"))
    assert section({}, "score", Config) == Config()


@pytest.mark.parametrize(
    ("raw", "message"),
    [
        ({"modee": "fast"}, "score: unknown key 'modee'; did you mean 'mode'?"),
        ({"mode": "fats"}, "score.mode: unknown value 'fats'; did you mean 'fast'?"),
        ({"limit": -1}, "score: limit must not be negative"),
        ({"limit": "many"}, "score.limit: expected a whole number, found 'many'"),
        ({"limit": True}, "score.limit: expected a whole number, found True"),
        ({"pool": [{"temperature": 1}]}, "score.pool.0: 'name' is required"),
        ({"pool": [{"name": "a", "temprature": 1}]}, "score.pool.0: unknown key 'temprature'; did you mean 'temperature'?"),
        ({"pool": {"name": "a"}}, "score.pool: expected a list"),
        ({"size": [1]}, "score.size: expected a list of 2 values"),
        ({"shares": {"x": "high"}}, "score.shares.x: expected a number"),
        ([1], "score: expected a mapping of settings"),
    ],
)
def test_a_mistake_names_the_key(raw: object, message: str) -> None:
    with pytest.raises(ConfigError) as caught:
        section({"score": raw}, "score", Config)
    assert message in str(caught.value)


@pytest.mark.parametrize(
    ("text", "overrides", "message"),
    [
        ("scores: {}", [], "unknown section 'scores'; did you mean 'score'?"),
        ("score: {a: [}", [], "is not YAML"),
        ("- 1", [], "must be a mapping of sections"),
        ("seed: 1", ["score.limit"], "must have the form"),
        ("score: {pool: [1]}", ["score.pool.7=2"], "'7' is no index of a list of 1 entries"),
        ("seed: 1", ["seed.x=2"], "'seed' is the value 1"),
        ("score: {a: 1}\nseed: 1\nscore: {b: 1}", [], "the key 'score' stands a second time in line 3"),
        ("score:\n  limit: 1\n  limit: 2", [], "the key 'limit' stands a second time in line 3"),
        ('seed: "a\x01b"', [], "is not YAML: unacceptable character #x0001"),
        ("seed: 2024-13-45", [], "is not YAML: month must be in 1..12"),
        ("score: {pool: [1]}", ["score.pool.\u00b2=2"], "'\u00b2' is no index"),
    ],
)
def test_a_broken_recipe_is_one_clear_line(tmp_path: Path, text: str, overrides: list[str], message: str) -> None:
    with pytest.raises(ConfigError) as caught:
        load_recipe(recipe_file(tmp_path, text), overrides)
    assert message in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_recipe_is_utf_8_with_or_without_a_mark(tmp_path: Path) -> None:
    for data in (b"seed: 1\n", b"\xef\xbb\xbfseed: 1\n"):
        (tmp_path / "r.yaml").write_bytes(data)
        assert load_recipe(tmp_path / "r.yaml") == {"seed": 1}
    (tmp_path / "r.yaml").write_bytes("x-note: caf\xe9\n".encode("latin-1"))
    with pytest.raises(ConfigError, match=r"r\.yaml' is not UTF-8 text"):
        load_recipe(tmp_path / "r.yaml")


def test_what_an_anchor_brings_may_be_said_otherwise(tmp_path: Path) -> None:
    text = "x-a: &a {k: 1, l: 1}\nx-b: &b {m: 1}\nscore:\n  <<: *a\n  <<: *b\n  k: 2"
    assert load_recipe(recipe_file(tmp_path, text))["score"] == {"k": 2, "l": 1, "m": 1}


def test_options_are_of_the_types_that_their_component_names() -> None:
    """1e-4 is text in YAML 1.1, and no section's dataclass stands between a recipe and the options of a component."""
    (option,) = parse_yaml("[{clip_low: 1e-4, clip_high: 2E+3, model: 1e4b}]", "here")
    assert option == {"clip_low": 1e-4, "clip_high": 2000.0, "model": "1e4b"}
    assert create("algorithms", Component("grpo", {"clip_low": 1e-4, "clip_high": 1})).clip_low == 1e-4
    for options, told in (
        ({"clip_low": "small"}, "grpo': option 'clip_low': expected a number, found 'small'"),
        ({"clip_low": True}, "expected a number, found True"),
    ):
        with pytest.raises(ConfigError, match=told):
            create("algorithms", Component("grpo", options))
    with pytest.raises(ConfigError, match=r"option 'levels': expected a whole number, found 2\.5"):
        create("algorithms", Component("awm", {"levels": 2.5}))


def test_a_missing_recipe_is_named(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"nowhere\.yaml"):
        load_recipe(tmp_path / "nowhere.yaml")


def build(path: str, dtype: str = "float32", timeout: float = 1.0, api_key: str | None = None, model: object = None) -> tuple[str, str]:
    assert isinstance(timeout, float)
    return path, dtype


HERE = f"{__name__}:build"


def test_outside_code_is_named_by_module_and_attribute() -> None:
    assert create("vlm", Component(HERE, {"path": "/m"})) == ("/m", "float32")
    assert create("vlm", Component(HERE, {"path": Path("/m"), "timeout": "1e3", "model": build})) == ("/m", "float32")


@pytest.mark.parametrize(
    ("component", "message"),
    [
        (Component("kontex"), "unknown component 'kontex' of kind 'editors'"),
        (Component("no_such_module:build"), "no module named 'no_such_module'"),
        (Component(f"{__name__}:nothing"), "has no callable 'nothing'"),
        (Component("..base:build"), "named as 'package.module:Name'"),
        (Component("/home/me/editor.py:build"), "named as 'package.module:Name'"),
        (Component(HERE, {"pth": "/m"}), "unknown option 'pth'; did you mean 'path'?"),
        (Component(HERE), "option 'path' is required"),
        (Component(HERE, {"path": 7}), "option 'path': expected a text (in quotes where it looks like a number), found 7"),
        (Component(HERE, {"path": "/m", "timeout": "soon"}), "option 'timeout': expected a number, found 'soon'"),
        (Component(HERE, {"path": "/m", "api_key": 70231}), "option 'api_key' is no text; put it in quotes"),
    ],
)
def test_a_component_that_cannot_be_made_says_why(component: Component, message: str) -> None:
    with pytest.raises(ConfigError) as caught:
        create("editors", component)
    assert message in str(caught.value)
    assert "70231" not in str(caught.value)


@pytest.mark.parametrize("kind", ["vlm", "editors", "sources"])
def test_every_listed_component_has_a_build(kind: str) -> None:
    for name in available(kind):
        assert callable(load(kind, name))


def test_plain_form_is_json() -> None:
    assert to_plain(Config(pool=(Member("a"),)))["pool"][0]["vlm"] == {"id": "openai_api", "options": {}}
