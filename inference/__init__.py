"""Everything between a chat message and llama.cpp, usable without HTTP.

    pool = Pool(prepare(load_config(), "qwen3-demo"), in_process=True)

These names are the whole public face; `api` uses nothing else. No native code is loaded here:
that happens in a worker.
"""

from inference.config import Config, load_config
from inference.deployment import Deployment, prepare
from inference.doctor import Check, examine
from inference.errors import (
    BadModelFile,
    BadRequest,
    Cancelled,
    ConfigError,
    ContextTooLong,
    DeadlineExceeded,
    DoesNotFit,
    DownloadError,
    InferenceError,
    NotReady,
    NumericalError,
    Overloaded,
    Poisonous,
    Revoked,
    ShuttingDown,
    UnknownModel,
    WorkerLost,
)
from inference.fit import Plan, Wishes
from inference.hub import installed, pull
from inference.memory import Memory, read_memory
from inference.model import Bundled, HubFile, LocalFile, Model, Source
from inference.models import Models
from inference.pool import Pool
from inference.pulls import PullProgress
from inference.status import PoolStatus
from inference.thoughts import thinks
from inference.tune import Tuning, tune
from inference.types import (
    ArgumentsDelta,
    Constraint,
    ConstraintKind,
    EmbeddingRequest,
    Embeddings,
    Finished,
    FinishReason,
    GenerationEvent,
    GenerationRequest,
    LiveRequest,
    Message,
    ModelInfo,
    ReasoningDelta,
    Role,
    Sampling,
    Started,
    TextDelta,
    Timings,
    TokenLogprob,
    Tool,
    ToolCall,
    ToolCallDelta,
    Usage,
)

__all__ = [
    "ArgumentsDelta",
    "BadModelFile",
    "BadRequest",
    "Bundled",
    "Cancelled",
    "Check",
    "Config",
    "ConfigError",
    "Constraint",
    "ConstraintKind",
    "ContextTooLong",
    "DeadlineExceeded",
    "Deployment",
    "DoesNotFit",
    "DownloadError",
    "EmbeddingRequest",
    "Embeddings",
    "FinishReason",
    "Finished",
    "GenerationEvent",
    "GenerationRequest",
    "HubFile",
    "InferenceError",
    "LiveRequest",
    "LocalFile",
    "Memory",
    "Message",
    "Model",
    "ModelInfo",
    "Models",
    "NotReady",
    "NumericalError",
    "Overloaded",
    "Plan",
    "Poisonous",
    "Pool",
    "PoolStatus",
    "PullProgress",
    "ReasoningDelta",
    "Revoked",
    "Role",
    "Sampling",
    "ShuttingDown",
    "Source",
    "Started",
    "TextDelta",
    "Timings",
    "TokenLogprob",
    "Tool",
    "ToolCall",
    "ToolCallDelta",
    "Tuning",
    "UnknownModel",
    "Usage",
    "Wishes",
    "WorkerLost",
    "examine",
    "installed",
    "load_config",
    "prepare",
    "pull",
    "read_memory",
    "thinks",
    "tune",
]
