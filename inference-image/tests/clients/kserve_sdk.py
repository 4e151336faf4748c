"""KServe's Python SDK: its REST and gRPC clients with protocol version 2."""

import asyncio

from common import ADDRESS, images, main, reference, same
from kserve import InferenceGRPCClient, InferenceRESTClient, InferInput, InferRequest, RESTConfig

BATCH = images(count=2)
SCORES = reference("tiny", {"images": BATCH})["scores"]


def request(binary):
    entry = InferInput("images", list(BATCH.shape), "FP32")
    entry.set_data_from_numpy(BATCH, binary_data=binary)
    return InferRequest("tiny", [entry], request_id="seven", parameters={"binary_data_output": binary})


def rest():
    async def ask():
        async with InferenceRESTClient(RESTConfig(protocol="v2")) as session:
            url = f"http://{ADDRESS}"
            assert await session.is_server_live(url) and await session.is_server_ready(url)
            assert await session.is_model_ready(url, "tiny")
            for binary in (True, False):
                answer = await session.infer(url, request(binary), model_name="tiny")
                assert answer.id == "seven", answer
                same(answer.outputs[0].as_numpy(), SCORES, f"REST, binary {binary}")

    asyncio.run(ask())


def grpc():
    async def ask():
        async with InferenceGRPCClient(ADDRESS) as session:
            assert await session.is_server_live() and await session.is_server_ready()
            assert await session.is_model_ready("tiny")
            for binary in (True, False):
                answer = await session.infer(request(binary))
                same(answer.outputs[0].as_numpy(), SCORES, f"gRPC, raw {binary}")

    asyncio.run(ask())


main(rest, grpc)
