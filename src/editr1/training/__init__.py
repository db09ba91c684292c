"""The rooms of the stages `sft` and `gcpo`: what a trainer of the reward model needs beside the trainer itself."""

import os

# Here, before any file of this folder imports a library that reads them.
os.environ.setdefault("HF_HUB_DISABLE_TELEMETRY", "1")  # trainers report their use to a server otherwise
os.environ.setdefault("TRL_EXPERIMENTAL_SILENCE", "1")  # `rollout_func` may change in a later TRL: the version is pinned
