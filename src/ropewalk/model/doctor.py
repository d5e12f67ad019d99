"""`ropewalk doctor`: the checks of the room `readers`, and those that need transformers, where it is installed.

in   a model's name
out  a `Diagnosis`; nothing is printed, and no model is loaded
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from ropewalk.checkpoint.checkpoint import Checkpoint
from ropewalk.checkpoint.hub import locate
from ropewalk.checkpoint.window import NOTHING_SAID, Answers
from ropewalk.readers.diagnosis import Diagnosis, Finding
from ropewalk.readers.digest_checks import accept
from ropewalk.readers.examine import examine
from ropewalk.sentences import joined
from ropewalk.settings.command import takes
from ropewalk.settings.doctor import DoctorSettings
from ropewalk.settings.extras import bringing, installed
from ropewalk.settings.options import Opening

_NEEDED = ("torch", "transformers")
_VERIFIED = 9
_TOKENIZER = 5
_FILES, _TENSORS = 10, 12


@takes(DoctorSettings)
def doctor(settings: DoctorSettings) -> Diagnosis:
    """Examine a checkpoint: its config, its tokenizer, its adapter, its weights' headers and values, and what each reader would make of it.

    Returns:
        Findings and a row a reader; `sound` says whether nothing is wrong. With `fix`, as it is after mending.

    Raises:
        UserError: there is nothing that could be examined, or a file that is to be mended or accepted cannot be written.
    """
    model, answers = settings.model, Answers(**settings.answers)
    if isinstance(model, Checkpoint):
        model, answers = model.path, model.answers if answers == NOTHING_SAID else answers
    if settings.accept:
        accept(Path(model), settings.accept)
    diagnosis = examine(
        model, fix=settings.fix, answers=answers, full=settings.full, named_readers=tuple(settings.readers or ())
    )
    diagnosis = replace(diagnosis, strict=settings.strict)
    if not diagnosis.readers or Path(model).is_file():
        return diagnosis
    missing = [name for name in _NEEDED if not installed(name)]
    if missing:
        why = f"needs {joined(missing)}: {bringing(*missing)}"
        for number in (_VERIFIED, _TENSORS):
            diagnosis = diagnosis.with_findings([Finding(number, "not checked", why)], number)
        return diagnosis
    trusted = settings.trust_remote_code
    opening = Opening(
        current_window=answers.current_window, original_window=answers.original_window, trust_remote_code=trusted
    )
    path = locate(model, weights=False, trust_remote_code=trusted)
    return _with_transformers(diagnosis, path, opening).each_cause_once()


def _with_transformers(diagnosis: Diagnosis, path: Path, opening: Opening) -> Diagnosis:
    from ropewalk.model.opens import tensors_fit, tokenizer_fault, verified

    diagnosis = diagnosis.with_findings([verified(path, _VERIFIED, opening)], _VERIFIED)
    files = {finding.verdict for finding in diagnosis.findings if finding.number == _FILES}
    if not files & {"wrong", "not checked"}:
        diagnosis = diagnosis.with_findings(tensors_fit(path, _TENSORS, opening), _TENSORS)
    tokenizer = [finding for finding in diagnosis.findings if finding.number == _TOKENIZER]
    if any(finding.verdict == "ok" for finding in tokenizer):
        if fault := tokenizer_fault(path, trust_remote_code=opening["trust_remote_code"]):
            return diagnosis.with_findings([Finding(_TOKENIZER, "wrong", fault)], _TOKENIZER)
    return diagnosis
