"""Configs are data: yaml files plus ``key=value`` overrides, checked against a dataclass.

A config class is a frozen dataclass; its field types are the rules. ``load_config`` reads the
file, merges the files named by its ``base`` key below it (a path, or a list of them, each over
the one before) and the overrides above it, and reports *every* problem at once: unknown keys (with
the nearest right one), missing keys, wrong types, components that may not be used.
"""

import dataclasses
import difflib
import importlib
import inspect
import json
import math
import types
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Annotated, Any, Literal, TypeVar, Union, cast, get_args, get_origin

import yaml
from omegaconf import OmegaConf
from omegaconf.errors import OmegaConfBaseException
from yaml import YAMLError

from kyvo.common.errors import InputError, InputErrors, Problems
from kyvo.common.files import require_file

T = TypeVar("T")
_LARGEST = 2**63 - 1
_PACKAGES = ("kyvo", "torch", "torchtune", "torchao")


@dataclass(frozen=True)
class Component:
    """Something a config names with ``_component_``: a callable and its keyword arguments."""

    path: str
    arguments: Mapping[str, Any] = field(default_factory=dict)

    def with_defaults(self, **arguments: Any) -> "Component":
        """The same component with ``arguments`` where the config gives none."""
        return Component(self.path, {**arguments, **self.arguments})

    def folders(self) -> tuple[Path, ...]:
        """The folders among its arguments."""
        texts = (value for value in self.arguments.values() if isinstance(value, str))
        return tuple(path for path in map(Path, texts) if path.is_dir())

    def with_all_arguments(self) -> dict[str, Any]:
        """Its keyword arguments, those that are left to their defaults too."""
        parameters = inspect.signature(_locate(self.path)).parameters.values()
        defaults = {p.name: p.default for p in parameters if p.default is not p.empty}
        return {**defaults, **self.arguments}

    def check_complete(self) -> None:
        """Raise an InputError if a key is missing, of a component that the program gives none."""
        try:
            inspect.signature(_locate(self.path)).bind(**self.arguments)
        except TypeError as error:
            raise InputError(f"{self.path}: {error}. Add it beside _component_.") from None

    def build(self, *args: Any, **extra: Any) -> Any:
        """Call the component; ``extra`` are the arguments that the program supplies."""
        try:
            return _locate(self.path)(*args, **{**self.arguments, **extra})
        except InputError:
            raise
        except (TypeError, ValueError) as error:
            raise InputError(f"{self.path}: {error}. Check the keys beside _component_.") from error
        except ImportError as error:
            raise InputError(
                f"{self.path} needs a package that is not installed: {error}. "
                f"Install it with: pip install {error.name or 'PACKAGE'}"
            ) from error


@dataclass(frozen=True)
class Range:
    """Annotation of a number's field: from which to which it may be; ``is_open``: not ``least``."""

    least: float
    most: float = math.inf
    is_open: bool = False

    def __contains__(self, value: float) -> bool:
        return self.least <= value <= self.most and not (self.is_open and value == self.least)

    def __str__(self) -> str:
        if self.most < math.inf:
            return f"{'more than ' if self.is_open else ''}{self.least} to {self.most}"
        return f"more than {self.least}" if self.is_open else f"{self.least} or more"


Seed = Annotated[int, Range(0)]
Count = Annotated[int, Range(1)]
Whole = Annotated[int, Range(0)]
Positive = Annotated[float, Range(0, is_open=True)]
NonNegative = Annotated[float, Range(0)]
Share = Annotated[float, Range(0, 1)]


@dataclass(frozen=True)
class From:
    """Annotation of a Component field: the modules whose members the config may name there."""

    modules: tuple[str, ...]


def load_config(cls: type[T], path: Path | str, overrides: Sequence[str] = ()) -> T:
    """Read ``path``, apply ``key=value`` overrides and build ``cls`` from the result.

    Raises:
        InputError: with a list of every problem found.
    """
    return build_config(cls, read_config(path, overrides), f"config {path}")


def read_config(path: Path | str, overrides: Sequence[str] = ()) -> dict[str, Any]:
    """The plain values of ``path`` with its bases and ``key=value`` overrides merged.

    Raises:
        InputError: a file is missing or not a yaml mapping, or an override is not ``key=value``.
    """
    merged = _merge(_read_with_bases(Path(path)), _parse_overrides(overrides), "overrides")
    try:
        return cast(dict[str, Any], OmegaConf.to_container(merged, resolve=True))
    except OmegaConfBaseException as error:
        raise InputError(f"config {path}: {error}") from None


def build_config(cls: type[T], values: Mapping[str, Any], source: str) -> T:
    """Build the dataclass ``cls`` from plain ``values``; ``source`` names them in errors."""
    problems = Problems()
    result = _build_dataclass(cls, values, "", problems.messages)
    problems.raise_any(source)
    return cast(T, result)


def check_ranges(values: Any) -> None:
    """Hold a dataclass against the ranges of its fields: for those that are made without a config.

    Raises:
        ValueError: naming the first field that is wrong.
    """
    problems: list[str] = []
    for item in dataclasses.fields(values):
        kinds = get_args(item.type) if _is_union(item.type) else (item.type,)
        value = getattr(values, item.name)
        for kind in kinds:
            if value is not None and _has_range(kind):
                _convert(value, kind, item.name, problems)
    if problems:
        raise ValueError(problems[0])


