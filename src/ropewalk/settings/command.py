"""What makes a settings class a command: its values are checked (values.py), and a function takes its fields as arguments.

in   a frozen dataclass with a docstring under each field
out  a Python function with the class's own signature and help; the command line reads the same class with tyro
"""

from __future__ import annotations

import ast
import contextlib
import dataclasses
import functools
import inspect
import sys
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any, ClassVar, ParamSpec, TypeVar, get_type_hints

from ropewalk.errors import UserError
from ropewalk.progress import is_first_process
from ropewalk.settings.extras import explained, refuse_absent
from ropewalk.settings.other_names import meant_option
from ropewalk.settings.values import Kind, Refused, has, kind_of, shown

P = ParamSpec("P")
S = TypeVar("S")
R = TypeVar("R")


class Settings:
    """What one command is asked to do. Subclasses are frozen dataclasses; they check their values when they are made."""

    #: Field → what a user who asked for another value should know.
    HINTS: ClassVar[dict[str, str]] = {}

    def __post_init__(self) -> None:
        for field in fields(type(self)):
            object.__setattr__(self, field.name, _taken(self, field))

    def packages(self) -> dict[str, Sequence[str]]:
        """What is asked for → packages of extras without which it would fail, perhaps hours after the start."""
        return {}

    def refuse_at_start(self) -> None:
        """Asked once, when a command is given these settings, and never of a run that has begun: what lies at its `out`.

        Raises:
            UserError: the command would lose something of the user's, or do what it does not mean to.
        """


def _taken(settings: Any, field: dataclasses.Field[Any]) -> Any:
    """A field's value as its type has it."""
    value, kind = getattr(settings, field.name), _kinds_of(type(settings))[field.name]
    try:
        return kind.take(value)
    except Refused as refused:
        way_out = "; ".join(filter(None, (settings.HINTS.get(field.name), refused.way_out))) or _way_out(field)
        rule = ", ".join(filter(None, (kind.words, refused.why)))
        raise UserError(f"{option_name(field.name)} is {rule}, got {shown(value)}; {way_out}") from None


def _way_out(field: dataclasses.Field[Any]) -> str:
    if field.default is dataclasses.MISSING:
        return "give one"
    return "leave it out" if field.default is None else f"leave it out for {field.default}"


@functools.cache
def _kinds_of(settings: type) -> dict[str, Kind]:
    """Field → what it may hold."""
    hints = get_type_hints(settings, include_extras=True)
    return {field.name: kind_of(hints[field.name]) for field in fields(settings)}


def ask_at_start(settings: Any) -> None:
    """Whether the packages are there; and `refuse_at_start`, asked by the first process only: others may come when it has begun to write, and would take
    its files for another run's.
    """
    refuse_absent(settings.packages())
    if is_first_process():
        settings.refuse_at_start()


def takes(settings: Callable[P, S]) -> Callable[[Callable[[S], R]], Callable[P, R]]:
    """Give a function of one settings object the signature of the settings' class: `extend(ExtendSettings)` becomes `extend("hemp", window=…)`.

    Type checkers see the class's signature; `help` and `inspect.signature` too, with the fields' docstrings.
    """

    def decorate(function: Callable[[S], R]) -> Callable[P, R]:
        @functools.wraps(function)
        def call(*args: P.args, **kwargs: P.kwargs) -> R:
            _refuse_unknown(function, call.__signature__, args, kwargs)  # pyrefly: ignore[missing-attribute]
            asked: Any = settings(*args, **kwargs)
            ask_at_start(asked)
            with _modes_kept(vars(asked).values()):
                try:
                    return function(asked)
                except ModuleNotFoundError as error:
                    raise explained(error) from error

        call.__signature__ = _signature(settings, function)  # pyrefly: ignore[missing-attribute] (inspect reads it)
        call.__doc__ = _help(settings, function)
        call.__annotations__ = {}
        return call

    return decorate


