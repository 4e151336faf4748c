"""Shared by the client scripts: the server's address, inputs, and the answers of ONNX Runtime in this process."""

import sys
from pathlib import Path

import numpy as np
import onnxruntime

ADDRESS = sys.argv[1]
CACHE = Path(sys.argv[2])
onnxruntime.disable_telemetry_events()

# Types that numpy has; BF16 is tested as raw bits.
NUMBERS = {
    "UINT8": np.uint8, "UINT16": np.uint16, "UINT32": np.uint32, "UINT64": np.uint64,
    "INT8": np.int8, "INT16": np.int16, "INT32": np.int32, "INT64": np.int64,
    "FP16": np.float16, "FP32": np.float32, "FP64": np.float64,
}  # fmt: skip


def values(datatype):
    """A matrix of 2 × 3 with the type's extremes."""
    if datatype == "BOOL":
        return np.array([[True, False, False], [False, True, True]])
    if datatype == "BYTES":
        return np.array([[b"a", b"", "é".encode()], [b'"\\\n', b"x" * 300, b"end"]], dtype=np.object_)
    kind = NUMBERS[datatype]
    info = np.finfo(kind) if np.issubdtype(kind, np.floating) else np.iinfo(kind)
    return np.array([[info.min, 0, 1], [info.max, 7, 100]], dtype=kind)


def reference(package, feeds):
    """The outputs by name. ONNX Runtime's strings are text, the clients' are bytes."""
    folder = CACHE / "client-models" / package
    if not folder.exists():
        folder = CACHE / "examples" / package
    session = onnxruntime.InferenceSession(str(folder / "model.onnx"), providers=["CPUExecutionProvider"])
    text = np.vectorize(bytes.decode, otypes=[object])
    feeds = {name: text(array) if array.dtype.kind == "O" else array for name, array in feeds.items()}
    outputs = session.run(None, feeds)
    outputs = [np.vectorize(str.encode, otypes=[object])(array) if array.dtype.kind == "O" else array for array in outputs]
    return dict(zip((output.name for output in session.get_outputs()), outputs))


def images(package="tiny", size=32, seed=1, count=1):
    """Random images that the model accepts, and the name of its input."""
    return np.random.default_rng(seed).normal(size=(count, 3, size, size)).astype(np.float32)


def same(actual, expected, what):
    assert actual is not None, f"{what}: no such output"
    assert actual.shape == expected.shape, f"{what}: shape {actual.shape}, not {expected.shape}"
    if expected.dtype.kind == "f":
        np.testing.assert_allclose(actual, expected, rtol=1e-4, atol=1e-5, err_msg=what)
    else:
        np.testing.assert_array_equal(actual, expected, err_msg=what)


def main(*tests):
    for test in tests:
        test()
        print("ok", test.__name__, flush=True)
