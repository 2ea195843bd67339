"""Loads plugins. A broken one is left out and reported; it never ends the program.

Each plugin is loaded as a whole or not at all. How they are found: discovery.py.
"""

from __future__ import annotations

import inspect
import sys
import traceback
from collections.abc import Callable, Iterable
from contextlib import nullcontext
from functools import partial
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING, Any, NamedTuple

import pluggy

from genret.errors import GenretError, UsageError, did_you_mean
from genret.plugin import hookspecs
from genret.plugin.discovery import Found, Memory, find_plugins, one_file
from genret.plugin.output import output_aside
from genret.plugin.registry import FUNCTIONS, KINDS, Registries, plural
from genret.settings import Settings, load_settings

if TYPE_CHECKING:
    import typer

Hook = Callable[[Any], object]
KIND_OF_HOOK = {f"register_{plural(kind)}": kind for kind in (*KINDS, *FUNCTIONS)}
COMMANDS = "register_commands"
ROOMS = ("components", "commands", "shell", "guide", "lab", "pictures", "serve", "share")
"""Packages of genret beside its core, loaded like plugins; a missing one is skipped silently."""
BUILT_IN = "built in"
_MARKS = pluggy.PluginManager("genret")
"""Reads the marks of `@genret.hookimpl`; the hooks are called one plugin at a time, below."""


class Plugin(NamedTuple):
    name: str
    source: str
    """The package with its version, or the file."""
    hooks: tuple[str, ...]


class Failure(NamedTuple):
    name: str
    source: str
    reason: str
    traceback: str
    unforeseen: bool = False
    """Whether the plugin's own code raised the error, so that its traceback is useful."""


class Plugins:
    """The plugins that were found, the failures with their reasons, and the registries that the working ones filled.

    Plugins that are known to work and to add no commands are imported when one of these three is first used.
    """

    def __init__(self, settings: Settings):
        self._registries = Registries(settings)
        self._loaded: list[Plugin] = []
        self._failures: list[Failure] = []
        self._later: list[Found] = []
        self._modules: dict[Found, Any] = {}
        self._commands: dict[Plugin, Hook] = {}
        self._strict = settings.strict_plugins

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
            self._try(self._add, self._later.pop(0))
        return self

    def include(self, module: ModuleType) -> None:
        """Adds a module that is already imported, unless it is an installed plugin; raises if it fails."""
        if module not in self._whole()._modules.values():
            added = self._try(self._add, Found(module.__name__, str(module.__file__), lambda: module, module.__name__))
            if not added:
                raise GenretError(self._failures[-1].reason)

    def add_commands(self, cli: typer.Typer) -> None:
        """Lets plugins add commands; if a plugin's hook fails, all its commands are left out."""
        from typer import Typer

        for plugin, hook in self._commands.items():
            own = Typer()
            try:
                with output_aside():
                    hook(own)
                taken = {_command_name(command) for command in (*cli.registered_commands, *cli.registered_groups)}
                for name in map(_command_name, (*own.registered_commands, *own.registered_groups)):
                    if name in taken:
                        raise UsageError(f"the command '{name}' already exists")
            except (Exception, SystemExit) as error:
                self._fail(plugin.name, plugin.source, error, "its commands are left out: ")
            else:
                cli.registered_commands += own.registered_commands
                cli.registered_groups += own.registered_groups

    def _add_all(self, found: list[Found], files: list[Found], settings: Settings) -> None:
        """Adds all now, or those that may add commands now and the rest on first use.

        The rest may wait only if every other plugin is unchanged since all were last added and no name was registered
        twice: then their order does not matter. Plugins that cannot be imported do not count.
        """
        memory = Memory(settings.plugins_dir / "known.json")
        adds_commands = {plugin: memory.adds_commands(plugin, found) for plugin in found}
        # plugins without a record are imported here; for those that fail, only the failure is kept
        there = [one for one in found if adds_commands[one] is not None or self._try(self._import, one)]
        if all(adds_commands[plugin] is not None for plugin in there) and not files and not self._strict:
            self._later = [plugin for plugin in there if not adds_commands[plugin]]
            there = [plugin for plugin in there if adds_commands[plugin]]
        sound = [self._try(self._add, plugin) for plugin in (*there, *files)]
        if all(sound) and not files and not self._later:
            with_commands = {plugin.name for plugin in self._commands}
            memory.store([(plugin, plugin.name in with_commands) for plugin in there], found)

    def _try(self, step: Callable[[Found], object], found: Found) -> bool:
        """Whether the step succeeded; else the plugin is left out, with the reason."""
        try:
            step(found)
        except (Exception, SystemExit) as error:
            self._fail(found.name, found.source, error)
            return False
        return True

    def _import(self, found: Found) -> Any:
        if found not in self._modules:
            with nullcontext() if found.source == BUILT_IN else output_aside():
                self._modules[found] = found.load()
        return self._modules[found]

    def _add(self, found: Found) -> None:
        """Collects everything that the plugin registers, then adds it: all or nothing."""
        for other in self._loaded:
            if other.name == found.name:
                raise UsageError(
                    f"{found.source} and {other.source} both bring a plugin of this name, and the latter is taken; "
                    "rename or remove one of them"
                )
        hooks = _hooks_of(self._import(found))
        wanted: list[tuple[str, str, Any]] = []
        for name, kind in KIND_OF_HOOK.items():
            if name in hooks:
                with output_aside():
                    hooks[name](lambda name, target, kind=kind: wanted.append((kind, name, target)))
        origin = "genret" if found.source == BUILT_IN else found.name
        trial = {kind: self._registries.of(kind).copy() for kind, _, _ in wanted}
        for kind, name, target in wanted:
            trial[kind].register(name, target, origin)
        for kind, name, target in wanted:
            self._registries.of(kind).register(name, target, origin)
        self._registries.sources[found.name] = found.source
        plugin = Plugin(found.name, found.source, tuple(sorted(hooks)))
        self._loaded.append(plugin)
        if COMMANDS in hooks:
            self._commands[plugin] = hooks[COMMANDS]

    def _fail(self, name: str, source: str, error: BaseException, part: str = "") -> None:
        """`part`: what is left out of the plugin, if not all of it."""
        reason = part + " ".join(_reason(error).split())
        if self._strict:
            raise GenretError(f"plugin '{name}' ({source}) failed: {reason}") from error
        trace = "".join(traceback.format_exception(error))
        self._failures.append(Failure(name, source, reason, trace, not isinstance(error, GenretError)))
        print(f"Warning: plugin '{name}'{'' if part else ' left out'}: {reason} (see: genret plugins)", file=sys.stderr)
        for registry in self._registries.all():
            registry.hint = "some plugins were left out, see: genret plugins"


