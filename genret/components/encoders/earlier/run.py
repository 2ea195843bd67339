"""The encoder of an earlier run, with the heads that it trained: words and pictures meet as they do there.

What is read is copied into the new run, which can then be searched without the earlier one.
"""

from __future__ import annotations

import hashlib
import json
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal, NamedTuple

import torch
from PIL import Image
from pydantic import ValidationError
from torch import Tensor

from genret.api import Config, Encoder
from genret.components.encoders.hf_clip import CLIPEncoder
from genret.components.encoders.open_clip import OpenCLIPEncoder
from genret.components.encoders.paired import PairedEncoder
from genret.errors import GenretError, one_line
from genret.kit.files import read_json, write_json
from genret.toolbox.weights import fingerprint

KINDS: dict[str, type[Encoder]] = {
    "paired": PairedEncoder,
    "two-space": PairedEncoder,  # the space that search compares in, alone
    "open-clip": OpenCLIPEncoder,
    "clip": CLIPEncoder,
}
SOURCE = "source.json"
"""What the copied files belong to: `{"encoder": {"type", ...}}`."""
WEIGHTS = ("heads.safetensors", "heads.json", "towers.safetensors", "towers.json")


def runs_folder(cache: Path) -> Path:
    """The folder of all runs, registered as the weights `genret:runs`; `cache` is the one of weights beside it."""
    return cache.parent / "runs"


class Source(NamedTuple):
    """An earlier run's encoder on disk."""

    options: dict[str, Any]
    """With its `type`"""
    files: list[Path]
    """Those of `WEIGHTS` that there are"""

    @property
    def key(self) -> str:
        """A hash of the contents."""
        digest = hashlib.sha256(json.dumps(self.options, sort_keys=True).encode())
        for file in self.files:
            digest.update(f"{file.name} {fingerprint(file)}".encode())
        return digest.hexdigest()[:20]


class RunEncoder(Encoder):
    """An earlier run's towers and heads; nothing is trained."""

    class Config(Config):
        run: str
        """The earlier run: its name in `<home>/runs`, or its folder."""

    config: RunEncoder.Config
    _source: Source | None = None
    _inner: Encoder | None = None

    def __init__(self, config: Any = None, **resources: Any):
        super().__init__(config, **resources)
        self._device = torch.device("cpu")

    # ------------------------------------------------------------------------------------------------ the earlier run
    @property
    def source(self) -> Source:
        if self._source is None:
            name = self.config.run
            places = [Path(name).expanduser(), Path(self.resolve_weights("genret:runs")) / name]
            run = next((place for place in places if (place / "summary.json").is_file()), None)
            if run is None:
                raise GenretError(f"encoder.run: there is no finished run '{name}'; train it first, or name its folder")
            self._source = _read(run / "encoder", run / "towers")
        return self._source

    @property
    def inner(self) -> Encoder:
        """The earlier run's encoder, with its weights."""
        if self._inner is None:
            options, files = self.source
            kind = str(options.get("type"))
            if kind not in KINDS:
                raise GenretError(
                    f"encoder.run: the run '{self.config.run}' has the encoder '{kind}', which cannot be taken over; "
                    "name that encoder in the recipe"
                )
            plain = {name: value for name, value in options.items() if name not in ("type", "reader", "reader_image")}
            try:
                config = KINDS[kind].Config.model_validate_json(json.dumps(plain))
            except ValidationError as error:
                raise GenretError(
                    f"encoder.run: options of '{self.config.run}' cannot be used ({one_line(error)})"
                ) from error
            inner = KINDS[kind](config, resolve_weights=self.resolve_weights)
            for name, load in (
                ("towers.json", lambda folder: inner.load_towers(folder, self.source.key)),
                ("heads.json", inner.load),
            ):
                for file in files:
                    if file.name == name:
                        load(file.parent)
            inner.to(self._device)
            self._inner = inner
        return self._inner

    # ------------------------------------------------------------------------------------------------ as an encoder
    def tower_key(self, modality: Literal["image", "text"]) -> str:
        """Of the text tower, the heads are part: stages depend on tower keys, and the heads are not trained here."""
        key = self.inner.tower_key(modality)
        return key if modality == "image" else f"{key} in the space {self.source.key}"

    def image_features(self, images: Sequence[Image.Image], view: int = 0) -> Tensor:
        return self.inner.image_features(images, view)

    def text_features(self, texts: Sequence[str]) -> Tensor:
        return self.inner.text_features(texts)

    def project_images(self, features: Tensor) -> Tensor:
        return self.inner.project_images(features)

    def project_texts(self, features: Tensor) -> Tensor:
        return self.inner.project_texts(features)

    def to(self, device: torch.device) -> None:
        self._device = device
        if self._inner is not None:
            self._inner.to(device)

    # ------------------------------------------------------------------------------------------------ disk
    def save(self, folder: Path) -> None:
        write_json(folder / SOURCE, {"encoder": self.source.options})
        for file in self.source.files:
            shutil.copyfile(file, folder / file.name)

    def load(self, folder: Path) -> None:
        """Forgets the earlier run: from here on everything comes from `folder`."""
        self._source, self._inner = _read(folder, folder), None
        assert self.inner is not None


def _read(heads: Path, towers: Path) -> Source:
    try:
        if (heads / SOURCE).is_file():  # that run took over an earlier one's encoder itself
            options, towers = read_json(heads / SOURCE)["encoder"], heads
        else:
            options = read_json(heads / "stage.json")["options"]["encoder"]
        files = [folder / name for folder, name in zip((heads, heads, towers, towers), WEIGHTS, strict=True)]
        return Source(dict(options), [file for file in files if file.is_file()])
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise GenretError(f"{heads} does not say which encoder it is of ({one_line(error)}); train it anew") from error
