"""Puts LiteLLM's client through the service; prints one JSON object of what it got.

Arguments: base URL with /v1, API key, prompt, JSON of a tool, JSON of a response format, a model
that makes embeddings. Runs in an environment of its own, with nothing of the project.
"""

import asyncio
import json
import os
import sys

os.environ["LITELLM_LOCAL_MODEL_COST_MAP"] = "True"  # its list of prices is not fetched

import litellm

base_url, api_key, prompt, tool, form, reader = sys.argv[1:]
litellm.telemetry = False
litellm.suppress_debug_info = True
there = {"api_base": base_url, "api_key": api_key, "num_retries": 0}
said = [{"role": "system", "content": "Be brief."}, {"role": "user", "content": prompt}]
asked = {"model": "openai/intramural", "messages": said, "temperature": 0, "max_tokens": 60}

whole = litellm.completion(**asked, **there)
chunks = list(
    litellm.completion(**asked, **there, stream=True, stream_options={"include_usage": True})
)
rebuilt = litellm.stream_chunk_builder(chunks, messages=said)
later = asyncio.run(litellm.acompletion(**asked, **there))
two = litellm.completion(**asked | {"n": 2, "temperature": 1, "seed": 5}, **there)

with_tool = asked | {"tools": [json.loads(tool)], "tool_choice": "required"}
called = litellm.completion(**with_tool, **there).choices[0].message
answered = {"role": "tool", "tool_call_id": called.tool_calls[0].id, "content": "sent"}
after = litellm.completion(
    **asked | {"messages": [*said, called.model_dump(), answered], "tools": [json.loads(tool)]},
    **there,
)
streamed_call = litellm.stream_chunk_builder(
    list(litellm.completion(**with_tool, **there, stream=True))
)

formatted = litellm.completion(**asked, **there, response_format=json.loads(form))
response = litellm.responses(
    model="openai/intramural", input=said, temperature=0, max_output_tokens=60, **there
)
plain = litellm.text_completion(
    model="text-completion-openai/intramural",
    prompt=prompt,
    temperature=0,
    max_tokens=60,
    **there,
)
vectors = litellm.embedding(model=f"openai/{reader}", input=[prompt, "hello"], **there)

error = None
try:
    litellm.completion(**asked | {"temperature": 9}, **there)
except litellm.BadRequestError as thrown:
    error = {"status": thrown.status_code, "text": str(thrown)}

sys.stdout.write(
    "\n"
    + json.dumps(
        {
            "text": whole.choices[0].message.content,
            "release": whole.model,
            "streamed": rebuilt.choices[0].message.content,
            "usage": [whole.usage.prompt_tokens, whole.usage.completion_tokens],
            "streamed_usage": [rebuilt.usage.prompt_tokens, rebuilt.usage.completion_tokens],
            "others": [later.choices[0].message.content],
            "two": [choice.message.content for choice in two.choices],
            "calls": [
                json.loads(one.tool_calls[0].function.arguments)
                for one in (called, streamed_call.choices[0].message)
            ],
            "after": after.choices[0].message.content,
            "formatted": [json.loads(formatted.choices[0].message.content)],
            "response": "".join(
                part.text for item in response.output for part in item.content or ()
            ),
            "plain": plain.choices[0].text,
            "vectors": [len(one["embedding"]) for one in vectors.data],
            "error": error,
        }
    )
)
