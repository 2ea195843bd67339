"""`check_plugin` and `check_recipe`: checks of a plugin's package and recipes."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from types import ModuleType

from genret.errors import GenretError, RecipeError
from genret.plugin.loading import load_plugins
from genret.recipe.load import load_recipe
from genret.settings import Settings
from genret.testing.world.expect import ContractError


def check_plugin(plugin: ModuleType) -> list[str]:
    """Loads the module as genret does, with genret's own components only; `ContractError` says what fails.

    Returns what it registers, such as `["identifier random"]`: all of it can be imported and is of its kind.
    """
    plugins = load_plugins((), Settings(plugins=""))
    found = []
    try:
        plugins.include(plugin)
        for registry in plugins.registries.all():
            for name in registry:
                if registry.origin(name) == plugin.__name__:
                    registry.get(name)
                    found.append(f"{registry.kind} {name}")
    except GenretError as error:
        raise ContractError(f"{plugin.__name__}: {error}") from error
    return found


def check_recipe(path: Path | str | Sequence[Path], *plugins: ModuleType) -> None:
    """Checks a recipe, or files that are merged to one; `ContractError` lists its errors.

    It may use the given plugins, whether they are installed or not, and all that are installed.
    """
    files = [path] if isinstance(path, Path | str) else list(path)
    loaded = load_plugins()
    try:
        for plugin in plugins:
            loaded.include(plugin)
        load_recipe(files, [], loaded.registries)
    except RecipeError as error:
        raise ContractError(f"{path} is not sound: {'; '.join(error.errors)}") from error
    except GenretError as error:
        raise ContractError(f"{path}: {error}") from error
