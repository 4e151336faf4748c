"""Nine well-known topologies give the same answers through every protocol as ONNX Runtime in this process.

    light.py SERVER LIBRARY    the server's program, and the ONNX Runtime library that it loads

The models are the `light_*` ones of the onnx wheel. As shipped, their weights are constants, and every output is the
same number whatever the input: so they get seeded random weights. Inputs are seeded and random, each channel is
another, and left and right, top and bottom differ; where the topology allows it they are not square. That swapped
channels or an empty image would be noticed is checked for each.
"""

import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import tritonclient.grpc
import tritonclient.http
from onnx import numpy_helper

# Relative to the largest output; two builds of ONNX Runtime add up numbers in a different order.
TOLERANCE = 1e-4
NARROW = 192


def random_weights(model, random):
    """Replaces each constant with random weights that preserve the variance of the activations."""
    graph = model.graph
    shapes = {entry.name: numpy_helper.to_array(entry) for entry in graph.initializer}
    made = {
        node.output[0]: shapes[node.input[0]]
        for node in graph.node
        if node.op_type == "ConstantOfShape" and node.input[0] in shapes
    }
    roles = {name: (node.op_type, place) for node in graph.node for place, name in enumerate(node.input)}
    for name, shape in made.items():
        role, place = roles[name]
        if role == "BatchNormalization" and place in (1, 4):
            array = random.uniform(0.8, 1.2, shape)
        elif len(shape) > 1:
            array = random.standard_normal(shape, dtype=np.float32) * np.sqrt(2 / np.prod(shape[1:]))
        else:
            array = random.normal(size=shape) * 0.1
            if role in ("Unsqueeze", "Mul"):
                array += 1
        graph.initializer.append(numpy_helper.from_array(array.astype(np.float32), name))
    kept = [node for node in graph.node if node.output[0] not in made]
    # After it, one class would dominate, and hardly anything in the image would matter.
    if kept[-1].op_type == "Softmax":
        graph.output[0].name = kept.pop().input[0]
    del graph.node[:]
    graph.node.extend(kept)
    used = {name for node in kept for name in node.input}
    left = [entry for entry in graph.initializer if entry.name in used]
    del graph.initializer[:]
    graph.initializer.extend(left)
    weights = {entry.name for entry in left}
    ports = [port for port in graph.input if port.name in used - weights]
    del graph.input[:]
    graph.input.extend(ports)


def free_batch(model):
    """Makes a model that accepts one image accept any number of them, as exporters do."""
    graph = model.graph
    for port in [*graph.input, *graph.output]:
        port.type.tensor_type.shape.dim[0].dim_param = "n"
    shapes = {node.input[1] for node in graph.node if node.op_type == "Reshape"}
    for entry in graph.initializer:
        shape = numpy_helper.to_array(entry) if entry.name in shapes else None
        if shape is not None and shape[0] == 1:
            entry.CopyFrom(numpy_helper.from_array(np.array([-1, *shape[1:]]), entry.name))
    del graph.value_info[:]


def narrow(model):
    """The model for images that are not square, if it runs them."""
    other = onnx.ModelProto()
    other.CopyFrom(model)
    other.graph.input[0].type.tensor_type.shape.dim[3].dim_value = NARROW
    del other.graph.value_info[:]
    for port in other.graph.output:
        port.type.tensor_type.ClearField("shape")
    return other


def one(port):
    """The shape of one image."""
    return [1, *port.shape[1:]]


def session(path):
    return onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])


def save(model, path):
    """Saves the narrow form if ONNX Runtime can run it, and returns a session."""
    onnx.save(narrow(model), path)
    try:
        made = session(path)
        (port,) = made.get_inputs()
        (output, *_) = made.run(None, {port.name: np.zeros(one(port), np.float32)})
        if len(output) == 1:
            return made
    except Exception:  # A fully connected layer may reject the size.
        pass
    onnx.save(model, path)
    return session(path)


def fits(output, expected):
    return output.shape == expected.shape and np.abs(output - expected).max() <= TOLERANCE * np.abs(expected).max()


class Server:
    def __init__(self, program, library, folder):
        command = [program, "--model", f"m={folder}", "--http-port=0", "--management-port=0", "--log-format=json"]
        environment = {**os.environ, "ORT_DYLIB_PATH": library}
        self.process = subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, text=True)
        for line in self.process.stdout:
            entry = json.loads(line)
            if entry["message"] == "batches":
                # Otherwise requests for an image model would no longer be batched.
                assert entry["reason"].startswith("the graph keeps rows independent"), entry
            if entry["message"] == "serving":
                self.address = f"localhost:{entry['address'].rsplit(':', 1)[1]}"
                return
        raise SystemExit(f"the server ended with {self.process.wait()}")

    def __enter__(self):
        return self.address

    def __exit__(self, *_):
        self.process.kill()
        self.process.wait()


def answers(address, name, image, output):
    """The server's answer in each form."""
    http = tritonclient.http.InferenceServerClient(address, network_timeout=60)
    for form, binary in (("JSON", False), ("binary", True)):
        tensor = tritonclient.http.InferInput(name, list(image.shape), "FP32")
        tensor.set_data_from_numpy(image, binary_data=binary)
        wanted = tritonclient.http.InferRequestedOutput(output, binary_data=binary)
        yield form, http.infer("m", [tensor], outputs=[wanted]).as_numpy(output)
    grpc = tritonclient.grpc.InferenceServerClient(address)
    tensor = tritonclient.grpc.InferInput(name, list(image.shape), "FP32")
    tensor.set_data_from_numpy(image)
    yield "gRPC", grpc.infer("m", [tensor]).as_numpy(output)
    grpc.close()


def check(path, program, library):
    """Whether the inputs were not square."""
    model = onnx.load(path)
    random = np.random.default_rng(7)
    random_weights(model, random)
    free_batch(model)
    with tempfile.TemporaryDirectory() as folder:
        reference = save(model, Path(folder) / "model.onnx")
        del model
        (port,), output = reference.get_inputs(), reference.get_outputs()[0].name
        image = random.normal(size=one(port)).astype(np.float32)
        image[:, 0] += 1
        image[:, 2, :100, :50] *= 3

        def run(image):
            return reference.run([output], {port.name: np.ascontiguousarray(image)})[0]

        expected = run(image)
        assert np.isfinite(expected).all(), path.name
        for wrong in (image[:, ::-1], image[:, :, ::-1], np.zeros_like(image)):
            difference = np.abs(run(wrong) - expected).max() / np.abs(expected).max()
            assert difference > 3 * TOLERANCE, f"{path.name}: a wrong input makes a difference of only {difference}"
        with Server(program, library, folder) as address:
            for form, answer in answers(address, port.name, image, output):
                assert fits(answer, expected), f"{path.name}: {form}: {answer.ravel()[:3]} {expected.ravel()[:3]}"
        print(f"{path.name}: {image.shape}: JSON, binary and gRPC agree, and rows are independent", flush=True)
        return image.shape[2] != image.shape[3]


def main():
    program, library = sys.argv[1:]
    # Otherwise it would warn about each topology that accepts only square images.
    onnxruntime.set_default_logger_severity(4)
    paths = sorted((Path(onnx.__file__).parent / "backend/test/data/light").glob("light_*.onnx"))
    assert len(paths) == 9, paths
    oblong = [check(path, program, library) for path in paths]
    assert sum(oblong) >= 2, "all topologies were only tested with square images"


main()
