"""tritonclient's stream while connections have a maximum age of a second: every request that is read is answered.

    triton_stream.py ADDRESS CACHE
"""

import threading

import tritonclient.grpc as client
from common import ADDRESS, images, main, reference, same
from tritonclient.utils import InferenceServerException

IMAGE = images(count=1)
SCORES = reference("tiny", {"images": IMAGE})["scores"]
UNDER_WAY = 8


def tensor():
    entry = client.InferInput("images", list(IMAGE.shape), "FP32")
    entry.set_data_from_numpy(IMAGE)
    return entry


def run():
    """Keeps a stream busy until the server ends it."""
    triton = client.InferenceServerClient(ADDRESS)
    answers, errors, room = [], [], threading.Semaphore(UNDER_WAY)

    def note(result, error):
        (answers if error is None else errors).append(error or result)
        room.release()

    triton.start_stream(note)
    sent, image = 0, tensor()
    while not errors:
        assert room.acquire(timeout=60), f"nothing arrives after {len(answers)} answers"
        try:
            triton.async_stream_infer("tiny", [image], request_id=str(sent))
            sent += 1
        except InferenceServerException:
            # It has ended; the callback gets the reason.
            break
    triton.stop_stream()
    triton.close()
    assert [answer.get_response().id for answer in answers] == [str(number) for number in range(len(answers))]
    assert 0 < len(answers) <= sent <= len(answers) + UNDER_WAY, (sent, len(answers))
    same(answers[-1].as_numpy("scores"), SCORES, "the last answer")
    (error,) = errors
    assert error.status() == "StatusCode.UNAVAILABLE" and "open a new stream" in error.message(), error


def a_busy_stream_ends_with_its_connection_and_the_next_one_goes_on():
    for _ in range(2):
        run()


main(a_busy_stream_ends_with_its_connection_and_the_next_one_goes_on)
