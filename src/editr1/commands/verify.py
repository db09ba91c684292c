"""The reward of edits: of one, as text, JSON or a page (`verify`); of whatever other programs send (`serve`)."""

from __future__ import annotations

import argparse
import base64
import json
from dataclasses import replace
from pathlib import Path
from typing import Any

from PIL import Image

from editr1 import example
from editr1.commands._judge import (
    add_judge_arguments,
    add_model_arguments,
    add_rrm_arguments,
    judge_component,
    reward_model,
    rrm_vlm,
    say,
    template,
    vlm_component,
)
from editr1.config import load_recipe, section, with_overrides
from editr1.errors import ConfigError, DataError
from editr1.judge.decompose import BadDecomposition, parse_principles
from editr1.judge.item import RewardItem
from editr1.judge.prompts import labels
from editr1.judge.rrm import UNDECOMPOSED, RewardModel
from editr1.pictures import encode_small, read_picture
from editr1.schema import CATEGORIES, Judgement, ParseFailure, Principle, Reward
from editr1.store._files import write_atomic

EXIT_UNSCORED = 1
SHOWN = 300  # characters of a reply that could not be used

MEANING = {
    "NO_VERDICTS": "the reply holds no verdicts",
    "WRONG_COUNT": "the reply does not hold exactly one yes or no for each principle",
    "NO_SCORE": "no <score>NUMBER</score> follows the verdicts",
    "OUT_OF_RANGE": "the score lies outside 0 to 10",
    "AMBIGUOUS": "what stands in the last score tag is not one clear number",
    "WITHDRAWN": "the reply takes its score back, or rejects it",
    "CONTRADICTORY": "the reply says yes and no to one principle, or names two scores",
    "TRUNCATED": "the reply was cut before it was complete; raise --max-tokens",
}


def add_verify(parser: argparse.ArgumentParser) -> None:
    add = parser.add_argument
    add("source", type=Path, nargs="?", metavar="SOURCE", help="picture before the edit (PNG, JPEG, WebP, AVIF or GIF)")
    add("edited", type=Path, nargs="?", metavar="EDITED", help="picture after the edit")
    add("instruction", nargs="?", metavar="INSTRUCTION", help="what the edit was meant to do")
    add("--example", action="store_true", help="the shipped edit, by the shipped judge unless another one is named")
    add_model_arguments(parser)
    add_rrm_arguments(parser)
    add("--principles", type=Path, metavar="FILE", help="JSON array of {question, category}; default: the decomposer writes them")
    add("--json", action="store_true", help="print one JSON object")
    add("--html", type=Path, metavar="FILE", help="write one page with both pictures, the verdicts and the score")


def run_verify(args: argparse.Namespace) -> int:
    """Judge one edit: principles, verdicts and score, or the reason why it stays unscored.

        editr1 verify --example --html verdict.html
        editr1 verify before.png after.png "Make the sky purple" --base-url http://localhost:8000/v1 --model Qwen2.5-VL-7B-Instruct
        editr1 verify before.png after.png "Make the sky purple" --checkpoint checkpoints/rrm --principles principles.json

    --example judges a shipped edit with a shipped judge of 2.5 million parameters: seconds on any CPU, no key, no download.
    Without --principles the judge itself writes them first, or the model that --decomposer names. Exit code: 0 scored, 1 unscored, 2 bad
    input.
    """
    item = _example(args) if args.example else _given(args)
    model = reward_model(args, rrm_vlm(args))
    reward = model.score([item], args.seed)[0]
    told = json.dumps(as_json(reward, model.vlm.name, model.prompt_id), ensure_ascii=False, indent=2) if args.json else as_text(reward)
    say(f"{item.instruction}\n{told}" if args.example and not args.json else told)
    if args.html:
        page = verdict_page(item, reward, model.vlm.name, model.prompt_id, explain(reward.reason))
        write_atomic(args.html, page.encode())
    return 0 if reward.scored else EXIT_UNSCORED


def _given(args: argparse.Namespace) -> RewardItem:
    """The edit that the command line names."""
    if args.instruction is None:
        raise DataError("give SOURCE EDITED INSTRUCTION, or --example for the shipped edit")
    source, edited = read_picture(args.source), read_picture(args.edited)
    if not args.instruction.strip():
        raise DataError("the instruction is empty; say what the edit was meant to do")
    return RewardItem(source, edited, args.instruction, read_principles(args.principles) if args.principles else None)


