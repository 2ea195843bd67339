"""Takes in what plugins register. A broken one is left out and reported; it never ends the program.

Each plugin is taken as a whole or not at all. Where they are found: discovery.py.
"""

from __future__ import annotations

import inspect
import sys
import traceback
from collections.abc import Callable, Iterable
from contextlib import redirect_stdout
from functools import partial
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING, Any, NamedTuple

import pluggy
from pluggy import HookImpl

from genret.errors import GenretError, UsageError, did_you_mean
from genret.plugin import hookspecs
from genret.plugin.discovery import Found, Memory, find_plugins, one_file
from genret.plugin.provenance import remember_companions
from genret.plugin.registry import Registries
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
    "register_retrievers": "retriever",
    "register_evaluators": "evaluator",
    "register_weights": "weights",
}
ROOMS = ("components", "guide", "lab")
"""Packages of genret beside its core, each a plugin like any other; one that is not there is not missed."""
BUILT_IN = "built in"
_HOOKS = [*_KIND_OF_HOOK, "register_commands"]


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
    unforeseen: bool = False
    """Whether the reason is an error of the plugin's own code, which its traceback explains."""


class Plugins:
    """What was found, what failed and why, and the registries that the sound ones filled.

    Plugins that are known to be sound and to add no commands are imported when someone asks for one of these three.
    """

    def __init__(self, settings: Settings):
        self._registries = Registries(settings)
        self._loaded: list[Plugin] = []
        self._failures: list[Failure] = []
        self._later: list[Found] = []
        self._modules: dict[Found, Any] = {}
        self._strict = settings.strict_plugins
        self._manager = pluggy.PluginManager("genret")
        self._manager.add_hookspecs(hookspecs)
        remember_companions(self._registries)

    @property
    def registries(self) -> Registries:
        return self._whole()._registries

    @property
    def loaded(self) -> list[Plugin]:
        return self._whole()._loaded

    @property
    def failures(self) -> list[Failure]:
        return self._whole()._failures

    def _whole(self) -> Plugins:
        while self._later:
            self._add(self._later.pop(0))
        return self

    def include(self, module: ModuleType) -> None:
        """Takes in a module that is imported already, unless it is here as an installed plugin; raises if it fails."""
        if self._whole()._manager.is_registered(module):
            return
        before = len(self._failures)
        self._add(Found(module.__name__, str(module.__file__), lambda: module, module.__name__))
        if len(self._failures) > before:
            raise GenretError(self._failures[-1].reason)

    def add_commands(self, cli: typer.Typer) -> None:
        """Lets plugins add commands; one whose hook fails loses its commands, all of them."""
        for impl in self._manager.hook.register_commands.get_hookimpls():
            before = len(cli.registered_commands), len(cli.registered_groups)
            taken = {_command_name(command) for command in (*cli.registered_commands, *cli.registered_groups)}
            try:
                with redirect_stdout(sys.stderr):
                    _call(impl, cli=cli)
                added = (*cli.registered_commands[before[0] :], *cli.registered_groups[before[1] :])
                for command in added:
                    if _command_name(command) in taken:
                        raise UsageError(f"the command '{_command_name(command)}' already exists")
            except (Exception, SystemExit) as error:
                del cli.registered_commands[before[0] :]
                del cli.registered_groups[before[1] :]
                plugin = next(plugin for plugin in self._loaded if plugin.name == impl.plugin_name)
                self._fail(plugin.name, plugin.source, error, "its commands are left out: ")

    def _add_all(self, found: list[Found], files: list[Found], settings: Settings) -> None:
        """Adds all now, or those that may add commands now and the others when they are asked for.

        Plugins may wait where every other one is as it was when last all were added and no name was taken twice: then
        their order matters to none. One that can no longer be imported has no part in that.
        """
        memory = Memory(settings.plugins_dir / "known.json")
        adds_commands = {plugin: memory.adds_commands(plugin, found) for plugin in found}
        # what nothing is known of is imported here; of what cannot be, the failure is all that remains
        there = [one for one in found if adds_commands[one] is not None or self._import(one)]
        if all(adds_commands[plugin] is not None for plugin in there) and not files and not self._strict:
            self._later = [plugin for plugin in there if not adds_commands[plugin]]
            there = [plugin for plugin in there if adds_commands[plugin]]
        before = len(self._failures)
        for plugin in (*there, *files):
            self._add(plugin)
        if len(self._failures) == before and not files and not self._later:
            hooks = {plugin.name: plugin.hooks for plugin in self._loaded}
            memory.store([(plugin, "register_commands" in hooks[plugin.name]) for plugin in there], found)

    def _import(self, found: Found) -> bool:
        try:
            with redirect_stdout(sys.stderr):  # standard output belongs to the command's answer
                self._modules[found] = found.load()
        except (Exception, SystemExit) as error:
            self._fail(found.name, found.source, error)
            return False
        return True

    def _add(self, found: Found) -> None:
        try:
            if self._manager.has_plugin(found.name):
                other = next(plugin for plugin in self._loaded if plugin.name == found.name)
                raise UsageError(
                    f"{found.source} and {other.source} both bring a plugin of this name, and the latter is taken; "
                    "rename or remove one of them"
                )
            if found not in self._modules and not self._import(found):
                return
            plugin = self._modules[found]
            hooks = self._checked_hooks(plugin)
            self._manager.register(plugin, name=found.name)
            self._take_in(plugin, found)
            self._registries.sources[found.name] = found.source
            self._loaded.append(Plugin(found.name, found.source, hooks))
        except (Exception, SystemExit) as error:
            if self._manager.has_plugin(found.name) and all(found.name != plugin.name for plugin in self._loaded):
                self._manager.unregister(name=found.name)
            self._fail(found.name, found.source, error)

    def _checked_hooks(self, plugin: Any) -> tuple[str, ...]:
        """The names of the hooks that the plugin implements, each with the arguments that it has."""
        found: dict[str, Callable[..., Any]] = {}
        for attribute in dir(plugin):
            marked = self._manager.parse_hookimpl_opts(plugin, attribute)
            if marked is not None:
                found[marked.get("specname") or attribute] = getattr(plugin, attribute)
            elif attribute in _HOOKS and _is_own_function(plugin, attribute):
                raise UsageError(f"the function {attribute} lacks @genret.hookimpl above it")
        for name, function in found.items():
            if name not in _HOOKS:
                raise UsageError(f"there is no hook '{name}'{did_you_mean(name, _HOOKS)}; hooks: {', '.join(_HOOKS)}")
            self._check_arguments(name, function)
        if not found:
            raise UsageError(f"it has no hook; mark a function with @genret.hookimpl, one of: {', '.join(_HOOKS)}")
        return tuple(sorted(found))

    def _check_arguments(self, hook: str, function: Callable[..., Any]) -> None:
        (known,) = getattr(self._manager.hook, hook).spec.argnames
        given = [name for name, one in inspect.signature(function).parameters.items() if one.default is one.empty]
        for name in given:
            if name != known:
                raise UsageError(f"the hook {hook} has no argument '{name}'; write: def {hook}({known})")
        if not given:
            raise UsageError(f"the hook {hook} takes no argument and so adds nothing; write: def {hook}({known})")

    def _take_in(self, plugin: Any, found: Found) -> None:
        """Collects all that the plugin registers, then enters it: all or nothing."""
        wanted: list[tuple[str, str, Any]] = []
        for hook, kind in _KIND_OF_HOOK.items():
            for impl in getattr(self._manager.hook, hook).get_hookimpls():
                if impl.plugin is plugin:
                    with redirect_stdout(sys.stderr):
                        _call(impl, register=lambda name, target, kind=kind: wanted.append((kind, name, target)))
        origin = "genret" if found.source == BUILT_IN else found.name
        trial = {kind: self._registries.of(kind).copy() for kind, _, _ in wanted}
        for kind, name, target in wanted:
            trial[kind].register(name, target, origin)
        for kind, name, target in wanted:
            self._registries.of(kind).register(name, target, origin)

    def _fail(self, name: str, source: str, error: BaseException, part: str = "") -> None:
        """`part`: what of the plugin is left out, where that is not all of it."""
        reason = part + " ".join(_reason(error).split())
        if self._strict:
            raise GenretError(f"plugin '{name}' ({source}) failed: {reason}") from error
        self._failures.append(
            Failure(
                name, source, reason, "".join(traceback.format_exception(error)), not isinstance(error, GenretError)
            )
        )
        print(f"Warning: plugin '{name}'{'' if part else ' left out'}: {reason} (see: genret plugins)", file=sys.stderr)
        for registry in self._registries.all():
            registry.hint = "some plugins were left out, see: genret plugins"


