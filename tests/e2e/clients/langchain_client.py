"""Puts LangChain's client through the service; prints one JSON object of what it got.

Arguments: base URL with /v1, API key, prompt, JSON of a tool, JSON of a response format, a model
that makes embeddings. Runs in an environment of its own, with nothing of the project.
"""

import asyncio
import json
import sys

import openai
from langchain_core.messages import HumanMessage, SystemMessage, ToolMessage
from langchain_openai import ChatOpenAI, OpenAI, OpenAIEmbeddings

base_url, api_key, prompt, tool, form, reader = sys.argv[1:]
there = {"base_url": base_url, "api_key": api_key, "max_retries": 0}
asked = {"temperature": 0, "max_tokens": 60, "stream_usage": True}
model = ChatOpenAI(model="intramural", **asked, **there)
said = [SystemMessage("Be brief."), HumanMessage(prompt)]

whole = model.invoke(said)
chunks = list(model.stream(said))
gathered = chunks[0]
for chunk in chunks[1:]:
    gathered = gathered + chunk
later = asyncio.run(model.ainvoke(said))
both = model.batch([said, said])
two = ChatOpenAI(model="intramural", n=2, seed=5, max_tokens=20, **there).generate([said])

# The call goes back with its result, as an agent does it.
with_tool = model.bind_tools([json.loads(tool)], tool_choice="required")
called = with_tool.invoke(said)
result = ToolMessage("sent", tool_call_id=called.tool_calls[0]["id"])
after = model.bind_tools([json.loads(tool)]).invoke([*said, called, result])
streamed_call = None
for chunk in with_tool.stream(said):
    streamed_call = chunk if streamed_call is None else streamed_call + chunk

schema = json.loads(form)["json_schema"]["schema"] | {"title": "mood", "description": "A mood."}
formatted = model.with_structured_output(schema, method="json_schema", strict=True).invoke(said)
by_call = model.with_structured_output(schema, method="function_calling").invoke(said)
response = ChatOpenAI(model="intramural", use_responses_api=True, **asked, **there).invoke(said)
plain = OpenAI(model="intramural", temperature=0, max_tokens=60, **there).invoke(prompt)

# Without this it sends token ids of OpenAI's own tokenizer, which no other server can read.
embeddings = OpenAIEmbeddings(model=reader, check_embedding_ctx_length=False, **there)
vectors = embeddings.embed_documents([prompt, "hello"])

error = None
try:
    ChatOpenAI(model="intramural", temperature=9, **there).invoke(said)
except openai.BadRequestError as thrown:
    error = {"status": thrown.status_code, "param": thrown.param, "code": thrown.code}

sys.stdout.write(
    "\n"
    + json.dumps(
        {
            "text": whole.content,
            "release": whole.response_metadata["model_name"],
            "streamed": gathered.content,
            "usage": whole.usage_metadata,
            "streamed_usage": gathered.usage_metadata,
            "others": [later.content, *(one.content for one in both)],
            "two": [one.text for one in two.generations[0]],
            "calls": [called.tool_calls[0]["args"], streamed_call.tool_calls[0]["args"]],
            "after": after.content,
            "formatted": [formatted, by_call],
            "response": response.text,
            "plain": plain,
            "vectors": [len(vector) for vector in vectors],
            "error": error,
        }
    )
)
