"""The `annotate` section of a config: who writes traces for SFT, and how a server is asked."""

from r2rec_jax.runtime.fields import Section, declaration, field, section
from r2rec_jax.runtime.ranges import PART, Each, one_of, real, whole

TASKS = ("rating", "ranking")
TEACHERS = ("template", "local", "openai")


@declaration
class LocalConfig(Section):
    """A policy of this repository as a teacher."""

    WHERE = "annotate.local"
    init: str = field("", "Workdir of the training run whose adapter answers; '': the bare base model.")
    batch_size: int = field(16, "Prompts that decode at once.", whole(1))


@declaration
class ServerConfig(Section):
    """An OpenAI-compatible server: a teacher, or a system to evaluate."""

    WHERE = "server"
    base_url: str = field("https://api.openai.com/v1", "Address of the API.")
    model: str = field("", "Name of the model in requests.")
    reported_model: str = field("", "Name of the model in replies, where it differs; '': as in requests.")
    key_variable: str = field(
        "OPENAI_API_KEY", "Environment variable with the key; '': the server takes none."
    )
    thought_tokens: int = field(
        0,
        "Room for hidden reasoning, tokens, of models such as o4-mini, which refuse temperature and top-p; "
        "0: any other model.",
        whole(0),
    )
    concurrency: int = field(8, "Requests in flight.", whole(1, 10_000))
    requests_per_minute: int = field(0, "Most requests a minute; 0: no limit.", whole(0))
    timeout_s: float = field(120.0, "Seconds until a request is given up.", real(0.0, 1e6, above=True))
    retries: int = field(
        5,
        "Retries of a request, with back-off, on status 429 or 5xx or a lost connection.",
        whole(0, 1000),
    )
    prompt_price: float = field(0.0, "Price of a million prompt tokens.", real(0.0))
    completion_price: float = field(0.0, "Price of a million completion tokens.", real(0.0))
    cost_limit: float = field(0.0, "Cost at which no more is asked; 0: no limit.", real(0.0))


@declaration
class AnnotateConfig(Section):
    """Teacher traces for SFT."""

    WHERE = "annotate"
    folder: str = field("runs/ml1m/annotate", "Folder of the traces, which launch.annotate writes.")
    tasks: tuple[str, ...] = field(
        TASKS, "Questions for each SFT user.", Each(one_of(*TASKS), fewest=1, distinct=True)
    )
    teacher: str = field(
        "template", "Who writes traces; local: a policy of ours; openai: a server.", one_of(*TEACHERS)
    )
    attempts: int = field(3, "Replies that may be refused before a question is given up.", whole(1))
    hint: bool = field(
        True, "Whether the teacher is shown the answer; if not, traces that end in it are kept."
    )
    max_tokens: int = field(
        1024, "Longest trace, tokens; SFT needs a response bucket at least as large.", whole(1)
    )
    temperature: float = field(0.6, "Sampling temperature of the teacher; 0: greedy.", real(0.0))
    top_p: float = field(0.95, "Nucleus sampling of the teacher; 1: off.", PART)
    local: LocalConfig = section(LocalConfig())
    openai: ServerConfig = section(ServerConfig())
