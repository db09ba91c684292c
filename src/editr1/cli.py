"""The command `editr1`: finds the files of `commands/` and hands over to the one that was named. No logic here."""

from __future__ import annotations

import argparse
import importlib
import pkgutil
import shlex
import sys
from collections.abc import Sequence

from editr1 import __version__, commands
from editr1.errors import EditR1Error

EXIT_USER_ERROR = 2  # the same as argparse uses for a wrong command line


def build_parser() -> argparse.ArgumentParser:
    """One sub-command a public file of `commands/`: its docstring is the help, `edit_rl.py` is called `edit-rl`."""
    parser = argparse.ArgumentParser(prog="editr1", description="Edit-R1 (arXiv 2604.27505): the loop, its parts and its reports.")
    parser.add_argument("--version", action="version", version=f"editr1 {__version__}")
    subparsers = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")
    for info in sorted(pkgutil.iter_modules(commands.__path__), key=lambda info: info.name):
        if info.name.startswith("_"):
            continue
        module = importlib.import_module(f"{commands.__name__}.{info.name}")
        summary = (module.__doc__ or "").strip()
        subparser = subparsers.add_parser(
            info.name.replace("_", "-"),
            help=summary.split("\n")[0].replace("%", "%%"),
            description=summary,
            formatter_class=argparse.RawDescriptionHelpFormatter,
        )
        module.add_arguments(subparser)
        subparser.set_defaults(main=module.main)
    return parser


def main(argv: Sequence[str] | None = None) -> int:
    """Runs one command; what the user can act on is one line on stderr and exit code 2."""
    words = sys.argv[1:] if argv is None else list(argv)
    args = build_parser().parse_args(words)
    args.command_line = shlex.join(["editr1", *words])  # for commands that keep how a figure was made
    try:
        return int(args.main(args))
    except EditR1Error as error:
        print(f"editr1 {args.command}: {' '.join(str(error).split())}", file=sys.stderr)
        return EXIT_USER_ERROR
    except KeyboardInterrupt:
        print(f"editr1 {args.command}: interrupted; run the same command again to continue", file=sys.stderr)
        return 130
    except BrokenPipeError:  # `editr1 ... | head`
        sys.stderr.close()
        return 141


if __name__ == "__main__":
    sys.exit(main())
