// Puts the official Node client through the service; prints one JSON object of what it got.
// Arguments: base URL with /v1, API key, prompt, JSON of a tool, JSON of a response format.
import OpenAI from "openai";

const [baseURL, apiKey, prompt, tool, format] = process.argv.slice(2);
const client = new OpenAI({ baseURL, apiKey, maxRetries: 0 });
const base = { model: "intramural", messages: [{ role: "user", content: prompt }], max_tokens: 60, temperature: 0 };

const chat = await client.chat.completions.create(base);
const chunks = [];
const stream = await client.chat.completions.create({ ...base, stream: true, stream_options: { include_usage: true } });
for await (const chunk of stream) chunks.push(chunk);
const called = await client.chat.completions.create({
  ...base, tools: [JSON.parse(tool)], tool_choice: "required",
});
const formatted = await client.chat.completions.create({ ...base, response_format: JSON.parse(format) });
const response = await client.responses.create({ model: "intramural", input: prompt, max_output_tokens: 60, temperature: 0 });
const kinds = [];
const events = await client.responses.create({ model: "intramural", input: prompt, max_output_tokens: 60, temperature: 0, stream: true });
for await (const event of events) kinds.push(event.type);
let error = null;
try {
  await client.chat.completions.create({ ...base, temperature: 9 });
} catch (thrown) {
  error = { name: thrown.constructor.name, status: thrown.status, code: thrown.code, param: thrown.param, requestID: thrown.requestID };
}
const models = [];
for await (const model of client.models.list()) models.push(model.id);

console.log(JSON.stringify({
  text: chat.choices[0].message.content,
  streamed: chunks.map((chunk) => chunk.choices[0]?.delta?.content ?? "").join(""),
  usage: chunks.at(-1).usage,
  call: called.choices[0].message.tool_calls[0].function,
  formatted: formatted.choices[0].message.content,
  response: response.output_text,
  events: kinds,
  error,
  models,
}));
