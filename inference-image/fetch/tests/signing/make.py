"""Writes signed.json: the signatures and public keys that tests/signatures.rs verifies. Run it after `prepare`:

    .cache/venv-signing/bin/python inference-image/fetch/tests/signing/make.py

All are made by model_signing: most by its command, the odd ones by its library with one thing changed. The private keys
are new each time and are not kept.
"""

import json
import pathlib
import shutil
import subprocess
import sys
import tempfile

from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa
from model_signing import hashing, signing
from model_signing._signing import sign_ec_key, sign_sigstore_pb
from model_signing._signing import signing as payloads

HERE = pathlib.Path(__file__).parent
PROGRAM = pathlib.Path(sys.executable).parent / "model_signing"
KEYS = {
    "signer": lambda: ec.generate_private_key(ec.SECP256R1()),
    "other": lambda: ec.generate_private_key(ec.SECP256R1()),
    "p384": lambda: ec.generate_private_key(ec.SECP384R1()),
    "p521": lambda: ec.generate_private_key(ec.SECP521R1()),
    "ed25519": ed25519.Ed25519PrivateKey.generate,
    "rsa": lambda: rsa.generate_private_key(65537, 2048),
}


def make_keys(folder):
    """Private keys as files; returns the public ones as PEM."""
    public = {}
    for name, generate in KEYS.items():
        key = generate()
        pem, pkcs8 = serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8
        (folder / name).write_bytes(key.private_bytes(pem, pkcs8, serialization.NoEncryption()))
        spki = serialization.PublicFormat.SubjectPublicKeyInfo
        public[name] = key.public_key().public_bytes(pem, spki).decode()
    return public


class Signer:
    def __init__(self, folder):
        self.folder = folder
        self.bundles = {}

    def by_command(self, bundle, model, *options, key="signer"):
        """As a user does it."""
        signature = self.folder / "model.sig"
        command = [PROGRAM, "sign", "key", model, "--private_key", self.folder / key, "--signature", signature]
        subprocess.run([*command, *options], check=True)
        self.bundles[bundle] = json.loads(signature.read_text())

    def by_library(self, bundle, model, hashing_config):
        signature = self.folder / "model.sig"
        config = signing.Config().use_elliptic_key_signer(private_key=self.folder / "signer")
        config.set_hashing_config(hashing_config).sign(model, signature)
        self.bundles[bundle] = json.loads(signature.read_text())

    def statement(self, bundle, model, change):
        """Signs a statement in which one thing is different."""
        payload = payloads.Payload(hashing.Config().hash(model))
        change(payload.statement.pb)
        signed = sign_ec_key.Signer(self.folder / "signer").sign(payload)
        self.bundles[bundle] = json.loads(signed.bundle.to_json())


def resource(index, field, value):
    def change(pb):
        pb.predicate["resources"][index].update({field: value})

    return change


def main():
    with tempfile.TemporaryDirectory() as name:
        folder = pathlib.Path(name)
        keys = make_keys(folder)
        photos = folder / "photos"
        shutil.copytree(HERE / "photos", photos)
        letters = folder / "letters"
        shutil.copytree(photos, letters)
        (letters / "model.onnx").write_text("another model\n")

        signer = Signer(folder)
        signer.by_command("photos", photos)
        signer.by_command("letters", letters)
        signer.by_command("p384", photos, key="p384")
        signer.by_command("p521", photos, key="p521")
        signer.by_command("one file", photos / "model.onnx")
        signer.by_command("git is covered", photos, "--no-ignore-git-paths")
        signer.by_command("without model.onnx", photos, "--ignore-paths", photos / "model.onnx")
        signer.by_command("without weights", photos, "--ignore-paths", photos / "weights")

        config = hashing.Config()
        signer.by_library("blake3", photos, config.use_file_serialization(hashing_algorithm="blake3"))
        signer.by_library("shards", photos, config.use_shard_serialization())

        def set_type(pb):
            pb.type = "https://in-toto.io/Statement/v0.1"

        def set_predicate(pb):
            pb.predicate_type = "https://example.com/approval/v1"

        def set_old_predicate(pb):
            pb.predicate_type = payloads._PREDICATE_TYPE_COMPAT

        def add_subject(pb):
            pb.subject.add().CopyFrom(pb.subject[0])

        def drop_resource(pb):
            del pb.predicate["resources"][0]

        def repeat_resource(pb):
            resources = pb.predicate["resources"]
            resources.append(resources[0])

        signer.statement("statement of another version", photos, set_type)
        signer.statement("unknown predicate", photos, set_predicate)
        signer.statement("predicate before 1.0", photos, set_old_predicate)
        signer.statement("two subjects", photos, add_subject)
        signer.statement("list that is not its digest's", photos, drop_resource)
        signer.statement("list with a file twice", photos, repeat_resource)
        signer.statement("path above", photos, resource(0, "name", "../model.onnx"))
        signer.statement("absolute path", photos, resource(0, "name", "/etc/passwd"))
        signer.statement("older signature", photos, resource(0, "name", "model.sig"))
        signer.statement("mixed digests", photos, resource(0, "algorithm", "blake3"))
        signer.statement("digest of another length", photos, resource(0, "digest", "00"))

        kind = "application/vnd.example+json"
        payloads._IN_TOTO_JSON_PAYLOAD_TYPE, usual = kind, payloads._IN_TOTO_JSON_PAYLOAD_TYPE
        assert sign_sigstore_pb.signing is payloads
        signer.statement("payload of another kind", photos, lambda pb: None)
        payloads._IN_TOTO_JSON_PAYLOAD_TYPE = usual

    text = json.dumps({"keys": keys, "bundles": signer.bundles}, indent=1)
    (HERE / "signed.json").write_text(text + "\n")


main()
