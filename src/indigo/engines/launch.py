"""Starts the engines that the settings ask for, and says what they offer. Models may load on after that."""

from __future__ import annotations

import asyncio
import os
import secrets
import shutil
import socket
import tempfile
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from indigo.engines import download, mock, vllm
from indigo.engines.demo import names
from indigo.engines.llama import engine, model_file
from indigo.engines.llama.config import ChildConfig, Kind
from indigo.engines.supervisor import EngineState, Supervisor, Timing
from indigo.gateway import operations
from indigo.kernel.clock import Clock
from indigo.kernel.errors import InvalidRequest
from indigo.kernel.settings import Settings
from indigo.kernel.tasks import Tasks

MOST_CONTEXT = 8192
LONGEST_SOCKET = 100
"""Bytes of a socket's path; the kernel takes 107 on Linux and 103 elsewhere."""
OPERATIONS: dict[Kind, frozenset[str]] = {
    "chat": frozenset({operations.CHAT, operations.COMPLETIONS}),
    "embedding": frozenset({operations.EMBEDDINGS}),
    "rerank": frozenset({operations.RERANK}),
}
EMBEDDERS = ("bert", "nomic-bert", "jina-bert-v2", "modern-bert", "gemma-embedding", "t5encoder")


@dataclass(frozen=True, slots=True)
class OfferedModel:
    id: str
    served_name: str
    operations: frozenset[str]
    context_length: int | None = None
    single_tool_choice: bool = False


@dataclass(frozen=True, slots=True)
class EngineOffer:
    """One endpoint of this machine. `headers` are secrets."""

    name: str
    base_url: str
    models: tuple[OfferedModel, ...]
    headers: Mapping[str, str] = field(default_factory=dict[str, str], repr=False)


class Engines:
    """What runs. `notices` are sentences to print at the start."""

    def __init__(self) -> None:
        self.offers: list[EngineOffer] = []
        self.notices: list[str] = []
        self.on_ready: Callable[[EngineOffer], None] = lambda _: None
        """Called whenever an engine has become ready, after a crash, say."""
        self._supervisors: list[Supervisor] = []
        self._mock: mock.Mock | None = None
        self._folder: Path | None = None

    def states(self) -> list[EngineState]:
        return [supervisor.state for supervisor in self._supervisors]

    async def wait_ready(self, timeout: float) -> bool:
        """Waits until every engine is ready or has failed; whether all are ready."""
        try:
            async with asyncio.timeout(timeout):
                states = [await supervisor.settled() for supervisor in self._supervisors]
        except TimeoutError:
            return False
        return all(state.state == "ready" for state in states)

    async def stop(self) -> None:
        await asyncio.gather(*(supervisor.stop() for supervisor in self._supervisors))
        if self._mock is not None:
            await self._mock.close()
        if self._folder is not None:
            shutil.rmtree(self._folder, ignore_errors=True)

    def add(self, offer: EngineOffer, supervisor: Supervisor) -> None:
        self.offers.append(offer)
        self._supervisors.append(supervisor)
        supervisor.on_ready = lambda: self.on_ready(offer)
        supervisor.start()

    async def add_mock(self) -> None:
        path = self.socket_folder(Path(tempfile.gettempdir()), private=True) / "mock.sock"
        self._mock = await mock.serve(path)
        ids = ("mock", *mock.FAULT_MODELS)
        models = tuple(OfferedModel(id, id, operations.ALL, MOST_CONTEXT) for id in ids)
        self.offers.append(EngineOffer("mock", f"unix:{path}", models))
        self.notices.append("The mock engine answers with made-up text; it is for development only.")

    def socket_folder(self, data_dir: Path, private: bool = False) -> Path:
        """A folder for sockets that only this user may enter, with a path short enough for one."""
        folder = data_dir.resolve() / "run"
        if private or len(os.fsencode(folder)) > LONGEST_SOCKET - len("/embedding.sock"):
            if self._folder is None:
                self._folder = Path(tempfile.mkdtemp(prefix="indigo-"))
            return self._folder
        folder.mkdir(parents=True, exist_ok=True)
        folder.chmod(0o700)
        return folder


@dataclass(frozen=True, slots=True)
class _Source:
    """A model's file and the name it gets; the demonstration's file may still have to be written."""

    id: str
    path: Path
    demo: bool = False


