// Calls OpenAI's client for JavaScript for clients_test.py. A line of standard input is {"method": "chat.completions.create", "args": {...}}; the
// answer is a line {"result"}, {"chunks", "error"?} for a stream, or {"error"}.
import { createInterface } from "node:readline";
import OpenAI from "openai";

const [baseURL, apiKey, maxRetries] = process.argv.slice(2);
const client = new OpenAI({ baseURL, apiKey, maxRetries: Number(maxRetries), timeout: 60000 });

function told(error) {
  return {
    class: error.constructor.name,
    status: error.status ?? null,
    code: error.code ?? null,
    param: error.param ?? null,
    type: error.type ?? null,
    message: error.message,
    retry_after: error.headers?.get("retry-after") ?? null,
  };
}

async function call({ method, args }) {
  const path = method.split(".");
  const name = path.pop();
  const owner = path.reduce((object, part) => object[part], client);
  const chunks = [];
  try {
    const result = Array.isArray(args) ? await owner[name](...args) : await owner[name](args);
    if (!args.stream) return { result };
    for await (const chunk of result) chunks.push(chunk);
    return { chunks };
  } catch (error) {
    return args.stream ? { chunks, error: told(error) } : { error: told(error) };
  }
}

for await (const line of createInterface({ input: process.stdin })) {
  console.log(JSON.stringify(await call(JSON.parse(line))));
}
