"""Read extended models with whatever transformers is installed, without ropewalk; exit 1 if any is not PI.

The reference is the original model at squeezed positions, m L / L', in the same transformers.
"""

from __future__ import annotations

import sys
from pathlib import Path

import torch
import transformers

WINDOW, LONGER = 64, 192


def logits(directory: Path, squeeze: float) -> torch.Tensor:
    model = transformers.AutoModelForCausalLM.from_pretrained(directory, torch_dtype=torch.float32).eval()
    ids = torch.randint(0, 258, (2, LONGER), generator=torch.Generator().manual_seed(0))
    positions = (torch.arange(LONGER) * squeeze)[None].expand(2, -1)
    with torch.no_grad():
        return model(ids, position_ids=positions).logits


def inv_freq(directory: Path) -> dict[str, torch.Tensor]:
    model = transformers.AutoModelForCausalLM.from_pretrained(directory, torch_dtype=torch.float32)
    return {name: value for name, value in model.named_buffers() if name.endswith("inv_freq")}


def difference(family: Path, name: str) -> float:
    if family.name == "gemma3_text":  # only its global layers are squeezed, so its speeds are compared instead
        before, after = inv_freq(family / "original"), inv_freq(family / name)
        # v4 keeps the sliding layers' table apart as rotary_emb_local, v5 as sliding_attention_inv_freq.
        asked = {
            key: value if "local" in key or "sliding" in key else value / (LONGER / WINDOW)
            for key, value in before.items()
        }
        return max(float((after[key] / asked[key] - 1).abs().max()) for key in asked)
    by_hand = logits(family / "original", WINDOW / LONGER)
    if (logits(family / "original", 1.0) - by_hand).abs().max() < 1e-3:  # a hundred times the tolerance
        raise SystemExit(f"{family.name}: unscaled positions give the same logits, so this comparison shows nothing")
    return float((logits(family / name, 1.0) - by_hand).abs().max())


def main(models: Path) -> None:
    print(f"transformers {transformers.__version__}, torch {torch.__version__}")
    failed = 0
    for family in sorted(models.iterdir()):
        for name in ("linear", "twice"):
            found = difference(family, name)
            failed += not found < 1e-5  # float32 logits of size about 1; the control above is off by more than 1e-3
            print(f"{family.name:12} {name:7} largest difference from squeezed positions {found:.1e}")
    raise SystemExit(failed > 0)


if __name__ == "__main__":
    main(Path(sys.argv[1]))
