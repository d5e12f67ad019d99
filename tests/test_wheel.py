"""What `pip install ropewalk` brings: a light core that plans, and a sentence for what it leaves out."""

from __future__ import annotations

import re
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

import made_up
from ropewalk import testing
from ropewalk.checkpoint.checkpoint import Checkpoint
from ropewalk.model.extend import extend
from ropewalk.settings.extras import EXTRAS

ROOT = Path(__file__).resolve().parents[1]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
#: What `python -c` runs first: as if nothing were installed that an extra brings.
WITHOUT = (
    "import sys\nfrom importlib.machinery import PathFinder\nfind = PathFinder.find_spec\n"
    f"absent = {sorted({package for brought in EXTRAS.values() for package in brought})}\n"
    "present = []\n"
    "PathFinder.find_spec = lambda name, *rest: None if name.split('.')[0] in {*absent} - {*present} else find(name, *rest)\n"
)


def packages(extra: str) -> set[str]:
    """What an extra brings by pyproject.toml, by the names of imports, those of the extras in it too."""
    listed = {re.match(r"[\w-]+(?:\[[\w,]+\])?", each)[0] for each in PROJECT["optional-dependencies"][extra]}
    inner = [name for each in listed if each.startswith("ropewalk[") for name in each[9:-1].split(",")]
    own = {each.replace("-", "_") for each in listed if not each.startswith("ropewalk[")}
    return own.union(*map(packages, inner))


@pytest.mark.parametrize("extra", EXTRAS)
def test_an_extra_brings_what_its_commands_are_told_it_does(extra: str) -> None:
    assert set(EXTRAS[extra]) <= packages(extra)


def test_the_core_brings_none_of_it() -> None:
    core = {re.match(r"[\w-]+", each)[0].replace("-", "_") for each in PROJECT["dependencies"]}
    assert core.isdisjoint(package for brought in EXTRAS.values() for package in brought)
    assert set(PROJECT["optional-dependencies"]["all"]) == {"ropewalk[eval,export,log]"}


def test_whoever_trains_has_the_page_and_the_card_and_neither_needs_torch(tmp_path: Path) -> None:
    assert packages("report") <= packages("train")
    base, longer = testing.tiny_directory(tmp_path / "base", window=64), tmp_path / "longer"
    extend(base, window=128, out=longer)
    made_up.record_rows(tmp_path / "r.jsonl", (Checkpoint.open(longer).info, made_up.row(2.0, 128)))
    code = WITHOUT + (
        f"present = {EXTRAS['report']}\nfrom ropewalk import cli\n"
        "for line in ('report r.jsonl --out p.html', 'card longer --records r.jsonl'):\n    cli.main(line.split())\n"
        "assert 'torch' not in sys.modules\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert "7.39" in (longer / "README.md").read_text(encoding="utf-8")


def test_the_core_plans_predicts_and_examines_and_says_what_the_rest_takes(tmp_path: Path) -> None:
    code = WITHOUT + (
        "import ropewalk\nfrom ropewalk import cli\n"
        "def run(line):\n"
        "    try:\n        cli.main(line.split())\n        print('status 0')\n"
        "    except SystemExit as end:\n        print(f'status {end.code}')\n"
        "for line in ('plan llama-7b --window 16k --gpus 8xH100', 'plan hemp --window 1024', 'theory hemp --out t', 'doctor hemp',\n"
        "             'train hemp --data d --window 1024 --out o', 'benchmarks hemp', 'report r.jsonl --out p.html',\n"
        "             'export hemp --for ollama --out o', 'export hemp --for mlx --out o', 'train hemp --data d --window 512 --out o --log wandb'):\n"
        "    run(line)\n"
        "for call in (lambda: ropewalk.train, lambda: ropewalk.extend('hemp', window=1024, out='o')):\n"
        "    try:\n        call()\n    except ropewalk.UserError as error:\n        print('in Python:', error)\n"
        "print(sorted(set(absent) & set(sys.modules)))\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert re.findall(r"status (\d)", done.stdout) == [*"0003222222"], done.stdout + done.stderr
    refused = [line for line in done.stderr.splitlines() if line.startswith("ropewalk: ropewalk")]
    assert [re.search(r"ropewalk (.+) needs (\w+),", line).groups() for line in refused] == [
        ("train", "torch"),
        ("benchmarks", "torch"),
        ("report", "matplotlib"),
        ("export --for ollama", "torch"),
        ("export", "torch"),
    ]
    assert [line.split(": ")[-1] for line in refused] == [
        f'pip install ".[{extra}]" in a clone of ropewalk, or "ropewalk[{extra}]" from an index that has it'
        for extra in ("train", "eval", "report", "export", "train")
    ]
    assert '--log wandb needs wandb, which is not installed; pip install ".[train,log]" in a clone' in done.stderr
    assert 'timing it needs torch: pip install ".[train]"' in "".join(done.stdout.split("\n"))
    assert done.stdout.count("in Python: this needs t") == 2
    assert done.stdout.splitlines()[-1] == "[]"
    assert {path.name for path in (tmp_path / "t").glob("[!.]*")} == {"theory.jsonl", "run.yaml"}


@pytest.mark.slow
def test_every_extra_can_be_installed_with_the_constraints() -> None:
    command = [sys.executable, "-m", "pip", "install", "-q", "--dry-run", "--ignore-installed", "-c", "constraints.txt"]
    done = subprocess.run([*command, ".[all,gpu,low-bit,docs,dev]"], cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


@pytest.mark.slow
@pytest.mark.timeout(1200)
def test_the_wheel_alone_in_an_empty_environment(tmp_path: Path) -> None:
    def environment(name: str, *what: str | Path) -> Path:
        subprocess.run([sys.executable, "-m", "venv", tmp_path / name], check=True)
        pip = [tmp_path / name / "bin/python", "-m", "pip", "install", "-q", "-c", ROOT / "constraints.txt"]
        subprocess.run([*pip, *what], check=True)
        return tmp_path / name / "bin"

    tools = environment("tools", "build", "twine", "hatchling")
    built = tmp_path / "dist"
    subprocess.run([tools / "python", "-m", "build", "-q", "--no-isolation", "-o", built, ROOT], check=True)
    subprocess.run([tools / "twine", "check", "--strict", *built.iterdir()], check=True)
    core = environment("core", *built.glob("*.whl"))
    others = ("numpy", "numpy.libs", "pip", "setuptools", "pkg_resources", "_distutils_hack")
    site = next((tmp_path / "core/lib").glob("python*/site-packages"))
    files = [file for file in site.rglob("*") if file.relative_to(site).parts[0].split("-")[0] not in others]
    # As the wheels have them: bytecode comes on top where the installer compiles.
    assert sum(file.stat().st_size for file in files if file.is_file() and file.suffix != ".pyc") < 60e6
    for line in ("--help", "--version", "plan hemp --window 1024", "theory hemp"):
        subprocess.run([core / "ropewalk", *line.split()], check=True, cwd=tmp_path, capture_output=True)
    examined = subprocess.run([core / "ropewalk", "doctor", "hemp"], capture_output=True, text=True, cwd=tmp_path)
    assert examined.returncode == 3 and "not checked is transformers' own inv_freq, tensors" in examined.stdout
    refused = subprocess.run([core / "ropewalk", "train"], capture_output=True, text=True, cwd=tmp_path)
    assert refused.returncode == 2
