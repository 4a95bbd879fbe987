"""What priority an instance has at this moment. Pure."""

from kad.config.model.vrrp import OWNER

STOPPING = 0
"""The master leaves and says so (RFC 9568 §5.2.4)."""
REDUCED_OWNER = OWNER - 1
"""What an owner falls to when another owner does not give way: keepalived's addition."""
LOWEST = 1
HIGHEST = OWNER - 1


def effective_priority(base: int, weights: int = 0) -> int:
    """Configured priority and the sum of tracking weights, kept within 1-254; an owner's never changes."""
    if base == OWNER:
        return OWNER
    return max(LOWEST, min(HIGHEST, base + weights))
