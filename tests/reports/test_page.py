"""The page in a real browser: nothing runs over its edge on a phone, a desktop or paper, and nothing in it is a script.

The records are made up (made_up.py). Chromium comes from scripts/install-chromium.sh; without it these tests are skipped.
"""

from __future__ import annotations

import json
import re
import shutil
import subprocess
from html import unescape
from pathlib import Path

import pytest

import made_up
from ropewalk import UserError
from ropewalk.reports import report

CHROMIUM = next(
    (path for name in ("chromium", "chromium-browser", "google-chrome") if (path := shutil.which(name))), None
)
pytestmark = pytest.mark.skipif(CHROMIUM is None, reason="no Chromium on this machine: run scripts/install-chromium.sh")

PHONE, DESKTOP, PAPER = 390, 1440, 680  # px; the last is A4 less its margins
# What is measured inside the frame of each width. A figure's own text is measured against its figure.
MEASURE = """
const out = {};
for (const frame of document.querySelectorAll('iframe')) {
  const page = frame.contentDocument, width = frame.clientWidth;
  const outside = [...page.body.querySelectorAll('*')].filter(e => {
    if (e.closest('svg') && e.tagName !== 'svg') return false;
    if (e.parentElement.closest('.scroll')) return false;
    const box = e.getBoundingClientRect();
    return box.width > 0 && (box.right > width + 0.5 || box.left < -0.5);
  });
  const texts = [...page.querySelectorAll('figure svg text')];
  const loose = texts.filter(t => {
    const box = t.getBoundingClientRect(), figure = t.closest('svg').getBoundingClientRect();
    return box.right > figure.right + 2 || box.left < figure.left - 2 || box.bottom > figure.bottom + 2 || box.top < figure.top - 2;
  });
  out[frame.id] = {
    width: width,
    scrollWidth: page.documentElement.scrollWidth,
    height: page.documentElement.scrollHeight,
    outside: outside.slice(0, 5).map(e => e.tagName + '.' + (e.getAttribute('class') || '') + ' ' + e.textContent.slice(0, 40)),
    loose: loose.map(t => t.textContent),
    smallest: Math.min(...texts.map(t => t.getBoundingClientRect().height)),
    figures: [...page.querySelectorAll('figure svg')].map(s => Math.round(s.getBoundingClientRect().width)),
    tables: [...page.querySelectorAll('.scroll')].map(s => [s.clientWidth, s.scrollWidth]),
    torn: [...page.querySelectorAll('.tiles dd:not(.against)')].filter(d => {
      const lines = d.textContent.trim().split(' ').map(word => {
        const at = d.textContent.indexOf(word), range = page.createRange();
        range.setStart(d.firstChild, at); range.setEnd(d.firstChild, at + word.length);
        return new Set([...range.getClientRects()].map(box => Math.round(box.top))).size;
      });
      return lines.some(n => n > 1);
    }).map(d => d.textContent),
    columns: new Set([...page.querySelectorAll('figure')].map(f => Math.round(f.getBoundingClientRect().left))).size,
    ids: [...page.querySelectorAll('[id]')].map(e => e.id),
    broken: [...page.querySelectorAll('use')].filter(u => !page.getElementById(u.getAttribute('xlink:href').slice(1))).length,
  };
}
const said = document.createElement('pre');
said.id = 'measured';
said.textContent = JSON.stringify(out);
document.body.append(said);
"""


def chromium(*arguments: str, home: Path) -> subprocess.CompletedProcess[str]:
    """One headless run that talks to nobody."""
    flags = ["--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--hide-scrollbars"]
    flags += [
        "--disable-background-networking",
        "--disable-component-update",
        "--disable-sync",
        f"--user-data-dir={home}",
    ]
    flags += ["--allow-file-access-from-files", "--enable-logging=stderr", "--window-size=1500,1200"]
    return subprocess.run([CHROMIUM or "", *flags, *arguments], capture_output=True, text=True, timeout=600)


@pytest.fixture(scope="module")
def page(tmp_path_factory) -> Path:
    """A page of everything, with a name, a path and a command that are longer than a phone is wide."""
    folder = tmp_path_factory.mktemp("page")
    records = made_up.write(folder / "records.jsonl")
    long = made_up.extended(
        16, 200, "linear", name="/data/checkpoints/" + "a-very-long-directory-name-without-a-blank/" * 4
    )
    run = made_up.run(long, "ropewalk perplexity " + "x" * 300, settings={"note": "y" * 180})
    made_up.Recorder(records, run).add(made_up.perplexity(4096, 2.2))
    return report([records], folder / "report.html")


def measure(pages: dict[int, Path]) -> dict:
    """Pages at their widths, measured by one browser run."""
    frames = "".join(
        f'<iframe id="w{width}" src="{source.as_uri()}" style="width:{width}px;height:1200px;border:0"></iframe>'
        for width, source in pages.items()
    )
    folder = next(iter(pages.values())).parent
    frame = folder / "frame.html"
    frame.write_text(
        f"<!doctype html><body>{frames}<script>onload = () => {{ {MEASURE} }}</script></body>", encoding="utf-8"
    )
    run = chromium("--dump-dom", frame.as_uri(), home=folder / "browser")
    match = re.search(r'<pre id="measured">(.*?)</pre>', run.stdout, re.DOTALL)
    assert match, run.stderr[-2000:]
    return {"errors": [line for line in run.stderr.splitlines() if "CONSOLE" in line], **json.loads(unescape(match[1]))}


