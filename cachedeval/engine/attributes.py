"""What a class declares: the attributes and annotations that decide how its instances behave."""

import types
from collections.abc import Iterator, Mapping
from typing import Any, get_type_hints

__all__ = ["attributes_of", "hints_of", "is_method"]

_OF_CLASSES = frozenset(
    {
        *("__module__", "__dict__", "__weakref__", "__doc__", "__qualname__", "__firstlineno__"),
        *("__static_attributes__", "__abstractmethods__", "_abc_impl", "__orig_bases__"),
        *("__annotations__", "__annotate__", "__annotate_func__", "__annotations_cache__"),
        *("__parameters__", "__signature__", "__slotnames__", "__classcell__"),
    }
)
"""Attributes of classes that do not count, or that count apart."""

_OF_MEMBERS = frozenset({"_name_", "_value_", "__objclass__", "_sort_order_"})


def is_method(value: Any) -> bool:
    """Return whether an attribute of a class is code of the class."""
    return isinstance(value, types.FunctionType | staticmethod | classmethod | property)


def attributes_of(cls: type) -> Iterator[tuple[str, Any]]:
    """Yield the attributes of a class that count."""
    members: Mapping[str, Any] = cls.__dict__.get("_member_map_", {})
    for name, member in members.items():
        own = {n: v for n, v in vars(member).items() if n not in _OF_MEMBERS}
        yield f"{name} =", (member._value_, own)
    if hasattr(cls, "__struct_fields__"):
        yield from _of_struct(cls)
    if "__pydantic_fields__" in cls.__dict__:
        yield from _of_model(cls)
    for name, value in cls.__dict__.items():
        tables = bool(members) and name[:1] == name[-1:] == "_" and not is_method(value)
        descriptor = isinstance(value, types.GetSetDescriptorType | types.MemberDescriptorType)
        tables = tables or name.startswith("__pydantic_")
        if not (name in _OF_CLASSES or name in members or tables or descriptor):
            yield name, value


def _of_struct(cls: Any) -> Iterator[tuple[str, Any]]:
    """Yield what a msgspec struct declares, which is in no attribute of its own."""
    for index, default in enumerate(cls.__struct_defaults__):
        yield f"default {index}", getattr(default, "factory", default)
    yield "fields", (cls.__struct_fields__, cls.__struct_encode_fields__)
    config = cls.__struct_config__
    options = {name: getattr(config, name) for name in dir(config) if name[0] != "_"}
    yield "options", {name: option for name, option in options.items() if option is not None}


def _of_model(cls: Any) -> Iterator[tuple[str, Any]]:
    """Yield what a pydantic model declares; its other tables hold addresses."""
    yield "fields", cls.__pydantic_fields__
    decorators = cls.__pydantic_decorators__
    for group in decorators.__dataclass_fields__:
        found = getattr(decorators, group)
        for name, decorator in found.items() if isinstance(found, dict) else ():
            yield f"{group} {name}", getattr(decorator, "info", None)


def hints_of(cls: type) -> Mapping[str, Any]:
    """Return the annotations of a class; as text if one of them cannot be resolved."""
    try:
        return dict(get_type_hints(cls, include_extras=True))
    except Exception:  # noqa: BLE001  an annotation may be any expression
        # `inspect.get_annotations` is slow to import.
        own = cls.__dict__.get("__annotations__", {})  # noqa: RUF063
        return {name: str(hint) for name, hint in own.items()}
