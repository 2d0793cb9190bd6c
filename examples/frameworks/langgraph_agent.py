"""LangGraph: its model is the mesh's, and one of its tools is another agent."""

from door import count_words, serve
from langchain.agents import create_agent
from langchain_openai import ChatOpenAI

agent = create_agent(ChatOpenAI(model="gpt-4o-mini"), [count_words], system_prompt="Be brief.")


async def answer(text: str) -> str:
    state = await agent.ainvoke({"messages": [("user", text)]})
    return str(state["messages"][-1].content)


serve(answer)
