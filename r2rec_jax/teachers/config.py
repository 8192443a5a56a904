"""The `annotate` section of a config: the teacher that writes SFT traces, and the server section."""

from r2rec_jax.runtime.fields import Section, declaration, field, section
from r2rec_jax.runtime.ranges import PART, Each, one_of, real, whole

TASKS = ("rating", "ranking")
TEACHERS = ("template", "local", "openai")


@declaration
class LocalConfig(Section):
    """A policy trained by this repository, used as the teacher."""

    WHERE = "annotate.local"
    init: str = field(
        "", "Workdir of the training run whose adapter writes traces; '': the base model alone."
    )
    batch_size: int = field(16, "Prompts that decode at once.", whole(1))


@declaration
class ServerConfig(Section):
    """An OpenAI-compatible server, used as a teacher or evaluated as a system."""

    WHERE = "server"
    base_url: str = field("https://api.openai.com/v1", "Address of the API.")
    model: str = field("", "Name of the model in requests.")
    reported_model: str = field("", "Name of the model in replies, where it differs; '': as in requests.")
    key_variable: str = field(
        "OPENAI_API_KEY", "Environment variable with the API key; '': the server needs no key."
    )
    thought_tokens: int = field(
        0,
        "Token budget for the hidden reasoning of models such as o4-mini, which reject temperature and "
        "top-p; 0: any other model.",
        whole(0),
    )
    concurrency: int = field(8, "Requests in flight.", whole(1, 10_000))
    requests_per_minute: int = field(0, "Maximum requests per minute; 0: no limit.", whole(0))
    timeout_s: float = field(120.0, "Timeout of a request, seconds.", real(0.0, 1e6, above=True))
    retries: int = field(
        5,
        "Retries of a request, with back-off, after status 429 or 5xx or a lost connection.",
        whole(0, 1000),
    )
    prompt_price: float = field(0.0, "Price per million prompt tokens.", real(0.0))
    completion_price: float = field(0.0, "Price per million completion tokens.", real(0.0))
    cost_limit: float = field(
        0.0, "Total cost at which no further requests are sent; 0: no limit.", real(0.0)
    )


@declaration
class AnnotateConfig(Section):
    """Teacher traces for SFT."""

    WHERE = "annotate"
    folder: str = field("runs/ml1m/annotate", "Folder where launch.annotate writes the traces.")
    tasks: tuple[str, ...] = field(
        TASKS, "Question types for each SFT user.", Each(one_of(*TASKS), fewest=1, distinct=True)
    )
    teacher: str = field(
        "template",
        "What writes traces; template: no model; local: a policy trained here; openai: a server.",
        one_of(*TEACHERS),
    )
    attempts: int = field(3, "Rejected replies after which a question is dropped.", whole(1))
    hint: bool = field(
        True,
        "Whether the teacher sees the answer; if not, only traces that end in the right answer are kept.",
    )
    max_tokens: int = field(
        1024, "Longest trace, tokens; SFT needs a response bucket of at least this size.", whole(1)
    )
    temperature: float = field(0.6, "Sampling temperature of the teacher; 0: greedy.", real(0.0))
    top_p: float = field(0.95, "Nucleus sampling of the teacher; 1: off.", PART)
    local: LocalConfig = section(LocalConfig())
    openai: ServerConfig = section(ServerConfig())
