"""What the inference operations take and answer, for the documentation alone: the gateway serves them.

The gateway passes bodies on as they are, so these schemas describe the common fields and allow any other.
"""

from __future__ import annotations

from typing import Any, NoReturn

from fastapi import APIRouter, Depends
from pydantic import BaseModel, ConfigDict, Field

from indigo.kernel.errors import Internal
from indigo.web.caller import Access

EVENTS: dict[str, Any] = {
    "description": "With `stream`: server-sent events `data: {json}`, then `data: [DONE]`",
    "content": {"text/event-stream": {"schema": {"type": "string"}}},
}
ERRORS: dict[int | str, dict[str, Any]] = {
    413: {"description": "The body is over the cap"},
    429: {"description": "A limit is used up; come back after `Retry-After` seconds"},
    502: {"description": "The model endpoint answered nonsense, or broke off"},
    504: {"description": "The model endpoint did not answer in time"},
}


class _ByTheGateway(Access):
    async def __call__(self) -> None:
        return None


class Open(BaseModel):
    model_config = ConfigDict(extra="allow")


class Message(Open):
    role: str = Field(examples=["user"], description="system, developer, user, assistant or tool")
    content: str | list[dict[str, Any]] | None = Field(None, description="Text, or parts of text and images.")
    tool_calls: list[dict[str, Any]] | None = Field(None, description="What an assistant asked tools to do.")
    tool_call_id: str | None = Field(None, description="Of a tool's message: the call it answers.")


class ChatRequest(Open):
    model: str = Field(examples=["indigo-demo"], description="An id from /v1/models.")
    messages: list[Message] = Field(description="The conversation so far.", min_length=1)
    stream: bool = Field(False, description="Answer in events as the text is made; `?stream=true` does the same.")
    max_completion_tokens: int | None = Field(None, ge=1, description="The most tokens to make.")
    temperature: float | None = Field(None, ge=0, le=2, description="0 is most predictable.")
    tools: list[dict[str, Any]] | None = Field(None, description="Functions the model may ask to be called.")
    tool_choice: str | dict[str, Any] | None = Field(None, description="none, auto, required, or one function.")
    response_format: dict[str, Any] | None = Field(None, description="A JSON Schema the answer must obey.")
    stream_options: dict[str, Any] | None = Field(None, examples=[{"include_usage": True}])


class Usage(Open):
    prompt_tokens: int
    completion_tokens: int = 0
    total_tokens: int


class ChatChoice(Open):
    index: int
    message: Message
    finish_reason: str | None = Field(description="stop, length, tool_calls or content_filter")


class ChatAnswer(Open):
    id: str
    object: str = Field(examples=["chat.completion"])
    created: int
    model: str
    choices: list[ChatChoice]
    usage: Usage


class CompletionRequest(Open):
    model: str = Field(examples=["indigo-demo"])
    prompt: str | list[str] | list[int] | list[list[int]] = Field(examples=["Once upon a time"])
    stream: bool = False
    max_tokens: int | None = Field(None, ge=0)
    temperature: float | None = Field(None, ge=0, le=2)


class CompletionChoice(Open):
    index: int
    text: str
    finish_reason: str | None


class CompletionAnswer(Open):
    id: str
    object: str = Field(examples=["text_completion"])
    created: int
    model: str
    choices: list[CompletionChoice]
    usage: Usage


class EmbeddingsRequest(Open):
    model: str = Field(examples=["demo-embedding"])
    input: str | list[str] | list[int] | list[list[int]] = Field(examples=["the quick brown fox"])
    encoding_format: str = Field("float", description="float or base64")


class Embedding(Open):
    object: str = Field(examples=["embedding"])
    index: int
    embedding: list[float] | str


class EmbeddingsAnswer(Open):
    object: str = Field(examples=["list"])
    data: list[Embedding]
    model: str
    usage: Usage


class RerankRequest(Open):
    model: str = Field(examples=["reranker"])
    query: str = Field(examples=["What is the capital of France?"])
    documents: list[str] = Field(min_length=1, examples=[["Paris is in France.", "Cats purr."]])
    top_n: int | None = Field(None, ge=1, description="Answer with the best so many only.")


class RerankResult(Open):
    index: int = Field(description="The document's place in the request.")
    relevance_score: float


class RerankAnswer(Open):
    model: str
    results: list[RerankResult]


def router() -> APIRouter:
    """Routes that are described but never served from here."""
    routes = APIRouter(
        tags=["Inference"], prefix="/v1", responses=ERRORS, dependencies=[Depends(_ByTheGateway("inference"))]
    )
    streamed: dict[int | str, dict[str, Any]] = {200: EVENTS}

    @routes.post("/chat/completions", summary="Answer a conversation", responses=streamed)
    def chat(body: ChatRequest) -> ChatAnswer:
        _served_elsewhere()

    @routes.post("/completions", summary="Continue a text", responses=streamed)
    def complete(body: CompletionRequest) -> CompletionAnswer:
        _served_elsewhere()

    @routes.post("/embeddings", summary="Turn texts into vectors")
    def embed(body: EmbeddingsRequest) -> EmbeddingsAnswer:
        _served_elsewhere()

    @routes.post("/rerank", summary="Order documents by relevance to a query")
    def rerank(body: RerankRequest) -> RerankAnswer:
        _served_elsewhere()

    return routes


def _served_elsewhere() -> NoReturn:
    raise Internal("This operation is the gateway's and must not reach the management side.")
