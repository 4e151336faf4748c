"""MLServer: one worker process per core, over its gRPC with raw contents (its REST has no binary tensors)."""

import onnx_session
from mlserver import MLModel
from mlserver.codecs import NumpyCodec
from mlserver.types import InferenceRequest, InferenceResponse


class Tensors(MLModel):
    async def load(self) -> bool:
        self.session = onnx_session.load()
        return True

    async def predict(self, payload: InferenceRequest) -> InferenceResponse:
        tensor = NumpyCodec.decode_input(payload.inputs[0])
        output = NumpyCodec.encode_output("scores", onnx_session.run(self.session, tensor))
        return InferenceResponse(model_name=self.name, outputs=[output])
