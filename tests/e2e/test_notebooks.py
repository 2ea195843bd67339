"""The notebooks of the documents run from top to bottom, on the tiny data; only the cell of parameters is another."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from tests.e2e.conftest import Tiny
from tests.e2e.test_photos import RECIPE, SMALL, pictures, sentences

nbformat = pytest.importorskip("nbformat")
nbclient = pytest.importorskip("nbclient")
pytest.importorskip("ipykernel")

NOTEBOOKS = Path(__file__).parents[2] / "docs" / "notebooks"


def executed(name: str, folder: Path, **parameters: Any) -> Any:
    notebook = nbformat.read(NOTEBOOKS / f"{name}.ipynb", as_version=4)
    (cell,) = (cell for cell in notebook.cells if "parameters" in cell.metadata.get("tags", ()))
    given = {line.split(" = ")[0] for line in cell.source.splitlines() if " = " in line}
    assert given == set(parameters), "the test knows every parameter"
    cell.source = "\n".join(f"{key} = {value!r}" for key, value in parameters.items())
    client = nbclient.NotebookClient(notebook, timeout=120, resources={"metadata": {"path": str(folder)}})
    return client.execute()


def outputs(notebook: Any, mime: str) -> list[str]:
    found = [output for cell in notebook.cells if cell.cell_type == "code" for output in cell.outputs]
    return [output["data"][mime] for output in found if mime in output.get("data", ())]


@pytest.fixture(autouse=True)
def home(tiny: Tiny, monkeypatch: pytest.MonkeyPatch) -> None:
    for key, value in {"HOME": tiny.home, "DEVICE": "cpu", "NUM_THREADS": 1}.items():
        monkeypatch.setenv(f"GENRET_{key}", str(value))
    monkeypatch.setenv("PYTHONWARNINGS", "ignore")


def test_own_pictures(tiny: Tiny, tmp_path: Path) -> None:
    options = SMALL | {
        "dataset.root": pictures(tmp_path / "mine", 8),
        "texts": f"{{type: sentences, file: {sentences(tmp_path)}}}",
        "encoder": "{type: run, run: tiny-1}",
    }
    pictures(tmp_path / "more", 3)
    found = executed(
        "own-pictures",
        tmp_path,
        RECIPE=str(RECIPE),
        PICTURES=str(tmp_path / "mine"),
        MORE=str(tmp_path / "more"),
        RUN=str(tmp_path / "run"),
        QUERY="a red square on grey",
        OPTIONS=[f"{key}={value}" for key, value in options.items()],
    )
    first, second = outputs(found, "text/html")
    assert first.count("<img") == 6 and second.count("<img") == 6
    assert len(outputs(found, "image/png")) == 1, "a thumbnail"
    assert "same_first" in outputs(found, "text/plain")[-1]


def test_ablation(tiny: Tiny, tmp_path: Path) -> None:
    found = executed(
        "ablation",
        tmp_path,
        RECIPE=str(tiny.recipe),
        OPTIONS=["train.epochs=1"],
        NUM_LEVELS=[2, 3],
        RUNS=str(tmp_path / "levels"),
    )
    assert len(outputs(found, "image/png")) == 1, "a chart"
    assert "2 levels, R@10:" in str(found.cells)
