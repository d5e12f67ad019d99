"""What is wrong with a checkpoint's tensors, as far as its files say without torch.

in   an open checkpoint
out  problems, a sentence each; whether one stops everything, or is only said

What transformers makes of the tensors, which have no place in its model and which it misses, is asked of it in model/fit.py.
"""

from __future__ import annotations

import contextlib
import itertools
import json
from collections import Counter
from collections.abc import Iterator, Sized
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ropewalk.checkpoint.files import read_json
from ropewalk.checkpoint.headers import PICKLES, begin_of_data, tensors
from ropewalk.checkpoint.links import files_below
from ropewalk.checkpoint.quantisation import quantisation
from ropewalk.errors import UserError, read_text
from ropewalk.sentences import counted

if TYPE_CHECKING:
    from ropewalk.checkpoint.checkpoint import Checkpoint

#: What families call their input embedding.
_EMBEDDINGS = (
    "embed_tokens.weight",
    "wte.weight",
    "embed_in.weight",
    "word_embeddings.weight",
    "tok_embeddings.weight",
)
#: And their output heads.
_HEADS = ("lm_head.weight", "embed_out.weight")
#: Under these a config, or a section of it, counts layers, each of which transformers builds before it looks for a tensor.
_LAYER_COUNTS = ("num_hidden_layers", "num_layers", "n_layers", "n_layer", "depth", "num_nextn_predict_layers")
#: Under these it names sizes that are dimensions of tensors.
_SIZES = ("vocab_size", "hidden_size", "intermediate_size", "n_embd", "n_inner", "d_model", "ffn_dim", "head_dim", "num_attention_heads",
          "num_experts", "num_local_experts", "n_routed_experts", "moe_intermediate_size")  # fmt: skip


#: Keys of a config and of a generation config, each with an id or a list of them.
_SPECIAL_IDS = ("bos_token_id", "eos_token_id", "pad_token_id")


@dataclass(frozen=True)
class Problem:
    """Something about a checkpoint's tensors that its user must know.

    Attributes:
        kind: in a word or two, for tables.
        sentence: rule, value, way out.
        stops: whether the checkpoint cannot be used so; otherwise it is said and gone on.
    """

    kind: str
    sentence: str
    stops: bool = False


def tensor_problems(checkpoint: Checkpoint) -> list[Problem]:
    """Every problem that headers, index, config and tokenizer show.

    Raises:
        UserError: files that are missing or damaged, as `Checkpoint.headers`.
    """
    checks = [_pickles, _ids_beyond_the_embedding, _special_ids_beyond_the_embedding, quantised]
    return doubts(checkpoint) + [problem for problem in (find(checkpoint) for find in checks) if problem]


def doubts(checkpoint: Checkpoint) -> list[Problem]:
    """What shows before a model is built: more layers than tensors, and where other readers may read other weights; raises as `tensor_problems`."""
    checks = [_more_layers_than_tensors, _two_sets, _index_disagrees, _tensors_twice, _head_of_its_own]
    return [problem for problem in (find(checkpoint) for find in checks) if problem]


def _more_layers_than_tensors(checkpoint: Checkpoint) -> Problem | None:
    there = sum(1 for header in checkpoint.headers.values() for _ in tensors(header))
    key, count = _largest(checkpoint, _LAYER_COUNTS)
    if count <= there:
        return None
    return Problem(
        "layers",
        f"the config of {checkpoint.path} names {count:.15g} layers ({key}), and its files hold fewer tensors ({there}); mend the config, or fetch both again",
        stops=True,
    )


def names_larger_tensors(checkpoint: Checkpoint) -> bool:
    """Whether the config names a size above every dimension in the files: to build what it describes may take all memory there is."""
    shapes = (entry["shape"] for header in checkpoint.headers.values() for _, entry in tensors(header))
    return _largest(checkpoint, _SIZES)[1] > max((size for shape in shapes for size in shape), default=0)


def _largest(checkpoint: Checkpoint, keys: tuple[str, ...]) -> tuple[str, float]:
    """The largest number that the config or a section of it has under one of these keys, and that key."""
    sections = [checkpoint.config, *(part for part in checkpoint.config.values() if isinstance(part, dict))]
    named = [(key, part[key]) for part in sections for key in keys if isinstance(part.get(key), int | float)]
    return max(named, key=lambda pair: pair[1], default=("", 0))