def _is_union(kind: Any) -> bool:
    return get_origin(kind) in (Union, types.UnionType)


def _has_range(kind: Any) -> bool:
    return get_origin(kind) is Annotated and isinstance(get_args(kind)[1], Range)


def suggest(word: str, known: Sequence[str]) -> str:
    """A hint for a misspelt ``word``: the nearest of ``known``, or all of them."""
    near = difflib.get_close_matches(word, known, n=1)
    return f"did you mean '{near[0]}'?" if near else f"known: {', '.join(sorted(known))}"


def _read_with_bases(path: Path, seen: tuple[Path, ...] = ()) -> Any:
    require_file(path, "config")
    if path.resolve() in seen:
        raise InputError(f"config {path}: 'base' leads back to itself. Break the circle.")
    try:
        config = OmegaConf.load(path)
    except (YAMLError, OmegaConfBaseException, UnicodeDecodeError, OSError) as error:
        raise InputError(f"config {path}: not a valid yaml file: {error}") from None
    if not OmegaConf.is_dict(config):
        raise InputError(f"config {path}: expected a mapping of keys to values at the top.")
    named = cast(dict[str, Any], config).pop("base", None)
    bases = list(named) if OmegaConf.is_list(named) else [named] if named is not None else []
    if not all(isinstance(base, str) for base in bases):
        raise InputError(f"config {path}: base: {named!r}: expected a path or a list of paths.")
    below = OmegaConf.create()
    for base in bases:
        # Beside the real file, so that configs reached through a link find their base too.
        parent = path.resolve().parent / str(base)
        below = _merge(below, _read_with_bases(parent, (*seen, path.resolve())), f"config {parent}")
    return _merge(below, config, f"config {path}")


def _merge(below: Any, above: Any, source: str) -> Any:
    """``above`` over ``below``; ``source`` names ``above`` in errors."""
    try:
        return OmegaConf.merge(below, above)
    except (OmegaConfBaseException, TypeError) as error:
        raise InputError(
            f"{source}: {error}: a list cannot replace a mapping, nor a mapping a list."
        ) from None


def _parse_overrides(overrides: Sequence[str]) -> Any:
    for override in overrides:
        if "=" not in override or override.startswith(("-", "=")):
            raise InputError(f"override {override!r}: expected key=value, such as batch_size=4.")
    try:
        return OmegaConf.from_dotlist([_unambiguous(override) for override in overrides])
    except (YAMLError, OmegaConfBaseException) as error:
        raise InputError(f"overrides {list(overrides)}: {error}") from None


def as_override(key: str, value: Path | str) -> str:
    """An override that means this very text, whatever is in it."""
    return f"{key}={_quoted(str(value))}"


def _unambiguous(override: str) -> str:
    """The override with its value quoted where yaml would read a part of it, such as ``run #2``.

    Lists, mappings, quoted texts and tags are left to yaml.
    """
    key, _, text = override.partition("=")
    if not text.strip() or text.lstrip()[0] in "[{'\"!":
        return override
    try:
        tokens = [token for token in yaml.scan(text) if isinstance(token, yaml.ScalarToken)]
    except YAMLError:
        tokens = []
    is_whole = [token.value for token in tokens] == [text.strip()]
    return override if is_whole else f"{key}={_quoted(text, has_references=True)}"


def _quoted(text: str, has_references: bool = False) -> str:
    """A text as yaml; ``${key}`` in it means a value of the config where ``has_references``."""
    quoted = json.dumps(text)
    return quoted if has_references else quoted.replace("${", "\\\\${")


def _build_dataclass(cls: type, values: Any, where: str, problems: list[str]) -> Any:
    if not isinstance(values, Mapping):
        problems.append(f"{where or 'top'}: expected a mapping, found {values!r}")
        return None
    prefix = f"{where}." if where else ""
    fields = {f.name: f for f in dataclasses.fields(cls)}
    for key in values:
        if key not in fields:
            problems.append(f"{prefix}{key}: unknown key; {suggest(str(key), list(fields))}")
    before = len(problems)
    arguments = {}
    for name, item in fields.items():
        if name in values:
            arguments[name] = _convert(values[name], item.type, prefix + name, problems)
        elif item.default is item.default_factory is dataclasses.MISSING:
            problems.append(f"{prefix}{name}: missing; add it")
    if len(problems) > before:
        return None
    try:
        return cls(**arguments)
    except InputErrors as errors:
        problems += [f"{where + ': ' if where else ''}{message}" for message in errors.messages]
        return None
    except ValueError as error:
        problems.append(f"{where + ': ' if where else ''}{error}")
        return None


