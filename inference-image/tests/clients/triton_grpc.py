"""tritonclient over gRPC: metadata, inference alone and in a stream, and requests that the server refuses."""

import asyncio
import queue

import tritonclient.grpc as client
import tritonclient.grpc.aio as aio
from common import ADDRESS, NUMBERS, images, main, np, reference, same, values
from tritonclient.utils import InferenceServerException

triton = client.InferenceServerClient(ADDRESS)
PAIR = {name: np.array([[1, 2, 3], [-4, 5.5, 0]], np.float32) * scale for name, scale in (("a", 1), ("b", -3))}


def tensor(name, array, datatype):
    entry = client.InferInput(name, list(array.shape), datatype)
    entry.set_data_from_numpy(array)
    return entry


def pair(offset=0):
    return [tensor(name, array + np.float32(offset), "FP32") for name, array in PAIR.items()]


def product(offset=0):
    return reference("arithmetic", {name: array + np.float32(offset) for name, array in PAIR.items()})["product"]


def the_server_and_its_models_describe_themselves():
    assert triton.is_server_live() and triton.is_server_ready() and triton.is_model_ready("arithmetic")
    assert "statistics" in triton.get_server_metadata().extensions
    metadata = triton.get_model_metadata("arithmetic", as_json=True)
    assert metadata["inputs"][1] == {"name": "b", "datatype": "FP32", "shape": ["-1", "3"]}, metadata
    config = triton.get_model_config("arithmetic", as_json=True)["config"]
    assert config["input"][0]["data_type"] == "TYPE_FP32", config
    index = {entry.name: entry.state for entry in triton.get_model_repository_index().models}
    assert index["arithmetic"] == "READY", index


def every_type_goes_in_and_out():
    for datatype in ["BOOL", "BYTES", *NUMBERS]:
        array = values(datatype)
        model = f"identity-{datatype.lower()}"
        answer = triton.infer(model, [tensor("x", array, datatype)])
        same(answer.as_numpy("y"), reference(model, {"x": array})["y"], model)
    array = np.array([[1.5, -2.0, 0.0], [3.0, 256.0, -0.125]], np.float32)
    same(triton.infer("identity-bf16", [tensor("x", array, "BF16")]).as_numpy("y"), array, "identity-bf16")


def outputs_ids_compression_and_scheduling_parameters():
    for algorithm in (None, "gzip", "deflate"):
        answer = triton.infer(
            "arithmetic", pair(), outputs=[client.InferRequestedOutput("product")], request_id="seven",
            priority=1, timeout=20_000_000, client_timeout=20, compression_algorithm=algorithm,
        )  # fmt: skip
        assert answer.get_response().id == "seven"
        assert [output.name for output in answer.get_response().outputs] == ["product"]
        same(answer.as_numpy("product"), product(), f"product, {algorithm}")


def classification_gives_the_best_classes_with_labels():
    batch = images()
    scores = reference("tiny", {"images": batch})["scores"][0]
    wanted = [client.InferRequestedOutput("scores", class_count=2)]
    classes = triton.infer("tiny", [tensor("images", batch, "FP32")], outputs=wanted).as_numpy("scores").ravel()
    for entry, best in zip(classes, np.argsort(-scores)[:2], strict=True):
        assert entry.decode().split(":")[1:] == [str(best), f"tiny-{best}"], classes


def a_body_beyond_four_megabytes_is_answered():
    batch = images(size=224, count=7)
    answer = triton.infer("efficientnet-lite0", [tensor("images", batch, "FP32")])
    expected = reference("efficientnet-lite0", {"images": batch})["probabilities"]
    same(answer.as_numpy("probabilities"), expected, "efficientnet-lite0")


def a_stream_answers_each_request_and_goes_on_after_an_error():
    answers = queue.Queue()
    triton.start_stream(callback=lambda result, error: answers.put((result, error)))
    for offset in range(5):
        triton.async_stream_infer("arithmetic", pair(offset), request_id=str(offset))
    triton.async_stream_infer("nothing", pair())
    triton.async_stream_infer("arithmetic", pair(5), request_id="5")
    got, errors = {}, 0
    for _ in range(7):
        result, error = answers.get(timeout=30)
        if error is None:
            got[int(result.get_response().id)] = result.as_numpy("product")
        else:
            errors += 1
    triton.stop_stream()
    assert errors == 1 and sorted(got) == list(range(6)), (errors, got)
    for offset, array in got.items():
        same(array, product(offset), f"stream, {offset}")


def requests_in_parallel_keep_their_answers():
    answers = queue.Queue()
    for offset in range(16):
        call = lambda result, error, offset=offset: answers.put((offset, result, error))  # noqa: E731
        triton.async_infer("arithmetic", pair(offset), callback=call)
    for _ in range(16):
        offset, result, error = answers.get(timeout=30)
        assert error is None, error
        same(result.as_numpy("product"), product(offset), f"parallel, {offset}")


def asyncio_client():
    async def requests():
        for offset in range(3):
            yield {"model_name": "arithmetic", "inputs": pair(offset), "request_id": str(offset)}

    async def ask():
        async with aio.InferenceServerClient(ADDRESS) as session:
            assert await session.is_server_ready()
            answer = await session.infer("arithmetic", pair())
            same(answer.as_numpy("product"), product(), "asyncio")
            count = 0
            async for result, error in session.stream_infer(requests()):
                assert error is None, error
                same(result.as_numpy("product"), product(int(result.get_response().id)), "asyncio stream")
                count += 1
            assert count == 3, count

    asyncio.run(ask())


def statistics_count_what_was_run():
    def count():
        (model,) = triton.get_inference_statistics("arithmetic").model_stats
        return model.inference_stats.success.count

    before = count()
    triton.infer("arithmetic", pair())
    assert count() == before + 1


def refusals_are_the_clients_exceptions():
    cases = [("nothing", pair(), "NOT_FOUND"), ("arithmetic", pair()[:1], "INVALID_ARGUMENT")]
    for model, inputs, status in cases:
        try:
            triton.infer(model, inputs)
        except InferenceServerException as error:
            assert status in str(error.status()), error
        else:
            raise AssertionError(f"{model}: not refused")


main(
    the_server_and_its_models_describe_themselves,
    every_type_goes_in_and_out,
    outputs_ids_compression_and_scheduling_parameters,
    classification_gives_the_best_classes_with_labels,
    a_body_beyond_four_megabytes_is_answered,
    a_stream_answers_each_request_and_goes_on_after_an_error,
    requests_in_parallel_keep_their_answers,
    asyncio_client,
    statistics_count_what_was_run,
    refusals_are_the_clients_exceptions,
)
