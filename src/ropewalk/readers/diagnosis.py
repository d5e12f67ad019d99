"""What `doctor` found: a finding a line, a row a reader, what was mended.

in   findings and rows
out  the verdict, an exit status, JSON
"""

from __future__ import annotations

from dataclasses import asdict, dataclass, replace
from typing import Any, Literal

Verdict = Literal["ok", "wrong", "not checked", "note"]
#: Of the whole: incomplete is what has nothing wrong in it as far as it could be checked, and could not be checked in all.
#: Noted is what would be sound, where notes count.
Overall = Literal["sound", "noted", "incomplete", "wrong"]
#: The exit status of each; 2 is for what could not be examined at all.
EXIT_STATUS: dict[Overall, int] = {"sound": 0, "wrong": 1, "noted": 1, "incomplete": 3}
#: Its notes are of every model, and of what may be done with it later.
_LATER_ON = 11
#: What it notes, a sound model has on purpose and a damaged one by accident: the last line says so.
_ODD = 16
#: What check 14 says of a file beside the weights, after its name: the model may be another one now, which the last line says too.
CHANGED = "was changed after ropewalk wrote it"
#: What it begins with where nothing tells whether weights are those that were trained: the last line says that as well.
NO_DIGEST = "no digest was noted when"
_REFERS = "not before what check"

#: The checks, by number, as docs/doctor.md lists them.
CHECKS: dict[int, str] = {
    1: "spellings of RoPE",
    2: "ropewalk block",
    3: "lengths",
    4: "factor and window",
    5: "tokenizer",
    6: "reach of attention",
    7: "readers that rotate otherwise",
    8: "adapter",
    9: "transformers' own inv_freq",
    10: "files",
    11: "later on",
    12: "tensors",
    13: "code of its own",
    14: "files as written",
    15: "values",
    16: "matrices beside their siblings",
    17: "taken on trust",
}


@dataclass(frozen=True)
class Finding:
    """What one check says, in a sentence.

    Attributes:
        stops: whether such a model is not uploaded and, but for checks 1 to 3, nothing is made of it (refusals.py).
    """

    number: int
    verdict: Verdict
    sentence: str
    stops: bool = False

    @property
    def check(self) -> str:
        """The check's name."""
        return CHECKS[self.number]

    @property
    def is_edit(self) -> bool:
        """Whether it notes that what decides beside the weights was changed."""
        return self.number == 14 and self.verdict == "note" and CHANGED in self.sentence


@dataclass(frozen=True)
class ReaderRow:
    """What one reader would make of the model.

    Attributes:
        reader, version: which.
        window: tokens it would serve by default; None if it finds no length or refuses the model.
        first, last: inv_freq of the first and the last pair, radians a token.
        window_differs, inv_freq_differs: from what the model is meant for, from the closed form.
        scores_differ: whether check 7 says that it gets something else wrong: what queries and keys are multiplied by.
        refusal: why it would not load the model.
    """

    reader: str
    version: str
    window: int | None = None
    first: float | None = None
    last: float | None = None
    window_differs: bool = False
    inv_freq_differs: bool = False
    scores_differ: bool = False
    refusal: str | None = None

    @property
    def differs(self) -> bool:
        """Whether it would make something else of the model than it is meant for."""
        return self.window_differs or self.inv_freq_differs or self.scores_differ


@dataclass(frozen=True)
class Diagnosis:
    """All that was found out about a model.

    Attributes:
        name: as the user named it.
        summary: family, scaling and window in a line.
        findings: at least one for each check that applies.
        readers: a row each.
        changed: what `--fix` changed, a sentence each.
        kept: where the files lie that it changed, as they were.
        unconfirmed: the rope_theta that one spelling alone says and nothing confirms, with its name; empty where there is none.
        strict: whether notes count.
    """

    name: str
    summary: str
    findings: tuple[Finding, ...]
    readers: tuple[ReaderRow, ...] = ()
    changed: tuple[str, ...] = ()
    kept: tuple[str, ...] = ()
    unconfirmed: str = ""
    strict: bool = False

    @property
    def wrong(self) -> list[Finding]:
        """What is wrong."""
        return [finding for finding in self.findings if finding.verdict == "wrong"]

    @property
    def unchecked(self) -> list[Finding]:
        """What could not be checked: a part that does not lie there, a window that the config leaves open, a package that is lacking."""
        return [finding for finding in self.findings if finding.verdict == "not checked"]

    @property
    def noted(self) -> list[Finding]:
        """The notes that count where notes do: those of this model, and none of what every model meets later on."""
        return [finding for finding in self.findings if finding.verdict == "note" and finding.number != _LATER_ON]

    @property
    def odd(self) -> list[Finding]:
        """The notes on weights that a sound model may have, and a damaged one has."""
        return [finding for finding in self.noted if finding.number == _ODD]

    @property
    def edited(self) -> list[str]:
        """The files beside the weights that are not as ropewalk wrote them."""
        return [finding.sentence.partition(f" {CHANGED}")[0] for finding in self.findings if finding.is_edit]

    @property
    def undigested(self) -> bool:
        """Whether no digest was noted of some weights, whose values every check may pass and which may be those of another model."""
        return any(finding.sentence.startswith(NO_DIGEST) for finding in self.noted)

    @property
    def verdict(self) -> Overall:
        """The whole in a word."""
        if self.wrong:
            return "wrong"
        if self.unchecked:
            return "incomplete"
        return "noted" if self.strict and self.noted else "sound"

    @property
    def sound(self) -> bool:
        """Whether every check that applies was made, and none found anything wrong, or anything at all where notes count."""
        return self.verdict == "sound"

    def each_cause_once(self) -> Diagnosis:
        """The same, where a check that says what another one says refers to that, and is no fault of its own."""
        causes = [finding for finding in (*self.wrong, *self.unchecked) if not finding.sentence.startswith(_REFERS)]

        def referring(finding: Finding) -> Finding:
            cause = next((each for each in causes if each.sentence in finding.sentence), finding)
            if cause is finding or finding.verdict not in ("wrong", "not checked"):
                return finding
            return Finding(finding.number, "not checked", f"{_REFERS} {cause.number} says is mended")

        return replace(self, findings=tuple(referring(finding) for finding in self.findings))

    def with_findings(self, findings: list[Finding], number: int) -> Diagnosis:
        """The same with other findings of one check."""
        others = [finding for finding in self.findings if finding.number != number]
        return replace(self, findings=tuple(sorted([*others, *findings], key=lambda finding: finding.number)))

    def to_dict(self) -> dict[str, Any]:
        """As JSON has it."""
        findings = [{**asdict(finding), "check": finding.check} for finding in self.findings]
        return {**asdict(self), "sound": self.sound, "verdict": self.verdict, "findings": findings}
