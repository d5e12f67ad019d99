"""Whether transformers opens what lies in a directory, for `ropewalk doctor`: the model's rotation, the tokenizer.

in   a directory
out  a finding, or the fault in a sentence; no weight is loaded
"""

from __future__ import annotations

from pathlib import Path

import transformers

from ropewalk.checkpoint.checkpoint import Checkpoint
from ropewalk.checkpoint.tensor_problems import listed, several
from ropewalk.errors import Unsupported, UserError, first_sentence, is_shortage
from ropewalk.model.fit import computed_buffers
from ropewalk.model.load import encodes_only, laid_out, refuse_unknown_code
from ropewalk.model.verify import verify_directory
from ropewalk.readers.diagnosis import Finding
from ropewalk.settings.options import Opening


def verified(path: Path, number: int, opening: Opening) -> Finding:
    """9. The inv_freq that transformers computes from the config, against the closed form."""
    try:
        verify_directory(_opened(path, opening))
    except Unsupported as error:
        return Finding(number, "not checked", str(error))
    except UserError as error:
        return Finding(number, "wrong", str(error))
    except Exception as error:  # whatever transformers makes of a config that it cannot build a model from
        return Finding(number, "not checked", f"transformers builds no model from this config ({_why(error)})")
    return Finding(number, "ok", f"transformers {transformers.__version__} computes the closed form")


def _opened(path: Path, opening: Opening) -> Checkpoint:
    """By any reading of the windows that its config leaves open: the rotation and the tensors are the same by each."""
    checkpoint = Checkpoint.open(path, **opening)
    refuse_unknown_code(checkpoint)
    return checkpoint.readings[0].quietly()


def tensors_fit(path: Path, number: int, opening: Opening) -> list[Finding]:
    """12. The tensors in the files' headers, against those of the model that transformers makes of the config; none is read."""
    try:
        checkpoint = _opened(path, opening)
        problems = [] if encodes_only(checkpoint) else laid_out(checkpoint)
    except Exception as error:  # whatever transformers makes of a config that it cannot build a model from
        return [Finding(number, "not checked", f"whether each tensor has a place: {_why(error)}")]
    findings = [Finding(number, "wrong" if problem.stops else "note", problem.sentence) for problem in problems]
    computed = [] if findings else computed_buffers(checkpoint)
    but = f", but for {several(computed)} that it computes itself ({listed(computed)})" if computed else ""
    return findings or [Finding(number, "ok", f"none is missing, and each has its place in transformers' model{but}")]


def tokenizer_fault(path: Path, *, trust_remote_code: bool = False) -> str:
    """What transformers says when it opens the tokenizer; empty if it does, or if it stops at config.json, which other checks examine."""
    try:
        transformers.AutoConfig.from_pretrained(path, local_files_only=True, trust_remote_code=trust_remote_code)
    except Exception:
        return ""
    try:
        transformers.AutoTokenizer.from_pretrained(path, local_files_only=True, trust_remote_code=trust_remote_code)
    except Exception as error:
        return f"transformers {transformers.__version__} does not open the tokenizer ({_why(error)}); fetch it again"
    return ""


def _why(error: Exception) -> str:
    if is_shortage(error):  # says nothing of the model
        raise error
    return str(error) if isinstance(error, UserError) else f"{type(error).__name__}: {first_sentence(error)}"
