#!/usr/bin/env python3
"""Makes small images in every form that the server decodes, and says which pixels Pillow and OpenCV make of them.

Each image is written beside NAME.rgb, the raw pixels of Pillow's `exif_transpose(image).convert("RGB")`;
`images.json` lists them with their sizes, `jpegs.json` and `refused.json` the JPEGs of jpegs.py that Pillow reads and those
that it does not. NAME.WIDTHxHEIGHT.FILTER holds the raw pixels after Pillow's `resize`
with that filter, or OpenCV's with INTER_LINEAR, listed in `resized.json`. Everything is drawn from formulas: the same on every machine.
"""

import argparse
import io
import json
import struct
import zlib
from pathlib import Path

import cv2
import numpy as np
from PIL import Image, ImageOps

from jpeg import segment
from jpegs import jpegs

# Odd, not square, and no multiple of a JPEG block.
WIDTH, HEIGHT = 67, 45


def picture(width: int = WIDTH, height: int = HEIGHT, channels: int = 3) -> np.ndarray:
    """Smooth waves of different direction per channel, a hard edge and some texture; not symmetric in any way."""
    y, x = np.mgrid[0:height, 0:width].astype(np.float64)
    planes = [
        127.5 + 90 * np.sin(x / (5 + 3 * channel) + channel) * np.cos(y / (11 - 2 * channel)) + 30 * (x / width - y / height)
        for channel in range(channels)
    ]
    pixels = np.stack(planes, axis=-1)
    pixels[(x + 2 * y < width / 2)] += 60
    pixels += np.random.default_rng(11).integers(-6, 7, pixels.shape)
    return np.clip(np.rint(pixels), 0, 255).astype(np.uint8)


def rgb(width: int = WIDTH, height: int = HEIGHT) -> Image.Image:
    return Image.fromarray(picture(width, height))


def grey() -> Image.Image:
    return Image.fromarray(picture(channels=1)[:, :, 0])


def rgba() -> Image.Image:
    """Alpha runs over all values, so that a decoder which multiplies with it is caught."""
    alpha = np.broadcast_to(np.linspace(0, 255, WIDTH).astype(np.uint8), (HEIGHT, WIDTH))
    return Image.fromarray(np.dstack([picture(), alpha]))


def palette(colors: int = 64) -> Image.Image:
    return rgb().quantize(colors, dither=Image.Dither.NONE)


def encoded(image: Image.Image, kind: str, **options) -> bytes:
    file = io.BytesIO()
    image.save(file, kind, **options)
    return file.getvalue()


def jpeg(image: Image.Image, **options) -> bytes:
    return encoded(image, "JPEG", **{"quality": 90, **options})


def jpeg_by_opencv(sampling: int) -> bytes:
    """With a sampling of the colour planes that Pillow does not write."""
    bgr = np.ascontiguousarray(picture()[:, :, ::-1])
    _, data = cv2.imencode(".jpg", bgr, [cv2.IMWRITE_JPEG_QUALITY, 90, cv2.IMWRITE_JPEG_SAMPLING_FACTOR, sampling])
    return data.tobytes()


def exif(orientation: int) -> Image.Exif:
    tags = Image.Exif()
    tags[0x0112] = orientation
    return tags


def exif_block(kind: int, value: bytes, count: int = 1, tag: int = 0x0112) -> bytes:
    """EXIF data with one entry, whose value is of any type."""
    inline, after = (value.ljust(4, b"\0"), b"") if len(value) <= 4 else (struct.pack("<I", 26), value)
    return b"II*\0\x08\0\0\0" + struct.pack("<HHHI", 1, tag, kind, count) + inline + b"\0\0\0\0" + after


