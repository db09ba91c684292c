"""One file a sub-command: its docstring is the help, `add_arguments(parser)` and `main(args) -> int` do the rest.

A new command is a new file here; names that begin with an underscore are parts shared by several commands. The stages of the
loop need no file: `_stages.py` makes a command of each. Only the command that is named is imported; `editr1 --help` reads first lines.
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
