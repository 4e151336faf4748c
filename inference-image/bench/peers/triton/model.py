"""Triton's Python backend: the server's wheel contains no other."""

import onnx_session
import triton_python_backend_utils as triton


class TritonPythonModel:
    def initialize(self, arguments):
        self.session = onnx_session.load()

    def execute(self, requests):
        answers = []
        for request in requests:
            tensor = triton.get_input_tensor_by_name(request, "images").as_numpy()
            output = onnx_session.run(self.session, tensor)
            answers.append(triton.InferenceResponse([triton.Tensor("scores", output)]))
        return answers
