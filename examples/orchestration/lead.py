"""An agent that asks two others, a model and a queue, and has a model make one answer of what they say.

weft up examples/orchestration/mesh.yaml
weft call lead advise question="shall we rewrite it"
"""

from __future__ import annotations

from weft import Agent, Mesh
from weft.orchestration import Branch, coordinate

MODEL = "gpt-4o-mini"

agent = Agent("lead")


@agent.handles("advise")
async def advise(question: str, mesh: Mesh) -> dict[str, object]:
    """Advice, and who it is from. It is cancelled, with all its branches, when the caller goes away."""
    outcome = await coordinate(
        question,
        [
            "optimist",
            "pessimist",
            Branch(model=MODEL, prompt="You are a lawyer. Be brief.", max_tokens=60, name="lawyer"),
            Branch(queue="studies", timeout=20),
        ],
        mesh=mesh,
        quorum=3,  # the slowest is not waited for
        timeout=60,
        budget="4000 tokens",
        synthesis=Branch(model=MODEL, max_tokens=120),
    )
    return {
        "advice": outcome.value,
        "from": [each.branch.label for each in outcome.results if each.ok],
        "failed": {each.branch.label: str(each.error) for each in outcome.failures},
    }


if __name__ == "__main__":
    agent.run()
