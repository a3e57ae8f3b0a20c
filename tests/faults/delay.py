"""A slow stretch of cable: passes every frame between two network interfaces, so many milliseconds late in each direction.

`python delay.py FIRST SECOND MILLISECONDS`, run in the lab's own network namespace by tests/faults/host.py, until it is killed. The kernels
of small machines have no netem. Frames pass as they are, with the kernel's note on checksums and segments that are still to be made.
"""

from __future__ import annotations

import heapq
import selectors
import socket
import sys
import time

SOL_PACKET, PACKET_VNET_HDR = 263, 15  # linux/if_packet.h
ALL_FRAMES = 0x0003
OUTGOING = 4  # a frame that we, or this side's kernel, sent ourselves
BIGGEST = 2**16 + 4096


def interface(name: str) -> socket.socket:
    raw = socket.socket(socket.AF_PACKET, socket.SOCK_RAW, socket.htons(ALL_FRAMES))
    raw.setsockopt(SOL_PACKET, PACKET_VNET_HDR, 1)
    raw.bind((name, ALL_FRAMES))
    raw.setblocking(False)
    return raw


def main(first: str, second: str, late_s: float) -> None:
    ends = interface(first), interface(second)
    selector = selectors.DefaultSelector()
    for pair in (ends, ends[::-1]):
        selector.register(pair[0], selectors.EVENT_READ, pair)
    under_way: list[tuple[float, int, socket.socket, bytes]] = []
    count = 0
    while True:
        wait_s = max(0.0, under_way[0][0] - time.monotonic()) if under_way else None
        for key, _ in selector.select(wait_s):
            here: socket.socket
            here, there = key.data
            frame, (_, _, kind, *_) = here.recvfrom(BIGGEST)
            if kind != OUTGOING:
                count += 1
                heapq.heappush(under_way, (time.monotonic() + late_s, count, there, frame))
        while under_way and under_way[0][0] <= time.monotonic():
            _, _, out, frame = heapq.heappop(under_way)
            try:
                out.send(frame)
            except OSError:  # the other side's cable was pulled, or its queue is full: lost, as on any wire
                continue


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2], float(sys.argv[3]) / 1000)
