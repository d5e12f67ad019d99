"""Talking to a model: the same tokens as transformers' own `generate`, said as they come, with a file in front, past the window."""

from __future__ import annotations

import io
import logging
import re
import sys
from pathlib import Path

import pytest
import torch

import ropewalk
from ropewalk import cli, testing
from ropewalk.data import chat_template
from ropewalk.errors import UserError
from ropewalk.evals import answering, time_needed
from ropewalk.evals import conversation as talk
from ropewalk.evals.answering import Heard
from ropewalk.evals.loaded import open_model
from ropewalk.progress import PROGRESS
from ropewalk.settings.downstream import Decoding

TEMPLATE = (
    "{{ bos_token }}{% for message in messages %}[{{ message.role }}]{{ message.content }}</s>{% endfor %}"
    "{% if add_generation_prompt %}[assistant]{% endif %}"
)
#: What a thinking model's template does: earlier answers are shown otherwise than they were written.
FORGETFUL = TEMPLATE.replace("{{ message.content }}", "{{ message.content | upper }}")


@pytest.fixture(scope="module")
def model():
    return testing.tiny("llama", window=64)


def _tokenizer(template: str | None = None):
    tokenizer = testing.byte_tokenizer(64)
    tokenizer.chat_template = template
    return tokenizer


def _by_transformers(model, tokenizer, ids: list[int], new: int) -> str:
    whole = model.generate(torch.tensor([ids]), max_new_tokens=new, do_sample=False, pad_token_id=0)
    return tokenizer.decode(whole[0, len(ids) :], skip_special_tokens=True)


def test_a_text_is_continued_as_transformers_does(model):
    tokenizer, heard = _tokenizer(), []
    reply = ropewalk.generate(model, tokenizer=tokenizer, text="rope", max_new_tokens=12, hear=heard.append)
    assert reply.text == "".join(heard) == _by_transformers(model, tokenizer, tokenizer("rope").input_ids, 12)
    assert (reply.prompt_tokens, reply.new_tokens, reply.window, reply.finished) == (5, 12, 64, False)


@pytest.mark.parametrize("template", [TEMPLATE, FORGETFUL])
@pytest.mark.parametrize("family", ["llama", "gemma3_text"])  # the second slides: its cache cannot be cut
def test_a_second_question_reads_on_from_the_cache_and_says_the_same(family, template):
    model, tokenizer = testing.tiny(family, window=256), _tokenizer(template)
    first, second = ropewalk.chat(model, tokenizer=tokenizer, question=["Where?", "And when?"], max_new_tokens=9)
    messages = [dict(role="user", content="Where?"), dict(role="assistant", content=first.text)]
    for reply, said in ((first, messages[:1]), (second, [*messages, dict(role="user", content="And when?")])):
        ids = tokenizer.apply_chat_template(said, add_generation_prompt=True, return_dict=False)
        assert (reply.text, reply.prompt_tokens) == (_by_transformers(model, tokenizer, ids, 9), len(ids))


@pytest.mark.parametrize(
    "family", ["gemma3_text", "qwen3_next", "qwen3-vl"]
)  # slides; keeps a state; names no eos_token_id
def test_without_a_template_a_second_question_goes_on_whatever_the_layers_keep(family, monkeypatch):
    model, tokenizer, asked = testing.tiny(family, window=256), _tokenizer(), []
    write = answering.write_one
    monkeypatch.setattr(answering, "write_one", lambda m, ids, **how: asked.append(list(ids)) or write(m, ids, **how))
    replies = ropewalk.chat(model, tokenizer=tokenizer, question=["Where did it stand?", "When?"], max_new_tokens=9)
    assert [reply.text for reply in replies] == [_by_transformers(model, tokenizer, ids, 9) for ids in asked]


def test_the_reading_of_a_long_prompt_shows_how_far_it_is_and_ends_before_the_first_word(model, monkeypatch, caplog):
    monkeypatch.setattr(answering, "_LONG", 20)
    caplog.set_level(PROGRESS, "ropewalk")
    events, asked = [], {"tokenizer": _tokenizer(), "max_new_tokens": 3}
    reply = ropewalk.generate(model, text="rope" * 8, **asked, hear=lambda piece: events.append(len(caplog.records)))
    shown = [(each, record.progress) for each, record in enumerate(caplog.records) if hasattr(record, "progress")]
    assert "reading the prompt, 33 tokens" in shown[0][1].title and shown[-1][1].ended
    assert shown[-1][1].done == shown[-1][1].total == model.config.num_hidden_layers
    assert [each.progress.ended for _, each in enumerate(caplog.records) if hasattr(each, "progress")].count(True) == 1
    assert all(shown[-1][0] < heard for heard in events) and not any(each._forward_hooks for each in model.model.layers)
    caplog.clear()
    assert ropewalk.generate(model, text="rope", **asked).prompt_tokens == 5  # a short one is read in a moment
    assert not any(hasattr(record, "progress") for record in caplog.records) and reply.prompt_tokens == 33


