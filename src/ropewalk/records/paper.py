"""The paper's own figures, tables 1 to 6, as data to stand beside one's own.

Source: Chen, Wong, Chen, Tian, "Extending Context Window of Large Language Models via Position Interpolation",
arXiv 2306.15595 v2. Every model is a LLaMA with L = 2048. A column the paper leaves empty has no entry here.
"""

from __future__ import annotations

from dataclasses import dataclass

WINDOW = 2048  # L, the pretraining window of every model in the paper
WINDOWS = (2048, 4096, 8192, 16384, 32768)
STEPS = (200, 400, 600, 800, 1000, 10000)
BENCHMARKS = ("BoolQ", "PIQA", "RACE-m", "RACE-h", "WinoGrande")
ROUGE = ("R-1", "R-2", "R-L")

#: A depth of the passkey test counts as retrieved from this share of its trials on ("at least 20 %", section 3.3).
PASSKEY_THRESHOLD = 0.2

#: What the paper calls a method, by its word in configs.
METHODS = {"plain": "FT", "linear": "PI"}
ABOVE_1000 = float("inf")  # the paper prints "> 10^3" and no figure


@dataclass(frozen=True)
class PaperRow:
    """One row of a table.

    Attributes:
        model: its size, or its name where it is no LLaMA.
        method: "none" (not extended), "FT" (direct fine-tuning), "PI", or "" where the paper compares another model.
        window: the length the model was extended to, in tokens; 2048 for "none".
        values: column → figure, in the paper's order.
        data: what it was fine-tuned on, where the table compares that.
    """

    model: str
    method: str
    window: int
    values: dict[int | str, float]
    data: str = ""

    @property
    def factor(self) -> float:
        """`window` over the pretraining window."""
        return self.window / WINDOW


@dataclass(frozen=True)
class PaperTable:
    """A table of the paper: what it measures, on what, and its rows."""

    number: int
    title: str
    text: str
    rows: tuple[PaperRow, ...]


def _rows(columns: tuple, figures: list[tuple[str, str, int, str]]) -> tuple[PaperRow, ...]:
    """Rows whose figures fill the columns from the left; fewer figures than columns leave the rest empty."""
    return tuple(
        PaperRow(model, method, window, dict(zip(columns, map(float, line.split()), strict=False)))
        for model, method, window, line in figures
    )


TABLE_1 = PaperTable(
    1,
    "Perplexity by evaluation window",
    "PG-19 test, 100 books",
    _rows(
        WINDOWS,
        [
            ("7B", "none", 2048, "7.20 inf inf inf inf"),
            ("7B", "FT", 8192, "7.21 7.34 7.69"),
            ("7B", "PI", 8192, "7.13 6.96 6.95"),
            ("7B", "PI", 16384, "7.11 6.93 6.82 6.83"),
            ("7B", "PI", 32768, "7.23 7.04 6.91 6.80 6.77"),
            ("13B", "none", 2048, "6.59"),
            ("13B", "FT", 8192, "6.56 6.57 6.69"),
            ("13B", "PI", 8192, "6.55 6.42 6.42"),
            ("13B", "PI", 16384, "6.56 6.42 6.31 6.32"),
            ("13B", "PI", 32768, "6.54 6.40 6.28 6.18 6.09"),
            ("33B", "none", 2048, "5.82"),
            ("33B", "FT", 8192, "5.88 5.99 6.21"),
            ("33B", "PI", 8192, "5.82 5.69 5.71"),
            ("33B", "PI", 16384, "5.87 5.74 5.67 5.68"),
            ("65B", "none", 2048, "5.49"),
            ("65B", "PI", 8192, "5.42 5.32 5.37"),
        ],
    ),
)

