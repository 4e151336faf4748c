"""Downloads a model with the Hub's own library, and prints its commit and its files with their digests.

library.py REPOSITORY REVISION FOLDER
"""

import hashlib
import pathlib
import sys

from huggingface_hub import HfApi, snapshot_download

repository, revision, target = sys.argv[1:]
folder = pathlib.Path(snapshot_download(repository, revision=revision, local_dir=target))
print(HfApi().model_info(repository, revision=revision).sha)
for path in sorted(folder.rglob("*"), key=lambda path: path.relative_to(folder).as_posix()):
    name = path.relative_to(folder).as_posix()
    # The library keeps notes of its own.
    if path.is_file() and not name.startswith(".cache/"):
        print(name, hashlib.sha256(path.read_bytes()).hexdigest())