# Six, as a number of each type that TIFF knows; two of them are not numbers.
SIXES = {
    "byte": (1, b"\6"), "ascii": (2, b"6\0"), "short": (3, b"\6\0"), "long": (4, b"\6\0\0\0"),
    "rational": (5, struct.pack("<II", 12, 2)), "sbyte": (6, b"\6"), "undefined": (7, b"\6"), "sshort": (8, b"\6\0"),
    "slong": (9, b"\6\0\0\0"), "srational": (10, struct.pack("<ii", 6, 1)), "float": (11, struct.pack("<f", 6)),
    "double": (12, struct.pack("<d", 6)), "ifd": (13, b"\6\0\0\0"), "half": (5, struct.pack("<II", 13, 2)),
}  # fmt: skip
XMP_ATTRIBUTE = b'<x:xmpmeta><rdf:Description tiff:Orientation="6"/></x:xmpmeta>'
XMP_ELEMENT = b"<x:xmpmeta><tiff:Orientation>8</tiff:Orientation></x:xmpmeta>"


def oriented() -> dict[str, bytes]:
    """Every place where the orientation may stand."""
    plain, png_file = jpeg(rgb(), subsampling="4:4:4"), encoded(rgb(), "PNG")
    webp = encoded(rgb(), "WEBP", lossless=True, exif=exif_block(4, b"\6\0\0\0"), xmp=XMP_ELEMENT)
    short = exif_block(3, b"\3\0")

    def in_jpeg(*blocks: bytes) -> bytes:
        return plain[:2] + b"".join(segment(0xE1, block) for block in blocks) + plain[2:]

    def exif_part(data: bytes) -> bytes:
        return b"Exif\0\0" + data

    def xmp_part(data: bytes) -> bytes:
        return b"http://ns.adobe.com/xap/1.0/\0" + data

    def in_png(*chunks: bytes, after: bool = False) -> bytes:
        place = png_file.index(b"IEND" if after else b"IDAT") - 4
        return png_file[:place] + b"".join(chunks) + png_file[place:]

    profile = b"\nexif\n" + f"{len(short):8}\n{short.hex()}\n".encode()
    xmp = b"XML:com.adobe.xmp\0"
    made = {f"exif-{name}.jpg": in_jpeg(exif_part(exif_block(kind, value))) for name, (kind, value) in SIXES.items()}
    return made | {
        "exif-two-shorts.jpg": in_jpeg(exif_part(exif_block(3, b"\6\0\3\0", 2))),
        "exif-no-value.jpg": in_jpeg(exif_part(exif_block(3, b"", 0)), xmp_part(XMP_ATTRIBUTE)),
        "exif-twice.jpg": in_jpeg(exif_part(exif_block(3, b"\6\0")), exif_part(short)),
        "exif-in-two-parts.jpg": in_jpeg(exif_part(short[:12]), exif_part(short[12:])),
        "exif-named-twice.jpg": in_jpeg(exif_part(exif_part(short))),
        "xmp-attribute.jpg": in_jpeg(xmp_part(XMP_ATTRIBUTE)),
        "xmp-element.jpg": in_jpeg(xmp_part(XMP_ELEMENT)),
        "xmp-twice.jpg": in_jpeg(xmp_part(XMP_ATTRIBUTE), xmp_part(XMP_ELEMENT)),
        "xmp-and-exif.jpg": in_jpeg(xmp_part(XMP_ATTRIBUTE), exif_part(short)),
        "xmp-and-exif-byte.jpg": in_jpeg(exif_part(exif_block(1, b"\3")), xmp_part(XMP_ATTRIBUTE)),
        "xmp-and-other-exif.jpg": in_jpeg(exif_part(exif_block(3, b"\3\0", tag=0x0113)), xmp_part(XMP_ATTRIBUTE)),
        "xmp-in-single-quotes.jpg": in_jpeg(xmp_part(XMP_ATTRIBUTE.replace(b'"', b"'"))),
        "exif-long.png": in_png(chunk(b"eXIf", exif_block(4, b"\6\0\0\0"))),
        "exif-twice.png": in_png(chunk(b"eXIf", exif_block(3, b"\6\0")), chunk(b"eXIf", short)),
        "exif-after-the-pixels.png": in_png(chunk(b"eXIf", short), after=True),
        "profile.png": in_png(chunk(b"tEXt", b"Raw profile type exif\0" + profile)),
        "profile-compressed.png": in_png(chunk(b"zTXt", b"Raw profile type exif\0\0" + zlib.compress(profile)), after=True),
        "profile-and-exif.png": in_png(chunk(b"tEXt", b"Raw profile type exif\0" + profile), chunk(b"eXIf", exif_block(3, b"\6\0"))),
        "xmp.png": in_png(chunk(b"iTXt", xmp + b"\0\0\0\0" + XMP_ATTRIBUTE)),
        "xmp-compressed.png": in_png(chunk(b"iTXt", xmp + b"\1\0en\0\0" + zlib.compress(XMP_ELEMENT))),
        "xmp-after-the-pixels.png": in_png(chunk(b"iTXt", xmp + b"\0\0\0\0" + XMP_ELEMENT), after=True),
        "xmp-as-text.png": in_png(chunk(b"tEXt", xmp + XMP_ATTRIBUTE)),
        "exif-and-xmp.webp": webp,
        "xmp.webp": encoded(rgb(), "WEBP", lossless=True, xmp=XMP_ATTRIBUTE),
        # The header's flags say that there is none.
        "exif-without-flag.webp": patched(webp, 20, bytes([webp[20] & ~0x08])),
        "metadata-without-flags.webp": patched(webp, 20, bytes([webp[20] & ~0x0C])),
    }


