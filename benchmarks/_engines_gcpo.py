"""`editr1` with a colocated vLLM whose linear layers keep their weights, so that the trainer can write the new ones into them.

vLLM for CPUs repacks the weights of a linear layer for oneDNN and drops the originals: TRL's weight synchronisation then finds empty
tensors. vLLM's own fallback, torch's `linear`, keeps them. On a GPU nothing is repacked, and this file has no use.
"""

from __future__ import annotations

import sys

import editr1.cli

if __name__ == "__main__":
    from vllm import _custom_ops

    _custom_ops._supports_onednn = False
    sys.exit(editr1.cli.main(sys.argv[1:]))
