"""Options that name a judge and the model behind it, what they make, and how figures leave a command; shared by several commands."""

from __future__ import annotations

import argparse
import dataclasses
import os
import sys
import time
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any, TypeVar

from jinja2 import Environment, PackageLoader, StrictUndefined, Template, select_autoescape

from editr1.bench.base import Outcome
from editr1.config import Component, available, create, parse_yaml
from editr1.errors import ChangedInputsError, ConfigError
from editr1.judge.decompose import Decomposer, Rules
from editr1.judge.item import MAX_TOKENS, Asking, asking
from editr1.judge.prompts import score_prompt_ids
from editr1.judge.rrm import RewardModel
from editr1.schema import Metric, to_json
from editr1.stats import FEW_CLUSTERS, MIN_CLUSTERS
from editr1.store import Run, put_aside
from editr1.store._files import write_atomic
from editr1.text import aligned
from editr1.vlm.base import VLM, Sampling

T = TypeVar("T")
MAX_ATTEMPTS = 3  # ours: a person waits; a stage tries longer


def add_judge_arguments(parser: argparse.ArgumentParser, default: str | None) -> None:
    """Which judge; `default` None = the RRM as the command's own options describe it."""
    add = parser.add_argument
    judges = ", ".join(available("judges"))
    shown = f"default: {default}" if default else "default: the RRM with the options below"
    add("--judge", default=default, metavar="ID", help=f"{judges}, or package.module:Name ({shown})")
    add("--judge-set", action="append", default=[], metavar="KEY=VALUE", help="option of the judge, such as num_traces=4; repeatable")


def add_model_arguments(parser: argparse.ArgumentParser) -> None:
    """The vision-language model that answers."""
    parser.add_argument("--model", help="model id at an OpenAI-compatible endpoint")
    parser.add_argument("--base-url", metavar="URL", help="its address, up to and including /v1")
    parser.add_argument("--checkpoint", metavar="DIR", help="local checkpoint, in place of an endpoint")
    parser.add_argument("--vlm", metavar="ID", help="any other VLM component, in place of both")
    parser.add_argument("--vlm-set", action="append", default=[], metavar="KEY=VALUE", help="option of the model's component; repeatable")


def judge_component(args: argparse.Namespace) -> Component:
    """The judge that --judge and --judge-set name: an id, or `{id: package.module:Factory, options: {...}}`."""
    spec = parse_yaml(args.judge, "--judge") if args.judge.lstrip().startswith("{") else {"id": args.judge}
    if not isinstance(spec, dict) or "id" not in spec or spec.keys() - {"id", "options"}:
        raise ConfigError(f"--judge {args.judge!r}: expected an id, or {{id: ..., options: {{...}}}}")
    return Component(spec["id"], {**(spec.get("options") or {}), **options(args.judge_set)})


def make_judge(args: argparse.Namespace, vlm: VLM | None) -> Any:
    """The judge, with the model as its option `vlm` where there is one.

    Raises ConfigError for an unknown judge or option, and for a judge that needs a model and has none.
    """
    component = judge_component(args)
    return create("judges", Component(component.id, component.options | ({"vlm": vlm} if vlm is not None else {})))


def vlm_component(args: argparse.Namespace, **defaults: Any) -> Component | None:
    """The model that the options name, or None. Raises ConfigError when they name several.

    defaults: options of an endpoint, which --vlm-set overrides.
    """
    named = [name for name in ("model", "checkpoint", "vlm") if getattr(args, name)]
    if len(named) > 1:
        raise ConfigError(f"--{named[0]} and --{named[1]} both name a model; give one")
    extra = options(args.vlm_set)
    if args.model:
        return Component("openai_api", {"model": args.model, "base_url": args.base_url, **defaults, **extra})
    if args.checkpoint:
        if not Path(args.checkpoint).is_dir():  # transformers would look for it on the Hub, offline for minutes
            hub = "a model of the Hugging Face Hub is --vlm local --vlm-set path=ORG/NAME"
            raise ConfigError(f"cannot load a vision-language checkpoint from {args.checkpoint!r}: there is no such folder; {hub}")
        return Component("local", {"path": args.checkpoint, **extra})
    return Component(args.vlm, extra) if args.vlm else None


def options(pairs: Sequence[str]) -> dict[str, Any]:
    """`KEY=VALUE` pairs with values in YAML.

    >>> options(["num_traces=4", "prompt_id=v"])
    {'num_traces': 4, 'prompt_id': 'v'}
    """
    found = {}
    for pair in pairs:
        key, equals, text = pair.partition("=")
        if not key or not equals:
            raise ConfigError(f"option {pair!r} must have the form KEY=VALUE")
        found[key] = parse_yaml(text, f"option {key!r}")
    return found


def add_rrm_arguments(parser: argparse.ArgumentParser) -> None:
    """How the RRM is asked, and who writes principles that are missing."""
    add = parser.add_argument
    add("--prompt", choices=score_prompt_ids(), metavar="ID", help="score prompt: %(choices)s (default: the checkpoint's own, else tv)")
    add("--traces", type=int, default=1, metavar="K", help="traces to average over (default: 1)")
    add("--temperature", type=float, help="default: 0 for one trace, 0.7 for several")
    add("--max-tokens", type=int, help=f"limit of a reply (default: the checkpoint's own, else {MAX_TOKENS})")
    add("--expected", action="store_true", help="the score's expectation under the token probabilities in place of the sampled score")
    add("--timeout", type=float, default=300.0, help="seconds without an answer until a request is repeated (default: 300)")
    add("--batch-size", type=int, default=16, help="sequences at once of a local checkpoint (default: 16)")
    add("--decomposer", metavar="MODEL", help="model that writes missing principles (default: the judge)")
    add("--decomposer-url", metavar="URL", help="its endpoint (default: --base-url)")
    add("--seed", type=int, default=0)


