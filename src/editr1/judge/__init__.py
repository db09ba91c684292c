"""The contract of the reasoning reward model: prompts, Phi, the selector and the RewardModel."""