def _refuse_unknown(function: Callable[..., Any], signature: inspect.Signature, args: Any, kwargs: Any) -> None:
    """Arguments that there are not or that are missing, by the function's name and not by that of a class behind it."""
    try:
        signature.bind(*args, **kwargs)
    except TypeError as error:
        unknown = [word for word in kwargs if word not in signature.parameters]
        near = next(filter(None, (meant_option(word, signature.parameters) for word in unknown)), None)
        meant = f"did you mean {near}=?" if near else f"help(ropewalk.{function.__name__}) lists what it takes"
        raise UserError(f"{function.__name__} cannot be called like this ({error}); {meant}") from None


@contextlib.contextmanager
def _modes_kept(values: Iterable[Any]) -> Iterator[None]:
    """A user's model in memory is measured in evaluation mode, and goes on being trained in the mode that each of its modules was in."""
    modules = [module for value in values if has(value, "modules", "training") for module in value.modules()]
    modes = [module.training for module in modules]
    try:
        yield
    finally:
        for module, mode in zip(modules, modes, strict=True):
            module.training = mode


def arguments(settings: type, values: object) -> dict[str, Any]:
    """The fields of a settings class as keyword arguments, from an object that has them all."""
    return {field.name: getattr(values, field.name) for field in fields(settings)}


def fields(settings: Any) -> list[dataclasses.Field[Any]]:
    """A class's fields as they are shown: what needs no name first, then `model`, what must be given, a class's own before those it inherits."""
    classes = settings.__mro__

    def place(field: dataclasses.Field[Any]) -> tuple[bool, bool, bool, int]:
        owner = next(n for n, each in enumerate(classes) if field.name in each.__dict__.get("__annotations__", {}))
        return bool(field.kw_only), field.name != "model", field.default is not dataclasses.MISSING, owner

    return sorted(dataclasses.fields(settings), key=place)


def docs_of(settings: Any) -> dict[str, str]:
    """Field → the docstring under it, own or inherited."""
    docs: dict[str, str] = {}
    for each in reversed(settings.__mro__):
        if dataclasses.is_dataclass(each):
            docs |= _docs_in(sys.modules[each.__module__].__file__).get(each.__name__, {})
    return docs


def option_name(name: str) -> str:
    """A field as the command line names it."""
    return name.replace("_", "-")


def _signature(settings: Any, function: Callable[..., Any]) -> inspect.Signature:
    known = inspect.signature(settings).parameters
    by_name = {parameter.name: parameter for parameter in known.values()}
    parameters = [by_name[field.name] for field in fields(settings)]
    positional = [each for each in parameters if each.kind is not inspect.Parameter.KEYWORD_ONLY]
    named = [each for each in parameters if each.kind is inspect.Parameter.KEYWORD_ONLY]
    returned = inspect.signature(function).return_annotation
    return inspect.Signature([*positional, *named], return_annotation=returned)


def _help(settings: Any, function: Callable[..., Any]) -> str:
    """The function's docstring, and the fields' as its arguments, before what it returns or raises."""
    docs = docs_of(settings)
    listed = "\n".join(f"    {field.name}: {docs[field.name]}" for field in fields(settings) if field.name in docs)
    words = inspect.cleandoc(function.__doc__ or "")
    places = [at for title in ("\nReturns:", "\nRaises:") if (at := words.find(title)) >= 0]
    end = min(places, default=len(words))
    return f"{words[:end].rstrip()}\n\nArgs:\n{listed}\n{words[end:]}"


@functools.cache
def _docs_in(path: str) -> dict[str, dict[str, str]]:
    """Class → field → docstring, of all classes in a file."""
    tree = ast.parse(Path(path).read_text(encoding="utf-8"))
    return {node.name: dict(_field_docs(node)) for node in tree.body if isinstance(node, ast.ClassDef)}


def _field_docs(node: ast.ClassDef) -> Iterator[tuple[str, str]]:
    for field, words in zip(node.body, node.body[1:], strict=False):
        if isinstance(field, ast.AnnAssign) and isinstance(field.target, ast.Name) and isinstance(words, ast.Expr):
            if isinstance(words.value, ast.Constant) and isinstance(words.value.value, str):
                yield field.target.id, inspect.cleandoc(words.value.value)
