"""The command `editr1`: finds the files of `commands/` and the stages, imports the one that was named and hands over. No logic here."""

from __future__ import annotations

import argparse
import ast
import importlib
import io
import shlex
import sqlite3
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from editr1 import __version__, commands
from editr1.errors import EditR1Error, disk_trouble
from editr1.placement import share_cores

EXIT_USER_ERROR = 2  # the same as argparse uses for a wrong command line
_STAGES = Path(__file__).parent / "stages"


class _Parser(argparse.ArgumentParser):
    """Of one command, which is imported when its words are parsed."""

    file: Path

    def parse_known_args(self, args: Any = None, namespace: Any = None) -> Any:
        if self.get_default("main") is None:
            command = _command(self.file)
            self.description = command.__doc__
            self.formatter_class = argparse.RawDescriptionHelpFormatter
            command.add_arguments(self)
            self.set_defaults(main=command.main)
        return super().parse_known_args(args, namespace)


class _Overview(argparse.ArgumentParser):
    """Of `editr1` itself: its help lists the commands."""

    def format_help(self) -> str:
        self.epilog = _overview()
        return super().format_help()


def build_parser() -> argparse.ArgumentParser:
    """One sub-command a stage and a public file of `commands/`: its docstring is the help, `edit_rl.py` is called `edit-rl`."""
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
    folders = (_STAGES, *map(Path, commands.__path__))
    return {file.stem.replace("_", "-"): file for folder in folders for file in sorted(folder.glob("[!_]*.py"))}


def _command(file: Path) -> Any:
    """What has a docstring, `add_arguments` and `main`. A stage is not imported: some load model libraries."""
    if file.parent == _STAGES:
        from editr1.commands._stages import StageCommand

        return StageCommand(file)
    return importlib.import_module(f"{commands.__name__}.{file.stem}")


def _overview() -> str:
    """The commands in the groups and the order of `commands.GROUPS`, one a line."""
    docs = {name: ast.get_docstring(ast.parse(file.read_bytes())) or "" for name, file in _files().items()}
    summaries = {name: doc.split("\n")[0].split(" (paper")[0].rstrip(".") for name, doc in docs.items()}
    listed = {name for names in commands.GROUPS.values() for name in names}
    groups = {**commands.GROUPS, "others": tuple(sorted(summaries.keys() - listed))}
    width = max(map(len, summaries))
    parts = [
        "\n".join([f"{title}:", *(f"  {name:<{width}}  {summaries[name]}" for name in names)]) for title, names in groups.items() if names
    ]
    return "\n\n".join([*parts, "editr1 COMMAND --help says what a command takes."])


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
        print(f"editr1 {args.command}: {' '.join(str(error).split())}", file=sys.stderr)
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
