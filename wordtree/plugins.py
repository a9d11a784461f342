"""The plug-in manager: finds plug-ins by the entry-point group `wordtree`, loads them one by one, asks their hooks.

A plug-in that breaks, or that misspells a hook, is named with its distribution in a warning and in `listing()`; the
others work on. A name that two plug-ins offer is refused to both, so that what it means never depends on the order of
installation. An entry point names a module or an object, which is loaded when any hook is asked; or one hook function,
`birds:register_detectors`, which is loaded when that hook is asked.
"""

from __future__ import annotations

import sys
import warnings
from collections import Counter
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from functools import lru_cache
from importlib.metadata import Distribution, EntryPoint, entry_points
from types import ModuleType
from typing import TYPE_CHECKING, Any, TypeVar

import pluggy

from . import hookspecs
from .errors import WordTreeError, unknown

if TYPE_CHECKING:
    from .labels import LabelMap
    from .taxonomy import Taxonomy

T = TypeVar("T")


@dataclass(frozen=True)
class Detector:
    """A detector that can be had over any tree.

    Attributes:
        name: such as "torchvision/retinanet_resnet50_fpn".
        build: `build(tree, **options)` -> a module on torchvision's detection contract.
        summary: one line for `wordtree plugins`.
    """

    name: str
    build: Callable[..., Any]
    summary: str = ""


@dataclass(frozen=True)
class Listed:
    """One plug-in as `wordtree plugins` shows it.

    Attributes:
        name: the entry point's; with its distribution before it where another has the same name.
        hooks: the hooks that it has.
        fault: what is wrong with it, where something is.
        source: the distribution and its version; "built in", or "this process" where it was registered by hand.
    """

    name: str
    hooks: tuple[str, ...]
    fault: str = ""
    source: str = ""


class Offered(dict[str, T]):
    """Name -> record. A missing name is a WordTreeError that lists the known ones."""

    def __init__(self, kind: str) -> None:
        super().__init__()
        self.kind = kind
        self.refused: dict[str, str] = {}  # name -> why

    def __missing__(self, name: str) -> T:
        if name in self.refused:
            raise WordTreeError(self.refused[name])
        raise unknown(self.kind, name, sorted(self))


