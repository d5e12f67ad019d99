"""The sick ones: a sound config (shelf.py) and what somebody did to it, with the checks that find it wrong."""

from __future__ import annotations

from typing import Any

from shelf import Config, extended, extended_yarn, gemma_3_270m, llama_2, phi_3_128k, pythia, qwen25


def saved_by_transformers_5(config: Config) -> Config:
    """What `save_pretrained` of transformers 5 leaves of a config: rope_parameters alone; other tools' keys stay."""
    dropped = ("rope_scaling", "rope_theta", "rotary_emb_base", "rotary_pct", "rope_local_base_freq")
    return {key: value for key, value in config.items() if key not in dropped} | dict(transformers_version="5.23.0")


def _other_theta(config: Config, rope_theta: float = 500000.0) -> Config:
    return config | dict(rope_theta=rope_theta)


def _changed(config: Config, key: str, **values: Any) -> Config:
    """A config with other values inside one of its dictionaries."""
    return config | {key: config[key] | values}


def _without(config: Config, key: str, *inside: str) -> Config:
    return config | {key: {name: value for name, value in config[key].items() if name not in inside}}


def _ntk() -> Config:
    """Static NTK of factor 4: rope_theta 10000 × 4^(128/126), and the block that says so."""
    rope_theta = 10000.0 * 4.0 ** (128 / 126)
    config = extended() | dict(rope_scaling=None, rope_theta=rope_theta)
    config["rope_parameters"] = dict(rope_type="default", rope_theta=rope_theta)
    return _changed(config, "ropewalk", scaling=dict(method="ntk", factor=4.0))


def _gemma() -> Config:
    """Gemma 3 as transformers 5 saves it: a dictionary for each type of layer."""
    full = dict(rope_type="linear", factor=8.0, rope_theta=1000000.0)
    own = dict(rope_type="default", rope_theta=10000.0)
    config = gemma_3_270m() | dict(rope_parameters=dict(full_attention=full, sliding_attention=own))
    return saved_by_transformers_5(config | dict(max_position_embeddings=262144))


def _pythia() -> Config:
    """Pythia extended: its rotated share stands inside rope_parameters too, as transformers 5 has it."""
    config = extended(pythia())
    for name in ("rope_scaling", "rope_parameters"):
        config[name]["partial_rotary_factor"] = 0.25
    return config


def _phi(**changes: Any) -> Config:
    return _changed(phi_3_128k(), "rope_scaling", **changes)


