"""The plug-in manager: finds plug-ins by the entry-point group `wordtree`, loads them one by one, asks their hooks.

A plug-in that breaks, or that misspells a hook, is named in a warning and in `listing()`; the others work on. A name
that two plug-ins offer is refused to both, so that what it means never depends on the order of installation.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from functools import lru_cache
from importlib.metadata import EntryPoint, entry_points
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
    """One plug-in as `wordtree plugins` shows it: its name, its hooks, and what is wrong with it where something is."""

    name: str
    hooks: tuple[str, ...]
    fault: str = ""


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
    """A manager, and what is wrong with the plug-ins that it was given: plug-in name -> faults."""

    manager: pluggy.PluginManager
    faults: dict[str, list[str]] = field(default_factory=dict)

    def add(self, plugin: object, name: str | None = None) -> str:
        """Register one plug-in, wholly or not at all; returns its name.

        Raises:
            WordTreeError: a name or plug-in that is there already, a hook that does not exist, or a hook with arguments
                that it is not given.
        """
        name = name or getattr(plugin, "__name__", None) or type(plugin).__name__
        if self.manager.has_plugin(name) or self.manager.is_registered(plugin):
            raise WordTreeError(f"plug-in {name!r} is registered already; unregister it first, or give another name")
        try:
            self.manager.register(plugin, name=name)
            for caller in self.manager.get_hookcallers(plugin) or ():
                if not caller.has_spec():  # pluggy itself takes a misspelled hook without a word, and never calls it
                    raise unknown("hook", caller.name, HOOKS)
        except (pluggy.PluginValidationError, WordTreeError) as error:
            self.manager.unregister(name=name)
            told = " ".join(str(error).split())  # pluggy writes several lines
            raise WordTreeError(f"plug-in {name!r} is left out: {told}") from error
        return name

    def fault(self, name: str, what: str) -> None:
        """Note what is wrong with a plug-in, and say so once."""
        if what not in self.faults.setdefault(name, []):
            self.faults[name].append(what)
            warnings.warn(f"plug-in {name!r}: {what}", stacklevel=2)

    def collect(self, hook: str, kind: str, record: type[T]) -> Offered[T]:
        """What all plug-ins together return from a hook, by name."""
        offered: Offered[T] = Offered(kind)
        givers: dict[str, list[str]] = {}
        for impl in getattr(self.manager.hook, hook).get_hookimpls():
            try:
                records = list(impl.function())
                wrong = [item for item in records if not isinstance(item, record)]
                if wrong:
                    raise TypeError(f"{hook} returned {wrong[0]!r}; it returns a list of {record.__name__}")
            except Exception as error:  # a stranger's code: whatever it raises must not take the rest down
                self.fault(impl.plugin_name, _told(error))
                continue
            for item in records:
                name: str = item.name
                givers.setdefault(name, []).append(impl.plugin_name)
                offered[name] = item
        for name, plugins in givers.items():
            if len(plugins) > 1:
                del offered[name]
                both = " and ".join(map(repr, plugins))
                offered.refused[name] = (
                    f"{kind} {name!r} is offered by the plug-ins {both}; remove one, or rename its map"
                )
                for plugin in dict.fromkeys(plugins):
                    self.fault(plugin, offered.refused[name])
        return offered


def _told(error: Exception) -> str:
    return str(error) if isinstance(error, WordTreeError) else f"{type(error).__name__}: {error}"


HOOKS = ("register_label_maps", "register_taxonomies", "register_detectors")


def load(entries: Iterable[EntryPoint]) -> Plugins:
    """A fresh manager with wordtree's own hooks and the plug-ins that the entry points name, in order of name."""
    from . import taxonomy

    plugins = Plugins(pluggy.PluginManager("wordtree"))
    plugins.manager.add_hookspecs(hookspecs)
    plugins.add(taxonomy, "wordtree")
    for entry in sorted(entries, key=lambda entry: (entry.name, entry.value)):
        try:
            plugins.add(entry.load(), entry.name)
        except Exception as error:  # an import may raise anything
            plugins.fault(entry.name, _told(error))
    return plugins


@lru_cache(maxsize=1)
def installed() -> Plugins:
    """The plug-ins of this environment, found once a process."""
    return load(entry_points(group="wordtree"))


def manager() -> pluggy.PluginManager:
    """The pluggy manager behind the functions below."""
    return installed().manager


def register(plugin: object, name: str | None = None) -> str:
    """Add a plug-in by hand, a module or an object with `@hookimpl` methods; returns its name.

    Raises:
        WordTreeError: a misspelled hook, or a name that another plug-in offers already (both are named).
    """
    plugins = installed()
    added = plugins.add(plugin, name)
    before = {plugin: list(faults) for plugin, faults in plugins.faults.items()}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # what is wrong with the new one is raised; with the others, said before
        for collect in (label_maps, taxonomies, detectors):
            collect()
    if added in plugins.faults:
        wrong = plugins.faults[added][0]
        plugins.manager.unregister(name=added)
        plugins.faults = before
        raise WordTreeError(f"plug-in {added!r} is left out: {wrong}")
    return added


def unregister(name: str) -> None:
    """Take a plug-in out again, by its name."""
    installed().manager.unregister(name=name)
    installed().faults.pop(name, None)


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
    """Every plug-in found, by name, those left out too, with the reason."""
    plugins = installed()
    for collect in (label_maps, taxonomies, detectors):  # a hook that breaks is known once it was called
        collect()
    found = []
    for name, plugin in plugins.manager.list_name_plugin():
        hooks = tuple(sorted(caller.name for caller in plugins.manager.get_hookcallers(plugin) or ()))
        found.append(Listed(name, hooks, "; ".join(plugins.faults.get(name, ()))))
    names = {plugin.name for plugin in found}
    found += [Listed(name, (), "; ".join(why)) for name, why in plugins.faults.items() if name not in names]
    return sorted(found, key=lambda plugin: plugin.name)