def load_plugins(extra_files: Iterable[Path | str] = (), settings: Settings | None = None) -> Plugins:
    """The built-ins, all plugins found that GENRET_PLUGINS allows, and `extra_files`, which must exist."""
    settings = settings or load_settings()
    files = [Path(path) for path in extra_files]
    for path in files:
        if not (path.is_file() and path.suffix == ".py"):
            raise UsageError(f"--plugin {path}: {'it is no Python file' if path.exists() else 'there is no such file'}")
    plugins = Plugins(settings)
    for room in ROOMS:
        module = f"genret.{room}"
        if find_spec(module) is not None:
            name = "genret" if room == "components" else module
            plugins._try(plugins._add, Found(name, BUILT_IN, partial(import_module, module), module))
    if "companions" in plugins._registries.function:
        plugins._registries.function.get("companions")(plugins._registries)
    found = find_plugins(settings)
    if settings.plugins is not None:
        wanted = [name.strip() for name in settings.plugins.split(",") if name.strip()]
        names = {plugin.name for plugin in found}
        for name in wanted:
            if name not in names:
                missing = UsageError(f"GENRET_PLUGINS names it but it is not installed{did_you_mean(name, names)}")
                plugins._fail(name, "GENRET_PLUGINS", missing)
        found = [plugin for plugin in found if plugin.name in wanted]
    plugins._add_all(found, [one_file(path) for path in files], settings)
    return plugins


def _hooks_of(plugin: Any) -> dict[str, Hook]:
    """The hooks that a plugin implements, each with its one argument."""
    found: dict[str, Hook] = {}
    known = [*KIND_OF_HOOK, COMMANDS]
    for attribute in dir(plugin):
        function = getattr(plugin, attribute)
        if (marked := _MARKS.parse_hookimpl_opts(plugin, attribute)) is not None:
            found[marked.get("specname") or attribute] = function
        elif attribute in known and getattr(function, "__module__", None) == getattr(plugin, "__name__", None):
            raise UsageError(f"the function {attribute} lacks @genret.hookimpl above it")
    for name, function in found.items():
        if name not in known:
            raise UsageError(f"there is no hook '{name}'{did_you_mean(name, known)}; hooks: {', '.join(known)}")
        (right,) = inspect.signature(getattr(hookspecs, name)).parameters
        given = [name for name, one in inspect.signature(function).parameters.items() if one.default is one.empty]
        if wrong := [one for one in given if one != right]:
            raise UsageError(f"the hook {name} has no argument '{wrong[0]}'; write: def {name}({right})")
        if not given:
            raise UsageError(f"the hook {name} takes no argument and so adds nothing; write: def {name}({right})")
    if not found:
        raise UsageError(f"it has no hook; mark a function with @genret.hookimpl, one of: {', '.join(known)}")
    return found


def _command_name(command: Any) -> str | None:
    """The name that typer will give to a command or group."""
    if command.name:
        return str(command.name)
    callback = getattr(command, "callback", None)
    return callback.__name__.replace("_", "-") if callable(callback) else None


def _reason(error: BaseException) -> str:
    if isinstance(error, ModuleNotFoundError) and error.name:
        return f"it needs the package '{error.name}', which is not installed"
    if isinstance(error, GenretError):
        return str(error)
    return f"{type(error).__name__}: {error}"
