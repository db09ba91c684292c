"""The command `editr1`: finds the files of `commands/` and the stages, imports the one that was named and hands over. No logic here."""

from __future__ import annotations

import argparse
import ast
import importlib
import inspect
import io
import re
import shlex
import sqlite3
import sys
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any

from editr1 import __version__, commands
from editr1.errors import EditR1Error, disk_trouble
from editr1.placement import share_cores
from editr1.text import printable

EXIT_USER_ERROR = 2  # the same as argparse uses for a wrong command line
_STAGES = Path(__file__).parent / "stages"


class _Parser(argparse.ArgumentParser):
    """Of one command, which is imported when its words are parsed."""

    file: Path

    def parse_known_args(self, args: Any = None, namespace: Any = None) -> Any:
        if self.get_default("main") is None:
            self.formatter_class = argparse.RawDescriptionHelpFormatter
            self.description, add_arguments, run = _command(self.prog.rpartition(" ")[2], self.file)
            add_arguments(self)
            for action in self._actions:
                if str(action.default) not in ("None", "False", "[]", argparse.SUPPRESS) and "default" not in (action.help or ""):
                    action.help = f"{action.help or ''} (default: %(default)s)".lstrip()
            self.set_defaults(main=run)
        return super().parse_known_args(args, namespace)


class _Overview(argparse.ArgumentParser):
    """Of `editr1` itself: its help lists the commands."""

    def format_help(self) -> str:
        self.epilog = _overview()
        return super().format_help()


def build_parser() -> argparse.ArgumentParser:
    """One sub-command a stage and a `run_NAME` of a public file of `commands/`: its docstring is the help; `edit_rl` is `edit-rl`."""
    parser = _Overview(
        prog="editr1",
        usage="editr1 [-h] [--version] COMMAND ...",
        description="Edit-R1 (arXiv 2604.27505): the loop, its parts and its reports.",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--version", action="version", version=f"editr1 {__version__}")
    subparsers = parser.add_subparsers(
        dest="command", required=True, metavar="COMMAND", prog="editr1", help=argparse.SUPPRESS, parser_class=_Parser
    )
    for name, file in _files().items():
        subparsers.add_parser(name).file = file
    return parser


def command_names() -> list[str]:
    """What may stand after `editr1`."""
    return sorted(_files())


def _files() -> dict[str, Path]:
    """By name, where each command is written; none is imported."""
    files = {file.stem: file for file in sorted(_STAGES.glob("[!_]*.py"))}
    for folder in map(Path, commands.__path__):
        for file in sorted(folder.glob("[!_]*.py")):
            files |= dict.fromkeys(re.findall(r"^def run_(\w+)\(args: ", file.read_text(encoding="utf-8"), re.MULTILINE), file)
    return {name.replace("_", "-"): file for name, file in files.items()}


def _command(name: str, file: Path) -> tuple[str | None, Any, Any]:
    """The help of a command, what adds its options, and what runs it. A stage is not imported: some load model libraries."""
    if file.parent == _STAGES:
        from editr1.commands.loop import add_stage, start_stage

        return _doc(ast.parse(file.read_bytes()), name), partial(add_stage, file=file), partial(start_stage, name=file.stem)
    module, word = importlib.import_module(f"{commands.__name__}.{file.stem}"), name.replace("-", "_")
    run = getattr(module, f"run_{word}")
    return inspect.getdoc(run), getattr(module, f"add_{word}"), run


def _overview() -> str:
    """The commands in the groups and the order of `commands.GROUPS`, one a line."""
    files = _files()
    trees = {file: ast.parse(file.read_bytes()) for file in set(files.values())}
    summaries = {name: _doc(trees[file], name).split("\n")[0].split(" (paper")[0].rstrip(".") for name, file in files.items()}
    listed = {name for names in commands.GROUPS.values() for name in names}
    groups = {**commands.GROUPS, "others": tuple(sorted(summaries.keys() - listed))}
    width = max(map(len, summaries))
    parts = [
        "\n".join([f"{title}:", *(f"  {name:<{width}}  {summaries[name]}" for name in names)]) for title, names in groups.items() if names
    ]
    return "\n\n".join([*parts, "editr1 COMMAND --help says what a command takes."])


def _doc(tree: ast.Module, name: str) -> str:
    """The help of a command in its file: of `run_NAME`, or of the file for a stage."""
    own = (node for node in tree.body if isinstance(node, ast.FunctionDef) and node.name == f"run_{name.replace('-', '_')}")
    return ast.get_docstring(next(own, tree)) or ""


def main(argv: Sequence[str] | None = None) -> int:
    """Runs one command; what the user can act on is one line on stderr and exit code 2."""
    share_cores()
    words = sys.argv[1:] if argv is None else list(argv)
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")  # half an emoji, or a terminal that is not UTF-8; inside JSON it is an escape
    args = build_parser().parse_args(words)
    args.command_line = shlex.join(["editr1", *words])  # for commands that keep how a figure was made
    try:
        return int(args.main(args))
    except EditR1Error as error:
        print(f"editr1 {args.command}: {printable(' '.join(str(error).split()))}", file=sys.stderr)
        return EXIT_USER_ERROR
    except sqlite3.DatabaseError as error:
        print(f"editr1 {args.command}: the database of votes cannot be used ({error}); restore it from a copy", file=sys.stderr)
        return EXIT_USER_ERROR
    except KeyboardInterrupt:
        print(f"editr1 {args.command}: interrupted; run the same command again to continue", file=sys.stderr)
        return 130
    except BrokenPipeError:  # `editr1 ... | head`
        sys.stderr.close()
        return 141
    except OSError as error:
        trouble = disk_trouble(error)
        if trouble is None:
            raise
        print(f"editr1 {args.command}: {trouble}", file=sys.stderr)
        return EXIT_USER_ERROR


if __name__ == "__main__":
    sys.exit(main())