def test_a_log_says_at_the_start_how_long_the_reading_of_a_long_prompt_takes(model, monkeypatch, caplog):
    """One layer of 32k tokens takes minutes on a CPU: its end is too late for the first line."""
    monkeypatch.setattr(answering, "_LONG", 20)
    monkeypatch.setattr(time_needed, "seconds_of", lambda flops, *_, **__: flops)  # the more is read, the longer
    caplog.set_level(logging.INFO, "ropewalk")
    ropewalk.chat(model, tokenizer=_tokenizer(), question=["rope" * 8, "b" * 30], max_new_tokens=3)
    first, second = [each.getMessage() for each in caplog.records if "reading the prompt" in each.getMessage()]
    assert re.match(r"reading the prompt: 33 tokens, about .* here, as busy as it is now; fewer take less", first)
    assert re.match(r"reading the prompt: 33 tokens, about ", second)  # what was read before is not counted again


def test_what_was_read_is_not_read_again(model, monkeypatch):
    read = []
    forward = type(model).forward
    monkeypatch.setattr(
        type(model), "forward", lambda self, *a, **k: read.append(k["input_ids"].shape[1]) or forward(self, *a, **k)
    )
    ropewalk.chat(model, tokenizer=_tokenizer(), question=["a" * 40, "b"], max_new_tokens=2)
    # The first answer's last token and "\n\nb" are new to the second question; everything before them lies in the cache.
    assert read == [41, 1, 4, 1]


def test_a_file_stands_in_front_of_the_first_question(model, tmp_path, caplog):
    (tmp_path / "book.txt").write_text("A long rope.\n", encoding="utf-8")
    settings = dict(tokenizer=_tokenizer(TEMPLATE), file=tmp_path / "book.txt", max_new_tokens=3)
    with caplog.at_level(logging.INFO, "ropewalk"):
        first, second = ropewalk.chat(model, question=["Who?", "Why?"], **settings)
    asked = "<s>[user]A long rope.\n\n\nWho?</s>[assistant]"
    assert first.prompt_tokens == len(asked) - len("<s></s>") + 2
    assert f"the prompt has {first.prompt_tokens} tokens of the model's window of 64" in caplog.text
    assert "chat template" not in caplog.text


def test_a_prompt_past_the_window_is_called_extrapolation(model, caplog):
    reply = ropewalk.generate(model, tokenizer=_tokenizer(), text="x" * 80, max_new_tokens=2)
    assert reply.prompt_tokens == 81
    assert "the prompt has 81 tokens, more than the model's window of 64: extrapolation" in caplog.text
    reply = ropewalk.generate(model, tokenizer=_tokenizer(), text="x" * 60, max_new_tokens=9)
    assert reply.note.splitlines() == [
        "the text is 70 tokens by now, past the model's window of 64",
        "cut after 9 tokens; --max-new-tokens asks for more",
    ]


def test_drawn_answers_depend_on_the_seed_alone(model):
    drawn = [
        ropewalk.generate(model, tokenizer=_tokenizer(), text="a", temperature=1.0, max_new_tokens=8, seed=seed).text
        for seed in (0, 0, 1)
    ]
    assert drawn[0] == drawn[1] != drawn[2]


def test_every_token_that_ends_a_turn_ends_the_answer(model):
    tokenizer, ids = _tokenizer(), []
    reply = ropewalk.generate(model, tokenizer=tokenizer, text="a", max_new_tokens=4)
    whole = model.generate(torch.tensor([tokenizer("a").input_ids]), max_new_tokens=4, do_sample=False, pad_token_id=0)
    ids = whole[0, -4:].tolist()
    assert not reply.finished
    config = model.generation_config
    config.eos_token_id, before = [257, ids[2]], config.eos_token_id  # as Llama 3 and Gemma 3 name the end of a turn
    try:
        reply = ropewalk.generate(model, tokenizer=tokenizer, text="a", max_new_tokens=4)
    finally:
        config.eos_token_id = before
    assert (reply.finished, reply.new_tokens) == (True, ids.index(ids[2]))


def test_the_indentation_of_a_line_and_characters_of_several_tokens_are_kept():
    heard: list[str] = []
    stream = Heard(testing.byte_tokenizer(), heard.append)
    text = "def f():\n    return 'é𝄞'\n"
    stream.put(torch.tensor([[256, 1]]))
    for token in testing.byte_tokenizer()(text, add_special_tokens=False).input_ids:
        stream.put(torch.tensor([token]))
    stream.end()
    assert "".join(heard) == stream.text == text
    assert "é" in heard and "𝄞" in heard


