"""Which plugin a component came from: what a run records, and the error message if that plugin is missing.

Independent of how plugins are found.
"""

from __future__ import annotations

import json
import logging
from pathlib import Path
from typing import TYPE_CHECKING, Any

from genret.errors import one_line
from genret.kit.files import read_json
from genret.plugin.registry import KINDS, Registries

if TYPE_CHECKING:
    from genret.recipe.schema import Recipe

log = logging.getLogger(__name__)

COMPANIONS: dict[str, dict[str, tuple[str, ...]]] = {
    "genret-bm25": {"retriever": ("bm25",)},
    "genret-fsq": {"identifier": ("fsq",)},
    "genret-groups": {"evaluator": ("groups",)},
    "genret-margin": {"loss": ("margin",)},
    "genret-random": {"identifier": ("random",)},
    "genret-starter": {
        "dataset": ("emoji",),
        "weights": (
            "starter:efficientnet-lite0",
            "starter:efficientnet-lite1",
            "starter:efficientnet-lite2",
            "starter:flan-t5-small",
            "starter:minilm",
            "starter:mpnet",
        ),
    },
}
"""What the plugins of genret's own repository register, so that errors can name the missing plugin."""


def provenance(recipe: Recipe, registries: Registries) -> dict[str, dict[str, str]]:
    """What a run records: `components`, the plugin of each, and `plugins`, the source of each.

    `{"components": {"identifier random": "random", "backbone t5": "genret", ...},
    "plugins": {"random": "genret-random 0.1.0"}}`
    """
    from genret.recipe.schema import SLOTS

    used = [(kind, slot.type) for key, kind in SLOTS.items() if (slot := getattr(recipe, key)) is not None]
    used += [("loss", name) for name in recipe.loss]
    options = json.dumps(recipe.canonical())
    used += [("weights", name) for name in registries.weights if json.dumps(name) in options]
    components = {f"{kind} {name}": registries.of(kind).origin(name) for kind, name in used}
    plugins = {name: registries.sources[name] for name in sorted(set(components.values())) if name != "genret"}
    return {"components": components, "plugins": plugins}


def remember_run(run: Path, registries: Registries) -> None:
    """From now on, errors about unregistered components that this run needs name the plugin they came from."""
    try:
        noted: Any = read_json(run / "environment.json")
        components: dict[str, Any] = dict(noted["components"])
        plugins: dict[str, Any] = dict(noted.get("plugins") or {})
    except (OSError, ValueError, KeyError, TypeError):
        return
    for component, plugin in components.items():
        kind, _, name = str(component).partition(" ")
        if plugin != "genret" and name and kind in KINDS:
            source = str(plugins.get(plugin) or "")
            hints = (_came_from(one_line(plugin, 100), source and one_line(source, 100)), _companion(kind, name))
            registries.of(kind).providers[name] = "; ".join(hint for hint in hints if hint)


def compare_code(run: Path, now: dict[str, str]) -> None:
    """Warns if a plugin's code has changed since the run was made. `now`: the fingerprints of its components' code."""
    try:
        before = read_json(run / "environment.json")["code"]
        changed = sorted(part for part, key in before.items() if now.get(part, key) != key)
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return
    if changed:
        log.warning("%s was made by other code of %s; train it anew to be sure", run, ", ".join(changed))


def remember_companions(registries: Registries) -> None:
    """Names that genret's own companion plugins would register."""
    for kinds in COMPANIONS.values():
        for kind, names in kinds.items():
            for name in names:
                registries.of(kind).providers[name] = _companion(kind, name)


def _companion(kind: str, name: str) -> str:
    """What to install, from `COMPANIONS` alone: a run directory must not choose packages."""
    for package, kinds in COMPANIONS.items():
        if name in kinds.get(kind, ()):
            folder = Path(__file__).parents[2] / "plugins" / package  # exists if genret runs from a checkout
            place = folder if (folder / "pyproject.toml").is_file() else package
            return f"it comes with a plugin: genret install {place}"
    return ""


def _came_from(plugin: str, source: str) -> str:
    when = f"when the run was made it came from the plugin '{plugin}'"
    if source.endswith(".py"):
        return f"{when}, the file {source}: name it by --plugin FILE or put it into <home>/plugins"
    return f"{when} ({source})" if source else when
