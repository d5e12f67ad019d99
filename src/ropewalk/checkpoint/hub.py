"""From a model's name to its directory, fetched from the hub where it is not here.

in   `hemp`, a local directory or a hub id
out  the directory; or a sentence
"""

from __future__ import annotations

from importlib import resources
from pathlib import Path

from ropewalk.errors import UserError

_HUB_FILES = ["*.safetensors", "*.json", "*.model", "*.txt", "*.jinja", "*.tiktoken"]


def locate(model: str | Path, *, trust_remote_code: bool = False) -> Path:
    """The directory of a model: `hemp` (the embedded one), a local directory, or a hub id fetched into the hub's cache.

    Raises:
        UserError: nothing of that name here, and the hub cannot be reached or has none.
    """
    if str(model) == "hemp":
        return Path(str(resources.files("ropewalk") / "assets" / "hemp"))
    path = Path(model)
    if path.is_dir():
        return path
    if path.exists():
        raise UserError(
            f"a model is a directory with a config.json, but {path} is a file; name the directory it lies in"
        )
    name = str(model)
    if name.startswith((".", "/", "~")) or name.count("/") != 1:
        raise UserError(
            f"there is no directory {name}; a model is `hemp`, a local directory or a hub id such as owner/name"
        )
    return _from_hub(name, with_code=trust_remote_code)


def _from_hub(name: str, *, with_code: bool) -> Path:
    import huggingface_hub
    from huggingface_hub.errors import HfHubHTTPError, HFValidationError, LocalEntryNotFoundError

    patterns = [*_HUB_FILES, "*.py"] if with_code else _HUB_FILES
    try:
        return Path(huggingface_hub.snapshot_download(name, allow_patterns=patterns))
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
