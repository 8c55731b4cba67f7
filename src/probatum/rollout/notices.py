"""Say what was told of an alert, and what is to be done about it."""

from __future__ import annotations

import re
from typing import Literal

import msgspec

from probatum.core.clock import parse_utc
from probatum.core.errors import ParameterError
from probatum.rollout.alerts import ALERTS

Status = Literal["firing", "resolved"]
_MODEL = re.compile(r"[0-9a-f]{64}")


class Notice(msgspec.Struct, frozen=True, kw_only=True):
    """Hold what was told of one alert: it holds since ``starts``, or held until ``ends``. Times are ISO 8601."""

    name: str
    status: Status
    fingerprint: str
    starts: str
    ends: str | None
    labels: dict[str, str]

    def __post_init__(self) -> None:
        if (self.status == "resolved") != (self.ends is not None):
            raise ParameterError("ends", "given for what is resolved and only for it", self.ends)
        if self.ends is not None and parse_utc(self.ends) < parse_utc(self.starts):
            raise ParameterError("ends", f"no earlier than {self.starts}", self.ends)


def propose(notice: Notice) -> str | None:
    """Return the digest of the model that is to be retrained, where a notice asks for it.

    >>> notice = Notice(name="MLPSICritical", status="firing", fingerprint="a", starts="2026-01-01T00:00:00Z", ends=None,
    ...                 labels={"model": "ab" * 32})
    >>> propose(notice) == "ab" * 32, propose(msgspec.structs.replace(notice, name="MLPSIWarning"))
    (True, None)
    """
    model = notice.labels.get("model", "")
    asks = notice.status == "firing" and notice.name in {item.name for item in ALERTS if item.action == "retrain"}
    return model if asks and _MODEL.fullmatch(model) else None
