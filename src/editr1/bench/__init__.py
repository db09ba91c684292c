"""One file a benchmark; which functions it may offer stands in `base`."""

SHARED = {
    "kris_bench": "marks", "risebench": "marks", "imagenhub": "marks",
    "lmms_eval": "harness_logs", "evalscope": "harness_logs",
    "mmrb2_edit": "mmrb2_edit", "mmrb2_judgements": "mmrb2_edit",
    "editreward_compass": "editreward", "editreward_editscore": "editreward",
    "folder": "own", "table": "own", "pairs": "own",
}  # fmt: skip
"""Those that share a file: the file has a `base.Part` of each one's name."""
