"""LongCE and documents' weights: against a transcription of the published procedure, and exact when a run is killed."""

import numpy as np
import pytest
import torch
from torch.utils._pytree import tree_leaves

from ropewalk import testing
from ropewalk.attention_ops.transformers import attend_in_blocks
from ropewalk.data.sliding import SlidingWindow
from ropewalk.distributed.mesh import Mesh
from ropewalk.errors import UserError
from ropewalk.evals.perplexity.two_pass import Contexts, read_twice
from ropewalk.model import loss
from ropewalk.model.label_weights import LabelWeights, OfPart, taken_out, weights_of
from ropewalk.model.logits import LogitsTransform
from ropewalk.model.loss import IGNORED, NextTokenLoss
from ropewalk.settings.train import TrainSettings
from ropewalk.training.short_context import ShortContext
from short_run import DOCUMENTS, go, same, steps, weights

CPU = torch.device("cpu")


@pytest.fixture(autouse=True)
def own_cache(tmp_path, monkeypatch):
    monkeypatch.setenv("ROPEWALK_CACHE", str(tmp_path / "cache"))


@pytest.fixture(scope="module")
def base(tmp_path_factory):
    return testing.tiny_directory(tmp_path_factory.mktemp("base") / "base", window=64)


@pytest.fixture(scope="module")
def sharp():
    """A model whose predictions depend on what is far: weights of a random one hardly leave 1."""
    model = testing.tiny(window=128)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.mul_(4)
    return model.train()


def rows_of(batch, window, seed=0):
    ids = torch.randint(0, 256, (batch, window + 1), generator=torch.Generator().manual_seed(seed))
    return {"input_ids": ids[:, :-1].clone(), "labels": ids[:, 1:].clone()}


def published(model, ids, kept, step, most):
    """Weights and losses of all tokens of one sequence but the first, as the paper's appendix and its authors' script have them.

    kept: tokens that the shortest short context has; the script's trunc_len. step: its `internal`.
    """
    nll = torch.nn.functional.cross_entropy(model(ids[None]).logits[0, :-1].float(), ids[1:], reduction="none")
    ratio = torch.ones(len(nll))
    for begin in range(0, len(ids) - kept, step):
        end = min(begin + kept + step, len(ids))
        with torch.no_grad():
            logits = model(ids[None, begin : end - 1]).logits[0].float()
            short = torch.nn.functional.cross_entropy(logits, ids[begin + 1 : end], reduction="none")[kept - 1 :]
        ratio[begin + kept - 1 : end - 1] = torch.exp(short - nll[begin + kept - 1 : end - 1].detach())
    return ratio.clamp(max=most), nll


@pytest.mark.parametrize(("kept", "step", "window"), [(12, 4, 63), (24, 8, 63), (16, 16, 79), (7, 1, 40)])
def test_the_gradient_is_that_of_the_published_procedure(sharp, kept, step, window):
    assert (window + 1 - kept) % step == 0  # or the last pass differs, which is tested below
    rows, root = rows_of(2, window), NextTokenLoss(sharp)
    expected = plain = 0.0
    every = []
    for row, labels in zip(rows["input_ids"], rows["labels"], strict=True):
        ratio, nll = published(sharp, torch.cat([row, labels[-1:]]), kept, step, 5.0)
        expected, plain = expected + (ratio * nll).sum(), plain + float(nll.sum().detach())
        every.append(ratio)
    every = torch.cat(every)
    assert every.min() < 0.9 and every.max() == 5 and ((every > 1.1) & (every < 5)).any()
    sharp.zero_grad()
    expected.backward()
    gradients = {name: parameter.grad.clone() for name, parameter in sharp.named_parameters()}
    sharp.zero_grad()
    short = ShortContext(kept + step, step).add(rows, root, Mesh(CPU), in_blocks=False)
    summed = root(**taken_out(short, 5.0))
    summed.backward()
    # What is shown are nats without weights, so that runs with and without LongCE can be compared.
    assert float(summed.detach()) == pytest.approx(plain, rel=1e-5)
    for name, parameter in sharp.named_parameters():
        # A ratio is an exponential: what float32 loses of two losses near 10 nats, it loses several times over.
        scale = gradients[name].abs().max()
        torch.testing.assert_close(parameter.grad, gradients[name], rtol=1e-3, atol=2e-4 * float(scale))


