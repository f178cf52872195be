"""The settings there are: their defaults, and the names that set them.

A setting is an attribute of `Settings`; `PREFECT_NB_<NAME>` sets it. Where Prefect has the setting too, its name
`PREFECT_...` counts as well.
"""

import functools
from pathlib import Path
from typing import Any

import msgspec


class Settings(msgspec.Struct, frozen=True, kw_only=True):
    """Every setting with its default. Times are seconds."""

    home: Path = Path("~/.prefect_nb")
    """Folder of the database, results and logs (created with mode 0700)."""
    profile: str | None = None
    """Name of the profile in use; None: the one the profiles file calls active."""
    profiles_path: Path | None = None
    """File of the profiles; None: `profiles.toml` in the home."""
    logging_level: str = "INFO"
    """Least level of run logs that are kept and shown."""
    logging_log_prints: bool = False
    """Whether prints inside runs are logged unless a flow or task says otherwise."""
    logging_to_console: bool = True
    """Whether run logs are shown on the console as well as kept."""
    task_default_retries: int = 0
    task_default_retry_delay_seconds: float = 0.0
    flow_default_retries: int = 0
    flow_default_retry_delay_seconds: float = 0.0
    tasks_refresh_cache: bool = False
    """Recompute and overwrite every cached task."""
    tasks_disable_caching: bool = False
    """Neither read nor write cache entries."""
    tasks_default_no_cache: bool = False
    """Tasks without a cache policy of their own have none."""
    tasks_replay_output: bool = True
    """Keep what the body of a cached task prints and displays, and show it again on a hit."""
    tasks_default_persist_result: bool | None = None
    results_persist_by_default: bool = False
    """Keep every result (and so cache by the default policy)."""
    results_default_serializer: str = "pickle"
    """How results are kept. Under "pickle", arrays, data frames and pictures are kept in formats that hold them exactly."""
    results_default_storage_block: str | None = None
    """Where results are kept: "type/name" of a saved block, a URL or a path; None: see `results_local_storage_path`."""
    results_local_storage_path: Path | None = None
    """Folder of results; None: in the home."""
    results_max_bytes: int | None = None
    """Most bytes one result may have; None: no limit."""
    results_trust_unsigned: bool = False
    """Use results found under a key even if no home with this home's secret signed them."""
    task_runner_thread_pool_max_workers: int | None = None
    """Most threads a flow's default runner uses; None: 250."""
    task_runner_process_pool_max_workers: int | None = None
    """Most processes of `ProcessPoolTaskRunner`; None: the number of cores."""
    commit_interval_ms: float = 5.0
    """How long the ledger gathers events into one commit (milliseconds)."""
    request_poll_seconds: float = 0.2
    """How often a running engine looks for requests (cancel) from elsewhere."""
    recovery_limit: int = 3
    """How often a crashed run may be resumed without progress in between before it counts as Failed."""
    notebook_kept_kernels: int | None = None
    """How many kernels of failed notebook runs are kept alive, to go on in; None: 2, and 0 where `CI` is set."""
    notebook_kept_kernel_seconds: float = 900.0
    """How long a kernel is kept."""
    notebook_kept_kernels_max_bytes: int | None = None
    """Most memory that all kept kernels may have together; None: a quarter of the machine's."""
    notebook_checkpoint_seconds: float = 5.0
    """A notebook run keeps its variables after cells that took so long since it last did; 0: it never does."""
    notebook_checkpoint_max_bytes: int = 1024**3
    """Most bytes that the kept variables of one notebook run may have."""
    tasks_failed_inputs_max_bytes: int = 64 * 1024**2
    """Most bytes of failed tasks' inputs that are kept of one flow run, for `%load_task`; 0: none are."""
    crash_at: str | None = None
    """Testing aid: the named point at which the process kills itself."""

    def __getattr__(self, name: str) -> Any:
        """Prefect's nested spelling: `settings.tasks.default_retries`."""
        if name in GROUPS:
            return Group(self, name.upper())
        raise AttributeError(f"There is no setting {name!r}.")


