"""Say how a test ended, and where its data came from."""

from __future__ import annotations

from collections.abc import Iterable
from enum import StrEnum

from probatum.core.errors import ParameterError


class Verdict(StrEnum):
    """Name the end of a test, best first: the worst of several is their verdict."""

    PASS = "PASS"
    INCONCLUSIVE = "INCONCLUSIVE"
    FAIL = "FAIL"
    ERROR = "ERROR"

    @staticmethod
    def worst(verdicts: Iterable[Verdict]) -> Verdict:
        """Return the worst verdict; none at all is an error, for an empty test proves nothing.

        >>> Verdict.worst([Verdict.PASS, Verdict.INCONCLUSIVE])
        <Verdict.INCONCLUSIVE: 'INCONCLUSIVE'>
        """
        order = list(Verdict)
        ranks = [order.index(verdict) for verdict in verdicts]
        if not ranks:
            raise ParameterError("verdicts", "at least one", [])
        return order[max(ranks)]


class Provenance(StrEnum):
    """Name the class of the data behind a record, weakest first. Set by the source adapter, never by an argument."""

    SYNTHETIC = "synthetic"
    REPLAY = "replay"
    LIVE = "live"

    @staticmethod
    def weakest(classes: Iterable[Provenance]) -> Provenance:
        """Return the weakest class: a chain of evidence is as live as its least live link.

        >>> Provenance.weakest([Provenance.LIVE, Provenance.SYNTHETIC])
        <Provenance.SYNTHETIC: 'synthetic'>
        """
        order = list(Provenance)
        ranks = [order.index(item) for item in classes]
        if not ranks:
            raise ParameterError("classes", "at least one", [])
        return order[min(ranks)]
