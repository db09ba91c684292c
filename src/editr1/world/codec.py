"""The tiny editor's stand-in for a VAE: principal components of 12 x 12 pixel patches.

Linear, orthogonal and exactly invertible on its own span; fitted on clean pictures by `fit`. Components are divided by the
square root of their standard deviation, half-way between plain PCA (detail drowns in the noise) and whitening (detail
outweighs the rest).

Shape legend: B pictures, L patches, D components, P pixels of a patch times 3.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from editr1.world.render import SIZE

PATCH = 12
NUM_PATCHES = (SIZE // PATCH) ** 2
CHANNELS = 48


def to_patches(pixels_BHWC: np.ndarray) -> np.ndarray:
    """[B, SIZE, SIZE, 3] -> [B, L, P], patches in reading order."""
    batch, side = pixels_BHWC.shape[0], SIZE // PATCH
    return pixels_BHWC.reshape(batch, side, PATCH, side, PATCH, 3).swapaxes(2, 3).reshape(batch, side * side, -1)


def from_patches(patches_BLP: np.ndarray) -> np.ndarray:
    """The inverse of `to_patches`."""
    batch, side = patches_BLP.shape[0], SIZE // PATCH
    return patches_BLP.reshape(batch, side, side, PATCH, PATCH, 3).swapaxes(2, 3).reshape(batch, SIZE, SIZE, 3)


@dataclass(frozen=True, slots=True)
class Codec:
    """Pixels in [0, 1] <-> latents of about unit variance."""

    mean_P: np.ndarray
    basis_DP: np.ndarray
    """Orthonormal rows."""
    scale_D: np.ndarray

    def encode(self, pixels_BHWC: np.ndarray) -> np.ndarray:
        """[B, SIZE, SIZE, 3] -> [B, L, D], float32."""
        return ((to_patches(pixels_BHWC) - self.mean_P) @ self.basis_DP.T / self.scale_D).astype(np.float32)

    def decode(self, latents_BLD: np.ndarray) -> np.ndarray:
        """[B, L, D] -> [B, SIZE, SIZE, 3], not clipped."""
        return from_patches((latents_BLD * self.scale_D) @ self.basis_DP + self.mean_P)


def fit(pixels_BHWC: np.ndarray, channels: int = CHANNELS) -> Codec:
    """The codec of these pictures."""
    patches = to_patches(pixels_BHWC).reshape(-1, PATCH * PATCH * 3).astype(np.float64)
    mean = patches.mean(axis=0)
    covariance = (patches - mean).T @ (patches - mean) / len(patches)
    values, vectors = np.linalg.eigh(covariance)
    std = np.sqrt(np.maximum(values[::-1][:channels], 1e-12))
    scale = np.sqrt(std)
    scale *= np.sqrt(np.mean((std / scale) ** 2))  # so that the mean variance of a latent is one
    return Codec(mean.astype(np.float32), vectors[:, ::-1][:, :channels].T.astype(np.float32).copy(), scale.astype(np.float32))
