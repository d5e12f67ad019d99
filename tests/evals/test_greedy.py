"""Prompts that are read once and continued together: the tokens of `generate`, in few passes, each over as little as can be."""

import gc
import math

import numpy as np
import pytest
import torch

from ropewalk.attention_ops.cached_rows import CachedRows
from ropewalk.errors import UserError
from ropewalk.evals import compile
from ropewalk.evals.long_context import greedy
from ropewalk.evals.long_context.greedy import Continuing, reads_once, responses
from ropewalk.evals.retrieval.forced import Prompt
from ropewalk.testing import FAMILIES, tiny

ROOM = 20
NONE = np.empty(0, dtype=np.int64)


def generated(model, ids, tokens=ROOM, **options):
    """Oracle: what transformers' `generate` gives after one prompt alone."""
    ids = torch.from_numpy(ids)[None]
    plain = dict(max_new_tokens=tokens, do_sample=False, eos_token_id=None, pad_token_id=0) | options
    return model.generate(ids, attention_mask=torch.ones_like(ids), **plain)[0, ids.shape[1] :].numpy()


def continuing(**changes):
    return Continuing(**dict(room=ROOM, ends=[], settled=lambda place, ids: False) | changes)


def prompts_of(count, length=50, seed=0):
    random = np.random.default_rng(seed)
    return [Prompt(random.integers(1, 256, length), NONE) for _ in range(count)]


@pytest.fixture
def passes(monkeypatch):
    """(rows, tokens) of each pass through a model that is watched."""
    seen = []

    def watch(model):
        model.get_input_embeddings().register_forward_hook(lambda module, given, out: seen.append(tuple(out.shape[:2])))
        return seen

    return watch


@pytest.mark.parametrize("family", FAMILIES)
def test_tokens_are_those_of_generate(family):
    model = tiny(family, window=256)
    if not reads_once(model):
        pytest.skip("its attention is more than plain causal: transformers generates")
    prompts = prompts_of(6)  # two batches of rows
    # Answers that are right, and of another length; wrong in the middle; wrong at once.
    for place, (length, wrong) in enumerate([(7, None), (3, None), (9, 4), (5, 0)]):
        answer = generated(model, prompts[place].ids, length)
        if wrong is not None:
            answer[wrong] = (answer[wrong] + 1) % 256
        prompts[place] = Prompt(prompts[place].ids, answer)
    found = dict(responses(model, prompts, continuing()))
    assert [place for place, ids in sorted(found.items()) if ids is None] == [0, 1]
    for place in range(2, 6):
        assert (found[place] == generated(model, prompts[place].ids)).all()
    assert model.config._attn_implementation == "sdpa"


@pytest.mark.parametrize("rows", [1, 2, 4])
@pytest.mark.parametrize("batch_tokens", [50, 100])
def test_what_prompts_share_is_read_once_and_changes_no_token(passes, monkeypatch, rows, batch_tokens):
    """As facts are hidden: one text, and each prompt goes another way from some place on, the first ones here soonest."""
    monkeypatch.setattr(greedy, "rows_for", lambda *given: rows)
    model, random = tiny(window=256, num_key_value_heads=2), np.random.default_rng(4)
    trunk, depths = random.integers(1, 256, 50), [2, 10, 18, 26, 34, 42]
    texts = [np.concatenate([trunk[:depth], random.integers(1, 256, 50 - depth)]) for depth in depths]
    prompts = [
        Prompt(ids, NONE if depth % 3 else generated(model, ids, 5)) for ids, depth in zip(texts, depths, strict=True)
    ]
    expected = [generated(model, prompt.ids) for prompt in prompts]
    seen = passes(model)
    found = dict(responses(model, prompts, continuing(), batch_tokens=batch_tokens))
    for place, prompt in enumerate(prompts):
        assert found[place] is None if len(prompt.answer) else (found[place] == expected[place]).all()
    if batch_tokens == 50:  # a prompt a pass, and room for four tokens of an answer; two tokens are not worth a copy
        assert [tokens for _, tokens in seen if tokens > 1] == [54, 16 + 4, 24 + 4, 32 + 4, 40 + 4, 54]


