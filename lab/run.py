"""The lab: the grids of grids.toml, by one process on every GPU or one torchrun on every N, which share the rows through their directories.

    MODELS=models DATA=data python lab/run.py [--level a …] [--minutes 20] [--together N] [--dry-run] [--records DIR]

in   $MODELS, a directory of checkpoints by the names in grids.toml (recipes/real_models/fetch.py makes two of them); $DATA, one of documents. Rows
     name both as they are given here in their commands: relative ones where the records are to be committed
out  lab/records/LEVEL/MODEL/ROW.jsonl; rows that lie there are not run again
"""

from __future__ import annotations

import argparse
import logging
import os
import subprocess
import sys
import time
import tomllib
from pathlib import Path
from typing import Any

LAB = Path(__file__).parent
#: Seconds between looks at rows that another process runs.
_LOOK = 5


def content() -> dict[str, Any]:
    return tomllib.loads((LAB / "grids.toml").read_text(encoding="utf-8"))


def grids(levels: list[str]) -> list[dict[str, Any]]:
    """The tables of these levels, in order; of all but `cpu` where none is named."""
    common = content()["common"]
    tables = [common | table for table in content()["grid"]]
    return [table for table in tables if (table["level"] in levels if levels else table["level"] != "cpu")]


def as_settings(table: dict[str, Any], records: Path) -> dict[str, Any] | None:
    """A table as `ablate` takes it; None where its model is not there."""
    from ropewalk.data.stdlib import standard_library
    from ropewalk.settings.written_numbers import tokens

    options = dict(table)
    level, model = options.pop("level"), options["model"]
    options["out"] = records / options.pop("into", level) / model
    data = Path(os.environ.get("DATA", "data"))
    for name in ("data", "test", "validation", "also"):
        # A weight of a mixture, 0.9 or 0.1@8k, is no path.
        options[name] = [str(data / word) if "/" in word else word for word in options.get(name, [])] or None
    options |= {name: str(data / options[name]) for name in ("benchmarks", "scores") if name in options}
    if model == "hemp":
        splits = {"data": "train", "test": "held_out", "validation": "validation"}
        common = content()["common"]
        options |= {name: standard_library(split) for name, split in splits.items() if table[name] == common[name]}
    else:
        options["model"] = str(Path(os.environ.get("MODELS", "models")) / model)
        if not Path(options["model"]).is_dir():
            return None
    options["tokens"] = [tokens(word) for word in options["tokens"]]
    return options | {
        name: tokens(options[name]) for name in ("step_tokens", "test_tokens", "longce") if name in options
    }


def with_chosen_rates(options: dict[str, Any], records: Path) -> list[dict[str, Any]]:
    """A grid as it is, or apart by the rate that was best for each method: among the rows in `records`, or else among the committed ones, which is said.

    Raises:
        UserError: of a method no two rates are on record.
    """
    from rows import chosen_rates

    from ropewalk import UserError
    from ropewalk.sentences import joined
    from ropewalk.suite.row import NONE

    level = options.pop("from", options["out"].parent.name)
    if options.get("learning_rates") != "chosen":
        return [options]
    here, committed = (root / level / options["out"].name for root in (records, Path(os.path.relpath(LAB / "records"))))
    tried = chosen_rates(here)
    rates = {NONE: 1e-4} | chosen_rates(committed) | tried  # the base is not trained, at whatever rate
    if unknown := [method for method in options["methods"] if method not in rates]:
        raise UserError(
            f"a learning rate is chosen of two or more, and {here} has no two of {joined(unknown)}; run the levels a, rates and other-rates first, with "
            "the same --records"
        )
    if borrowed := [method for method in options["methods"] if method not in (NONE, *tried)]:
        print(
            f"{here} has no two learning rates of {joined(borrowed)}: those chosen in {committed} are taken", flush=True
        )
    by_rate: dict[float, list[str]] = {}
    for method in options["methods"]:
        by_rate.setdefault(rates[method], []).append(method)
    return [options | {"methods": methods, "learning_rates": [rate]} for rate, methods in by_rate.items()]


