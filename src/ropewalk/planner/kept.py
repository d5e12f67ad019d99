"""What training will keep of each layer's results, and where: its own rule (choice.py), given the shape in place of a traced layer.

in   a job, a chip and its rates
out  the same job with its activations chosen, within the memory of chip and host
"""

from __future__ import annotations

from collections import Counter
from dataclasses import replace

from ropewalk.planner.chips import Chip, Rates
from ropewalk.planner.choice import NOTHING, Candidate, Choice, Layer, Room, Settled
from ropewalk.planner.job import FULL, ActivationChoice, Job, products
from ropewalk.planner.memory import CONTEXT, GIB, fits, step_memory
from ropewalk.settings.budget import (
    ATTENTION_COST,
    gradients_wait,
    head_bytes,
    margin,
    mlp_tiles,
    shared_window_bytes,
    sliding_bytes,
    spare_after_a_step,
    unpacked_bytes,
    unsharded_bytes,
)


def layer_of(job: Job) -> Layer:
    """What one layer could keep for a micro batch, as training/recompute.py finds it in the layer itself.

    Of layers that see different parts of the window (Gemma 3) the mean, as training has it: all are chosen for as if they were alike.
    """
    weights, tokens = job.shape.products, job.tokens
    attention = job.shape.attention_work(job.length) * tokens / job.shape.layers
    flops = {name: 2.0 * tokens * each for name, each in weights.items()} | {"attention": attention}
    sizes = products(job)
    candidates = [Candidate(index, name, flops[name], int(sizes[name] * tokens)) for index, name in enumerate(sizes)]
    layer = Layer(tuple(candidates), cost=2.0 * tokens * sum(weights.values()) + ATTENTION_COST * attention)
    mlp = [name for name in ("gate", "up", "down") if name in weights]
    if not job.tiled or job.shape.experts > 1:
        return layer
    return layer.in_tiles(tokens, [c.index for c in candidates if c.op in mlp], sum(flops[name] for name in mlp))


def room_of(job: Job, layer: Layer, chip: Chip, rates: Rates) -> Room:
    """Where results of such layers may go, as training/activations.py counts it when training begins."""
    shape, bare = job.shape, step_memory(replace(job, activations=FULL))
    gradients = job.trained / job.shards * job.regime.gradient
    wait = gradients_wait(job.recipe.batch, job.micro, job.dp)
    stream = shape.width * job.stream * job.tokens
    loss = int(head_bytes(job.tokens, shape.width, shape.vocabulary))
    reserved = bare.states + gradients * wait
    if job.gpus == 1:
        reserved += job.copied(job.trained)
    else:
        others = shape.parameters - shape.layers * shape.layer_weights
        reserved += unsharded_bytes(shape.layer_weights, others, job.regime.compute)
    if job.cp > 1:
        reserved += shared_window_bytes(job.tokens * job.cp, shape.kv_width, shape.query_width)
    reserved += unpacked_bytes(job.packed, job.regime.compute, compiled=job.fused)
    if shape.slides(job.length):
        compute, alone = job.regime.compute, shape.slides_alone
        reserved += sliding_bytes(job.length, job.micro, shape.query_width, compute, alone=alone)
    card = (
        chip.memory * GIB
        - bare.weights
        - CONTEXT
        - reserved
        - shape.layers * stream
        - layer.workspace(loss)
        - margin(shared=job.cp > 1)
    )
    host = job.host - bare.host if _reaches_host(job, chip) else 0
    gradients = int(gradients * (not wait))
    return Room(
        int(card), int(stream), gradients, max(0, int(host)), rates.matrix * rates.sustained, rates.host_link, loss=loss
    )


def kept_by_rule(job: Job, chip: Chip, rates: Rates) -> Job | None:
    """The job with what training keeps: less where that turns out not to fit, more where the host is used and a step leaves memory free."""
    layer, short = layer_of(job), least_by_rule(job, chip).activations.short
    settled = Settled(layer, job.shape.layers, room_of(job, layer, chip, rates), short=short)
    while not fits(chosen := by_choice(job, settled.choice), chip):
        if not settled.lower():
            return None
    left = chip.memory * GIB - step_memory(chosen).total
    if settled.spare(spare_after_a_step(left, shared=job.cp > 1)):
        more = by_choice(job, settled.choice)
        chosen = more if fits(more, chip) else chosen
    return chosen


def least_by_rule(job: Job, chip: Chip) -> Job:
    """The job with nothing kept but inputs: on the chip, on the host if the chip does not hold them and this is left open, or so in small tiles; the last of these if none fits."""
    *before, last = _least_ways(job, chip)
    return next((way for way in before if fits(way, chip)), last)


def least_bytes(job: Job, chip: Chip) -> float:
    """Of a chip, by that one of the ways of `least_by_rule` which takes the fewest."""
    return min(step_memory(way).total for way in _least_ways(job, chip))


def _least_ways(job: Job, chip: Chip) -> list[Job]:
    layers = job.shape.layers
    hosts = [(), range(layers)] if job.recipe.activations == "auto" and _reaches_host(job, chip) else [()]
    return [
        by_choice(job, Choice((NOTHING,) * layers, frozenset(hosted), tiles=mlp_tiles(job.tokens, short=short)))
        for short in (False, True)
        for hosted in hosts
    ]


def by_choice(job: Job, choice: Choice) -> Job:
    """The job with its layers keeping what a choice for `layer_of(job)` says."""
    names, layers = list(products(job)), len(choice.kept)

    def counted(numbers: range | frozenset[int]) -> dict[str, int]:
        indices = Counter(index for number in numbers for index in choice.kept[number] or ())
        return {names[index]: count for index, count in indices.items()}

    everywhere, away = counted(range(layers)), counted(choice.hosted)
    words = [
        ", ".join(name for name in names if everywhere.get(name) == count)
        + (f" in {count} of {layers} layers" if count < layers else "")
        for count in sorted(set(everywhere.values()), reverse=True)
    ]
    if choice.hosted:
        words = [*(words or ["inputs"]), f"on the host in {len(choice.hosted)} of {layers} layers"]
    return replace(
        job,
        activations=ActivationChoice(
            "; ".join(words) or FULL.name,
            {name: count / layers for name, count in everywhere.items()},
            away={name: count / layers for name, count in away.items()},
            hosted=len(choice.hosted) / layers,
            short=choice.tiles > mlp_tiles(job.tokens),
        ),
    )


def _reaches_host(job: Job, chip: Chip) -> bool:
    """Only compiled layers send what they keep to the host; where chip and host have one memory there is nothing to send it to."""
    return bool(job.host and job.fused and chip.host_link)
