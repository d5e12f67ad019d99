"""The type checker of all tests: beartype, for which an int is a float too, as Python's typing has it (PEP 484)."""

from __future__ import annotations

from beartype import BeartypeConf, beartype

check = beartype(conf=BeartypeConf(is_pep484_tower=True))
