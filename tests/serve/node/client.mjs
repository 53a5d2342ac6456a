// What the official Node client of OpenAI gets from a server of ours, as one JSON document.
import OpenAI from "openai";

const [url, key, model] = process.argv.slice(2);
const client = new OpenAI({ baseURL: `${url}/v1`, apiKey: key, maxRetries: 0 });
const messages = [{ role: "user", content: "Hi" }];
const city = { type: "object", properties: { city: { type: "string" } } };
const tools = ["weather", "clock"].map((name) => ({ type: "function", function: { name, parameters: city } }));
const chat = (seed, options = {}) => client.chat.completions.create({ model, messages, seed, ...options });
const status = async (asked) => asked.then(() => 200, (error) => error.status);
const found = {};

found.models = (await client.models.list()).data.map((one) => one.id);
found.plain = (await chat(0)).choices[0].message.content;
found.streamed = "";
for await (const chunk of await chat(5, { stream: true, stream_options: { include_usage: true } })) {
  found.streamed += chunk.choices[0]?.delta?.content ?? "";
  found.usage = chunk.usage ?? found.usage;
}
found.several = (await chat(0, { n: 2 })).choices.map((one) => one.message.content);
found.stopped = (await chat(0, { stop: ["re, w"] })).choices[0].message.content;
found.logprobs = (await chat(0, { logprobs: true, top_logprobs: 1 })).choices[0].logprobs.content.length;
found.calls = (await chat(2, { tools })).choices[0].message.tool_calls.map((call) => call.function);
const runner = client.chat.completions.stream({ model, messages, seed: 2, tools });
found.streamedCalls = (await runner.finalMessage()).tool_calls.map((call) => call.function.name);
found.required = (await chat(3, { tools, tool_choice: "required" })).choices[0].message.tool_calls[0].function.name;
const format = { type: "json_schema", json_schema: { name: "place", schema: city, strict: true } };
found.structured = JSON.parse((await chat(4, { response_format: format })).choices[0].message.content);
found.errors = [
  await status(chat(0, { temperature: 9 })),
  await status(new OpenAI({ baseURL: `${url}/v1`, apiKey: "wrong", maxRetries: 0 }).models.list()),
  await status(client.chat.completions.create({ model: "gpt-5", messages })),
  await status(chat(0, { user: "x".repeat(3_000_001) })),
];
const left = await chat(6, { stream: true });
for await (const chunk of left) {
  found.left = chunk.choices[0].delta.role;
  break;
}
console.log(JSON.stringify(found));
