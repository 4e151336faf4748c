"""What every peer runs: a session of ONNX Runtime with the same threads as those of the server's runners."""

import os

import numpy as np
import onnxruntime

# The shape of the model's input, without the batch dimension.
SHAPE = [int(size) for size in os.environ["BENCH_SHAPE"].split(",")]
CORES = len(os.sched_getaffinity(0))


def load() -> onnxruntime.InferenceSession:
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    options.inter_op_num_threads = 1
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    return onnxruntime.InferenceSession(os.environ["BENCH_MODEL"], options, providers=["CPUExecutionProvider"])


def run(session: onnxruntime.InferenceSession, tensor: np.ndarray) -> np.ndarray:
    return session.run(None, {"images": tensor})[0]


def run_bytes(session: onnxruntime.InferenceSession, content: bytes) -> bytes:
    return run(session, np.frombuffer(content, "<f4").reshape([-1, *SHAPE])).tobytes()
