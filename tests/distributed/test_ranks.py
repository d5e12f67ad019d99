"""Two processes measure what one does, to the last bit."""

import json
import subprocess
import sys

import pytest
import torch

from ropewalk import records
from ropewalk.distributed import ranks
from ropewalk.evals.long_context import ruler
from ropewalk.evals.perplexity.context_gain import gain
from ropewalk.evals.perplexity.measure import perplexity
from ropewalk.evals.retrieval import retrieval
from ropewalk.evals.retrieval.passkey import passkey
from ropewalk.testing import prose, tiny_directory

MEASURE = """
import sys
from ropewalk.cli.tables import measured
from ropewalk import gain, passkey, perplexity, retrieval, ruler
model, data, out = sys.argv[1:]
measured.show_perplexity(perplexity(model, data=[data], windows=[64], stride=16, out=out))
measured.show_perplexity(perplexity(model, data=[data], windows=[48], stride=16, budget=10, tolerance=0, out=out))
measured.show_gain(gain(model, data=[data], window=64, short=16, out=out))
measured.show_gain(gain(model, data=[data], window=48, short=16, budget=10, tolerance=0, out=out))
measured.show_passkey(*passkey(model, window=300, depths=5, trials=2, out=out))
measured.show_retrieval(retrieval(model, window=2200, families=["keys"], trials=3, out=out))
measured.show_ruler(*ruler(model, windows=[800], tasks=["niah_single_1", "cwe"], items=3, out=out))
"""


def plain(measurements):
    """Rows without what differs from run to run: times."""
    return [{name: value for name, value in vars(m.row).items() if name != "seconds"} for m in measurements]


