"""LitServe: one worker process per core; tensors are sent as a file in a form and returned as bytes."""

import sys

import litserve
import onnx_session
from fastapi import Response


class Tensors(litserve.LitAPI):
    def setup(self, device):
        self.session = onnx_session.load()

    def decode_request(self, request):
        return request["tensor"].file.read()

    def predict(self, content):
        return onnx_session.run_bytes(self.session, content)

    def encode_response(self, output):
        return Response(content=output, media_type="application/octet-stream")


if __name__ == "__main__":
    server = litserve.LitServer(Tensors(), accelerator="cpu", workers_per_device=onnx_session.CORES)
    server.run(host="127.0.0.1", port=int(sys.argv[1]), generate_client_file=False, log_level="warning")
