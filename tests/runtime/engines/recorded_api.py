"""Classes with exactly the names that were recorded of one version of TensorRT; behaviour comes from elsewhere.

Any other name raises AttributeError, and `used` tells which ones were touched.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

RECORDED = Path(__file__).parent / "tensorrt_api"


class Api:
    """The recorded names of one version, less `without`, and those that were used."""

    def __init__(self, version: str, without: tuple[str, str] | None, behaviour: Mapping[str, type]) -> None:
        self.version, self.behaviour = version, behaviour
        self.rtx = version.startswith("rtx-")
        recorded = json.loads((RECORDED / f"{version}.json").read_text())
        self.recorded = {name: sorted(members) for name, members in recorded.items()}
        self.names = {name: set(members) for name, members in recorded.items()}
        if without is not None:
            owner, member = without
            if member:
                self.names[owner].remove(member)
            else:
                del self.names[owner]
        self.used: set[tuple[str, str]] = set()
        self.classes: dict[str, Any] = {}
        self.cuda: Any = None  # the fake CUDA that plans run on, None for a machine without

    def require(self, owner: str, member: str) -> None:
        if owner in self.names and member not in self.names[owner]:
            raise AttributeError(f"TensorRT {self.version} has no {owner}.{member}")
        self.used.add((owner, member))

    def find(self, name: str) -> Any:
        if name not in self.names:
            raise AttributeError(f"TensorRT {self.version} has no {name}")
        self.used.add((name, ""))
        return self.make(name)

    def make(self, name: str) -> Any:
        if name not in self.classes:
            if name in self.behaviour:
                base = self.behaviour[name]
                self.classes[name] = StrictType(name, (base,), {"_api": self, "_name": name})
                self.classes[name]._of_api = self.classes[name]
            else:
                self.classes[name] = Enum(self, name)
        return self.classes[name]

    def member(self, owner: str, name: str) -> Member:
        """For the fake's own use: there even if it was taken away, and not counted as used."""
        return next(each for each in self.make(owner)._all if each.name == name)


class StrictType(type):
    """A class whose own names are those recorded; classes derived from it may have more."""

    def __getattribute__(cls, name: str) -> Any:
        if not name.startswith("_") and type.__getattribute__(cls, "_of_api") is cls:
            cls._api.require(cls._name, name)
        return type.__getattribute__(cls, name)


class Strict(metaclass=StrictType):
    _api: Api
    _name: str
    _of_api: type | None = None

    def __getattribute__(self, name: str) -> Any:
        if not name.startswith("_") and type(self)._of_api is type(self):
            self._api.require(self._name, name)
        return object.__getattribute__(self, name)

    def __setattr__(self, name: str, value: Any) -> None:
        if not name.startswith("_") and type(self)._of_api is type(self):
            self._api.require(self._name, name)
        object.__setattr__(self, name, value)

    def _new(self, name: str, *arguments: Any) -> Any:
        return self._api.make(name)(*arguments)

    def _call(self, target: Any, name: str, *arguments: Any) -> Any:
        """Call what a derived class overrides, which must be a recorded name too."""
        self._api.require(type(target)._name, name)
        return getattr(target, name)(*arguments)


class Member:
    def __init__(self, owner: str, name: str, number: int) -> None:
        self.owner, self.name, self.number = owner, name, number

    def __int__(self) -> int:
        return self.number

    def __repr__(self) -> str:
        return f"{self.owner}.{self.name}"


class Members(dict[str, Member]):
    """`__members__` of an enum; what is taken out of it counts as used."""

    def __init__(self, enum: Enum) -> None:
        names = enum._api.names[enum._name]
        super().__init__({member.name: member for member in enum._all if member.name in names})
        self._enum = enum

    def __getitem__(self, name: str) -> Member:
        member = super().__getitem__(name)
        self._enum._api.used.add((self._enum._name, name))
        return member

    def get(self, name: str, default: Any = None) -> Any:
        try:
            return self[name]
        except KeyError:
            return default


class Enum:
    def __init__(self, api: Api, name: str) -> None:
        self._api, self._name = api, name
        self._all = [Member(name, member, number) for number, member in enumerate(api.recorded[name])]

    @property
    def __members__(self) -> Members:
        return Members(self)

    def __getattr__(self, name: str) -> Member:
        self._api.require(self._name, name)
        return self.__members__[name]
