"""JPEGs of every kind that a header can describe: samplings, scans, markers, ids, restart intervals, tails."""

import itertools
import random

import numpy as np

from jpeg import JFIF, Component, Scan, Settings, adobe, encode, segment

Factors = list[tuple[int, int]]


def progressive(count: int) -> list[Scan]:
    """Spectral selection and successive approximation, down to the last bit."""
    every, each = list(range(count)), [[index] for index in range(count)]
    first = [Scan(every, 0, 0, 0, 1)] + [Scan(one, start, end, 0, 2) for one in each for start, end in [(1, 5), (6, 63)]]
    refined = [Scan(one, 1, 63, 2, 1) for one in each] + [Scan(every, 0, 0, 1, 0)] + [Scan(one, 1, 63, 1, 0) for one in each]
    return first + refined


def scans(kind: str, count: int) -> list[Scan]:
    every = list(range(count))
    match kind:
        case "interleaved":
            return [Scan(every)]
        case "separate":
            return [Scan([index]) for index in every]
        case "luma-apart":
            return [Scan([0]), Scan(every[1:])] if count > 1 else [Scan([0])]
        case _:
            return progressive(count)


def planes(picture: np.ndarray, factors: Factors) -> list[np.ndarray]:
    """One channel for each component, with as many samples as its factors leave of it."""
    height, width = picture.shape[:2]
    h, v = (max(one[side] for one in factors) for side in (0, 1))
    made = []
    for index, (own_h, own_v) in enumerate(factors):
        columns = np.minimum(np.arange(-(-width * own_h // h)) * h // own_h, width - 1)
        rows = np.minimum(np.arange(-(-height * own_v // v)) * v // own_v, height - 1)
        made.append(picture[rows][:, columns][:, :, index])
    return made


def jpeg(
    picture: np.ndarray, factors: Factors, kind: str = "interleaved", ids: bytes = b"\1\2\3\4", **settings: object
) -> bytes:
    components = [
        Component(plane, h, v, number) for plane, (h, v), number in zip(planes(picture, factors), factors, ids, strict=False)
    ]
    height, width = picture.shape[:2]
    settings = Settings(scans(kind, len(factors)), kind == "progressive", **settings)
    return encode(width, height, components, settings)


KINDS = ["interleaved", "separate", "luma-apart", "progressive"]
COLOR = [(1, 1)] * 3
HALF = [(2, 2), (1, 1), (1, 1)]


def jpegs(picture) -> dict[str, bytes]:
    """Each by its name; Pillow may refuse some. `picture` makes one of a width, a height and channels."""
    choice, whole = random.Random(7), picture(67, 45, 4)
    made = {}

    def add(name: str, factors: Factors, pixels: np.ndarray = whole, kind: str = "interleaved", **more: object) -> None:
        made[f"{name}-{kind}.jpg"] = jpeg(pixels, factors, kind, **more)

    def name(factors: Factors) -> str:
        return "-".join(f"{h}{v}" for h, v in factors)

    small = list(itertools.product([1, 2], repeat=2))
    for factors in itertools.product(small, repeat=3):
        more = {"restart": choice.choice([0, 0, 1, 5]), "padding": choice.choice(["edge", 0, 255])}
        add(name(factors), list(factors), kind=choice.choice(KINDS), **more)
    for factors in [[(4, 1), (1, 1), (1, 1)], [(1, 4), (1, 1), (1, 1)], [(4, 2), (1, 1), (1, 1)], [(4, 2), (2, 1), (1, 2)],
                    [(3, 1), (1, 1), (1, 1)], [(1, 3), (1, 1), (1, 1)], [(4, 4), (1, 1), (2, 4)], [(4, 4), (4, 2), (2, 4)],
                    [(1, 1), (4, 4), (1, 2)], [(2, 1), (3, 1), (1, 1)], [(4, 1), (3, 1), (1, 1)]]:  # fmt: skip
        for kind in KINDS:
            add(name(factors), factors, kind=kind, padding=0)
    for kind in KINDS:
        for factors in [HALF, [(2, 1), (1, 1), (1, 1)], [(1, 2), (1, 1), (1, 1)]]:
            add(f"restarts-{name(factors)}", factors, kind=kind, restart=2)
            for width, height in [(1, 1), (3, 5), (17, 9), (2, 40), (40, 2), (64, 48)]:
                add(f"{width}x{height}-{name(factors)}", factors, picture(width, height, 3), kind)
        add("grey-11", [(1, 1)], kind=kind)
    add("grey-22", [(2, 2)])
    add("grey-14", [(1, 4)], kind="progressive")

    markers = {"none": [], "jfif": [JFIF], "jfif-adobe-0": [JFIF, adobe(0)], "adobe-1-jfif": [adobe(1), JFIF]}
    markers |= {f"adobe-{transform}": [adobe(transform)] for transform in [0, 1, 2, 7]}
    markers |= {"short-jfif": [segment(0xE0, b"JFIF\0\1\1")], "short-adobe": [segment(0xEE, b"Adobe\0d")]}
    numbers = {"123": b"\1\2\3\4", "rgb": b"RGBA", "012": b"\0\1\2\3", "same": b"\1\1\1\1", "bgr": b"BGRA"}
    for (marker, segments), (ids, given) in itertools.product(markers.items(), numbers.items()):
        add(f"{marker}-ids-{ids}", COLOR, ids=given, markers=segments)
    for (marker, segments), factors in itertools.product(markers.items(), [[(1, 1)] * 4, [(2, 2), (1, 1), (1, 1), (2, 2)]]):
        add(f"four-{marker}-{name(factors)}", factors, markers=segments, kind=choice.choice(KINDS))

    plain = jpeg(whole, HALF)
    tails = {
        "scan-marker": b"\xff\xda\0\0",
        "comment": segment(0xFE, b"a comment"),
        "another-image": plain,
        "half-an-image": plain[: len(plain) // 2],
        "motion-photo": b"\0\0\0\x18ftypmp42" + bytes(range(256)) * 9,
    }
    made |= {f"tail-{tail}.jpg": plain + data for tail, data in tails.items()}
    made["tail-of-a-progressive-image.jpg"] = jpeg(whole, HALF, "progressive") + tails["scan-marker"]
    made["restart-marker-at-the-end.jpg"] = plain[:-2] + b"\xff\xd0\xff\xd9"
    made["bytes-before-the-end.jpg"] = plain[:-2] + b"\0\1\2\xff\0\3\xff\xff\xff\xd9"
    frame = plain.index(b"\xff\xc0")
    made["fill-bytes.jpg"] = plain[:frame] + b"\xff\xff\xff" + plain[frame:]
    made["thumbnail.jpg"] = plain[:2] + segment(0xE1, b"Thumbnail" + jpeg(picture(9, 9, 3), COLOR)) + plain[2:]
    made["usual-huffman-tables.jpg"] = jpeg(whole, HALF, huffman_tables=False)
    return made
