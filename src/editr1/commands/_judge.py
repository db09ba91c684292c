"""Options that name a judge, shared by the commands that need one."""

from __future__ import annotations

import argparse

from editr1.audit.cases import Judge
from editr1.config import Component, create, parse_yaml
from editr1.errors import ConfigError
from editr1.judge.decomposer import Decomposer
from editr1.judge.prompts import score_prompt_ids
from editr1.judge.rrm import RewardModel
from editr1.vlm.base import VLM, Sampling

MAX_TOKENS = 2048
MAX_ATTEMPTS = 3  # ours: a person waits; a stage tries longer


def add_judge_arguments(parser: argparse.ArgumentParser) -> None:
    """The options that say who judges, and how."""
    parser.add_argument("--base-url", metavar="URL", help="OpenAI-compatible endpoint, up to and including /v1")
    parser.add_argument("--model", help="model id at the endpoint")
    parser.add_argument("--checkpoint", metavar="DIR", help="local checkpoint folder, in place of an endpoint")
    parser.add_argument("--prompt", default="tv", choices=score_prompt_ids(), metavar="ID", help="score prompt: %(choices)s (default: tv)")
    parser.add_argument("--traces", type=int, default=1, metavar="K", help="traces to average over (default: 1)")
    parser.add_argument("--temperature", type=float, help="default: 0 for one trace, 0.7 for several")
    parser.add_argument("--max-tokens", type=int, default=MAX_TOKENS, help=f"limit of a reply (default: {MAX_TOKENS})")
    parser.add_argument("--timeout", type=float, default=300.0, help="seconds without an answer until a request is repeated (default: 300)")
    parser.add_argument("--batch-size", type=int, default=16, help="sequences at once of a local checkpoint (default: 16)")
    parser.add_argument("--decomposer", metavar="MODEL", help="model that writes missing principles (default: the judge)")
    parser.add_argument("--decomposer-url", metavar="URL", help="its endpoint (default: --base-url)")
    parser.add_argument("--seed", type=int, default=0)


def judge_vlm(args: argparse.Namespace) -> VLM:
    """The model that the options name. Raises ConfigError unless they name exactly one."""
    if bool(args.checkpoint) == bool(args.model):
        raise ConfigError("name one judge: --model ID (with --base-url for a server of your own), or --checkpoint DIR")
    if args.checkpoint:
        return create("vlm", Component("local", {"path": args.checkpoint, "batch_size": args.batch_size}))
    return _endpoint(args, args.model, args.base_url)


def reward_model(args: argparse.Namespace, vlm: VLM) -> RewardModel:
    """The judge with its prompt, number of traces and sampling."""
    return RewardModel(vlm, args.prompt, args.traces, Sampling(_temperature(args), max_tokens=args.max_tokens))


def decomposer(args: argparse.Namespace, judge: VLM) -> Decomposer:
    """Who writes missing principles: the model that the options name, else the judge itself."""
    vlm = _endpoint(args, args.decomposer, args.decomposer_url or args.base_url) if args.decomposer else judge
    return Decomposer(vlm, sampling=Sampling(_temperature(args), max_tokens=args.max_tokens))


def component_judge(args: argparse.Namespace) -> Judge:
    """The judge component that --judge names: an id, or `{id: package.module:Factory, options: {...}}`.

    A model that the other options name is handed to it as `vlm`. Raises ConfigError for what is no such component.
    """
    spec = parse_yaml(args.judge, "--judge")
    if isinstance(spec, str):
        spec = {"id": spec}
    if not isinstance(spec, dict) or "id" not in spec or spec.keys() - {"id", "options"}:
        raise ConfigError(f"--judge {args.judge!r}: expected an id, or {{id: ..., options: {{...}}}}")
    options = dict(spec.get("options") or {})
    if args.model or args.checkpoint:
        options["vlm"] = judge_vlm(args)
    judge: Judge = create("judges", Component(spec["id"], options))
    if not hasattr(judge, "score"):
        raise ConfigError(f"--judge {spec['id']!r} has no method score(items, seed)")
    return judge


def _temperature(args: argparse.Namespace) -> float:
    return args.temperature if args.temperature is not None else 0.0 if args.traces == 1 else 0.7


def _endpoint(args: argparse.Namespace, model: str, base_url: str | None) -> VLM:
    options = {"model": model, "base_url": base_url, "timeout": args.timeout, "max_attempts": MAX_ATTEMPTS}
    return create("vlm", Component("openai_api", options))
