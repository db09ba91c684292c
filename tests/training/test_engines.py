"""A vLLM engine reads the pictures, tokens and weights of the policy that is trained, or the run stops."""

from __future__ import annotations

import inspect
import re
import tomllib
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from packaging.requirements import Requirement
from packaging.version import Version
from trl import import_utils
from trl.generation import vllm_generation

from editr1.errors import BackendError, ConfigError
from editr1.stages import gcpo
from editr1.training.options import Picture
from editr1.training.pair_trainer import EngineAlarm, check_served_pictures, engine_ratio, picture_budget, send_pictures_once

PAD = 5
PROMPT = [1, 5, 5, 5, 2, 5, 5, 3]


class Engine:
    """Expands the n-th picture's stand-in into `sizes[n]` of them, as vLLM does."""

    def __init__(self, sizes: list[int]) -> None:
        self.sizes, self.sent = sizes, []

    def generate(self, prompts: list[list[int]], images: Any, num_generations: int, profiler: Any = None) -> Any:
        self.sent = prompts
        sizes = [iter(self.sizes) for _ in prompts]
        read = [
            [t for token in ids for t in ([PAD] * next(size) if token == PAD else [token])]
            for ids, size in zip(prompts, sizes, strict=True)
        ]
        return read, [[9]] * len(prompts), None, None


def test_a_colocated_engine_is_sent_one_stand_in_a_picture() -> None:
    engine = Engine([3, 2])
    send_pictures_once(engine, PAD)
    read, *_ = engine.generate([PROMPT], [["a", "b"]], 1)
    assert engine.sent == [[1, 5, 2, 5, 3]]
    assert read == [PROMPT]


def test_pictures_of_another_size_stop_at_the_first_batch() -> None:
    engine = Engine([4, 2])
    send_pictures_once(engine, PAD)
    with pytest.raises(ConfigError, match=r"engine reads \[4, 2\] .* the trainer \[3, 2\]"):
        engine.generate([PROMPT], [["a", "b"]], 1)


def test_a_family_that_splits_a_picture_into_several_runs_is_refused() -> None:
    engine = Engine([3, 2])
    send_pictures_once(engine, PAD)
    with pytest.raises(ConfigError, match="1 pictures in 2 runs"):
        engine.generate([PROMPT], [["a"]], 1)


def test_a_server_that_makes_other_pictures_is_refused() -> None:
    def features(*lengths: int) -> dict[str, Any]:
        return {"mm_placeholders": {"image": [{"offset": 0, "length": length} for length in lengths]}}

    engine = SimpleNamespace(_place_features=lambda features, ids: "placed")
    check_served_pictures(engine, PAD)
    assert engine._place_features(features(3, 2), PROMPT) == "placed"
    assert engine._place_features(None, [1, 2]) == "placed"
    with pytest.raises(ConfigError, match="--mm-processor-kwargs"):
        engine._place_features(features(9, 2), PROMPT)


def test_the_picture_budget_reaches_an_engine_that_is_built_inside(monkeypatch: pytest.MonkeyPatch) -> None:
    built: list[dict[str, Any]] = []
    monkeypatch.setattr(vllm_generation, "LLM", lambda **options: built.append(options), raising=False)
    with picture_budget(Picture(max_pixels=401408)):
        vllm_generation.LLM(model="x")
    with picture_budget(Picture()):
        vllm_generation.LLM(model="x")
    vllm_generation.LLM(model="x")
    assert built == [{"model": "x", "mm_processor_kwargs": {"max_pixels": 401408}}, {"model": "x"}, {"model": "x"}]


def test_the_ratio_is_1_on_policy_and_stops_the_run_off_it() -> None:
    own, mask = torch.tensor([[-1.0, -2.0, -3.0], [-1.0, -1.0, 0.0]]), torch.tensor([[1, 1, 1], [1, 1, 0]])
    assert engine_ratio(own, own, mask).tolist() == [1.0, 1.0]
    engine = torch.tensor([[-1.0, float("nan"), -3.5], [-0.5, -1.0, 7.0]])
    torch.testing.assert_close(engine_ratio(own, engine, mask), torch.tensor([0.5, -0.5]).exp())
    state = SimpleNamespace(global_step=3)
    EngineAlarm().on_log(None, state, None, {"engine_ratio": 0.9})
    EngineAlarm().on_log(None, state, None, {"loss": 0.9})
    for ratio in (5e-6, 2.1, float("nan")):
        with pytest.raises(BackendError, match="another policy"):
            EngineAlarm().on_log(None, state, None, {"engine_ratio": ratio})


@pytest.mark.parametrize("engine", ["vllm_colocate", "vllm_server"])
def test_the_paper_has_no_importance_weight_and_control_tokens_are_forbidden(engine: Any) -> None:
    how = gcpo.Generation(engine=engine, vllm_url="http://127.0.0.1:1")
    settings = gcpo._generation(gcpo.Config(generation=how), [7, 8])
    assert settings["vllm_importance_sampling_correction"] is False
    assert settings["generation_kwargs"]["logit_bias"] == {7: -100.0, 8: -100.0}


@pytest.mark.parametrize("address", ["", " ", "localhost:8000", "/v1"])
def test_a_server_without_an_address_is_refused(address: str) -> None:
    """TRL polls whatever it is given, for minutes."""
    with pytest.raises(ValueError, match="needs vllm_url"):
        gcpo.Generation(engine="vllm_server", vllm_url=address)


def test_the_extra_asks_for_the_versions_that_trl_supports() -> None:
    lowest, highest = re.findall(r'Version\("([\d.]+)"\)', inspect.getsource(import_utils.is_vllm_available))[:2]
    project = tomllib.loads((Path(__file__).parents[2] / "pyproject.toml").read_text())["project"]
    (wanted,) = (Requirement(text) for text in project["optional-dependencies"]["vllm"])
    bounds = {spec.operator: Version(spec.version) for spec in wanted.specifier}
    assert bounds == {">=": Version(lowest), "<=": Version(highest)}