#: Kind → the config, the checks that find it wrong, whether `--fix` mends all of it.
SICK: dict[str, tuple[Config, set[int], bool]] = {
    "linear saved by transformers 5": (saved_by_transformers_5(extended(_other_theta(llama_2()))), {1}, True),
    "yarn saved by transformers 5": (saved_by_transformers_5(extended_yarn()), {1}, True),
    "ntk saved by transformers 5": (saved_by_transformers_5(_ntk()), {1}, True),
    "gpt_neox saved by transformers 5": (saved_by_transformers_5(_pythia()), {1}, True),
    "qwen2 saved by transformers 5": (saved_by_transformers_5(extended(qwen25())), {1}, True),
    "another tool's linear saved by transformers 5": (
        {k: v for k, v in saved_by_transformers_5(extended()).items() if k != "ropewalk"},
        {1},
        True,
    ),
    "another tool's gemma saved by transformers 5": (_gemma(), {1}, True),
    "plain saved by transformers 5 with a theta of its own": (
        saved_by_transformers_5(llama_2()) | dict(rope_parameters=dict(rope_type="default", rope_theta=500000.0)),
        {1},
        True,
    ),
    "two spellings of two factors": (
        _changed({k: v for k, v in extended().items() if k != "ropewalk"}, "rope_parameters", factor=8.0),
        {1},
        False,
    ),
    "two spellings, and the block decides": (_changed(extended(), "rope_parameters", factor=8.0), {1}, True),
    "no rope_theta any more": (
        saved_by_transformers_5(llama_2()) | dict(rope_parameters=dict(rope_type="default")),
        {1},
        False,
    ),
    "no rope_theta any more, and the block has it": (
        saved_by_transformers_5(_without(extended(), "rope_parameters", "rope_theta")),
        {1, 2},
        True,
    ),
    "length with a decimal point": (llama_2() | dict(max_position_embeddings=4096.0), {1}, True),
    "length in words": (llama_2() | dict(max_position_embeddings="4096"), {1}, False),
    "factor without a decimal point": (llama_2() | dict(rope_scaling=dict(type="linear", factor=4)), {1}, True),
    "factor in words": (llama_2() | dict(rope_scaling=dict(rope_type="linear", factor="4")), {1}, False),
    "no factor": (llama_2() | dict(rope_scaling=dict(rope_type="linear")), {1}, False),
    "factor 0": (llama_2() | dict(rope_scaling=dict(rope_type="linear", factor=0.0)), {1}, False),
    "two types": (llama_2() | dict(rope_scaling=dict(type="yarn", rope_type="linear", factor=4.0)), {1}, False),
    "two types, and the block decides": (_changed(extended(), "rope_scaling", type="yarn"), {1}, True),
    "a type that nobody knows": (llama_2() | dict(rope_scaling=dict(rope_type="spiral", factor=4.0)), {1}, False),
    "a scaling that is no object": (llama_2() | dict(rope_scaling="linear"), {1}, False),
    "rope_theta in words": (llama_2() | dict(rope_theta="10000"), {1}, False),
    "rope_theta 0": (llama_2() | dict(rope_theta=0), {1}, False),
    "rope_theta not a number": (llama_2() | dict(rope_theta=float("nan")), {1}, False),
    "heads of 10^12 coordinates": (llama_2() | dict(head_dim=10**12), {1}, False),
    "no heads": (llama_2() | dict(num_attention_heads=0), {1}, False),
    "yarn without the window before it": (
        llama_2() | dict(rope_scaling=dict(rope_type="yarn", factor=4.0), max_position_embeddings=16384),
        {1},
        False,
    ),
    "longrope with a factor too few": (_phi(long_factor=[1.0] * 47), {1}, False),
    "original window of another factor": (_changed(extended(), "ropewalk", original_window=1024), {2}, True),
    "window and max_position_embeddings differ": (extended() | dict(max_position_embeddings=32768), {2}, True),
    "the block's factor is another": (
        _changed(extended(), "ropewalk", scaling=dict(method="linear", factor=8.0)),
        {2},
        False,
    ),
    "half a block": (_without(extended(), "ropewalk", "window"), {2}, False),
    "a block that is no object": (extended() | dict(ropewalk="extended"), {2}, False),
    "max_sequence_length of the old window": (extended() | dict(max_sequence_length=4096, seq_length=2048), {3}, True),
    "model_max_length of the old window": (extended_yarn() | dict(model_max_length=2048), {3}, True),
    "a second length below the first": (llama_2() | dict(max_seq_len=2048), {3}, False),
}

#: More of the same, of which no program was asked.
ALSO_SICK: dict[str, tuple[Config, set[int], bool]] = {
    "gpt_neox with a share of its own saved by transformers 5": (
        saved_by_transformers_5(pythia())
        | dict(rope_parameters=dict(rope_type="default", rope_theta=10000.0, partial_rotary_factor=0.5)),
        {1},
        True,
    ),
    "two thetas": (llama_2() | dict(rope_parameters=dict(rope_type="default", rope_theta=500000.0)), {1}, False),
    "layers and heads with a decimal point": (
        llama_2() | dict(num_hidden_layers=32.0, num_attention_heads=32.0),
        {1},
        True,
    ),
    "longrope under its earlier name": (
        phi_3_128k() | dict(rope_scaling=phi_3_128k()["rope_scaling"] | dict(type="su")),
        {1},
        True,
    ),
}
