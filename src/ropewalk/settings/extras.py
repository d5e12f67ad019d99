"""The extras of `pip install '.[EXTRA]'` in a clone: which of them brings a package that the light core leaves out.

in   the extras that a command needs, or a package that could not be imported
out  one sentence with the line to type
"""

from __future__ import annotations

import importlib.util
from collections.abc import Iterable, Mapping

from ropewalk.errors import UserError

_TRAIN = ("torch", "transformers", "peft", "accelerate", "datasets", "tokenizers", "pyarrow", "zstandard", "scipy")
#: Extra → what is imported of it, by the names that Python has for them; tests/test_wheel.py holds them against pyproject.toml.
EXTRAS = {
    "report": ("matplotlib", "jinja2", "scipy", "tabulate"),  # the lightest first: it is the one to type for scipy
    "train": _TRAIN,
    "eval": (*_TRAIN, "lm_eval", "rouge_score", "wonderwords"),
    "export": (*_TRAIN, "gguf"),
    "low-bit": (*_TRAIN, "torchao", "bitsandbytes"),
    "log": ("tensorboard", "trackio", "wandb"),
}


def installed(package: str) -> bool:
    """Whether Python would find a package, which is not imported."""
    try:
        return importlib.util.find_spec(package) is not None
    except ValueError:  # a module that stands in sys.modules as None
        return False


def bringing(*packages: str) -> str:
    """What is typed for packages that extras bring: one extra that has them all, or the first of each."""
    if alone := next((extra for extra, brought in EXTRAS.items() if {*packages} <= {*brought}), None):
        return _line([alone])
    return _line(next(each for each in EXTRAS if package in EXTRAS[each]) for package in packages)


def refuse_lacking(what: str, extras: Iterable[str]) -> None:
    """Raises UserError unless all that these extras bring is installed."""
    lacking = {extra: next((each for each in EXTRAS[extra] if not installed(each)), None) for extra in extras}
    missing = {extra: package for extra, package in lacking.items() if package}
    if missing:
        raise UserError(f"{what} needs {next(iter(missing.values()))}, which is not installed: {_line(missing)}")


def refuse_absent(needed: Mapping[str, Iterable[str]]) -> None:
    """Raises UserError unless the packages that something needs are installed. needed: what is asked for → packages."""
    for what, packages in needed.items():
        if absent := [each for each in packages if not installed(each)]:
            raise UserError(f"{what} needs {absent[0]}, which is not installed: {bringing(*absent)}")


def explained(error: ModuleNotFoundError) -> Exception:
    """The sentence for a package that could not be imported where an extra brings it; else the error itself."""
    package = (error.name or "").partition(".")[0]
    if not any(package in brought for brought in EXTRAS.values()):
        return error
    return UserError(f"this needs {package}, which is not installed: {bringing(package)}")


def _line(extras: Iterable[str]) -> str:
    listed = ",".join(dict.fromkeys(extras))
    return f'pip install ".[{listed}]" in a clone of ropewalk, or "ropewalk[{listed}]" from an index that has it'
