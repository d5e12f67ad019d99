"""`ropewalk push`: a model's own files to a repository of the Hugging Face hub, in one commit.

in   a directory with a checkpoint, an adapter or a GGUF file; owner/name
out  what would be uploaded and what stays, and then a commit, whole or absent

What goes is what readers of models open, by name. Records, a run's checkpoints, optimiser states, pickles and whatever else lies there
stay, unless they are asked for by name: they tell of one machine, or belong to no model. The mark goes along with the digests and names of
what is uploaded, so that `doctor` can tell a damaged copy, and with nothing of what stays.
"""

from __future__ import annotations

import contextlib
import fnmatch
import logging
import os
import re
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING

from ropewalk.checkpoint.checkpoint import Checkpoint
from ropewalk.checkpoint.licence import NOTICE_FILES
from ropewalk.checkpoint.links import outside
from ropewalk.checkpoint.marks import MARK, mark_of
from ropewalk.checkpoint.model_card import front_matter_of
from ropewalk.checkpoint.own_code import AUTO_MAP, carried_code, configs_with_code
from ropewalk.checkpoint.processes import LOCK, refuse_locked
from ropewalk.checkpoint.replacement import refuse_unfinished
from ropewalk.errors import UserError, read_text, refuse_irregular, told
from ropewalk.model.own_files import is_of_a_run
from ropewalk.readers.refusals import refuse_damaged
from ropewalk.readers.spelling_checks import warn_of_other_readers
from ropewalk.settings.command import takes
from ropewalk.settings.export import PushSettings
from ropewalk.version import __version__

if TYPE_CHECKING:
    from huggingface_hub import HfApi

_logger = logging.getLogger(__name__)

_WEIGHTS = ("*.safetensors", "*.gguf")
_GOES = (
    *_WEIGHTS, "*.safetensors.index.json", "*config.json", "tokenizer*", "special_tokens_map.json", "added_tokens.json", "vocab.*", "merges.txt",
    "*.model", "*.tiktoken", "*.jinja", "README*.md", *NOTICE_FILES, "Modelfile",
)  # fmt: skip
#: The directories of a checkpoint that readers look into, beside those of its shards.
_BELOW = ("additional_chat_templates/*.jinja",)
#: Text whose words only look like places of this machine: a tokenizer's.
_WORDS = ("tokenizer.json", "vocab.*", "merges.txt", "added_tokens.json", "*.model", "*.tiktoken")
#: Where a path may begin and end in a text. One with a blank in it has no end of its own, so that all of these ends are tried, the last one first.
_BEGINS = re.compile(r"(?<![\w.:/])/(?=[^/\s])[^\n\"'`<>|\\]{1,1024}")
_ENDS = re.compile(r"[^\w.@+/-]|[./](?=\s|$)|$")


@dataclass(frozen=True)
class Parcel:
    """What would be uploaded.

    Attributes:
        sizes: bytes of each file, by its path below the directory, which it has in the repository too.
        stays: what lies there and is not uploaded; a directory as `name/`.
        links: where the links among the files lead that leave the directory, by name: weights, and what was asked for.
        places: the paths of this machine that a file names, by file.
        code: what is uploaded of code that readers may run, and the configs that name it.
        public: of the repository, if it is there.
        replaced: its files that are replaced; its history keeps them.
        is_unlicensed: whether its card says that nobody knows its licence.
        mark: the text of the mark that goes along, of what is uploaded alone; empty where there is none, or it was asked for as it lies there.
    """

    sizes: dict[str, int]
    stays: list[str]
    places: dict[str, list[str]]
    code: tuple[str, ...] = ()
    public: bool | None = None
    replaced: tuple[str, ...] = ()
    links: dict[str, str] = field(default_factory=dict)
    is_unlicensed: bool = False
    mark: str = ""

    @classmethod
    def of(cls, settings: PushSettings) -> Parcel:
        """What lies in the directory; the hub is not asked.

        Raises:
            UserError: no model there, one that is being written, or one whose files are broken.
        """
        directory = Path(settings.model)
        if not directory.is_dir():
            raise UserError(f"push uploads a directory, and there is no directory {directory}; name a checkpoint")
        refuse_locked(directory)
        refuse_unfinished(directory)
        names = sorted({*_own(directory, settings), *_asked(directory, settings)})
        if not any(fnmatch.fnmatchcase(name, pattern) for name in names for pattern in _WEIGHTS):
            raise UserError(
                f"push uploads models in safetensors or GGUF, and {directory} has none; `ropewalk export --for transformers` writes them"
            )
        for name in names:
            refuse_irregular(directory / name, "push uploads files")
        tops = {name.partition("/")[0] for name in names}
        rest = [path for path in sorted(directory.iterdir()) if path.name not in {*tops, MARK, LOCK}]
        links = {name: place for name in names if (place := outside(directory / name, directory))}
        places = {name: found for name in names if (found := _places(directory / name))}
        sizes = {name: (directory / name).stat().st_size for name in names}
        named = [f"{AUTO_MAP} of {name}" for name in configs_with_code(directory)]
        code = (*(name for name in names if name.endswith(".py")), *named)
        unlicensed = front_matter_of(directory / "README.md").get("license") == "unknown"
        mark = "" if MARK in names else mark_of(directory, names)
        sizes |= {MARK: len(mark.encode())} if mark else {}
        stays = [_staying(path) for path in rest]
        return cls(sizes, stays, places, code, links=links, is_unlicensed=unlicensed, mark=mark)

    @property
    def says_of_code(self) -> str:
        """What is uploaded of code, in a sentence; empty where there is none."""
        names = ", ".join(self.code)
        return f"code goes along, which readers that trust it run as themselves: {names}" if self.code else ""

    def beside(self, repository: str) -> Parcel:
        """The same, with what the hub has by that name."""
        from huggingface_hub.errors import RepositoryNotFoundError

        try:
            with _hub(repository, RepositoryNotFoundError) as api:
                remote = api.model_info(repository)
        except RepositoryNotFoundError:
            return self
        there = {each.rfilename for each in remote.siblings or []}
        return replace(self, public=not remote.private, replaced=tuple(name for name in self.sizes if name in there))


