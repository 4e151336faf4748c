"""Reads the tensors of a PyTorch state dict (.pth) with numpy alone.

A .pth file is a pickle, which can run any code when it is read by the ordinary unpickler. This one admits
only what a state dict is made of: tensors, their storages and an ordered dictionary.
"""

import collections
import pickle
import struct
import zipfile
from pathlib import Path

import numpy as np

LEGACY_MAGIC = 0x1950A86A20F9469CFC6C
DTYPES = {
    "FloatStorage": np.float32,
    "DoubleStorage": np.float64,
    "HalfStorage": np.float16,
    "LongStorage": np.int64,
    "IntStorage": np.int32,
    "ByteStorage": np.uint8,
}


class Storage:
    """A flat array that tensors are views of; filled after the pickle has been read."""

    def __init__(self, dtype, count):
        self.dtype, self.count = np.dtype(dtype), count
        self.elements = None


class View:
    """A tensor: offset, shape and strides (in elements) in a storage."""

    def __init__(self, storage, offset, shape, strides):
        self.storage, self.offset, self.shape, self.strides = storage, offset, tuple(shape), tuple(strides)

    def array(self):
        elements = self.storage.elements[self.offset :]
        strides = [stride * elements.itemsize for stride in self.strides]
        return np.lib.stride_tricks.as_strided(elements, self.shape, strides).copy()


def _rebuild_tensor(storage, offset, shape, strides, *_):
    return View(storage, offset, shape, strides)


class StateDictUnpickler(pickle.Unpickler):
    """Collects storages by key; refuses every other class and function."""

    def __init__(self, file):
        super().__init__(file, encoding="latin1")
        self.storages = {}

    def find_class(self, module, name):
        if (module, name) == ("torch._utils", "_rebuild_tensor_v2"):
            return _rebuild_tensor
        if (module, name) == ("collections", "OrderedDict"):
            return collections.OrderedDict
        if module == "torch" and name in DTYPES:
            return name
        raise pickle.UnpicklingError(f"a state dict does not need {module}.{name}; refused")

    def persistent_load(self, reference):
        kind, storage_type, key, _location, count = reference[:5]
        if kind != "storage":
            raise pickle.UnpicklingError(f"unknown reference {kind!r}")
        return self.storages.setdefault(key, Storage(DTYPES[storage_type], count))


def load(path: Path) -> dict[str, np.ndarray]:
    """The tensors of a state dict by name."""
    tensors = _load_zip(path) if zipfile.is_zipfile(path) else _load_legacy(path)
    return {name: tensor.array() for name, tensor in tensors.items() if isinstance(tensor, View)}


def _load_zip(path):
    with zipfile.ZipFile(path) as archive:
        (index,) = [name for name in archive.namelist() if name.endswith("/data.pkl")]
        folder = index.removesuffix("data.pkl")
        with archive.open(index) as file:
            unpickler = StateDictUnpickler(file)
            tensors = unpickler.load()
        for key, storage in unpickler.storages.items():
            storage.elements = np.frombuffer(archive.read(f"{folder}data/{key}"), storage.dtype)
    return tensors


def _load_legacy(path):
    """The format before PyTorch 1.6: magic number, protocol, system, tensors, keys, then the storages."""
    with open(path, "rb") as file:
        if StateDictUnpickler(file).load() != LEGACY_MAGIC:
            raise ValueError(f"{path} is no state dict")
        for _protocol_and_system in range(2):
            StateDictUnpickler(file).load()
        unpickler = StateDictUnpickler(file)
        tensors = unpickler.load()
        for key in StateDictUnpickler(file).load():
            storage = unpickler.storages[key]
            (count,) = struct.unpack("<q", file.read(8))
            if count != storage.count:
                raise ValueError(f"{path}: storage {key} has {count} elements, {storage.count} were announced")
            storage.elements = np.frombuffer(file.read(count * storage.dtype.itemsize), storage.dtype)
    return tensors
