"""An agent that remembers each conversation, whichever of its instances is asked."""

from weft import Agent, Mesh

agent = Agent("tutor")


@agent.handles("ask")
async def ask(question: str, mesh: Mesh) -> str:
    """Answer, knowing what was asked before."""
    conversation = mesh.context()
    before = [each.content for each in await conversation.messages(after=-20) if each.role == "user"]
    answer = f"You asked {len(before)} things before, the last one {before[-1]!r}." if before else "Hello."
    await conversation.append("user", question)
    await conversation.append("assistant", answer, model="none")
    await conversation.update(lambda state: {"questions": (state or {"questions": 0})["questions"] + 1})
    return answer


if __name__ == "__main__":
    agent.run()
