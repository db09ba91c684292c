"""One file a judge: a function `build(...)` that gives something with RewardModel's `score(items, seed) -> list[Reward]`."""

SHARED = {
    "rrm": "pairwise", "viescore": "pairwise", "mllm_logit": "pairwise", "pairwise": "pairwise",
    "editreward": "editreward", "bradley_terry": "editreward",
    "trm_edit": "public", "unifiedreward_edit": "public", "firm_edit": "public", "rationalrewards": "public",
}  # fmt: skip
"""Judges of a page that share a file: the file has an object with `build` of each one's name."""
