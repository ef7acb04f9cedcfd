"""The notebooks: without outputs, and each runs from top to bottom."""

from pathlib import Path
from typing import Any

import nbformat
import pytest
from nbclient import NotebookClient
from nbformat.v4 import new_code_cell

from model.ops import library

ROOT = Path(__file__).resolve().parents[1]
USED = ("model", "train", "serve", "data", "conf", "build")
NOTEBOOKS = sorted((ROOT / "notebooks").glob("*.ipynb"))
# What is smaller here than in the cell that is tagged `parameters`.
SMALLER: dict[str, dict[str, Any]] = {
    "call": {},
    "evaluation": {
        "settings": "suite.dialogues=3 suite.heard_lines=0 suite.suites=[single,pause,barge_in]"
        " ~suite.rows.new ~suite.rows.new_engine",
    },
    "fine_tuning": {
        "settings": "optim.steps=2 optim.learning_rate=1e-4 optim.warmup_steps=1 strategy=single"
        " data.config.steps_per_epoch=2 data.config.batch_size=1 data.config.text_batch_size=1"
        " data.config.validation_text_batches=1 callbacks.samples=null",
    },
    "load": {
        "settings": "parts.frame.batches=[1] parts.frame.frames=3 parts.ramp.callers=[1,2]"
        " parts.ramp.seconds=1",
    },
}
PICTURES = {"call": 2, "evaluation": 4, "fine_tuning": 3, "load": 1 + (library() is not None)}
SAID = {
    "call": ("send_message", "of 17 words wrong"),
    "evaluation": ("call_complete_ms_seen", "suite.dialogues=3"),
    "fine_tuning": ("validation/user_text_accuracy", "send_message"),
    "load": ("frame: load", "sessions_max", "frame_latency_ms_p99_2"),
}


def ids(path: Path) -> str:
    return path.stem


@pytest.fixture
def checkout(tmp_path: Path) -> Path:
    """The packages and kernels as they are, and notebooks whose files go elsewhere."""
    for name in USED:
        (tmp_path / name).symlink_to(ROOT / name)
    (tmp_path / "notebooks").mkdir()
    return tmp_path


def test_every_notebook_is_tested() -> None:
    assert [path.stem for path in NOTEBOOKS] == [*SMALLER]


@pytest.mark.parametrize("path", NOTEBOOKS, ids=ids)
def test_a_notebook_holds_no_outputs(path: Path) -> None:
    notebook = nbformat.read(path, as_version=4)
    nbformat.validate(notebook)
    for cell in notebook.cells:
        assert not cell.get("outputs"), cell.id
        assert cell.get("execution_count") is None, cell.id


@pytest.mark.parametrize("path", NOTEBOOKS, ids=ids)
def test_a_notebook_runs(path: Path, checkout: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    notebook = nbformat.read(path, as_version=4)
    tagged = [cell for cell in notebook.cells if "parameters" in cell.metadata.get("tags", ())]
    assert len(tagged) == 1
    values = (f"{name} = {value!r}" for name, value in SMALLER[path.stem].items())
    notebook.cells.insert(notebook.cells.index(tagged[0]) + 1, new_code_cell("\n".join(values)))
    monkeypatch.setenv("PYTHONPATH", str(checkout))
    place = {"metadata": {"path": str(checkout / "notebooks")}}
    NotebookClient(notebook, timeout=300, kernel_name="python3", resources=place).execute()
    outputs = [one for cell in notebook.cells for one in cell.get("outputs", ())]
    shown = [one for one in outputs if "image/png" in one.get("data", {})]
    assert len(shown) == PICTURES[path.stem]
    said = "".join(
        one.get("text", "") or one.get("data", {}).get("text/plain", "") for one in outputs
    )
    for what in SAID[path.stem]:
        assert what in said
