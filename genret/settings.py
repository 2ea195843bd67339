"""Settings of this machine, from environment variables `GENRET_*`. None changes the results of an experiment."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Literal

from pydantic import Field, ValidationError, field_validator
from pydantic_settings import BaseSettings, SettingsConfigDict

from genret.errors import UsageError


class Settings(BaseSettings):
    model_config = SettingsConfigDict(env_prefix="GENRET_", frozen=True, extra="ignore", use_attribute_docstrings=True)

    home: Path = Field(Path("~/.genret"), validate_default=True)
    """Folder of runs, caches and one-file plugins."""
    features: Path | None = None
    """Folder of the feature cache; default `<home>/features`."""
    artifacts: Path | None = None
    """Folder of finished stages that runs share; default `<home>/artifacts`."""
    device: str = Field("auto", pattern=r"^(auto|cpu|mps|cuda(:\d+)?)$")
    """`auto` (the GPU if there is one), `cpu`, `cuda`, `cuda:1`, `mps`."""
    num_threads: int | None = Field(None, ge=1)
    """Processor threads of torch; default: as torch decides."""
    log_level: Literal["debug", "info", "warning", "error"] = "warning"
    """Lowest level of messages from libraries on standard error."""
    track: str | None = None
    """Trackers that are told the figures of a training besides `metrics.jsonl`, separated by commas; `--track`."""
    plugins: str | None = None
    """Names of the installed and one-file plugins to use, separated by commas; empty: none; unset: all."""
    strict_plugins: bool = False
    """A broken plugin ends the program instead of being left out."""

    @field_validator("home", mode="before")
    @classmethod
    def _empty_is_unset(cls, value: Any) -> Any:
        return "~/.genret" if value == "" else value

    @field_validator("home", "features", "artifacts")
    @classmethod
    def _absolute(cls, value: Path | None) -> Path | None:
        return None if value is None else value.expanduser().absolute()

    @property
    def features_dir(self) -> Path:
        return self.features or self.home / "features"

    @property
    def artifacts_dir(self) -> Path:
        return self.artifacts or self.home / "artifacts"

    @property
    def runs_dir(self) -> Path:
        return self.home / "runs"

    @property
    def weights_dir(self) -> Path:
        return self.home / "weights"

    @property
    def plugins_dir(self) -> Path:
        return self.home / "plugins"


def load_settings() -> Settings:
    """The settings of this process; a wrong value raises one sentence that names the variable."""
    try:
        return Settings()
    except ValidationError as error:
        faults = [
            f"environment variable GENRET_{str(fault['loc'][0]).upper()}: {fault['msg']} (it is {fault['input']!r})"
            for fault in error.errors()
        ]
        raise UsageError("\n".join(faults)) from None
