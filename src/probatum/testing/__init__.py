"""Offer what plugin authors and our own tests share: fakes of the ports, and conformance checks."""

from probatum.testing.feeds import check_feed
from probatum.testing.models import check_model

__all__ = ["check_feed", "check_model"]
