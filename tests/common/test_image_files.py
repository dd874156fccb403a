"""The one reader and the one lister of images: right, or refused in words."""

import io
import struct
import zlib
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image, PngImagePlugin

from kyvo.common.errors import InputError
from kyvo.common.image_files import list_images, read_image

NOISE = np.random.default_rng(0).integers(0, 256, (6, 9, 3), dtype=np.uint8)


def png(image: Image.Image, **options: object) -> bytes:
    stream = io.BytesIO()
    image.save(stream, "PNG", **options)
    return stream.getvalue()


def chunk(kind: bytes, content: bytes) -> bytes:
    check = zlib.crc32(kind + content)
    return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", check)


def test_the_whole_frame_is_squeezed(tmp_path: Path) -> None:
    wide = np.zeros((60, 160, 3), np.uint8)
    wide[:, :80, 0], wide[:, 80:, 2] = 200, 100
    Image.fromarray(wide).save(tmp_path / "wide.png")
    small = read_image(tmp_path / "wide.png", 40)
    assert small.shape == (40, 40, 3)
    assert (small[:, :17] == [200, 0, 0]).all()
    assert (small[:, 23:] == [0, 0, 100]).all()


@pytest.mark.parametrize("mode", ["RGB", "RGBA", "L", "LA", "P", "1"])
def test_every_mode_of_eight_bits_is_read_as_it_is_shown(mode: str, tmp_path: Path) -> None:
    grey = np.where(NOISE[..., :1] > 99, 255, 0).astype(np.uint8).repeat(3, axis=2)
    is_coloured = mode in ("RGB", "RGBA")
    shown = NOISE if is_coloured else grey
    Image.fromarray(shown).convert(mode).save(tmp_path / "a.png")
    assert np.array_equal(read_image(tmp_path / "a.png"), shown)


def test_the_orientation_that_a_camera_noted_is_obeyed(tmp_path: Path) -> None:
    exif = Image.Exif()
    exif[0x0112] = 6  # a quarter turn clockwise
    Image.fromarray(NOISE).save(tmp_path / "a.png", exif=exif)
    assert np.array_equal(read_image(tmp_path / "a.png"), np.rot90(NOISE, -1))


def broken_images() -> dict[str, tuple[bytes, str]]:
    """File contents, and what is said of them."""
    image = Image.fromarray(NOISE)
    good = png(image)
    clear = image.convert("RGBA")
    clear.putpixel((3, 3), (9, 9, 9, 254))
    header = struct.pack(">IIBBBBB", 100_000, 100_000, 8, 2, 0, 0, 0)
    huge = good[:8] + chunk(b"IHDR", header) + good[33:]
    wide = struct.pack(">IIBBBBB", 9_000, 9_000, 8, 2, 0, 0, 0)
    text = b"note\0\0" + zlib.compress(b"x" * (PngImagePlugin.MAX_TEXT_CHUNK + 1))
    gif = io.BytesIO()
    image.save(gif, "GIF")
    jpeg = io.BytesIO()
    image.convert("CMYK").save(jpeg, "JPEG")
    deep = png(Image.fromarray(NOISE[..., 0].astype(np.uint16)))
    return {
        "empty": (b"", "not readable"),
        "cut": (good[: len(good) // 2], "not readable"),
        "no image": (b"hello", "not readable"),
        "another format": (gif.getvalue(), "not readable"),
        "16 bits": (deep, "mode I;16, expected 8 bits"),
        "print": (jpeg.getvalue(), "mode CMYK, expected 8 bits"),
        "transparent": (png(clear), "it has transparent places"),
        "animated": (png(image, save_all=True, append_images=[image.rotate(180)]), "2 frames"),
        "bomb": (huge, "not readable: Image size .* exceeds limit"),
        "too large": (good[:8] + chunk(b"IHDR", wide) + good[33:], "9000 x 9000 pixels, more than"),
        "text bomb": (good[:33] + chunk(b"zTXt", text) + good[33:], "not readable"),
    }


@pytest.mark.parametrize("name", broken_images())
def test_what_cannot_be_read_right_is_refused_with_its_file(name: str, tmp_path: Path) -> None:
    content, message = broken_images()[name]
    path = tmp_path / "a.png"
    path.write_bytes(content)
    with pytest.raises(InputError, match=rf"^image: {path}: {message}") as caught:
        read_image(path, 8)
    assert "\n" not in str(caught.value)


def test_a_missing_image_and_a_folder_are_told(tmp_path: Path) -> None:
    for path, found in ((tmp_path / "none.png", "no such file"), (tmp_path, "it is a folder")):
        with pytest.raises(InputError, match=f"image: {path}: {found}"):
            read_image(path)


@settings(max_examples=200)
@given(place=st.integers(0, 10_000), value=st.integers(0, 255), cut=st.booleans())
def test_damage_anywhere_is_one_line_or_an_image(
    tmp_path_factory: pytest.TempPathFactory, place: int, value: int, cut: bool
) -> None:
    content = bytearray(png(Image.fromarray(NOISE)))
    place %= len(content)
    content[place] = value
    path = tmp_path_factory.mktemp("images") / "a.png"
    path.write_bytes(content[:place] if cut else content)
    try:
        found = read_image(path)
    except InputError as error:
        assert str(path) in str(error)  # noqa: PT017 - either is right
        return
    assert found.dtype == np.uint8
    assert found.shape[2:] == (3,)


def test_images_are_listed_by_name_without_hidden_and_other_files(tmp_path: Path) -> None:
    for name in ("b.png", "a.png", "._a.png", "note.txt", ".a.png.x.unfinished"):
        (tmp_path / name).touch()
    (tmp_path / ".ipynb_checkpoints").mkdir()
    (tmp_path / "folder.png").mkdir()
    assert [path.name for path in list_images(tmp_path)] == ["a.png", "b.png"]
    (tmp_path / "images").mkdir()
    (tmp_path / "images" / "c.png").touch()
    assert [path.name for path in list_images(tmp_path)] == ["c.png"]


@pytest.mark.parametrize("name", ["b.PNG", "b.jpg", "b.JPEG"])
def test_an_image_of_another_suffix_is_not_passed_over(name: str, tmp_path: Path) -> None:
    for file in ("a.png", name):
        (tmp_path / file).touch()
    with pytest.raises(InputError, match=rf"images: {tmp_path / name}: expected NAME\.png"):
        list_images(tmp_path)


def test_a_folder_without_images_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"no \.png files"):
        list_images(tmp_path)


def test_a_name_that_is_no_utf8_is_told(tmp_path: Path) -> None:
    (tmp_path / "caf\udce9.png").touch()
    with pytest.raises(InputError, match=r"the name of the file 'caf\\udce9\.png' is not UTF-8"):
        list_images(tmp_path)
