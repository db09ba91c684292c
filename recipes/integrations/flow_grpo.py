"""flow_grpo: the judge as the only reward of one of its configurations.

flow_grpo reads Python files (`config/grpo.py`), not YAML, so this is a function to put there; `edit_rrm` is the name of the entry
and the branch that docs/how_to/use_the_reward.md adds to its `rewards.py`. Start the judge first, and say where it is:

    editr1 serve --base-url http://localhost:8000/v1 --model edit-rrm --decompose
    export EDITR1_URL=http://127.0.0.1:8090

    def edit_rrm_flux_kontext():
        return with_edit_rrm(counting_flux_kontext())
"""

from typing import Any


def with_edit_rrm(config: Any) -> Any:
    """The given configuration, rewarded by the RRM alone."""
    config.reward_fn = {"edit_rrm": 1.0}
    config.sample.global_std = False  # scores of different tasks are not comparable: advantages stay inside a group
    return config
