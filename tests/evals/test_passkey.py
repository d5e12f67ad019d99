"""Passkey: prompts of exact lengths, the verdict of greedy decoding, k_max."""

import json
import re

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import PreTrainedTokenizerFast

from ropewalk import records
from ropewalk.attention_ops.prefix import SharedPrefix
from ropewalk.attention_ops.transformers import attends_in_two_parts
from ropewalk.cli.tables.measured import show_passkey
from ropewalk.errors import UserError
from ropewalk.evals import compile
from ropewalk.evals.checkpoints_of_run import by_step
from ropewalk.evals.retrieval import forced, harder, passkey
from ropewalk.evals.retrieval.forced import Prompt, verdicts
from ropewalk.model.load import load_model, load_tokenizer
from ropewalk.testing import FAMILIES, byte_tokenizer, tiny, tiny_directory
from ropewalk.training import deadline


def merging_tokenizer():
    """Byte-level BPE as GPT-2's: the blank belongs to the number, several digits are one token."""
    numbers = [f"The pass key is {n}. Remember it. {n} is the pass key.\n" for n in range(10_000, 99_999, 37)]
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    words = [passkey.HEADER, passkey.FILLER, passkey.QUESTION] * 50
    trainer = trainers.BpeTrainer(vocab_size=1500, initial_alphabet=pre_tokenizers.ByteLevel.alphabet())
    tokenizer.train_from_iterator(numbers + words, trainer)
    return PreTrainedTokenizerFast(tokenizer_object=tokenizer, eos_token=None)


def sentencepiece_like_tokenizer():
    """As LLaMA 1 and 2: a blank is put before every text, digits stand alone, bytes for the rest."""
    pieces = sorted({*"▁ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz.,?!'0123456789"})
    vocabulary = {piece: at for at, piece in enumerate(["<unk>", "<s>", "<0x0A>", *pieces])}
    tokenizer = Tokenizer(models.BPE(vocab=vocabulary, merges=[], unk_token="<unk>", byte_fallback=True))
    tokenizer.pre_tokenizer = pre_tokenizers.Metaspace(replacement="▁", prepend_scheme="first", split=False)
    tokenizer.decoder = decoders.Sequence([decoders.ByteFallback(), decoders.Metaspace(replacement="▁")])
    return PreTrainedTokenizerFast(tokenizer_object=tokenizer, bos_token="<s>")


TOKENIZERS = {"bytes": byte_tokenizer, "merging": merging_tokenizer, "sentencepiece": sentencepiece_like_tokenizer}


@pytest.fixture(scope="module", params=TOKENIZERS)
def tokenizer(request):
    return TOKENIZERS[request.param]()


def test_a_prompt_is_exactly_the_window_and_the_key_stands_at_k(tokenizer):
    protocol = passkey.Protocol(tokenizer, 700)
    for key in ("10000", "98765", "41234"):
        nearest, farthest = protocol.prompt(key, 1)[1], protocol.prompt(key, 700)[1]
        assert nearest < 300 and farthest > 500
        for k in passkey.depths_of(700, 16):
            prompt, placed = protocol.prompt(key, k)
            assert len(prompt.ids) == 700
            # Oracle: the decoded text up to the key's place ends where the key's first mention begins.
            before = tokenizer.decode(prompt.ids[: 700 - placed], skip_special_tokens=True)
            assert before.rstrip().endswith("\nThe pass key is")
            assert tokenizer.decode(prompt.ids[700 - placed :]).lstrip().startswith(f"{key}. Remember it. {key} is the")
            assert placed == min(max(k, nearest), farthest)


def test_the_prompt_and_the_key_read_as_the_protocol_says(tokenizer):
    prompt, _ = passkey.Protocol(tokenizer, 900).prompt("24680", 450)
    text = tokenizer.decode(np.concatenate([prompt.ids, prompt.answer]), skip_special_tokens=True)
    filler = re.escape(passkey.FILLER)
    pattern = rf" ?{re.escape(passkey.HEADER)}\n({filler} )*.*\n{re.escape(passkey.KEY_LINE.format(key='24680'))}\n"
    pattern += rf"({filler} )*.*\n{re.escape(passkey.QUESTION)} 24680"
    assert re.fullmatch(pattern, text), text


