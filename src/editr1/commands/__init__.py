"""One file a sub-command: its docstring is the help, `add_arguments(parser)` and `main(args) -> int` do the rest.

A new command is a new file here; names that begin with an underscore are parts shared by several commands. A file imports
what is heavy inside its functions, since `editr1 --help` imports all of them.
"""
