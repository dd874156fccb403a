"""Images in files: one reader and one lister for every command, and a fast PNG encoder.

An image is refused, in words, where reading it as 8 bits of red, green and blue would change it:
more bits, transparent places, several frames. An orientation that a camera recorded is obeyed.

Shape legend: H height, W width.
"""

import io
from pathlib import Path

import numpy as np
from PIL import Image, ImageOps

from kyvo.common.errors import InputError
from kyvo.common.files import list_files, require_file

IMAGE_SUFFIXES = (".png", ".jpg", ".jpeg")
"""Suffixes of images, in lower case."""
MAX_PIXELS = 1 << 26
"""Larger images are refused: a small file may claim any size."""
_FORMATS = ("PNG", "JPEG")
_EIGHT_BIT_MODES = ("RGB", "RGBA", "L", "LA", "P", "1")
_OPAQUE = 255
_LEVEL, _RUNS = 1, 3
"""zlib's lowest effort, and its strategy Z_RLE: rendered noise has few repeats to look for. Half of
the time that level 3 takes, and smaller files."""


def read_image(path: Path, size: int | None = None) -> np.ndarray:
    """Read an image as uint8 (size, size, 3), or as it is (H, W, 3).

    The whole frame is squeezed into the square, never cropped: the image metrics compare whole
    frames.

    Raises:
        InputError: the file is missing, damaged, too large, or would be changed by the reading.
    """
    require_file(path, "image")
    try:
        with Image.open(path, formats=_FORMATS) as image:
            return image_array(image, size, str(path))
    except InputError:
        raise
    except Exception as error:  # noqa: BLE001 - a damaged file raises anything, even struct.error
        reason = str(error) or type(error).__name__
        raise InputError(f"image: {path}: not readable: {reason}. Make it again.") from None


def image_array(image: Image.Image, size: int | None, where: str) -> np.ndarray:
    """``read_image`` of an image in memory; ``where`` names it in errors."""
    fault = _fault(image)
    if fault is not None:
        raise InputError(f"image: {where}: {fault}")
    upright = ImageOps.exif_transpose(image)
    if _is_transparent(upright):
        raise InputError(
            f"image: {where}: it has transparent places, whose colours nobody sees. Put it on a "
            "background and save it without them."
        )
    whole = upright.convert("RGB")
    return np.array(whole if size is None else _squeeze(whole, size))


def encode_png(image_HW3: np.ndarray) -> bytes:
    """The PNG file of an image, uint8."""
    stream = io.BytesIO()
    Image.fromarray(image_HW3).save(stream, "PNG", compress_level=_LEVEL, compress_type=_RUNS)
    return stream.getvalue()


def image_size(path: Path) -> tuple[int, int]:
    """Width and height of an image that ``read_image`` reads, as stored in the file."""
    with Image.open(path, formats=_FORMATS) as image:
        return image.size


def list_images(folder: Path, purpose: str = "images") -> list[Path]:
    """The PNG files of ``folder/images`` (or of ``folder`` itself), sorted by name.

    Raises:
        InputError: there are none, or an image has another suffix: it must not be passed over.
    """
    inner = folder / "images"
    paths = list_files(inner if inner.is_dir() else folder, IMAGE_SUFFIXES)
    other = next((path for path in paths if path.suffix != ".png"), None)
    if other is not None:
        raise InputError(f"{purpose}: {other}: expected NAME.png. Convert or rename it.")
    if not paths:
        raise InputError(f"{purpose}: {folder}: no .png files in it or in its folder 'images'.")
    return paths


def _fault(image: Image.Image) -> str | None:
    """Why an image cannot be read as it is; known before its pixels are."""
    width, height = image.size
    if width * height > MAX_PIXELS:
        return f"{width} x {height} pixels, more than {MAX_PIXELS:,} in all. Make it smaller."
    if image.mode not in _EIGHT_BIT_MODES:
        modes = ", ".join(_EIGHT_BIT_MODES)
        return f"mode {image.mode}, expected 8 bits per channel ({modes}). Convert the file."
    frames = getattr(image, "n_frames", 1)
    # A JPEG of several frames is a photo with its previews.
    if frames > 1 and image.format not in ("JPEG", "MPO"):
        return f"{frames} frames, expected one. Save the one that is meant."
    return None


def _is_transparent(image: Image.Image) -> bool:
    if not image.has_transparency_data:
        return False
    return bool((np.asarray(image.convert("RGBA").getchannel("A")) < _OPAQUE).any())


def _squeeze(image: Image.Image, size: int) -> Image.Image:
    if image.size == (size, size):
        return image
    return image.resize((size, size), Image.Resampling.BICUBIC)