def test_the_answer_is_the_key_alone_whatever_becomes_of_the_blank():
    by_name = {name: passkey.Protocol(make(), 900).prompt("31415", 400)[0] for name, make in TOKENIZERS.items()}
    assert len(by_name["bytes"].answer) == len(by_name["sentencepiece"].answer) == 5
    assert len(by_name["merging"].answer) < 5
    merging = TOKENIZERS["merging"]()
    assert merging.decode(by_name["merging"].ids).endswith("key is")  # the blank is the key's
    assert merging.decode(by_name["merging"].answer) == " 31415"
    assert byte_tokenizer().decode(by_name["bytes"].ids).endswith("key is ")  # the blank is the question's


@pytest.mark.parametrize("name, after_blank", [("bytes", True), ("sentencepiece", True), ("merging", False)])
def test_the_record_and_the_terminal_say_where_the_prompt_ended(name, after_blank, capsys):
    """A model asked on the wrong side of the blank gives no digit, so a reader of a 0 must know the side."""
    tokenizer, model = TOKENIZERS[name](), tiny(window=600)
    model.resize_token_embeddings(len(tokenizer))
    rows, summary = passkey.passkey(model, tokenizer=tokenizer, window=600, depths=2, trials=1)
    assert summary.after_blank is after_blank
    assert summary.key_tokens == 5 or (name == "merging" and 1 <= summary.key_tokens < 5)
    show_passkey(rows, summary)
    output = " ".join(capsys.readouterr().out.split())
    assert ("of the keys' digits right" in output) == (summary.key_tokens == 5)
    assert f"the prompt ends {'after' if after_blank else 'before'} the blank" in output


@pytest.mark.parametrize(("right", "is_read"), [(5, False), (80, True)])  # of 100 digits: 5 %, 80 %
def test_a_wrong_first_digit_is_called_a_guess_where_more_digits_than_by_chance_are_right(right, is_read, capsys):
    depths = [records.Passkey(600, 600, 20, 0, right)]
    show_passkey(depths, records.PasskeySummary(600, 0, 1, 20, 0.0, key_tokens=5))
    said = " ".join(capsys.readouterr().out.split())
    assert f"{right} % of the keys' digits right" in said and ("is a guess of how the answer begins" in said) == is_read


def test_what_does_not_fit_is_moved_to_the_nearest_place_that_does():
    protocol = passkey.Protocol(byte_tokenizer(), 400)
    nearest, farthest = protocol.prompt("12345", 1)[1], protocol.prompt("12345", 400)[1]
    text = byte_tokenizer().decode(protocol.prompt("12345", 1)[0].ids)
    assert text.endswith(f"{passkey.KEY_LINE.format(key='12345')}\n\n{passkey.QUESTION} ")
    assert farthest == 400 - len(protocol.header) - len("\nThe pass key is ") and nearest < farthest


def test_a_window_too_small_for_the_prompt_is_refused_with_the_least_that_would_do():
    with pytest.raises(UserError, match="at least 2[0-9]{2} tokens, and the window is 100"):
        passkey.Protocol(byte_tokenizer(), 100).prompt("12345", 50)


def test_keys_are_fresh_five_digits_and_the_same_for_the_same_seed():
    model, tokenizer, seen = tiny(window=300), byte_tokenizer(), []
    real = passkey.Protocol.prompt

    def spy(self, key, k):
        seen.append(key)
        return real(self, key, k)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(passkey.Protocol, "prompt", spy)
        for seed in (0, 0, 1):
            passkey.passkey(model, tokenizer=tokenizer, window=300, depths=4, trials=5, seed=seed)
    first, second, third = seen[:20], seen[20:40], seen[40:]
    assert first == second != third
    assert len(set(first)) > 15 and all(re.fullmatch("[1-9][0-9]{4}", key) for key in first)


def greedy(model, ids, tokens):
    """Oracle: what `generate` gives, one prompt at a time."""
    ids = torch.from_numpy(ids)[None]
    mask = torch.ones_like(ids)
    out = model.generate(
        ids, attention_mask=mask, max_new_tokens=tokens, do_sample=False, eos_token_id=None, pad_token_id=0
    )
    return out[0, ids.shape[1] :].numpy()


@pytest.mark.parametrize("family", [*FAMILIES, "qwen3_next"])  # the last keeps a state, which prompts cannot share
def test_the_verdict_is_that_of_generate_with_and_without_a_shared_prefix(family):
    """Random models never know the key, so the answers here are what `generate` says, whole and with one token changed."""
    model, random = tiny(family, window=256), np.random.default_rng(3)
    prefix = random.integers(0, 256, 120)
    prompts, expected = [], []
    for own in (0, 33, 70, 70, 119):
        ids = np.concatenate([prefix[:own], random.integers(0, 256, 120 - own)])
        generated = greedy(model, ids, 4)
        other = generated.copy()
        other[2] = (other[2] + 1) % 256
        prompts += [Prompt(ids, generated), Prompt(ids, other)]
        expected += [True, False]
    for arguments in ({}, {"prefix": prefix}, {"prefix": prefix, "batch_tokens": 1}):
        assert [bool(one.all()) for one in verdicts(model, prompts, **arguments)] == expected
    assert model.config._attn_implementation == "sdpa"