def _two_sets(checkpoint: Checkpoint) -> Problem | None:
    read = set(checkpoint.headers)
    others = sorted(file.name for file in checkpoint.path.glob("*.safetensors") if file.name not in read)
    if not others:
        return None
    return Problem(
        "two sets of weights",
        f"{checkpoint.path} has two sets of weights: {listed(sorted(read))} is read, as transformers does, and {listed(others)} is not, "
        "though some readers take it instead; delete what is stale",
    )


def _index_disagrees(checkpoint: Checkpoint) -> Problem | None:
    """Readers that go tensor by tensor look where the index says."""
    there = {(name, file) for file, header in checkpoint.headers.items() for name, _ in tensors(header)}
    indexed = set(checkpoint.files.weight_map.items())
    wrong = sorted(
        {name for name, _ in indexed - there} | ({name for name, _ in there} - {name for name, _ in indexed})
    )
    if checkpoint.files.index is None or not wrong:
        return None
    return Problem(
        "index",
        f"{checkpoint.path / checkpoint.files.index} and its shards disagree on {several(wrong)} ({listed(wrong)}); the shards are "
        "read, as transformers does, and what ropewalk writes has an index that agrees with them",
    )


def _tensors_twice(checkpoint: Checkpoint) -> Problem | None:
    count = Counter(name for header in checkpoint.headers.values() for name, _ in tensors(header))
    twice = sorted(name for name, times in count.items() if times > 1)
    if not twice:
        return None
    return Problem(
        "tensors twice",
        f"more than one shard of {checkpoint.path} has {several(twice)} ({listed(twice)}); the last one is read, as transformers "
        "does, and other readers may take another; fetch the checkpoint again",
    )


def _head_of_its_own(checkpoint: Checkpoint) -> Problem | None:
    """transformers 4 takes the embedding where a config ties the two, and version 5 the file's head if it is another."""
    text = checkpoint.text_config
    tied = checkpoint.config.get("tie_word_embeddings", text.get("tie_word_embeddings"))
    places = {name: (file, entry) for file, header in checkpoint.headers.items() for name, entry in tensors(header)}
    head, embedding = (
        next((name for name in places if name.endswith(end)), "") for end in ("lm_head.weight", _EMBEDDINGS)
    )
    if (
        tied is not True
        or not (head and embedding)
        or _beginning(checkpoint, *places[head]) == _beginning(checkpoint, *places[embedding])
    ):
        return None
    return Problem(
        "a head of its own",
        f"the config of {checkpoint.path} ties the head to the embedding (tie_word_embeddings), and its files have a {head} that is another: "
        "transformers 5 reads it, transformers 4 and most readers take the embedding; write false there, or delete the tensor",
    )


def _beginning(checkpoint: Checkpoint, file: str, entry: dict[str, Any]) -> bytes:
    """The first megabyte of a tensor: two heads that were trained apart differ everywhere."""
    begin, end = entry["data_offsets"]
    with (checkpoint.path / file).open("rb") as opened:
        opened.seek(begin_of_data(checkpoint.path / file) + begin)
        return opened.read(min(end - begin, 1 << 20))


def _pickles(checkpoint: Checkpoint) -> Problem | None:
    files = (path.relative_to(checkpoint.path).as_posix() for path in files_below(checkpoint.path))
    pickled = [name for name in files if name.endswith(PICKLES)]
    if not pickled:
        return None
    return Problem(
        "pickles",
        f"{checkpoint.path} has pickled files beside its safetensors ({listed(pickled)}), which are neither read nor carried on and can "
        "run code where they are loaded; delete them",
    )


def _ids_beyond_the_embedding(checkpoint: Checkpoint) -> Problem | None:
    rows = embedding_rows(checkpoint)
    beyond = {number: token for token, number in tokens_of(checkpoint.path).items() if rows and number >= rows}
    if not beyond:
        return None
    return Problem(
        "ids beyond the embedding",
        f"{len(beyond)} tokens of the tokenizer have ids beyond the embedding's {rows} rows ({min(beyond)}, {beyond[min(beyond)]!r}), and a "
        "text that has one of them cannot be read; take them out of the tokenizer, or resize the embedding",
    )