def test_the_losses_are_those_that_context_gain_reads(sharp):
    """Context gain's engine reads the same short contexts; the last pass here ends where the row ends, whatever the stride."""
    window, contexts = 90, Contexts(91, 20, 8)
    rows = rows_of(1, window)
    ids = np.concatenate([rows["input_ids"][0].numpy(), rows["labels"][0, -1:].numpy()])
    (twice,) = read_twice(sharp, [(ids, SlidingWindow(0, 91, 20))], contexts)
    found = ShortContext(20, 8).add(rows, NextTokenLoss(sharp), Mesh(CPU), in_blocks=False)["short"][0]
    assert found[:19].isnan().all() and not found[19:].isnan().any()
    whole_passes = 19 + (91 - 20) // 8 * 8
    assert found[19:whole_passes].numpy() == pytest.approx(twice.short[: whole_passes - 19], rel=1e-4)
    with torch.no_grad():
        last = torch.nn.functional.cross_entropy(
            sharp(torch.tensor(ids[None, -20:-1])).logits[0].float(), torch.tensor(ids[-19:]), reduction="none"
        )
    assert found[whole_passes:].numpy() == pytest.approx(last[whole_passes - 90 :].numpy(), rel=1e-4)


def test_the_worked_example_and_what_counts_once():
    whole = torch.tensor([0.4, 1.9, 0.7, 0.6])
    short = torch.tensor([1.0, 2.0, 0.5, 3.0])
    found = weights_of(whole, OfPart(None, short, 5.0))
    assert [round(float(each), 2) for each in found] == [1.82, 1.11, 0.82, 5.0]
    assert float((found * whole).mean()) == pytest.approx(1.60, abs=0.005)
    short[1] = torch.nan
    assert weights_of(whole, OfPart(torch.tensor([2.0, 3.0, 1.0, 0.0]), short, 5.0)).tolist() == pytest.approx(
        [2 * 1.8221, 3.0, 0.8187, 0.0], rel=1e-4
    )
    held = LabelWeights(given=torch.ones(2, 3))
    assert held.of_part(slice(2, 5)).given.shape == (3,)
    assert tree_leaves(((), {"weigh": held})) == [held], "or FSDP2 would find the tensor and round it to bfloat16"


def test_weights_are_traced_as_one_graph():
    """On a GPU what follows the logits is compiled; here it is traced as for that, and run as it is."""
    generator = torch.Generator().manual_seed(0)
    product, given, short = torch.randn(130, 50, generator=generator), torch.rand(130), 5 * torch.rand(130)
    labels = torch.randint(0, 50, (130,), generator=generator)
    labels[::7], short[::3] = IGNORED, torch.nan
    traced = torch.compile(loss._from_product, dynamic=False, backend="eager", fullgraph=True)
    for part in (None, OfPart(None, short, 5.0), OfPart(given, None, 5.0), OfPart(given, short, 5.0)):
        expected = loss._from_product(product, labels, LogitsTransform(), part)
        torch.testing.assert_close(traced(product, labels, LogitsTransform(), part), expected, rtol=0, atol=0)


def test_documents_in_a_row_know_nothing_of_each_other(sharp):
    """Against the model's own reading of each label's context: from where its pass begins, or its document if that is later."""
    lengths, window = (37, 9, 50), 96
    rows = rows_of(1, window)
    rows["position_ids"] = torch.cat([torch.arange(length) for length in lengths])[None]
    rows["labels"][0, [36, 45, 60]] = IGNORED
    reader = ShortContext(16, 8)
    attend_in_blocks(sharp)
    found = reader.add(rows, NextTokenLoss(sharp), Mesh(CPU), in_blocks=True)["short"][0]
    sharp.set_attn_implementation("sdpa")
    begins = np.repeat(np.cumsum([0, *lengths[:-1]]), lengths)
    scored_to, expected = 0, torch.full((window,), torch.nan)
    for start in reader.starts(window):
        for token in range(max(start + 16 - 1 - 8, scored_to), start + 16 - 1):
            label = rows["labels"][0, token]
            if begins[token] < start and label != IGNORED:
                context = rows["input_ids"][:, max(start, begins[token]) : token + 1]
                with torch.no_grad():
                    expected[token] = -sharp(context).logits[0, -1].float().log_softmax(0)[label]
        scored_to = start + 16 - 1
    assert scored_to == window and 50 < (~expected.isnan()).sum() < 70
    torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-4, equal_nan=True)