@takes(PushSettings)
def push(settings: PushSettings) -> str:
    """Upload a model's own files to the hub in one commit; into a private repository, unless asked otherwise.

    Returns:
        Where it lies.

    Raises:
        UserError: no sound model there, a public repository that was not asked for, or the hub does not take it.
    """
    return upload(Parcel.of(settings).beside(settings.repository), settings)


def upload(parcel: Parcel, settings: PushSettings) -> str:
    """The same of what was looked at already, whose weights are not read once more.

    Raises:
        UserError: a public repository that was not asked for, or the hub does not take it.
    """
    from huggingface_hub import CommitOperationAdd

    if parcel.code:
        _logger.warning("%s", parcel.says_of_code)
    if parcel.public and not settings.public:
        raise UserError(
            f"push keeps models private unless asked otherwise, and {settings.repository} is there and public; add --public, or choose another name"
        )
    with _hub(settings.repository) as api:
        api.create_repo(settings.repository, private=not settings.public, exist_ok=True)
        from_memory = {MARK: parcel.mark.encode()} if parcel.mark else {}
        files = [
            CommitOperationAdd(name, from_memory.get(name, os.fspath(Path(settings.model, name))))
            for name in parcel.sizes
        ]
        api.create_commit(settings.repository, files, commit_message=f"Uploaded by ropewalk {__version__}")
        return f"{api.endpoint}/{settings.repository}"


@contextlib.contextmanager
def _hub(repository: str, *passed: type[Exception]) -> Iterator[HfApi]:
    """The hub; what it refuses is a sentence, but for errors that are to pass."""
    from huggingface_hub import HfApi

    way_out = (
        "see that you are online, that the owner is you or yours, and that `hf auth login` knows a token that may write"
    )
    try:
        with told(f"the hub did not take {repository}", way_out, Exception):
            yield HfApi()
    except UserError as error:
        if isinstance(error.__cause__, passed):
            raise error.__cause__ from None
        raise


def _own(directory: Path, settings: PushSettings) -> Iterator[str]:
    """The model's own files; its weights are found whole, and not those of another format beside them."""
    named = [path for path in directory.iterdir() if any(fnmatch.fnmatchcase(path.name, each) for each in _GOES)]
    goes = [path for path in named if not path.is_dir() and not is_of_a_run(path.name)]
    goes += [path for pattern in _BELOW for path in directory.glob(pattern)]
    # What a link leads to is uploaded unasked only where it is read as a model's config or, below, as its weights.
    yield from (
        path.relative_to(directory).as_posix()
        for path in goes
        if path.name == "config.json" or not outside(path, directory)
    )
    if not (directory / "config.json").is_file():
        refuse_damaged(directory)  # an adapter, a GGUF file
        return
    checkpoint = Checkpoint.open(directory, **settings.opening)
    refuse_damaged(checkpoint, as_it_is=True)
    warn_of_other_readers(checkpoint)
    if checkpoint.has_weights:
        yield from (path.relative_to(checkpoint.path).as_posix() for path in checkpoint.weight_files)
    if configs_with_code(directory):
        yield from (name for name in carried_code(directory) if not outside(directory / name, directory))


def _staying(path: Path) -> str:
    """How a list names what is not uploaded."""
    if path.is_dir():
        return f"{path.name}/"
    place = outside(path, path.parent)
    return f"{path.name} (a link out of the directory, to {place})" if place else path.name


def _asked(directory: Path, settings: PushSettings) -> Iterator[str]:
    """What is uploaded because the user named it."""
    for pattern in settings.also or ():
        files = [path for path in directory.glob(os.fspath(pattern)) if path.is_file()]
        if not files:
            raise UserError(f"--also names files in {directory}, and there is no {pattern}; check the spelling")
        yield from (path.relative_to(directory).as_posix() for path in files)


def _places(file: Path) -> list[str]:
    """The paths that a file names and that are there on this machine."""
    if any(fnmatch.fnmatchcase(file.name, pattern) for pattern in (*_WEIGHTS, *_WORDS)):
        return []
    with file.open("rb") as opened:
        if b"\0" in opened.read(8192):
            return []  # no text
    begun = {match[0] for match in _BEGINS.finditer(read_text(file, errors="replace"))}
    return sorted({place for text in begun if (place := _place_at_the_start(text))})


def _place_at_the_start(text: str) -> str | None:
    """The longest path that a text begins with and that is there, below a top directory; every machine has /tmp."""
    ends = [match.start() for match in _ENDS.finditer(text)]
    paths = (text[:end] for end in reversed(ends[:32]))
    return next((path for path in paths if path.count("/") > 1 and os.path.exists(path)), None)
