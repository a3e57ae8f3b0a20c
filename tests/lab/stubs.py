"""Stand-ins for the lab's own tests only, as programs: a listener that answers HTTP checks as told, and one that says its name on TCP.

`python -m tests.lab.stubs NAME TCP_PORT HTTP_PORT FOLDER`: `OPTIONS /x` is 200 while FOLDER/x exists, else 503.
"""

from __future__ import annotations

import asyncio
import sys
from pathlib import Path


async def serve(name: str, tcp_port: int, http_port: int, folder: Path) -> None:
    async def greet(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(f"{name}\n".encode())
        await writer.drain()
        await reader.read()
        writer.close()

    async def check(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        path = (await reader.readuntil(b"\r\n\r\n")).split(b" ")[1].decode().lstrip("/")
        status = "200 OK" if (folder / path).exists() else "503 Service Unavailable"
        writer.write(f"HTTP/1.1 {status}\r\nContent-Length: 0\r\nConnection: close\r\n\r\n".encode())
        await writer.drain()
        writer.close()

    tcp = await asyncio.start_server(greet, "127.0.0.1", tcp_port)
    http = await asyncio.start_server(check, "127.0.0.1", http_port)
    async with tcp, http:
        await asyncio.gather(tcp.serve_forever(), http.serve_forever())


if __name__ == "__main__":
    asyncio.run(serve(sys.argv[1], int(sys.argv[2]), int(sys.argv[3]), Path(sys.argv[4])))