PREFECT_NAMES = {
    "logging_level": "PREFECT_LOGGING_LEVEL",
    "logging_log_prints": "PREFECT_LOGGING_LOG_PRINTS",
    "task_default_retries": "PREFECT_TASKS_DEFAULT_RETRIES",
    "task_default_retry_delay_seconds": "PREFECT_TASKS_DEFAULT_RETRY_DELAY_SECONDS",
    "flow_default_retries": "PREFECT_FLOWS_DEFAULT_RETRIES",
    "flow_default_retry_delay_seconds": "PREFECT_FLOWS_DEFAULT_RETRY_DELAY_SECONDS",
    "tasks_refresh_cache": "PREFECT_TASKS_REFRESH_CACHE",
    "tasks_disable_caching": "PREFECT_TASKS_DISABLE_CACHING",
    "tasks_default_no_cache": "PREFECT_TASKS_DEFAULT_NO_CACHE",
    "tasks_default_persist_result": "PREFECT_TASKS_DEFAULT_PERSIST_RESULT",
    "results_persist_by_default": "PREFECT_RESULTS_PERSIST_BY_DEFAULT",
    "results_default_serializer": "PREFECT_RESULTS_DEFAULT_SERIALIZER",
    "results_default_storage_block": "PREFECT_RESULTS_DEFAULT_STORAGE_BLOCK",
    "results_local_storage_path": "PREFECT_RESULTS_LOCAL_STORAGE_PATH",
    "task_runner_thread_pool_max_workers": "PREFECT_TASK_RUNNER_THREAD_POOL_MAX_WORKERS",
    "task_runner_process_pool_max_workers": "PREFECT_TASK_RUNNER_PROCESS_POOL_MAX_WORKERS",
}


_OLDER_NAMES = {
    "results_default_storage_block": "PREFECT_DEFAULT_RESULT_STORAGE_BLOCK",
    "results_local_storage_path": "PREFECT_LOCAL_STORAGE_PATH",
    "task_default_retries": "PREFECT_TASK_DEFAULT_RETRIES",
    "task_default_retry_delay_seconds": "PREFECT_TASK_DEFAULT_RETRY_DELAY_SECONDS",
    "flow_default_retries": "PREFECT_FLOW_DEFAULT_RETRIES",
    "flow_default_retry_delay_seconds": "PREFECT_FLOW_DEFAULT_RETRY_DELAY_SECONDS",
    "task_runner_thread_pool_max_workers": "PREFECT_TASKS_RUNNER_THREAD_POOL_MAX_WORKERS",
    "task_runner_process_pool_max_workers": "PREFECT_TASKS_RUNNER_PROCESS_POOL_MAX_WORKERS",
}
"""Other names that Prefect has for the same."""

_OURS_ALONE = {"PREFECT_HOME": "home", "PREFECT_PROFILES_PATH": "profiles_path"}
"""Prefect's names that stand for ours in code, but are not read from the environment: Prefect's own home is not ours."""

GROUPS = frozenset(
    {
        "api",
        "cli",
        "client",
        "cloud",
        "deployments",
        "events",
        "experiments",
        "flows",
        "internal",
        "logging",
        "results",
        "runner",
        "server",
        "tasks",
        "telemetry",
        "testing",
        "worker",
    }
)
"""What Prefect's settings are grouped by."""


def environment_names(setting: str) -> list[str]:
    """The environment variables that set a setting, first wins."""
    names = [f"PREFECT_NB_{setting.upper()}"]
    names += [table[setting] for table in (PREFECT_NAMES, _OLDER_NAMES) if setting in table]
    return names


def setting_of(name: str) -> str | None:
    """The setting that a name stands for: ours (`logging_level`), or a variable's (`PREFECT_LOGGING_LEVEL`)."""
    return _by_name().get(name.upper())


@functools.cache
def _by_name() -> dict[str, str]:
    found: dict[str, str] = dict(_OURS_ALONE)
    for field in msgspec.structs.fields(Settings):
        found[field.name.upper()] = field.name
        for name in environment_names(field.name):
            found[name] = field.name
            # In a file the table says whose settings they are, so that both spellings are understood.
            found.setdefault(name.replace("PREFECT_", "PREFECT_NB_", 1), field.name)
    return found


class Group:
    """Some of Prefect's settings by their nested names."""

    def __init__(self, settings: Settings, prefix: str) -> None:
        self._settings = settings
        self._prefix = prefix

    def __getattr__(self, name: str) -> Any:
        path = f"{self._prefix}_{name.upper()}"
        setting = setting_of(f"PREFECT_{path}")
        if setting is not None:
            return getattr(self._settings, setting)
        if f"PREFECT_{path}" in WITHOUT_EFFECT:
            return WITHOUT_EFFECT[f"PREFECT_{path}"]
        if any(known.startswith(f"PREFECT_{path}_") for known in (*_by_name(), *WITHOUT_EFFECT)):
            return Group(self._settings, path)
        raise AttributeError(f"There is no setting {path.lower()!r}.")


