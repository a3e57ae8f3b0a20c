"""Every fault there is, by name: whoever wants one asks here, so that all the modules that define some have been read."""

from __future__ import annotations

from tests.faults import moments
from tests.faults.faults import FAULTS

__all__ = ["CLOCKS", "DISK", "FAULTS", "ORDINARY"]

DISK = {moments.disk_full.__name__: FAULTS[moments.disk_full.__name__]}  # need small disks
CLOCKS = {harm.__name__: harm for harm in (moments.clock_stepped_forward, moments.clock_stepped_back)}  # need clocks of their own
ORDINARY = {name: harm for name, harm in FAULTS.items() if name not in DISK | CLOCKS}
