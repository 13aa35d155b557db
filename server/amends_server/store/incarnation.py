"""Incarnations: the lives of a store. Each begins with a restore from a backup, and they are the high part of epochs.

So an epoch of a later incarnation is higher than any of those before, also than those that the backup has never seen.
"""

from __future__ import annotations

from amends_server.engine.policy import SECOND_US, Time

EPOCHS = 1 << 24
"""Of one incarnation: with a change of owner each second they last half a year, and then go on into the next."""


def incarnation_of(epoch: int) -> int:
    """Return the incarnation that an epoch belongs to; 0 is that of a store that was never restored."""
    return epoch // EPOCHS


def epoch_before_next(newest: int, now: Time) -> int:
    """Return the epoch after which the incarnation begins that follows that of the `newest` known one.

    Later incarnations may have been lost with what was restored. They are named by the time at which they began, so
    this one is later than they.
    """
    return max(incarnation_of(newest) + 1, now // SECOND_US) * EPOCHS
