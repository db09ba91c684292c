"""Edit-R1: a reasoning reward model for image editing, its training, and RL of editors with it.

Implements "Leveraging Verifier-Based Reinforcement Learning in Image Editing" (arXiv 2604.27505).
"""

from editr1 import torchvision_cpu as _torchvision_cpu

__version__ = "0.1.0"

_torchvision_cpu.install()
