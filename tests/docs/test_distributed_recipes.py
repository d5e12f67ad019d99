"""The files for batch systems, run with stand-ins that write down what they were told."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
from pathlib import Path

import pytest
import yaml

from command_lines import parsed

RECIPES = Path(__file__).resolve().parents[2] / "recipes"


def slurm(
    folder: Path,
    *arguments: str,
    exit_code: int = 0,
    saves: Path | None = None,
    file: str = "slurm.sbatch",
    then: str = "",
    **environment: str,
) -> tuple[int, str]:
    """Run a batch file; what `srun` and `scontrol` were told, a line each. `saves`: the checkpoint that training leaves; `then`: what else `srun` does."""
    said = folder / "said"
    said.touch()
    tools = folder / "bin"
    tools.mkdir(exist_ok=True)
    scripts = {
        "srun": f'echo "srun $*" >> {said}; {f"mkdir -p {saves}; " if saves else ""}{then}\nexit {exit_code}',
        "scontrol": f'echo "scontrol $*" >> {said}; [[ $1 == show ]] && printf "n7\\nn9\\n"; true',
    }
    for name, script in scripts.items():
        (tools / name).write_text(f"#!/usr/bin/env bash\n{script}\n")
        (tools / name).chmod(0o755)
    found = subprocess.run(
        ["bash", str(RECIPES / file), *arguments],
        env={
            "PATH": f"{tools}:{os.environ['PATH']}",
            "SLURM_JOB_ID": "4242",
            "SLURM_JOB_NODELIST": "n[7,9]",
            "SLURM_JOB_NUM_NODES": "2",
            "SLURM_GPUS_ON_NODE": "4",
            "SLURM_CPUS_PER_TASK": "64",
            **environment,
        },
        capture_output=True,
        text=True,
        timeout=200,
    )
    return found.returncode, said.read_text()


def test_slurm_starts_torchrun_on_every_machine_with_what_was_asked(tmp_path: Path) -> None:
    code, said = slurm(tmp_path, "hemp", "--data", "a b", "--window", "1024", "--out", str(tmp_path / "out"))
    assert code == 0
    (line,) = [line for line in said.splitlines() if line.startswith("srun")]
    assert "torchrun --nnodes 2 --nproc-per-node 4" in line
    assert "--rdzv-endpoint n7:24242" in line
    assert line.endswith(f"-m ropewalk train hemp --data a b --window 1024 --out {tmp_path}/out --resume")
    assert "requeue" not in said


@pytest.mark.parametrize("form", ["--out {}", "--out={}"])
def test_slurm_queues_again_what_has_saved_and_has_no_model(tmp_path: Path, form: str) -> None:
    out = tmp_path / "out"
    asked = ("hemp", *form.format(out).split(), "--window", "1024")
    code, said = slurm(tmp_path, *asked, exit_code=1)
    assert code == 1 and "requeue" not in said  # nothing was saved: it would fail again
    first, second = (out / f"checkpoints/step-00000{step}" for step in (2, 4))
    assert "requeue" not in slurm(tmp_path, *asked, exit_code=1, saves=first, SLURM_RESTART_COUNT="20")[1]
    code, said = slurm(tmp_path, *asked, exit_code=1, saves=second)
    assert code == 1 and "scontrol requeue 4242" in said


def test_slurm_does_not_queue_again_what_stops_where_it_began(tmp_path: Path) -> None:
    """A loss that explodes after a checkpoint explodes there each time: twenty restarts would reach no further."""
    there = tmp_path / "out/checkpoints/step-000002"
    there.mkdir(parents=True)
    assert "requeue" not in slurm(tmp_path, "hemp", "--out", str(tmp_path / "out"), exit_code=1)[1]


def test_slurm_does_not_queue_again_what_is_done(tmp_path: Path) -> None:
    out = tmp_path / "out"
    (out / "checkpoints/step-000002").mkdir(parents=True)
    (out / "config.json").touch()
    saves = out / "checkpoints/step-000004"
    assert "requeue" not in slurm(tmp_path, "hemp", "--out", str(out), exit_code=1, saves=saves)[1]


def test_slurm_measures_on_one_machine_and_queues_again_what_was_stopped_and_has_rows(tmp_path: Path) -> None:
    rows = tmp_path / "rows.jsonl"
    asked = ("perplexity", "hemp", "--data", "a b", "--out", str(rows))
    code, said = slurm(tmp_path, *asked, file="evaluate.sbatch")
    assert code == 0 and "requeue" not in said
    assert f"torchrun --standalone --nproc-per-node 4 -m ropewalk perplexity hemp --data a b --out {rows}\n" in said
    stop = "kill -TERM $PPID; sleep 0.2"  # what Slurm does to the batch script
    assert "requeue" not in slurm(tmp_path, *asked, file="evaluate.sbatch", exit_code=143, then=stop)[1]  # no row yet
    failing = slurm(tmp_path, *asked, file="evaluate.sbatch", exit_code=2, then=f"echo row >> {rows}")
    assert failing[0] == 2 and "requeue" not in failing[1]
    stop = f"sleep 0.02; echo row >> {rows}; {stop}"
    enough = slurm(tmp_path, *asked, file="evaluate.sbatch", exit_code=143, then=stop, SLURM_RESTART_COUNT="20")
    assert "requeue" not in enough[1]
    code, said = slurm(tmp_path, *asked, file="evaluate.sbatch", exit_code=143, then=stop)
    assert code and "scontrol requeue 4242" in said
    assert slurm(tmp_path, "perplexity", "hemp", file="evaluate.sbatch")[0] == 2  # nowhere to keep its rows


@pytest.mark.parametrize("form", ["--config {}", "--config={}"])
def test_batch_files_read_where_a_run_writes_from_its_file(tmp_path: Path, form: str) -> None:
    out, rows, file = tmp_path / "o'ut of 1", tmp_path / "rows.jsonl", tmp_path / "run.yaml"
    asked = form.format(file).split()
    file.write_text(yaml.safe_dump({"command": "train", "out": str(out)}))
    said = slurm(tmp_path, *asked, exit_code=1, then=f'mkdir -p "{out}/checkpoints/step-000002"')[1]
    assert "scontrol requeue 4242" in said
    # What is typed wins.
    elsewhere = tmp_path / "elsewhere"
    typed = (*asked, "--out", str(elsewhere))
    then = f'mkdir -p "{out}/checkpoints/step-000004"'
    (tmp_path / "said").unlink()
    assert "requeue" not in slurm(tmp_path, *typed, exit_code=1, then=then)[1]
    file.write_text(f"command: perplexity\nout: {rows}\n")
    stop = f"sleep 0.02; echo row >> {rows}; kill -TERM $PPID; sleep 0.2"
    code, said = slurm(tmp_path, *asked, file="evaluate.sbatch", exit_code=143, then=stop)
    assert code and "scontrol requeue 4242" in said
    file.write_text("command: perplexity\n")
    assert slurm(tmp_path, "perplexity", *asked, file="evaluate.sbatch")[0] == 2


def test_shells_read_the_batch_files() -> None:
    checker = shutil.which("shellcheck")
    for name in ("slurm.sbatch", "evaluate.sbatch"):
        subprocess.run([*([checker] if checker else ["bash", "-n"]), str(RECIPES / name)], check=True)


def test_the_cloud_file_is_a_task_whose_command_bash_reads() -> None:
    task = yaml.safe_load((RECIPES / "cloud.yaml").read_text())
    assert {"name", "resources", "num_nodes", "envs", "file_mounts", "setup", "run"} <= task.keys()
    subprocess.run(["bash", "-n", "-c", task["run"]], check=True)
    assert "--resume" in task["run"]


def on_the_cloud(place: Path, recipe: str, *, nodes: int, **given: str) -> dict:
    """The options of the `ropewalk` command that a recipe hands to torchrun on its first machine, by its own defaults and what is given."""
    task, said = yaml.safe_load((RECIPES / f"{recipe}.yaml").read_text()), place / "said"
    (place / "torchrun").write_text(f'#!/usr/bin/env bash\nprintf "%s\\n" "$@" > {said}\n')
    (place / "torchrun").chmod(0o755)
    sky = {
        "SKYPILOT_NODE_IPS": "n1",
        "SKYPILOT_NUM_NODES": f"{nodes}",
        "SKYPILOT_NUM_GPUS_PER_NODE": "8",
        "SKYPILOT_TASK_ID": "7",
    }
    environment = {name: str(value or "") for name, value in task["envs"].items()} | sky | given
    path = f"{place}:{os.environ['PATH']}"
    subprocess.run(["bash", "-c", task["run"]], env=environment | {"PATH": path}, check=True)
    words = said.read_text().splitlines()
    return parsed(words[words.index("ropewalk") + 1 :])


def test_the_cloud_command_names_steps_batch_and_a_checkpoint_that_comes_soon(tmp_path: Path) -> None:
    """On machines that may be taken away: by the defaults, a checkpoint every 200 steps comes after hours."""
    train = on_the_cloud(tmp_path, "cloud", nodes=2, WINDOW="131072", BATCH_SIZE="16")
    assert (train["steps"], train["batch_size"], train["save_every"], train["window"]) == (200, 16, 20, 131072)


def test_the_cloud_measures_in_the_place_where_it_trained(tmp_path: Path) -> None:
    """What one file writes is what the other reads, in the same bucket and by its own defaults."""
    words = {name: on_the_cloud(tmp_path, name, nodes=1) for name in ("cloud", "cloud-evaluate")}
    for name in words:
        mounts = yaml.safe_load((RECIPES / f"{name}.yaml").read_text())["file_mounts"]
        assert mounts == {"/runs": {"name": "${BUCKET}", "mode": "MOUNT_CACHED"}}
    assert str(words["cloud-evaluate"]["model"]) == str(words["cloud"]["out"]) == "/runs/Llama-2-7b-hf-32768"
    assert str(words["cloud-evaluate"]["base"]) == str(words["cloud"]["model"])


def test_slurm_asks_for_the_one_machine_that_the_tutorial_plans(tmp_path: Path) -> None:
    assert "#SBATCH --nodes=1\n" in (RECIPES / "slurm.sbatch").read_text()
    plans = [
        line for line in (RECIPES.parent / "docs/tutorials/eight-gpus.md").read_text().splitlines() if "--gpus" in line
    ]
    assert plans and all("--gpus 8xH100" in line for line in plans)  # eight to a machine, as the file has it


@pytest.mark.parametrize("file", ["slurm.sbatch", "evaluate.sbatch"])
def test_a_batch_file_takes_the_environment_that_is_named(file: str, tmp_path: Path) -> None:
    (tmp_path / "venv/bin").mkdir(parents=True)
    (tmp_path / "venv/bin/activate").write_text(f"touch {tmp_path}/activated\n")
    words = ("perplexity", "hemp", "--out", str(tmp_path / "rows.jsonl"))
    slurm(tmp_path, *words, file=file)
    assert not (tmp_path / "activated").exists()
    assert slurm(tmp_path, *words, file=file, VENV=str(tmp_path / "venv"))[0] == 0
    assert (tmp_path / "activated").exists()


@pytest.mark.parametrize("name", ["slurm.sbatch", "evaluate.sbatch", "cloud.yaml", "cloud-evaluate.yaml"])
def test_every_option_in_a_recipe_is_one_of_its_commands(name: str) -> None:
    """Options that the command line does not have would end a job after hours in a queue."""
    known = (RECIPES.parent / "docs/cli.md").read_text().split("\n## ropewalk ")
    options = {part.partition("\n")[0]: set(re.findall(r"--[\w-]+", part)) for part in known}
    started = re.findall(r"(?:-m ropewalk |\.sbatch )([a-z]+) (.*)", (RECIPES / name).read_text())
    used = [(command, set(re.findall(r"--[a-z][\w-]+", rest))) for command, rest in started if command in options]
    assert used and all(each <= options[command] for command, each in used)