async def launch(
    settings: Settings, tasks: Tasks, clock: Clock, timing: Timing | None = None, hub: str | None = None
) -> Engines:
    """Starts what the settings ask for. Downloads a model first, if need be, from `hub`.

    Raises InvalidRequest for settings that make no sense, and for a model the hub does not have.
    """
    engines = Engines()
    if settings.engine == "mock":
        await engines.add_mock()
    elif settings.engine == "vllm":
        if settings.model != "none":
            _start_vllm(engines, settings, tasks, clock, timing)
    elif settings.engine == "llama":
        await _start_llama(engines, settings, hub, tasks, clock, timing)
    else:
        raise InvalidRequest(
            f"INDIGO_ENGINE={settings.engine!r} should be llama, vllm or mock.", code="invalid_setting"
        )
    return engines


def _start_vllm(engines: Engines, settings: Settings, tasks: Tasks, clock: Clock, timing: Timing | None) -> None:
    key = settings.vllm_internal_key or secrets.token_urlsafe(32)
    made = vllm.build(settings, settings.vllm_port or _free_port(), key)
    length = settings.vllm_max_model_len or settings.context_length or None
    model = OfferedModel(made.served_name, made.served_name, OPERATIONS["chat"], length)
    offer = EngineOffer("vllm", made.child.base_url, (model,), {"Authorization": f"Bearer {key}"})
    engines.add(offer, Supervisor(made.child, tasks, clock, timing))


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


async def _start_llama(
    engines: Engines, settings: Settings, hub: str | None, tasks: Tasks, clock: Clock, timing: Timing | None
) -> None:
    chat = await _source(engines, settings, settings.model, names.CHAT_ID, hub)
    wanted = settings.embedding_model
    if wanted == "auto":
        wanted = "demo" if chat is not None and chat.demo else "none"
    embedding = await _source(engines, settings, wanted, names.EMBEDDING_ID, hub)
    for slot, source in (("chat", chat), ("embedding", embedding)):
        if source is None:
            continue
        header = None if source.demo else await asyncio.to_thread(_header, source.path)
        kind = _kind(slot, header)
        context = settings.context_length or min(header.context_length if header else 0, MOST_CONTEXT) or MOST_CONTEXT
        config = ChildConfig(
            path=str(source.path),
            socket=str(engines.socket_folder(settings.data_dir) / f"{slot}.sock"),
            alias=source.id,
            kind=kind,
            parent=os.getpid(),
            demo=source.demo,
            context_length=context,
            parallel=max(1, settings.parallel),
            # The demonstration's matrices are too small to share out: more threads only wait for each other.
            threads=settings.threads or (1 if source.demo else 0),
            gpu_layers=settings.gpu_layers,
        )
        model = OfferedModel(source.id, source.id, OPERATIONS[kind], context, single_tool_choice=kind == "chat")
        offer = EngineOffer("llama" if slot == "chat" else "llama-embedding", f"unix:{config.socket}", (model,))
        engines.add(offer, Supervisor(engine.child(config), tasks, clock, timing))


def _header(path: Path) -> model_file.Header | None:
    """None for an unusable file: the child finds that again, and its supervisor reports it."""
    try:
        return model_file.read(path)
    except model_file.Unusable:
        return None


def _kind(slot: str, header: model_file.Header | None) -> Kind:
    if header is not None and header.pooling == model_file.POOLING_RANK:
        return "rerank"
    if slot == "embedding" or (header is not None and (header.pooling or header.architecture in EMBEDDERS)):
        return "embedding"
    return "chat"


async def _source(engines: Engines, settings: Settings, wanted: str, demo_id: str, hub: str | None) -> _Source | None:
    demo = _Source(demo_id, settings.data_dir.resolve() / "models" / f"{demo_id}-{names.RELEASE}.gguf", demo=True)
    if wanted == "none":
        return None
    if wanted == "demo":
        return demo
    if wanted != "auto" and not wanted.startswith("hf:"):
        path = Path(wanted).expanduser().resolve()
        if not path.is_file():
            raise InvalidRequest(f"The model file {path} does not exist; see --model.", code="invalid_setting")
        return _Source(path.stem, path)
    try:
        reference = download.parse(download.DEFAULT if wanted == "auto" else wanted)
        path = await asyncio.to_thread(download.fetch, reference, settings.data_dir / "models", settings.hf_token, hub)
    except ValueError as error:
        raise InvalidRequest(str(error), code="invalid_setting") from None
    except download.DownloadFailed as error:
        if wanted != "auto" and not error.unreachable:
            raise InvalidRequest(str(error), code="model_not_downloaded") from None
        engines.notices.append(f"{error} The demonstration model {demo_id} answers instead.")
        return demo
    return _Source(path.stem, path.resolve())