@pytest.mark.parametrize("family", FAMILIES)
def test_a_shared_prefix_changes_logits_by_rounding_only(family):
    model, random = tiny(family, window=256), np.random.default_rng(0)
    ids = torch.from_numpy(random.integers(0, 256, (3, 90)))
    ids[:, :50] = ids[0, :50]
    with torch.inference_mode():
        whole = model(ids).logits[:, 70:]
        for split in (True, False):
            prefix = SharedPrefix.read(model, ids[:1, :60])
            with prefix.before(model, 50, 40, 20, in_two_parts=split and attends_in_two_parts(model)) as arguments:
                rest = model(ids[:, 50:], logits_to_keep=20, **arguments).logits
            # float32; attention over two sets of keys is summed in another order.
            torch.testing.assert_close(rest, whole, rtol=1e-5, atol=1e-6)


def test_compiled_layers_go_on_from_a_prefix_and_are_not_compiled_for_each_length():
    """Traced as on a GPU, but no code is generated; more layers than PyTorch compiles one function for."""
    layers = torch._dynamo.config.recompile_limit + 4
    model, random, graphs, runs = tiny(num_hidden_layers=layers, window=256), np.random.default_rng(0), [], []

    def backend(graph, inputs):
        graphs.append(graph)
        return lambda *args: runs.append(graph) or graph.forward(*args)

    prefix = random.integers(0, 256, 120)
    prompts = [
        Prompt(np.concatenate([prefix[:shared], random.integers(0, 256, own)]), random.integers(0, 256, 4))
        for shared in (40, 60, 90, 110)
        for own in (50, 31)
        for _ in range(3)
    ]
    seen = []
    compared = model.get_output_embeddings().register_forward_hook(lambda m, i, out: seen.append(out.clone()))
    plain = forced.verdicts(model, prompts, prefix=prefix)
    expected = list(seen)
    seen.clear()
    torch._dynamo.reset()
    with compile.compiled(model, backend=backend):
        fused = forced.verdicts(model, prompts, prefix=prefix)
    compared.remove()
    for found, wanted in zip(seen, expected, strict=True):
        torch.testing.assert_close(found, wanted, rtol=1e-5, atol=1e-6)
    assert len(seen) == len(expected)
    assert all((a == b).all() for a, b in zip(plain, fused, strict=True))
    # A layer is cut at its attention, into three or four; each may be traced for one prompt and for many, and no more often.
    assert 0 < len(graphs) <= 12
    # In every pass, every layer but the last, three pieces or more.
    assert len(runs) >= 3 * (layers - 1) * len(seen)


def test_both_ways_of_attending_are_tried_above():
    assert attends_in_two_parts(tiny("llama")) and not attends_in_two_parts(tiny("gemma3_text"))


def test_on_a_pretrained_model_verdicts_are_those_of_generate(shared):
    path = shared / "models" / "lab-2k"
    model, tokenizer = load_model(path, dtype="float32"), load_tokenizer(path)
    protocol = passkey.Protocol(tokenizer, 320)
    prompts = [protocol.prompt(key, k)[0] for key, k in (("21345", 80), ("90817", 160), ("55012", 300))]
    ours = [bool(one.all()) for one in verdicts(model, prompts, prefix=protocol.prefix)]
    theirs = [bool((greedy(model, prompt.ids, 5) == prompt.answer).all()) for prompt in prompts]
    assert ours == theirs
    assert any(ours), "the model knows none of the keys, so this test shows nothing"


def test_k_max_is_the_largest_k_with_no_failure_before_it():
    assert passkey.k_max([(64, 1.0), (128, 0.2), (192, 0.1), (256, 1.0)]) == 128
    assert passkey.k_max([(64, 0.1), (128, 1.0)]) == 0
    assert passkey.k_max([(256, 0.9), (64, 1.0), (128, 0.3), (192, 0.2)]) == 256