def test_a_killed_run_goes_on_as_if_it_had_not_been(base, tmp_path):
    options = dict(longce=24, longce_stride=8, save_every=2, mask_documents=True)
    go(base, tmp_path / "whole", **options)
    go(base, tmp_path / "begun", steps=3, **options)
    go(base, tmp_path / "begun", resume=True, **options)
    assert same(weights(tmp_path / "whole"), weights(tmp_path / "begun"))
    go(base, tmp_path / "plain", mask_documents=True)
    assert not same(weights(tmp_path / "whole"), weights(tmp_path / "plain"))
    # The first step's loss is of the same weights, and is shown without LongCE's.
    assert steps(tmp_path / "whole")[0].loss == steps(tmp_path / "plain")[0].loss
    with pytest.raises(UserError, match="longce 24, and this run has 32"):
        go(base, tmp_path / "begun", resume=True, **options | {"longce": 32})


def test_micro_batches_and_a_gemma_with_windows_that_slide_change_nothing_but_rounding(tmp_path):
    for family in ("llama", "gemma3_text"):
        base = testing.tiny_directory(tmp_path / family / "base", family, window=64)
        for micro in (1, 4):
            go(base, tmp_path / family / str(micro), steps=3, micro_batch=micro, longce=30)
        losses = [[step.loss for step in steps(tmp_path / family / name)] for name in ("1", "4")]
        assert losses[0] == pytest.approx(losses[1], rel=1e-5)


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (dict(longce=96), "shorter than the window, got 48, 96 and 96"),
        (dict(longce=8, longce_stride=8), "got 8, 8 and 96"),
        (dict(longce=8, mode="pose"), "mode pose reads the short one alone"),
        (dict(longce_stride=8), "add --longce"),
        (dict(longce_most=3.0), "--longce-most changes nothing without --longce"),
        (dict(weigh=True), "--weigh changes nothing without --scores"),
        (dict(keep=0.5), "--keep changes nothing without --scores"),
    ],
)
def test_what_cannot_be_is_refused(options, said, tmp_path):
    with pytest.raises(UserError, match=said):
        TrainSettings(model="hemp", data=DOCUMENTS, window=96, out=tmp_path / "out", **options)


@pytest.mark.parametrize("adapted", [False, True])
def test_weights_that_are_given_are_those_of_the_sum(adapted):
    model = testing.tiny()
    if adapted:  # a head that is no plain layer
        peft = pytest.importorskip("peft")
        model = peft.get_peft_model(model, peft.LoraConfig(r=4, target_modules=["lm_head"]))
    rows = rows_of(2, 37)
    rows["labels"][0, ::5] = IGNORED
    given = torch.rand(2, 37, generator=torch.Generator().manual_seed(1)) * 3
    logits = model(input_ids=rows["input_ids"]).logits.flatten(0, 1)
    each = torch.nn.functional.cross_entropy(logits, rows["labels"].flatten(), ignore_index=IGNORED, reduction="none")
    (each * given.flatten()).sum().backward()
    trained = {name: parameter for name, parameter in model.named_parameters() if parameter.requires_grad}
    expected = {name: parameter.grad.clone() for name, parameter in trained.items()}
    model.zero_grad()
    summed = NextTokenLoss(model)(**taken_out(rows | {"weights": given}, 5.0))
    summed.backward()
    assert float(summed.detach()) == pytest.approx(float(each.sum().detach()), rel=1e-6)
    for name, parameter in trained.items():
        torch.testing.assert_close(parameter.grad, expected[name], rtol=1e-4, atol=1e-4)
