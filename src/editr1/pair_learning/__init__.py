"""How a judge learns from people's pairs, chosen by `gcpo.method`. See docs/results/judge_rl.md for a comparison."""

SHARED = dict.fromkeys(("bradley_terry", "gcpo", "irpo", "pd_grpo"), "ways")
"""The ways that share a file, which has something callable of each one's name."""