@given(st.lists(st.integers(0, 10), min_size=1, max_size=32))
def test_the_interval_of_k_max_holds_k_max(successes):
    rows = [records.Passkey(320, 10 * at, 10, count) for at, count in enumerate(successes, start=1)]
    summary = passkey.summarise(rows)
    assert summary.k_low <= summary.k_max <= summary.k_high
    assert summary.low - 1e-12 <= summary.accuracy <= summary.high + 1e-12  # 1 comes out a rounding below 1
    assert summary.accuracy == pytest.approx(sum(successes) / (10 * len(successes)))


def test_depths_that_all_fail_leave_no_room_for_a_long_k_max():
    """Each 0 of 10 alone is compatible with 20 %; that 32 in a row are is one chance in 10 ** 40 or less."""
    rows = [records.Passkey(320, 10 * at, 10, 0) for at in range(1, 33)]
    summary = passkey.summarise(rows)
    assert summary.k_low == summary.k_max == 0 and summary.k_high <= 20


@pytest.mark.parametrize("window", [0, -3])
def test_a_window_of_nothing_is_refused_and_not_taken_for_the_models_own(window):
    with pytest.raises(UserError, match=f"window is a whole number of at least 1 .*, got {window};"):
        passkey.passkey(tiny(window=300), tokenizer=byte_tokenizer(), window=window, depths=2, trials=1)


def test_rows_and_summary_go_on_record(tmp_path):
    out = tmp_path / "r.jsonl"
    rows, summary = passkey.passkey(
        tiny(window=300), tokenizer=byte_tokenizer(), window=300, depths=4, trials=2, out=out
    )
    read = records.read([out])
    assert [m.row.k for m in read.of(records.Passkey)] == [75, 150, 225, 300] == [row.k for row in rows]
    assert read.of(records.PasskeySummary)[0].row.k_max == summary.k_max
    settings = read.of(records.PasskeySummary)[0].run.settings
    assert {name: settings[name] for name in ("window", "depths", "trials")} == {
        "window": 300,
        "depths": 4,
        "trials": 2,
    }


def test_what_is_on_record_is_not_measured_again_unless_something_differs(tmp_path, monkeypatch):
    out, real, calls = tmp_path / "r.jsonl", passkey.measure_depths, []

    def spy(*args, **kwargs):
        calls.append(args)
        return real(*args, **kwargs)

    monkeypatch.setattr(passkey, "measure_depths", spy)

    def run(seed=0, weights=0, trials=2):
        model = tiny(window=300, seed=weights)
        return passkey.passkey(
            model, tokenizer=byte_tokenizer(), window=300, depths=4, trials=trials, seed=seed, out=out
        )

    first, again = run(), run()
    assert len(calls) == 1 and first == again
    run(seed=1), run(weights=1), run(trials=3)
    assert len(calls) == 4 and run(seed=1) and len(calls) == 4


def test_a_budget_asks_every_depth_as_often_as_there_is_time_for_and_says_so(tmp_path, caplog):
    asked = dict(tokenizer=byte_tokenizer(), window=300, depths=6, trials=5)
    whole, enough = (passkey.passkey(tiny(window=300), **asked, budget=minutes) for minutes in (None, 60.0))
    assert enough[0] == whole[0] and "trials a depth" not in caplog.text
    rows, summary = passkey.passkey(tiny(window=300), **asked, budget=1e-6, out=tmp_path / "r.jsonl")
    # Of six depths three are the fewest by which k_max has an interval, and seconds are never refused.
    assert [row.trials for row in rows] == [3] * 6 and summary.trials == 3
    assert "3 of 5 trials a depth were done within --budget 1e-06" in caplog.text
    assert all(few.successes <= all_.successes for few, all_ in zip(rows, whole[0], strict=True))  # of the same keys
    written = records.read([tmp_path / "r.jsonl"])
    assert [run.settings["budget"] for run in written.runs.values()] == [1e-6]


def test_a_budget_without_time_for_an_interval_is_refused_before_the_first_prompt(monkeypatch):
    monkeypatch.setattr(passkey, "reckoned", lambda model, passes: 600.0)  # of five trials a depth
    monkeypatch.setattr(passkey, "verdicts", lambda *_, **__: pytest.fail("a prompt was read"))
    with pytest.raises(
        UserError, match=r"18 of 30 prompts are the fewest that give an interval .*give --budget 8 or more"
    ):
        passkey.passkey(tiny(window=300), tokenizer=byte_tokenizer(), window=300, depths=6, trials=5, budget=2.0)