def _special_ids_beyond_the_embedding(checkpoint: Checkpoint) -> Problem | None:
    rows = embedding_rows(checkpoint) or 0
    named = special_ids(checkpoint)
    beyond = [f"{place} names {key} {number}" for place, key, number in named if rows and number >= rows]
    if not beyond:
        return None
    return Problem(
        "special ids beyond the embedding",
        f"{listed(beyond)}, and the embedding has {rows} rows (vocab_size {checkpoint.text_config.get('vocab_size')}), for ids to {rows - 1}: no "
        "such token is ever written or read; write the tokenizer's own id there",
        stops=True,
    )


def special_ids(checkpoint: Checkpoint) -> Iterator[tuple[str, str, int]]:
    """(place, key, id) of each special token that a config names by its number; below 0 stands for none, in configs of LLaMA's first."""
    generation, places = checkpoint.path / "generation_config.json", {"config.json": checkpoint.config}
    if checkpoint.text_config is not checkpoint.config:
        places["the text section of config.json"] = checkpoint.text_config
    with contextlib.suppress(UserError):  # there is none, or check 10 of doctor says it
        places[generation.name] = read_json(generation, what="a generation config is a JSON file")
    for (place, content), key in itertools.product(places.items(), _SPECIAL_IDS):
        value = content.get(key)
        numbers = value if isinstance(value, list) else [value]
        yield from ((place, key, number) for number in numbers if isinstance(number, int) and number >= 0)


def quantised(checkpoint: Checkpoint) -> Problem | None:
    """That the weights are quantised on disk, if they are; raises as `tensor_problems`."""
    how = quantisation(checkpoint)
    if not how:
        return None
    return Problem(
        "quantised weights",
        f"the weights of {checkpoint.path} are quantised ({how}), rounded for the window they were made for, and cannot be trained; extend "
        "or train the model they were made from, and quantise the result",
    )


def tokens_of(directory: Path) -> dict[str, int]:
    """token → id, as tokenizer.json lists them; empty where there is none that can be read so."""
    try:
        content = json.loads(read_text(directory / "tokenizer.json"))
        vocabulary = content["model"]["vocab"]
        # Unigram lists [token, score] in the order of ids; BPE and WordPiece map tokens to ids.
        ids = dict(vocabulary) if isinstance(vocabulary, dict) else {entry[0]: i for i, entry in enumerate(vocabulary)}
        return {**ids, **{entry["content"]: entry["id"] for entry in content.get("added_tokens") or []}}
    except (OSError, ValueError, KeyError, TypeError, IndexError, RecursionError):
        return {}


def embedding_rows(checkpoint: Checkpoint) -> int | None:
    """How many token ids the input embedding has rows for: by its tensor, else by the config, as where weights are not here; None if neither says."""
    for header in checkpoint.headers.values() if checkpoint.has_weights else ():
        for name, entry in tensors(header):
            if name.endswith(_EMBEDDINGS) and len(entry["shape"]) == 2:
                return int(entry["shape"][0])
    stated = checkpoint.text_config.get("vocab_size")
    return stated if isinstance(stated, int) else None


def is_by_token(name: str) -> bool:
    """Whether a tensor of that name has a row a token id: an input embedding or an output head."""
    return name.endswith((*_EMBEDDINGS, *_HEADS))


def refuse_quantised(checkpoint: Checkpoint) -> None:
    """Raises UserError for weights that are quantised on disk, which can be measured and neither extended nor trained."""
    if problem := quantised(checkpoint):
        raise UserError(problem.sentence)


def several(tensors: Sized) -> str:
    """How many, in words that fit one and many."""
    return counted(len(tensors), "tensor")


def several_are(tensors: Sized) -> str:
    """The same with its verb."""
    return f"{several(tensors)} {'is' if len(tensors) == 1 else 'are'}"


def listed(names: list[str]) -> str:
    """The first few of some names, for a sentence."""
    return ", ".join(names[:3]) + (", …" if len(names) > 3 else "")
