"""Puts the shared libraries and licences of wheels into a folder: onnxruntime.py FOLDER WHEEL..."""

import pathlib
import re
import sys
import zipfile

# ONNX Runtime's own folder; those of plug-in libraries and of what they bring along; NVIDIA's.
LIBRARIES = re.compile(r"(onnxruntime/capi|\w+/lib|\w+\.libs|nvidia/.+/lib)/(lib[\w.+-]+\.so[\d.]*)$")
LICENCES = re.compile(r"(^|/)(LICENSE|License|ThirdPartyNotices)[\w.-]*$")


def libraries(wheel):
    """Name in the image by name in the wheel. Of files that differ only in the version, the loader wants the one with
    the shortest version; the one without a version is for compilers."""
    found = {}
    for name in wheel.namelist():
        match = LIBRARIES.search(name)
        if not match:
            continue
        stem, _, version = match[2].partition(".so")
        found.setdefault(stem, []).append((version == "", len(version), name))
    for stem, names in found.items():
        name = min(names)[2]
        file = "libonnxruntime.so" if stem == "libonnxruntime" else name.rsplit("/", 1)[1]
        yield name, file


def main(folder, wheels):
    (folder / "licenses").mkdir(parents=True)
    for path in wheels:
        wheel = zipfile.ZipFile(path)
        for name, file in libraries(wheel):
            (folder / file).write_bytes(wheel.read(name))
        package = path.name.split("-")[0]
        for name in filter(LICENCES.search, wheel.namelist()):
            (folder / "licenses" / f"{package}-{name.rsplit('/', 1)[1]}").write_bytes(wheel.read(name))


main(pathlib.Path(sys.argv[1]), [pathlib.Path(wheel) for wheel in sys.argv[2:]])