def _convert(value: Any, kind: Any, where: str, problems: list[str]) -> Any:
    """Turn a yaml ``value`` into type ``kind`` or note the problem."""
    origin, args = get_origin(kind), get_args(kind)
    if _has_range(kind):
        return _convert_number(value, args[0], args[1], where, problems)
    if origin is Annotated:
        return _build_component(value, args[1], where, problems)
    if _is_union(kind):
        if value is None and type(None) in args:
            return None
        kinds = [a for a in args if a is not type(None)]
        return _convert(value, _nearest_kind(value, kinds), where, problems)
    if origin is Literal:
        if value not in args:
            problems.append(f"{where}: {value!r}; {suggest(str(value), [str(a) for a in args])}")
        return value
    if origin is tuple and isinstance(value, list):
        kinds = [args[0]] * len(value) if args[-1] is Ellipsis else list(args)
        if len(kinds) == len(value):
            pairs = zip(value, kinds, strict=True)
            return tuple(
                _convert(v, k, f"{where}[{i}]", problems) for i, (v, k) in enumerate(pairs)
            )
    if origin in (dict, Mapping) and isinstance(value, Mapping):
        return {k: _convert(v, args[1], f"{where}.{k}", problems) for k, v in value.items()}
    if dataclasses.is_dataclass(kind):
        return _build_dataclass(cast(type, kind), value, where, problems)
    return _convert_plain(value, kind, where, problems)


def _nearest_kind(value: Any, kinds: Sequence[Any]) -> Any:
    """The one of several dataclasses that has most of the keys of ``value``."""
    if len(kinds) == 1 or not isinstance(value, Mapping):
        return kinds[0]
    return max(kinds, key=lambda cls: len(value.keys() & {f.name for f in dataclasses.fields(cls)}))


def _convert_number(value: Any, kind: Any, allowed: Range, where: str, problems: list[str]) -> Any:
    before = len(problems)
    number = _convert_plain(value, kind, where, problems)
    if len(problems) == before and number not in allowed:
        problems.append(f"{where}: expected {allowed}, found {value!r}")
    return number


def _number_fault(value: Any) -> str | None:
    """What is wrong with a number, whatever it is for; None of other values."""
    if type(value) is float and not math.isfinite(value):
        return f"expected a finite number, found {value!r}"
    if type(value) is int and abs(value) > _LARGEST:
        return f"expected a number of at most {_LARGEST}, found {value!s:.60}"
    return None


def _convert_plain(value: Any, kind: Any, where: str, problems: list[str]) -> Any:
    fault = _number_fault(value)
    if fault is not None:
        problems.append(f"{where}: {fault}")
        return None
    if kind is float and type(value) in (int, float):
        return float(value)
    if kind is Path and isinstance(value, str):
        return Path(value)
    if kind is Any or (inspect.isclass(kind) and type(value) is kind):
        return value
    expected = kind.__name__ if inspect.isclass(kind) else str(kind)
    problems.append(f"{where}: expected {expected}, found {value!r}")
    return None


def _build_component(value: Any, allowed: From, where: str, problems: list[str]) -> Any:
    if not isinstance(value, Mapping) or not isinstance(value.get("_component_"), str):
        problems.append(f"{where}: expected a mapping with _component_: dotted.path")
        return None
    path = value["_component_"]
    if path.rpartition(".")[0] not in allowed.modules:
        problems.append(
            f"{where}._component_: {path!r} may not be used here; "
            f"expected a member of {' or '.join(allowed.modules)}"
        )
        return None
    arguments = {k: v for k, v in value.items() if k != "_component_"}
    problems += [f"{where}.{key}: {fault}" for key, fault in _number_faults(arguments)]
    try:
        known = inspect.signature(_locate(path)).parameters
    except InputError as error:
        problems.append(f"{where}._component_: {error}")
        return None
    if not any(p.kind is p.VAR_KEYWORD for p in known.values()):
        for key in arguments:
            if key not in known:
                problems.append(f"{where}.{key}: unknown key; {suggest(key, list(known))}")
    return Component(path, arguments)


def _number_faults(values: Any, key: str = "") -> Iterator[tuple[str, str]]:
    """Key and fault of every number in nested values that none is right for."""
    fault = _number_fault(values)
    if fault is not None:
        yield key, fault
    is_named = isinstance(values, Mapping)
    parts = values.items() if is_named else enumerate(values) if isinstance(values, list) else ()
    for name, part in parts:
        yield from _number_faults(
            part, f"{key}.{name}".strip(".") if is_named else f"{key}[{name}]"
        )


def _locate(path: str) -> Callable[..., Any]:
    module_name, _, name = path.rpartition(".")
    try:
        target = getattr(importlib.import_module(module_name), name)
    except (ImportError, AttributeError):
        members = _public_names(module_name)
        raise InputError(f"no {path!r}; {suggest(name, members)}") from None
    defined = target.func if isinstance(target, partial) else target
    home = (getattr(defined, "__module__", None) or "").split(".")[0]
    if not callable(target) or home not in _PACKAGES:
        raise InputError(f"{path!r} is not a component of {', '.join(_PACKAGES)}")
    return cast(Callable[..., Any], target)


def _public_names(module_name: str) -> list[str]:
    try:
        module = importlib.import_module(module_name)
    except ImportError:
        return []
    return [n for n in vars(module) if not n.startswith("_") and callable(getattr(module, n))]
