"""What outlives a child: fixed records in shared memory.

The supervisor creates one memfd before the first fork and every process maps it. It has one page of
heartbeats a role and one area of records a role. A record is written before the act it describes.

Contract (the layout is this module's own):

* ``Journal.create()`` in the supervisor; children inherit the mapping at fork.
* ``heartbeat(role)`` -> :class:`Heartbeat`: ``tick()`` by the driver, ``ticks`` and ``phase`` read by the supervisor.
* ``records(role)`` -> :class:`Records`: a crash-atomic store of small byte strings by key. Each slot has two
  copies and a sequence number, so a process killed in the middle of ``write`` leaves the older one whole.
* ``Records.stamp(key, now_us)`` writes the record's one hot field (the last transmission) in place.
"""
