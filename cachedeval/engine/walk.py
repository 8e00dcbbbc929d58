"""Reading a closure: the forms of all that a function can reach.

A form is plain data that changes when what it stands for behaves differently: data as it is, code by
its source, an instance by its class and state, an installed package by its release. What has no form
is refused by name.
"""

import builtins
import functools
import re
import types
from collections.abc import Iterator
from typing import Any

from cachedeval.engine.attributes import attributes_of, hints_of, is_method
from cachedeval.engine.closure import Step
from cachedeval.engine.encoding import encode
from cachedeval.engine.errors import EncodingError, InputError
from cachedeval.engine.guards import ABSENT, Guards, changeable, content
from cachedeval.engine.imports import imported
from cachedeval.engine.origin import class_name, module_name, release_of
from cachedeval.engine.parts import OpaqueError, classes_in, take_apart
from cachedeval.engine.reads import is_dynamic, is_sink, reads_of
from cachedeval.engine.resource import Resource
from cachedeval.engine.source import code_fingerprint, source_fingerprint

__all__ = ["NoFormError", "Walk"]

_ATOMS = frozenset({str, int, float, bool, bytes, type(None)})

_OF_MODULES = frozenset(
    {"__builtins__", "__cached__", "__doc__", "__file__", "__loader__", "__package__", "__path__"}
) | {"__spec__"}
"""Names of modules that do not count: results must not depend on where a file is."""

_DYNAMIC = "dynamic"
"""Why what finds others by name has no form."""


