"""What reaches the hub, by its own client talking to a hub on this machine: what a model is, and nothing that tells of its maker's."""

from __future__ import annotations

import base64
import json
import os
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import huggingface_hub
import pytest

from ropewalk import UserError, doctor, export, extend, push, testing
from ropewalk.checkpoint.marks import MARK
from ropewalk.cli import main
from ropewalk.model.push import Parcel
from ropewalk.settings.export import PushSettings

MODEL = {
    "README.md",
    "config.json",
    "generation_config.json",
    "model.safetensors",
    "tokenizer.json",
    "tokenizer_config.json",
}


class Hub(ThreadingHTTPServer):
    """As much of the hub's HTTP API as an upload needs; what was sent lies in `files`, repository → name → bytes."""

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.files: dict[str, dict[str, bytes]] = {}
        self.private: dict[str, bool] = {}
        self.blobs: dict[str, bytes] = {}

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_port}"


class _Handler(BaseHTTPRequestHandler):
    server: Hub

    def log_message(self, *_: object) -> None:
        """Nothing."""

    def _answer(self, content: object = None, status: int = 200, **headers: str) -> None:
        body = json.dumps(content).encode()
        self.send_response(status)
        for name, value in {"Content-Length": str(len(body)), **headers}.items():
            self.send_header(name.replace("_", "-"), value)
        self.end_headers()
        self.wfile.write(body)

    def _sent(self) -> bytes:
        return self.rfile.read(int(self.headers.get("Content-Length") or 0))

    def do_GET(self) -> None:
        name = self.path.removeprefix("/api/models/")
        if name not in self.server.files:
            return self._answer({"error": "Repository not found"}, 404, X_Error_Code="RepoNotFound")
        siblings = [{"rfilename": each} for each in self.server.files[name]]
        self._answer({"id": name, "private": self.server.private[name], "siblings": siblings})

    def do_PUT(self) -> None:
        self.server.blobs[self.path.rpartition("/")[2]] = self._sent()
        self._answer({})

    def do_POST(self) -> None:
        sent = self._sent()
        if self.headers.get("Authorization") != "Bearer of-a-writer":
            return self._answer({"error": "Invalid username or password."}, 401)
        if self.path.endswith("/commit/main"):
            return self._commit(self.path.split("/")[3:5], [json.loads(line) for line in sent.splitlines()])
        asked = json.loads(sent)
        if self.path == "/api/repos/create":
            name = f"{asked['organization']}/{asked['name']}"
            if name in self.server.files:
                return self._answer({"error": "exists", "url": f"{self.server.url}/{name}"}, 409)
            self.server.files[name], self.server.private[name] = {}, asked["visibility"] == "private"
            return self._answer({"url": f"{self.server.url}/{name}"})
        if self.path.endswith("/preupload/main"):
            mode = {True: "lfs", False: "regular"}
            files = [{"path": f["path"], "uploadMode": mode[f["path"].endswith("tensors")]} for f in asked["files"]]
            return self._answer({"files": [{**each, "shouldIgnore": False} for each in files]})
        if self.path.endswith("/objects/batch"):
            objects = [
                {**each, "actions": {"upload": {"href": f"{self.server.url}/put/{each['oid']}"}}}
                for each in asked["objects"]
            ]
            return self._answer({"transfer": "basic", "objects": objects})
        self._answer({"errors": [], "warnings": []} if "yaml" in self.path else [])

    def _commit(self, name: list[str], lines: list[dict]) -> None:
        there = self.server.files["/".join(name)]
        for line in lines:
            value = line["value"]
            if line["key"] == "file":
                there[value["path"]] = base64.b64decode(value["content"])
            elif line["key"] == "lfsFile":
                there[value["path"]] = self.server.blobs[value["oid"]]
        self._answer(
            {
                "commitUrl": f"{self.server.url}/{'/'.join(name)}/commit/{0:040}",
                "commitOid": "0" * 40,
                "pullRequestUrl": None,
            }
        )