def test_a_response_ends_at_an_end_token_or_when_it_is_settled_and_leaves_the_others_the_pass(passes):
    model, prompts = tiny(window=256), prompts_of(4, seed=1)
    whole = [generated(model, prompt.ids) for prompt in prompts]
    end = int(whole[1][5])
    seen = passes(model)
    found = dict(
        responses(model, prompts, continuing(ends=[end], settled=lambda place, ids: place == 3 and len(ids) > 1))
    )
    for place in (0, 1, 2):
        cut = list(whole[place]).index(end) if end in whole[place] else ROOM
        assert (found[place] == whole[place][:cut]).all()
    assert 1 < len(found[3]) <= 1 + greedy._LOOK and (found[3] == whole[3][: len(found[3])]).all()
    # Every prompt is read once, and all its later tokens one by one; who has ended is in no pass after the next look.
    assert sum(rows for rows, tokens in seen if tokens == 50) == 4 and {tokens for _, tokens in seen} == {50, 1}
    still = [rows for rows, tokens in seen if tokens == 1]
    assert len(still) == ROOM - 1 and still[0] == 4 and still[-1] == sum(len(found[place]) == ROOM for place in found)


def test_an_answer_that_is_right_costs_one_pass_and_gives_its_row_to_the_next_prompt(passes):
    model, prompts = tiny(window=256), prompts_of(9, seed=2)
    prompts = [Prompt(prompt.ids, generated(model, prompt.ids, 4)) for prompt in prompts]
    seen = passes(model)
    found = dict(responses(model, prompts, continuing(), batch_tokens=100))
    assert set(found.values()) == {None} and seen == [(2, 53)] * 4 + [(1, 53)]


def test_the_memory_of_a_task_is_free_before_the_next_one_asks_how_much_is():
    """On a GPU a task whose cache stayed left room for one row to the next: 99 s instead of 8 for 30 items of 4096 tokens on a 7B."""
    model, prompts = tiny(window=256), prompts_of(2)
    gc.collect()
    gc.disable()
    try:
        dict(responses(model, prompts, continuing()))
        assert not [left for left in gc.get_objects() if type(left) is CachedRows]
    finally:
        gc.enable()


def test_continuing_copies_no_cache():
    """What a token adds is written in place: of all that a step copies, nothing is as long as the prompts."""
    model, prompts = tiny(window=1024), prompts_of(4, length=700)
    for _ in responses(model, prompts, continuing(room=2)):
        pass
    with torch.profiler.profile(record_shapes=True) as profile:
        dict(responses(model, prompts, continuing()))
    copied = [
        math.prod(shape)
        for event in profile.events()
        if event.name in ("aten::cat", "aten::copy_") and event.input_shapes
        for shape in event.input_shapes
        if len(shape) == 4 and shape[0] == 4  # of all four rows; prompts are read two at a time
    ]
    assert copied and max(copied) < 700


def test_compiled_layers_continue_and_are_not_compiled_for_each_step():
    layers = torch._dynamo.config.recompile_limit + 4
    model, graphs = tiny(num_hidden_layers=layers, window=256), []

    def backend(graph, inputs):
        graphs.append(graph)
        return graph.forward

    prompts = [Prompt(prompt.ids, np.arange(3) + 7) for prompt in prompts_of(6, seed=3)]
    plain = dict(responses(model, prompts, continuing()))
    torch._dynamo.reset()
    with compile.compiled(model, backend=backend):
        fused = dict(responses(model, prompts, continuing()))
    assert all((plain[place] == fused[place]).all() for place in plain)
    # A layer is cut at its attention, into three or four pieces: for prompts and for single tokens, of one row and of several.
    assert 0 < len(graphs) <= 16


def test_what_is_not_a_number_is_refused():
    model, prompts = tiny(window=256), prompts_of(1)
    with torch.no_grad():
        model.get_output_embeddings().weight[5] = float("nan")
    with pytest.raises(UserError, match="NaN at the end of a prompt of 50 tokens"):
        dict(responses(model, prompts, continuing()))


def test_tables_that_go_by_the_length_and_other_caches_are_left_to_transformers():
    scaled = dict(rope_type="dynamic", factor=2.0, rope_theta=10000.0)
    assert reads_once(tiny("llama")) and not reads_once(tiny("gemma3_text"))
    assert not reads_once(tiny("llama", rope_parameters=scaled))
