"""KServe's Python SDK: its REST client with both versions of the protocol, its gRPC client with version 2."""

import asyncio
import base64

import httpx
from common import ADDRESS, images, main, np, reference, same, values
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


def predict():
    async def ask():
        async with InferenceRESTClient(RESTConfig(protocol="v1")) as session:
            url = f"http://{ADDRESS}"
            assert await session.is_server_live(url) and await session.is_model_ready(url, "tiny")
            image = BATCH.tolist()
            for request in (
                {"instances": image},
                {"instances": [{"images": one} for one in image]},
                {"inputs": image},
                {"inputs": {"images": image}},
            ):
                answer = await session.infer(url, request, model_name="tiny")
                same(np.array(answer["predictions"], np.float32), SCORES, f"predict by {list(request)[0]}")
            texts = values("BYTES").tolist()
            plain = [[text.decode() for text in row] for row in texts]
            encoded = [[{"b64": base64.b64encode(text).decode()} for text in row] for row in texts]
            for rows in (plain, encoded):
                for request in ({"instances": rows}, {"instances": [{"x": row} for row in rows]}, {"inputs": {"x": rows}}):
                    answer = await session.infer(url, request, model_name="identity-bytes")
                    assert answer == {"predictions": plain}, answer
            try:
                await session.infer(url, {"instances": [[{"b64": "!"}]]}, model_name="identity-bytes")
                raise AssertionError("broken base64 is accepted")
            except httpx.HTTPStatusError as error:
                assert error.response.status_code == 400 and "BASE64" in str(error), error

    asyncio.run(ask())


main(rest, grpc, predict)