def load_plugins(extra_files: Iterable[Path | str] = (), settings: Settings | None = None) -> Plugins:
    """The built-ins and every plugin that is found. GENRET_PLUGINS does not leave out `extra_files`."""
    settings = settings or load_settings()
    plugins = Plugins(settings)
    for room in ROOMS:
        module = f"genret.{room}"
        if find_spec(module) is not None:
            name = "genret" if room == "components" else module
            plugins._add(Found(name, BUILT_IN, partial(import_module, module), module))
    found = find_plugins(settings)
    if settings.plugins is not None:
        wanted = [name.strip() for name in settings.plugins.split(",") if name.strip()]
        names = {plugin.name for plugin in found}
        for name in wanted:
            if name not in names:
                missing = UsageError(f"GENRET_PLUGINS names it but it is not installed{did_you_mean(name, names)}")
                plugins._fail(name, "GENRET_PLUGINS", missing)
        found = [plugin for plugin in found if plugin.name in wanted]
    plugins._add_all(found, [one_file(Path(path)) for path in extra_files], settings)
    return plugins


def _is_own_function(plugin: Any, attribute: str) -> bool:
    """A function written in the plugin's own module, not one that it imported from elsewhere."""
    function = getattr(plugin, attribute)
    return inspect.isfunction(function) and function.__module__ == getattr(plugin, "__name__", None)


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
    if isinstance(error, ModuleNotFoundError) and error.name:
        return f"it needs the package '{error.name}', which is not installed"
    if isinstance(error, GenretError | pluggy.PluginValidationError):
        return str(error)
    return f"{type(error).__name__}: {error}"
