"""A checkpoint says itself how it is asked; what the caller says wins, and what differs from the training is said."""

from __future__ import annotations

import argparse
import json
import logging
from pathlib import Path
from typing import Any

import pytest

from editr1.commands import verify
from editr1.commands._judge import asked
from editr1.commands.judging import judge_settings
from editr1.config import Component, to_plain
from editr1.errors import ConfigError
from editr1.judge.item import Asking, asking
from editr1.stages import evaluate, gcpo, score, sft


def _checkpoint(folder: Path, settings: Any) -> Path:
    folder.mkdir(exist_ok=True)
    (folder / "settings.json").write_text(json.dumps(settings))
    return folder


def test_what_sft_and_gcpo_write_beside_their_weights_says_how_to_ask(tmp_path: Path) -> None:
    learnt = _checkpoint(tmp_path / "sft", to_plain(sft.Config("model", prompt_id="compact", thinking=False, max_tokens=96)))
    sharpened = _checkpoint(tmp_path / "gcpo", to_plain(gcpo.Config(prompt_id="v", generation=gcpo.Generation(max_tokens=160))))
    assert asking(learnt) == Asking("compact", 96, False)
    assert asking(Component("local", {"path": str(sharpened)})) == Asking("v", 160, None)


def test_what_the_caller_says_wins_and_a_prompt_that_does_not_fit_is_told_once(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    folder = _checkpoint(tmp_path / "rrm", {"prompt_id": "compact", "generation": {"max_tokens": 160}})
    with caplog.at_level(logging.WARNING):
        assert [asking(folder, "tv", 500) for _ in range(2)] == [Asking("tv", 500)] * 2
        assert asking(folder, "compact", 500) == Asking("compact", 500)
    (told,) = caplog.messages
    assert "trained with prompt_id=compact" in told
    assert "asked with tv" in told


@pytest.mark.parametrize("settings", [None, [], {}, {"source": "x"}, {"settings": {"prompt_id": "v"}}])
def test_a_checkpoint_that_says_nothing_is_asked_by_default(tmp_path: Path, settings: Any) -> None:
    if settings is not None:
        _checkpoint(tmp_path / "rrm", settings)
    assert asking(tmp_path / "rrm") == asking(None) == asking(Component("openai_api", {"model": "m"})) == Asking("tv", 2048, None)


@pytest.mark.parametrize("settings", [{"prompt_id": "hymn"}, {"prompt_id": "v", "max_tokens": 0}, {"prompt_id": "v", "thinking": "yes"}])
def test_settings_that_cannot_be_meant_are_refused_by_name(tmp_path: Path, settings: dict[str, Any]) -> None:
    with pytest.raises(ConfigError, match=r"settings\.json"):
        asking(_checkpoint(tmp_path / "rrm", settings))


def test_every_reader_asks_a_checkpoint_as_it_was_trained(tmp_path: Path) -> None:
    folder = _checkpoint(tmp_path / "rrm", {"prompt_id": "compact", "max_tokens": 160})
    judge = Component("local", {"path": str(folder)})
    parser = argparse.ArgumentParser()
    verify.add_verify(parser)
    of_verify = asked(parser.parse_args(["a", "b", "c", "--checkpoint", str(folder)]))
    of_score = score.Member("m", judge).how
    of_evaluate = asking(judge, evaluate.JudgeUnderTest("m", judge).prompt_id, evaluate.Config().max_tokens)
    assert of_verify == of_score == of_evaluate == Asking("compact", 160)
    named = argparse.Namespace(judge="rrm", judge_set=[], checkpoint=str(folder), model=None, vlm=None, vlm_set=[], decomposer=None)
    assert judge_settings(named)["options"] == {"prompt_id": "compact", "max_tokens": 160}
    named.judge_set = ["prompt_id=tv", "num_traces=4"]
    assert judge_settings(named)["options"] == {"prompt_id": "tv", "num_traces": 4, "max_tokens": 160}
