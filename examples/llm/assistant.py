"""An agent that asks a model, by OpenAI's own library, which knows nothing of Weft: no key, no URL.

The sidecar gives it OPENAI_BASE_URL. Envoy adds the provider's key, and the mesh says when the call starts.

weft up examples/llm/mesh.yaml
weft call assistant explain topic="why the sky is blue"
"""

from __future__ import annotations

from openai import APIStatusError, AsyncOpenAI

from weft import Agent, AgentError

MODEL = "gpt-4o-mini"

agent = Agent("assistant", capabilities=["explain"])


@agent.handles("explain")
async def explain(topic: str) -> str:
    """An explanation in a few words."""
    question = f"Explain in a few words: {topic}"
    try:
        async with AsyncOpenAI() as models:
            answer = await models.chat.completions.create(
                model=MODEL, messages=[{"role": "user", "content": question}], max_tokens=60
            )
    except APIStatusError as error:
        # The mesh's reason: a budget that is used up, nobody there in time, ...
        raise AgentError(error.message, status=503, code=error.code or "no-model") from error
    return answer.choices[0].message.content or ""


if __name__ == "__main__":
    agent.run()
