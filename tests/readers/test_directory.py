"""What `doctor` says of a directory from somebody else: links out of it, files below it, small files that cannot be read."""

from __future__ import annotations

import json
import shutil
import sys
from pathlib import Path

import jinja2
import pytest
import transformers

import ropewalk
from ropewalk import cli
from ropewalk.errors import UserError
from ropewalk.model.load import load_tokenizer
from ropewalk.model.push import Parcel
from ropewalk.readers.diagnosis import Finding
from ropewalk.readers.examine import examine
from ropewalk.settings.export import PushSettings


@pytest.fixture(scope="module")
def longer(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A whole model of one YaRN, as `extend` writes it."""
    out = tmp_path_factory.mktemp("longer") / "longer"
    ropewalk.extend("hemp", window=1024, method="yarn", out=out)
    return out


@pytest.fixture
def model(longer: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(longer, tmp_path / "model"))


def status(*command: str | Path) -> int | str | None:
    try:
        cli.main([*map(str, command)])
    except SystemExit as stopped:
        return stopped.code
    return 0


def of_check(number: int, model: Path) -> list[Finding]:
    return [finding for finding in ropewalk.doctor(model).findings if finding.number == number]


GATE = ("--strict", "--for", "vllm", "transformers")


def moved(file: Path) -> Path:
    """A file out of its directory, with a link in its place."""
    place = file.parent.parent / f"elsewhere-{file.name}"
    file.rename(place)
    file.symlink_to(place)
    return place


def test_links_out_of_the_directory_are_one_note_that_names_them(model: Path) -> None:
    assert status("doctor", model, *GATE) == 0
    (model / "inside").symlink_to("config.json")
    assert status("doctor", model, *GATE) == 0
    places = [moved(model / name) for name in ("model.safetensors", "tokenizer.json")]
    (model / "below").mkdir()
    (model / "below/extras").symlink_to("/etc")
    assert status("doctor", model, *GATE) == 1
    [note] = [finding for finding in of_check(10, model) if finding.verdict == "note"]
    named = f"below/extras -> /etc, model.safetensors -> {places[0]}, tokenizer.json -> {places[1]};"
    assert named in note.sentence and ropewalk.doctor(model).sound


def test_nobody_looks_below_a_link_out_of_the_directory(model: Path, tmp_path: Path) -> None:
    """/proc is the kernel's, whose files may wait for ever; and a directory of the reader's own would be named to whoever reads the log."""
    (model / "extras").symlink_to("/proc/self")
    (tmp_path / "theirs").mkdir()
    (tmp_path / "theirs/weights.bin").write_bytes(b"\x80")
    (model / "theirs").symlink_to(tmp_path / "theirs")
    [first, note] = of_check(10, model)
    assert first.verdict == "ok" and "extras -> /proc/" in note.sentence and "weights.bin" not in note.sentence
    ropewalk.export(model, reader="vllm", out=tmp_path / "out")
    assert not {"extras", "theirs"} & {path.name for path in (tmp_path / "out").iterdir()}


def test_the_links_of_a_hubs_cache_are_no_fault(model: Path, tmp_path: Path) -> None:
    blobs, snapshot = tmp_path / "models--o--n/blobs", tmp_path / "models--o--n/snapshots/0123"
    shutil.copytree(model, blobs)
    snapshot.mkdir(parents=True)
    for path in blobs.iterdir():
        (snapshot / path.name).symlink_to(f"../../blobs/{path.name}")
    assert [finding.verdict for finding in of_check(10, snapshot)] == ["ok"]
    ropewalk.export(snapshot, reader="vllm", out=tmp_path / "out")


@pytest.mark.parametrize("name", ["tokenizer.json", "tokenizer_config.json"])
def test_nothing_is_made_of_a_model_whose_tokenizer_would_be_left_behind(
    name: str, model: Path, tmp_path: Path
) -> None:
    place = moved(model / name)
    for write in (
        lambda: ropewalk.export(model, reader="vllm", out=tmp_path / "out"),
        lambda: ropewalk.extend(model, window=2048, out=tmp_path / "out"),
        lambda: ropewalk.push(model, "me/longer"),
    ):
        with pytest.raises(
            UserError, match=f"{name}, of the tokenizer, .* cp --remove-destination {place} {model / name}"
        ):
            write()
    assert not (tmp_path / "out").exists()
    shutil.copyfile(place, model / "copy")
    (model / "copy").replace(model / name)
    ropewalk.export(model, reader="vllm", out=tmp_path / "out")
    assert (tmp_path / "out" / name).is_file()


def test_a_pickle_below_is_noted_as_one_beside_the_weights_is(model: Path) -> None:
    (model / "below").mkdir()
    (model / "below/pytorch_model.bin").write_bytes(b"\x80")
    [note] = [finding for finding in of_check(10, model) if finding.verdict == "note"]
    assert "pickled files beside its safetensors (below/pytorch_model.bin)" in note.sentence


@pytest.mark.parametrize("trusted", [False, True])
def test_code_below_is_named_and_carried_only_where_it_is_trusted(
    trusted: bool, model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, recwarn: pytest.WarningsRecorder
) -> None:
    """The oracle: what transformers runs of a directory. A checkpoint below, as a run keeps them, has code of its own."""
    monkeypatch.setenv("MARK", str(tmp_path / "ran"))
    body = "import os, pathlib\npathlib.Path(os.environ['MARK']).touch()\n\n\ndef generate(model, **options):\n    return None\n"
    (model / "custom_generate").mkdir()
    (model / "custom_generate/generate.py").write_text(body)
    (model / "below").mkdir()
    (model / "below/config.json").write_text("{}")
    (model / "below/its.py").write_text("")
    [note] = of_check(13, model)
    assert "it brings code (below/its.py, custom_generate/generate.py)" in note.sentence
    assert not (tmp_path / "ran").exists()
    ropewalk.export(model, reader="transformers", out=tmp_path / "out", trust_remote_code=trusted)
    written = {path.relative_to(tmp_path / "out").as_posix() for path in (tmp_path / "out").rglob("*.py")}
    assert written == ({"custom_generate/generate.py"} if trusted else set())
    left = [str(each.message) for each in recwarn if "is left behind, and none of it ran" in str(each.message)]
    assert trusted or any("ran: custom_generate/generate.py;" in sentence for sentence in left)
    (tmp_path / "ran").unlink(missing_ok=True)
    monkeypatch.setenv("HF_MODULES_CACHE", str(tmp_path / "modules"))
    transformers.AutoModelForCausalLM.from_pretrained(tmp_path / "out", trust_remote_code=True)
    assert (tmp_path / "ran").exists() == trusted


@pytest.mark.parametrize(
    ("name", "content", "check"),
    [
        ("generation_config.json", "{", 10),
        ("generation_config.json", '{"eos_token_id": 1, "eos_token_id": 2}', 10),
        ("special_tokens_map.json", "[]", 5),
        ("added_tokens.json", "{'a': 1}", 5),
        ("preprocessor_config.json", "\xff", 10),
        ("processor_config.json", "", 10),
        ("model.safetensors.index.json", "no", 10),
    ],
)
def test_json_that_cannot_be_read_is_wrong_and_made_into_nothing(
    name: str, content: str, check: int, model: Path, tmp_path: Path
) -> None:
    (model / name).write_text(content, encoding="latin-1")
    assert status("doctor", model, *GATE) == 1
    [fault] = ropewalk.doctor(model).wrong
    assert fault.number == check and name in fault.sentence
    with pytest.raises(UserError, match=name):
        ropewalk.export(model, reader="vllm", out=tmp_path / "out")


BROKEN, WHOLE = (
    "{% for m in messages %}{{ m }}",
    "{% for m in messages %}{% generation %}{{ m }}{% endgeneration %}{% break %}{% endfor %}",
)


def written(kind: str, template: str) -> tuple[str, str]:
    """Where a template stands, and the file's content."""
    objects = {
        "tokenizer_config.json": template,
        "processor_config.json": [{"name": "default", "template": template}],
        "chat_template.json": {"default": template},
    }
    return kind, json.dumps({"chat_template": objects[kind]}) if kind in objects else template


@pytest.mark.parametrize(
    "kind",
    [
        "chat_template.jinja",
        "additional_chat_templates/tools.jinja",
        "tokenizer_config.json",
        "processor_config.json",
        "chat_template.json",
    ],
)
def test_a_chat_template_that_cannot_be_parsed_is_wrong(kind: str, model: Path, tmp_path: Path, monkeypatch) -> None:
    """The oracle is transformers, which renders the one and raises over the other."""

    def put(template: str) -> None:
        name, content = written(kind, template)
        (model / name).parent.mkdir(exist_ok=True)
        (model / name).write_text(content)

    put(WHOLE)
    assert ropewalk.doctor(model).sound
    put(BROKEN)
    [fault] = ropewalk.doctor(model).wrong
    assert fault.number == 5 and kind in fault.sentence and "line 1" in fault.sentence
    with pytest.raises(UserError, match="chat templates are parsed by Jinja"):
        ropewalk.export(model, reader="vllm", out=tmp_path / "out")
    tokenizer = load_tokenizer("hemp")
    chat = [{"role": "user", "content": "a"}]
    tokenizer.apply_chat_template(chat, chat_template=WHOLE, tokenize=False)
    with pytest.raises(jinja2.TemplateSyntaxError):
        tokenizer.apply_chat_template(chat, chat_template=BROKEN, tokenize=False)
    monkeypatch.setitem(sys.modules, "jinja2", None)
    assert [(each.number, each.verdict) for each in examine(model).findings if "jinja2" in each.sentence] == [
        (5, "not checked")
    ]


@pytest.mark.parametrize("name", ["config.json", "generation_config.json"])
@pytest.mark.parametrize(
    ("key", "value"),
    [("eos_token_id", 10_000_000), ("eos_token_id", [1, 2048]), ("pad_token_id", 2048), ("bos_token_id", 2048)],
)
def test_a_special_id_that_the_embedding_has_no_row_for_is_wrong(
    name: str, key: str, value: int | list[int], model: Path
) -> None:
    content = json.loads((model / name).read_text())
    rows = json.loads((model / "config.json").read_text())["vocab_size"]
    (model / name).write_text(json.dumps({**content, key: rows - 1}))
    assert not examine(model).wrong
    (model / name).write_text(json.dumps({**content, key: value}))
    [fault] = examine(model).wrong
    last = value[-1] if isinstance(value, list) else value
    assert (
        fault.number == 10
        and f"{name} names {key} {last}, and the embedding has 2048 rows (vocab_size 2048)" in fault.sentence
    )


WRONG = {
    "special id": ("config.json", {"pad_token_id": 2048}, "names pad_token_id 2048", True),
    "generation config": ("generation_config.json", "{", "generation_config.json cannot be read", True),
    "chat template": ("chat_template.jinja", BROKEN, "is no template from its line 1", True),
    "tokens": ("special_tokens_map.json", "[]", "holds no JSON object", True),
    "theta twice": ("config.json", {"rope_theta": 77.0}, "names rope_theta more than once", True),
    "two scalings": ("config.json", {"ropewalk": None, "rope_scaling": {"rope_type": "linear", "factor": 4.0}, "rope_parameters": {"rope_type": "default", "rope_theta": 10000.0}}, "say two things", False),
    "a length": ("config.json", {"max_length": 77}, "max_length is 77 and the window 1024", False),
}  # fmt: skip


@pytest.mark.parametrize("kind", WRONG)
def test_what_is_wrong_is_refused_by_whatever_makes_or_uploads_something_in_doctors_words(
    kind: str, model: Path, tmp_path: Path
) -> None:
    """All but what is written anew: who uploads a config as it is must have no other length in it either."""
    name, content, sentence, for_all = WRONG[kind]
    if isinstance(content, dict):
        content = json.dumps(json.loads((model / name).read_text()) | content)
    (model / name).write_text(content)
    [finding] = [each for each in ropewalk.doctor(model).findings if each.stops]
    assert finding.verdict == "wrong" and sentence in finding.sentence
    (tmp_path / "text.txt").write_text("words " * 3000)
    out = tmp_path / "out"
    making = (
        lambda: ropewalk.extend(model, window=2048, out=out),
        lambda: ropewalk.export(model, reader="vllm", out=out),
        lambda: ropewalk.train(model, data=tmp_path / "text.txt", window=1024, steps=1, batch_size=1, out=out),
    )
    for write in (lambda: ropewalk.push(model, "me/longer"), *(making if for_all else ())):
        with pytest.raises(UserError) as refused:
            write()
        assert finding.sentence in str(refused.value)
    assert not out.exists()


def test_what_others_read_otherwise_and_quantised_weights_stop_no_upload(model: Path) -> None:
    config = json.loads((model / "config.json").read_text())
    del config["rope_scaling"]
    (model / "config.json").write_text(json.dumps(config | {"quantization_config": {"quant_method": "gptq"}}))
    assert any("save_pretrained" in each.sentence for each in ropewalk.doctor(model).wrong)
    with pytest.warns(UserWarning, match="are quantised .gptq."):
        assert "model.safetensors" in Parcel.of(PushSettings(model, "me/longer")).sizes


def test_a_broken_index_is_one_fault(model: Path) -> None:
    (model / "model.safetensors").unlink()
    (model / "model.safetensors.index.json").write_text("{")
    assert len(ropewalk.doctor(model).wrong) == 1
