#!/usr/bin/env python3
"""Golden answers of the API, as the types of OpenAI's Python client hold them.

    python scripts/golden/make_api.py      # in an environment with openai 3.57.0

Writes tests/golden/api/answers.json. Every answer is built from the client's own pydantic types, which check names, types and literals,
and written with the members that were set. quiver/api/responses_golden_test.cpp builds the same answers.
"""

import json
import pathlib

from openai.types import Completion, CompletionChoice, CompletionUsage
from openai.types.chat import ChatCompletion, ChatCompletionChunk, ChatCompletionMessage
from openai.types.chat.chat_completion import Choice, ChoiceLogprobs
from openai.types.chat.chat_completion_chunk import Choice as ChunkChoice
from openai.types.chat.chat_completion_chunk import ChoiceDelta
from openai.types.chat.chat_completion_token_logprob import ChatCompletionTokenLogprob, TopLogprob
from openai.types.completion_choice import Logprobs
from openai.types.completion_usage import PromptTokensDetails

OUT = pathlib.Path(__file__).resolve().parents[2] / "tests/golden/api"

USAGE = CompletionUsage(prompt_tokens=5, completion_tokens=2, total_tokens=7, prompt_tokens_details=PromptTokensDetails(cached_tokens=4))
COMPLETION = {"id": "cmpl-1", "created": 100, "model": "arrow", "object": "text_completion"}
CHAT = {"id": "chatcmpl-1", "created": 100, "model": "arrow"}


def chat_token(token, logprob, top):
    return ChatCompletionTokenLogprob(token=token, logprob=logprob, bytes=list(token.encode()),
                                      top_logprobs=[TopLogprob(token=t, logprob=p, bytes=list(t.encode())) for t, p in top])


def chunk(delta, finish, **members):
    return ChatCompletionChunk(object="chat.completion.chunk", choices=[ChunkChoice(index=0, delta=delta, logprobs=None, finish_reason=finish)], **CHAT, **members)


def answers():
    log_probs = Logprobs(tokens=["a", "b"], token_logprobs=[-2.5, -0.25], top_logprobs=[{"b": -0.1, "a": -2.5}, {"b": -0.25}], text_offset=[0, 1])
    yield "completion", Completion(choices=[CompletionChoice(index=0, text="ab", logprobs=log_probs, finish_reason="length")], usage=USAGE, **COMPLETION)
    yield "completion_chunk", Completion(choices=[CompletionChoice(index=0, text="ab", logprobs=None, finish_reason="length")], **COMPLETION)
    yield "completion_usage", Completion(choices=[], usage=USAGE, **COMPLETION)
    content = [chat_token("a", -2.5, [("b", -0.1), ("a", -2.5)]), chat_token("b", -0.25, [("b", -0.25)])]
    message = ChatCompletionMessage(role="assistant", content="ab", refusal=None)
    yield "chat", ChatCompletion(object="chat.completion", choices=[Choice(index=0, message=message, logprobs=ChoiceLogprobs(content=content, refusal=None),
                                                                           finish_reason="length")], usage=USAGE, **CHAT)
    yield "chat_first", chunk(ChoiceDelta(role="assistant", content=""), None)
    yield "chat_text", chunk(ChoiceDelta(content="ab"), None)
    yield "chat_end", chunk(ChoiceDelta(), "length")
    yield "chat_usage", ChatCompletionChunk(object="chat.completion.chunk", choices=[], usage=USAGE, **CHAT)


def main():
    OUT.mkdir(exist_ok=True)
    golden = {name: answer.model_dump(mode="json", exclude_unset=True) for name, answer in answers()}
    (OUT / "answers.json").write_text(json.dumps(golden, indent=1) + "\n")


if __name__ == "__main__":
    main()
