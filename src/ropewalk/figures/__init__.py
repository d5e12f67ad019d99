"""Rows → matplotlib figures, one a function. No pyplot, no global state, no torch."""