def riff(name: bytes, data: bytes) -> bytes:
    return name + struct.pack("<I", len(data)) + data + b"\0" * (len(data) % 2)


def animation(frame: bytes, blend: bool, size: tuple[int, int], place: tuple[int, int] = (0, 0)) -> bytes:
    """A WebP of one frame, somewhere on a canvas; `frame` is a WebP of its own."""

    def three(number: int) -> bytes:
        return struct.pack("<I", number)[:3]

    chunks = frame[30:] if frame[12:16] == b"VP8X" else frame[12:]
    head = three(place[0] // 2) + three(place[1] // 2) + three(WIDTH - 1) + three(HEIGHT - 1) + three(100)
    canvas = bytes([0x12, 0, 0, 0]) + three(size[0] - 1) + three(size[1] - 1)
    parts = [riff(b"VP8X", canvas), riff(b"ANIM", b"\x20\x40\x60\xff\0\0")]
    parts += [riff(b"ANMF", head + bytes([0 if blend else 2]) + chunks)] * 2
    return riff(b"RIFF", b"WEBP" + b"".join(parts))


def patched(data: bytes, place: int, new: bytes) -> bytes:
    return data[:place] + new + data[place + len(new) :]


def ycck() -> bytes:
    """Pillow cannot write YCCK: store its four planes as they are, and say in the Adobe marker what they are."""
    planes = [*rgb().convert("YCbCr").split(), grey()]
    # Pillow inverts what it writes, as Adobe does.
    data = jpeg(Image.merge("CMYK", [ImageOps.invert(plane) for plane in planes]))
    return patched(data, data.index(b"Adobe") + 11, b"\2")


def without_adobe(data: bytes) -> bytes:
    """Drops the APP14 segment."""
    start = data.index(b"Adobe") - 4
    (length,) = struct.unpack(">H", data[start + 2 : start + 4])
    return data[:start] + data[start + 2 + length :]


def chunk(kind: bytes, data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))


def png(samples: np.ndarray, bits: int, color: int, interlaced: bool = False) -> bytes:
    """A PNG of a kind that Pillow does not write: [height, width, channels] samples of `bits` bits, no filter."""

    def rows(part: np.ndarray) -> bytes:
        if part.size == 0:
            return b""
        flat = part.reshape(part.shape[0], -1)
        if bits == 16:
            return b"".join(b"\0" + row.astype(">u2").tobytes() for row in flat)
        unpacked = (flat[:, :, np.newaxis] >> np.arange(bits - 1, -1, -1)) & 1
        return b"".join(b"\0" + np.packbits(row.reshape(-1).astype(np.uint8)).tobytes() for row in unpacked)

    height, width = samples.shape[:2]
    adam7 = [(0, 0, 8, 8), (0, 4, 8, 8), (4, 0, 8, 4), (0, 2, 4, 4), (2, 0, 4, 2), (0, 1, 2, 2), (1, 0, 2, 1)]
    passes = [samples[y::dy, x::dx] for y, x, dy, dx in adam7] if interlaced else [samples]
    header = struct.pack(">IIBBBBB", width, height, bits, color, 0, 0, int(interlaced))
    data = zlib.compress(b"".join(rows(part) for part in passes), 9)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", data) + chunk(b"IEND", b"")