class Walk:
    """One reading of a closure.

    Args:
        versioned: whether the node has a version.
    """

    def __init__(self, *, versioned: bool) -> None:
        self.versioned = versioned
        self.guards = Guards()
        self.seen: dict[Any, None] = {}
        """Functions, classes and modules whose forms are taken."""
        self._open: dict[int, int] = {}
        """The ids of the objects that are being taken apart, with their depth."""
        self._classes: dict[type, None] = {}
        self._path: list[str] = []

    # Functions.

    def outside(self, function: Any) -> dict[str, Any]:
        """Return the forms of what a function reads from outside, by name."""
        self.seen[function] = None
        self.guards.codes.append((function, changeable(function)))
        found: dict[str, Any] = {}
        code, release = function.__code__, release_of(function.__globals__.get("__name__", ""))
        for name, cell in zip(code.co_freevars, function.__closure__ or (), strict=True):
            value = content(cell)
            self.guards.cells.append((cell, value))
            if value is ABSENT or is_sink(code, name, value):
                continue
            if isinstance(value, types.ModuleType) and not self.versioned:
                self._module_uses(found, name, value, reads_of(code).cells.get(name, set()))
            else:
                self._add(found, name, value)
        if self.versioned or release is not None:
            return found
        self.guards.note_space(function.__dict__)
        for name, value in function.__dict__.items():
            if name != "__wrapped__":
                self._add(found, f".{name}", value)
        for name, chains in reads_of(code).names.items():
            self._add_global(found, function, name, chains)
        self._add_imports(found, function)
        return found

    def _add(self, found: dict[str, Any], name: str, value: Any) -> None:
        """Add the form of a value. With a version, what has no form does not count."""
        if self.versioned:
            form = self._attempt(value, name)
            if form is not ABSENT:
                found[name] = form
            return
        found[name] = self.form(value, name)

    def _attempt(self, value: Any, label: str) -> Any:
        """Return the form of a value, or `ABSENT` if it has none."""
        before = len(self.seen)
        try:
            return self.form(value, label)
        except NoFormError:
            # What was seen on the way is in no form now.
            for key in [*self.seen][before:]:
                del self.seen[key]
            return ABSENT

    def _add_global(
        self, found: dict[str, Any], function: Any, name: str, chains: set[tuple[str, ...]]
    ) -> None:
        names = function.__globals__
        value = names.get(name, ABSENT)
        self.guards.items.append((names, name, value))
        if name == "__name__":
            found[name] = module_name(str(value), names)
        elif value is ABSENT:
            value = vars(builtins).get(name, ABSENT)
            self.guards.items.append((vars(builtins), name, value))
            if value is not ABSENT and (is_dynamic(value) or not _is_builtin(name, value)):
                self._add(found, name, value)
        elif isinstance(value, types.ModuleType):
            self._module_uses(found, name, value, chains)
        elif name not in _OF_MODULES and not is_sink(function.__code__, name, value):
            self._add(found, name, value)

    def _add_imports(self, found: dict[str, Any], function: Any) -> None:
        for statement in reads_of(function.__code__).imports:
            names = function.__globals__
            package = names.get("__package__") or str(names.get("__name__", "")).rpartition(".")[0]
            modules = imported(statement, package)
            self.guards.checks += [module.holds for module in modules if module.file]
            known = {module.name: module.known_by for module in modules if module.known_by}
            if known:
                found[f"import {'.' * statement.level}{statement.module}"] = tuple(known.items())

    def _function(self, function: Any) -> Any:
        # `functools.wraps` gives a wrapper the names of what it wraps, but not to its code.
        module = function.__globals__.get("__name__", "")
        release, name = release_of(module), f"{module}.{function.__code__.co_qualname}"
        if release is not None:
            known_by = name if self.versioned else f"{name} {release}"
            if "<locals>" not in name and function.__closure__ is None:
                return known_by
        else:
            known_by = _fingerprint(function)
        if function in self.seen:  # a function may call itself
            return (known_by, {})
        if hasattr(function, "registry") and hasattr(function, "dispatch"):  # singledispatch
            self.seen[function] = None
            return (known_by, {"registry": self.form(function.registry, "registry")})
        inner: dict[str, Any] = {}
        for label, value in _defaults(function):
            self._add(inner, label, value)
        return (known_by, self.outside(function) | inner)

    # Modules and classes.

    def _module_uses(
        self, found: dict[str, Any], name: str, module: types.ModuleType, chains: set[Any]
    ) -> None:
        """Add what is read through the name of a module."""
        for chain in sorted(chains) or [()]:
            value: Any = module
            label, space = name, module
            for attribute in chain:
                names = vars(value)
                if attribute not in names or attribute in _OF_MODULES:
                    break
                value, space, label = names[attribute], value, f"{label}.{attribute}"
                self.guards.items.append((names, attribute, value))
                if not isinstance(value, types.ModuleType):
                    break
            if isinstance(value, types.ModuleType):
                space = value
            release = release_of(space.__name__)
            if release is None:
                if label.rpartition(".")[2] != "__name__":
                    self._add(found, label, value)
                continue
            found[label.rpartition(".")[0] or label] = release
            # The module's own may have been replaced.
            if is_dynamic(value) or _is_of_project(value):
                self._add(found, label, value)

    def _module(self, module: types.ModuleType) -> Any:
        release = release_of(module.__name__)
        if release is not None:
            return release
        if module in self.seen:
            return ("module", module_name(module.__name__))
        self.seen[module] = None
        self.guards.note_space(vars(module))
        inner: dict[str, Any] = {}
        for name, value in sorted(vars(module).items()):
            if name not in _OF_MODULES and name != "__name__":
                self._add(inner, name, value)
        return ("module", module_name(module.__name__), inner)

    def note_class(self, cls: type) -> None:
        """Count a class whose instances are among the data."""
        self._classes[cls] = None

    def forms_of_classes(self) -> dict[str, Any]:
        """Return the forms of the classes whose instances are among the data, by name."""
        found: dict[str, Any] = {}
        while self._classes:
            # Members of sets were noted in any order.
            cls = min(self._classes, key=class_name)
            del self._classes[cls]
            if cls not in self.seen and not self.versioned:
                self._add(found, class_name(cls), cls)
        return dict(sorted(found.items()))

    def _class(self, cls: type) -> Any:
        name = class_name(cls)
        if cls.__module__ == "builtins" or self.versioned:
            return ("class", name)
        release = release_of(cls.__module__)
        if release is not None:
            return ("class", name, release)
        if cls in self.seen:
            return ("class", name)
        self.seen[cls] = None
        self.guards.note_class(cls)
        inner: dict[str, Any] = {}
        bases = [self.form(base, "base") for base in cls.__bases__ if base is not object]
        for attribute, value in attributes_of(cls):
            if attribute[:2] == attribute[-2:] == "__" and not is_method(value):
                # The tables of a library: they are made of what the class declares.
                form = self._attempt(value, attribute)
                inner |= {} if form is ABSENT else {attribute: form}
            else:
                self._add(inner, attribute, value)
        kind = [self.form(type(cls), "metaclass")] if type(cls) is not type else []
        return ("class", name, bases, kind, inner, self._annotations(cls))

    def _annotations(self, cls: type) -> list[tuple[str, Any]]:
        """Return the annotations of a class: what reads a class by its fields, reads these."""
        found: list[tuple[str, Any]] = []
        for name, hint in hints_of(cls).items():
            form = hint if isinstance(hint, str) else self._attempt(hint, name)
            found.append((name, type(hint).__qualname__ if form is ABSENT else form))
        return found

    # Objects.

    def form(self, value: Any, label: str) -> Any:
        """Return the form of a value: plain data that changes when the value behaves differently.

        Raises:
            NoFormError: it has none.
        """
        if type(value) in _ATOMS:
            return value
        self._path.append(label)
        try:
            return self._form(value)
        finally:
            self._path.pop()

    def _form(self, value: Any) -> Any:  # noqa: PLR0911  one case a kind
        if is_dynamic(value):
            raise NoFormError(self._path, value, _DYNAMIC)
        if isinstance(value, Step):
            return self._step(value)
        if isinstance(value, types.FunctionType):
            return self._function(value)
        if isinstance(value, type):
            return self._class(value)
        if isinstance(value, types.ModuleType) and not self.versioned:
            return self._module(value)
        if isinstance(value, Resource):
            return value.identified
        if value is ... or value is NotImplemented:
            return ("constant", repr(value))
        if isinstance(value, complex):
            return ("complex", value.real, value.imag)
        return self._data(value)

    def _step(self, step: Step) -> Any:
        if step.version is None:
            return self._function(step.function)
        before, self.versioned = self.versioned, True
        try:
            return (step.name, step.version, *self._function(step.function))
        finally:
            self.versioned = before

    def _data(self, value: Any) -> Any:
        """Return plain data as it is, and the form of any other object."""
        if type(value).__module__ == "numpy":  # by its digest, as it may be large
            return self._apart(value)
        try:
            encoded = encode(value)
        except (EncodingError, RecursionError):
            return self._apart(value)
        if type(value) not in _ATOMS:
            classes_in(value, self._classes)
            self.guards.data.append((value, encoded))
        return value

    def _apart(self, value: Any) -> Any:
        if id(value) in self._open:  # it contains itself
            return ("above", len(self._open) - self._open[id(value)])
        if self.versioned and not _is_code(value):
            if release_of(type(value).__module__) is None:
                return ("instance", class_name(type(value)))
            raise NoFormError(self._path, value, "")
        try:
            kind, parts, ordered, fixed = take_apart(value)
        except OpaqueError as error:
            raise NoFormError(self._path, value, str(error)) from None
        self._open[id(value)] = len(self._open)
        try:
            forms = [(label, self.form(part, label)) for label, part in parts]
        finally:
            del self._open[id(value)]
        if not ordered:
            forms = sorted((("", form) for _, form in forms), key=encode)
        if not fixed:
            self.guards.objects.append((value, parts))
        return (kind, forms)


