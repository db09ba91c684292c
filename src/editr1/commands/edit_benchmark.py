"""Make the edits of a benchmark with any editor, in the layout that `editr1 score-folder` reads. Makes only what is missing.

    editr1 edit-benchmark gedit --root GEDIT_DATA --editor kontext --out OUT/kontext
    editr1 edit-benchmark gedit --root GEDIT_DATA --editor images_api --editor-set model=M --editor-set base_url=URL --out OUT/m
    editr1 score-folder OUT/kontext --root GEDIT_DATA --run RUN --judge viescore --model gpt-4.1 --label kontext

Two editors judged by one judge are compared, by sample and by category, with: editr1 compare A.outcomes.jsonl B.outcomes.jsonl
"""

from __future__ import annotations

import argparse
import dataclasses
import json
from pathlib import Path

from editr1.bench.base import EditSet
from editr1.commands._judge import options
from editr1.commands._metrics import say
from editr1.config import Component, available, create, offered, to_plain
from editr1.editors.base import Editor
from editr1.errors import ConfigError, nearest
from editr1.measure.edit_files import MISSING, claim, make_edits, missing_orders, refuse_foreign


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("name", metavar="NAME", help=f"benchmark: {', '.join(offered('bench', 'edit_set'))}, or package.module:function")
    parser.add_argument("--root", type=Path, metavar="DIR", help="local copy of the benchmark's data")
    parser.add_argument("--set", action="append", default=[], metavar="KEY=VALUE", help="option of the benchmark, such as language=cn")
    parser.add_argument("--editor", required=True, metavar="ID", help=f"{', '.join(available('editors'))}, or package.module:Name")
    parser.add_argument("--editor-set", action="append", default=[], metavar="KEY=VALUE", help="option of the editor; repeatable")
    parser.add_argument("--out", type=Path, required=True, metavar="DIR", help="folder of this editor's edits")
    parser.add_argument("--batch-size", type=int, default=1, help="edits handed to the editor at once (default 1)")
    parser.add_argument("--max-failed", type=float, default=0.05, help="stop above this share of failed requests (default 0.05)")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--dry-run", action="store_true", help="say how many edits are missing and stop")
    parser.add_argument("--json", action="store_true", help="print the counts as one JSON object")


def main(args: argparse.Namespace) -> int:
    if args.batch_size < 1:
        raise ConfigError(f"--batch-size is {args.batch_size}; expected at least 1")
    edit_set = _edit_set(args)
    component = Component(args.editor, options(args.editor_set))
    if args.dry_run:
        say(f"{args.name}: {len(missing_orders(edit_set, args.out))} of {len(edit_set.orders)} edits are missing in {args.out}")
        return 0
    settings = {"benchmark": args.name, "set": options(args.set), "editor": args.editor, "options": component.options, "seed": args.seed}
    settings = to_plain(settings)  # without keys
    refuse_foreign(args.out, settings)
    editor = _editor(component)
    claim(args.out, settings)
    counts = make_edits(
        edit_set,
        editor,
        args.out,
        seed=args.seed,
        batch_size=args.batch_size,
        max_failed_share=args.max_failed,
        progress=not args.json,
    )
    say(json.dumps(dataclasses.asdict(counts)) if args.json else str(counts))
    if counts.failed and not args.json:
        say(f"why: {args.out / MISSING}; the same command tries them again")
    return 0


def _edit_set(args: argparse.Namespace) -> EditSet:
    names = offered("bench", "edit_set")
    if args.name not in names and ":" not in args.name:
        raise ConfigError(f"edit-benchmark has no tasks of {args.name!r}; {nearest(args.name, names)}")
    place = args.name if ":" in args.name else f"editr1.bench.{args.name}:edit_set"
    component = Component(place, {"root": args.root, **options(args.set)})
    edit_set: EditSet = create("bench", component)
    return edit_set


def _editor(component: Component) -> Editor:
    editor: Editor = create("editors", component)
    if not callable(getattr(editor, "edit", None)):
        raise ConfigError(f"--editor {component.id!r} makes no edits (it has no edit method); choose an editor")
    return editor