def test_a_budget_that_is_a_few_seconds_short_is_taken_and_that_is_said(monkeypatch, caplog):
    """63 s of a minute: what is reckoned is not known to three seconds."""
    caplog.set_level("INFO", logger="ropewalk")
    monkeypatch.setattr(passkey, "reckoned", lambda model, passes: 105.0)  # of five trials a depth, 63 of three
    asked = dict(tokenizer=byte_tokenizer(), window=300, depths=6, trials=5)
    rows, _ = passkey.passkey(tiny(window=300), **asked, budget=1.0)
    assert all(row.trials >= 3 for row in rows)
    assert caplog.text.count("18 prompts are the fewest that give an interval and take about 1:03 here") == 1
    assert "a little more than --budget 1:00" in caplog.text
    caplog.clear()
    passkey.passkey(tiny(window=300), **asked, budget=1.1)
    assert "a little more" not in caplog.text
    with pytest.raises(UserError, match="take about 1:03 here, and --budget is 0:51"):
        passkey.passkey(tiny(window=300), **asked, budget=0.85)


def test_a_run_is_measured_checkpoint_by_checkpoint(tmp_path):
    config = dict(
        ropewalk=dict(original_window=300, window=300, scaling=dict(method="plain"), rope_theta=10000.0, history=[])
    )
    for steps in (20, 10):
        path = tiny_directory(tmp_path / "run" / "checkpoints" / f"step-{steps:06d}", window=300, seed=steps)
        config_dict = json.loads((path / "config.json").read_text())
        config_dict["ropewalk"] = config["ropewalk"] | {"steps": steps}
        (path / "config.json").write_text(json.dumps(config_dict))
    by_steps = by_step(passkey.passkey, tmp_path / "run", depths=2, trials=1, out=tmp_path / "r.jsonl")
    assert list(by_steps) == [10, 20]
    rows = records.read([tmp_path / "r.jsonl"]).of(records.PasskeySummary)
    assert [m.run.model.steps for m in rows] == [10, 20]


def test_a_run_without_checkpoints_is_refused(tmp_path):
    tiny_directory(tmp_path / "run")
    with pytest.raises(UserError, match="has none under checkpoints/"):
        by_step(passkey.passkey, tmp_path / "run")


def test_nan_logits_are_an_error_and_no_failure_to_retrieve(tmp_path):
    model = tiny(window=300)
    model.model.norm.weight.data[0] = float("nan")
    with pytest.raises(UserError, match="NaN at the end of a prompt of 300 tokens"):
        passkey.passkey(model, tokenizer=byte_tokenizer(), window=300, depths=2, trials=1, out=tmp_path / "r.jsonl")
    assert not (tmp_path / "r.jsonl").exists()


@pytest.mark.parametrize("shares", [True, False])
def test_the_tokens_that_are_reckoned_with_are_those_that_the_model_reads(shares):
    """Counted where they go in: the prefix once, and of each prompt its own."""
    model, protocol, read = tiny(window=700), passkey.Protocol(byte_tokenizer(), 700), []
    prompts = [protocol.prompt("41234", k)[0] for k in (200, 400, 700) for _ in range(2)]
    prefix = protocol.prefix if shares else None
    model.model.register_forward_pre_hook(
        lambda module, words, named: read.append(named["input_ids"].numel()), with_kwargs=True
    )
    verdicts(model, prompts, prefix=prefix)
    passes = forced.passes_of(model, prompts, prefix)
    assert sum(tokens * count for (tokens, _), count in passes.items()) == sum(read)
    assert sum(scored * count for (_, scored), count in passes.items()) == 6 * len(prompts[0].answer)


@pytest.mark.parametrize(
    ("measure", "said"),
    [
        (passkey.passkey, "passkey, window 2000: 2 prompts"),
        (harder.retrieval, "retrieval, chain, window 2000: 2 prompts"),
    ],
)
def test_prompts_that_take_long_are_announced_with_what_makes_them_shorter(measure, said, monkeypatch, caplog):
    monkeypatch.setattr(deadline, "_rate", lambda device, *_: 1e3)
    caplog.set_level("INFO", "ropewalk")
    sizes = {"depths": 2, "trials": 1} if measure is passkey.passkey else {"families": ["chain"], "trials": 2}
    measure(tiny(window=2100), tokenizer=byte_tokenizer(), window=2000, **sizes)
    (line,) = [record.getMessage() for record in caplog.records if said in record.getMessage()]
    assert re.search(r"about [\d.]+ (h|days) here, as busy as it is now; fewer .*--trials.*--window", line)


def test_no_depths_or_no_trials_are_refused():
    with pytest.raises(UserError, match="depths is a whole number of at least 1 .*, got 0"):
        passkey.passkey(tiny(), tokenizer=byte_tokenizer(), window=300, depths=0)
