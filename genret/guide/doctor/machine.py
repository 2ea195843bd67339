"""What genret runs on: versions, extras, device, threads, and the weights at hand. Changes nothing, asks no network."""

from __future__ import annotations

import os
from importlib.metadata import PackageNotFoundError, metadata, version
from typing import Any, NamedTuple

from packaging.requirements import Requirement
from packaging.version import InvalidVersion

from genret.errors import GenretError
from genret.kit.device import device_of
from genret.plugin.loading import Plugins
from genret.settings import Settings
from genret.shell.environment import describe

FOR_DEVELOPMENT = ("dev", "bench", "ranx")
"""Extras of genret that no user needs."""
OFFLINE = ("HF_HUB_OFFLINE", "TRANSFORMERS_OFFLINE", "HF_DATASETS_OFFLINE")
PLACES = ("HF_HOME", "HF_HUB_CACHE", "HF_ENDPOINT")
WAITING = ("OMP_WAIT_POLICY", "GOMP_SPINCOUNT", "KMP_BLOCKTIME")


class Extra(NamedTuple):
    """An optional part of a package."""

    name: str
    missing: list[str]
    """What it requires and this environment lacks, or has in a version that does not fit."""
    install: str
    """The command that installs it."""


def extras_of(package: str) -> list[Extra]:
    """The extras of an installed package; none if it is not installed."""
    try:
        told = metadata(package)
    except PackageNotFoundError:
        return []
    names = [name for name in told.get_all("Provides-Extra") or () if name not in FOR_DEVELOPMENT]
    required = [Requirement(line) for line in told.get_all("Requires-Dist") or ()]
    return [
        Extra(
            name,
            [
                one.name
                for one in required
                if one.marker and one.marker.evaluate({"extra": name}) and not one.marker.evaluate({"extra": ""})
                if not _is_there(one)
            ],
            f"pip install '{package}[{name}]'",
        )
        for name in names
    ]


def _is_there(wanted: Requirement) -> bool:
    try:
        return wanted.specifier.contains(version(wanted.name), prereleases=True)
    except (PackageNotFoundError, InvalidVersion):
        return False


def machine(settings: Settings) -> tuple[dict[str, Any], str | None]:
    """Versions, device and threads; and what is wrong with the device, if anything."""
    import torch

    wrong = None
    try:
        device = device_of(settings)
    except GenretError as error:
        device, wrong = torch.device("cpu"), str(error)
    found = describe(device, 0)
    del found["seed"]
    found["wanted_device"] = settings.device
    found["waiting"] = {name: os.environ[name] for name in WAITING if name in os.environ}
    return found, wrong


def weights(plugins: Plugins) -> dict[str, Any]:
    """Weights of packages by plugin, and those of the model hub that lie on this machine."""
    registry = plugins.registries.weights
    packages = dict[str, dict[str, Any]]()
    for name in registry:
        origin = registry.origin(name)
        source = plugins.registries.sources.get(origin, origin)
        packages.setdefault(origin, {"source": source, "weights": []})["weights"].append(name)
    for facts in packages.values():
        facts["extras"] = [extra._asdict() for extra in extras_of(facts["source"].partition(" ")[0])]
    return {"packages": packages, "hub": _hub()}


def _hub() -> dict[str, Any]:
    from huggingface_hub import CacheNotFound, constants, scan_cache_dir

    try:
        cache = scan_cache_dir()
        found = {repo.repo_id: repo.size_on_disk for repo in sorted(cache.repos, key=lambda repo: repo.repo_id)}
    except (CacheNotFound, OSError, ValueError):
        found = {}
    return {
        "folder": str(constants.HF_HUB_CACHE),
        "repositories": found,
        "offline": constants.is_offline_mode(),
        "settings": {name: os.environ[name] for name in (*OFFLINE, *PLACES) if name in os.environ},
    }