@pytest.fixture
def hub(monkeypatch: pytest.MonkeyPatch):
    with Hub() as server:
        threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True).start()
        for name, value in {"ENDPOINT": server.url, "HF_HUB_OFFLINE": False, "HF_HUB_DISABLE_XET": True}.items():
            monkeypatch.setattr(huggingface_hub.constants, name, value)
        monkeypatch.setenv("HF_TOKEN", "of-a-writer")
        yield server
        server.shutdown()


@pytest.fixture
def model(tmp_path: Path) -> Path:
    """A model with what a run, a person and a trainer leave beside it."""
    directory = testing.tiny_directory(tmp_path / "out")
    (directory / "README.md").write_text("# ours\n")
    (directory / "checkpoints/step-000002").mkdir(parents=True)
    for name in (
        "records.jsonl",
        "run.yaml",
        "optimizer.pt",
        "training_args.bin",
        "notes.txt",
        "held_out.json",
        ".env",
        "config.json.before-fix-1",
        "tokenizer_config.json.before-fix-1",
    ):
        (directory / name).write_text("secret")
    (directory / "checkpoints/step-000002/model.safetensors").write_text("secret")
    return directory


def test_the_options_of_a_command_stay_or_their_paths_are_said(tmp_path: Path) -> None:
    longer = tmp_path / "longer"
    extend(testing.tiny_directory(tmp_path / "a", window=64), window=128, out=longer)
    unasked, asked = (Parcel.of(PushSettings(longer, "me/longer", also=also)) for also in (None, ["run.yaml"]))
    assert "run.yaml" in unasked.stays and "run.yaml" not in unasked.sizes and not unasked.places
    assert asked.places["run.yaml"] == sorted({str(tmp_path / "a"), str(longer)})


def test_every_text_that_goes_along_is_looked_at_for_paths_those_with_a_blank_too(model: Path, tmp_path: Path) -> None:
    books, run = tmp_path / "books" / "train-1.jsonl.xz", tmp_path / "my run"
    books.parent.mkdir()
    books.touch()
    run.mkdir()
    (model / "records.jsonl").write_text(json.dumps({"texts": [f"{books}"], "gone": f"{tmp_path}/gone"}) + "\n")
    (model / "run.yaml").write_text(f"out: {run}\ndata: {books}, and more\n")
    (model / "notes.txt").write_text(f"It lies in {run}. See https://host{run}, /tmp and {run}/.\n")
    (model / "optimizer.pt").write_bytes(b"\0" + os.fsencode(run))
    (model / "vocab.txt").write_text(f"{run}\n")
    also = ["records.jsonl", "run.yaml", "notes.txt", "optimizer.pt"]
    parcel = Parcel.of(PushSettings(model, "me/longer", also=also))
    assert {"vocab.txt", *also} <= set(parcel.sizes)
    assert parcel.places == {
        "records.jsonl": [str(books)],
        "run.yaml": sorted([str(run), str(books)]),
        "notes.txt": [str(run)],
    }


def test_the_listing_says_for_whom_before_the_hub_is_asked(model: Path, capsys) -> None:
    for words, seen_by in (([], "private; --public for everyone"), (["--public"], "public, by --public")):
        main(["push", str(model), "me/longer", "--dry-run", *words])
        assert f"to me/longer ({seen_by}):" in capsys.readouterr().out


def test_a_model_goes_to_a_private_repository_and_nothing_else_of_its_directory_does(hub: Hub, model: Path) -> None:
    assert push(model, "me/longer") == f"{hub.url}/me/longer"
    there = hub.files["me/longer"]
    assert hub.private["me/longer"] and set(there) == MODEL
    assert all(content == (model / name).read_bytes() for name, content in there.items())
    push(model, "me/longer", also=["rec*.jsonl", "checkpoints/step-000002/model.safetensors"])
    assert set(there) - MODEL == {"records.jsonl", "checkpoints/step-000002/model.safetensors"}