@dataclass
class Plugins:
    """A manager, and what is known of the plug-ins that it was given.

    Attributes:
        manager: pluggy's.
        waiting: entry points not loaded yet, each with its plug-in's name.
        origins: plug-in name -> the distribution that it came with.
        faults: plug-in name -> what is wrong with it.
    """

    manager: pluggy.PluginManager
    waiting: list[tuple[str, EntryPoint]] = field(default_factory=list)
    origins: dict[str, Distribution] = field(default_factory=dict)
    faults: dict[str, list[str]] = field(default_factory=dict)

    def ask(self, hook: str | None = None) -> None:
        """Load the plug-ins that may have a hook, all where None is given; a broken one is noted as a fault."""
        waiting, self.waiting = self.waiting, []
        for name, entry in waiting:
            try:
                _, _, alone = entry.value.partition(":")  # the one hook that the entry point names
                if alone in HOOKS and hook not in (None, alone):
                    self.waiting.append((name, entry))
                    continue
                if not entry.value.replace(":", ".", 1).replace(".", "").isidentifier():
                    raise WordTreeError(f"{entry.value!r} is no module, nor module:object; an entry point names one")
                torch_before = "torch" in sys.modules
                plugin = entry.load()
                if "torch" in sys.modules and not torch_before:  # it works, and all who list plug-ins wait for it
                    self.faults.setdefault(name, []).append("imports torch to be listed; import it inside `build`")
                if alone in HOOKS:
                    function, plugin = plugin, ModuleType(name)
                    setattr(plugin, alone, function)
                self.add(plugin, name)
            except (Exception, SystemExit) as error:  # an import may raise anything
                self.fault(name, _told(error), LEFT_OUT)

    def add(self, plugin: object, name: str) -> None:
        """Register one plug-in, wholly or not at all.

        Raises:
            WordTreeError: a name or plug-in that is there already, a hook that does not exist, that is not marked, or
                that takes arguments; a plug-in without hooks.
        """
        if self.manager.has_plugin(name) or self.manager.is_registered(plugin):
            raise WordTreeError(f"plug-in {name!r} is registered already; unregister it first, or give another name")
        try:
            self.manager.register(plugin, name=name)
            callers = self.manager.get_hookcallers(plugin) or []
            for caller in callers:
                if not caller.has_spec():  # pluggy itself takes a misspelled hook without a word, and never calls it
                    raise unknown("hook", caller.name, HOOKS)
            unmarked = set(HOOKS) & set(dir(plugin)) - {caller.name for caller in callers}
            if unmarked or not callers:
                what = f"{sorted(unmarked)[0]} is not marked" if unmarked else "no function of it is marked"
                raise WordTreeError(f"{what} with @hookimpl; the hooks are {', '.join(HOOKS)}")
        except (pluggy.PluginValidationError, WordTreeError) as error:
            self.manager.unregister(name=name)
            raise WordTreeError(" ".join(str(error).split())) from error  # pluggy writes several lines

    def fault(self, name: str, what: str, then: str = "") -> None:
        """Note what is wrong with a plug-in, and say so once, with what comes of it."""
        if what not in self.faults.setdefault(name, []):
            self.faults[name].append(what)
            warnings.warn(f"plug-in {self.told(name)}: {what}{then}", stacklevel=2)

    def source(self, name: str) -> str:
        """Where a plug-in came from: "birds 0.1", or "" where it came by hand."""
        origin = self.origins.get(name)
        return f"{origin.name} {origin.version}" if origin else ""

    def told(self, name: str) -> str:
        """A plug-in in a message: its name and where it came from."""
        return f"{name!r} ({self.source(name)})" if self.source(name) else repr(name)

    def collect(self, hook: str, kind: str, record: type[T]) -> Offered[T]:
        """What all plug-ins together return from a hook, by name."""
        self.ask(hook)
        offered: Offered[T] = Offered(kind)
        givers: dict[str, list[str]] = {}
        for impl in getattr(self.manager.hook, hook).get_hookimpls():
            try:
                records = list(impl.function())
                wrong = [item for item in records if not isinstance(item, record)]
                if wrong:
                    raise TypeError(f"{hook} returned {wrong[0]!r}; it returns a list of {record.__name__}")
            except (Exception, SystemExit) as error:  # a stranger's code: it must not take the rest down
                self.fault(impl.plugin_name, _told(error), LEFT_OUT)
                continue
            for item in records:
                name: str = item.name
                givers.setdefault(name, []).append(impl.plugin_name)
                offered[name] = item
        for name, plugins in givers.items():
            if len(plugins) > 1:
                del offered[name]
                both = " and ".join(map(self.told, plugins))
                offered.refused[name] = (
                    f"{kind} {name!r} is offered by the plug-ins {both}; remove one, or rename what it offers"
                )
                for plugin in dict.fromkeys(plugins):
                    self.fault(plugin, offered.refused[name])
        return offered


def _told(error: BaseException) -> str:
    return str(error) if isinstance(error, WordTreeError) else f"{type(error).__name__}: {error}"


HOOKS = ("register_label_maps", "register_taxonomies", "register_detectors")
BUILT_IN = "wordtree"
LEFT_OUT = "; it is left out, and the others work; mend it, or uninstall what it came with"


def load(entries: Iterable[EntryPoint]) -> Plugins:
    """A fresh manager with wordtree's own hooks and the plug-ins that the entry points name, each loaded when asked."""
    from . import taxonomy

    plugins = Plugins(pluggy.PluginManager("wordtree"))
    plugins.manager.add_hookspecs(hookspecs)
    plugins.add(taxonomy, BUILT_IN)
    found = sorted(entries, key=lambda entry: (entry.name, entry.value))
    times = Counter([BUILT_IN, *(entry.name for entry in found)])
    for entry in found:
        # Two distributions may use one name for their plug-ins without knowing of each other.
        apart = entry.dist.name if entry.dist else entry.value
        name = entry.name if times[entry.name] == 1 else f"{apart}:{entry.name}"
        plugins.waiting.append((name, entry))
        if entry.dist:
            plugins.origins[name] = entry.dist
    return plugins


