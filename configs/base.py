"""Fields and defaults that every run shares: the paper's setting on the 8B, ours where it is silent."""

from ml_collections import ConfigDict
from ml_collections.config_dict import placeholder

from configs.ranges import LINEAR_LAYERS
from r2rec_jax.runtime.errors import UserError

MODEL_8B = "models/DeepSeek-R1-Distill-Llama-8B"
MODEL_TINY = "models/tiny-llama"
MODEL_MINI = "runs/mini/pretrain/model"


def base() -> ConfigDict:
    """MovieLens-1M, DeepSeek-R1-Distill-Llama-8B, adapters of rank 16 on all seven linear layers."""
    c = ConfigDict()
    c.seed = 0
    c.restore = "latest"  # or "best": which checkpoint of another run is read (by train.init, systems, ...)
    c.mesh = ConfigDict({"data": -1, "fsdp": 1, "tensor": 1})

    c.data = ConfigDict()
    c.data.folder = "runs/ml1m/data"  # prepared by launch.prepare
    c.data.source = "ml-1m"  # data/sources.py lists them
    c.data.raw = "data/ml-1m"  # folder of the raw files; for MovieLens also the .zip itself
    c.data.category = "Books"  # of an Amazon release
    # Your own files in the folder `raw`, and their columns; "" is one that is not there.
    c.data.table = ConfigDict({"ratings": "ratings.csv", "items_file": "", "users_file": ""})
    c.data.table.update({"user": "user", "item": "item", "rating": "rating", "time": "time", "unit": "s"})
    c.data.table.update({"title": "title", "year": "", "genres": "", "demographics": ()})
    # Columns of the ids in items_file and users_file, where they are not called as in `ratings`.
    c.data.table.update({"items_id": "", "users_id": ""})
    # How text files are written; "" is detected. header: "yes" or "no" (columns are then "1", "2", ...);
    # quote: ", ' or "none".
    c.data.table.update({"separator": "", "header": "", "encoding": "", "quote": ""})
    c.data.seed = 0  # of the split and its candidates, and of generated users
    c.data.sizes = ConfigDict({"sft": 500, "grpo": 500, "validation": 100, "evaluation": 1000})
    c.data.min_likes = 6  # ratings above like_above that make a user eligible
    # The values of ratings: "LEAST:MOST:STEP", "counts" or "none" (all are 1); "": the source's own, or what
    # is detected in a table.
    c.data.scale = ""
    c.data.like_above = placeholder(float)  # None: the scale's middle, rounded up to a step; 3 on 1..5
    c.data.ties = "file"  # equal times keep the file's order; "random" shows what that gives away
    c.data.candidates = 20  # up to what the most active user has not rated
    c.data.negatives = "uniform"  # or "popularity", "hard" (rated together with the user's items)
    c.data.before_target_time = False  # True: chains show nobody's ratings from the truth's time on
    c.data.generated_users = 2100
    # Processes that make training batches, the same ones whatever their number; 0: threads of this process.
    c.data.workers = 2

    c.prompt = ConfigDict()
    c.prompt.wording = "movies"  # prompts/wording.py
    c.prompt.answer = "numbers"  # what a ranking names: candidate "numbers" or "titles"
    c.prompt.places = 20
    c.prompt.reasoning = True  # False asks for the answer alone, as Table 2's "no reasoning chain"
    c.prompt.likes = 5
    c.prompt.history = 0  # recently rated items told with their ratings, as ChatRec and TALLRec do
    c.prompt.chains = 5  # 0 is Table 2's "no interaction chain"
    c.prompt.chain_length = 1  # companions in a chain
    # Who they are: "uniform" as in the paper, "similar" (by agreement of ratings), or "candidate_aware"
    # (raters of the candidates, all candidates alike); or "recent": through what the user rated last.
    c.prompt.chain_selection = "uniform"
    c.prompt.item_tokens = False  # after titles, of a model with model.item_table
    # Padded prompt lengths, tokens. What is longer loses chains, then likes, until the largest holds it.
    c.prompt.buckets = (256, 512, 1024, 1088, 2048, 4096)

    c.model = ConfigDict()
    c.model.folder = MODEL_8B
    c.model.dtype = "bfloat16"
    c.model.remat = "block"  # what a backward pass computes again: "none", "dots", "block", or "offload"
    c.model.attention = "auto"  # "xla", "cudnn", or the latter where it can run
    c.model.quantize = ""  # "int8": the frozen base's linear layers in half of bfloat16's memory
    c.model.item_table = ""  # vectors of items, .npy: a projector makes input tokens of them, as LLaRA does
    c.lora = ConfigDict({"rank": 16, "alpha": 32.0, "targets": LINEAR_LAYERS})
    c.lora.dropout = 0.0  # of the adapters' input, in SFT only
    c.lora.use_rslora = False  # scale alpha / sqrt(rank) instead of alpha / rank
    c.lora.folder = ""  # a PEFT adapter to start from instead of a fresh one

    c.annotate = ConfigDict({"folder": "runs/ml1m/annotate", "tasks": ("rating", "ranking")})
    c.annotate.teacher = "template"  # or "local": a policy of this repository; "openai": a server
    c.annotate.attempts = 3  # replies that may be refused before a question is given up
    # False: the teacher is not told the answer; it gets the policy's prompt, and what ends right is kept.
    c.annotate.hint = True
    c.annotate.max_tokens = 1024  # of a trace; SFT needs a response bucket as large
    c.annotate.temperature = 0.6
    c.annotate.top_p = 0.95
    c.annotate.local = ConfigDict({"init": "", "batch_size": 16, "chunk": 32})  # init: an SFT run's workdir
    c.annotate.openai = server()

    c.optimizer = ConfigDict()
    c.optimizer.learning_rate = 5e-5
    c.optimizer.warmup_fraction = 0.03
    c.optimizer.final_fraction = 0.0
    c.optimizer.clip_norm = 1.0
    c.optimizer.b1 = 0.9
    c.optimizer.b2 = 0.999
    c.optimizer.weight_decay = 0.0

    c.train = ConfigDict({"log_every": 1, "checkpoint_every": 50, "evaluate_every": 50})
    # Of what evaluations during training report, higher is better: that checkpoint is kept too. "": none.
    c.train.best_metric = ""
    c.train.patience = 0  # evaluations without a better one that end the run; 0: none do
    c.train.stop_after_skipped = 5  # updates in a row that are not finite; 0: never
    c.train.micro_batches = 1  # parts in which a batch is taken, where it does not fit the memory whole
    c.profile = ConfigDict({"steps": ""})  # FIRST:LAST to trace a window
    return c


