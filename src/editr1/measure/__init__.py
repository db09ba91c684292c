"""How edits are judged and numbers made, for benchmarks and commands: judging, cache, rows of files, pair arithmetic, comparisons."""
