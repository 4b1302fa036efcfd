"""ImageNet-C's corruptions, written down again with NumPy, SciPy, Matplotlib's colours and Pillow; and pictures.

After D. Hendrycks and T. Dietterich, ICLR 2019 (github.com/hendrycks/robustness), motion blur, snow and elastic as the
package imagecorruptions has them, on pictures of 224 × 224 × 3. What is random takes its draws as arguments.
"""

from __future__ import annotations

import io
import os
from collections.abc import Iterator
from pathlib import Path

import numpy as np
from matplotlib.colors import hsv_to_rgb, rgb_to_hsv
from PIL import Image
from scipy import ndimage

TABLE: dict[str, tuple] = {  # severities 1 … 5
    "gaussian_noise": (0.08, 0.12, 0.18, 0.26, 0.38),
    "shot_noise": (60, 25, 12, 5, 3),
    "impulse_noise": (0.03, 0.06, 0.09, 0.17, 0.27),
    "speckle_noise": (0.15, 0.2, 0.35, 0.45, 0.6),
    "gaussian_blur": (1, 2, 3, 4, 6),
    "glass_blur": ((0.7, 1, 2), (0.9, 2, 1), (1, 2, 3), (1.1, 3, 2), (1.5, 4, 2)),
    "defocus_blur": ((3, 0.1), (4, 0.5), (6, 0.5), (8, 0.5), (10, 0.5)),
    "motion_blur": ((3, 10), (5, 15), (8, 15), (12, 15), (15, 20)),
    "zoom_blur": ((1.11, 0.01), (1.16, 0.01), (1.21, 0.02), (1.26, 0.02), (1.31, 0.03)),
    "snow": (
        (0.1, 0.3, 3, 0.5, 10, 4, 0.8),
        (0.2, 0.3, 2, 0.5, 12, 4, 0.7),
        (0.55, 0.3, 4, 0.9, 12, 8, 0.7),
        (0.55, 0.3, 4.5, 0.85, 12, 8, 0.65),
        (0.55, 0.3, 2.5, 0.85, 12, 12, 0.55),
    ),
    "frost": ((1, 0.4), (0.8, 0.6), (0.7, 0.7), (0.65, 0.7), (0.6, 0.75)),
    "fog": ((1.5, 2), (2, 2), (2.5, 1.7), (2.5, 1.5), (3, 1.4)),
    "spatter": (
        (0.65, 0.3, 4, 0.69, 0.6, "water"),
        (0.65, 0.3, 3, 0.68, 0.6, "water"),
        (0.65, 0.3, 2, 0.68, 0.5, "water"),
        (0.65, 0.3, 1, 0.65, 1.5, "mud"),
        (0.67, 0.4, 1, 0.65, 1.5, "mud"),
    ),
    "brightness": (0.1, 0.2, 0.3, 0.4, 0.5),
    "contrast": (0.4, 0.3, 0.2, 0.1, 0.05),
    "saturate": ((0.3, 0), (0.1, 0), (2, 0), (5, 0.1), (20, 0.2)),
    "elastic": (250 * 0.05, 250 * 0.065, 250 * 0.085, 250 * 0.1, 250 * 0.12),
    "pixelate": (0.6, 0.5, 0.4, 0.3, 0.25),
    "jpeg": (25, 18, 15, 10, 7),
}


def as_bytes(image: np.ndarray) -> np.ndarray:
    """Of 0 … 1: what np.uint8 makes of it."""
    return (np.clip(image, 0, 1) * 255).astype(np.uint8)


# -- without chance ----------------------------------------------------------------------------------------------


def gaussian(image: np.ndarray, sigma: float) -> np.ndarray:
    return ndimage.gaussian_filter(image, (sigma, sigma, 0)[: image.ndim], mode="nearest", truncate=4)


def gaussian_blur(x: np.ndarray, sigma: float) -> np.ndarray:
    return as_bytes(gaussian(x / 255, sigma))


def defocus_blur(x: np.ndarray, radius: float, alias: float) -> np.ndarray:
    reach, taps = (8, 1) if radius <= 8 else (radius, 2)
    down, across = np.mgrid[-reach : reach + 1, -reach : reach + 1]
    disk = (down**2 + across**2 <= radius**2).astype(np.float64)
    disk /= disk.sum()
    line = np.exp(-(np.arange(-taps, taps + 1) ** 2) / (2 * alias**2))
    for axis in (0, 1):
        disk = ndimage.correlate1d(disk, line / line.sum(), axis, mode="mirror")
    return as_bytes(ndimage.correlate(x / 255, disk[..., None], mode="mirror"))


