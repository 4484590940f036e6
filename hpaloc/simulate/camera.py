"""The camera: blur, uneven light, background, noise and digitisation."""

import cv2
import numpy as np


def photograph(
    rng: np.random.Generator, signal: np.ndarray, um: float, blur: float, gain: float, dtype: np.dtype
) -> np.ndarray:
    """Return the picture of a signal, with blur, uneven light, background, shot and read noise.

    Noise follows the normal limit of the Poisson distribution, so that each pixel takes one random number whatever its
    brightness.

    signal: (H, W) float32, 1 is bright
    um: pixels in 1 µm
    blur: µm, the sigma of the point spread
    gain: the grey level, of 255, of a signal of 1
    dtype: uint8 or uint16
    Returns (H, W) of this dtype.
    """
    height, width = signal.shape
    whole = np.rint(np.clip(signal, 0, 4) * 16000).astype(np.uint16)
    whole = cv2.GaussianBlur(whole, (0, 0), max(0.6, blur * um))
    fall = rng.uniform(0.05, 0.22)
    y0, x0 = rng.uniform(0.3, 0.7, 2)
    dy = ((np.arange(height) / height - y0) ** 2).astype(np.float32)[:, None]
    dx = ((np.arange(width) / width - x0) ** 2).astype(np.float32)[None]
    light = 1 - np.float32(2 * fall) * (dy + dx)
    grey = whole * (light * np.float32(gain / 16000)) + np.float32(rng.uniform(0.5, 3.0))
    shot = np.float32(rng.uniform(0.25, 0.6))
    read = np.float32(rng.uniform(0.5, 1.2) ** 2)
    grey += np.sqrt(grey * shot + read) * rng.standard_normal(grey.shape, np.float32)
    top = np.iinfo(dtype).max
    return np.rint(np.clip(grey * np.float32(top / 255), 0, top)).astype(dtype)
