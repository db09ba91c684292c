"""How an editor learns from its judged edits: one file an algorithm, chosen by `edit_rl.training.algorithm`. See docs/algorithms.md."""
