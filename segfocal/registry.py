"""Names in the configuration -> typed configuration classes -> what is built from them.

A registry imports neither torch nor anything that does: the configuration is checked before those seconds are spent.
Built-in configuration classes stand in `segfocal.config`; their builders register themselves when the package that builds
is imported, which happens at the first `build`. A plug-in registers both at once::

    @LOSSES.register("mine", MineConfig)
    def build_mine(config: MineConfig, task: TaskConfig) -> torch.nn.Module: ...
"""

from __future__ import annotations

import dataclasses
import importlib
import importlib.util
from collections.abc import Callable
from importlib.metadata import entry_points
from pathlib import Path
from typing import Any, TypeVar

from pydantic import ConfigDict, PlainValidator, TypeAdapter
from pydantic_core import PydanticCustomError

from segfocal.nearest import did_you_mean

Config = TypeVar("Config", bound=type)
Builder = TypeVar("Builder", bound=Callable[..., Any])


class Registry:
    """The options of one configuration group.

    Args:
        group: the configuration group, as in `loss=focal`.
        package: the package whose import registers the built-in builders.
    """

    def __init__(self, group: str, package: str) -> None:
        self.group = group
        self.package = package
        self._configs: dict[str, type] = {}
        self._builders: dict[type, Callable[..., Any]] = {}

    def config(self, name: str) -> Callable[[Config], Config]:
        """Register a configuration class under a name."""

        def add(cls: Config) -> Config:
            known = self._configs.get(name)
            if known is not None and known.__qualname__ != cls.__qualname__:
                raise ValueError(f"{self.group}={name} is registered already, by {known.__module__}.{known.__qualname__}")
            if "__pydantic_config__" not in vars(cls):  # a plain dataclass: unknown keys are mistakes there too
                cls.__pydantic_config__ = ConfigDict(extra="forbid")  # type: ignore[attr-defined]  # read by pydantic
            self._configs[name] = cls
            return cls

        return add

    def builder(self, config_class: type) -> Callable[[Builder], Builder]:
        """Register what builds from a configuration class."""

        def add(builder: Builder) -> Builder:
            self._builders[config_class] = builder
            return builder

        return add

    def register(self, name: str, config_class: type) -> Callable[[Builder], Builder]:
        """Register a name, its configuration class and its builder: all that a plug-in needs."""
        self.config(name)(config_class)
        return self.builder(config_class)

    def classes(self) -> dict[str, type]:
        """The configuration classes seen so far, by their names."""
        return dict(sorted(self._configs.items()))

    def find(self, name: str) -> type | None:
        """The configuration class of a name; looks into the package and the installed plug-ins for names not seen so far."""
        if name not in self._configs:
            self._load(name)
        return self._configs.get(name)

    def _load(self, name: str) -> None:
        for point in entry_points(group=self.package, name=name):
            point.load()
        if name.isidentifier() and name not in self._configs and self._has_module(name):
            importlib.import_module(f"{self.package}.{name}")

    def _has_module(self, name: str) -> bool:
        """Whether the package has a file of that name; found without importing the package, which would import torch."""
        spec = importlib.util.find_spec(self.package)
        return spec is not None and any(Path(folder, f"{name}.py").is_file() for folder in spec.submodule_search_locations or [])

    def build(self, config: Any, *args: Any, **kwargs: Any) -> Any:
        """Build what `config` describes; the builder is found by its type."""
        importlib.import_module(self.package)
        return self._builders[type(config)](config, *args, **kwargs)

    def validate(self, value: Any) -> Any:
        """A configuration object from a plain mapping with a `name`; raises pydantic's ValidationError."""
        if type(value) in self._configs.values():
            return value
        name = value.get("name") if isinstance(value, dict) else None
        if not isinstance(name, str):
            raise PydanticCustomError("no_option", "must be a mapping with the name of a {group}", {"group": self.group})
        cls = self.find(name)
        if cls is None:
            hint = did_you_mean(name, list(self._configs))
            raise PydanticCustomError(
                "unknown_option", "no {group} is named '{name}'{hint}", {"group": self.group, "name": name, "hint": hint}
            )
        fields = {key: item for key, item in value.items() if key != "name" or "name" in {item.name for item in dataclasses.fields(cls)}}
        return TypeAdapter(cls).validate_python(fields)

    @property
    def field(self) -> PlainValidator:
        """For `Annotated[Base, REGISTRY.field]` in a configuration class."""
        return PlainValidator(self.validate)


LOSSES = Registry("loss", "segfocal.losses")
