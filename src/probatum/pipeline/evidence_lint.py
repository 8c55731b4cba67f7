"""Find figures in a report that cannot be true together: arithmetic on what it says, with nothing known of where it came from.

Each rule is general; none knows a document. Rounding is taken from how a figure is written, so a true report has no finding.
A finding says that a report contradicts itself, never which of its figures is the wrong one.
"""

from __future__ import annotations

from probatum.pipeline.evidence_figures import FIGURE_RULES
from probatum.pipeline.evidence_prose import PROSE_RULES
from probatum.pipeline.evidence_reading import Finding, read_report

RULES = (*FIGURE_RULES, *PROSE_RULES)


def lint_report(text: str, *, place: str = "report") -> list[Finding]:
    """Return every impossible or contradictory figure of a Markdown or JSON report, by line; empty for a consistent one.

    >>> lint_report('{"total_requests": 50, "error_rate": 0.0035}')[0].problem
    'error_rate 0.0035 of 50 is no whole number of events'
    """
    report = read_report(text, place=place)
    return sorted({finding for rule in RULES for finding in rule(report)})
