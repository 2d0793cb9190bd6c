"""An agent that takes the money for orders, and says so.

weft run --type billing -- python examples/events/billing.py
"""

from __future__ import annotations

from weft import Agent, InvalidRequest, Mesh, ReceivedEvent

agent = Agent("billing")


@agent.on("orders.placed")
async def take_money(event: ReceivedEvent, mesh: Mesh) -> None:
    """What this raises is tried again; an InvalidRequest is a dead letter at once."""
    order = event.data
    if order["amount"] <= 0:
        raise InvalidRequest(f"order {order['number']} costs nothing")
    # The id says that it is the same event, should this be done twice.
    await mesh.publish("orders.paid", order, key=str(order["number"]), id=f"paid-{event.event.id}")


if __name__ == "__main__":
    agent.run()
