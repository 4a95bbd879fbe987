"""The quorum of a virtual server: enough weight of servers that are up. Pure functions."""

from __future__ import annotations

from enum import Enum, auto

from msgspec import Struct

from kad.config.model.check import VirtualServer


class QuorumChange(Enum):
    GAINED = auto()
    LOST = auto()
    STARTED_DOWN = auto()
    """Never had at start, and a sorry server is there to say so."""


class QuorumNews(Struct, frozen=True):
    """A change, with the figures that people are told."""

    change: QuorumChange
    threshold: int
    weight: int


def quorum_news(
    config: VirtualServer, *, has_quorum: bool, weight: int, starting: bool, sorry_in_use: bool
) -> QuorumNews | None:
    """What the weight of the servers that are up does to the quorum; None: nothing.

    Hysteresis widens the gap: won at quorum + hysteresis, lost below quorum - hysteresis, and always lost
    without any weight. ``starting``: at start or after a reload, where a quorum that was not there needs its
    sorry server.
    """
    if has_quorum:
        threshold = config.quorum - config.hysteresis
        if weight == 0 or weight < threshold:
            return QuorumNews(QuorumChange.LOST, threshold, weight)
        return None
    threshold = config.quorum + config.hysteresis
    if weight >= threshold:
        return QuorumNews(QuorumChange.GAINED, threshold, weight)
    if starting and config.sorry_server is not None and not sorry_in_use:
        return QuorumNews(QuorumChange.STARTED_DOWN, threshold, weight)
    return None


def quorum_text(config: VirtualServer, news: QuorumNews) -> str:
    """keepalived's wording; scripts and alerts look for it."""
    quorum, hysteresis = config.quorum, config.hysteresis
    if news.change is QuorumChange.GAINED:
        return f"Gained quorum {quorum}+{hysteresis}={news.threshold} <= {news.weight}"
    said = "Lost quorum" if news.change is QuorumChange.LOST else "Starting with quorum down"
    return f"{said} {quorum}-{hysteresis}={news.threshold} > {news.weight}"
