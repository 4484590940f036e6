"""Square pictures of cells: cropped, padded and resized."""

import cv2
import numpy as np
from PIL import Image


def square(crop: np.ndarray) -> np.ndarray:
    """Pad a crop with zeros to a square of its longer side, an odd pixel at the right or the bottom.

    crop: (h, w), any type
    Returns (n, n) of the same type.
    """
    height, width = crop.shape
    side = max(height, width)
    top, left = (side - height) // 2, (side - width) // 2
    # Faster than np.pad.
    padded = np.zeros((side, side), crop.dtype)
    padded[top : top + height, left : left + width] = crop
    return padded


def resize(image: np.ndarray, size: int) -> np.ndarray:
    """Resize a square image bicubically, antialiased when it shrinks.

    Enlarging is OpenCV's INTER_CUBIC (Keys' kernel, a = -0.75); shrinking is Pillow's BICUBIC, whose kernel (a = -0.5)
    is stretched by the factor of reduction, on float32.

    image: (n, n) uint8 or uint16
    size: px
    Returns (size, size) of the same type, rounded and clipped to its range.
    """
    side = image.shape[0]
    if side == size:
        return image
    if side < size:
        return cv2.resize(image, (size, size), interpolation=cv2.INTER_CUBIC)
    resized = np.asarray(Image.fromarray(image.astype(np.float32)).resize((size, size), Image.Resampling.BICUBIC))
    return np.clip(np.rint(resized), 0, np.iinfo(image.dtype).max).astype(image.dtype)


def fit(image: np.ndarray, size: int, enlarge: bool = True) -> np.ndarray:
    """Make a square image that large: a larger one shrinks, a smaller one is enlarged or padded with zeros.

    image: (n, n) uint8 or uint16
    size: px
    enlarge: whether a smaller one is enlarged; else zeros surround it, an odd pixel at the right and the bottom
    Returns (size, size) of the same type.
    """
    lacking = size - image.shape[0]
    if enlarge or lacking <= 0:
        return resize(image, size)
    return np.pad(image, (lacking // 2, lacking - lacking // 2))