def test_who_downloads_it_can_tell_a_damaged_copy_and_learns_of_nothing_that_stays(
    hub: Hub, tmp_path: Path, capsys
) -> None:
    longer, copy = tmp_path / "longer", tmp_path / "copy"
    extend("hemp", window=1024, out=longer)
    main(["push", str(longer), "me/longer", "--yes"])
    assert MARK in capsys.readouterr().out.partition("not uploaded: ")[0]
    there = hub.files["me/longer"]
    assert str(tmp_path).encode() not in there[MARK] and "run.yaml" in json.loads((longer / MARK).read_text())["holds"]
    content = json.loads(there[MARK])
    assert {each.partition(" ")[0] for each in content["holds"]} == set(there) - {MARK}
    assert set(content["digests"]) < set(there)
    copy.mkdir()
    for name, sent in there.items():
        (copy / name).write_bytes(sent)
    assert [each.verdict for each in doctor(copy).findings if each.number == 14] == ["ok"]
    weights = bytearray(there["model.safetensors"])
    weights[-100] ^= 1
    (copy / "model.safetensors").write_bytes(weights)
    assert [each.number for each in doctor(copy).wrong] == [14]


def test_a_public_repository_is_asked_for(hub: Hub, model: Path) -> None:
    push(model, "me/open", public=True)
    assert not hub.private["me/open"]
    (model / "README.md").write_text("# changed\n")
    with pytest.raises(UserError, match="me/open is there and public; add --public"):
        push(model, "me/open")
    assert hub.files["me/open"]["README.md"] == b"# ours\n"


def test_that_nobody_knows_the_licence_is_listed(model: Path, capsys) -> None:
    (model / "README.md").write_text("---\nlicense: unknown\n---\n# ours\n")
    main(["push", str(model), "me/longer", "--dry-run", "--public"])
    assert "its card says license: unknown; ask the base's owner" in capsys.readouterr().out


def test_what_goes_is_listed_first_and_somebody_says_yes(hub: Hub, model: Path, monkeypatch, capsys) -> None:
    config = json.loads((model / "config.json").read_text())
    (model / "config.json").write_text(json.dumps({**config, "_name_or_path": str(model)}))
    with pytest.raises(SystemExit) as ended:
        main(["push", str(model), "me/longer"])
    shown = capsys.readouterr()
    assert ended.value.code == 2 and "nobody said yes; add --yes" in shown.err and not hub.files
    assert (
        "to me/longer (private; --public for everyone):" in shown.out
        and "me/longer: new, private" in shown.out
        and f"config.json names what only this machine has: {model}" in shown.out
    )
    stays = next(line for line in shown.out.splitlines() if line.startswith("not uploaded: "))
    assert {"checkpoints/", "optimizer.pt", "records.jsonl", ".env"} <= set(
        stays.removeprefix("not uploaded: ").split(", ")
    )
    main(["push", str(model), "me/longer", "--yes"])
    assert set(hub.files["me/longer"]) == MODEL
    main(["push", str(model), "me/longer", "--yes"])
    assert "me/longer: there, private; replaced there: README.md" in capsys.readouterr().out
    main(["push", str(model), "me/other", "--dry-run"])
    assert "me/other" not in hub.files


def test_what_a_link_leads_to_outside_is_uploaded_as_weights_or_when_it_is_asked_for(
    hub: Hub, model: Path, capsys
) -> None:
    """A directory from elsewhere may link to any file of its reader's; shared weights are linked on purpose, and shown."""
    secret, shared = model.parent / "secret", model.parent / "shared.safetensors"
    secret.write_text("secret")
    (model / "model.safetensors").rename(shared)
    (model / "model.safetensors").symlink_to(shared)
    for name in ("LICENSE", "other.safetensors", "chat_template.jinja"):
        (model / name).symlink_to(secret)
    main(["push", str(model), "me/longer", "--yes"])
    assert set(hub.files["me/longer"]) == MODEL
    shown = capsys.readouterr().out
    assert f"LICENSE (a link out of the directory, to {secret})" in shown
    assert f"model.safetensors is a link, and what it leads to is uploaded: {shared}" in shown
    push(model, "me/longer", also=["LICENSE"])
    assert hub.files["me/longer"]["LICENSE"] == b"secret"