def zoomed(image: np.ndarray, factor: float) -> np.ndarray:
    h, w = image.shape[:2]
    rows, columns = (int(np.ceil(n / factor)) for n in (h, w))
    top, left = (h - rows) // 2, (w - columns) // 2
    factors = (factor, factor, 1)[: image.ndim]
    return ndimage.zoom(image[top : top + rows, left : left + columns], factors, order=1)[:h, :w]


def zoom_blur(x: np.ndarray, stop: float, step: float) -> np.ndarray:
    factors = np.arange(1, stop, step)
    image = x / 255
    return as_bytes((image + sum(zoomed(image, factor) for factor in factors)) / (len(factors) + 1))


def brightness(x: np.ndarray, amount: float) -> np.ndarray:
    hsv = rgb_to_hsv(x / 255)
    hsv[..., 2] = np.clip(hsv[..., 2] + amount, 0, 1)
    return as_bytes(hsv_to_rgb(hsv))


def saturate(x: np.ndarray, factor: float, offset: float) -> np.ndarray:
    hsv = rgb_to_hsv(x / 255)
    hsv[..., 1] = np.clip(hsv[..., 1] * factor + offset, 0, 1)
    return as_bytes(hsv_to_rgb(hsv))


def contrast(x: np.ndarray, factor: float) -> np.ndarray:
    image = x / 255
    means = image.mean((0, 1), keepdims=True)
    return as_bytes((image - means) * factor + means)


def pixelate(x: np.ndarray, factor: float) -> np.ndarray:
    small = Image.fromarray(x).resize([int(224 * factor)] * 2, Image.Resampling.BOX)
    return np.asarray(small.resize((224, 224), Image.Resampling.NEAREST))


def jpeg(x: np.ndarray, quality: int) -> np.ndarray:
    file = io.BytesIO()
    Image.fromarray(x).save(file, "JPEG", quality=quality)
    return np.asarray(Image.open(file))


# -- with their draws --------------------------------------------------------------------------------------------


def gaussian_noise(x: np.ndarray, std: float, rng: np.random.Generator) -> np.ndarray:
    return as_bytes(x / 255 + rng.normal(0, std, x.shape))


def speckle_noise(x: np.ndarray, std: float, rng: np.random.Generator) -> np.ndarray:
    return as_bytes(x / 255 + x / 255 * rng.normal(0, std, x.shape))


def shot_noise(x: np.ndarray, photons: float, rng: np.random.Generator) -> np.ndarray:
    return as_bytes(rng.poisson(x / 255 * photons) / photons)


def impulse_noise(x: np.ndarray, amount: float, rng: np.random.Generator) -> np.ndarray:
    hit, white = rng.random(x.shape) < amount, rng.random(x.shape) < 0.5
    return np.where(hit, np.where(white, 255, 0), x).astype(np.uint8)


def glass_blur(x: np.ndarray, sigma: float, reach: int, turns: int, rng: np.random.Generator) -> np.ndarray:
    """The second half of the published swap writes back what the first has just written: NumPy's views."""
    h, w = x.shape[:2]
    pixels = as_bytes(gaussian(x / 255, sigma)).tolist()
    for _ in range(turns):
        moves = rng.integers(-reach, reach, (h, w, 2)).tolist()
        for y in range(h - reach, reach, -1):
            for column in range(w - reach, reach, -1):
                across, down = moves[y][column]
                pixels[y][column] = pixels[y + down][column + across]
    return as_bytes(gaussian(np.array(pixels) / 255, sigma))


def streaked(image: np.ndarray, sigma: float, radius: int, degrees: float) -> np.ndarray:
    """The picture moved along a line, the nearest pixel beyond its border, weighted by half a Gaussian."""
    steps = np.arange(2 * radius + 1)
    weights = np.exp(-(steps**2) / (2 * sigma**2))
    down, across = np.sin(np.deg2rad(degrees)), np.cos(np.deg2rad(degrees))
    rows, columns = np.indices(image.shape[:2])
    total = np.zeros(image.shape)
    for step, weight in zip(steps, weights / weights.sum(), strict=True):
        dy, dx = int(np.ceil(step * down - 0.5)), int(np.ceil(step * across - 0.5))
        y, x = np.clip(rows + dy, 0, image.shape[0] - 1), np.clip(columns + dx, 0, image.shape[1] - 1)
        total += weight * image[y, x]
    return total


def motion_blur(x: np.ndarray, sigma: float, radius: int, degrees: float) -> np.ndarray:
    return as_bytes(streaked(x / 255, sigma, radius, degrees))


