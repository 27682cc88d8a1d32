// The official Node SDK against a running Indigo: every answer it gets is written to the file named last, a line
// of JSON each, and judged by the test that started this. `node sdk.mjs BASE_URL KEY CHAT_MODEL EMBEDDING_MODEL FILE`
import assert from "node:assert/strict";
import { appendFileSync } from "node:fs";
import OpenAI from "openai";

const [baseURL, apiKey, chat, embedding, file] = process.argv.slice(2);
const recorded = [];

async function recordingFetch(url, options) {
  const response = await fetch(url, options);
  const [forClient, forRecord] = response.body.tee();
  recorded.push(
    new Response(forRecord).text().then((body) => {
      const kind = response.headers.get("content-type");
      const line = { path: new URL(url).pathname, status: response.status, kind, body };
      appendFileSync(file, `${JSON.stringify(line)}\n`);
    }),
  );
  return new Response(forClient, response);
}

const client = new OpenAI({ baseURL, apiKey, maxRetries: 0, fetch: recordingFetch });
const messages = [{ role: "user", content: "Hello!" }];
const parameters = {
  type: "object",
  properties: { city: { type: "string" }, days: { type: "integer" } },
  required: ["city", "days"],
};
const tools = ["get_weather", "get_news"].map((name) => ({ type: "function", function: { name, parameters } }));

const models = (await client.models.list()).data.map((model) => model.id);
assert.deepEqual(models.sort(), [chat, embedding].sort());
assert.equal((await client.models.retrieve(chat)).id, chat);

const whole = await client.chat.completions.create({ model: chat, messages });
const answer = whole.choices[0].message.content;
assert.equal(whole.choices[0].finish_reason, "stop");
assert.ok(whole.usage.completion_tokens > 30);

let streamed = "";
let usage = null;
const stream = await client.chat.completions.create({
  model: chat,
  messages,
  stream: true,
  stream_options: { include_usage: true },
});
for await (const chunk of stream) {
  streamed += chunk.choices[0]?.delta?.content ?? "";
  usage = chunk.usage ?? usage;
}
assert.equal(streamed, answer);
assert.equal(usage.completion_tokens, whole.usage.completion_tokens);

const choice = { type: "function", function: { name: "get_news" } };
const called = await client.chat.completions.create({ model: chat, messages, tools, tool_choice: choice });
const [call] = called.choices[0].message.tool_calls;
assert.equal(call.function.name, "get_news");
assert.deepEqual(Object.keys(JSON.parse(call.function.arguments)).sort(), ["city", "days"]);
const runner = client.chat.completions.stream({ model: chat, messages, tools });
const final = await runner.finalChatCompletion();
assert.equal(final.choices[0].finish_reason, "tool_calls");
assert.deepEqual(Object.keys(JSON.parse(final.choices[0].message.tool_calls[0].function.arguments)).sort(), [
  "city",
  "days",
]);

const schema = { ...parameters, additionalProperties: false };
const format = { type: "json_schema", json_schema: { name: "trip", schema, strict: true } };
const formed = await client.chat.completions.create({ model: chat, messages, response_format: format });
assert.equal(Number.isInteger(JSON.parse(formed.choices[0].message.content).days), true);

const input = ["The weather is sunny", "My dog eats food"];
const packed = await client.embeddings.create({ model: embedding, input });
const plain = await client.embeddings.create({ model: embedding, input, encoding_format: "float" });
packed.data.forEach((item, place) => {
  assert.equal(item.embedding.length, plain.data[place].embedding.length);
  item.embedding.forEach((value, at) => assert.ok(Math.abs(value - plain.data[place].embedding[at]) < 1e-6));
});

await assert.rejects(client.chat.completions.create({ model: "no-such-model", messages }), OpenAI.NotFoundError);
await assert.rejects(client.withOptions({ apiKey: "sk-nobody" }).models.list(), OpenAI.AuthenticationError);
await assert.rejects(client.chat.completions.create({ model: chat, messages: "Hello" }), OpenAI.BadRequestError);

await Promise.all(recorded);
console.log(JSON.stringify({ answer }));
