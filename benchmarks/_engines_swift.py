"""ms-swift's `swift rlhf` for the embedded judge, whose pictures and special tokens are not Qwen's. Nothing here is about the reward."""

from __future__ import annotations

import sys

import editr1  # noqa: F401 - before transformers: its hook lets a CPU build of torch live beside any torchvision

if __name__ == "__main__":
    import qwen_vl_utils
    from PIL import Image

    def picture(element: dict, **_: object) -> Image.Image:
        """The picture as it is: the embedded judge's patches are 24 pixels wide, Qwen's 14."""
        found = element["image"]
        return (found if isinstance(found, Image.Image) else Image.open(found)).convert("RGB")

    qwen_vl_utils.fetch_image = picture
    from swift.template.templates.qwen import Qwen2_5VLTemplate, Qwen2VLTemplate

    for template in (Qwen2VLTemplate, Qwen2_5VLTemplate):
        template.image_token_id, template.video_token_id = 5, 6
    from swift.pipelines import rlhf_main

    rlhf_main(sys.argv[1:])
