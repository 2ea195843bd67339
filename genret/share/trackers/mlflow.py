"""MLflow: the server or store of MLFLOW_TRACKING_URI, else the file `<home>/mlflow.db`."""

from __future__ import annotations

import os
import time
from collections.abc import Mapping
from typing import Any

from genret.run import Run

TAG = "genret.run"


class MLflow:
    package = "mlflow"
    install = "pip install 'genret[mlflow]'"

    def __init__(self, run: Run):
        from mlflow import MlflowClient

        where = os.environ.get("MLFLOW_TRACKING_URI") or f"sqlite:///{run.settings.home / 'mlflow.db'}"
        self._client = MlflowClient(tracking_uri=where)
        name = os.environ.get("MLFLOW_EXPERIMENT_NAME", "genret")
        known = self._client.get_experiment_by_name(name)
        experiment = self._client.create_experiment(name) if known is None else known.experiment_id
        folder = str(run.folder.resolve())
        mine = self._client.search_runs([experiment], f"tags.`{TAG}` = '{folder}' and attributes.status != 'FINISHED'")
        if mine:  # the training is resumed
            self._id = mine[0].info.run_id
            return
        self._id = self._client.create_run(experiment, run_name=run.folder.name, tags={TAG: folder}).info.run_id
        for key, value in _flat(run.recipe.canonical()).items():
            self._client.log_param(self._id, key, str(value)[:500])

    def log(self, stage: str, metrics: Mapping[str, float], step: int) -> None:
        from mlflow.entities import Metric

        now = int(1000 * time.time())
        self._client.log_batch(self._id, [Metric(f"{stage}/{name}", at, now, step) for name, at in metrics.items()])

    def close(self, finished: bool) -> None:
        self._client.set_terminated(self._id, "FINISHED" if finished else "FAILED")


def _flat(values: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """`{"train": {"seed": 0}}` → `{"train.seed": 0}`"""
    flat = dict[str, Any]()
    for key, value in values.items():
        flat |= _flat(value, f"{prefix}{key}.") if isinstance(value, Mapping) else {f"{prefix}{key}": value}
    return flat
