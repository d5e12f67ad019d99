"""For mkdocstrings: a public function is shown with its own arguments, as `help` shows it, not with the one settings object that its code takes.

Read without importing anything: `@takes(ExtendSettings)` above a function, the fields of that class and the docstrings under them
(src/ropewalk/settings/command.py does the same where the package is imported).
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import griffe


class Takes(griffe.Extension):
    """Put the fields of the settings in the place of a function's only parameter."""

    def on_package(self, *, pkg: griffe.Module, **_: Any) -> None:
        for function, settings in list(_commands(pkg)):
            parameters = _fields(settings)
            for parameter in parameters:
                parameter.annotation = _plain(parameter.annotation)
            function.parameters = griffe.Parameters(*parameters)
            if function.docstring:
                function.docstring.value = _with_arguments(function.docstring.value, parameters)


def _commands(module: griffe.Module) -> Iterator[tuple[griffe.Function, griffe.Class]]:
    for member in module.members.values():
        if member.is_alias:
            continue
        if member.is_module:
            yield from _commands(member)
        elif member.is_function:
            for decorator in member.decorators:
                if decorator.callable_path.endswith("settings.command.takes"):
                    yield member, module.modules_collection[decorator.value.arguments[0].canonical_path]


def _fields(settings: griffe.Class) -> list[griffe.Parameter]:
    """The model, what must be given, the rest; within each what a class adds before what it inherits."""
    classes = [settings, *settings.mro()]

    def place(parameter: griffe.Parameter) -> tuple[bool, bool, bool, int]:
        owner = next(n for n, each in enumerate(classes) if parameter.name in each.members)
        if "kw_only=False" in str(classes[owner].members[parameter.name].value):
            parameter.kind = griffe.ParameterKind.positional_or_keyword
        named = parameter.kind is griffe.ParameterKind.keyword_only
        return named, parameter.name != "model", parameter.default is not None, owner

    return sorted((each for each in settings.parameters if each.name != "self"), key=place)


def _plain(annotation: Any) -> Any:
    """A type without the range and the option that stand beside it."""
    if isinstance(annotation, griffe.ExprSubscript) and str(annotation.left) == "Annotated":
        return _plain(annotation.slice.elements[0])
    if isinstance(annotation, griffe.ExprBinOp):
        return griffe.ExprBinOp(_plain(annotation.left), annotation.operator, _plain(annotation.right))
    if isinstance(annotation, griffe.ExprName):
        try:
            meant = annotation.parent.modules_collection[annotation.canonical_path]
        except KeyError:
            return annotation  # of another package
        return _plain(meant.value) if meant.is_attribute and meant.value is not None else annotation
    return annotation


def _with_arguments(words: str, parameters: list[griffe.Parameter]) -> str:
    """The function's docstring, and the fields' as its arguments, before what it returns or raises."""
    listed = "".join(
        f"    {each.name}: {' '.join(each.docstring.value.split())}\n" for each in parameters if each.docstring
    )
    end = min((at for title in ("\nReturns:", "\nRaises:") if (at := words.find(title)) >= 0), default=len(words))
    return f"{words[:end].rstrip()}\n\nArgs:\n{listed}\n{words[end:]}"
