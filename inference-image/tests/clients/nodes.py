"""The onnx wheel's tests of single operators, through the real server: each gives the answer that the wheel expects.

    nodes.py SERVER LIBRARY    the server's program, and the ONNX Runtime library that it loads

The selection has each tensor type of the protocol as an input and as an output, and the operators that are there
for one kind of type only: strings, bits, booleans, quantised and half-precision numbers.
"""

import json
import os
import re
import subprocess
import sys
import tempfile
from pathlib import Path

import numpy as np
import onnx
import tritonclient.grpc
import tritonclient.http
from onnx import TensorProto, numpy_helper

NODES = Path(onnx.__file__).parent / "backend/test/data/node"
SELECTED = re.compile(
    "test_("
    "abs|add(_u?int\\d+)?|ai_onnx_ml_label_encoder_.*|(and|or|xor)[234]d|argmax_default_axis_example|bitshift_.*|bitwise_.*"
    "|cast_(?!.*(FLOAT8|INT4)).*|ceil|clip_default_int8_.*|concat_2d_axis_0|dequantizelinear(_u?int16)?|div_uint8"
    "|equal.*|gather_0|greater|identity|isnan(_float16)?|less|mul_uint8|(max|min)_(u?int\\d+|float\\d+)|mod_mixed_.*|mod_u?int\\d+"
    "|nonzero_example|not_[234]d|onehot_without_axis|pow_types_.*|quantizelinear(_u?int16)?|regex_.*|shape|size|string_.*"
    "|sub_uint8|topk|unique_sorted_without_axis|where_long_example"
    ")"
)
TYPES = {
    TensorProto.BOOL: "BOOL", TensorProto.STRING: "BYTES",
    TensorProto.UINT8: "UINT8", TensorProto.UINT16: "UINT16", TensorProto.UINT32: "UINT32", TensorProto.UINT64: "UINT64",
    TensorProto.INT8: "INT8", TensorProto.INT16: "INT16", TensorProto.INT32: "INT32", TensorProto.INT64: "INT64",
    TensorProto.FLOAT16: "FP16", TensorProto.BFLOAT16: "BF16", TensorProto.FLOAT: "FP32", TensorProto.DOUBLE: "FP64",
}  # fmt: skip
# Types without a JSON form.
HALF = ("FP16", "BF16")
# Operators that ONNX Runtime's CPU provider does not have for a type, so that no server can load the model; the
# type itself is covered by others.
NO_KERNEL = {
    "test_bitshift_left_uint16": "BitShift", "test_bitshift_right_uint16": "BitShift",
    "test_max_int16": "Max", "test_max_uint16": "Max", "test_min_int16": "Min", "test_min_uint16": "Min",
    "test_pow_types_float32_uint32": "Pow", "test_pow_types_float32_uint64": "Pow",
}  # fmt: skip
# The server does not accept tensors without elements.
EMPTY = ("test_regex_full_match_empty", "test_string_split_empty_tensor")
# ONNX Runtime writes numbers with a different number of digits than numpy.
DIGITS = ("test_cast_FLOAT_to_STRING",)


def tensors(folder, kind, ports):
    """Name, datatype and values of each input or output."""
    for index, port in enumerate(ports):
        tensor = onnx.load_tensor(folder / "test_data_set_0" / f"{kind}_{index}.pb")
        array, datatype = numpy_helper.to_array(tensor), port.type.tensor_type.elem_type
        # The wheel stores these as their bits.
        if datatype == TensorProto.BFLOAT16 and array.dtype == np.uint16:
            array = (array.astype(np.uint32) << 16).view(np.float32)
        if tensor.data_type == TensorProto.STRING:
            array = np.array([text.encode() if isinstance(text, str) else text for text in array.ravel()], object).reshape(array.shape)
        yield port.name, TYPES[datatype], array