class NoFormError(Exception):
    """An object has no form.

    Args:
        path: the names through which it is reached.
        value: the object.
        why: why it has none.
    """

    def __init__(self, path: list[str], value: Any, why: str) -> None:
        super().__init__(why)
        self.path = [*path]
        self.value = value
        self.why = why

    def refusal(self, title: str) -> InputError:
        """Return the error that names the object and the remedy."""
        name = " / ".join(self.path)
        what = type(self.value).__qualname__
        if self.why is _DYNAMIC:
            return InputError(
                f"{title} uses {name!r}, and what it finds cannot be followed: name it directly, or "
                'give the node a version that covers it, @node(version="1")'
            )
        why = f" ({self.why})" if self.why else ""
        return InputError(
            f"{title} reads {name!r}, a {what} that cannot be part of a key{why}: pass it as an "
            'argument, or give the node a version that covers it, @node(version="1")'
        )


def _is_builtin(name: str, value: Any) -> bool:
    """Return whether a value is the interpreter's own under a name."""
    if isinstance(value, type | types.BuiltinFunctionType):
        return value.__module__ in {"builtins", "io", "_io"} and value.__name__ == name
    return type(value).__module__ == "_sitebuiltins" or any(
        value is each for each in (None, ..., NotImplemented, True, False)
    )


def _is_of_project(value: Any) -> bool:
    """Return whether a value is a function or a class of the project."""
    if isinstance(value, types.FunctionType):
        return release_of(value.__globals__.get("__name__", "")) is None
    return (
        isinstance(value, type)
        and value.__module__ != "builtins"
        and release_of(value.__module__) is None
    )


def _is_code(value: Any) -> bool:
    """Return whether an object is code or a container, without state of its own."""
    code = (functools.partial, staticmethod, classmethod, functools._lru_cache_wrapper)  # noqa: SLF001  it has no public name
    methods = (types.MethodType, types.BuiltinFunctionType)
    containers = (list, tuple, set, frozenset, dict, types.MappingProxyType)
    return isinstance(value, (*code, *methods, re.Pattern)) or type(value) in containers


def _defaults(function: types.FunctionType) -> Iterator[tuple[str, Any]]:
    code, values = function.__code__, function.__defaults__ or ()
    names = code.co_varnames[: code.co_argcount]
    for name, value in zip(names[len(names) - len(values) :], values, strict=True):
        yield f"{name}=", value
    for name, value in (function.__kwdefaults__ or {}).items():
        yield f"{name}=", value


_fingerprints: dict[int, tuple[types.CodeType, str]] = {}


def _fingerprint(function: types.FunctionType) -> str:
    code = function.__code__
    known = _fingerprints.get(id(code))
    if known is None:
        try:
            fingerprint = source_fingerprint((function,))
        except InputError:
            fingerprint = code_fingerprint(function)
        known = _fingerprints[id(code)] = code, fingerprint
    return known[1]
