"""From a model's name to its directory, fetched from the hub where it is not here.

in   `hemp`, a local directory or a hub id
out  the directory; or a sentence
"""

from __future__ import annotations

import json
from importlib import resources
from pathlib import Path
from typing import Any

from ropewalk.checkpoint.guard import EMBEDDED, refuse_unreadable
from ropewalk.checkpoint.headers import INDEX, PICKLE, PICKLE_INDEX, SINGLE, no_gguf
from ropewalk.checkpoint.licence import NOTICE_FILES
from ropewalk.checkpoint.links import outside
from ropewalk.checkpoint.steps import CHECKPOINTS
from ropewalk.errors import UserError, read_text, refuse_irregular, refuse_irregular_among

#: What a checkpoint is beside its weights; at the top of a repository only, where transformers looks.
_SMALL_FILES = ("*.json", "*.model", "*.txt", "*.jinja", "*.tiktoken", "README.md", *NOTICE_FILES)
_BELOW = "*/*"


def locate(model: str | Path, *, trust_remote_code: bool = False, pickles: bool = False, weights: bool = True) -> Path:
    """The directory of a model: `hemp` (the embedded one), a local directory, or a hub id fetched into the hub's cache.

    Args:
        model: its name.
        trust_remote_code: fetch its own code too.
        pickles: fetch its pickled weights where it has no others.
        weights: fetch its weights at all.

    Raises:
        UserError: nothing of that name here, and the hub cannot be reached or has none.
    """
    if str(model) == EMBEDDED:
        return Path(str(resources.files("ropewalk") / "assets" / EMBEDDED))
    path = Path(model)
    if path.is_dir():
        refuse_unreadable(path.absolute())
        # Whoever reads it next, a library of others perhaps, would wait for ever.
        directories = (each for each in path.glob("*") if each.is_dir() and not outside(each, path))
        inner = (  # people keep among a run's checkpoints what they like
            file for each in directories if each.name != CHECKPOINTS for file in each.glob("*")
        )
        refuse_irregular_among([*path.glob("*"), *inner], "a model's directory holds files")
        return path
    if path.exists():
        if path.suffix == ".gguf":
            refuse_irregular(path, "a model is read from files")
            raise no_gguf(f"{path} is none")
        raise UserError(
            f"a model is a directory with a config.json, but {path} is a file; name the directory it lies in"
        )
    name = str(model)
    if name.startswith((".", "/", "~")) or name.count("/") != 1:
        raise UserError(
            f"there is no directory {name}; a model is `hemp`, a local directory or a hub id such as owner/name"
        )
    return _from_hub(name, with_code=trust_remote_code, pickles=pickles, weights=weights)


def _from_hub(name: str, *, with_code: bool, pickles: bool, weights: bool) -> Path:
    import huggingface_hub
    from huggingface_hub.errors import HfHubHTTPError, HFValidationError, LocalEntryNotFoundError

    def fetch(*patterns: str, below: bool = False) -> Path:
        ignored = None if below else [_BELOW]
        return Path(huggingface_hub.snapshot_download(name, allow_patterns=list(patterns), ignore_patterns=ignored))

    try:
        refuse_irregular_cache(name)
        # Repositories hold copies of their weights (original/, consolidated.safetensors, checkpoint-500/): only what is read is fetched.
        if not weights:
            return fetch(*_SMALL_FILES)
        directory = fetch(*_SMALL_FILES, SINGLE, *(["*.py"] if with_code else []))
        rest = ["additional_chat_templates/*.jinja", *(["*.py"] if with_code else [])]
        return fetch(*rest, *_further_weights(directory, pickles), below=True)
    except HFValidationError:
        raise UserError(f"{name!r} is neither a directory here nor a valid hub id; check the spelling") from None
    except HfHubHTTPError as error:
        status = getattr(error.response, "status_code", "no")
        raise UserError(
            f"the hub answered {status} for {name}: it is misspelt, private or gated; check the id, or log in with `hf auth login`"
        ) from None
    except (LocalEntryNotFoundError, OSError):
        raise UserError(
            f"{name} is no directory here, and the hub could not be reached to fetch it; check the path, or go online once "
            "so that it lies in the cache"
        ) from None


def reach_hub(name: str, way_out: str) -> None:
    """Ask the hub once whether it is there, before a library asks it for a data set six times, seconds apart.

    Under HF_HUB_OFFLINE nothing is asked: the library looks into its cache alone.

    Raises:
        UserError: no answer.
    """
    from huggingface_hub import constants, get_session

    if constants.HF_HUB_OFFLINE:
        return
    try:
        get_session().head(constants.ENDPOINT, timeout=constants.HF_HUB_ETAG_TIMEOUT)
    except (
        Exception
    ) as error:  # the hub's client has changed the library that it asks by, and with it the kinds of errors
        raise UserError(
            f"{name} is not here, and the hub could not be reached to fetch it; {way_out}, or set HF_HUB_OFFLINE=1 to read what lies in the cache"
        ) from error


def refuse_irregular_cache(name: str) -> None:
    """Look at what the hub's cache holds of a model before its library opens any of it.

    Raises:
        UserError: a pipe or a device stands where a file was.
        HFValidationError: no id of the hub.
    """
    from huggingface_hub import constants
    from huggingface_hub.file_download import repo_folder_name
    from huggingface_hub.utils import validate_repo_id

    validate_repo_id(name)
    cached = Path(constants.HF_HUB_CACHE, repo_folder_name(repo_id=name, repo_type="model"))
    refuse_irregular_among(cached.rglob("*"), "the hub's cache holds files")


def _further_weights(directory: Path, pickles: bool) -> list[str]:
    """Which files of weights are still to be fetched, now that config.json and the indices are here."""
    named = _read(directory / "config.json").get("transformers_weights")
    if isinstance(named, str) and not (directory / named).is_file():
        return [named]
    if (directory / SINGLE).is_file():
        return []
    index = named if isinstance(named, str) else INDEX
    if (directory / index).is_file():
        return sorted(set(_read(directory / index).get("weight_map", {}).values()))
    return sorted({PICKLE, *_read(directory / PICKLE_INDEX).get("weight_map", {}).values()}) if pickles else []


def _read(file: Path) -> dict[str, Any]:
    """A JSON object, empty if there is none; what is wrong with a file is said where it is used."""
    try:
        content = json.loads(read_text(file))
    except (OSError, ValueError, RecursionError):
        return {}
    return content if isinstance(content, dict) else {}