class Case:
    def __init__(self, folder):
        self.name = folder.name
        graph = onnx.load(folder / "model.onnx").graph
        self.inputs = list(tensors(folder, "input", graph.input))
        self.outputs = list(tensors(folder, "output", graph.output))

    def has_json(self):
        every = self.inputs + self.outputs
        finite = all(array.dtype.kind != "f" or np.isfinite(array).all() for _, _, array in every)
        return finite and all(datatype not in HALF for _, datatype, _ in every)

    def check(self, form, answer):
        for name, datatype, expected in self.outputs:
            actual, what = answer.as_numpy(name), f"{self.name}: {form}: {name}"
            assert actual is not None and actual.shape == expected.shape, f"{what}: {actual} instead of {expected}"
            if self.name in DIGITS:
                np.testing.assert_allclose(actual.astype(float), expected.astype(float), rtol=1e-6, err_msg=what)
            elif datatype == "BYTES":
                actual = [text.encode() if isinstance(text, str) else text for text in actual.ravel()]
                assert actual == list(expected.ravel()), f"{what}: {actual} instead of {expected}"
            else:
                # When converting to BF16, ONNX Runtime rounds and the wheel truncates.
                tolerance = 2**-7 if datatype == "BF16" else 1e-3
                np.testing.assert_allclose(
                    actual.astype(expected.dtype), expected, rtol=tolerance, atol=1e-7, equal_nan=True, err_msg=what
                )


def served(program, library, folders):
    """Starts a server; returns it and its address, or else the name of a model that it does not load, and the reason."""
    models = [{"name": folder.name, "path": str(folder)} for folder in folders]
    environment = {**os.environ, "ORT_DYLIB_PATH": library, "MODELSERVICE_CONFIG": json.dumps({"models": models})}
    command = [program, "--http-port=0", "--management-port=0", "--log-format=json", "--termination-log=/dev/null"]
    process = subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, text=True)
    for line in process.stdout:
        entry = json.loads(line)
        if entry["message"] == "serving":
            return process, f"localhost:{entry['address'].rsplit(':', 1)[1]}"
    process.wait()
    name, problem = re.match('model "([^"]+)": (.*)', entry["message"], re.S).groups()
    return None, (name, problem)


def requests(client, case, **form):
    entries = []
    for name, datatype, array in case.inputs:
        entry = client.InferInput(name, list(array.shape), datatype)
        entry.set_data_from_numpy(array, **form)
        entries.append(entry)
    return entries


def ask(http, grpc, case):
    """Compares the answers in each form."""
    for form, binary in (("binary", True), ("JSON", False)):
        if binary or case.has_json():
            wanted = [tritonclient.http.InferRequestedOutput(name, binary_data=binary) for name, _, _ in case.outputs]
            tensors = requests(tritonclient.http, case, binary_data=binary)
            case.check(form, http.infer(case.name, tensors, outputs=wanted))
    case.check("gRPC", grpc.infer(case.name, requests(tritonclient.grpc, case)))


def main():
    program, library = sys.argv[1:]
    folders = [folder for folder in sorted(NODES.iterdir()) if SELECTED.fullmatch(folder.name) and folder.name not in EMPTY]
    # Every model that is not loaded must be in the list, and every model in the list must still not be loaded.
    for name, operator in NO_KERNEL.items():
        process, result = served(program, library, [NODES / name])
        assert not process and f"Could not find an implementation for {operator}" in result[1], (name, result)
        print(f"ONNX Runtime's CPU provider has no kernel: {name}: {operator}")
    cases = [Case(folder) for folder in folders if folder.name not in NO_KERNEL]
    process, result = served(program, library, [NODES / case.name for case in cases])
    assert process, f"a model is not loaded: {result}"
    try:
        http = tritonclient.http.InferenceServerClient(result, network_timeout=60)
        grpc = tritonclient.grpc.InferenceServerClient(result)
        for case in cases:
            ask(http, grpc, case)
        grpc.close()
    finally:
        process.kill()
        process.wait()
    for kind, ports in (("inputs", lambda case: case.inputs), ("outputs", lambda case: case.outputs)):
        missing = set(TYPES.values()) - {datatype for case in cases for _, datatype, _ in ports(case)}
        assert not missing, f"no model has {kind} of {missing}"
    print(f"left out: {', '.join(EMPTY)}: the server accepts no tensors without elements")
    print(f"{len(cases)} operators answer as the wheel expects, with every type as input and as output")


main()
