"""Two processes answer and summarise what one does."""

import json
import subprocess
import sys

from ropewalk import testing
from ropewalk.evals.attention import attention
from ropewalk.evals.downstream.benchmarks import benchmarks
from ropewalk.evals.downstream.summary import summarize
from ropewalk.records import Adjacent, AttentionScores, Benchmark, DocumentSummary, Records, Summary, read

MEASURE = """
import sys
from ropewalk import attention, benchmarks, summarize
from ropewalk.cli.tables import downstream
from ropewalk.cli.tables.attention import show_attention
model, folder, out = sys.argv[1:]
downstream.show_benchmarks(benchmarks(model, tasks=["piqa"], data=folder, out=out))
downstream.show_summaries(summarize(model, data=folder + "/pairs.jsonl", summary_tokens=8, batch=1, out=out))
show_attention(attention(model, data=folder + "/long.txt", window=300, out=out))
"""


def test_ranks_change_no_answer_and_no_summary(tmp_path):
    model = testing.tiny_directory(tmp_path / "model", window=256)
    items = [
        dict(goal=testing.prose(5, i), sol1=testing.prose(4, i + 50), sol2=testing.prose(5, i + 90), label=i % 2)
        for i in range(7)
    ]
    (tmp_path / "piqa.jsonl").write_text("".join(json.dumps(item) + "\n" for item in items), encoding="utf-8")
    pairs = [dict(document=testing.prose(20 + i, i), summary=testing.prose(5, i + 30)) for i in range(3)]
    (tmp_path / "pairs.jsonl").write_text("".join(json.dumps(pair) + "\n" for pair in pairs), encoding="utf-8")
    (tmp_path / "long.txt").write_text(testing.prose(80, 7), encoding="utf-8")
    (tmp_path / "measure.py").write_text(MEASURE, encoding="utf-8")
    launch = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"]
    done = subprocess.run(
        [*launch, tmp_path / "measure.py", model, tmp_path, tmp_path / "two.jsonl"], capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.count("┏") == 2, "each table once, not once a rank"
    assert done.stdout.count("Attention scores before the softmax") == 1

    benchmarks(model, tasks=["piqa"], data=tmp_path, out=tmp_path / "one.jsonl")
    summarize(model, data=tmp_path / "pairs.jsonl", summary_tokens=8, batch=1, out=tmp_path / "one.jsonl")
    attention(model, data=tmp_path / "long.txt", window=300, out=tmp_path / "one.jsonl")

    def plain(records: Records, kind: type) -> list[dict]:
        return [{name: value for name, value in vars(m.row).items() if name != "seconds"} for m in records.of(kind)]

    one, two = read([tmp_path / "one.jsonl"]), read([tmp_path / "two.jsonl"])
    for kind in (Benchmark, Summary, AttentionScores, Adjacent):
        assert plain(two, kind) == plain(one, kind) != []
    assert len(two.of(DocumentSummary)) == 6 and not two.left_out.damaged