def server(model: str = "", **changes) -> ConfigDict:
    """An OpenAI-compatible server and how it is asked: a teacher, or a system to evaluate."""
    c = ConfigDict()
    c.base_url = "https://api.openai.com/v1"
    c.model = model
    c.reported_model = ""  # what replies call the model, where that differs
    c.key_variable = "OPENAI_API_KEY"  # environment variable; "" for servers without keys
    # Of a model that thinks unseen (o4-mini): room for that besides the completion. Such a model is asked
    # with max_completion_tokens, and without temperature and top-p, which it refuses. 0: any other model.
    c.thought_tokens = 0
    c.concurrency = 8
    c.requests_per_minute = 0  # 0: no limit of our own
    c.timeout_s = 120.0
    c.retries = 5  # of one request, on 429, 5xx and lost connections, with back-off
    c.prompt_price = 0.0  # per million tokens
    c.completion_price = 0.0
    c.cost_limit = 0.0  # stop asking when this much is spent; 0: no limit
    c.update(changes)
    return c


def sampling(c: ConfigDict) -> ConfigDict:
    """Adds how completions are drawn and paid for: GRPO, and evaluation of either stage."""
    c.rollout = ConfigDict()
    c.rollout.max_tokens = 1024
    c.rollout.temperature = 1.0
    c.rollout.top_k = 0  # 0 keeps all tokens
    c.rollout.top_p = 1.0
    c.rollout.min_p = 0.0
    c.rollout.stop = ()  # texts that end a completion
    c.rollout.constrained = False  # True: answers are valid rankings, whatever the model would say
    c.rollout.chunk = 32  # tokens decoded between two looks at which completions have ended
    # What decodes: "adapter" beside the base, "merged" into a copy of it, or that copy in "int8".
    c.rollout.weights = "adapter"
    c.rollout.cache = ""  # "int8": keys and values in a quarter of float32's memory
    c.reward = ConfigDict()
    c.reward.step_weight = 1.0
    c.reward.rank_weight = 2.0
    c.reward.facts_weight = 0.0  # ours: of the share of statements that the prompt supports; 0: not looked at
    c.reward.step_needs_valid_answer = False
    c.reward.statements = (3, 8)  # a suitable number of reasoning statements
    c.reward.extra = ()  # functions of your own, "module:function": How to add, in BUILD.md
    c.reward.extra_weights = ()  # of these functions, in their order; (): 1 each
    c.reward.workers = 4  # processes that judge and pay while the device decodes; 0: none, and no time limit
    c.reward.timeout_s = 10.0  # for one completion; what takes longer, or raises, teaches nothing
    return c