@lru_cache(maxsize=1)
def installed() -> Plugins:
    """The plug-ins of this environment, found once a process."""
    return load(entry_points(group="wordtree"))


def manager() -> pluggy.PluginManager:
    """The pluggy manager behind the functions below, every plug-in loaded."""
    installed().ask()
    return installed().manager


def register(plugin: object, name: str | None = None) -> str:
    """Add a plug-in by hand, as in a notebook: a module, or an object with `@hookimpl` methods; returns its name.

    Raises:
        WordTreeError: a misspelled hook, or a name that another plug-in offers already (both are named).

    Example:
        >>> from wordtree import LabelMap, build_tree, hookimpl
        >>> class Pets:
        ...     @hookimpl
        ...     def register_label_maps(self):
        ...         return [LabelMap("pets", ("dog", "cat"), ("dog.n.01", "cat.n.01"))]
        >>> register(Pets())
        'Pets'
        >>> build_tree("pets").report.labels
        2
        >>> unregister("Pets")
    """
    name = name or getattr(plugin, "__name__", None) or type(plugin).__name__
    plugins = installed()
    plugins.ask()
    if plugins.manager.has_plugin(name):
        raise WordTreeError(f"plug-in {name!r} is registered already; unregister it first, or give another name")
    before = {plugin: list(faults) for plugin, faults in plugins.faults.items()}
    try:
        plugins.add(plugin, name)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # what is wrong with the new one is raised; with the others, said before
            for collect in (label_maps, taxonomies, detectors):
                collect()
        if name in plugins.faults:
            raise WordTreeError(plugins.faults[name][0])
    except WordTreeError as error:
        if plugins.manager.has_plugin(name):
            plugins.manager.unregister(name=name)
        plugins.faults = before
        raise WordTreeError(f"plug-in {name!r} is left out: {error}") from None
    return name


def unregister(name: str) -> None:
    """Take a plug-in out again, by its name.

    Raises:
        WordTreeError: no plug-in of that name.
    """
    plugins = installed()
    if not plugins.manager.has_plugin(name):
        raise unknown("plug-in", name, [known for known, _ in plugins.manager.list_name_plugin()])
    plugins.manager.unregister(name=name)
    plugins.faults.pop(name, None)


def label_maps() -> Offered[LabelMap]:
    """Every label map on offer, by name.

    Example:
        >>> len(label_maps()["coco"].labels)
        80
    """
    from .labels import LabelMap

    return installed().collect("register_label_maps", "label map", LabelMap)


def taxonomies() -> Offered[Taxonomy]:
    """Every taxonomy on offer, by name.

    Example:
        >>> sorted(taxonomies())
        ['wordnet']
    """
    from .taxonomy import Taxonomy

    return installed().collect("register_taxonomies", "taxonomy", Taxonomy)


def detectors() -> Offered[Detector]:
    """Every detector on offer, by name; `.build(tree, **options)` gives the module."""
    return installed().collect("register_detectors", "detector", Detector)


def listing() -> list[Listed]:
    """Every plug-in found, by name, those left out too, with where it came from and what is wrong."""
    plugins = installed()
    plugins.ask()
    for collect in (label_maps, taxonomies, detectors):  # a hook that breaks is known once it was called
        collect()
    there = dict(plugins.manager.list_name_plugin())
    found = []
    for name in sorted({*(name for name, plugin in there.items() if plugin is not None), *plugins.faults}):
        hooks = {caller.name for caller in plugins.manager.get_hookcallers(there[name]) or ()} if name in there else ()
        source = plugins.source(name) or ("built in" if name == BUILT_IN else "this process")
        found.append(Listed(name, tuple(sorted(hooks)), "; ".join(plugins.faults.get(name, ())), source))
    return found
