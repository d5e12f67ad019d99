"""hemp's pretraining: a small LLaMA with plain RoPE on rows of L tokens, within a given time on one GPU.

in   the folder corpus.py and exercises.py wrote
out  a Hugging Face checkpoint in bfloat16

Next-token loss on Python source, and on the recall exercise for a fifth of the rows. AdamW on float32 weights under
bfloat16 autocast. The learning rate warms up, holds, and falls to zero over the second half of the time, so the
schedule ends where the clock does, whatever the machine's speed; or, by --steps, after so many steps of the same rows on every machine.

--penalty adds the paper's open question (arXiv 2306.15595, section 2.2): a ridge on |h_j|, the coefficients of a score
a(s) = Re sum_j h_j exp(i s theta_j), so that scores beyond the trained distances stay as bounded as those inside.

    python recipes/hemp/pretrain.py --corpus build/hemp --out build/hemp/model --minutes 4
    python recipes/hemp/pretrain.py --corpus build/hemp --out build/penalty/hemp-3000-h0.01-s0 --steps 3000 --penalty 0.01
"""

from __future__ import annotations

import argparse
import json
import time
from pathlib import Path

import numpy as np
import torch
import transformers

WINDOW = 256


def build(width: int, layers: int, heads: int, head: int, inner: int, vocabulary: int) -> transformers.LlamaForCausalLM:
    """A LLaMA with random weights, tied embeddings, plain RoPE of base 10000."""
    config = transformers.LlamaConfig(
        vocab_size=vocabulary,
        hidden_size=width,
        intermediate_size=inner,
        num_hidden_layers=layers,
        num_attention_heads=heads,
        num_key_value_heads=heads,
        head_dim=head,
        max_position_embeddings=WINDOW,
        rope_parameters={"rope_type": "default", "rope_theta": 10000.0},
        tie_word_embeddings=True,
        rms_norm_eps=1e-5,
        bos_token_id=0,
        eos_token_id=1,
        attn_implementation="sdpa",
    )
    return transformers.LlamaForCausalLM(config)


def logits(
    model: transformers.LlamaForCausalLM, tokens: torch.Tensor, ridge: bool = False
) -> tuple[torch.Tensor, torch.Tensor | float]:
    """The model's own layers in order, and the mean of `squared_h` over them if asked for. Called whole and compiled, transformers hands attention
    a mask tensor, which bars the fast causal kernel; with no mask at all the layers ask for that kernel themselves."""
    hidden, squares = model.model.embed_tokens(tokens), 0.0
    turned = model.model.rotary_emb(hidden, torch.arange(tokens.shape[1], device=tokens.device)[None])
    for layer in model.model.layers:
        if ridge:
            squares = squares + squared_h(layer.self_attn, layer.input_layernorm(hidden)) / len(model.model.layers)
        hidden = layer(hidden, attention_mask=None, position_embeddings=turned)
    return model.lm_head(model.model.norm(hidden)), squares