def sixteen(channels: int) -> np.ndarray:
    """Low bytes that differ from the high ones, so that rounding and cutting can be told apart."""
    high = picture(channels=channels).astype(np.uint16)
    return high * 256 + (255 - high // 2)


def bmp16() -> bytes:
    """A BMP with five bits for each colour, which Pillow reads but does not write."""
    five = (picture().astype(np.uint16) >> 3)[::-1]
    pixels = (five[:, :, 0] << 10) | (five[:, :, 1] << 5) | five[:, :, 2]
    rows = b"".join(row.astype("<u2").tobytes() + b"\0" * (-2 * WIDTH % 4) for row in pixels)
    info = struct.pack("<IiiHHIIiiII", 40, WIDTH, HEIGHT, 1, 16, 0, len(rows), 0, 0, 0, 0)
    return b"BM" + struct.pack("<IHHI", 54 + len(rows), 0, 0, 54) + info + rows


def bmp_rle() -> bytes:
    """A run-length encoded BMP, which Pillow reads but does not write."""
    plain = encoded(palette(), "BMP")
    (start,) = struct.unpack("<I", plain[10:14])
    stride = WIDTH + -WIDTH % 4
    rows = b""
    for row in range(HEIGHT):
        line = plain[start + row * stride :][:WIDTH]
        rows += b"".join(bytes([1, value]) for value in line[:40]) + bytes([0, len(line) - 40]) + line[40:]
        rows += b"\0" * ((len(line) - 40) % 2) + b"\0\0"
    rows += b"\0\1"
    return patched(patched(plain[:start], 30, struct.pack("<I", 1)), 34, struct.pack("<I", len(rows))) + rows


def bmp_codes(codes: bytes, bits: int, width: int, height: int, colors: int) -> bytes:
    """A run-length encoded BMP of any codes. The first colour is no black."""
    colors_given = b"".join(bytes([40 + 3 * index, 90 + index, 200 - 5 * index, 0]) for index in range(colors))
    info = struct.pack("<IiiHHIIiiII", 40, width, height, 1, bits, {8: 1, 4: 2}[bits], len(codes), 0, 0, colors, 0)
    start = 54 + len(colors_given)
    return b"BM" + struct.pack("<IHHI", start + len(codes), 0, 0, start) + info + colors_given + codes


def skipping(bits: int) -> bytes:
    """Rows that end early, jumps within a row and over rows, literal pixels of odd number."""
    literal = bytes([1, 2, 3, 4, 5, 0]) if bits == 8 else bytes([0x12, 0x34, 0x50, 0])
    run = bytes([3, 7]) if bits == 8 else bytes([3, 0x78])
    rows = [run + b"\0\0", b"\0\2\4\0" + run + b"\0\0", b"\0\5" + literal + b"\0\0", run + b"\0\2\2\2" + run + b"\0\0"]
    return bmp_codes(b"".join(rows) + b"\x0b\1\0\0" * 2 + b"\0\1", bits, 11, 8, 16)


def images() -> dict[str, bytes]:
    """Every image by its name."""
    still, next_frame = palette(), ImageOps.mirror(palette())
    cmyk = Image.merge("CMYK", [*rgb().split(), grey()])
    gif = encoded(still, "GIF")
    made = {
        "grey.jpg": jpeg(grey()),
        "colour-444.jpg": jpeg(rgb(), subsampling="4:4:4"),
        "colour-422.jpg": jpeg(rgb(), subsampling="4:2:2"),
        "colour-420.jpg": jpeg(rgb(), subsampling="4:2:0"),
        "colour-440.jpg": jpeg_by_opencv(cv2.IMWRITE_JPEG_SAMPLING_FACTOR_440),
        "colour-411.jpg": jpeg_by_opencv(cv2.IMWRITE_JPEG_SAMPLING_FACTOR_411),
        "colour-stored-as-rgb.jpg": jpeg(rgb(), keep_rgb=True),
        "progressive-420.jpg": jpeg(rgb(), progressive=True, subsampling="4:2:0"),
        "progressive-444.jpg": jpeg(rgb(), progressive=True, subsampling="4:4:4"),
        "progressive-grey.jpg": jpeg(grey(), progressive=True),
        "restart-markers.jpg": jpeg(rgb(), restart_marker_blocks=3),
        "large-420.jpg": jpeg(rgb(641, 479), subsampling="4:2:0"),
        "one-pixel.jpg": jpeg(rgb(1, 1)),
        "one-column.jpg": jpeg(rgb(1, 37)),
        "seventeen-by-nine.jpg": jpeg(rgb(17, 9)),
        "cmyk-adobe.jpg": jpeg(cmyk),
        "cmyk-without-marker.jpg": without_adobe(jpeg(cmyk)),
        "cmyk-progressive.jpg": jpeg(cmyk, progressive=True),
        "ycck.jpg": ycck(),
        "colour.png": encoded(rgb(), "PNG"),
        "grey.png": encoded(grey(), "PNG"),
        "alpha.png": encoded(rgba(), "PNG"),
        "grey-alpha.png": encoded(Image.merge("LA", [grey(), rgba().getchannel("A")]), "PNG"),
        "palette.png": encoded(still, "PNG"),
        "palette-16.png": encoded(palette(16), "PNG", bits=4),
        "palette-transparent.png": encoded(still, "PNG", transparency=3),
        "colour-key.png": encoded(rgb(), "PNG", transparency=rgb().getpixel((3, 4))),
        "one-bit.png": encoded(grey().convert("1"), "PNG"),
        "two-bit-grey.png": png(picture(channels=1) >> 6, 2, 0),
        "four-bit-grey.png": png(picture(channels=1) >> 4, 4, 0),
        "interlaced.png": png(picture(), 8, 2, interlaced=True),
        "interlaced-four-bit-grey.png": png(picture(channels=1) >> 4, 4, 0, interlaced=True),
        "sixteen-bit-grey.png": png(sixteen(1), 16, 0),
        "sixteen-bit-grey-alpha.png": png(sixteen(2), 16, 4),
        "sixteen-bit-colour.png": png(sixteen(3), 16, 2),
        "sixteen-bit-alpha.png": png(sixteen(4), 16, 6),
        "animated.png": encoded(still, "PNG", save_all=True, append_images=[next_frame]),
        "orientation-6.png": encoded(rgb(), "PNG", exif=exif(6)),
        "palette.gif": gif,
        "not-interlaced.gif": encoded(still, "GIF", interlace=0),
        "grey.gif": encoded(grey(), "GIF"),
        "one-bit.gif": encoded(grey().convert("1"), "GIF"),
        "transparent.gif": encoded(still, "GIF", transparency=3),
        "animated.gif": encoded(still, "GIF", save_all=True, append_images=[next_frame], duration=100),
        # The first frame covers a part of the screen only.
        "frame-smaller-than-screen.gif": patched(gif, 6, struct.pack("<HH", WIDTH + 9, HEIGHT + 5)),
        "frame-larger-than-screen.gif": patched(gif, 6, struct.pack("<HH", WIDTH - 9, HEIGHT - 5)),
        "lossy.webp": encoded(rgb(), "WEBP", quality=90),
        "lossy-large.webp": encoded(rgb(321, 239), "WEBP", quality=60),
        "lossy-alpha.webp": encoded(rgba(), "WEBP", quality=90),
        "lossless.webp": encoded(rgb(), "WEBP", lossless=True),
        "lossless-alpha.webp": encoded(rgba(), "WEBP", lossless=True, exact=True),
        "lossless-palette.webp": encoded(palette(4).convert("RGB"), "WEBP", lossless=True),
        "animated-lossless.webp": encoded(rgb(), "WEBP", lossless=True, save_all=True, append_images=[ImageOps.mirror(rgb())]),
        "animated-lossy.webp": encoded(rgb(), "WEBP", quality=90, save_all=True, append_images=[ImageOps.mirror(rgb())]),
        "animated-alpha.webp": encoded(
            rgba(), "WEBP", lossless=True, exact=True, save_all=True, append_images=[ImageOps.mirror(rgba())]
        ),
        "orientation-8.webp": encoded(rgb(), "WEBP", lossless=True, exif=exif(8)),
        "colour.bmp": encoded(rgb(), "BMP"),
        "alpha.bmp": encoded(rgba(), "BMP"),
        "grey.bmp": encoded(grey(), "BMP"),
        "palette.bmp": encoded(still, "BMP"),
        "one-bit.bmp": encoded(grey().convert("1"), "BMP"),
        "sixteen-bit.bmp": bmp16(),
        "run-lengths.bmp": bmp_rle(),
        "run-lengths-skipping.bmp": skipping(8),
        "run-lengths-of-four-bits.bmp": skipping(4),
    }
    lossless, lossy = (encoded(rgba(), "WEBP", quality=90, exact=True, lossless=lossless) for lossless in (True, False))
    opaque = encoded(rgb(), "WEBP", lossless=True)
    for blend in [True, False]:
        kind = "blended" if blend else "not-blended"
        made[f"animated-{kind}.webp"] = animation(lossless, blend, (WIDTH, HEIGHT))
        made[f"animated-{kind}-lossy.webp"] = animation(lossy, blend, (WIDTH, HEIGHT))
        made[f"animated-{kind}-opaque.webp"] = animation(opaque, blend, (WIDTH, HEIGHT))
        made[f"animated-{kind}-part.webp"] = animation(lossless, blend, (WIDTH + 9, HEIGHT + 7), (4, 2))
    made |= oriented()
    for orientation in range(1, 9):
        made[f"orientation-{orientation}.jpg"] = jpeg(rgb(), subsampling="4:4:4", exif=exif(orientation))
    return made


def reference(data: bytes) -> Image.Image:
    """What Pillow sees. It cuts a grey image of 16 bits at 255, which leaves white: there the high byte counts,
    as in its images of 16 bits and three colours."""
    image = ImageOps.exif_transpose(Image.open(io.BytesIO(data)))
    if image.mode.startswith("I;16"):
        image = Image.fromarray((np.asarray(image) >> 8).astype(np.uint8))
    return image.convert("RGB")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("folder", type=Path, help="folder to write to")
    folder = parser.parse_args().folder
    folder.mkdir(parents=True, exist_ok=True)

    def write(list_name: str, made: dict[str, bytes], may_be_refused: bool = False) -> None:
        index, refused = [], []
        for name, data in made.items():
            (folder / name).write_bytes(data)
            try:
                image = reference(data)
            except (OSError, SyntaxError):
                if not may_be_refused:
                    raise
                refused.append(name)
                continue
            (folder / f"{name}.rgb").write_bytes(image.tobytes())
            index.append({"name": name, "width": image.width, "height": image.height})
        (folder / list_name).write_text(json.dumps(index, indent=1), encoding="utf-8")
        if may_be_refused:
            (folder / "refused.json").write_text(json.dumps(refused, indent=1), encoding="utf-8")

    write("images.json", images())
    write("jpegs.json", jpegs(picture), may_be_refused=True)
    (folder / "colour.png.grey").write_bytes(rgb().convert("L").tobytes())

    # Of the second some places lie on the border of two pixels.
    sources = {"colour.png": (rgb(), [(32, 32), (20, 11), (67, 20), (30, 45), (134, 90), (150, 31), (1, 1)])}
    sources["even.png"] = (rgb(60, 40), [(7, 15), (33, 21), (9, 45), (40, 26), (23, 25), (106, 71)])
    resized = []
    for source, (image, sizes) in sources.items():
        (folder / source).write_bytes(encoded(image, "PNG"))
        for width, height in sizes:
            resized.append({"name": source, "width": width, "height": height})
            linear = cv2.resize(np.asarray(image), (width, height), interpolation=cv2.INTER_LINEAR)
            (folder / f"{source}.{width}x{height}.linear").write_bytes(linear.tobytes())
            for name in ["nearest", "bilinear", "bicubic", "lanczos"]:
                made = image.resize((width, height), Image.Resampling[name.upper()])
                (folder / f"{source}.{width}x{height}.{name}").write_bytes(made.tobytes())
    (folder / "resized.json").write_text(json.dumps(resized, indent=1), encoding="utf-8")


if __name__ == "__main__":
    main()
