"""The texts that a stage asks with, as a setting of its rows: another wording is another question."""

from __future__ import annotations

import hashlib
from importlib.resources import files

SHARED = ("rules.md", "scale.md")  # other texts include them


def prompts(*names: str) -> dict[str, str]:
    """`prompts` -> digest of the named files of `judge/texts` and of those that they include."""
    folder = files("editr1.judge") / "texts"
    texts = [(folder / name).read_bytes() for name in sorted({*names, *SHARED})]
    return {"prompts": hashlib.sha256(b"\x00".join(texts)).hexdigest()}


def score_prompts(*prompt_ids: str) -> dict[str, str]:
    """As `prompts`, for prompts that ask for a score."""
    return prompts("score/base.md", *(f"score/{prompt_id}.md" for prompt_id in prompt_ids))
