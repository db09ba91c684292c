"""Runs `transformers serve` as its own process: python serve_transformers.py CHECKPOINT PORT.

The command itself is stock. Beside a CPU build of torch, torchvision's image decoder cannot load, so that pictures in requests are
decoded with Pillow; importing `editr1` lets torchvision be imported at all.
"""

from __future__ import annotations

import sys

import editr1  # noqa: F401


def main() -> None:
    import transformers.image_processing_backends as backends
    from torchvision.transforms.functional import pil_to_tensor
    from transformers.cli.transformers import main as transformers_cli
    from transformers.image_utils import load_image

    backends.load_image_as_tensor = lambda url: pil_to_tensor(load_image(url).convert("RGB"))
    checkpoint, port = sys.argv[1:]
    sys.argv = ["transformers", "serve", checkpoint, "--device", "cpu", "--host", "127.0.0.1", "--port", port]
    transformers_cli()


if __name__ == "__main__":
    main()
