"""How a judge learns from people's pairs: one file a way, chosen by `gcpo.method`. See docs/results/judge_rl.md for a comparison."""