def rrm_vlm(args: argparse.Namespace) -> VLM:
    """The model that the options name. Raises ConfigError unless they name exactly one."""
    component = vlm_component(args, timeout=args.timeout, max_attempts=MAX_ATTEMPTS)
    if component is None:
        raise ConfigError("name one judge: --model ID (with --base-url for a server of your own), or --checkpoint DIR")
    if component.id == "local":
        component = Component("local", {"batch_size": args.batch_size, **component.options})
    return create("vlm", component)


def reward_model(args: argparse.Namespace, vlm: VLM) -> RewardModel:
    """The RRM with its prompt, number of traces and sampling; the model that the options name, else the judge, writes principles."""
    how, writer = asked(args), vlm
    temperature = args.temperature if args.temperature is not None else 0.0 if args.traces == 1 else 0.7
    sampling = Sampling(temperature, max_tokens=how.max_tokens)
    if args.decomposer:
        named = {"model": args.decomposer, "base_url": args.decomposer_url or args.base_url}
        writer = create("vlm", Component("openai_api", {**named, "timeout": args.timeout, "max_attempts": MAX_ATTEMPTS}))
    return RewardModel(vlm, how.prompt_id, args.traces, sampling, Decomposer(writer, Rules(sampling=sampling)), args.expected)


def asked(args: argparse.Namespace) -> Asking:
    """How the options, or else its checkpoint, say that the RRM is asked."""
    return asking(vlm_component(args), args.prompt, args.max_tokens)


_HEADINGS = ("protocol", "value", "95 % interval", "n", "sources", "unscored", "ties", "p")


def add_output_arguments(parser: argparse.ArgumentParser) -> None:
    """How the numbers leave the command."""
    parser.add_argument("--json", action="store_true", help="one JSON object a metric in place of a table")
    parser.add_argument("--details", action="store_true", help="also the numbers by category")
    parser.add_argument("--run", type=Path, metavar="DIR", help="add the metrics to this run's 10_metrics.jsonl")


def show(metrics: Sequence[Metric], args: argparse.Namespace, lines: Sequence[str] = ()) -> None:
    """Prints the metrics as the arguments say (or `lines` in place of the table), and adds them to the run directory if one is named."""
    if args.run:
        run = Run.open(args.run)
        for metric in metrics:
            run.add_metric(metric)
    if args.json:
        say(*map(to_json, metrics))
    else:
        say(*(lines or [*table(metrics, args.details), *few_sources(metrics)]))


def write_outcomes(path: Path, outcomes: Sequence[Outcome]) -> None:
    """An `*.outcomes.jsonl`, which `editr1 compare` takes."""
    write_atomic(path, "".join(to_json(outcome) + "\n" for outcome in outcomes).encode())


def named(metrics: Iterable[Metric], judge: str) -> list[Metric]:
    """The metrics of one of several judges: its name ends theirs."""
    return [dataclasses.replace(metric, name=f"{metric.name}/{judge}") for metric in metrics]


def few_sources(metrics: Sequence[Metric]) -> list[str]:
    """A warning where an interval rests on too few sources to be taken at its word; nothing otherwise."""
    counts = [metric.num_clusters for metric in metrics if metric.num_clusters]
    if not counts or min(counts) >= FEW_CLUSTERS:
        return []
    no_p = f"; below {MIN_CLUSTERS} there is no p" if min(counts) < MIN_CLUSTERS else ""
    return [f"few sources: some intervals rest on {min(counts)}, fewer than {FEW_CLUSTERS}, and say little about other data{no_p}"]


def accepting(work: Callable[[], T], accept: bool) -> T:
    """What the work returns; with `accept`, a table or training that was begun from other inputs is put aside and made over."""
    while True:
        try:
            return work()
        except ChangedInputsError as change:
            if not accept:
                raise
            if os.environ.get("RANK", "0") == "0":
                say(f"{put_aside(change.folder, change.curves)} holds what was made before: {change.change}")
            else:
                time.sleep(1.0)  # the first process puts it aside for all


def say(*lines: str) -> None:
    """Lines on standard output."""
    for line in lines:
        print(line, file=sys.stdout, flush=True)  # noqa: T201


def template(name: str) -> Template:
    """A page of `commands/pages`; what it shows is text and no markup."""
    pages = PackageLoader("editr1.commands", "pages")
    how: dict[str, Any] = {"autoescape": select_autoescape(), "undefined": StrictUndefined, "keep_trailing_newline": True}
    return Environment(loader=pages, trim_blocks=name.endswith(".html"), **how).get_template(name)


def table(metrics: Sequence[Metric], details: bool = False) -> list[str]:
    """The metrics as aligned lines. A number that does not exist is a dash."""
    lines = []
    for index, line in enumerate(aligned([_HEADINGS, *(_cells(metric) for metric in metrics)])):
        lines.append(line)
        if details and index:
            lines += [f"    {name}: {value:.4f}" for name, value in metrics[index - 1].by_category.items()]
    return lines


def _cells(metric: Metric) -> tuple[str, ...]:
    interval = "-" if metric.low is None or metric.high is None else f"[{metric.low:.4f}, {metric.high:.4f}]"
    return (
        metric.protocol or metric.name,
        number(metric.value),
        interval,
        str(metric.n),
        str(metric.num_clusters or "-"),
        str(metric.num_unscored),
        number(metric.tie_rate, 3),
        number(metric.p_value, 4),
    )


def number(value: float | None, digits: int = 4) -> str:
    """A dash for one that does not exist."""
    return "-" if value is None else f"{value:.{digits}f}"
