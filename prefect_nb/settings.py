"""Settings, read from the environment when they are asked for.

Each setting is one attribute of `Settings`; `PREFECT_NB_<NAME>` in the environment sets it. Where Prefect has the
setting too, its variable `PREFECT_<NAME>` is read when ours is absent.
"""

import os
from pathlib import Path
from typing import Any

import msgspec

from prefect_nb.exceptions import ConfigurationError


class Settings(msgspec.Struct, frozen=True, kw_only=True):
    """Every setting with its default. Times are seconds."""

    home: Path = Path("~/.prefect_nb")
    """Folder of the database, results and logs (created with mode 0700)."""
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
    tasks_default_persist_result: bool | None = None
    results_persist_by_default: bool = False
    """Keep every result (and so cache by the default policy)."""
    results_default_serializer: str = "pickle"
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
    crash_at: str | None = None
    """Testing aid: the named point at which the process kills itself."""


_PREFECT_NAMES = {
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
    "task_runner_thread_pool_max_workers": "PREFECT_TASK_RUNNER_THREAD_POOL_MAX_WORKERS",
    "task_runner_process_pool_max_workers": "PREFECT_TASK_RUNNER_PROCESS_POOL_MAX_WORKERS",
}


def environment_names(setting: str) -> list[str]:
    """The environment variables that set a setting, first wins."""
    names = [f"PREFECT_NB_{setting.upper()}"]
    if setting in _PREFECT_NAMES:
        names.append(_PREFECT_NAMES[setting])
    return names


_cached: tuple[tuple[tuple[str, str], ...], Settings] | None = None


def get_settings() -> Settings:
    """The settings as the environment says now.

    Raises:
        ConfigurationError: naming the variable whose value does not fit.
    """
    global _cached
    environment = tuple((key, value) for key, value in os.environ.items() if key.startswith("PREFECT_"))
    if _cached is None or _cached[0] != environment:
        _cached = (environment, _read(dict(environment)))
    return _cached[1]


def _read(environment: dict[str, str]) -> Settings:
    values: dict[str, Any] = {}
    for field in msgspec.structs.fields(Settings):
        for variable in environment_names(field.name):
            if variable in environment:
                values[field.name] = _convert(variable, environment[variable], field.type)
                break
    settings = Settings(**values)
    return msgspec.structs.replace(settings, home=settings.home.expanduser().absolute())


def _convert(variable: str, text: str, annotation: Any) -> Any:
    if annotation is Path:
        return Path(text)
    try:
        return msgspec.convert(
            text.strip() or None if "None" in str(annotation) else text.strip(), annotation, strict=False
        )
    except msgspec.ValidationError as error:
        raise ConfigurationError(f"{variable}={text!r}: {error}. Unset it or give it a value that fits.") from None
