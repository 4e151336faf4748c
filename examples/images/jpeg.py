"""A small JPEG writer for what other writers do not write: any sampling, ids, markers, order of scans, restart
intervals, baseline and progressive. It writes what it is told to, right or wrong."""

import struct
from dataclasses import dataclass, field

import numpy as np

ZIGZAG = sorted(range(64), key=lambda i: (i // 8 + i % 8, (i % 8) if (i // 8 + i % 8) % 2 == 0 else (i // 8)))


@dataclass
class Component:
    """Samples of any size (what is too much is cut off, what is missing filled up), and how they are announced."""

    samples: np.ndarray
    h: int = 1
    v: int = 1
    id: int = 1
    table: int = 0


@dataclass
class Scan:
    """Components by their index; the rest counts for progressive files only."""

    components: list[int]
    start: int = 0
    end: int = 63
    high: int = 0
    low: int = 0


@dataclass
class Settings:
    scans: list[Scan]
    progressive: bool = False
    restart: int = 0
    step: int = 6
    # Segments before the frame, as bytes.
    markers: list[bytes] = field(default_factory=list)
    # What fills blocks beyond the image's edge: "edge" repeats it, a number is that value.
    padding: str | int = "edge"
    huffman_tables: bool = True


def segment(marker: int, content: bytes) -> bytes:
    return struct.pack(">BBH", 0xFF, marker, len(content) + 2) + content


JFIF = segment(0xE0, b"JFIF\0\1\1\0\0\1\0\1\0\0")


def adobe(transform: int) -> bytes:
    return segment(0xEE, b"Adobe" + struct.pack(">HHHB", 100, 0, 0, transform))


# Codes of 8 bits for 254 symbols, of 9 for the other two: every symbol, whatever it means.
FLAT = ([0] * 7 + [254, 2] + [0] * 7, list(range(256)))
# Tables K.3 to K.6 of the specification; those of AC are taken from a file that Pillow made.
DC = [([0, 1, 5, 1, 1, 1, 1, 1, 1] + [0] * 7, list(range(12))), ([0, 3, 1, 1, 1, 1, 1, 1, 1, 1, 1] + [0] * 5, list(range(12)))]


def standard_tables() -> dict[int, tuple[list[int], list[int]]]:
    import io

    from PIL import Image

    file = io.BytesIO()
    Image.new("RGB", (8, 8)).save(file, "JPEG")
    data, place, tables = file.getvalue(), 2, {}
    while data[place + 1] != 0xDA:
        (length,) = struct.unpack(">H", data[place + 2 : place + 4])
        content = data[place + 4 : place + 2 + length]
        while data[place + 1] == 0xC4 and content:
            counts = list(content[1:17])
            tables[content[0]] = (counts, list(content[17 : 17 + sum(counts)]))
            content = content[17 + sum(counts) :]
        place += 2 + length
    return tables


STANDARD = standard_tables()


def codes(table: tuple[list[int], list[int]]) -> dict[int, tuple[int, int]]:
    made, code, place = {}, 0, 0
    for length, count in enumerate(table[0], 1):
        for _ in range(count):
            made[table[1][place]] = (code, length)
            code, place = code + 1, place + 1
        code <<= 1
    return made


class Bits:
    def __init__(self) -> None:
        self.text: list[str] = []

    def put(self, value: int, length: int) -> None:
        if length:
            self.text.append(format(value, f"0{length}b"))

    def number(self, value: int, size: int) -> None:
        self.put(value if value >= 0 else value + (1 << size) - 1, size)

    def data(self) -> bytes:
        text = "".join(self.text)
        text += "1" * (-len(text) % 8)
        return int(text, 2).to_bytes(len(text) // 8, "big").replace(b"\xff", b"\xff\0") if text else b""


COSINE = np.array([[np.cos((2 * x + 1) * u * np.pi / 16) * (0.5 if u else np.sqrt(1 / 8)) for x in range(8)] for u in range(8)])


def blocks(component: Component, rows: int, columns: int, width: int, height: int, settings: Settings) -> np.ndarray:
    """Quantised coefficients in zigzag order: [rows, columns, 64]."""
    samples = component.samples[:height, :width].astype(np.float64)
    beyond = ((0, rows * 8 - samples.shape[0]), (0, columns * 8 - samples.shape[1]))
    if settings.padding == "edge":
        samples = np.pad(samples, beyond, mode="edge")
    else:
        samples = np.pad(samples, beyond, constant_values=float(settings.padding))
    parts = samples.reshape(rows, 8, columns, 8).swapaxes(1, 2) - 128
    coefficients = COSINE @ parts @ COSINE.T
    return np.rint(coefficients / settings.step).astype(int).reshape(rows, columns, 64)[:, :, ZIGZAG]


def shifted(value: int, low: int) -> int:
    return value >> low if value >= 0 else -(-value >> low)


class Coder:
    """Entropy coding of one scan."""

    def __init__(self, scan: Scan, settings: Settings, tables: list[tuple[dict, dict]]) -> None:
        self.scan, self.settings, self.tables = scan, settings, tables
        self.data, self.restarts = b"", 0
        self.reset()

    def reset(self) -> None:
        self.bits, self.predictions, self.run, self.corrections = Bits(), [0] * 4, 0, []
        self.units = 0

    def unit(self) -> None:
        """Before each unit."""
        if self.settings.restart and self.units == self.settings.restart:
            self.flush()
            self.data += self.bits.data() + bytes([0xFF, 0xD0 + self.restarts % 8])
            self.restarts += 1
            self.reset()
        self.units += 1

    def symbol(self, table: dict, symbol: int) -> None:
        self.bits.put(*table[symbol])

    def block(self, component: int, block: np.ndarray) -> None:
        scan, (dc, ac) = self.scan, self.tables[component]
        if not self.settings.progressive:
            self.dc(dc, component, int(block[0]))
            self.ac(ac, [int(value) for value in block[1:]], ends_alone=True)
        elif scan.start == 0 and scan.high == 0:
            self.dc(dc, component, int(block[0]) >> scan.low)
        elif scan.start == 0:
            self.bits.put((int(block[0]) >> scan.low) & 1, 1)
        elif scan.high == 0:
            self.ac(ac, [shifted(int(value), scan.low) for value in block[scan.start : scan.end + 1]], ends_alone=False)
        else:
            self.refine(ac, [int(value) for value in block[scan.start : scan.end + 1]])

    def dc(self, table: dict, component: int, value: int) -> None:
        difference = value - self.predictions[component]
        self.predictions[component] = value
        size = abs(difference).bit_length()
        self.symbol(table, size)
        self.bits.number(difference, size)

    def ac(self, table: dict, values: list[int], ends_alone: bool) -> None:
        zeros = 0
        for value in values:
            if value == 0:
                zeros += 1
                continue
            self.flush()
            while zeros > 15:
                self.symbol(table, 0xF0)
                zeros -= 16
            size = abs(value).bit_length()
            self.symbol(table, zeros << 4 | size)
            self.bits.number(value, size)
            zeros = 0
        if zeros and ends_alone:
            self.symbol(table, 0)
        elif zeros:
            self.end(table, [])

    def end(self, table: dict, corrections: list[int]) -> None:
        self.run += 1
        self.corrections += corrections
        self.table = table
        if self.run == 0x7FFF:
            self.flush()

    def flush(self) -> None:
        """Writes how many blocks have ended, and what was put off until then."""
        if self.run:
            size = self.run.bit_length() - 1
            self.symbol(self.table, size << 4)
            self.bits.put(self.run - (1 << size), size)
            for bit in self.corrections:
                self.bits.put(bit, 1)
            self.run, self.corrections = 0, []

    def refine(self, table: dict, values: list[int]) -> None:
        low = self.scan.low
        known = [abs(value) >> low for value in values]
        last = max((place for place, value in enumerate(known) if value == 1), default=-1)
        zeros, corrections = 0, []
        for place, (value, whole) in enumerate(zip(known, values, strict=True)):
            if value == 0:
                zeros += 1
                continue
            while zeros > 15 and place <= last:
                self.flush()
                self.symbol(table, 0xF0)
                zeros -= 16
                for bit in corrections:
                    self.bits.put(bit, 1)
                corrections = []
            if value > 1:
                corrections.append(value & 1)
                continue
            self.flush()
            self.symbol(table, zeros << 4 | 1)
            self.bits.put(int(whole > 0), 1)
            for bit in corrections:
                self.bits.put(bit, 1)
            zeros, corrections = 0, []
        if zeros or corrections:
            self.end(table, corrections)


def encode(width: int, height: int, components: list[Component], settings: Settings) -> bytes:
    h, v = max(one.h for one in components), max(one.v for one in components)
    alone = len(components) == 1
    units = (-(-width // (8 * h)), -(-height // (8 * v)))
    sizes = [(-(-width * one.h // h), -(-height * one.v // v)) for one in components]
    planes = [
        blocks(one, units[1] * one.v, units[0] * one.h, *size, settings)
        for one, size in zip(components, sizes, strict=True)
    ]
    used = [(STANDARD[0], FLAT)] * len(components) if settings.progressive else [(STANDARD[min(i, 1)], STANDARD[0x10 + min(i, 1)]) for i in range(len(components))]
    numbers = [0 if settings.progressive else min(index, 1) for index in range(len(components))]
    tables = [(codes(dc), codes(ac)) for dc, ac in used]

    data = b"\xff\xd8" + b"".join(settings.markers)
    for table in sorted({one.table for one in components}):
        data += segment(0xDB, bytes([table]) + bytes([settings.step]) * 64)
    frame = struct.pack(">BHHB", 8, height, width, len(components))
    frame += b"".join(bytes([one.id, one.h << 4 | one.v, one.table]) for one in components)
    data += segment(0xC2 if settings.progressive else 0xC0, frame)
    for number in sorted(set(numbers)) if settings.huffman_tables else []:
        dc, ac = used[numbers.index(number)]
        data += segment(0xC4, bytes([number, *dc[0], *dc[1]])) + segment(0xC4, bytes([0x10 | number, *ac[0], *ac[1]]))
    if settings.restart:
        data += segment(0xDD, struct.pack(">H", settings.restart))
    for scan in settings.scans:
        header = bytes([len(scan.components)])
        header += b"".join(bytes([components[index].id, numbers[index] * 0x11]) for index in scan.components)
        data += segment(0xDA, header + bytes([scan.start, scan.end, scan.high << 4 | scan.low]))
        coder = Coder(scan, settings, tables)
        if len(scan.components) == 1:
            (index,) = scan.components
            columns, rows = (-(-side // 8) for side in sizes[index])
            for row in range(rows):
                for column in range(columns):
                    coder.unit()
                    coder.block(index, planes[index][row, column])
        else:
            for row in range(units[1]):
                for column in range(units[0]):
                    coder.unit()
                    for index in scan.components:
                        one = components[index]
                        for y in range(one.v):
                            for x in range(one.h):
                                coder.block(index, planes[index][row * one.v + y, column * one.h + x])
        coder.flush()
        data += coder.data + coder.bits.data()
    return data + b"\xff\xd9"
