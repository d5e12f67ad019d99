"""ropewalk: give a RoPE language model a longer context window."""

__version__ = "0.1.0"
