"""What people type: `add_NAME(parser)` has a command's options, `run_NAME(args) -> int` does it, and its docstring is the help.

A new command is these two functions, in a file of its concern or a new one; names that begin with an underscore are shared parts.
The stages of the loop need none: `loop.py` makes a command of each. Only the file of the command that is named is imported.
"""

GROUPS = {
    "the loop, in its order": (
        *("demo", "tasks", "decompose", "generate", "score", "inspect", "sft", "pairs", "rationales", "gcpo"),
        *("edit-rl", "evaluate", "report"),
    ),
    "judges": ("verify", "score-folder", "edit-benchmark", "bench", "compare", "best-of-n", "signal", "aggregate", "audit", "study"),
    "people and own data": ("annotate", "import-data"),
    "tools": ("serve", "export-rows", "migrate", "repair"),
}
"""How `editr1 --help` lists the commands; one that is named nowhere comes last."""