@pytest.mark.parametrize(
    ("change", "repository", "why"),
    [
        (lambda model: (model / "model.safetensors").unlink(), "me/x", "safetensors or GGUF"),
        (lambda model: (model / "model.safetensors").write_bytes(b"cut"), "me/x", "model.safetensors"),
        (lambda model: None, "longer", "owner/name, got 'longer'"),
        (lambda model: None, "me/../x", "owner/name"),
        (lambda model: model.rename(model.with_name("gone")), "me/x", "no directory"),
    ],
)  # fmt: skip
def test_what_is_no_model_is_not_pushed(hub: Hub, model: Path, change, repository: str, why: str) -> None:
    change(model)
    with pytest.raises(UserError, match=why):
        push(model, repository)
    assert not hub.files


@pytest.mark.parametrize(
    ("change", "why"),
    [
        (lambda config: [config.pop(key, None) for key in ("rope_scaling", "rope_parameters")], "one was edited without the other"),
        (lambda config: [config[key].update(rope_type="yam") for key in ("rope_scaling", "rope_parameters")], "scaled by 'yam'"),
        (lambda config: config.update(max_position_embeddings=4096), "the block says that the window is 256"),
    ],
)  # fmt: skip
def test_a_config_that_contradicts_itself_is_not_pushed(
    hub: Hub, model: Path, tmp_path: Path, change, why: str
) -> None:
    extend(model, window=256, method="yarn", out=tmp_path / "longer")
    push(tmp_path / "longer", "me/longer")
    config = json.loads((tmp_path / "longer/config.json").read_text())
    change(config)
    (tmp_path / "longer/config.json").write_text(json.dumps(config))
    with pytest.raises(UserError, match=why):
        push(tmp_path / "longer", "me/edited")
    assert "me/edited" not in hub.files


def test_a_tokenizer_that_cannot_be_read_is_neither_pushed_nor_exported(hub: Hub, tmp_path: Path) -> None:
    longer = tmp_path / "longer"
    extend("hemp", window=1024, out=longer)
    (longer / "tokenizer.json").write_text("{")
    with pytest.raises(UserError, match="tokenizer.json cannot be read"):
        push(longer, "me/longer")
    with pytest.raises(UserError, match="tokenizer.json cannot be read"):
        export(longer, reader="vllm", out=tmp_path / "e")
    assert not hub.files and not (tmp_path / "e").exists()


def test_a_hub_that_refuses_or_is_not_there_is_a_sentence(hub: Hub, model: Path, monkeypatch) -> None:
    monkeypatch.setenv("HF_TOKEN", "of-a-reader")
    with pytest.raises(UserError, match="hub did not take me/x .*401.*hf auth login"):
        push(model, "me/x")
    monkeypatch.setattr(huggingface_hub.constants, "ENDPOINT", "http://127.0.0.1:9")
    with pytest.raises(UserError, match="see that you are online"):
        push(model, "me/x")
    with pytest.raises(UserError, match="there is no trainer"):
        push(model, "me/x", also=["trainer_state.json"])


def test_without_a_hub_it_is_listed_all_the_same_and_then_said(hub: Hub, model: Path, monkeypatch, capsys) -> None:
    monkeypatch.setattr(huggingface_hub.constants, "ENDPOINT", "http://127.0.0.1:9")
    with pytest.raises(SystemExit) as ended:
        main(["push", str(model), "me/longer"])
    shown = capsys.readouterr()
    assert ended.value.code == 2 and "see that you are online" in shown.err
    assert "model.safetensors" in shown.out and "not uploaded: " in shown.out


@pytest.mark.parametrize("config", ["config.json", "tokenizer_config.json"])
def test_code_that_goes_along_is_named(config: str, hub: Hub, model: Path, capsys) -> None:
    """In the directory of somebody who trusted it; a file of code that no config names stays."""
    (model / "own.py").write_text("")
    main(["push", str(model), "me/longer", "--dry-run"])
    assert "own.py" in capsys.readouterr().out.partition("not uploaded: ")[2]
    content = json.loads((model / config).read_text())
    (model / config).write_text(json.dumps({**content, "auto_map": {"AutoConfig": "own.C"}}))
    main(["push", str(model), "me/longer", "--dry-run"])
    sentence = f"code goes along, which readers that trust it run as themselves: own.py, auto_map of {config}"
    assert sentence in capsys.readouterr().out and not hub.files
    push(model, "me/longer")
    assert set(hub.files["me/longer"]) == MODEL | {"own.py"}
