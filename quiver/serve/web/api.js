// Requests to the server that this page came from: JSON, and streams of events.

/// Kept in memory only; they are gone with the page.
export const keys = { api: "", admin: "" };

/// What the server said, or why it said nothing.
export class ServerError extends Error {
  constructor(message, status = 0, requestId = "") {
    super(message);
    this.status = status;
    this.requestId = requestId;
  }
}

/// The address of a path of the server, wherever the page itself lies.
export const urlOf = (path) => new URL(path.slice(1), location.href).href;

const headersFor = (key) => (key ? { Authorization: `Bearer ${key}` } : {});

async function send(path, options, key) {
  try {
    return await fetch(urlOf(path), { ...options, headers: { ...options.headers, ...headersFor(key) }, credentials: "omit", cache: "no-store" });
  } catch (error) {
    if (error.name === "AbortError") throw error;
    throw new ServerError(`The server at ${location.host} does not answer.`);
  }
}

async function errorOf(response) {
  const id = response.headers.get("x-request-id") ?? "";
  const text = await response.text().catch(() => "");
  try {
    const { message } = JSON.parse(text).error;
    if (typeof message === "string" && message) return new ServerError(message, response.status, id);
  } catch {
    // The answer is no JSON of ours: its status says all.
  }
  return new ServerError(`${response.status} ${response.statusText}`.trim(), response.status, id);
}

async function jsonOf(response) {
  if (!response.ok) throw await errorOf(response);
  try {
    return await response.json();
  } catch {
    throw new ServerError("The server's answer is no JSON.", response.status);
  }
}

export const getJson = async (path, signal) => jsonOf(await send(path, { signal }, keys.api));

const post = (body, signal) => ({
  method: "POST", headers: { "Content-Type": "application/json" }, body: JSON.stringify(body), signal,
});
export const postJson = async (path, body, { key = keys.api, signal } = {}) => jsonOf(await send(path, post(body, signal), key));

/// Splits a stream of server-sent events: give it text as it comes, in any pieces. `onData` gets the data of each event; comments and fields
/// other than `data` are left out. (WHATWG HTML, 9.2.6)
export function eventParser(onData) {
  let rest = "", data = [];
  const line = (text) => {
    if (text === "") {
      if (data.length) onData(data.join("\n"));
      data = [];
    } else if (text.startsWith("data:")) {
      data.push(text.slice(text[5] === " " ? 6 : 5));
    }
  };
  return (text) => {
    rest += text;
    let from = 0;
    for (;;) {
      let end = from;
      while (end < rest.length && rest[end] !== "\n" && rest[end] !== "\r") ++end;
      // A carriage return at the end may be half of a pair: wait for what follows.
      if (end === rest.length || (rest[end] === "\r" && end + 1 === rest.length)) break;
      line(rest.slice(from, end));
      from = end + (rest[end] === "\r" && rest[end + 1] === "\n" ? 2 : 1);
    }
    rest = rest.slice(from);
  };
}

/// Posts a request and calls `onChunk` with each JSON chunk of its stream. Throws ServerError for an error before or within the stream, and
/// for a stream that ends without its mark; AbortError when `signal` aborts.
export async function streamJson(path, body, signal, onChunk) {
  const response = await send(path, post(body, signal), keys.api);
  if (!response.ok) throw await errorOf(response);
  const id = response.headers.get("x-request-id") ?? "";
  let isDone = false;
  const parse = eventParser((data) => {
    if (isDone) return;
    if (data === "[DONE]") {
      isDone = true;
      return;
    }
    let chunk;
    try {
      chunk = JSON.parse(data);
    } catch {
      throw new ServerError("An event of the stream is no JSON.", response.status, id);
    }
    if (chunk.error) throw new ServerError(String(chunk.error.message ?? "The server reports an error."), response.status, id);
    onChunk(chunk);
  });
  const reader = response.body.getReader(), decoder = new TextDecoder();
  try {
    while (!isDone) {
      const { done, value } = await reader.read();
      if (done) break;
      parse(decoder.decode(value, { stream: true }));
    }
  } catch (error) {
    if (error instanceof ServerError || error.name === "AbortError") throw error;
    throw new ServerError("The connection was cut before the answer ended.", response.status, id);
  } finally {
    reader.cancel().catch(() => {});
  }
  if (!isDone) throw new ServerError("The connection ended before the answer did.", response.status, id);
}
