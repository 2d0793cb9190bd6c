"""An agent that translates: at once when it is called, in its own time when it gets a task.

weft run --type translator -- python examples/gateway/translator.py
"""

from __future__ import annotations

from weft import Agent, TaskRun

agent = Agent("translator")


@agent.handles("translate")
async def translate(text: str) -> str:
    """Upper case is a language too."""
    return text.upper()


@agent.task("translations")
async def translate_all(texts: list[str], task: TaskRun) -> list[str]:
    """Any number of texts, each told of as soon as it is done."""
    done = []
    for text in texts:
        done.append(await translate(text))
        await task.partial(done[-1])
    return done


if __name__ == "__main__":
    agent.run()
