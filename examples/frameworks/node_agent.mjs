// An agent in JavaScript, with what Node has by itself. It calls another agent by its name.
import { createServer } from "node:http";

const MAX_BODY_BYTES = 1024 * 1024;

// Node's fetch knows no HTTP_PROXY: it calls the sidecar itself, and says whom it means.
async function call(name, kind, payload) {
  const answer = await fetch(`${process.env.WEFT_PROXY}/rpc`, {
    method: "POST",
    headers: { "x-weft-to": name, "content-type": "application/json" },
    body: JSON.stringify({ kind, payload }),
  });
  if (!answer.ok) throw new Error(await answer.text());
  return (await answer.json()).result;
}

async function body(request) {
  let text = "";
  for await (const chunk of request) {
    text += chunk;
    if (text.length > MAX_BODY_BYTES) throw new Error("the request is too large");
  }
  return JSON.parse(text);
}

const server = createServer(async (request, response) => {
  const say = (status, content) =>
    response.writeHead(status, { "content-type": "application/json" }).end(JSON.stringify(content));
  if (request.url === "/health") return say(200, { status: "healthy" });
  try {
    const { payload } = await body(request);
    const words = await call("counter", "count", payload);
    say(200, { result: `${payload.text.toUpperCase()} (${words} words)` });
  } catch (error) {
    say(502, { detail: String(error.message) });
  }
});

server.listen(Number(process.env.PORT), "127.0.0.1");
process.on("SIGTERM", () => server.close());
