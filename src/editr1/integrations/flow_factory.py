"""Flow-Factory: a reward model named by its dotted path in the YAML, in front of `editr1 serve`.

    rewards:
      - name: editrrm
        reward_model: editr1.integrations.flow_factory.EditRRMReward
        server_url: http://127.0.0.1:8090
        batch_size: 16

`EditRRMReward` subclasses their `PointwiseRewardModel`, so it is made when it is first asked for: this package does not need theirs.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache
from typing import Any

from editr1.errors import ConfigError, DataError
from editr1.integrations._client import Edit, RewardClient, category_scores, to_picture, to_source


def __getattr__(name: str) -> Any:
    if name == "EditRRMReward":
        return _make_class()
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


@cache
def _make_class() -> type:
    import torch
    from flow_factory.rewards.abc import PointwiseRewardModel, RewardModelOutput

    class EditRRMReward(PointwiseRewardModel):  # type: ignore[misc,unused-ignore]
        """tau in [0, 10] of each edit. Raises UnscoredError where one stays unscored."""

        required_fields = ("prompt", "image", "condition_images")
        use_tensor_inputs = False

        def __init__(self, config: Any, accelerator: Any) -> None:
            super().__init__(config, accelerator)
            self.client = make_client(config)

        # Named and no **kwargs: their collector moves every field that a reward could take to the device, latents included. `video` is
        # what their processor always passes.
        def __call__(
            self,
            prompt: list[str],
            image: list[Any] | None = None,
            video: list[Any] | None = None,
            condition_images: list[list[Any]] | None = None,
        ) -> Any:
            if video:
                raise DataError("videos are not judged here; the reward takes image and condition_images")
            scores = self.client.score(to_edits(prompt, image or [], condition_images or []))
            rewards = torch.tensor([score.value for score in scores], dtype=torch.float32, device=self.device)
            details = [category_scores(score) for score in scores]
            return RewardModelOutput(
                rewards=rewards, extra_info={name: [row[name] for row in details] for name in details[0]} if details else {}
            )

    return EditRRMReward


def make_client(config: Any) -> RewardClient:
    """The client that a reward's YAML entry describes; keys that Flow-Factory does not know lie in `extra_kwargs`."""
    options = dict(getattr(config, "extra_kwargs", None) or {})
    url = options.get("server_url") or getattr(config, "server_url", None)
    if not url:
        raise ConfigError("the reward needs server_url: the address of a running `editr1 serve`")
    return RewardClient(url, options.get("token"), float(options.get("timeout", 600.0)))


def to_edits(prompts: Sequence[str], images: Sequence[Any], condition_images: Sequence[Sequence[Any]]) -> list[Edit]:
    """Their batch as edits. Raises DataError for a sample without a source."""
    if not len(prompts) == len(images) == len(condition_images):
        raise DataError(f"{len(prompts)} prompts, {len(images)} images, {len(condition_images)} condition_images: expected equal numbers")
    return [
        Edit(to_source(sources), to_picture(image), prompt)
        for prompt, image, sources in zip(prompts, images, condition_images, strict=True)
    ]
