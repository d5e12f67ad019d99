"""Other people's perplexities, each against its own code or a straightforward transcription of it."""

import math

import numpy as np
import pytest
import torch
import transformers
from tokenizers import Tokenizer, decoders, models, normalizers, processors

from ropewalk.data.documents import Document
from ropewalk.errors import UserError
from ropewalk.evals.perplexity.measure import perplexity
from ropewalk.testing import byte_tokenizer, prose, tiny

LENGTHS = (157, 230, 101)
#: float32 means of windows against ours in float64: a few roundings of 6e-8 each.
CLOSE = dict(rel=2e-6)


@pytest.fixture(scope="module")
def model():
    return tiny(window=64)


@pytest.fixture(scope="module")
def texts():
    return [prose(90, seed)[:length] for seed, length in enumerate(LENGTHS)]


def ours(model, tokenizer, texts, convention, stride, window=64):
    data = [Document(str(at), one) for at, one in enumerate(texts)]
    (row,) = perplexity(
        model, tokenizer=tokenizer, data=data, windows=[window], stride=stride, convention=convention, batch_tokens=512
    )
    assert row.convention == convention and math.isnan(row.low)
    return row.perplexity


def without_bos():
    tokenizer = byte_tokenizer()
    tokenizer.backend_tokenizer.post_processor = byte_tokenizer().backend_tokenizer.post_processor.__class__(
        single="$A", pair="$A $B", special_tokens=[]
    )
    tokenizer.bos_token = None
    return tokenizer


def two_in_front():
    """As GLM's: two tokens before every text."""
    tokenizer = byte_tokenizer()
    tokenizer.backend_tokenizer.post_processor = processors.TemplateProcessing(
        single="</s> <s> $A", special_tokens=[("<s>", 256), ("</s>", 257)]
    )
    return tokenizer


def masked_loss(model, ids, targets):
    """transformers' own loss: the mean over shifted labels that are not -100."""
    with torch.no_grad():
        return model(torch.tensor([ids]), labels=torch.tensor([targets])).loss.item()


@pytest.mark.parametrize("stride", [16, 64])
@pytest.mark.parametrize("make", [byte_tokenizer, without_bos, two_in_front])
def test_as_yarn(model, texts, make, stride):
    """The rule of its compute_perplexity: BOS a window, labels masked but for the new tokens, the mean of all losses."""
    tokenizer, losses = make(), []
    front = tokenizer("").input_ids
    room = 64 - len(front)
    for one in texts:
        ids, reached = tokenizer(one, add_special_tokens=False).input_ids, 0
        for begin in range(0, len(ids), stride):
            end = min(begin + room, len(ids))
            new = end - reached
            seen = front + ids[begin:end]
            targets = list(seen)
            targets[:-new] = [-100] * len(targets[:-new])
            if not (len(seen) == 1 or all(target == -100 for target in targets[1:])):
                losses.append(masked_loss(model, seen, targets))
            reached = end
            if end == len(ids):
                break
    assert ours(model, tokenizer, texts, "yarn", stride) == pytest.approx(math.exp(np.mean(losses)), **CLOSE)


@pytest.mark.parametrize("stride", [16, 64])
@pytest.mark.parametrize("make", [byte_tokenizer, without_bos, two_in_front])
def test_as_pose(model, texts, stride, make):
    """The rule of its compute_perplexity: BOS a window whatever the tokenizer does, each mean weighted by the new tokens."""
    tokenizer = make()
    tokenizer.bos_token = "<s>"
    total, count = 0.0, 0
    for one in texts:
        ids, reached = tokenizer(one, add_special_tokens=False).input_ids, 0
        for begin in range(0, len(ids), stride):
            end = min(begin + 63, len(ids))
            new = end - reached
            seen = [tokenizer.bos_token_id, *ids[begin:end]]
            targets = list(seen)
            targets[:-new] = [-100] * len(targets[:-new])
            total += masked_loss(model, seen, targets) * new
            count += new
            reached = end
            if end == len(ids):
                break
    assert ours(model, tokenizer, texts, "pose", stride) == pytest.approx(math.exp(total / count), **CLOSE)


def test_as_pose_needs_a_bos_and_says_so(model, texts):
    with pytest.raises(UserError, match="PoSE's rule puts BOS before every window, and this tokenizer has none"):
        ours(model, without_bos(), texts, "pose", 16)


@pytest.mark.parametrize("make", [byte_tokenizer, two_in_front])
def test_as_longlora(model, texts, make):
    """The rule of its evaluate: one row of tokens, every window scores all of itself, the last start popped."""
    tokenizer = make()
    row = sum((tokenizer(one).input_ids for one in texts), [])
    starts = list(range(0, len(row) - 64, 16))
    starts.pop()
    losses = [masked_loss(model, row[start : start + 64], row[start : start + 64]) for start in starts]
    assert ours(model, tokenizer, texts, "longlora", 16) == pytest.approx(2.71828 ** np.mean(losses), **CLOSE)


def test_as_longlora_needs_more_than_a_window_and_says_so(model):
    with pytest.raises(UserError, match="more than 80 tokens in all, got 71"):
        ours(model, byte_tokenizer(), [prose(60)[:70]], "longlora", 16)


