"""Serve the reward: JSON over HTTP, with the dialects of other trainers.

editr1 serve --base-url http://localhost:8000/v1 --model edit-rrm --decompose
editr1 serve --checkpoint runs/demo/08_rrm_gcpo
editr1 serve --judge editscore --model EditScore-7B --base-url http://localhost:8000/v1
editr1 serve --config recipes/serve.yaml --set serve.num_traces=4
"""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

from editr1.commands._judge import add_judge_arguments, judge_component
from editr1.config import load_recipe, section, with_overrides
from editr1.errors import ConfigError
from editr1.judge.rrm import RewardModel


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--config", type=Path, metavar="RECIPE", help="YAML file; its section `serve` is read")
    parser.add_argument("--set", action="append", default=[], metavar="KEY=VALUE", help="override, such as serve.num_traces=4")
    parser.add_argument("--base-url", metavar="URL", help="OpenAI-compatible endpoint of the judge, up to and including /v1")
    parser.add_argument("--model", help="model id at the endpoint")
    parser.add_argument("--checkpoint", metavar="DIR", help="local checkpoint folder, in place of an endpoint")
    add_judge_arguments(parser, None)
    parser.add_argument("--prompt", metavar="ID", help="score prompt (default: the checkpoint's own, else tv)")
    parser.add_argument("--traces", type=int, metavar="K", help="traces to average over (default: 1)")
    parser.add_argument("--decompose", action="store_true", help="the judge makes principles for edits that come without")
    parser.add_argument("--host", default="127.0.0.1", help="address to bind; other than loopback needs --token")
    parser.add_argument("--port", type=int, default=8090)
    parser.add_argument("--token", help="clients must send 'Authorization: Bearer TOKEN'")
    parser.add_argument("--root", type=Path, metavar="DIR", help="folder below which requests may name image files")
    parser.add_argument("--allow-pickle", action="store_true", help="also speak flow_grpo's pickle dialect (loopback only, restricted)")


def main(args: argparse.Namespace) -> int:
    try:
        from editr1.serve.app import Access, Config, build_app, make_judge
        from editr1.serve.listen import listen
    except ModuleNotFoundError as error:
        raise ConfigError(f"the service needs {error.name}; install it with: pip install -e '.[serve]'") from error
    access = Access(args.host, args.token, args.root, args.allow_pickle)
    access.check()
    config = section({"serve": _settings(args)}, "serve", Config)
    judge = make_judge(config)
    app = build_app(judge, config, access)
    what = f"prompt {judge.prompt_id}" if isinstance(judge, RewardModel) else f"judge {config.judge.id if config.judge else ''}"
    model = f"{config.vlm.id}, " if config.vlm else ""
    print(f"serving {model}{what}, at http://{args.host}:{args.port} (Ctrl-C stops)", flush=True)  # noqa: T201
    listen(app, args.host, args.port)
    return 0


def _settings(args: argparse.Namespace) -> dict[str, Any]:
    """The section `serve`: the recipe's, the command line's judge over it, and `--set` over both."""
    settings = dict(load_recipe(args.config).get("serve") or {}) if args.config else {}
    if args.checkpoint and args.model:
        raise ConfigError("name one judge: --model ID (with --base-url for a server of your own), or --checkpoint DIR")
    if args.checkpoint:
        settings["vlm"] = {"id": "local", "options": {"path": args.checkpoint}}
    if args.model:
        settings["vlm"] = {"id": "openai_api", "options": {"model": args.model, "base_url": args.base_url}}
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