def _example(args: argparse.Namespace) -> RewardItem:
    """The shipped edit; sets the shipped judge where no other is named."""
    if args.source is not None:
        raise DataError("--example brings its own pictures and instruction; leave the others out, or leave --example out")
    if vlm_component(args) is None:
        args.checkpoint = str(example.JUDGE)
    item = example.edit()
    return replace(item, principles=read_principles(args.principles)) if args.principles else item


def read_principles(path: Path) -> tuple[Principle, ...]:
    """The principles of a JSON file. Raises DataError for anything else."""
    try:
        text = path.read_text("utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise DataError(f"cannot read {path}: {error}") from error
    parsed = parse_principles(text, quotas=None, questions_in_english=False)
    if isinstance(parsed, BadDecomposition):
        raise DataError(f"{path} holds no principles ({parsed.problem}); expected a JSON array of {{question, category}}")
    return parsed


def as_text(reward: Reward) -> str:
    """What a person reads in the terminal; what the model said is shown when it could not be used."""
    lines = [f"{_verdict(rate, reward.num_valid):>7}  {label:<3} {principle.question}" for label, principle, rate in _rows(reward)]
    if reward.value is not None:
        of = f", mean of {reward.num_valid} of {reward.num_traces} traces" if reward.num_traces > 1 else ""
        return "\n".join([*lines, f"score {reward.value:.2f} of 10{of}"])
    text = reward.traces[0].text if reward.traces else reward.answer
    flat = " ".join(text.split())
    said = repr(flat) if len(flat) <= SHOWN else f"{flat[:SHOWN]!r}... ({len(text):,} characters)"
    return "\n".join([*lines, f"unscored: {explain(reward.reason)}", f"the model replied: {said}"])


def explain(reason: str | None) -> str:
    """The reason with its meaning, where it is a code of Phi, or with what to do where no questions were written."""
    if reason and reason.startswith(UNDECOMPOSED):
        return f"{reason}\na judge that was trained only to judge writes no questions: give --principles FILE, or --decomposer MODEL"
    return f"{reason} ({MEANING[reason]})" if reason in MEANING else str(reason)


def _verdict(rate: float | None, num_valid: int) -> str:
    if rate is None:
        return "-"
    return f"{rate:.0%} yes" if num_valid > 1 else "yes" if rate else "no"


def _rows(reward: Reward) -> list[tuple[str, Principle, float | None]]:
    """Label, principle and share of yes; None where no trace states verdicts."""
    rates: list[float | None] = list(reward.rates) or [None] * len(reward.principles)
    return list(zip(labels(reward.principles), reward.principles, rates, strict=True))


def as_json(reward: Reward, model: str, prompt_id: str) -> dict[str, Any]:
    """The same for programs. `score` is null when unscored, and `reason` says why."""
    return {
        "score": reward.value,
        "reason": reward.reason,
        "model": model,
        "prompt": prompt_id,
        "num_valid": reward.num_valid,
        "num_traces": reward.num_traces,
        "num_tokens": reward.num_tokens,
        "seconds": round(reward.seconds, 3),
        "principles": [{"id": label, "question": p.question, "category": p.category, "yes_rate": rate} for label, p, rate in _rows(reward)],
        "traces": [{"text": trace.text, **_outcome(trace.outcome)} for trace in reward.traces],
    }


def _outcome(outcome: Judgement | ParseFailure) -> dict[str, Any]:
    if isinstance(outcome, ParseFailure):
        return {"failure": outcome.code}
    return {"verdicts": [int(verdict) for verdict in outcome.verdicts], "score": outcome.score}


SIDE = 1024  # ours: pixels of a picture's longer side; two of them stay well below a megabyte
PIXEL_ART = 256  # ours: smaller pictures are kept exactly and drawn enlarged without smoothing

TITLES = {"follow": "Does it follow the instruction?", "keep": "Does it keep the rest?", "quality": "Is the picture sound?"}


def verdict_page(item: RewardItem, reward: Reward, judge: str, prompt_id: str, problem: str = "") -> str:
    """A self-contained HTML page, at most about a megabyte; nothing is loaded from elsewhere.

    judge, prompt_id: who was asked, and how. problem: why there is no score, in words.
    """
    before = item.source if isinstance(item.source, tuple) else (item.source,)
    groups = {category: [row for row in _rows(reward) if row[1].category == category] for category in CATEGORIES}
    return template("verdict.html").render(
        instruction=item.instruction,
        pictures=[*(("Before", _picture(image)) for image in before), ("After", _picture(item.edited))],
        reward=reward,
        problem=problem,
        groups=[(TITLES[category], reward.category_means.get(category), found) for category, found in groups.items() if found],
        traces=[(_told(trace.outcome), trace.text) for trace in reward.traces],
        judge=judge,
        prompt_id=prompt_id,
    )


def _told(outcome: Judgement | ParseFailure) -> str:
    return f"score {outcome.score:g}" if isinstance(outcome, Judgement) else f"unscored: {outcome.code}"


def _picture(image: Image.Image) -> dict[str, Any]:
    mime, data = encode_small(image, SIDE, PIXEL_ART)
    uri = f"data:{mime};base64,{base64.b64encode(data).decode()}"
    return {"uri": uri, "width": image.width, "height": image.height, "pixelated": max(image.size) <= PIXEL_ART}


def add_serve(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--config", type=Path, metavar="RECIPE", help="YAML file; its section `serve` is read")
    parser.add_argument("--set", action="append", default=[], metavar="KEY=VALUE", help="override, such as serve.num_traces=4")
    add_model_arguments(parser)
    add_judge_arguments(parser, None)
    parser.add_argument("--prompt", metavar="ID", help="score prompt (default: the checkpoint's own, else tv)")
    parser.add_argument("--traces", type=int, metavar="K", help="traces to average over (default: 1)")
    parser.add_argument("--decompose", action="store_true", help="the judge makes principles for edits that come without")
    parser.add_argument("--host", default="127.0.0.1", help="address to bind; other than loopback needs --token")
    parser.add_argument("--port", type=int, default=8090)
    parser.add_argument("--token", help="clients must send 'Authorization: Bearer TOKEN'")
    parser.add_argument("--root", type=Path, metavar="DIR", help="folder below which requests may name image files")
    parser.add_argument("--allow-pickle", action="store_true", help="also speak flow_grpo's pickle dialect (loopback only, restricted)")


def run_serve(args: argparse.Namespace) -> int:
    """Serve the reward: JSON over HTTP, with the dialects of other trainers.

    editr1 serve --base-url http://localhost:8000/v1 --model edit-rrm --decompose
    editr1 serve --checkpoint runs/demo/08_rrm_gcpo
    editr1 serve --judge editscore --model EditScore-7B --base-url http://localhost:8000/v1
    editr1 serve --config recipes/serve.yaml --set serve.num_traces=4
    """
    try:
        from editr1.serve.app import Access, Config, build_app, make_judge
        from editr1.serve.listen import address, bind, listen
    except ModuleNotFoundError as error:
        raise ConfigError(f"the service needs {error.name}; install it with: pip install -e '.[serve]'") from error
    access = Access(args.host, args.token, args.root, args.allow_pickle)
    access.check()
    config = section({"serve": _settings(args)}, "serve", Config)
    bound = bind(args.host, args.port)
    judge = make_judge(config)
    app = build_app(judge, config, access)
    what = f"prompt {judge.prompt_id}" if isinstance(judge, RewardModel) else f"judge {config.judge.id if config.judge else ''}"
    model = f"{config.vlm.id}, " if config.vlm else ""
    say(f"serving {model}{what}, at {address(args.host, bound)} (Ctrl-C stops)")
    listen(app, bound)
    return 0


def _settings(args: argparse.Namespace) -> dict[str, Any]:
    """The section `serve`: the recipe's, the command line's judge over it, and `--set` over both."""
    settings = dict(load_recipe(args.config).get("serve") or {}) if args.config else {}
    if (model := vlm_component(args)) is not None:
        settings["vlm"] = {"id": model.id, "options": model.options}
    if args.judge:
        if args.prompt or args.traces or args.decompose:
            raise ConfigError("--prompt, --traces and --decompose describe the RRM; options of --judge are given as --judge-set KEY=VALUE")
        judge = judge_component(args)
        settings["judge"] = {"id": judge.id, "options": judge.options}
    if not {"vlm", "judge"} & settings.keys() and not any(text.startswith(("serve.vlm", "serve.judge")) for text in args.set):
        raise ConfigError("name a judge: --model ID with --base-url URL, --checkpoint DIR, or --config RECIPE with a section `serve`")
    if args.prompt:
        settings["prompt_id"] = args.prompt
    if args.traces:
        settings |= {"num_traces": args.traces} | ({} if args.traces == 1 or "temperature" in settings else {"temperature": 0.7})
    if args.decompose:
        settings["decomposer"] = settings.get("vlm")
    recipe = with_overrides({"serve": settings}, args.set)
    if stray := recipe.keys() - {"serve"}:
        raise ConfigError(f"--set {min(stray)}...: this command reads the section `serve` only, such as serve.num_traces=4")
    return dict(recipe["serve"])
