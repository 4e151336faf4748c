"""BentoML: one worker process per core; tensors are sent as a file in a form and returned as a file."""

import tempfile
from pathlib import Path

import bentoml
import onnx_session


@bentoml.service(workers=onnx_session.CORES, traffic={"timeout": 60})
class Tensors:
    def __init__(self) -> None:
        self.session = onnx_session.load()

    @bentoml.api(route="/predict")
    def predict(self, tensor: Path, context: bentoml.Context) -> Path:
        answer = Path(context.temp_dir) / next(tempfile._get_candidate_names())
        answer.write_bytes(onnx_session.run_bytes(self.session, tensor.read_bytes()))
        return answer
