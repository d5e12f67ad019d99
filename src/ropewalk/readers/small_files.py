"""The small files beside a config: JSON that readers load, the tokenizer, chat templates.

in   a model's directory
out  what is wrong with them, a sentence each: rule, value, way out
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from ropewalk.checkpoint.files import read_json
from ropewalk.errors import STRANGE_DATA, UserError, read_text

#: The JSON objects that readers load by name: of a model, and of a tokenizer beside its tokenizer.json.
_OBJECTS = ("*config.json", "*.index.json")
_OF_TOKENIZER = ("special_tokens_map.json", "added_tokens.json", "vocab.json", "chat_template.json")
#: Where chat templates stand, a file each, and where they are a key of a JSON file.
_TEMPLATES = ("*.jinja", "additional_chat_templates/*.jinja")
_WITH_TEMPLATES = ("tokenizer_config.json", "chat_template.json", "processor_config.json")
_KEY = "chat_template"


def unreadable(directory: Path, patterns: tuple[str, ...] = _OBJECTS) -> list[str]:
    """JSON files, a model's if not said otherwise, that are none, or no object."""
    sentences = []
    for path in sorted(path for pattern in patterns for path in directory.glob(pattern)):
        try:
            read_json(path, what=f"{path.name} is a JSON file")
        except UserError as error:
            sentences.append(str(error))
    return sentences


def tokenizer_faults(directory: Path) -> list[str]:
    """The same of a tokenizer, whose tokenizer.json holds a model of one."""
    sentences, file = unreadable(directory, _OF_TOKENIZER), directory / "tokenizer.json"
    if not file.is_file():
        return sentences
    try:
        content = json.loads(read_text(file))
    except (OSError, ValueError, RecursionError) as error:
        return [*sentences, f"{file.name} cannot be read ({error}); fetch it again"]
    if not (isinstance(content, dict) and isinstance(content.get("model"), dict)):
        sentences.append(f"{file.name} holds no tokenizer (no model in it); fetch it again")
    return sentences


def template_faults(directory: Path) -> list[str] | None:
    """Chat templates that transformers and vLLM would raise over; None where there are some and jinja2 is lacking, which parses them."""
    places = list(_templates(directory))
    if not places:
        return []
    try:
        import jinja2
        import jinja2.ext
    except ImportError:
        return None

    class Generation(jinja2.ext.Extension):
        """The block by which transformers marks what the assistant says."""

        tags = {"generation"}

        def parse(self, parser: Any) -> Any:
            next(parser.stream)
            return parser.parse_statements(("name:endgeneration",), drop_needle=True)

    # The settings of transformers' own (utils/chat_template_utils.py). Parsed only: to compile one would compute its constants.
    grammar = jinja2.Environment(
        trim_blocks=True, lstrip_blocks=True, extensions=[Generation, "jinja2.ext.loopcontrols"]
    )
    sentences = []
    for place, template in places:
        try:
            grammar.parse(template if isinstance(template, str) else read_text(template))
        except jinja2.TemplateSyntaxError as error:
            sentences.append(
                f"chat templates are parsed by Jinja, but {place} is no template from its line {error.lineno} on ({error.message}); mend it, "
                "or fetch it again"
            )
        except (OSError, *STRANGE_DATA) as error:
            sentences.append(
                f"chat templates are parsed by Jinja, but {place} cannot be ({error!r:.80}); fetch it again"
            )
    return sentences


def _templates(directory: Path) -> Iterator[tuple[str, str | Path]]:
    """Where each chat template stands, and its text or its file."""
    for path in sorted(path for pattern in _TEMPLATES for path in directory.glob(pattern)):
        yield path.relative_to(directory).as_posix(), path
    for name in _WITH_TEMPLATES:
        try:
            template = json.loads(read_text(directory / name)).get(_KEY)
        except (OSError, *STRANGE_DATA):  # `unreadable` says it
            continue
        # One text; texts by name; or a list of objects, each with a name and a text.
        for each in [template] if isinstance(template, str | dict) else template if isinstance(template, list) else []:
            texts = each.values() if isinstance(each, dict) and "template" not in each else [each]
            for text in texts:
                text = text.get("template") if isinstance(text, dict) else text
                if isinstance(text, str):
                    yield f"{_KEY} of {name}", text