def test_ranks_change_nothing(tmp_path):
    model, data = tiny_directory(tmp_path / "model"), tmp_path / "data"
    data.mkdir()
    for at, words in enumerate((60, 90, 75, 120, 66)):
        (data / f"{at}.txt").write_text(prose(words, at))
    (tmp_path / "measure.py").write_text(MEASURE)
    launch = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"]
    done = subprocess.run(
        [*launch, tmp_path / "measure.py", model, data, tmp_path / "two.jsonl"], capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.count("┏") == 7, "each table once, not once a rank"

    perplexity(model, data=[data], windows=[64], stride=16, out=tmp_path / "one.jsonl")
    perplexity(model, data=[data], windows=[48], stride=16, budget=10, tolerance=0, out=tmp_path / "one.jsonl")
    gain(model, data=[data], window=64, short=16, out=tmp_path / "one.jsonl")
    gain(model, data=[data], window=48, short=16, budget=10, tolerance=0, out=tmp_path / "one.jsonl")
    passkey(model, window=300, depths=5, trials=2, out=tmp_path / "one.jsonl")
    retrieval(model, window=2200, families=["keys"], trials=3, out=tmp_path / "one.jsonl")
    ruler(model, windows=[800], tasks=["niah_single_1", "cwe"], items=3, out=tmp_path / "one.jsonl")
    one, two = records.read([tmp_path / "one.jsonl"]), records.read([tmp_path / "two.jsonl"])
    alike = (records.Perplexity, records.Passkey, records.PasskeySummary, records.Retrieval, records.LongTask)
    for kind in (*alike, records.EffectiveLength):
        assert plain(two.of(kind)) == plain(one.of(kind)) != []
    assert [each["task"] for each in one.of(records.EffectiveLength)[0].row.unfit] == [
        "cwe"
    ]  # items take 1193 and 1198 tokens
    # A model without key tokens has no LongPPL, and NaN is not equal to itself.
    gains = [
        [{k: v for k, v in row.items() if k[:7] != "longppl"} for row in plain(each.of(records.ContextGain))]
        for each in (one, two)
    ]
    assert gains[0] == gains[1] and len(gains[0]) == 2
    # Ranks write their documents as they come, under one header.
    assert sorted(map(json.dumps, plain(two.of(records.DocumentScore)))) == sorted(
        map(json.dumps, plain(one.of(records.DocumentScore)))
    )
    assert len(two.runs) == 7 and two.left_out.damaged == 0


def test_a_mistake_that_all_ranks_make_is_said_once_and_one_ranks_own_is_said(tmp_path):
    alone = "import os, sys; from ropewalk import cli; from ropewalk.errors import UserError\n"
    alone += "from ropewalk.suite import demo\n"
    alone += "def fails(**options): raise UserError('mine alone')\n"
    alone += "demo.demo = fails\n"
    alone += "if os.environ['RANK'] == '1': cli.main(['demo'])\n"
    (tmp_path / "alone.py").write_text(alone)
    launch = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"]
    for what, sentence in (
        (["-m", "ropewalk", "perplexity", "hemp", "--data", "no/such.txt"], "ropewalk: no/such.txt does not exist"),
        ([tmp_path / "alone.py"], "ropewalk: mine alone"),
    ):
        done = subprocess.run([*launch, *what], capture_output=True, text=True)
        assert done.returncode != 0 and lines_beginning(sentence, done.stderr) == 1, done.stderr


def lines_beginning(sentence: str, printed: str) -> int:
    """How many processes said it; torchrun's summary of failures repeats it further right."""
    return sum(line.startswith(sentence) for line in printed.splitlines())


ALONE = """
import os, sys
from ropewalk import cli
from ropewalk.errors import UserError
from ropewalk.training.log import Log
def fails(*_):
    raise UserError('this rank alone')
if os.environ['RANK'] == '0':
    Log.step = fails
cli.main(sys.argv[1:])
"""
TRAINING = {
    "train": "--window 96 --steps 3 --batch-size 2",
    "ablate": "--test {data} --tokens 512 --factors 2 --methods linear --learning-rates 1e-3 --step-tokens 256 --measure perplexity",
}


@pytest.mark.parametrize("command", TRAINING)
def test_what_one_process_alone_cannot_do_ends_all_in_one_sentence(tmp_path, command):
    """The first one cannot write a step down, while the second is on its way into the next: nobody waits, and nobody else complains."""
    model, data = tiny_directory(tmp_path / "model", window=64), tmp_path / "data.txt"
    data.write_text(prose(400))
    (tmp_path / "alone.py").write_text(ALONE)
    words = f"{command} {model} --data {data} --device cpu --out {tmp_path / 'out'} {TRAINING[command]}"
    launch = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"]
    done = subprocess.run(
        [*launch, tmp_path / "alone.py", *words.format(data=data).split()],
        capture_output=True,
        text=True,
        timeout=300,
    )
    sentence = (
        "ropewalk: this rank alone" if command == "train" else "ropewalk: no row could be measured: this rank alone"
    )
    assert done.returncode != 0 and lines_beginning(sentence, done.stderr) == 1, done.stderr
    assert "exitcode  : 2 " in done.stderr and "[rank" not in done.stderr, "a sentence and no traceback of a rank"


LEAVES = """
import sys, time
from pathlib import Path
import torch.distributed as dist
from ropewalk.distributed import ranks
ranks.join()
heard = Path(sys.argv[1])
def ends():
    if ranks.rank() == 1:
        raise KeyError('a fault')
    ranks.wait()
try:
    ranks.together(ends)
except ranks.Alone as error:
    heard.write_text(str(error))
except KeyError:
    ranks.leave()
    assert dist.is_initialized(), 'nobody would answer'
    dist.destroy_process_group()  # as the end of the process does, which then waits until the other one has heard of it
    while not heard.exists():
        time.sleep(0.1)
    raise
"""


def test_a_fault_that_nobody_can_be_told_of_ends_the_others_wait(tmp_path):
    (tmp_path / "leaves.py").write_text(LEAVES)
    launch = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"]
    done = subprocess.run(
        [*launch, tmp_path / "leaves.py", tmp_path / "heard"], capture_output=True, text=True, timeout=300
    )
    assert done.returncode != 0 and done.stderr.count("KeyError: 'a fault'") == 1, done.stderr
    assert (tmp_path / "heard").read_text().startswith("one of the processes that work together stopped, and says why")


def test_asking_which_process_this_is_starts_nothing_and_talking_needs_the_others(monkeypatch):
    assert (ranks.rank(), ranks.size()) == (0, 1)
    ranks.join()
    assert ranks.same("alone") == "alone" and ranks.gathered({0: 1}) == {0: 1}
    monkeypatch.setenv("WORLD_SIZE", "2")
    monkeypatch.setenv("RANK", "1")
    assert (ranks.rank(), ranks.size()) == (1, 2)
    for talk in (lambda: ranks.same(1), lambda: ranks.gathered({})):
        with pytest.raises(RuntimeError, match=r"process 1 of 2.*ranks\.join\(\)"):
            talk()
    assert not torch.distributed.is_initialized()


@pytest.mark.parametrize("error", [MemoryError(), RuntimeError("DefaultCPUAllocator: can't allocate memory")])
def test_a_rank_whose_host_ran_out_of_memory_says_so_as_one_on_a_gpu_does(monkeypatch, error) -> None:
    monkeypatch.setattr(ranks, "_alone", False)
    with pytest.raises(ranks.Alone, match="process 0 ran out of memory"), ranks._leaving():
        raise error
