"""tritonclient over HTTP: metadata, inference in every form, and requests that the server refuses."""

import asyncio

import tritonclient.http as client
import tritonclient.http.aio as aio
from common import ADDRESS, NUMBERS, images, main, np, reference, same, values
from tritonclient.utils import InferenceServerException

triton = client.InferenceServerClient(ADDRESS, concurrency=4, connection_timeout=30, network_timeout=30)
PAIR = {name: np.array([[1, 2, 3], [-4, 5.5, 0]], np.float32) * scale for name, scale in (("a", 1), ("b", -3))}


def tensor(name, array, datatype, binary=True):
    entry = client.InferInput(name, list(array.shape), datatype)
    entry.set_data_from_numpy(array, binary_data=binary)
    return entry


def pair(binary=True):
    return [tensor(name, array, "FP32", binary) for name, array in PAIR.items()]


def the_server_and_its_models_describe_themselves():
    assert triton.is_server_live() and triton.is_server_ready() and triton.is_model_ready("arithmetic")
    assert "binary_tensor_data" in triton.get_server_metadata()["extensions"]
    metadata = triton.get_model_metadata("arithmetic")
    assert metadata["inputs"][1] == {"name": "b", "datatype": "FP32", "shape": [-1, 3]}, metadata
    assert triton.get_model_config("arithmetic")["input"][0]["data_type"] == "TYPE_FP32"
    index = {entry["name"]: entry["state"] for entry in triton.get_model_repository_index()}
    assert index["arithmetic"] == "READY", index


def every_type_goes_in_and_out_as_binary_and_as_json():
    for datatype in ["BOOL", "BYTES", *NUMBERS]:
        for binary in (True, False):
            if datatype == "FP16" and not binary:
                continue
            array = values(datatype)
            model = f"identity-{datatype.lower()}"
            wanted = [client.InferRequestedOutput("y", binary_data=binary)]
            answer = triton.infer(model, [tensor("x", array, datatype, binary)], outputs=wanted)
            expected = reference(model, {"x": array})["y"]
            actual = answer.as_numpy("y")
            if datatype == "BYTES" and not binary:
                actual = np.vectorize(str.encode, otypes=[object])(actual)
            same(actual.astype(array.dtype), expected, model)


def bf16_goes_in_and_out_as_binary():
    array = np.array([[1.5, -2.0, 0.0], [3.0, 256.0, -0.125]], np.float32)
    answer = triton.infer("identity-bf16", [tensor("x", array, "BF16")])
    same(answer.as_numpy("y"), array, "identity-bf16")


def outputs_ids_compression_and_scheduling_parameters():
    expected = reference("arithmetic", PAIR)
    for algorithm in (None, "gzip", "deflate"):
        answer = triton.infer(
            "arithmetic", pair(), outputs=[client.InferRequestedOutput("product")], request_id="seven",
            priority=1, timeout=20_000_000,
            request_compression_algorithm=algorithm, response_compression_algorithm=algorithm,
        )  # fmt: skip
        assert answer.get_response()["id"] == "seven"
        assert [output["name"] for output in answer.get_response()["outputs"]] == ["product"]
        same(answer.as_numpy("product"), expected["product"], f"product, {algorithm}")
    both = triton.infer("arithmetic", pair(binary=False))
    for name, array in expected.items():
        same(both.as_numpy(name), array, name)


def classification_gives_the_best_classes_with_labels():
    batch = images()
    scores = reference("tiny", {"images": batch})["scores"][0]
    wanted = [client.InferRequestedOutput("scores", class_count=3)]
    classes = triton.infer("tiny", [tensor("images", batch, "FP32")], outputs=wanted).as_numpy("scores").ravel()
    for entry, best in zip(classes, np.argsort(-scores)[:3], strict=True):
        score, index, label = entry.decode().split(":")
        assert (int(index), label) == (best, f"tiny-{best}"), classes
        assert abs(float(score) - scores[best]) < 1e-3, classes


def a_batch_is_what_onnx_runtime_makes_of_it():
    batch = images(count=3)
    answer = triton.infer("tiny", [tensor("images", batch, "FP32")])
    same(answer.as_numpy("scores"), reference("tiny", {"images": batch})["scores"], "tiny")


def requests_in_parallel_keep_their_answers():
    feeds = [{name: array + offset for name, array in PAIR.items()} for offset in range(16)]
    waiting = [
        triton.async_infer("arithmetic", [tensor(name, array, "FP32") for name, array in feed.items()])
        for feed in feeds
    ]
    for feed, answer in zip(feeds, waiting):
        same(answer.get_result().as_numpy("product"), reference("arithmetic", feed)["product"], "parallel")


def asyncio_client():
    async def ask():
        async with aio.InferenceServerClient(ADDRESS) as session:
            assert await session.is_server_ready()
            answer = await session.infer("arithmetic", pair())
            same(answer.as_numpy("difference"), reference("arithmetic", PAIR)["difference"], "asyncio")

    asyncio.run(ask())


def statistics_count_what_was_run():
    def count():
        (model,) = triton.get_inference_statistics("arithmetic")["model_stats"]
        return int(model["inference_stats"]["success"]["count"]), int(model["inference_count"])

    before = count()
    triton.infer("arithmetic", pair())
    after = count()
    assert after[0] == before[0] + 1 and after[1] > before[1], (before, after)


def refusals_are_the_clients_exceptions():
    for model, inputs, message in (("nothing", pair(), "unknown model"), ("arithmetic", pair()[:1], "missing")):
        try:
            triton.infer(model, inputs)
        except InferenceServerException as error:
            assert message in str(error), error
        else:
            raise AssertionError(f"{model}: not refused")


main(
    the_server_and_its_models_describe_themselves,
    every_type_goes_in_and_out_as_binary_and_as_json,
    bf16_goes_in_and_out_as_binary,
    outputs_ids_compression_and_scheduling_parameters,
    classification_gives_the_best_classes_with_labels,
    a_batch_is_what_onnx_runtime_makes_of_it,
    requests_in_parallel_keep_their_answers,
    asyncio_client,
    statistics_count_what_was_run,
    refusals_are_the_clients_exceptions,
)