def snow(x: np.ndarray, row: tuple, noise: np.ndarray, degrees: float) -> np.ndarray:
    """noise: N(0, 1) of the middle that is enlarged."""
    mean, std, zoom, threshold, radius, sigma, kept = row
    layer = ndimage.zoom(noise * std + mean, zoom, order=1)  # 225 a side at some severities: cut behind the wind
    layer[layer < threshold] = 0
    layer = np.round(streaked(np.clip(layer, 0, 1), sigma, radius, degrees)[:224, :224] * 255)[..., None] / 255
    image = x / 255
    grey = (image @ [0.299, 0.587, 0.114])[..., None]
    image = kept * image + (1 - kept) * np.maximum(image, grey * 1.5 + 0.5)
    return as_bytes(image + layer + np.rot90(layer, 2))


def fog(x: np.ndarray, amount: float, layer: np.ndarray) -> np.ndarray:
    """layer: a map of heights of 0 … 1."""
    image = x / 255
    return as_bytes((image + amount * layer[..., None]) * image.max() / (image.max() + amount))


def spatter(x: np.ndarray, row: tuple, noise: np.ndarray) -> np.ndarray:
    """noise: N(0, 1)."""
    import cv2

    mean, std, sigma, threshold, amount, kind = row
    image, liquid = x / 255, gaussian(noise * std + mean, sigma)
    liquid[liquid < threshold] = 0
    if kind == "mud":
        cover = gaussian((liquid > threshold).astype(np.float64), amount)
        cover[cover < 0.8] = 0
        return as_bytes(image * (1 - cover[..., None]) + cover[..., None] * np.array([63, 42, 20]) / 255)
    grey = (liquid * 255).astype(np.uint8)
    dist = cv2.distanceTransform(255 - cv2.Canny(grey, 50, 150), cv2.DIST_L2, 5)
    dist = cv2.equalizeHist(cv2.blur(cv2.threshold(dist, 20, 20, cv2.THRESH_TRUNC)[1], (3, 3)).astype(np.uint8))
    dist = cv2.filter2D(dist, cv2.CV_8U, np.array([[-2, -1, 0], [-1, 1, 1], [0, 1, 2]]))
    drops = grey * cv2.blur(dist, (3, 3)).astype(np.float32)
    return as_bytes(image + amount * (drops / drops.max())[..., None] * np.array([175, 238, 238]) / 255)


def elastic(x: np.ndarray, alpha: float, draws: np.ndarray) -> np.ndarray:
    """draws: across and down, [2][h, w] of −1 … 1."""
    h, w, c = x.shape
    sigma = 0.01 * np.array([h, w])
    moves = [ndimage.gaussian_filter(d * 0.005 * h, sigma, mode="reflect", truncate=3) * alpha for d in draws]
    rows, columns = np.indices((h, w))
    places = [rows + moves[1], columns + moves[0]]
    planes = [ndimage.map_coordinates(x[..., k] / 255, places, order=1, mode="reflect") for k in range(c)]
    return as_bytes(np.stack(planes, -1))


# -- pictures ----------------------------------------------------------------------------------------------------


def scene(size: int = 224) -> np.ndarray:
    """A sky, a bright ball with a sharp rim, grass."""
    y, x = np.mgrid[0:size, 0:size] / size
    image = np.stack([90 + 60 * y, 130 + 40 * y, 200 - 20 * y], -1)
    image[np.hypot(x - 0.35, y - 0.3) < 0.15] = (250, 220, 40)
    blades = 30 * np.sin(90 * x + 20 * np.sin(9 * y)) + 15 * np.sin(230 * x + 50 * y)
    image[y > 0.6] = np.stack([50 + 0.4 * blades, 120 + blades, 30 + 0.3 * blades], -1)[y > 0.6]
    return np.clip(image, 0, 255).astype(np.uint8)


def clouds(seed: int, contrast: float, size: int = 224) -> np.ndarray:
    """Noise whose power falls as photographs' does, with correlated channels."""
    rng = np.random.default_rng(seed)
    frequency = np.hypot(*np.meshgrid(np.fft.fftfreq(size), np.fft.fftfreq(size)))
    frequency[0, 0] = 1
    planes = [np.fft.ifft2(np.fft.fft2(rng.normal(size=(size, size))) / frequency).real for _ in range(4)]
    planes = [plane / plane.std() for plane in planes]
    image = np.stack([planes[3] + 0.5 * plane for plane in planes[:3]], -1)
    return np.clip(128 + contrast * image, 0, 255).astype(np.uint8)


def pictures() -> Iterator[tuple[str, np.ndarray]]:
    """Names and pictures of 224 × 224 × 3; with photographs, where HW4FAST_DATA has them."""
    yield "scene", scene()
    yield "clouds", clouds(0, 50)
    yield "harsh clouds", clouds(1, 150)
    yield "dark", clouds(2, 20) // 4
    folder = Path(os.environ.get("HW4FAST_DATA", "nowhere")) / "photos" / "nips2017"
    for path in sorted(folder.glob("*.jpg"))[:40:10]:
        yield path.name, np.asarray(Image.open(path).convert("RGB").resize((224, 224)))
