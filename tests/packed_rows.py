"""The same two texts in files of every kind, and what is read of them."""

import io
import json
import tarfile
import zipfile

import pyarrow
import pyarrow.feather
import pyarrow.parquet

from ropewalk.data.documents import read_documents

ROWS = [{"id": "moby", "text": "Call me Ishmael."}, {"id": "emma", "text": "Emma Woodhouse, handsome."}]
LINES = "".join(json.dumps(row) + "\n" for row in ROWS).encode()


def texts(source, **options):
    return [document.text for document in read_documents(source, **options)]


def parquet_of(rows):
    sink = io.BytesIO()
    pyarrow.parquet.write_table(pyarrow.Table.from_pylist(rows), sink)
    return sink.getvalue()


def zip_of(files):
    packed = io.BytesIO()
    with zipfile.ZipFile(packed, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, content in files.items():
            archive.writestr(name, content)
    return packed.getvalue()


def tar_of(files, mode):
    packed = io.BytesIO()
    with tarfile.open(fileobj=packed, mode=mode) as archive:
        for name, content in files.items():
            entry = tarfile.TarInfo(name)
            entry.size = len(content)
            archive.addfile(entry, io.BytesIO(content))
    return packed.getvalue()


PARQUET = parquet_of(ROWS)
