"""Reads the documentation the way a reader uses it: files to save, commands to type, code to run."""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).parents[1]
HOW_TO = ROOT / "docs" / "how_to"
PAGES = sorted(
    [
        ROOT / "README.md",
        ROOT / "CONTRIBUTING.md",
        *(ROOT / name / "README.md" for name in ("benchmarks", "research")),
        *(ROOT / "docs").rglob("*.md"),
    ]
)
RECIPES = sorted(path for path in (ROOT / "recipes").rglob("*") if path.suffix in (".yaml", ".py"))
"""Their comments and docstrings name commands, too."""
SHELL = ("", "bash", "sh")
_BLOCK = re.compile(r"^```(\w*)\n(.*?)^```$", re.S | re.M)
_FILE = re.compile(r"# (\w+\.(?:py|yaml))\n")
_NAMED = re.compile(r"^(?:# *|    )(?:.*: +)?((?:editr1|accelerate launch) [^`]*?-.*)$", re.M)
_ASSIGNMENT = re.compile(r"[A-Z_][A-Z0-9_]*=")


def page_id(path: Path) -> str:
    """A page's name in the list of tests."""
    return str(path.relative_to(ROOT))


def all_blocks(page: Path) -> list[tuple[str, str]]:
    """(language, text) of every fenced block; a block without a language has the language ''."""
    return _BLOCK.findall(page.read_text(encoding="utf-8"))


def blocks(page: Path, *languages: str) -> list[str]:
    """The texts of the blocks in these languages."""
    return [text for language, text in all_blocks(page) if language in languages]


def files(page: Path) -> dict[str, str]:
    """The files that a page tells to save: blocks whose first line is a comment with a file name."""
    found = ((_FILE.match(text), text) for text in blocks(page, "python", "yaml"))
    return {match.group(1): text for match, text in found if match}


def save_files(page: Path, folder: Path) -> None:
    """Writes the page's files as a reader would."""
    for name, text in files(page).items():
        (folder / name).write_text(text, encoding="utf-8")


def shell_lines(page: Path) -> Iterator[list[str]]:
    """The words of every line of the page's shell blocks, or of a recipe's commands, without comments and variable assignments."""
    for block in blocks(page, *SHELL) if page.suffix == ".md" else named(page):
        for line in block.replace("\\\n", " ").splitlines():
            words = shlex.split(line, comments=True) if line.isascii() else []  # drawings are not commands
            while words and _ASSIGNMENT.match(words[0]):
                words.pop(0)
            if words:
                yield words


def named(recipe: Path) -> list[str]:
    """The commands in the comments of a recipe, but for those that leave something out (`--config ...`)."""
    text = recipe.read_text(encoding="utf-8").replace("\\\n#", "")
    return [command for command in _NAMED.findall(text) if "..." not in command]


def commands(page: Path) -> list[list[str]]:
    """The arguments of every call of `editr1`, behind a launcher or not."""
    return [arguments for words in shell_lines(page) if (arguments := editr1_arguments(words)) is not None]


def editr1_arguments(words: list[str]) -> list[str] | None:
    """What `editr1` gets to see of a shell line; None for another program.

    >>> editr1_arguments(["torchrun", "--nproc_per_node", "8", "-m", "--", "editr1.cli", "sft", "--run", "r"])
    ['sft', '--run', 'r']
    """
    if words[0] == "editr1":
        return words[1:]
    return words[words.index("editr1.cli") + 1 :] if "editr1.cli" in words else None
