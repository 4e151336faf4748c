"""curl, as the docs show it: a JSON inference over HTTP/1.1 and HTTP/2, compression, and an image."""

import gzip
import json
import subprocess

from common import ADDRESS, CACHE, images, main, np, reference, same

BATCH = images()
BODY = json.dumps(
    {"inputs": [{"name": "images", "datatype": "FP32", "shape": BATCH.shape, "data": BATCH.ravel().tolist()}]}
).encode()


def curl(path, *arguments, body=b""):
    command = ["curl", "--silent", "--show-error", "--fail-with-body", "--max-time", "30", *arguments]
    done = subprocess.run([*command, f"http://{ADDRESS}{path}"], input=body, capture_output=True, check=False)
    assert done.returncode == 0, (done.stdout, done.stderr)
    return json.loads(done.stdout)


def check(answer):
    (output,) = answer["outputs"]
    scores = np.array(output["data"], np.float32).reshape(output["shape"])
    same(scores, reference("tiny", {"images": BATCH})["scores"], "curl")


def json_over_each_version_of_http():
    for version in ("--http1.1", "--http2-prior-knowledge", "--http2"):
        check(curl("/v2/models/tiny/infer", version, "--data-binary", "@-", body=BODY))


def compressed_in_both_directions():
    packed = ("--compressed", "--header", "content-encoding: gzip")
    check(curl("/v2/models/tiny/infer", *packed, "--data-binary", "@-", body=gzip.compress(BODY)))


def images_as_body_and_as_form():
    photo = CACHE / "examples/photos/cat.jpg"
    one = curl("/v1/models/efficientnet-lite0:classify", "--data-binary", f"@{photo}")["predictions"]
    form = curl("/v1/models/efficientnet-lite0:classify", "--form", f"file=@{photo}")["results"][0]["predictions"]
    # ImageNet's classes 281 to 285 are cats.
    assert one == form and 281 <= one[0]["class"] <= 285, (one, form)


main(json_over_each_version_of_http, compressed_in_both_directions, images_as_body_and_as_form)
