"""A conversion that is too large for this process, that takes long, or that is stopped: a sentence, its progress, and nothing half written."""

import os
import resource
import signal
import subprocess
import sys
import time

import pytest

import ropewalk
from ropewalk import testing
from ropewalk.checkpoint import file_limit
from ropewalk.errors import UserError
from ropewalk.exports import converter
from ropewalk.progress import PROGRESS

#: What of llama.cpp's converter the driver takes hold of.
_CLASSES = "class TextModel:\n    get_vocab_base_pre = None\nclass ModelBase:\n    load_hparams = None\n"
#: Writes three MiB, slowly, and waits if it is told to.
_WRITES = """
import sys, time
with open(sys.argv[sys.argv.index("--outfile") + 1], "wb") as file:
    for _ in range(3):
        file.write(bytes(2**20))
        file.flush()
        time.sleep(0.2)
"""


def program(place, content):
    (place / "conversion").mkdir(parents=True)
    (place / "conversion/base.py").write_text(_CLASSES)
    (place / "convert_hf_to_gguf.py").write_text(content)
    return place


def limited_to(size):
    return lambda _: (size, size)


def test_a_file_above_the_limit_of_this_process_is_refused_before_it_is_begun(tmp_path, monkeypatch):
    base = testing.tiny_directory(tmp_path / "base")
    monkeypatch.setattr(converter.subprocess, "Popen", None)  # nothing is run
    monkeypatch.setattr(file_limit.resource, "getrlimit", limited_to(2**17))
    for reader in ("llama.cpp", "ollama"):
        with pytest.raises(UserError, match=r"the GGUF file takes 0\.\d MiB, .* no file above 0\.1 MiB \(ulimit -f\)"):
            ropewalk.export(base, reader=reader, out=tmp_path / "out")
    assert [path.name for path in tmp_path.iterdir()] == ["base"]


def test_weights_that_would_have_to_be_copied_are_asked_for_too(tmp_path, monkeypatch):
    base = testing.tiny_directory(tmp_path / "base", window=64)
    monkeypatch.setattr(file_limit.resource, "getrlimit", limited_to(2**17))
    ropewalk.extend(base, window=128, out=tmp_path / "linked")  # which writes no weight

    def other_disk(source, target):
        raise OSError(18, "Invalid cross-device link")

    monkeypatch.setattr(os, "link", other_disk)
    with pytest.raises(UserError, match=r"model\.safetensors takes .*\(ulimit -f\)"):
        ropewalk.extend(base, window=128, out=tmp_path / "out")


def test_what_a_program_calls_a_full_disk_at_the_limit_is_called_the_limit(tmp_path, monkeypatch):
    failing = _WRITES + "raise OSError('1048576 requested and 942048 written')\n"
    monkeypatch.setattr(resource, "getrlimit", limited_to(3 * 2**20))
    with pytest.raises(OSError, match="File too large"):
        _convert(program(tmp_path / "llama", failing), tmp_path / "x.gguf")


def _convert(directory, file):
    converter.convert(
        file.parent, file, name="x", gguf_type="auto", pre_tokenizer=None, directory=directory, size=3 * 2**20
    )


def test_how_much_of_the_file_is_written_is_shown(tmp_path, monkeypatch, caplog):
    caplog.set_level(PROGRESS, "ropewalk")
    monkeypatch.setattr(converter, "_BETWEEN_LOOKS", 0.02)
    _convert(program(tmp_path / "llama", _WRITES), tmp_path / "x.gguf")
    shown = [record.progress.done for record in caplog.records if hasattr(record, "progress")]
    assert shown == sorted(shown) and {0, 1, 2, 3} <= {*shown}
    assert "MiB of the GGUF file, about: 2 of 3" in caplog.text


@pytest.mark.parametrize("number, status", [(signal.SIGTERM, 143), (signal.SIGINT, 130)])
def test_a_stopped_export_says_so_and_leaves_nothing(tmp_path, number, status):
    base = testing.tiny_directory(tmp_path / "base")
    waiting = "import os, sys, time\nopen(os.environ['STARTED'], 'w').write(str(os.getpid()))\ntime.sleep(600)\n"
    llama, started = program(tmp_path / "llama", waiting), tmp_path / "started"
    command = [sys.executable, "-m", "ropewalk", "export", str(base), "--for", "llama.cpp", "--converter", str(llama)]
    process = subprocess.Popen(
        [*command, "--out", str(tmp_path / "out")],
        env={**os.environ, "STARTED": str(started)},
        stderr=subprocess.PIPE,
        text=True,
        preexec_fn=lambda: signal.signal(
            signal.SIGINT, signal.default_int_handler
        ),  # a shell's background job ignores it
    )
    while not (started.exists() and started.read_text()):
        assert process.poll() is None, process.stderr.read()
        time.sleep(0.05)
    process.send_signal(number)
    said = process.communicate(timeout=60)[1]
    assert process.returncode == status and "Traceback" not in said
    assert ("ended by a signal" if number == signal.SIGTERM else "interrupted") in said
    assert {path.name for path in tmp_path.iterdir()} == {"base", "llama", "started"}
    with pytest.raises(ProcessLookupError):  # the converter is gone as well, once whoever inherits it has taken note
        for _ in range(200):
            os.kill(int(started.read_text()), 0)
            time.sleep(0.05)


def test_who_asks_for_gguf_is_led_to_its_readers(tmp_path):
    with pytest.raises(UserError, match="a GGUF file is --for llama.cpp"):
        ropewalk.export("hemp", reader="gguf", out=tmp_path / "out")