def system(
    adapter: str = "",
    *,
    mode: str = "generate",
    samples: int = 1,
    prompt: dict | None = None,
    kind: str = "policy",
    served: ConfigDict | None = None,
) -> ConfigDict:
    """One system of an evaluation: a field of `c.systems`, under the name that the results call it."""
    c = ConfigDict({"kind": kind})  # r2rec_jax/runs/build_rankers.py lists them
    c.adapter = adapter  # workdir of the adapter's training run; "" is the bare base model
    # How it ranks: "generate" reads its answer; "constrained" lets it say valid rankings only; "likelihood",
    # after its reasoning, orders all candidates by the probability that the answer names them first.
    c.mode = mode
    c.samples = samples  # completions whose rankings are fused into one (self-consistency); 1: off
    c.prompt = ConfigDict(prompt or {})  # fields of the prompt section that differ for it, e.g. {"chains": 0}
    if served:
        c.server = served  # kind "server": which model and how it is asked, see `server`
    return c


def tiny(c: ConfigDict) -> ConfigDict:
    """The embedded data and model: the same road in minutes on two CPU cores."""
    c.data.folder = "runs/quickstart/data"
    c.data.source = "generated"
    c.data.sizes = ConfigDict({"sft": 500, "grpo": 500, "validation": 100, "evaluation": 800})
    c.data.workers = 0  # they would start for longer than they are needed
    c.prompt.update({"wording": "compact", "answer": "titles", "places": 1, "buckets": (160,)})
    c.model.update({"folder": MODEL_TINY, "dtype": "float32", "remat": "none"})
    # The tiny vocabulary has no words for rating questions; launch.annotate writes them on request.
    c.annotate.tasks = ("ranking",)
    c.annotate.max_tokens = 80
    c.annotate.folder = "runs/quickstart/annotate"
    if "reward" in c:
        c.reward.workers = 0  # its rollouts take less than a second
    return c


def mini(c: ConfigDict) -> ConfigDict:
    """R2Rec-mini: MovieLens-1M and a model that is trained on it from scratch (configs/pretrain_mini.py).

    Folders are those of the first seed of configs/reproduce.py:ml1m_mini in runs/mini.
    """
    c.data.folder = "runs/mini/seed0/data"
    c.data.sizes = ConfigDict({"sft": 1000, "grpo": 3500, "validation": 300, "evaluation": 1000})
    c.data.workers = 0  # they would take the cores that train
    c.prompt.update({"wording": "mini", "answer": "titles", "places": 1})
    c.prompt.chain_selection = "recent"
    c.prompt.buckets = (96,)
    c.model.update({"folder": MODEL_MINI, "dtype": "float32", "remat": "none"})
    c.annotate.update({"folder": "runs/mini/seed0/annotate", "tasks": ("ranking",), "max_tokens": 80})
    if "reward" in c:
        c.reward.workers = 0
    return c


def preset_of(name: str | None, known: tuple[str, ...]) -> str:
    """The preset after the colon of --config, '' for none; refuses one the file does not have."""
    if name and name not in known:
        raise UserError(f"unknown preset {name!r}: use one of {', '.join(known)}")
    return name or ""
