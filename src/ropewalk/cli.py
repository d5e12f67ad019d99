"""The command line: parse, call, print. One function a command; its signature and docstring are its help.

Everything heavy is imported inside the command that needs it, so that `ropewalk --help` answers at once.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Annotated, Any, Literal

import tyro

from ropewalk.errors import UserError

Model = Annotated[str, tyro.conf.Positional, tyro.conf.arg(metavar="MODEL")]
Out = Annotated[Path, tyro.conf.arg(metavar="DIR")]
RecordFile = Annotated[Path | None, tyro.conf.arg(metavar="FILE.jsonl")]


def extend(
    model: Model,
    /,
    *,
    window: int,
    out: Out,
    method: Literal["linear", "ntk", "yarn", "auto"] = "linear",
    current_window: int | None = None,
    overwrite: bool = False,
    convert_pickle: bool = False,
    trust_remote_code: bool = False,
) -> None:
    """Write a checkpoint with a longer context window. No weight is loaded or changed.

    Args:
        model: `hemp`, a local directory or a hub id.
        window: The new window in tokens; longer than the current one.
        out: Directory of the new checkpoint.
        method: linear is Position Interpolation (Chen et al. 2023, section 2.3); auto keeps the method the model has.
        current_window: What the model reads now, if its config leaves that open.
        overwrite: Replace --out if it exists.
        convert_pickle: Rewrite pickled weights as safetensors (weights-only load).
        trust_remote_code: Accept model code that comes with the checkpoint.
    """
    from ropewalk import extend as extending

    state = extending.extend(
        model,
        window=window,
        out=out,
        method=method,
        current_window=current_window,
        overwrite=overwrite,
        convert_pickle=convert_pickle,
        trust_remote_code=trust_remote_code,
    )
    print(
        f"{out}: {state.family}, window {state.original_window} → {state.window} tokens, {state.method} factor {state.factor:g}; "
        "transformers computes these speeds\n"
        f"vLLM multiplies the window by the factor once more: serve with --max-model-len {state.window}"
    )


def theory(
    *,
    model: str | None = None,
    window: int | None = None,
    out: Annotated[Path | None, tyro.conf.arg(metavar="DIR")] = None,
    overwrite: bool = False,
) -> None:
    """Print and draw what the theory says of a model in a longer window: bounds, growth, angular resolution. No weights.

    Args:
        model: `hemp`, a local directory or a hub id; LLaMA 7B's rotation if not given.
        window: Tokens; the model's own window if it was extended, else 16 times that.
        out: Directory for figures and records; theory-NAME-WINDOW if not given.
        overwrite: Write into --out if it exists.
    """
    from ropewalk.forecast import theory_command

    theory_command(model, window=window, out=out, overwrite=overwrite)


def report(
    records: Annotated[list[Path], tyro.conf.Positional, tyro.conf.arg(metavar="RECORDS.jsonl")],
    /,
    *,
    out: Annotated[Path, tyro.conf.arg(metavar="FILE.html")],
    title: str | None = None,
    overwrite: bool = False,
) -> None:
    """Turn record files into one self-contained page.

    Args:
        records: One or more record files.
        out: The page.
        title: Its heading.
        overwrite: Replace --out if it exists.
    """
    from ropewalk.report import report as write_report

    print(write_report(records, out, title=title, overwrite=overwrite))


COMMANDS: dict[str, Callable[..., Any]] = {
    "extend": extend,
    "theory": theory,
    "report": report,
}


def main(arguments: Sequence[str] | None = None) -> None:
    """Run one command. Exit 0 done, 2 the user's mistake (a sentence, no traceback), 130 interrupted, 1 anything else."""
    # transformers' advice on its own calls is no news to a user of ours; what matters to them we say ourselves.
    os.environ.setdefault("TRANSFORMERS_VERBOSITY", "error")
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
    try:
        tyro.extras.subcommand_cli_from_dict(
            COMMANDS,
            prog="ropewalk",
            description="Give a RoPE language model a longer context window: extend, train, measure, report.",
            args=arguments,
        )
    except UserError as error:
        print(f"ropewalk: {error}", file=sys.stderr)
        raise SystemExit(2) from None
    except KeyboardInterrupt:
        print("ropewalk: interrupted", file=sys.stderr)
        raise SystemExit(130) from None
