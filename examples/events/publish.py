"""A script that places an order. Scripts publish; only agents subscribe.

weft run -- python examples/events/publish.py 7
"""

from __future__ import annotations

import asyncio
import sys

from weft import Mesh, MeshError


async def main(number: int, amount: int) -> None:
    """When `publish` returns, the event is stored."""
    async with Mesh() as mesh:
        order = {"number": number, "amount": amount}
        await mesh.publish("orders.placed", order, key=str(number), type="com.example.order.placed")
        print(f"order {number} is placed")


if __name__ == "__main__":
    try:
        asyncio.run(main(int(sys.argv[1]), int(sys.argv[2]) if len(sys.argv) > 2 else 10))
    except MeshError as error:
        sys.exit(f"{error.title()}: {error.detail}")
