"""Examine a model without torch and without transformers: every check in order, then what each reader would make of it.

in   `hemp`, a directory, a hub id, a GGUF file, an adapter's directory
out  a `Diagnosis`; or the sentence why there is nothing to examine
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterable, Iterator
from dataclasses import replace
from pathlib import Path

from ropewalk.checkpoint.families import norms_from
from ropewalk.checkpoint.window import NOTHING_SAID, Answers
from ropewalk.errors import UserError
from ropewalk.readers import config_checks, file_checks, spelling_checks, trust_checks, window_checks
from ropewalk.readers.diagnosis import Diagnosis, Finding, ReaderRow
from ropewalk.readers.digest_checks import unchanged
from ropewalk.readers.gguf_checks import examine_gguf
from ropewalk.readers.mend import mend
from ropewalk.readers.rules import readers_called
from ropewalk.readers.spelling_checks import same
from ropewalk.readers.stored_rotation import stored_rotation
from ropewalk.readers.subject import Subject
from ropewalk.readers.value_checks import finite

Check = Callable[[Subject], Iterable[Finding]]
#: Each check of a directory, and what it says where it finds nothing. What only some models have is checked in those alone.
_CHECKS: tuple[tuple[int, Check, str], ...] = (
    (1, spelling_checks.spellings, "transformers 4 and 5 find the same rotation"),
    (2, config_checks.block, ""),
    (3, window_checks.lengths, "every key says the same window"),
    (4, window_checks.other_tools_scaling, ""),
    (5, file_checks.tokenizer, "transformers 4.57 knows the tokenizer's class"),
    (6, config_checks.reach, "every layer sees the whole window"),
    (7, config_checks.rotate_otherwise, "every reader computes the closed form, or refuses"),
    (7, stored_rotation, ""),
    (8, file_checks.adapter, ""),
    (10, file_checks.files_and_dtype, "one set of weights, as its headers and the config say"),
    (10, file_checks.links, ""),
    (11, config_checks.later_on, ""),
    (13, file_checks.own_code, ""),
    (17, trust_checks.on_trust, ""),
)


def examine(
    name: str | Path,
    *,
    fix: bool = False,
    answers: Answers = NOTHING_SAID,
    full: bool = False,
    named_readers: tuple[str, ...] = (),
) -> Diagnosis:
    """Every check that needs neither torch nor transformers.

    Args:
        name: `hemp`, a directory, a hub id or a GGUF file.
        fix: mend what is certain first; the old files stay beside the new ones.
        answers: what the user said of its windows, where the config leaves them open.
        full: read weights of any size.
        named_readers: those that it is meant for, as `--for` names them; none is all.

    Raises:
        UserError: there is nothing that could be examined, an answer contradicts the config, or it cannot be written.
    """
    if Path(name).is_file():
        if fix:
            raise UserError(
                f"--fix mends config.json, and {name} is one file; export the model again with `ropewalk export`"
            )
        if answers != NOTHING_SAID:
            raise UserError(
                f"{answers} says what a config.json leaves open, and {name} is a GGUF file, which names its window; leave it out"
            )
        diagnosis = examine_gguf(Path(name))
        unread = Finding(
            15, "note", "values of a GGUF file are not looked at; those of the model that it was made from are"
        )
        rows = tuple(row for row in diagnosis.readers if row.reader in readers_called(named_readers))
        findings = (*diagnosis.findings, *unchanged(Path(name), full=full), unread)
        return replace(diagnosis, findings=findings, readers=rows)
    subject, changed, kept = Subject.open(name, answers, named_readers=named_readers), [], []
    if fix:
        subject, changed, kept = mend(subject)
    findings = [finding for number, check, fine in _CHECKS for finding in _run(subject, number, check, fine)]
    if not subject.fetched:
        adds = norms_from(subject.config, subject.text)
        values = finite(subject.path, _files(subject), full=full, norms_from=adds)
        findings += [*unchanged(subject.path, full=full), *values]
    rows = () if subject.instead_of_rope or not subject.config else tuple(_rows(subject))
    findings.sort(key=lambda finding: finding.number)
    unconfirmed = trust_checks.unconfirmed_theta(subject)
    diagnosis = Diagnosis(str(name), _summary(subject), tuple(findings), rows, tuple(changed), tuple(kept), unconfirmed)
    return diagnosis.each_cause_once()


def _files(subject: Subject) -> list[Path]:
    """Every file of weights that some reader may take, an adapter's beside its model too."""
    path, shards = subject.path, []
    with contextlib.suppress(UserError):  # check 10 says it
        shards = subject.checkpoint.weight_files if subject.checkpoint.has_weights else []
    return [*path.glob("*.safetensors"), *path.glob("adapter/*.safetensors"), *shards]


def _run(subject: Subject, number: int, check: Check, fine: str) -> list[Finding]:
    if not subject.config and number not in (5, 8, 10, 13):
        return []
    findings = list(check(subject))
    objected = any(finding.verdict in ("wrong", "not checked") for finding in findings)
    about_rope = number in (1, 3, 6, 7)
    if (
        fine
        and not objected
        and not (number in (3, 6, 7) and findings)
        and not any(finding.sentence.startswith(f"{fine.partition(',')[0]}, but") for finding in findings)
        and not (about_rope and (subject.instead_of_rope or subject.unsupported))
    ):
        findings.insert(0, Finding(number, "ok", fine))
    elif number == 2 and subject.block and not objected:
        findings.insert(0, Finding(2, "ok", "the block and the other keys say one thing"))
    elif number == 8 and subject.adapter and not objected:
        findings.insert(0, Finding(8, "ok", "the adapter says what it belongs to"))
    return findings


def _summary(subject: Subject) -> str:
    rope = subject.rope
    if not subject.config:
        return "an adapter without a config.json"
    if rope is None:
        return f"{subject.family or 'no model_type'}{f', {subject.table}' if subject.table else ''}"
    if subject.question is not None:
        return f"{rope.family}, {rope}; window open"
    scaled = (
        f"{rope.rope.window} tokens, {rope}"
        if rope.scaling.method != "plain"
        else f"rope_theta {rope.rope.rope_theta:g}"
    )
    return f"{rope.family}, {scaled}; window {rope.window}"


def _rows(subject: Subject) -> Iterator[ReaderRow]:
    closed_form = subject.closed_form
    for name, reader in subject.readers.items():
        refusal = reader.refusal(subject.config)
        computed = reader.inv_freq(subject.config)
        window = None if refusal else reader.window(subject.config, subject.tokenizer_config)
        yield ReaderRow(
            name,
            reader.version,
            window,
            None if computed is None else float(computed[0]),
            None if computed is None else float(computed[-1]),
            window_differs=None not in (window, subject.window) and window != subject.window,
            inv_freq_differs=computed is not None and closed_form is not None and not same(computed, closed_form),
            scores_differ=not refusal and bool(config_checks.scored_otherwise(subject, reader)),
            refusal=refusal,
        )
