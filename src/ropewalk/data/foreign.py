"""Files that hold text for other programs, known by their first bytes, whatever they are called.

in   the bytes of a file that is to be text
out  what it is, and what makes of it a file that is read; empty for text, and for what nobody knows
"""

from __future__ import annotations

_UNPACK, _SAVE = "unpack it, or pack it as .zip or .tar", "save it as text"
#: First bytes → what begins with them, and the way out.
_BEGINNINGS = {
    b"7z\xbc\xaf\x27\x1c": ("a 7z archive", _UNPACK),
    b"Rar!\x1a\x07": ("a rar archive", _UNPACK),
    b"PK\x03\x04": ("a zip archive", "call it .zip"),
    b"\x1f\x8b": ("compressed with gzip", "call it .gz"),
    b"\xfd7zXZ\0": ("compressed with xz", "call it .xz"),
    b"\x28\xb5\x2f\xfd": ("compressed with zstd", "call it .zst"),
    b"PAR1": ("a Parquet file", "call it .parquet"),
    b"%PDF-": ("a PDF document", _SAVE),
    b"{\\rtf": ("an RTF document", _SAVE),
    b"\xd0\xcf\x11\xe0\xa1\xb1\x1a\xe1": ("a document of an older Microsoft Office", _SAVE),
}
#: Names of files in a zip archive that is a document, as its first directory of files spells them.
_DOCUMENTS = {
    b"word/": "a Word document",
    b"xl/": "an Excel sheet",
    b"ppt/": "a PowerPoint file",
    b"opendocument": "an OpenDocument file",
    b"epub+zip": "an EPUB book",
}


def foreign(raw: bytes) -> str:
    """What a file is that begins like another program's, as "is a 7z archive, which is not read as text (…)"; empty for any other."""
    beginning = next((bytes_ for bytes_ in _BEGINNINGS if raw.startswith(bytes_)), None)
    if beginning is None:
        return ""
    what, way_out = _BEGINNINGS[beginning]
    if beginning.startswith(b"PK"):
        document = next((kind for name, kind in _DOCUMENTS.items() if name in raw), None)
        what, way_out = (document, _SAVE) if document else (what, way_out)
    return f"is {what}, which is not read as text ({way_out})"
