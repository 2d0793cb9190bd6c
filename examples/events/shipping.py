"""An agent that packs what was ordered, ships it once it is paid, and notices every order there is.

weft run --type shipping -- python examples/events/shipping.py
"""

from __future__ import annotations

import itertools

from weft import Agent, Mesh, ReceivedEvent

agent = Agent("shipping")
counter = itertools.count(1)


@agent.on("orders.paid", filter={"not": {"exact": {"subject": "test"}}})
async def ship(event: ReceivedEvent, mesh: Mesh) -> None:
    """Ship, and say so."""
    number = event.data["number"]
    await mesh.publish("orders.shipped", {"number": number}, key=str(number), id=f"shipped-{event.event.id}")


@agent.on("orders.*", every_instance=True)
def count(event: ReceivedEvent) -> None:
    """A plain function runs in a thread; with `every_instance` each instance has its own count."""
    print(f"{event.name}: {event.data}, number {next(counter)}", flush=True)


if __name__ == "__main__":
    agent.run()