WITHOUT_EFFECT: dict[str, Any] = {
    "PREFECT_API_AUTH_STRING": None,
    "PREFECT_API_ENABLE_HTTP2": False,
    "PREFECT_API_KEY": None,
    "PREFECT_API_REQUEST_TIMEOUT": 60.0,
    "PREFECT_API_SSL_CERT_FILE": None,
    "PREFECT_API_TLS_INSECURE_SKIP_VERIFY": False,
    "PREFECT_API_URL": None,
    "PREFECT_CLIENT_CSRF_SUPPORT_ENABLED": True,
    "PREFECT_CLIENT_MAX_RETRIES": 5,
    "PREFECT_CLIENT_RETRY_JITTER_FACTOR": 0.2,
    "PREFECT_CLI_COLORS": True,
    "PREFECT_CLI_PROMPT": None,
    "PREFECT_CLI_WRAP_LINES": True,
    "PREFECT_CLOUD_API_URL": None,
    "PREFECT_CLOUD_UI_URL": None,
    "PREFECT_DEBUG_MODE": False,
    "PREFECT_DEPLOYMENTS_DEFAULT_WORK_POOL_NAME": None,
    "PREFECT_EVENTS_WORKER_MAX_QUEUE_SIZE": 0,
    "PREFECT_EXPERIMENTS_WARN": True,
    "PREFECT_FLOWS_HEARTBEAT_FREQUENCY": None,
    "PREFECT_INTERNAL_LOGGING_LEVEL": "ERROR",
    "PREFECT_LOGGING_COLORS": True,
    "PREFECT_LOGGING_CONFIG_PATH": None,
    "PREFECT_LOGGING_EXTRA_LOGGERS": None,
    "PREFECT_LOGGING_INTERNAL_LEVEL": "ERROR",
    "PREFECT_LOGGING_MARKUP": False,
    "PREFECT_LOGGING_SERVER_LEVEL": "WARNING",
    "PREFECT_LOGGING_TO_API_BATCH_INTERVAL": 2.0,
    "PREFECT_LOGGING_TO_API_BATCH_SIZE": 4_000_000,
    "PREFECT_LOGGING_TO_API_ENABLED": True,
    "PREFECT_LOGGING_TO_API_MAX_LOG_SIZE": 1_000_000,
    "PREFECT_LOGGING_TO_API_WHEN_MISSING_FLOW": "warn",
    "PREFECT_RESULTS_DEFAULT_STORAGE_BLOCK": None,
    "PREFECT_RESULTS_LOCAL_STORAGE_PATH": None,
    "PREFECT_LOCAL_STORAGE_PATH": None,
    "PREFECT_RUNNER_HEARTBEAT_FREQUENCY": None,
    "PREFECT_RUNNER_POLL_FREQUENCY": 10,
    "PREFECT_RUNNER_PROCESS_LIMIT": 5,
    "PREFECT_RUNNER_SERVER_ENABLE": False,
    "PREFECT_SERVER_EPHEMERAL_ENABLED": True,
    "PREFECT_SERVER_LOGGING_LEVEL": "WARNING",
    "PREFECT_SILENCE_API_URL_MISCONFIGURATION": False,
    "PREFECT_TASKS_SCHEDULING_DEFAULT_STORAGE_BLOCK": None,
    "PREFECT_TASKS_SCHEDULING_DELETE_FAILED_SUBMISSIONS": True,
    "PREFECT_TASK_RUN_TAG_CONCURRENCY_SLOT_WAIT_SECONDS": 10.0,
    "PREFECT_TASK_SCHEDULING_DEFAULT_STORAGE_BLOCK": None,
    "PREFECT_TASK_SCHEDULING_DELETE_FAILED_SUBMISSIONS": True,
    "PREFECT_TESTING_TEST_MODE": False,
    "PREFECT_TESTING_TEST_SETTING": None,
    "PREFECT_TESTING_UNIT_TEST_MODE": False,
    "PREFECT_TEST_MODE": False,
    "PREFECT_TEST_SETTING": None,
    "PREFECT_UI_URL": None,
    "PREFECT_UNIT_TEST_MODE": False,
    "PREFECT_WORKER_HEARTBEAT_SECONDS": 30.0,
    "PREFECT_WORKER_QUERY_SECONDS": 10.0,
}
"""Settings of Prefect that mean nothing here, with what they say unless set: code that names them goes on working."""
