"""The rooms of the stages `sft` and `gcpo`: what a trainer of the reward model needs beside the trainer itself."""
