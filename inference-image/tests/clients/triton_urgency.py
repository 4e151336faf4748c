"""tritonclient's `timeout` and `priority`, over HTTP and gRPC, while a server of one core has a queue.

    triton_urgency.py ADDRESS CACHE MANAGEMENT    also the address of the management port

The model takes some time for a request; only the order of what happens is compared.
"""

import json
import sys
import threading
import time
import urllib.request

import tritonclient.grpc
import tritonclient.http
from common import ADDRESS, main, np
from tritonclient.utils import InferenceServerException

WAITING = 12
ROWS = np.ones((128, 4096), np.float32)


def queued():
    with urllib.request.urlopen(f"http://{sys.argv[3]}/load", timeout=60) as answer:
        return json.load(answer)["models"][0]["queued"]


def infer(client, **wishes):
    """One request over its own connection: threads cannot share clients."""
    connection = client.InferenceServerClient(ADDRESS, **({"network_timeout": 120} if client is tritonclient.http else {}))
    rows = client.InferInput("x", list(ROWS.shape), "FP32")
    rows.set_data_from_numpy(ROWS)
    try:
        return connection.infer("slow", [rows], **wishes)
    finally:
        connection.close()


class Queue:
    """Waiting requests, and the order in which they are answered."""

    def __init__(self, client):
        self.answered, self.threads, self.client = [], [], client
        deadline = time.monotonic() + 60
        while (waiting := queued()) < WAITING:
            assert time.monotonic() < deadline, f"{waiting} wait, {self.answered} are answered"
            if len(self.threads) - len(self.answered) < WAITING + 2:
                self.add(len(self.threads))

    def add(self, name, **wishes):
        def ask():
            infer(self.client, **wishes)
            self.answered.append(name)

        self.threads.append(threading.Thread(target=ask))
        self.threads[-1].start()

    def finish(self):
        for thread in self.threads:
            thread.join()
        assert len(self.answered) == len(self.threads), "a request failed"
        return self.answered


def timeouts(client):
    infer(client)
    queue = Queue(client)
    try:
        # 1 ms: less than a single run takes, let alone the waiting ones.
        infer(client, timeout=1000)
        raise AssertionError("it was answered despite its timeout")
    except InferenceServerException as error:
        assert error.status() in ("503", "504", "StatusCode.UNAVAILABLE", "StatusCode.DEADLINE_EXCEEDED"), error
        assert "deadline" in error.message(), error
    infer(client, timeout=120_000_000)
    queue.finish()


def overtaken(client, priority):
    """How many of the waiting requests are answered after one that arrives later."""
    queue = Queue(client)
    queue.add("late", priority=priority)
    answered = queue.finish()
    return len(answered) - 1 - answered.index("late")


def priorities(client):
    # Answers that arrive shortly after each other may be recorded in the wrong order.
    assert overtaken(client, 2) <= WAITING // 4
    # If the client is delayed, the queue may be empty when the request arrives.
    found = [overtaken(client, 1)]
    while found[-1] <= WAITING // 2 and len(found) < 3:
        found.append(overtaken(client, 1))
    assert found[-1] > WAITING // 2, f"priority 1 overtakes only {found} of {WAITING}"


def a_timeout_that_cannot_be_kept_is_told_over_http():
    timeouts(tritonclient.http)


def a_timeout_that_cannot_be_kept_is_told_over_grpc():
    timeouts(tritonclient.grpc)


def priority_1_overtakes_over_http():
    priorities(tritonclient.http)


def priority_1_overtakes_over_grpc():
    priorities(tritonclient.grpc)


main(
    a_timeout_that_cannot_be_kept_is_told_over_http,
    a_timeout_that_cannot_be_kept_is_told_over_grpc,
    priority_1_overtakes_over_http,
    priority_1_overtakes_over_grpc,
)