TABLE_2 = PaperTable(
    2,
    "Perplexity by evaluation window",
    "proof-pile, 128 documents",
    _rows(
        WINDOWS,
        [
            ("7B", "none", 2048, "2.77"),
            ("7B", "FT", 8192, "2.85 2.74 2.73"),
            ("7B", "PI", 8192, "2.79 2.57 2.39"),
            ("7B", "PI", 16384, "2.79 2.57 2.37 2.25"),
            ("7B", "PI", 32768, "2.82 2.59 2.39 2.24 2.48"),
            ("13B", "none", 2048, "2.66"),
            ("13B", "FT", 8192, "2.71 2.56 2.50"),
            ("13B", "PI", 8192, "2.67 2.47 2.30"),
            ("13B", "PI", 16384, "2.68 2.47 2.29 2.18"),
            ("13B", "PI", 32768, "2.68 2.46 2.28 2.15 2.35"),
            ("33B", "none", 2048, "2.49"),
            ("33B", "FT", 8192, "2.56 2.48 2.47"),
            ("33B", "PI", 8192, "2.50 2.32 2.18"),
            ("33B", "PI", 16384, "2.53 2.34 2.18 2.07"),
            ("65B", "none", 2048, "2.42"),
            ("65B", "PI", 8192, "2.43 2.26 2.12"),
        ],
    ),
)

TABLE_3 = PaperTable(
    3,
    "Perplexity by fine-tuning steps",
    "PG-19 test, evaluated in the new window",
    _rows(
        (0, 200, 400, 600, 800, 1000),
        [("7B", "PI", 8192, "16.10 7.12 7.10 7.02 6.99 6.95"), ("7B", "PI", 16384, "112.13 7.05 6.93 6.88 6.84 6.83")],
    ),
)

TABLE_4 = PaperTable(
    4,
    "Effective window (k_max) by fine-tuning steps",
    "passkey retrieval",
    _rows(
        STEPS,
        [
            ("7B", "FT", 8192, "1792 2048 2048 2048 2304 2560"),
            ("33B", "FT", 8192, "1792 2048 1792 2048 2304"),
            ("7B", "PI", 8192, "8192 8192 8192 8192 8192"),
            ("7B", "PI", 16384, "16384 16384 16384 16384 16384"),
            ("7B", "PI", 32768, "32768 32768 18432 32768 32768"),
            ("33B", "PI", 8192, "8192 8192 8192 8192 8192"),
            ("33B", "PI", 16384, "16384 16384 16384 16384 16384"),
        ],
    ),
)

TABLE_5 = PaperTable(
    5,
    "Benchmarks in the original window",
    "zero-shot accuracy, %",
    (
        *_rows(BENCHMARKS, [("7B", "none", 2048, "76.1 78.9 55.7 42.2 69.6")]),
        PaperRow("7B", "PI", 8192, dict(zip(BENCHMARKS, (73.2, 78.2, 53.8, 41.7, 69.0), strict=True)), "Pile"),
        PaperRow("7B", "PI", 16384, dict(zip(BENCHMARKS, (69.8, 77.6, 53.3, 40.9, 67.8), strict=True)), "Pile"),
        PaperRow("7B", "PI", 32768, dict(zip(BENCHMARKS, (64.7, 77.2, 50.1, 39.6, 66.9), strict=True)), "Pile"),
        PaperRow("7B", "PI", 8192, dict(zip(BENCHMARKS, (75.5, 77.4, 54.5, 41.5, 68.1), strict=True)), "RedPajama"),
        *_rows(BENCHMARKS, [("33B", "none", 2048, "81.6 80.2 61.1 45.9 76.2")]),
        PaperRow("33B", "PI", 8192, dict(zip(BENCHMARKS, (80.2, 80.7, 60.2, 45.7, 75.9), strict=True)), "Pile"),
    ),
)

TABLE_6 = PaperTable(
    6,
    "Long-document summarisation",
    "GovReport, ROUGE",
    _rows(
        ROUGE,
        [
            ("CoLT5 Base 16K", "", 16384, "58.7 29.6 31.4"),
            ("CoLT5 XL 16K", "", 16384, "61.3 32.2 33.8"),
            ("7B", "PI", 16384, "60.0 28.0 29.5"),
        ],
    ),
)

TABLES = (TABLE_1, TABLE_2, TABLE_3, TABLE_4, TABLE_5, TABLE_6)