def squared_h(attention: torch.nn.Module, inputs: torch.Tensor) -> torch.Tensor:
    """The sum over j of |h_j|² / d, the squared coefficients of a score as the softmax has it, in the mean over rows, heads, and pairs of a query and a key.

    |h_j| = |q_j| |k_j|, q_j and k_j the complex pairs (j, j + d/2) of a query and a key, and RoPE changes neither. So the mean over all pairs of a
    query and a key of a row, the causal mask aside, is the product of two means.

    Args:
        inputs: of the layer, normed, [rows, tokens, width].
    """

    def squares(projection: torch.nn.Linear) -> torch.Tensor:  # [rows, heads, d/2]
        return projection(inputs).float().unflatten(-1, (-1, 2, attention.head_dim // 2)).square().sum(-2).mean(1)

    return (squares(attention.q_proj) * squares(attention.k_proj)).sum(-1).mean() / attention.head_dim


def rate(progress: float, peak: float, warm: float = 0.03, fall: float = 0.5) -> float:
    """The learning rate at a share of the time: up, level, and down to zero over the last half."""
    return peak * min(1.0, (progress + 1e-3) / warm, max(0.0, (1 - progress) / fall))


def refuse_missing(corpus: Path) -> None:
    """Exit with a sentence where something that the rows are made of is not there."""
    for name, made in (("tokenizer.json", "corpus"), ("train.npy", "corpus"), ("recall.npy", "exercises")):
        if not (corpus / name).exists():
            command = {
                "corpus": f"corpus.py --out {corpus}",
                "exercises": f"exercises.py --corpus {corpus} --rows 120000",
            }
            raise SystemExit(
                f"pretraining reads text and exercises, but {corpus / name} is not there; make it: python recipes/hemp/{command[made]}"
            )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--corpus", type=Path, required=True)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--minutes", type=float, default=4.0)
    parser.add_argument("--steps", type=int, help="instead of --minutes")
    parser.add_argument("--penalty", type=float, default=0.0, help="weight of the ridge on |h_j|")
    parser.add_argument("--shape", default="192,6,3,64,512", help="width, layers, heads, head dimension, inner width")
    parser.add_argument("--batch", type=int, default=512, help="rows a step")
    parser.add_argument("--rate", type=float, default=3e-3)
    parser.add_argument("--recall", type=float, default=0.2, help="share of rows that are the recall exercise")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--eager", action="store_true")
    arguments = parser.parse_args()
    refuse_missing(arguments.corpus)
    device = "cuda" if torch.cuda.is_available() else "cpu"
    torch.manual_seed(arguments.seed)
    torch.set_float32_matmul_precision("high")

    source = torch.from_numpy(np.load(arguments.corpus / "train.npy").astype(np.int32)).to(device)
    recall = torch.from_numpy(np.load(arguments.corpus / "recall.npy").astype(np.int32)).to(device)
    vocabulary = len(json.loads((arguments.corpus / "tokenizer.json").read_text())["model"]["vocab"])
    model = build(*map(int, arguments.shape.split(",")), vocabulary=vocabulary).to(device)
    decayed = [p for p in model.parameters() if p.dim() == 2]
    others = [p for p in model.parameters() if p.dim() != 2]
    optimizer = torch.optim.AdamW(
        [{"params": decayed, "weight_decay": 0.1}, {"params": others, "weight_decay": 0.0}],
        lr=arguments.rate, betas=(0.9, 0.95), fused=device == "cuda",
    )  # fmt: skip

    def loss(rows: torch.Tensor) -> torch.Tensor:
        with torch.autocast(device, torch.bfloat16):
            guesses, squares = logits(model, rows[:, :-1], ridge=arguments.penalty > 0)
        told = torch.nn.functional.cross_entropy(guesses.float().flatten(0, 1), rows[:, 1:].flatten())
        return told + arguments.penalty * squares

    step_loss = loss if arguments.eager else torch.compile(loss)
    exercises = round(arguments.batch * arguments.recall)
    along = torch.arange(WINDOW + 1, device=device)

    def batch() -> torch.Tensor:
        starts = torch.randint(len(source) - WINDOW - 1, (arguments.batch - exercises, 1), device=device)
        rows = source[starts + along]
        # Some readers put BOS before every window, some only before a document: the model should stand both.
        rows[:, 0] = torch.where(torch.rand(len(rows), device=device) < 0.3, 0, rows[:, 0])
        return torch.cat([rows, recall[torch.randint(len(recall), (exercises,), device=device)]]).long()

    began = time.time()
    for _ in range(3):  # compiled and warm before the clock starts
        step_loss(batch()).backward()
        model.zero_grad()
    if device == "cuda":
        torch.cuda.synchronize()
    size = sum(p.numel() for p in model.parameters())
    print(f"{size} parameters, ready after {time.time() - began:.1f} s", flush=True)

    began, step, progress = time.time(), 0, 0.0
    while progress < 1:
        for group in optimizer.param_groups:
            group["lr"] = rate(progress, arguments.rate)
        value = step_loss(batch())
        value.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        optimizer.zero_grad()
        step += 1
        if step % 10 == 0 and device == "cuda":
            torch.cuda.synchronize()  # the clock of the schedule is the GPU's, not the launcher's
        progress = step / arguments.steps if arguments.steps else (time.time() - began) / (60 * arguments.minutes)
        if step % 250 == 0:
            speed = step * arguments.batch * WINDOW / (time.time() - began)
            print(f"{arguments.out.name} {step} loss {value.item():.4f} {speed / 1e6:.2f} M tokens/s", flush=True)
    tokens = step * arguments.batch * WINDOW
    print(f"{arguments.out.name}: {step} steps, {tokens / 1e6:.0f} M tokens, loss {value.item():.4f}", flush=True)
    model.to(torch.bfloat16).save_pretrained(arguments.out)
    (arguments.out / "pretraining.json").write_text(
        json.dumps(dict(vars(arguments), steps=step, tokens=tokens, parameters=size), default=str, indent=1)
    )


if __name__ == "__main__":
    main()
