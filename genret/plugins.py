"""Finds plugins and takes in what they register. A broken one is left out and reported; it never ends the program.

Three sources, in this order: entry points of group `genret` (installed packages), `<home>/plugins/*.py`, and files
named by `--plugin`. Each plugin is taken as a whole or not at all.
"""

from __future__ import annotations

import importlib.util
import sys
import traceback
from collections.abc import Callable, Iterable, Iterator
from contextlib import redirect_stdout
from importlib.metadata import EntryPoint, entry_points
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import pluggy
from pluggy import HookImpl

from genret import builtins, hookspecs
from genret.errors import GenretError, UsageError, did_you_mean
from genret.registry import Registries
from genret.settings import Settings, load_settings

if TYPE_CHECKING:
    import typer

_KIND_OF_HOOK = {
    "register_datasets": "dataset",
    "register_encoders": "encoder",
    "register_identifiers": "identifier",
    "register_backbones": "backbone",
    "register_losses": "loss",
    "register_rerankers": "reranker",
    "register_weights": "weights",
}


class Plugin(NamedTuple):
    name: str
    source: str
    """A package with its version, or a file."""
    hooks: tuple[str, ...]


class Failure(NamedTuple):
    name: str
    source: str
    reason: str
    traceback: str


class _Found(NamedTuple):
    name: str
    source: str
    load: Callable[[], Any]


class Plugins:
    """What was found, what failed and why, and the registries that the sound ones filled."""

    def __init__(self, settings: Settings):
        self.registries = Registries(settings)
        self.loaded: list[Plugin] = []
        self.failures: list[Failure] = []
        self._strict = settings.strict_plugins
        self._manager = pluggy.PluginManager("genret")
        self._manager.add_hookspecs(hookspecs)

    def add_commands(self, cli: typer.Typer) -> None:
        """Lets plugins add commands; one whose hook fails loses its commands, all of them."""
        for impl in self._manager.hook.register_commands.get_hookimpls():
            before = len(cli.registered_commands), len(cli.registered_groups)
            taken = {_command_name(command) for command in (*cli.registered_commands, *cli.registered_groups)}
            try:
                _call(impl, cli=cli)
                added = (*cli.registered_commands[before[0] :], *cli.registered_groups[before[1] :])
                for command in added:
                    if _command_name(command) in taken:
                        raise UsageError(f"the command '{_command_name(command)}' already exists")
            except (Exception, SystemExit) as error:
                del cli.registered_commands[before[0] :]
                del cli.registered_groups[before[1] :]
                plugin = next(plugin for plugin in self.loaded if plugin.name == impl.plugin_name)
                self._fail(plugin.name, plugin.source, error, "its commands are left out: ")

    def _add(self, found: _Found) -> None:
        try:
            if self._manager.has_plugin(found.name):
                other = next(plugin for plugin in self.loaded if plugin.name == found.name)
                raise UsageError(f"a plugin of this name is already loaded from {other.source}")
            with redirect_stdout(sys.stderr):  # standard output belongs to the command's answer
                plugin = found.load()
            self._manager.register(plugin, name=found.name)
            impls = list(self._hook_impls(plugin))
            _check_hook_names(impls)
            self._take_in(impls, found)
            self.loaded.append(Plugin(found.name, found.source, tuple(sorted(impl.hook_name for impl in impls))))
        except (Exception, SystemExit) as error:
            if self._manager.has_plugin(found.name) and all(found.name != plugin.name for plugin in self.loaded):
                self._manager.unregister(name=found.name)
            self._fail(found.name, found.source, error)

    def _hook_impls(self, plugin: Any) -> Iterator[_Impl]:
        for caller in self._manager.get_hookcallers(plugin) or []:
            for impl in caller.get_hookimpls():
                if impl.plugin is plugin:
                    yield _Impl(caller.name, caller.has_spec() or impl.optionalhook, impl)

    def _take_in(self, impls: list[_Impl], found: _Found) -> None:
        """Collects all that the plugin registers, then enters it: all or nothing."""
        wanted: list[tuple[str, str, Any]] = []
        for hook_name, _, impl in impls:
            if kind := _KIND_OF_HOOK.get(hook_name):
                with redirect_stdout(sys.stderr):
                    _call(impl, register=lambda name, target, kind=kind: wanted.append((kind, name, target)))
        trial = {kind: self.registries.of(kind).copy() for kind, _, _ in wanted}
        for kind, name, target in wanted:
            trial[kind].register(name, target, found.name)
        for kind, name, target in wanted:
            self.registries.of(kind).register(name, target, found.name)

    def _fail(self, name: str, source: str, error: BaseException, part: str = "") -> None:
        """`part`: what of the plugin is left out, where that is not all of it."""
        reason = part + " ".join(_reason(error).split())
        if self._strict:
            raise GenretError(f"plugin '{name}' ({source}) failed: {reason}") from error
        self.failures.append(Failure(name, source, reason, "".join(traceback.format_exception(error))))
        print(f"Warning: plugin '{name}'{'' if part else ' left out'}: {reason} (see: genret plugins)", file=sys.stderr)
        for registry in self.registries.all():
            registry.hint = "some plugins were left out, see: genret plugins"


