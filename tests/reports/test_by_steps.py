"""Tables by fine-tuning steps have the intervals that the states' own rows have."""

from __future__ import annotations

import math
from pathlib import Path

import pytest

import made_up
from ropewalk import records
from ropewalk.records import Recorder
from ropewalk.reports import passkey, perplexity
from ropewalk.reports.rows import clean

LAB = Path(__file__).resolve().parents[2] / "lab/records"


@pytest.fixture(scope="module")
def page(tmp_path_factory):
    return clean(records.read([made_up.write(tmp_path_factory.mktemp("steps") / "r.jsonl")]), paper=False)


def tables(section):
    return {table.title.split(",")[0]: table for table in section.tables}


def test_perplexity_by_steps_has_the_interval_on_record(page):
    (line,) = tables(perplexity.section(page))["Perplexity by fine-tuning steps"].lines
    rows = {
        m.model_variant.steps: m.row
        for m in page.of(records.Perplexity)
        if m.row.window == 1024 and m.model_variant.method_and_factor == "PI ×4"
    }
    assert len(rows) > 2
    assert [(c.value, c.low, c.high) for c in line.cells] == [
        (rows[step].perplexity, rows[step].low, rows[step].high) for step in sorted(rows)
    ]


def test_k_max_by_steps_has_the_interval_of_the_state(page):
    found = tables(passkey.section(page))
    (line,) = found["k_max by fine-tuning steps"].lines
    (states,) = (table for title, table in found.items() if title.startswith("k_max by state"))
    own = [each for each in states.lines if each.label.startswith("PI ×4") and each.cells[0].text == "1024"]
    assert [(c.value, c.low, c.high) for c in line.cells] == [
        (e.cells[1].value, e.cells[1].low, e.cells[1].high) for e in own
    ]
    assert all(c.low <= c.value <= c.high for c in line.cells)


def test_digits_stand_beside_the_keys_and_what_the_difference_means_once(tmp_path):
    """Gemma 3, untrained and after 5 M tokens of YaRN: 10 and 8 of 40 keys at 32768, each of the others with four digits right."""
    rows = [LAB / f"e/gemma-3-270m/{name}.jsonl" for name in ("none", "yarn-x4-0", "yarn-x4-5M-1e-4-s0")]
    found = tables(passkey.section(clean(records.read(rows), paper=False)))
    (states,) = (table for title, table in found.items() if title.startswith("k_max by state"))
    assert states.head[-2:] == ["all prompts", "digits"] and states.note.count("not a lost key") == 1
    cells = [line.cells for line in states.lines if line.cells[0].text == "32768"]
    assert sorted(each[3].value for each in cells) == pytest.approx([8 / 40, 10 / 40, 24 / 40])
    assert sorted(each[4].value for each in cells) == pytest.approx([168 / 200, 170 / 200, 184 / 200])
    assert all(line.cells[4].low < line.cells[4].value < line.cells[4].high for line in states.lines)
    (line,) = found["Digits of the keys right in the old window by fine-tuning steps"].lines
    assert [cell.value for cell in line.cells] == pytest.approx([184 / 200, 168 / 200])


def test_the_old_window_stands_by_steps_beside_the_new_one(tmp_path):
    """As `train --watch perplexity,passkey` leaves them; the old window is what --watch-stop goes by."""
    seen = {0: (2.0, 128, 2.5, 512), 4: (2.1, 256, 2.2, 768), 8: (2.4, 64, 2.1, 1024)}
    for step, (old, old_reach, new, new_reach) in seen.items():
        recorder = Recorder(tmp_path / "watch.jsonl", made_up.run(made_up.extended(4, step), f"step {step}"))
        for window, nll, reach in ((256, old, old_reach), (1024, new, new_reach)):
            recorder.add(made_up.row(nll, window))
            made_up.passkey(recorder, window, reach)
    page = clean(records.read([tmp_path / "watch.jsonl"]), paper=False)
    sections = perplexity.section(page), passkey.section(page)
    found = {title: [c.value for c in table.lines[0].cells] for part in sections for title, table in tables(part).items()}  # fmt: skip
    by_steps = {title: values for title, values in found.items() if title.endswith("by fine-tuning steps")}
    assert by_steps.pop("Perplexity by fine-tuning steps") == pytest.approx([math.exp(each[2]) for each in seen.values()])  # fmt: skip
    assert by_steps.pop("Perplexity in the old window by fine-tuning steps") == pytest.approx([math.exp(each[0]) for each in seen.values()])  # fmt: skip
    assert by_steps.pop("k_max by fine-tuning steps") == [512, 768, 1024]
    assert by_steps.pop("k_max in the old window by fine-tuning steps") == [128, 256, 64]
    shares = {m.row.window: [] for m in page.of(records.PasskeySummary)}
    for m in page.of(records.PasskeySummary):
        shares[m.row.window].append(m.row.accuracy)
    assert by_steps == {
        "Passkeys found by fine-tuning steps": shares[1024],
        "Passkeys found in the old window by fine-tuning steps": shares[256],
    }
    for part, name in zip(sections, ("perplexity", "k_max"), strict=True):
        drawn = [picture.drawing.axes[0].lines[0].get_ydata() for picture in part.pictures if "by fine-tuning steps" in picture.caption]  # fmt: skip
        expected = {
            "perplexity": (
                [math.exp(each[2]) for each in seen.values()],
                [math.exp(each[0]) for each in seen.values()],
            ),
            "k_max": ([0.5, 0.75, 1.0], [0.5, 1.0, 0.25]),
        }[name]
        for line, values in zip(drawn, expected, strict=True):
            assert list(line) == pytest.approx(values)
