"""ropewalk: give a RoPE language model a longer context window.

    import ropewalk

    ropewalk.extend("hemp", window=1024, out="longer")
    ropewalk.train("longer", data=["books/"], window=1024, steps=200, out="trained")
    rows = ropewalk.perplexity("trained", data=["books/test.txt"], windows=[256, 1024])

The names are the command line's (`ropewalk data score` is `data_score`). Each is imported when it is first used, so that `import ropewalk` costs nothing; a type
checker and an editor see them all. No room of the package has the name of one of these functions.
"""

from __future__ import annotations

import importlib
import logging
from typing import TYPE_CHECKING

from ropewalk.version import __version__

if TYPE_CHECKING:
    from ropewalk.errors import UserError as UserError
    from ropewalk.evals.attention import attention as attention
    from ropewalk.evals.conversation import chat as chat
    from ropewalk.evals.conversation import generate as generate
    from ropewalk.evals.downstream.benchmarks import benchmarks as benchmarks
    from ropewalk.evals.downstream.summary import summarize as summarize
    from ropewalk.evals.factor_search import search as search
    from ropewalk.evals.long_context.measure import ruler as ruler
    from ropewalk.evals.perplexity.context_gain import data_score as data_score
    from ropewalk.evals.perplexity.context_gain import gain as gain
    from ropewalk.evals.perplexity.measure import perplexity as perplexity
    from ropewalk.evals.retrieval.harder import retrieval as retrieval
    from ropewalk.evals.retrieval.passkey import passkey as passkey
    from ropewalk.exports.adapters import merge as merge
    from ropewalk.exports.export import export as export
    from ropewalk.model.doctor import doctor as doctor
    from ropewalk.model.extend import extend as extend
    from ropewalk.model.load import load_model as load_model
    from ropewalk.model.push import push as push
    from ropewalk.planner.planner import plan as plan
    from ropewalk.reports.card import card as card
    from ropewalk.reports.page import report as report
    from ropewalk.suite.ablation import ablate as ablate
    from ropewalk.suite.demo import demo as demo
    from ropewalk.suite.runner import evaluate as evaluate
    from ropewalk.suite.theory import theory as theory
    from ropewalk.suite.watch import train as train

# Silent unless the user configures logging, as a library should be; docs/training.md says how to see progress.
logging.getLogger("ropewalk").addHandler(logging.NullHandler())


#: Where each public name lives.
_HOMES = {
    "UserError": "ropewalk.errors",
    "ablate": "ropewalk.suite.ablation",
    "attention": "ropewalk.evals.attention",
    "benchmarks": "ropewalk.evals.downstream.benchmarks",
    "card": "ropewalk.reports.card",
    "chat": "ropewalk.evals.conversation",
    "data_score": "ropewalk.evals.perplexity.context_gain",
    "demo": "ropewalk.suite.demo",
    "doctor": "ropewalk.model.doctor",
    "evaluate": "ropewalk.suite.runner",
    "export": "ropewalk.exports.export",
    "extend": "ropewalk.model.extend",
    "gain": "ropewalk.evals.perplexity.context_gain",
    "generate": "ropewalk.evals.conversation",
    "load_model": "ropewalk.model.load",
    "merge": "ropewalk.exports.adapters",
    "passkey": "ropewalk.evals.retrieval.passkey",
    "perplexity": "ropewalk.evals.perplexity.measure",
    "plan": "ropewalk.planner.planner",
    "push": "ropewalk.model.push",
    "report": "ropewalk.reports.page",
    "retrieval": "ropewalk.evals.retrieval.harder",
    "ruler": "ropewalk.evals.long_context.measure",
    "search": "ropewalk.evals.factor_search",
    "summarize": "ropewalk.evals.downstream.summary",
    "theory": "ropewalk.suite.theory",
    "train": "ropewalk.suite.watch",
}
__all__ = ["__version__", *_HOMES]  # noqa: PLE0604


def __getattr__(name: str) -> object:
    if name in _HOMES:
        try:
            return getattr(importlib.import_module(_HOMES[name]), name)
        except ModuleNotFoundError as error:
            from ropewalk.settings.extras import explained

            raise explained(error) from error
    raise AttributeError(f"module 'ropewalk' has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted(__all__)
