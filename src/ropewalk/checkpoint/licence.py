"""The licence of the model that a checkpoint was made from, as what came with it says: carried on, and never guessed.

in   a checkpoint's directory, with the base's card, its config and its licence file as copies
out  fields of a model card's front matter, and the sentence of its section "Licence"
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from ropewalk.checkpoint.files import read_json
from ropewalk.errors import UserError

_FIELDS = ("license", "license_name", "license_link")
#: What a licence lies in, and what goes wherever the model goes.
LICENCE_FILES = ("LICENSE*", "LICENCE*", "COPYING*")
NOTICE_FILES = (*LICENCE_FILES, "NOTICE*", "USE_POLICY*")


def licence_of(base_card: dict[str, Any], directory: Path) -> tuple[dict[str, Any], str]:
    """What is known of it: by the base's card, else by config.json, else by a licence file, which is named and not interpreted.

    Args:
        base_card: front matter of the base's README; empty if there is none.
    """
    if base_card.get("license"):
        fields = {name: base_card[name] for name in _FIELDS if name in base_card}
        return fields, f"{_name(fields)}, as the card of the original says."
    if isinstance(named := _config(directory).get("license"), str) and named:
        return {"license": named}, f"{named}, as the config of the original says."
    files = sorted(path.name for pattern in LICENCE_FILES for path in directory.glob(pattern) if path.is_file())
    if files:
        return {"license": "other", "license_link": files[0]}, f"{files[0]} is the file that came with the original."
    return {"license": "unknown"}, "unknown: ask the base's owner. Nothing that came with the original names one."


def _name(fields: dict[str, Any]) -> str:
    named = fields["license"]
    if named == "other":
        named = fields.get("license_name", named)
    link = fields.get("license_link")
    return f"{', '.join(map(str, named)) if isinstance(named, list) else named}{f' ({link})' if link else ''}"


def _config(directory: Path) -> dict[str, Any]:
    try:
        return read_json(directory / "config.json", what="a model directory holds a config.json")
    except UserError:
        return {}
