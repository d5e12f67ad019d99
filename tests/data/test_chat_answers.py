"""What a template makes of a conversation, and where the answers are in it. The oracle is transformers: `apply_chat_template`, and the mask that it
makes of a template's `{% generation %}`, of which ropewalk is shown the template without these marks too."""

import json
import re
import subprocess
import warnings

import numpy as np
import pytest

from chat_tokenizer import tokenizer
from ropewalk.data import chat_template
from ropewalk.data.best_fit import FittedBlocks
from ropewalk.data.chat_tokens import MAY_CUT, SCORED, encode_conversations
from ropewalk.data.conversations import Conversation, conversation_of
from ropewalk.data.documents import read_texts
from ropewalk.data.reading import Reading
from ropewalk.data.select import tokenized_documents
from ropewalk.data.tokenising import tokenise
from ropewalk.errors import UserError
from ropewalk.evals.downstream.pairs import HEAD, TAIL, pairs

BE = {"role": "system", "content": "Be."}
ASKED, SAID = {"role": "user", "content": "Why?"}, {"role": "assistant", "content": "Because."}
HELLO, BYE = {"role": "assistant", "content": "Hello."}, {"role": "assistant", "content": "Bye."}
CHATML = (
    "{% for m in messages %}<|im_start|>{{ m.role }}\n{% if m.role == 'assistant' %}{% generation %}{{ m.content }}<|im_end|>\n{% endgeneration %}"
    "{% else %}{{ m.content }}<|im_end|>\n{% endif %}{% endfor %}{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)
#: SmolLM2's writes a system's turn where there is none.
WITH_SYSTEM = "{% if messages[0].role != 'system' %}<|im_start|>system\nBe good.<|im_end|>\n{% endif %}" + CHATML
#: Qwen 3.5's raises where nobody asks anything.
WITH_USER = (
    "{% if messages | selectattr('role', 'equalto', 'user') | list | length == 0 %}{{ raise_exception('No user query found in messages.') }}{% endif %}"
    + CHATML
)
#: Gemma's.
ALTERNATING = (
    "{% if messages[0].role == 'system' %}{{ raise_exception('System role not supported') }}{% endif %}{% for m in messages %}"
    "{% if (m.role == 'user') != (loop.index0 % 2 == 0) %}{{ raise_exception('Conversation roles must alternate user/assistant') }}{% endif %}{% endfor %}"
    + CHATML
)
#: Writes a turn in another way once others follow, as no beginning of the conversation tells.
REWRITING = CHATML.replace("{{ m.content }}<", "{{ m.content if loop.last else m.content | upper }}<")
#: Asks for no answer, as many do that were not made for chats.
SILENT_PROMPT = (
    "<s>{% for m in messages %}<{{ m.role }}>{% if m.role == 'assistant' %}{% generation %}{{ m.content | trim }}</s>{% endgeneration %}"
    "{% else %}{{ m.content }}</s>{% endif %}{% endfor %}"
)
#: Llama 2's.
SPACED = (
    "{% for m in messages %}{% if m.role == 'user' %}<s>[INST] {{ m.content }} [/INST]{% else %}{% generation %} {{ m.content }} </s>{% endgeneration %}"
    "{% endif %}{% endfor %}"
)
#: DeepSeek R1's asks for thoughts, and leaves those of every answer out.
THOUGHTLESS = (
    "{% for m in messages %}{% if m.role == 'assistant' %}<answer>{% generation %}{{ m.content.split('</think>')[-1] }}</s>{% endgeneration %}"
    "{% else %}<{{ m.role }}>{{ m.content }}{% endif %}{% endfor %}{% if add_generation_prompt %}<answer><think>\n{% endif %}"
)
#: Qwen 3's asks for thoughts too, and writes those of the last answer.
LAST_THOUGHTS = (
    "{% for m in messages %}<|im_start|>{{ m.role }}\n{% if m.role == 'assistant' %}{% if loop.last %}<think>\n{% endif %}{% generation %}"
    "{% if loop.last %}{{ m.reasoning_content or '' }}\n</think>\n\n{% endif %}{{ m.content }}{% for c in m.tool_calls or [] %}<call>{{ c.function.name }}"
    "</call>{% endfor %}<|im_end|>\n{% endgeneration %}{% else %}{{ m.content }}<|im_end|>\n{% endif %}{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n<think>\n{% endif %}"
)
RESULT = {"role": "tool", "content": "12"}
CALL = {"role": "assistant", "content": "", "tool_calls": [{"type": "function", "function": {"name": "look"}}]}
THOUGHT = {"role": "assistant", "content": "", "reasoning_content": "hm"}


@pytest.fixture(autouse=True)
def own_cache(tmp_path, monkeypatch):
    monkeypatch.setenv("ROPEWALK_CACHE", str(tmp_path / "cache"))


def by_hand(made, messages):
    """Token ids and the assistant's of them, as transformers has them."""
    options = {"tokenize": True, "return_dict": True, "return_assistant_tokens_mask": True}
    encoded = made.apply_chat_template(messages, **options)
    return encoded["input_ids"], np.array(encoded["assistant_masks"], dtype=bool)


def unmarked(template):
    """For a tokenizer whose template does not say what the assistant's is."""
    return template and re.sub("{% (end)?generation %}", "", template)


both = pytest.mark.parametrize("shown", [lambda template: template, unmarked], ids=["marked", "unmarked"])


def chats(path, *talks):
    path.write_text("".join(json.dumps({"messages": talk}) + "\n" for talk in talks))
    return path


@both
@pytest.mark.parametrize(
    ("template", "messages"),
    [
        (CHATML, [HELLO, ASKED, SAID]),
        (WITH_SYSTEM, [HELLO, ASKED, SAID]),
        (WITH_SYSTEM, [HELLO]),
        (WITH_SYSTEM, [HELLO, BYE, ASKED]),
        (WITH_SYSTEM, [BE, HELLO, ASKED, SAID]),
        (WITH_SYSTEM, [BE, HELLO]),
        (WITH_USER, [BE, ASKED, SAID]),
        (WITH_USER, [BE, HELLO, ASKED, SAID]),
        (WITH_USER, [HELLO, ASKED, SAID]),
        (WITH_USER, [HELLO, BYE, ASKED, SAID]),
        (ALTERNATING, [ASKED, SAID, ASKED, BYE]),
        (SILENT_PROMPT, [ASKED, SAID, ASKED, {**SAID, "content": " s<a"}]),
        (SILENT_PROMPT, [HELLO, ASKED, SAID]),
        (SILENT_PROMPT, [{**HELLO, "content": "assistant"}, BYE, ASKED]),
        (SILENT_PROMPT, [BE, HELLO]),
        (SPACED, [ASKED, SAID, ASKED, BYE]),
        (THOUGHTLESS, [ASKED, SAID]),
        (THOUGHTLESS, [BE, ASKED, {**SAID, "content": "<think>hm</think>Because."}, ASKED, BYE]),
        (LAST_THOUGHTS, [ASKED, SAID, ASKED, SAID]),
        (LAST_THOUGHTS, [ASKED, SAID, ASKED, {**BYE, "reasoning_content": "Because."}]),
        (LAST_THOUGHTS, [ASKED, CALL, RESULT, SAID]),
        (LAST_THOUGHTS, [ASKED, {**CALL, "content": "Let me look."}, RESULT, CALL, RESULT, {**SAID, "content": "12"}]),
        (LAST_THOUGHTS, [ASKED, CALL, RESULT, CALL, RESULT]),
    ],
)
def test_what_a_template_takes_is_read_whatever_it_makes_of_its_beginnings(template, messages, shown):
    ((ids, marks),) = encode_conversations(tokenizer(shown(template)), [Conversation("n", messages)])
    whole, of_assistant = by_hand(tokenizer(template), messages)
    assert ids.tolist() == whole
    assert ((marks & SCORED) > 0).tolist() == of_assistant.tolist()
    ends = np.flatnonzero(of_assistant & ~np.append(of_assistant[1:], False))
    assert set(ends) <= set(np.flatnonzero(marks & MAY_CUT))


def test_a_conversation_without_its_user_is_refused_where_the_template_refuses_it():
    made, talk = tokenizer(WITH_USER), [BE, HELLO]
    with pytest.raises(Exception, match="No user query found"):
        made.apply_chat_template(talk, tokenize=False)
    with pytest.raises(UserError, match="^n cannot be used with the tokenizer's chat template .*No user query found"):
        encode_conversations(made, [Conversation("n", talk)])


@pytest.mark.parametrize("loss", ["answers", "all"])
@pytest.mark.parametrize("good", [1, 70])
def test_rows_that_a_template_refuses_are_counted_and_named(tmp_path, loss, good, monkeypatch):
    """They stand in several batches; `apply_chat_template` and the shell are the oracles."""
    monkeypatch.setattr("ropewalk.data.token_corpus._BATCH_CHARACTERS", 200)
    made, talks = tokenizer(ALTERNATING), [[ASKED, SAID]] * good
    for bad in ([BE, ASKED, SAID], [HELLO, ASKED, SAID], [ASKED, ASKED, SAID], [BE, HELLO]):
        talks += [bad, *[[ASKED, SAID]] * good]
    why = {}
    for number, talk in enumerate(talks, 1):
        try:
            made.apply_chat_template(talk, tokenize=False)
        except Exception as error:
            why.setdefault(str(error), []).append(number)
    assert sorted(map(len, why.values())) == [2, 2]
    path = chats(tmp_path / "a.jsonl", *talks)
    chats(tmp_path / "b.jsonl", [HELLO, ASKED, SAID])
    with pytest.raises(UserError) as refused:
        tokenise([path, tmp_path / "b.jsonl"], made, loss=loss)
    message = str(refused.value)
    file = "a.jsonl" if "a.jsonl" in message else "b.jsonl"
    if file == "b.jsonl":  # the order of files is drawn
        assert message.startswith("line 1 of ")
        with pytest.raises(UserError) as refused:
            tokenise(path, made, loss=loss)
        message = str(refused.value)
    assert message.startswith("4 rows cannot be read: line ") and "b.jsonl" not in message
    for reason, (first, second) in why.items():
        assert (
            f"line {first} of {path} cannot be used with the tokenizer's chat template (TemplateError: {reason}) (likewise line {second})"
            in message
        )
    subprocess.run(
        message.split("mend or drop them (")[1].removesuffix(" drops them)"), shell=True, cwd=tmp_path, check=True
    )
    assert len(tokenise(tmp_path / "kept.jsonl", made, loss=loss).names) == 5 * good


def test_measures_name_the_rows_that_a_template_refuses_too(tmp_path):
    path = chats(tmp_path / "a.jsonl", *[[ASKED, SAID]] * 40, [HELLO], [ASKED, SAID], [HELLO])
    with pytest.raises(UserError, match="^2 rows cannot be read: line 41 of .* .likewise line 43"):
        list(tokenized_documents(tokenizer(ALTERNATING), path))


def test_a_sample_of_a_large_file_does_not_stand_for_all_its_refused_rows(tmp_path, monkeypatch):
    monkeypatch.setattr("ropewalk.data.text_size._LITTLE", 1)
    monkeypatch.setattr("ropewalk.data.text_size._PIECE", 100)
    path = chats(tmp_path / "a.jsonl", *[[HELLO, ASKED, SAID]] * 50)
    with pytest.raises(UserError, match="^50 rows cannot be read: line 1 of "):
        tokenise(path, tokenizer(ALTERNATING), loss="answers")


def test_the_row_at_which_a_template_does_not_end_is_named(tmp_path, monkeypatch):
    monkeypatch.setattr(chat_template, "_SECONDS", 0.5)
    monkeypatch.setattr(chat_template, "_EACH", 0.1)
    endless = "{% if messages[0].content == 'Why?!' %}{% for i in range(99999) %}{% for j in range(99999) %}{% endfor %}{% endfor %}{% endif %}"
    path = chats(tmp_path / "a.jsonl", [ASKED, SAID], [{**ASKED, "content": "Why?!"}, SAID], [ASKED, SAID])
    with pytest.raises(UserError, match="chat template cannot be used for line 2 of .*a.jsonl .it takes more than"):
        tokenise(path, tokenizer(endless + CHATML), loss="answers")


def test_texts_that_are_too_long_together_are_written_apart(monkeypatch):
    made, talks = tokenizer(CHATML), [Conversation(str(n), [ASKED, {**SAID, "content": "a" * 3000}]) for n in range(9)]
    plain = [ids.tolist() for ids, _ in encode_conversations(made, talks)]
    monkeypatch.setattr(chat_template, "_LONGEST", 8000)
    assert [ids.tolist() for ids, _ in encode_conversations(made, talks)] == plain


def test_where_all_is_scored_no_answer_is_searched(tmp_path):
    made, talk = tokenizer(unmarked(REWRITING)), [ASKED, SAID, ASKED, BYE]
    with pytest.raises(UserError, match="an answer is not found .* --loss all needs none"):
        encode_conversations(made, [Conversation("n", talk)])
    ((ids, marks),) = encode_conversations(made, [Conversation("n", talk)], loss="all")
    whole, of_assistant = by_hand(tokenizer(REWRITING), talk)
    assert ids.tolist() == whole and (marks & SCORED).all()
    assert np.flatnonzero(marks & MAY_CUT).tolist() == [len(ids) - 1]
    (read,) = tokenized_documents(made, chats(tmp_path / "a.jsonl", talk))
    assert read.ids.tolist() == ids.tolist()
    ((ids, marks),) = encode_conversations(tokenizer(REWRITING), [Conversation("n", talk)])
    assert ((marks & SCORED) > 0).tolist() == of_assistant.tolist()


def test_marks_that_are_not_one_an_answer_are_not_taken_for_answers():
    in_two = "{% generation %}{{ m.content[:3] }}{% endgeneration %}{% generation %}{{ m.content[3:] }}<"
    template = CHATML.replace("{% generation %}{{ m.content }}<", in_two)
    made, talk = tokenizer(template), [ASKED, SAID, ASKED, {**BYE, "weight": 0}]
    ((ids, marks),) = encode_conversations(made, [Conversation("n", talk)])
    whole, of_assistant = by_hand(made, talk[:2])
    assert np.flatnonzero(marks & SCORED).tolist() == np.flatnonzero(of_assistant).tolist()
    assert len(np.flatnonzero(marks & MAY_CUT)) == 2


#: Zephyr's, which knows three roles.
OF_THREE_ROLES = CHATML.replace("{% for m in messages %}", "{% for m in messages if m.role != 'tool' %}")
#: Mistral's first one, which knows two.
OF_TWO_ROLES = CHATML.replace("{% for m in messages %}", "{% for m in messages if m.role not in ('tool', 'system') %}")
#: Qwen 3's, as far as thoughts go: those of the last turn.
OF_THE_LAST = CHATML.replace(
    "{{ m.content }}<",
    "{% if loop.last and m.reasoning_content %}<think>{{ m.reasoning_content | trim }}</think>{% endif %}{{ m.content.split('</think>')[-1] }}<",
)
TOOL, THINKS = {"role": "tool", "content": "1", "name": "Why?"}, {**SAID, "reasoning_content": " hm\n"}
ALOUD = {**SAID, "content": "<think>\nhm\n</think>\n\nBecause."}


@pytest.mark.parametrize(
    ("template", "messages", "missing"),
    [
        (CHATML, [BE, ASKED, SAID], ""),
        (CHATML.replace("m.content }}", "m.content | trim | upper | tojson }}"), [BE, ASKED, ALOUD], ""),
        (CHATML, [ASKED, THINKS, TOOL], "the name of 1 tool turn, the reasoning_content of 1 assistant turn"),
        (OF_THREE_ROLES, [BE, ASKED, SAID, TOOL, SAID], "the name of 1 tool turn, the text of 1 tool turn"),
        (OF_TWO_ROLES, [BE, ASKED, SAID], "the text of 1 system turn"),
        (OF_THE_LAST, [ASKED, THINKS, ASKED, THINKS], "the reasoning_content of 1 assistant turn"),
        (OF_THE_LAST, [ASKED, ALOUD], "the thoughts of 1 assistant turn"),
        ("{% for m in messages[:2] %}{{ m.content }}{% endfor %}", [ASKED, SAID, ASKED, BYE], "the text of 1 assistant turn, the text of 1 user turn"),
        (None, [BE, ASKED, THINKS, ASKED, ALOUD], "the reasoning_content of 1 assistant turn"),
    ],
)  # fmt: skip
def test_what_a_template_does_not_write_is_counted_and_named(tmp_path, template, messages, missing):
    """The oracle is the text that transformers makes of each: what it does not hold is named, whatever holds it by chance."""
    made, path = tokenizer(template), chats(tmp_path / "a.jsonl", *[messages] * 1000)
    why = "the tokenizer's chat template does not write them" if template else "the tokenizer has no chat template"
    of_all = missing.replace("of 1 ", "of 1,000 ").replace(" turn", " turns")
    said = [f"left out, since {why}: {of_all}"] * bool(missing)
    for read in (lambda: tokenise(path, made, loss="answers"), lambda: list(tokenized_documents(made, path))):
        with warnings.catch_warnings(record=True) as warned:
            warnings.simplefilter("always")
            read()
        assert [str(each.message) for each in warned] == said


@both
@pytest.mark.parametrize("silent", [CALL, THOUGHT])
@pytest.mark.parametrize("template", [CHATML, WITH_SYSTEM, None])
def test_an_answer_of_which_a_template_writes_nothing_is_not_scored_and_counted(template, silent, recwarn, shown):
    messages = [ASKED, silent, {"role": "tool", "content": "1"}, SAID]
    talk = conversation_of({"messages": messages}, "n", "row 1")
    made = tokenizer(shown(template))
    ((ids, marks),) = encode_conversations(made, [talk])
    assert made.decode(ids[marks & SCORED > 0]).strip() in ("Because.<|im_end|>", "Because.</s>")
    assert "answers that hold nothing but what is left out are not scored: 1" in [str(each.message) for each in recwarn]
    if template:
        whole, of_assistant = by_hand(tokenizer(template), messages)
        assert (
            ids.tolist() == whole and of_assistant.sum() > (marks & SCORED > 0).sum()
        )  # with the end of an empty turn


def test_the_header_of_a_silent_answer_is_not_taken_for_that_of_the_next():
    """Two answers follow each other where a template leaves out the tool's turn between them."""
    talk = conversation_of({"messages": [ASKED, CALL, RESULT, {**SAID, "reasoning_content": "hm"}]}, "n", "row 1")
    made = tokenizer(
        "{% for m in messages if m.role != 'tool' %}[{{ m.role }}] {{ m.content }}{% if m.reasoning_content and loop.last %} ({{ m.reasoning_content }})"
        "{% endif %}</s>{% endfor %}{% if add_generation_prompt %}[assistant] {% endif %}"
    )
    with pytest.warns(UserWarning, match="left out|answers that hold nothing"):
        ((ids, marks),) = encode_conversations(made, [talk])
    assert made.decode(ids).count("[assistant]") == 2
    assert made.decode(ids[marks & SCORED > 0]).strip() == "Because. (hm)</s>"


@both
@pytest.mark.parametrize(("silent", "written"), [(CALL, "m.tool_calls"), (THOUGHT, "m.reasoning_content")])
def test_an_answer_of_which_a_template_writes_something_is_scored(silent, written, recwarn, shown):
    template = CHATML.replace(
        "{{ m.content }}<|im_end|>\n{% endg", f"{{{{ {written} }}}}{{{{ m.content }}}}<|im_end|>\n{{% endg"
    )
    made, talk = tokenizer(template), [ASKED, silent, ASKED, SAID]
    ((ids, marks),) = encode_conversations(
        tokenizer(shown(template)), [conversation_of({"messages": talk}, "n", "row 1")]
    )
    whole, of_assistant = by_hand(made, talk)
    assert ids.tolist() == whole and ((marks & SCORED) > 0).tolist() == of_assistant.tolist()
    assert not [each for each in recwarn if "not scored" in str(each.message)]


@both
def test_thoughts_alone_that_a_template_drops_are_no_answer(shown):
    """As Qwen 3's drops those of all turns but the last."""
    made = tokenizer(
        shown(CHATML).replace(
            "{{ m.content }}<", "{{ m.content if loop.last else m.content.split('</think>')[-1].strip() }}<"
        )
    )
    talk = [ASKED, {**SAID, "content": "<think>hm</think>"}, ASKED, SAID]
    with pytest.warns(UserWarning, match="not scored: 1"):
        ((ids, marks),) = encode_conversations(made, [Conversation("n", talk)])
    assert ids.tolist() == by_hand(made, talk)[0]
    assert made.decode(ids[marks & SCORED > 0]) == "Because.<|im_end|>\n"


def test_silent_answers_are_counted_over_all_batches(tmp_path, monkeypatch, recwarn):
    """Conversations without another are in no row, and no longer window is said to hold them."""
    monkeypatch.setattr("ropewalk.data.token_corpus._BATCH_CHARACTERS", 1)
    path = chats(tmp_path / "a.jsonl", *[[ASKED, CALL, ASKED, SAID]] * 5, *[[ASKED, CALL]] * 3)
    corpus = tokenise(path, tokenizer(CHATML), loss="answers")
    assert [str(each.message) for each in recwarn if "scored" in str(each.message)] == [
        "answers that hold nothing but what is left out are not scored: 8; conversations without another, left out: 3"
    ]
    rows = FittedBlocks(corpus, 256)
    assert len(rows.lengths) == 5 and not rows.omitted.cut and rows.omitted.conversations == 5


@pytest.mark.parametrize("asked", ["document", "article", "dialogue"])
def test_lists_of_lines_on_both_sides_are_a_pair_and_no_turns(tmp_path, asked):
    """They were read as turns that alternate: every second line of a document was scored."""
    row = {asked: ["One.", "", "Two."], "summary": ["Fine day.", "Very."]}
    (tmp_path / "a.jsonl").write_text(json.dumps(row))
    (talk,) = read_texts(tmp_path / "a.jsonl", Reading(conversations="first"))
    assert [turn["content"] for turn in talk.messages] == [f"{HEAD}One.\n\nTwo.{TAIL}", "Fine day.\nVery."]
    (tmp_path / "a.jsonl").write_text(json.dumps({"prompt": ["One.", "Two."], "completion": ["Three."]}))
    with pytest.raises(UserError, match="text is a list"):
        list(read_texts(tmp_path / "a.jsonl", Reading(conversations="first")))


@pytest.mark.parametrize("field", ["document", "summary"])
def test_a_document_or_a_summary_that_is_a_list_is_its_lines_wherever_pairs_are_read(tmp_path, field):
    row = {"document": "A day.", "summary": "Fine."}
    (tmp_path / "a.jsonl").write_text(json.dumps({**row, field: ["Fine day.", "Very."]}))
    joined = {**row, field: "Fine day.\nVery."}
    (pair,) = pairs(tmp_path / "a.jsonl")
    (talk,) = read_texts(tmp_path / "a.jsonl", Reading(conversations="first"))
    assert (pair.document, pair.summary) == (joined["document"], joined["summary"])
    assert [turn["content"] for turn in talk.messages] == [f"{HEAD}{joined['document']}{TAIL}", joined["summary"]]
    for bad in (None, [], [""], ["a", None], [["a"]], {}):
        (tmp_path / "a.jsonl").write_text(json.dumps({**row, field: bad}))
        for read in (pairs, lambda path: read_texts(path, Reading(conversations="first"))):
            with pytest.raises(UserError):
                list(read(tmp_path / "a.jsonl"))
