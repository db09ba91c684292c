"""What goes wrong, and who has to act.

The policy of the whole package: **a failed judgement is data, a failed machine is an exception.**
A trace that Phi cannot parse is a `ParseFailure` value: stored, counted, never turned into a number.
A dead endpoint, a broken file or a misspelt key raises one of the classes below, and the command line
prints its message as one line and exits with code 2. Everything else is our own bug and keeps its traceback.
"""

from __future__ import annotations

import difflib
import errno
from collections.abc import Iterable
from pathlib import Path


class EditR1Error(Exception):
    """Base of everything the user can act on; the message says what is wrong, what was expected, what to do."""


class ConfigError(EditR1Error, ValueError):
    """A recipe, an option or a component id is wrong."""


class DataError(EditR1Error, ValueError):
    """A file, an image, a record or a run directory is not what it should be."""


class ChangedInputsError(DataError):
    """A folder was begun from other inputs or settings than it would be continued with; old and new rows or steps are never mixed."""

    def __init__(self, folder: Path, change: str, curves: str = "") -> None:
        """curves: the stage whose points in `metrics.jsonl` belong to the folder."""
        super().__init__(
            f"{change}; restore it, use a new run directory, or add --accept to make {folder.name} over (the old one is put aside)"
        )
        self.change, self.folder, self.curves = change, folder, curves

    def __reduce__(self) -> tuple[type[ChangedInputsError], tuple[Path, str, str]]:
        """A worker process hands it over."""
        return type(self), (self.folder, self.change, self.curves)


class BackendError(EditR1Error, RuntimeError):
    """A model endpoint or a local model failed after its retries."""


class ContentRefusedError(EditR1Error, RuntimeError):
    """A model works, and will not handle this content: data for whoever counts, not a failure of the machine."""


class NoSignalError(EditR1Error, RuntimeError):
    """The judge sees no differences: every edit of a group gets the same reward, for too long."""


class UnscoredError(EditR1Error, RuntimeError):
    """Too large a share of candidates came back unscored for the run to mean anything."""


DISK_TROUBLE = {
    errno.ENOSPC: "the disk is full; make room",
    errno.EDQUOT: "your quota of the disk is used up; make room",
    errno.EROFS: "the file system is read-only; choose a folder that can be written",
    errno.EACCES: "permission denied; choose a folder that you may write, or change its permissions",
    errno.EPERM: "permission denied; choose a folder that you may write, or change its permissions",
    errno.EIO: "the disk cannot be read or written; look at its health",
    errno.EMFILE: "too many files are open; raise `ulimit -n`",
    errno.ENOENT: "it is missing; restore it, or correct the path",
    errno.ENOTDIR: "a part of the path is a file; correct the path",
    errno.EISDIR: "it is a folder, a file was expected; correct the path",
}


def disk_trouble(error: OSError) -> str | None:
    """One line about a disk that does not do what was asked; None for trouble of another kind."""
    cure = DISK_TROUBLE.get(error.errno or 0)
    return f"{error.filename or 'a file'}: {cure}, and run the same command again: what was finished is kept" if cure else None


def nearest(name: str, known: Iterable[str]) -> str:
    """A clause that names the closest known spelling and lists the rest, for use inside an error message.

    >>> nearest("kontex", ["kontext", "qwen_edit"])
    "did you mean 'kontext'? (known: kontext, qwen_edit)"
    """
    options = sorted(known)
    close = difflib.get_close_matches(name, options, n=1)
    hint = f"did you mean {close[0]!r}? " if close else ""
    return f"{hint}(known: {', '.join(options) or 'none'})"
