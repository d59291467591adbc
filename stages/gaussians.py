"""Colours and textures of pixels as Gaussians, and how far two of them are apart.

The distance is that of the Fréchet inception distance, over pixels instead of network features:
gradual where histograms would only say "different".
"""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np


@dataclass(frozen=True, slots=True)
class Gaussian:
    """mean (..., K) and covariance (..., K, K) of pixels."""

    mean: np.ndarray
    covariance: np.ndarray


def gaussian_of(pixels: np.ndarray) -> Gaussian:
    """Of (P, K) pixels."""
    mean = pixels.mean(0)
    centred = pixels - mean
    return Gaussian(mean, centred.T @ centred / len(pixels))


def frechet(a: Gaussian, b: Gaussian) -> np.ndarray:
    """(...) distance of Gaussians: 2-Wasserstein, in the unit of the features."""
    values, vectors = np.linalg.eigh(b.covariance)
    root = (vectors * np.sqrt(np.clip(values, 0, None))[..., None, :]) @ np.swapaxes(
        vectors, -1, -2
    )
    shared = np.linalg.eigvalsh(root @ a.covariance @ root)
    spread = (
        np.trace(a.covariance, axis1=-2, axis2=-1)
        + np.trace(b.covariance, axis1=-2, axis2=-1)
        - 2 * np.sqrt(np.clip(shared, 0, None)).sum(-1)
    )
    return np.sqrt(np.clip(((a.mean - b.mean) ** 2).sum(-1) + spread, 0, None))


def features(picture: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """(H, W, 3) Lab, and (H, W, 4) strengths of the gradients of L, across and down, fine, coarse.

    picture: (H, W, 3) uint8 RGB.
    """
    lab = cv2.cvtColor(picture.astype(np.float32) / 255, cv2.COLOR_RGB2LAB)
    strengths = []
    for sigma in (0.7, 1.4):
        light = cv2.GaussianBlur(lab[..., 0], (0, 0), sigma)
        strengths += [
            np.abs(cv2.Sobel(light, cv2.CV_32F, dx, 1 - dx, scale=1 / 8)) for dx in (1, 0)
        ]
    return lab.astype(np.float64), np.stack(strengths, -1).astype(np.float64)
