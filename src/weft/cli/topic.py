"""`weft topic`: how topics stand; publishing, reading along, having a group read again."""

from __future__ import annotations

import json
from contextlib import aclosing
from typing import Annotated, Any

from cyclopts import App, Parameter

from weft.cli.api import control_api
from weft.cli.describe import describe as describe_resource
from weft.cli.options import ControlPlane, Output, OutputOption
from weft.cli.payload import PayloadFile, payload
from weft.cli.reading_along import ReadingStart, read_along
from weft.cli.show import console, print_found, print_json
from weft.cli.times import moment
from weft.cli.topic_table import event_line, topic_table
from weft.errors import InvalidRequest
from weft.local.messaging_control import MessagingApi
from weft.model.subtopic import parse_topic_pattern

app = App(name="topic", help="See how topics stand, publish to them, read along, and replay.")

_HERE = ControlPlane()

_Topic = Annotated[str, Parameter(help="The topic's name.")]
_Since = Annotated[
    str | None,
    Parameter(help="From so long ago on (30s, 5m, 2h, 1d), or from a time in RFC 3339.", show_default=False),
]
_FromSeq = Annotated[
    int | None, Parameter(help="From the event of that sequence on; 1 is the first.", show_default=False)
]


@app.command(name="ls")
async def list_all(*, output: OutputOption = Output.TABLE, where: ControlPlane = _HERE) -> None:
    """List the topics: how many events each holds, and how far behind the slowest of its groups is."""
    async with control_api(where) as api:
        found = await MessagingApi(api).topics()
    print_found(found, topic_table, output=output, none="no topics are declared")


@app.command
async def describe(
    topic: _Topic, /, *, output: OutputOption = Output.TABLE, where: ControlPlane = _HERE
) -> None:
    """Show all about one topic: how it is declared, how it stands, and who reads it, how far behind."""
    await describe_resource("topic", topic, output=output, where=where)


@app.command
async def pub(
    topic: Annotated[str, Parameter(help="Where to: `orders`, or below it `orders.created`.")],
    /,
    *words: Annotated[
        str, Parameter(help="Its data: JSON, or NAME=VALUE (text) and NAME:=VALUE (JSON) of an object.")
    ],
    file: PayloadFile = None,
    type_: Annotated[
        str | None, Parameter(name="--type", help="Of the CloudEvent (default: the topic).")
    ] = None,
    key: Annotated[
        str | None, Parameter(help="Events with the same one stay in order, in a topic with partitions.")
    ] = None,
    subject: Annotated[str | None, Parameter(help="What it happened to.")] = None,
    output: OutputOption = Output.TABLE,
    where: ControlPlane = _HERE,
) -> None:
    """Publish an event.

    `weft topic pub orders.created order=17 amount:=30`

    `weft topic pub orders -f order.json --key customer-5`
    """
    document = {
        "topic": topic,
        "data": payload(words, file),
        "type": type_,
        "key": key,
        "subject": subject,
    }
    async with control_api(where) as api:
        sequence = await MessagingApi(api).publish(document)
    if output is Output.JSON:
        print_json({"topic": topic, "sequence": sequence})
    else:
        print(f"topic/{topic}: published" + (f", sequence {sequence}" if sequence else ""))


@app.command
async def sub(
    pattern: Annotated[
        str,
        Parameter(help="What: `orders` (all in it), `orders.created`, `orders.*.eu`, `*.failed`, `>` (all)."),
    ],
    /,
    *,
    since: _Since = None,
    from_seq: _FromSeq = None,
    limit: Annotated[int | None, Parameter(help="End after so many.", show_default=False)] = None,
    output: OutputOption = Output.TABLE,
    where: ControlPlane = _HERE,
) -> None:
    """Print events as they are published, until Ctrl-C: beside all who subscribe, nobody gets one less.

    `weft topic sub orders.created --since 1h --limit 10 -o json`

    It goes on where it was if the connection is lost. With `-o json` every event is a line. Data of encrypted
    topics is not shown.
    """
    start = _start(since, from_seq)
    wanted = parse_topic_pattern(pattern)
    if start.sequence is not None and not wanted.topic:
        raise InvalidRequest("--from-seq is about one topic, whose events it counts: name it, or use --since")
    if limit is not None and limit < 1:
        raise InvalidRequest("--limit must be at least 1")
    async with control_api(where) as api:
        topics = MessagingApi(api)
        named = [wanted.topic] if wanted.topic else [each["name"] for each in await topics.topics()]
        shown = 0
        async with aclosing(read_along(topics, named, wanted.pattern, start)) as events:
            async for event in events:
                _print_event(event, output)
                shown += 1
                if shown == limit:
                    return


@app.command
async def replay(
    topic: _Topic,
    /,
    *,
    group: Annotated[str, Parameter(help="Whose: an agent type, or another group that `describe` shows.")],
    since: _Since = None,
    from_seq: _FromSeq = None,
    output: OutputOption = Output.TABLE,
    where: ControlPlane = _HERE,
) -> None:
    """Have a group get again everything from a time or a sequence on.

    `weft topic replay orders --group billing --since 2h`
    """
    start = _start(since, from_seq)
    if start == ReadingStart():
        raise InvalidRequest("say from where on: --since or --from-seq")
    async with control_api(where) as api:
        await MessagingApi(api).replay(topic, group, start.document())
    if output is Output.JSON:
        print_json({"topic": topic, "group": group, **start.document()})
    else:
        print(f"topic/{topic}: group {group} begins anew")


def _start(since: str | None, sequence: int | None) -> ReadingStart:
    if since is not None and sequence is not None:
        raise InvalidRequest("give --since or --from-seq, not both")
    if sequence is not None and sequence < 1:
        raise InvalidRequest("--from-seq must be at least 1")
    return ReadingStart(sequence, None if since is None else moment(since, "--since"))


def _print_event(event: dict[str, Any], output: Output) -> None:
    if output is Output.JSON:
        print(json.dumps(event, ensure_ascii=False), flush=True)
    else:
        console().print(event_line(event))
