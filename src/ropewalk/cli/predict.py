"""Commands that load no model: theory, plan, doctor. Call, print."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from ropewalk.cli.terminal import say, tell
from ropewalk.errors import UserError
from ropewalk.settings.command import arguments
from ropewalk.settings.doctor import DoctorSettings
from ropewalk.settings.pages import TheorySettings
from ropewalk.settings.plan import PlanSettings


def theory(options: Any) -> None:
    from ropewalk.cli.tables.theory import show_theory
    from ropewalk.suite.theory import theory

    forecast = theory(**arguments(TheorySettings, options))
    if options.json:
        say(json.dumps(forecast.to_dict(), indent=2))
        return
    show_theory(forecast, full=options.full)
    if forecast.out is None:
        say("nothing is written; --out DIR writes the figures (SVG, PDF and PNG) and the rows (theory.jsonl)")
        return
    drawn = any(Path(forecast.out).glob("*.svg"))
    say(f"{'figures (SVG, PDF and PNG) and ' if drawn else ''}theory.jsonl in {forecast.out}")


def plan(options: Any) -> None:
    from ropewalk.cli.tables.plan import show_plan
    from ropewalk.cli.tables.plan_sentences import method_line
    from ropewalk.planner.measured_recipe import measured_recipe
    from ropewalk.planner.planner import plan

    planned = plan(**arguments(PlanSettings, options))
    if options.json:
        reading = {
            "measuring": {**vars(planned.measuring), "needed": planned.measuring.total},
            "serving": vars(planned.serving),
            "method": None if isinstance(planned.info, UserError) else planned.info.method,
            "measured": method_line(planned),
            "measured_recipe": vars(recipe) if (recipe := measured_recipe(planned)) else None,
        }
        others = [other.to_dict() for other in planned.others]
        say(json.dumps({**planned.to_dict(), **reading, "others": others}, indent=2))
    else:
        if planned.refused:  # before all that would fit
            tell(f"train would refuse this: {planned.refused}")
        show_plan(planned)
        if sentence := method_line(planned):
            tell(sentence)
    if planned.refused or not planned.something_fits:
        raise SystemExit(1)


def doctor(options: Any) -> None:
    from ropewalk.cli.tables.doctor import show_diagnosis
    from ropewalk.model.doctor import doctor
    from ropewalk.readers.diagnosis import EXIT_STATUS

    try:
        diagnosis = doctor(**arguments(DoctorSettings, options))
    except UserError as error:
        if options.json:
            say(
                json.dumps(
                    {"name": options.model, "verdict": "not examined", "sound": False, "error": str(error)}, indent=2
                )
            )
        raise
    if options.json:
        say(json.dumps(diagnosis.to_dict(), indent=2))
    else:
        show_diagnosis(diagnosis)
    if status := EXIT_STATUS[diagnosis.verdict]:
        raise SystemExit(status)
