"""One file a judge: a function `build(...)` that gives something with RewardModel's `score(items, seed) -> list[Reward]`."""