class _Impl(NamedTuple):
    hook_name: str
    known: bool
    impl: HookImpl


def load_plugins(extra_files: Iterable[Path | str] = (), settings: Settings | None = None) -> Plugins:
    """The built-ins and every plugin that is found. GENRET_PLUGINS does not leave out `extra_files`."""
    settings = settings or load_settings()
    plugins = Plugins(settings)
    plugins._add(_Found("genret", "built in", lambda: builtins))
    found = [*_installed(), *(_one_file(path) for path in sorted(settings.plugins_dir.glob("*.py")))]
    if settings.plugins is not None:
        wanted = [name.strip() for name in settings.plugins.split(",") if name.strip()]
        names = {plugin.name for plugin in found}
        for name in wanted:
            if name not in names:
                missing = UsageError(f"GENRET_PLUGINS names it but it is not installed{did_you_mean(name, names)}")
                plugins._fail(name, "GENRET_PLUGINS", missing)
        found = [plugin for plugin in found if plugin.name in wanted]
    for plugin in (*found, *(_one_file(Path(path)) for path in extra_files)):
        plugins._add(plugin)
    return plugins


def _installed() -> list[_Found]:
    found: dict[tuple[str, str], _Found] = {}
    for point in sorted(entry_points(group="genret"), key=lambda point: point.name):
        source = f"{point.dist.name} {point.dist.version}" if point.dist else point.value
        # one package may be seen twice, e.g. as an egg-info beside its dist-info
        found.setdefault((point.name, point.value), _Found(point.name, source, _loader(point)))
    return list(found.values())


def _loader(point: EntryPoint) -> Callable[[], Any]:
    return lambda: point.load()


def _one_file(path: Path) -> _Found:
    return _Found(path.stem, str(path), lambda: _run_file(path))


def _run_file(path: Path) -> Any:
    if not path.is_file():
        raise UsageError(f"there is no file {path}")
    name = f"genret_plugin_{path.stem}"
    spec = importlib.util.spec_from_file_location(name, path)
    if spec is None or spec.loader is None:
        raise UsageError(f"{path} is no Python file")
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module  # dataclasses and pydantic look their module up
    try:
        spec.loader.exec_module(module)
    except BaseException:
        del sys.modules[name]
        raise
    return module


def _check_hook_names(impls: list[_Impl]) -> None:
    known = [*_KIND_OF_HOOK, "register_commands"]
    for hook_name, is_known, _ in impls:
        if not is_known:
            raise UsageError(
                f"there is no hook '{hook_name}'{did_you_mean(hook_name, known)}; hooks: {', '.join(known)}"
            )
    if not impls:
        raise UsageError(f"it has no hook; mark a function with @genret.hookimpl, one of: {', '.join(known)}")


def _call(impl: HookImpl, **arguments: Any) -> None:
    """Calls one plugin's hook with the arguments that it asks for."""
    impl.function(*(arguments[name] for name in impl.argnames))


def _command_name(command: Any) -> str | None:
    """As typer will name a command or group."""
    if command.name:
        return str(command.name)
    callback = getattr(command, "callback", None)
    return callback.__name__.replace("_", "-") if callable(callback) else None


def _reason(error: BaseException) -> str:
    if isinstance(error, ModuleNotFoundError):
        return f"it needs the package '{error.name}', which is not installed"
    if isinstance(error, GenretError | pluggy.PluginValidationError):
        return str(error)
    return f"{type(error).__name__}: {error}"
