"""Records → one self-contained page: inline SVG and CSS, no script, nothing fetched.

in   record files (JSON lines)
out  an HTML file, written whole or not at all

    rows.clean          what can be believed, and what was left out
    same_names          one name for a text that has several; texts of one name that are not the same, set apart
    texts               what is to be known of the texts that states read
    SECTIONS            kinds of rows → figures and tables, each a function Clean → Section | None
    contenders, methods one method, its figures by measure; who is ahead, if intervals tell, and by which measures others are
    seeds               several seeds of one training in words
    files               tables as CSV, LaTeX and Markdown, figures as SVG, PDF and PNG
    verdict, provenance the paragraph at the top (verdict_passkey, two_windows: its sentences on these); what was run at the end
    templates/          jinja2, everything escaped
"""

from ropewalk.reports.page import SECTIONS, render, report

__all__ = ["SECTIONS", "render", "report"]
