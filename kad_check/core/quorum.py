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
    starting: bool = False
    """At start or after a reload."""


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
            return QuorumNews(QuorumChange.LOST, threshold, weight, starting)
        return None
    threshold = config.quorum + config.hysteresis
    if weight >= threshold:
        return QuorumNews(QuorumChange.GAINED, threshold, weight, starting)
    if starting and config.sorry_server is not None and not sorry_in_use:
        return QuorumNews(QuorumChange.STARTED_DOWN, threshold, weight, starting)
    return None


def quorum_text(config: VirtualServer, news: QuorumNews) -> str:
    """keepalived's wording for the log; scripts look for it."""
    quorum, hysteresis = config.quorum, config.hysteresis
    if news.change is QuorumChange.GAINED:
        return f"Gained quorum {quorum}+{hysteresis}={news.threshold} <= {news.weight}"
    said = "Starting with quorum down" if news.starting else "Lost quorum"
    return f"{said} {quorum}-{hysteresis}={news.threshold} > {news.weight}"


def quorum_letter(config: VirtualServer, news: QuorumNews) -> str:
    """Its wording for mail, where a lost quorum is put down as if it were won."""
    gained = news.change is QuorumChange.GAINED
    if news.starting:
        said = f"Starting with quorum {'up' if gained else 'down'}"
    else:
        said = "Gained quorum" if gained else "Lost quorum"
    return f"=> {said} {config.quorum}+{config.hysteresis}={news.threshold} <= {news.weight} <="
