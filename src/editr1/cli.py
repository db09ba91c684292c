"""The command `editr1`: finds the files of `commands/` and the stages, and hands over to the one that was named. No logic here."""

from __future__ import annotations

import argparse
import importlib
import io
import pkgutil
import shlex
import sqlite3
import sys
from collections.abc import Mapping, Sequence
from typing import Any

from editr1 import __version__, commands
from editr1.commands._stages import stage_commands
from editr1.errors import EditR1Error, disk_trouble
from editr1.placement import share_cores

EXIT_USER_ERROR = 2  # the same as argparse uses for a wrong command line


def build_parser() -> argparse.ArgumentParser:
    """One sub-command a stage and a public file of `commands/`: its docstring is the help, `edit_rl.py` is called `edit-rl`."""
    found = _commands()
    parser = argparse.ArgumentParser(
        prog="editr1",
        usage="editr1 [-h] [--version] COMMAND ...",
        description="Edit-R1 (arXiv 2604.27505): the loop, its parts and its reports.",
        epilog=_overview({name: _summary(command) for name, command in found.items()}),
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--version", action="version", version=f"editr1 {__version__}")
    subparsers = parser.add_subparsers(dest="command", required=True, metavar="COMMAND", prog="editr1", help=argparse.SUPPRESS)
    for name, command in found.items():
        subparser = subparsers.add_parser(name, description=command.__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
        command.add_arguments(subparser)
        subparser.set_defaults(main=command.main)
    return parser


def command_names() -> list[str]:
    """What may stand after `editr1`."""
    return sorted(_commands())


def _commands() -> dict[str, Any]:
    """By name, each with a docstring, `add_arguments` and `main`."""
    stages = {stage.name.replace("_", "-"): stage for stage in stage_commands()}
    names = (info.name for info in pkgutil.iter_modules(commands.__path__) if not info.name.startswith("_"))
    return stages | {name.replace("_", "-"): importlib.import_module(f"{commands.__name__}.{name}") for name in names}


def _summary(command: Any) -> str:
    return (command.__doc__ or "").strip().split("\n")[0].split(" (paper")[0].rstrip(".")


def _overview(summaries: Mapping[str, str]) -> str:
    """The commands in the groups and the order of `commands.GROUPS`, one a line."""
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