def work(arguments: argparse.Namespace) -> int:
    """Run the grids in this process, or with the others of its torchrun; how many rows are not there at the end."""
    import ropewalk
    from ropewalk.distributed import ranks

    ranks.join()
    say = print if ranks.rank() == 0 else lambda *_, **__: None
    level = logging.INFO if ranks.rank() == 0 else logging.ERROR
    logging.basicConfig(level=level, format="%(asctime)s %(process)d %(message)s", datefmt="%H:%M:%S")
    end = time.monotonic() + 60 * arguments.minutes
    missing = 0
    estimated = {"dry_run": True, "chip": "H100"} if arguments.dry_run else {}
    for table in grids(arguments.level):
        options = as_settings(table, arguments.records)
        if options is None:
            say(f"left out: level {table['level']} of {table['model']}, which is not in $MODELS")
            continue
        try:  # Rows are written meanwhile: all processes of a torchrun go by what the first one reads.
            parts = ranks.first(lambda options=options: with_chosen_rates(options, arguments.records))
        except ropewalk.UserError as error:
            say(f"left out: {options['out']}: {error}")
            missing += 1
            continue
        for each in parts:
            outcomes: list[Any] = []
            undone: list[Any] = []
            while True:
                left = max(0.01, (end - time.monotonic()) / 60)
                try:
                    outcomes = ropewalk.ablate(**each, minutes=min(left, 10**5), **estimated)
                except ranks.Alone:
                    raise
                except ropewalk.UserError as error:
                    here = " (here by --records, or RECORDS=DIR of make lab)" if "another --out" in str(error) else ""
                    say(f"left out: {each['out']}: {error}{here}")
                    missing += 1
                    break
                undone = [outcome for outcome in outcomes if outcome.reason]
                # Rates are chosen when all rows that they are chosen from are there.
                if (
                    arguments.dry_run
                    or table.get("measure") != ["validation"]
                    or not any("another" in each.reason for each in undone)
                ):
                    break
                time.sleep(_LOOK)
            missing += len(undone)
            for outcome in undone:
                say(
                    f"{each['out'].relative_to(arguments.records)}/{outcome.name}: {outcome.reason}, {outcome.seconds:.0f} s",
                    flush=True,
                )
            if arguments.dry_run and outcomes:
                say(f"  {len(outcomes)} rows, about {sum(o.seconds for o in undone) / 60:.1f} minutes of one H100")
    return missing


def gpus() -> list[str]:
    """What CUDA_VISIBLE_DEVICES calls the GPUs of this machine; one that is none where there is no GPU."""
    if "CUDA_VISIBLE_DEVICES" in os.environ:
        return [name for name in os.environ["CUDA_VISIBLE_DEVICES"].split(",") if name] or [""]
    try:
        listed = subprocess.run(["nvidia-smi", "-L"], capture_output=True, text=True, check=True).stdout
    except (OSError, subprocess.CalledProcessError):
        return [""]
    return [str(number) for number in range(len(listed.splitlines()))] or [""]


def groups(names: list[str], together: int) -> list[str]:
    """CUDA_VISIBLE_DEVICES of each group of so many GPUs; GPUs that are too few for one more are left alone. One group where there is no GPU."""
    if names == [""]:
        return names
    if len(names) < together:
        sys.exit(f"--together {together} takes as many GPUs, and there are {len(names)}")
    return [",".join(names[at : at + together]) for at in range(0, len(names) - together + 1, together)]


def main() -> None:
    options = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    levels = list(dict.fromkeys(table["level"] for table in content()["grid"]))
    options.add_argument(
        "--level",
        nargs="*",
        default=[],
        choices=levels,
        metavar="LEVEL",
        help=f"{' '.join(levels)}; all but cpu if not given",
    )
    options.add_argument("--minutes", type=float, default=10**5, help="begin no row that would not be done by then")
    options.add_argument("--records", type=Path, default=LAB / "records")
    options.add_argument("--together", type=int, default=1, metavar="N", help="GPUs that run each row together")
    options.add_argument("--dry-run", action="store_true", help="list the rows that are not there")
    options.add_argument("--worker", action="store_true", help=argparse.SUPPRESS)
    arguments = options.parse_args()
    arguments.records = Path(os.path.relpath(arguments.records))  # as the command of each row will name it
    if arguments.worker or arguments.dry_run:
        work(arguments)
        return
    launch = ["-m", "torch.distributed.run", "--standalone", "--nproc-per-node", str(arguments.together)]
    command = [sys.executable, *(launch if arguments.together > 1 else []), __file__, *sys.argv[1:], "--worker"]
    visible = groups(gpus(), arguments.together)
    workers = [subprocess.Popen(command, env=os.environ | {"CUDA_VISIBLE_DEVICES": names}) for names in visible]
    try:
        codes = [worker.wait() for worker in workers]
    except KeyboardInterrupt:
        codes = [worker.wait() for worker in workers]  # the terminal has told them too
    sys.exit(max(map(abs, codes)))


if __name__ == "__main__":
    main()