def test_an_interrupted_answer_counts_and_the_next_question_can_be_asked(model):
    conversation = talk.Conversation(open_model(model, tokenizer=_tokenizer(TEMPLATE)), 6, Decoding(0.0))
    whole = conversation.ask("One?").text

    def interrupt(piece: str) -> None:
        raise KeyboardInterrupt

    again = talk.Conversation(open_model(model, tokenizer=_tokenizer(TEMPLATE)), 6, Decoding(0.0))
    with pytest.raises(KeyboardInterrupt):
        again.ask("One?", interrupt)
    said = again._messages[-1]
    assert said["role"] == "assistant" and said["content"] and whole.startswith(said["content"])
    assert again.ask("Two?").new_tokens > 0


@pytest.mark.parametrize(
    "wrong, rule",
    [
        (dict(question="a", max_new_tokens=0), "max-new-tokens is a whole number of at least 1"),
        (dict(question="a", temperature=-1.0), "temperature is a finite number of at least 0"),
        (dict(question="a", file="missing.txt"), "--file names a file, but 'missing.txt' does not exist"),
        (dict(question="a", file="/"), "--file names a file, but / is a directory"),
        (dict(), "chat answers questions, but there is none"),
        (dict(question="half a pair \ud83d"), "text that UTF-8 can write"),
    ],
)
def test_a_users_mistake_is_a_sentence(model, wrong, rule):
    with pytest.raises(UserError, match=rule):
        ropewalk.chat(model, **dict(tokenizer=_tokenizer()) | wrong)


@pytest.mark.parametrize(
    "template",
    ["{% for i in range(99999) %}{% for j in range(99999) %}{% endfor %}{% endfor %}", "{{ 'a' * 10**10 }}"],
)
def test_a_template_that_does_not_end_or_fills_the_memory_is_ended(model, template, monkeypatch):
    monkeypatch.setattr(chat_template, "_SECONDS", 0.5)
    with pytest.raises(UserError, match="chat template cannot be used .it takes more than"):
        ropewalk.chat(model, tokenizer=_tokenizer(template), question="a", max_new_tokens=1)


def test_a_template_that_refuses_is_a_sentence(model):
    tokenizer = _tokenizer("{{ raise_exception('roles must alternate') }}")
    with pytest.raises(UserError, match="chat template cannot be used .*roles must alternate"):
        ropewalk.chat(model, tokenizer=tokenizer, question="a")


@pytest.mark.parametrize("given", [{}, dict(prompt="a.txt", text="a")])
def test_generate_continues_one_text(given):
    with pytest.raises(UserError, match="either a file .* or a text"):
        ropewalk.generate("hemp", **given)


# The command line


@pytest.fixture
def directory(tmp_path: Path) -> str:
    return str(testing.tiny_directory(tmp_path / "a", window=64))


def test_questions_come_from_a_pipe_one_a_line(directory, monkeypatch, capsys):
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(b"One?\n\nTwo \xff?\n")))
    cli.main(["chat", directory, "--max-new-tokens", "3"])
    printed = capsys.readouterr()
    replies = ropewalk.chat(directory, question=["One?", "Two \ufffd?"], max_new_tokens=3)
    assert printed.out == "".join(f"{reply.text}\n" for reply in replies)
    assert (
        printed.err.count("cut after 3 tokens") == 2
        and "has no chat template" in printed.err
        and "tokens of the model's window of 64" in printed.err
    )


def test_the_model_may_stand_after_a_question(directory, capsys):
    cli.main(["chat", "--question", "One?", "--question", "Two?", directory, "--max-new-tokens", "2", "--quiet"])
    assert len(capsys.readouterr().err) == 0
    with pytest.raises(SystemExit) as stopped:
        cli.main(["generate", directory])
    assert stopped.value.code == 2


def test_at_a_terminal_lines_are_typed_until_the_end_of_input(directory, monkeypatch, capsys):
    typed = iter(["", "One?"])
    monkeypatch.setattr(sys.stdin, "isatty", lambda: True, raising=False)

    def line(prompt: str) -> str:
        try:
            return next(typed)
        except StopIteration:
            raise EOFError from None

    monkeypatch.setattr("builtins.input", line)
    cli.main(["chat", directory, "--max-new-tokens", "3"])
    assert capsys.readouterr().out == ropewalk.chat(directory, question="One?", max_new_tokens=3)[0].text + "\n\n"


def test_interrupting_at_the_prompt_ends_the_chat(directory, monkeypatch, capsys):
    monkeypatch.setattr(sys.stdin, "isatty", lambda: True, raising=False)

    def interrupted(prompt: str) -> str:
        raise KeyboardInterrupt

    monkeypatch.setattr("builtins.input", interrupted)
    with pytest.raises(SystemExit) as stopped:
        cli.main(["chat", directory])
    assert stopped.value.code == 130