@pytest.fixture(scope="module")
def measured(page) -> dict:
    """The page at three widths. Paper is the print rules applied to a frame of its width."""
    paper = page.with_name("paper.html")
    text = page.read_text(encoding="utf-8")
    assert "@media print" in text
    paper.write_text(text.replace("@media print", "@media screen"), encoding="utf-8")
    return measure({PHONE: page, DESKTOP: page, PAPER: paper})


@pytest.fixture(scope="module")
def small(tmp_path_factory) -> dict:
    """The page of a small suite: few states, short labels, so tables that are just too wide for half a page."""
    folder = tmp_path_factory.mktemp("small")
    path, trained = folder / "records.jsonl", made_up.extended(steps=6)
    for state, window in ((made_up.BASE, 256), (trained, 1024)):
        rows = [made_up.retrieval(family, window, 0.5) for family in ("keys", "values", "lookalikes", "chain")]
        rows += [made_up.perplexity(size, 5.1) for size in (256, 512, 1024)]
        rows += [made_up.benchmark("piqa", 0.6, seed=state.steps)]  # a fifth tile, so that each is narrow
        recorder = made_up.Recorder(path, made_up.run(state, "ropewalk evaluate"))
        for row in rows:
            recorder.add(row)
        made_up.passkey(recorder, window, window)
    return measure({PHONE: report([path], folder / "report.html"), DESKTOP: folder / "report.html"})


@pytest.mark.parametrize("width", [PHONE, DESKTOP, PAPER])
def test_nothing_runs_over_the_edge(measured, width):
    layout = measured[f"w{width}"]
    assert layout["width"] == width
    assert layout["outside"] == []
    assert layout["scrollWidth"] <= width


@pytest.mark.parametrize("width", [PHONE, DESKTOP])
def test_every_word_of_a_figure_stays_inside_it(measured, width):
    assert measured[f"w{width}"]["loose"] == []


def test_a_phone_shows_one_column_of_legible_figures(measured):
    layout = measured[f"w{PHONE}"]
    assert layout["columns"] == 1
    assert min(layout["figures"]) > 0.85 * PHONE
    assert layout["smallest"] >= 7  # px of line height of the smallest tick label; below that it cannot be read


def test_a_desktop_shows_two_columns_and_no_table_scrolls(measured, small):
    layout = measured[f"w{DESKTOP}"]
    assert layout["columns"] == 2
    for tables in (layout["tables"], small[f"w{DESKTOP}"]["tables"]):
        assert [pair for pair in tables if pair[1] > pair[0] + 1] == []


def test_no_figure_of_a_tile_is_torn_in_two(small):
    """157.7 → 216.2 may go on in a second line, but not inside a number: every line of a tile's figure is a whole word."""
    for width in (PHONE, DESKTOP):
        assert small[f"w{width}"]["torn"] == []


def test_no_table_is_cut_off_on_paper(measured):
    assert [pair for pair in measured[f"w{PAPER}"]["tables"] if pair[1] > PAPER] == []


def test_ids_are_unique_and_every_marker_is_found(measured):
    layout = measured[f"w{DESKTOP}"]
    assert len(layout["ids"]) == len(set(layout["ids"]))
    assert layout["broken"] == 0


def test_the_browser_reports_no_error(measured):
    assert measured["errors"] == []


def test_the_verdict_prints_as_a_page_of_its_own(page, tmp_path):
    """It is the first page of the report too: what is printed after it begins a second one."""
    records = page.with_name("records.jsonl")
    whole, alone = (
        report([records], tmp_path / f"{only}.pdf", verdict_only=only).read_bytes() for only in (False, True)
    )
    lab = Path(__file__).parents[2] / "lab/records/c/smollm2-135m"  # four methods, several seeds
    compared = report([lab], tmp_path / "compared.pdf", verdict_only=True).read_bytes()
    pages = re.compile(rb"/Type ?/Page\b(?!s)")
    assert [len(pages.findall(text)) for text in (alone, compared)] == [1, 1] and len(pages.findall(whole)) > 1
    text = report([records], tmp_path / "alone.html", verdict_only=True).read_text(encoding="utf-8")
    assert 'class="verdict"' in text and "<main" not in text and 'href="#' not in text


def test_it_prints(page, monkeypatch):
    records, out = page.with_name("records.jsonl"), page.with_name("report.pdf")
    report([records], out)
    report([records], out, overwrite=True)  # known as ropewalk's own
    assert out.read_bytes().startswith(b"%PDF")
    other = page.with_name("other.pdf")
    other.write_bytes(b"%PDF-1.4\n%%EOF\n")
    with pytest.raises(UserError, match="something else"):
        report([records], other, overwrite=True)
    monkeypatch.setattr(shutil, "which", lambda name: None)
    with pytest.raises(UserError, match=r"no Chromium, Chrome or Edge on this machine; name an \.html"):
        report([records], out, overwrite=True)