def sentencepiece():
    """As LLaMA's: blanks are "▁", one is put before a text, and runs of newlines and of blanks are tokens of their own."""
    letters = {chr(code) for code in range(32, 127)} - {" "}
    pieces = [
        "<unk>",
        "<s>",
        "</s>",
        "▁",
        "\n",
        "\n\n",
        "▁▁",
        *sorted(letters),
        *(f"▁{letter}" for letter in sorted(letters)),
    ]
    pieces = list(dict.fromkeys(pieces))
    merges = [("\n", "\n"), *(("▁", letter) for letter in sorted(letters))]
    tokenizer = Tokenizer(models.BPE({piece: at for at, piece in enumerate(pieces)}, merges, unk_token="<unk>"))
    tokenizer.normalizer = normalizers.Sequence([normalizers.Prepend("▁"), normalizers.Replace(" ", "▁")])
    tokenizer.decoder = decoders.Metaspace()
    tokenizer.post_processor = processors.TemplateProcessing(single="<s> $A", special_tokens=[("<s>", 1)])
    return transformers.PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, bos_token="<s>", eos_token="</s>", unk_token="<unk>"
    )


def guide(model, ids, stride):
    """The loop of transformers' guide to perplexity, its weights included."""
    total, tokens, reached = 0.0, 0, 0
    for begin in range(0, len(ids), stride):
        end = min(begin + 64, len(ids))
        new = end - reached
        seen, targets = ids[begin:end], ids[begin:end]
        targets[:-new] = [-100] * len(targets[:-new])
        valid = sum(target != -100 for target in targets) - 1
        if valid or any(target != -100 for target in targets[1:]):
            total += masked_loss(model, seen, targets) * valid
            tokens += valid
        reached = end
        if end == len(ids):
            break
    return math.exp(total / tokens)


@pytest.mark.parametrize("stride", [16, 63, 64])
@pytest.mark.parametrize("make", [byte_tokenizer, without_bos, two_in_front, sentencepiece])
def test_as_huggingface(model, texts, make, stride):
    """What the guide's code makes of `tokenizer("\\n\\n".join(texts))`."""
    tokenizer = make()
    expected = guide(model, tokenizer("\n\n".join(texts)).input_ids, stride)
    assert ours(model, tokenizer, texts, "huggingface", stride) == pytest.approx(expected, **CLOSE)


def test_as_huggingface_joins_texts_as_they_are_cut(model, texts):
    tokenizer = sentencepiece()
    # BOS and 69 tokens: the blank that is put before a text makes one token with its first letter.
    heads = [tokenizer.decode(tokenizer(one, add_special_tokens=False).input_ids[:69]) for one in texts]
    assert all(one.startswith(head) for one, head in zip(texts, heads, strict=True))
    data = [Document(str(at), one) for at, one in enumerate(texts)]
    (row,) = perplexity(
        model, tokenizer=tokenizer, data=data, windows=[64], stride=16, convention="huggingface", max_tokens=70
    )
    assert row.perplexity == pytest.approx(guide(model, tokenizer("\n\n".join(heads)).input_ids, 16), **CLOSE)


@pytest.mark.parametrize("make", [byte_tokenizer, two_in_front])
def test_as_lm_eval(model, texts, make):
    """Not a transcription but lm-eval itself, its log-likelihoods turned into a figure per token."""
    from lm_eval.api.instance import Instance
    from lm_eval.models.huggingface import HFLM

    tokenizer = make()
    harness = HFLM(pretrained=model, tokenizer=tokenizer, max_length=64, batch_size=1)
    requests = [Instance("loglikelihood_rolling", {}, (one,), 0) for one in texts]
    total = -sum(harness.loglikelihood_rolling(requests, disable_tqdm=True))
    tokens = sum(len(harness.tok_encode(one)) for one in texts)
    # lm-eval adds float32 log-likelihoods one by one.
    assert ours(model, tokenizer, texts, "lm-eval", 16) == pytest.approx(math.exp(total / tokens), rel=1e-5)


def test_the_rules_disagree(model, texts):
    figures = {
        name: ours(model, byte_tokenizer(), texts, name, 16)
        for name in ("yarn", "pose", "longlora", "lm-eval", "huggingface")
    }
    assert len({round(figure, 4) for figure in figures.values()}) == 5


def test_an_unknown_rule_is_refused_by_name(model, texts):
    with pytest.raises(UserError, match="one of ropewalk, yarn, pose, longlora, lm-eval, huggingface, got 'llama.cpp'"):
        ours(model, byte_tokenizer(), texts, "llama.cpp", 16)


@pytest.mark.parametrize("convention", ["yarn", "pose", "longlora", "lm-eval", "huggingface"])
def test_nan_logits_name_the_document_under_every_rule(texts, convention):
    """One token alone is broken, and it stands in the second document alone."""
    model, tokenizer = tiny(window=64, seed=1), byte_tokenizer()
    data = [texts[0].replace("~", ""), texts[1][:120] + "~" + texts[1][120:], texts[2].replace("~", "")]
    assert "~" not in data[0] + data[2]
    with torch.no_grad():
        model.get_input_embeddings().weight[tokenizer("~", add_special_tokens=False).input_ids[0]] = float("nan")
    with pytest.raises(UserError, match="NaN in 1;"):
        ours(model, tokenizer, data, convention, 16)
