"""What a shell completes, asked of the shells themselves."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import pytest

from ropewalk import cli
from ropewalk.settings.scaling import ExtendMethod

#: As readline calls it: the words typed, the last of them in part. Where the function has no answer, `-o default` makes readline list files.
BASH = """
source ./script
complete -p ropewalk
COMP_WORDS=({line}); COMP_CWORD=$((${{#COMP_WORDS[@]}} - 1)); COMPREPLY=()
_tyro_ropewalk
printf '%s\\n' "${{COMPREPLY[@]}}"
"""


@pytest.fixture(autouse=True)
def with_python_on_its_path(tmp_path: Path, monkeypatch) -> None:
    (tmp_path / "books of mine").mkdir()
    (tmp_path / "rows.jsonl").touch()
    monkeypatch.chdir(tmp_path)


def script(shell: str, capsys) -> str:
    with pytest.raises(SystemExit) as end:
        cli.main(["--tyro-print-completion", shell])
    assert not end.value.code
    return capsys.readouterr().out


def by_bash(line: str) -> list[str]:
    done = subprocess.run(["bash", "-c", BASH.format(line=line)], capture_output=True, text=True, check=True)
    registered, *words = done.stdout.splitlines()
    assert registered == "complete -o default -F _tyro_ropewalk ropewalk" and not done.stderr
    return [word for word in words if word]


def test_bash_completes_commands_options_values_and_leaves_files_to_readline(capsys) -> None:
    Path("script").write_text(script("bash", capsys))
    assert by_bash("ropewalk tr") == ["train"]
    assert "--method" in by_bash("ropewalk train hemp --me")
    assert by_bash("ropewalk extend hemp --method ya") == ["yarn"]
    assert set(by_bash("ropewalk extend hemp --method ''")) == set(ExtendMethod.__args__)
    for files in ("train hemp --data bo", "report ro"):
        assert by_bash(f"ropewalk {files}") == []
    assert by_bash("ropewalk da") == ["data-score"]
    assert by_bash("ropewalk data ''") == by_bash("ropewalk data sc") == ["score"]
    assert "--min-tokens" in by_bash("ropewalk data score books --m")
    assert "--min-tokens" in by_bash("ropewalk data-score --m")


def test_a_command_of_two_words_is_typed_as_it_is_completed() -> None:
    line = ["books", "--model", "hemp", "--window", "512"]
    assert cli.parse(["data-score", *line])[0] == cli.parse(["data", "score", *line])[0] == "data score"


def test_help_on_the_first_of_two_words_is_that_of_the_command(capsys) -> None:
    with pytest.raises(SystemExit) as end:
        cli.main(["data", "--help"])
    assert not end.value.code and "ropewalk data score" in capsys.readouterr().out


@pytest.mark.skipif(not shutil.which("fish"), reason="fish is not installed")
def test_fish_completes_them_and_files(capsys) -> None:
    Path("ropewalk.fish").write_text(script("fish", capsys))

    def asked(line: str) -> list[str]:
        ask = ["fish", "--no-config", "-c", f"source ropewalk.fish; complete -C '{line}'"]
        done = subprocess.run(ask, capture_output=True, text=True, check=True)
        return [each.partition("\t")[0] for each in done.stdout.splitlines()]

    assert asked("ropewalk tr")[0] == "train"
    assert "yarn" in asked("ropewalk extend hemp --method ya")
    assert "rows.jsonl" in asked("ropewalk report ro")
    assert any(each.startswith("books") for each in asked("ropewalk train hemp --data bo"))


@pytest.mark.skipif(not shutil.which("zsh"), reason="zsh is not installed")
def test_the_script_of_zsh_asks_for_files_where_no_word_fits(capsys) -> None:
    """Completion runs in a line editor only; what is asked here is the program inside, and that zsh can read the script."""
    Path("_ropewalk").write_text(script("zsh", capsys))
    subprocess.run(["zsh", "-n", "_ropewalk"], check=True)
    program = Path("_ropewalk").read_text().split("PYTHON_EOF'\n")[1].partition("\nPYTHON_EOF")[0]
    done = subprocess.run(
        ["python3", "-", "ropewalk", "report", "ro", "2"], input=program, capture_output=True, text=True, check=True
    )
    assert done.stdout == "__TYRO_COMPLETE_FILES__\n"


def test_tcsh_without_its_package_is_refused_in_a_sentence(capsys, monkeypatch) -> None:
    monkeypatch.setitem(__import__("sys").modules, "shtab", None)
    with pytest.raises(SystemExit) as end:
        cli.main(["--tyro-print-completion", "tcsh"])
    assert end.value.code == 2 and "needs shtab, which is not installed: pip install shtab" in capsys.readouterr().err
