"""Secrets reach the body and nothing else: not the history, not the logs, not a file of the home, not a saved notebook."""

import dataclasses
import logging
import os
import pickle
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import nbformat
import pytest
from nbformat import v4
from pydantic import BaseModel, SecretBytes, SecretStr

from prefect_nb import Flow, flow, get_run_logger, task
from prefect_nb.blocks.system import Secret
from prefect_nb.exceptions import SecretKeyError
from prefect_nb.home import Home, close_all
from prefect_nb.model import redaction
from prefect_nb.model.redaction import MASK
from prefect_nb.task_runners import ProcessPoolTaskRunner

CANARY = "CANARY-a7'\"\\é-z9"
SPELLINGS = [CANARY, "CANARY-a7"]


@pytest.fixture(autouse=True)
def nothing_known() -> Iterator[None]:
    redaction.forget()
    yield
    redaction.forget()


def leaks(*folders: Path) -> list[str]:
    """The files under these folders that hold the canary, read while the database is open and when it is closed."""
    found = set()
    for moment in ("open", "closed"):
        if moment == "open":
            Home.current().ledger.commit()
        else:
            close_all()
        for folder in folders:
            for path in folder.rglob("*"):
                if path.is_file() and any(text.encode() in path.read_bytes() for text in SPELLINGS):
                    found.add(f"{path.relative_to(folder)} ({moment})")
    return sorted(found)


@dataclasses.dataclass
class Connection:
    host: str
    password: str


class Account(BaseModel):
    user: str
    pin: SecretStr


class TestParameters:
    def test_the_body_gets_the_value_and_the_history_a_mask(self, history: Any, prefect_nb_home: Path):
        @flow
        def work(token: SecretStr, account: Account, tokens: dict[str, SecretStr], n: int = 1) -> list[str]:
            return [token.get_secret_value(), account.pin.get_secret_value(), tokens["a"].get_secret_value()]

        account = {"user": "ada", "pin": CANARY}
        assert work(CANARY, account, {"a": CANARY}) == [CANARY] * 3

        (run,) = history.flow_runs()
        assert run.parameters["token"] == MASK
        assert run.parameters["tokens"] == {"a": MASK}
        assert run.parameters["account"]["user"] == "ada"
        assert run.parameters["n"] == 1
        assert leaks(prefect_nb_home) == []

    @pytest.mark.parametrize("value", [SecretStr(CANARY), SecretBytes(CANARY.encode()), [SecretStr(CANARY)]])
    def test_without_an_annotation(self, history: Any, prefect_nb_home: Path, value: Any):
        @flow
        def work(token):
            return None

        work(value)

        assert history.flow_runs()[0].parameters == {"token": [MASK] if isinstance(value, list) else MASK}
        assert leaks(prefect_nb_home) == []

    def test_where_they_do_not_fit(self, history: Any, prefect_nb_home: Path):
        @flow
        def work(token: SecretStr, n: int):
            return None

        work(CANARY, "no number", return_state=True)

        assert history.flow_runs()[0].parameters["token"] == MASK
        assert leaks(prefect_nb_home) == []

    def test_a_short_one_is_masked_too(self, history: Any):
        @flow
        def work(pin: SecretStr):
            return None

        work("1234")

        assert history.flow_runs()[0].parameters == {"pin": MASK}

    def test_a_resumed_run_has_them_again(self, history: Any):
        seen: list[Any] = []

        @flow
        def work(token: SecretStr, url: str, plain: int):
            seen.append((token, url, plain))
            if len(seen) == 1:
                raise ValueError("first")

        work(CANARY, f"db://user:{CANARY[:9]}@host", 3, return_state=True)
        (run,) = history.flow_runs()
        assert run.parameters["url"] == f"db://user:{MASK}@host"
        work.resume(run.id)

        assert seen[1] == seen[0]
        assert seen[1][0].get_secret_value() == CANARY

    def test_a_plain_text_that_holds_a_known_secret(self, history: Any, prefect_nb_home: Path):
        Secret(value=CANARY).save("s")

        @flow
        def work(text: str):
            return text

        assert work(f"<{Secret.load('s').get()}>") == f"<{CANARY}>"
        assert history.flow_runs()[0].parameters == {"text": f"<{MASK}>"}
        assert leaks(prefect_nb_home) == []


def _say_everything(secret: str) -> None:
    print("printed", secret)  # noqa: T201
    get_run_logger().warning("logged %s", secret)
    get_run_logger().info("shown %r", Connection("h", secret))
    get_run_logger().info({"deep": [secret]})
    child = subprocess.run(
        [sys.executable, "-c", "import os, sys; sys.stderr.write(os.environ['GIVEN'])"],
        env={**os.environ, "GIVEN": secret, "PYTHONIOENCODING": "utf-8"},
        capture_output=True,
        encoding="utf-8",
        check=True,
    )
    print(child.stderr)  # noqa: T201
    try:
        {}[secret]
    except KeyError:
        get_run_logger().exception("caught")
    fail(f"failed with {secret}")


def fail(why: str) -> None:
    raise ValueError(why)


class TestWhatIsSaid:
    """The same body is told a secret in different ways, says it in every way it can, and fails with it."""

    def check(self, home: Path, capsys: pytest.CaptureFixture[str], expected: int = 6) -> None:
        store = Home.current()
        store.ledger.commit()
        store.ledger.commit()  # lines are written after the events
        lines = [line.message for _, line in store.store.logs()]
        assert sum(MASK in line for line in lines) >= expected
        assert leaks(home) == []
        assert not [text for text in SPELLINGS if text in capsys.readouterr().err]

    def test_a_parameter_of_a_flow(self, prefect_nb_home: Path, capsys: pytest.CaptureFixture[str]):
        @flow(log_prints=True, flow_run_name="run-{plain}", retries=1)
        def work(token: SecretStr, plain: str):
            _say_everything(token.get_secret_value())

        state = work(CANARY, "x", return_state=True)

        assert CANARY in str(state.result(raise_on_failure=False))
        self.check(prefect_nb_home, capsys)

    def test_a_parameter_of_a_task(self, prefect_nb_home: Path, capsys: pytest.CaptureFixture[str]):
        @task(log_prints=True)
        def work(tokens: list[SecretStr]):
            _say_everything(tokens[0].get_secret_value())

        work([SecretStr(CANARY)], return_state=True)

        self.check(prefect_nb_home, capsys)

    def test_a_parameter_beside_a_future(self, prefect_nb_home: Path, capsys: pytest.CaptureFixture[str]):
        @task(log_prints=True)
        def work(first: Any, token: SecretStr):
            _say_everything(token.get_secret_value())

        @flow
        def around():
            work.submit(task(lambda: 1).submit(), SecretStr(CANARY)).wait()

        around(return_state=True)
        self.check(prefect_nb_home, capsys)

    def test_a_block(self, prefect_nb_home: Path, capsys: pytest.CaptureFixture[str]):
        Secret(value=CANARY).save("s")
        redaction.forget()

        @flow(log_prints=True)
        def work():
            _say_everything(Secret.load("s").get())

        work(return_state=True)

        self.check(prefect_nb_home, capsys)

    def test_the_environment(
        self, prefect_nb_home: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
    ):
        monkeypatch.setenv("MY_API_TOKEN", CANARY)

        @flow(log_prints=True)
        def work():
            _say_everything(os.environ["MY_API_TOKEN"])

        work(return_state=True)

        self.check(prefect_nb_home, capsys)

    def test_names_tags_and_cached_output(self, history: Any, prefect_nb_home: Path):
        @task(task_run_name="task-{text}", tags=[f"tag-{CANARY}"], cache_key_fn=lambda *_: "k", persist_result=True)
        def shout(text: str):
            print("shouted", CANARY)  # noqa: T201

        @flow(flow_run_name="flow-{text}")
        def work(token: SecretStr, text: str):
            shout(text)

        work(CANARY, CANARY)

        assert history.flow_runs()[0].name == f"flow-{MASK}"
        assert history.task_runs()[0].name == f"task-{MASK}"
        assert history.store.check() == []
        assert leaks(prefect_nb_home) == []

    def test_an_artifact(self, prefect_nb_home: Path):
        from prefect_nb.artifacts import create_markdown_artifact, create_table_artifact

        @flow
        def work(token: SecretStr):
            create_markdown_artifact(f"# {token.get_secret_value()}", key="said", description=CANARY)
            create_table_artifact([{"a": CANARY}], key="table")

        work(CANARY)

        assert leaks(prefect_nb_home) == []

    def test_a_delayed_task(self, history: Any, prefect_nb_home: Path):
        from prefect_nb.task_worker import TaskWorker

        @task(log_prints=True, persist_result=True)
        def work(tokens: dict[str, SecretStr]) -> int:
            print(tokens["a"].get_secret_value())  # noqa: T201
            return len(tokens["a"].get_secret_value())

        future = work.delay({"a": SecretStr(CANARY)})
        assert leaks(prefect_nb_home) == []
        redaction.forget()
        worker = TaskWorker(work)
        thread = threading.Thread(target=worker.start, daemon=True)
        thread.start()
        assert future.result(timeout=60) == len(CANARY)
        worker.stop()
        thread.join(30)
        assert leaks(prefect_nb_home) == []

    def test_a_block_loaded_in_another_process(self, prefect_nb_home: Path, capsys: pytest.CaptureFixture[str]):
        Secret(value=CANARY).save("s")
        close_all()
        redaction.forget()

        @task(log_prints=True)
        def work():
            from prefect_nb.blocks.system import Secret

            secret = Secret.load("s").get()
            print(secret)  # noqa: T201
            raise ValueError(secret)

        @flow(task_runner=ProcessPoolTaskRunner(max_workers=1))
        def around():
            work.submit().wait()
            raise ValueError("done")

        around(return_state=True)

        self.check(prefect_nb_home, capsys, expected=1)


class TestNotebooks:
    @pytest.fixture
    def notebook(self, tmp_path: Path) -> Path:
        folder = tmp_path / "notebooks"
        folder.mkdir()
        cells = [
            v4.new_code_cell(
                "from pydantic import SecretStr\ntoken: SecretStr = SecretStr('')", metadata={"tags": ["parameters"]}
            ),
            v4.new_code_cell("print('printed', token.get_secret_value()); token.get_secret_value()"),
            v4.new_code_cell("import sys; print(token.get_secret_value()[:5], file=sys.stderr)"),
            v4.new_code_cell(
                "from IPython.display import display, HTML, JSON\n"
                "display(HTML(f'<b>{token.get_secret_value()}</b>')); display(JSON({'a': [token.get_secret_value()]}))"
            ),
            v4.new_code_cell("from prefect_nb.blocks.system import Secret\nprint(Secret.load('s').get())"),
            v4.new_code_cell("raise ValueError(token.get_secret_value())"),
        ]
        path = folder / "secretive.ipynb"
        nbformat.write(v4.new_notebook(cells=cells), path)
        return path

    @pytest.mark.parametrize("given", [CANARY, SecretStr(CANARY)])
    def test_a_parameter_and_a_block(self, notebook: Path, history: Any, prefect_nb_home: Path, given: Any):
        Secret(value=f"block-{CANARY}").save("s")
        redaction.forget()

        Flow.from_notebook(notebook)(token=given, return_state=True)

        (run,) = history.flow_runs()
        assert run.parameters == {"token": MASK}
        saved = Path(run.output_path).read_text()
        assert "SecretStr(_os.environ['PREFECT_NB_PARAMETER_token_SECRET'])" in saved
        assert f"printed {MASK}" in saved
        assert f"<b>{MASK}</b>" in saved
        assert f'"evalue": "{MASK}"' in saved
        assert leaks(prefect_nb_home, notebook.parent) == []


class TestRecognizing:
    @pytest.mark.parametrize(
        ("text", "expected"),
        [
            ("postgres://ada:s3cr3t@db/x", f"postgres://ada:{MASK}@db/x"),
            ("https://:tok@host and http://u:p@h", f"https://:{MASK}@host and http://u:{MASK}@h"),
            ("Authorization: Bearer abc.def-ghi", f"Authorization: Bearer {MASK}"),
            ("{'Authorization': 'Basic dXNlcjpwYXNz'}", f"{{'Authorization': 'Basic {MASK}'}}"),
            ("key AKIAIOSFODNN7EXAMPLE.", f"key {MASK}."),
            (f"aws_secret_access_key = {'a' * 40}", f"aws_secret_access_key = {MASK}"),
            (f"AWS_SECRET_ACCESS_KEY={'B/+4' * 10}", f"AWS_SECRET_ACCESS_KEY={MASK}"),
        ],
    )
    def test_shapes(self, text: str, expected: str):
        assert redaction.redact(text) == expected

    @pytest.mark.parametrize(
        "text",
        [
            "https://example.org/a:b@c", "mail ada@example.org", "12:30 - 13:00 @ home", "file:///a/b", "Bearer of news",
            "the secret of success", "http://host:8080/path", "ASIA and AKIA", "git@github.com:a/b.git",
        ],
    )  # fmt: skip
    def test_what_only_looks_like_one(self, text: str):
        assert redaction.redact(text) == text

    def test_shapes_in_the_log(self, history: Any):
        @flow
        def work():
            get_run_logger().info("connecting to postgres://ada:s3cr3t@db")

        work()

        assert f"connecting to postgres://ada:{MASK}@db" in [line.message for line in history.logs()]

    def test_the_whole_value_in_each_spelling(self):
        redaction.learn(CANARY)

        for text in (CANARY, f"<{CANARY}>", repr(CANARY), repr([CANARY]), nested_json(CANARY)):
            assert "CANARY" not in redaction.redact(text)

    def test_a_longer_secret_goes_before_one_inside_it(self):
        redaction.learn("abcdef", "abcdefghi")
        assert redaction.redact("abcdefghi abcdef") == f"{MASK} {MASK}"

    def test_a_long_key_of_many_lines(self):
        key = "-----BEGIN KEY-----\nMIIEvQIBADANBgkqhkiG9w0BAQ\nAoIBAQC7VJTUt9Us8cKjMzEf\n-----END KEY-----"
        redaction.learn(key)
        assert "MIIEvQ" not in redaction.redact("the second line is MIIEvQIBADANBgkqhkiG9w0BAQ.")
        assert redaction.redact(key) == MASK

    def test_what_is_too_short_or_split_is_not_found(self):
        redaction.learn("12345", "abcdefgh")
        assert redaction.redact("12345 abcd efgh") == "12345 abcd efgh"

    @pytest.mark.parametrize(
        ("name", "value", "known"),
        [
            ("GITHUB_TOKEN", "ghp_123456", True),
            ("DB_PASSWORD", "correct horse", True),
            ("OPENAI_API_KEY", "sk-123456", True),
            ("AWS_SECRET_ACCESS_KEY", "abcdefgh", True),
            ("TOKEN", "abcdefgh", True),
            ("TOKENIZERS_PARALLELISM", "enabled-always", False),
            ("TOKEN_FILE", "abcdefgh", False),
            ("AWS_ACCESS_KEY_ID", "abcdefgh", False),
            ("DB_PASSWORD", "/run/secrets/db", False),
            ("MY_TOKEN", "short", False),
            ("SSH_AUTH_SOCK", "agent.12345", False),
            ("PATH", "abcdefgh", False),
        ],
    )
    def test_variables(self, name: str, value: str, known: bool):
        redaction.learn_environment({name: value})
        assert bool(redaction.known) is known

    def test_nothing_known_costs_nothing(self):
        text = "x" * 10_000_000
        assert redaction.redact(text) is text

    def test_a_line_of_100_mb(self, history: Any):
        redaction.learn(CANARY)

        @flow
        def work():
            get_run_logger().info("%s%s", "x" * (64 * 1024 - 5), CANARY + "y" * 1_000_000)

        work()

        (line,) = [line for line in history.logs() if line.message.startswith("xxx")]
        assert "CANAR" not in line.message
        assert len(line.message) < 66_000


def nested_json(text: str) -> str:
    import json

    return json.dumps({"a": [text]})


class TestTheKey:
    def encrypt(self) -> Path:
        Secret(value=CANARY).save("s")
        return Home.current().path / "secret.key"

    def test_it_is_made_when_it_is_needed_for_its_owner_alone(self, prefect_nb_home: Path):
        Home.current()
        assert not (prefect_nb_home / "secret.key").exists()
        assert self.encrypt().stat().st_mode & 0o777 == 0o600

    def test_missing(self):
        path = self.encrypt()
        path.unlink()

        for action in (lambda: Secret.load("s"), lambda: Secret(value="other-secret").save("t")):
            with pytest.raises(SecretKeyError, match=f"install -m 600 BACKUP {path}"):
                action()
        assert not path.exists()

    def test_given_up(self):
        path = self.encrypt()
        path.unlink()
        from prefect_nb.service import blocks

        blocks.reset_key()
        Secret(value="other-secret").save("t")

        assert Secret.load("t").get() == "other-secret"
        with pytest.raises(SecretKeyError, match="another key"):
            Secret.load("s")

    @pytest.mark.parametrize("mode", [0o640, 0o604, 0o660, 0o777])
    def test_not_private(self, mode: int):
        path = self.encrypt()
        path.chmod(mode)

        with pytest.raises(SecretKeyError, match=f"`chmod 600 {path}`"):
            Secret.load("s")

    @pytest.mark.skipif(os.geteuid() != 0, reason="only root can give files away")
    def test_somebody_elses(self):
        path = self.encrypt()
        os.chown(path, 12345, 12345)

        with pytest.raises(SecretKeyError, match=rf"belongs to user 12345.*`sudo chown {os.geteuid()} {path}`"):
            Secret.load("s")

    def test_a_link(self, tmp_path: Path):
        path = self.encrypt()
        path.rename(tmp_path / "elsewhere")
        path.symlink_to(tmp_path / "elsewhere")

        with pytest.raises(SecretKeyError, match="symbolic link"):
            Secret.load("s")

    def test_no_file(self):
        path = self.encrypt()
        path.unlink()
        os.mkfifo(path, 0o600)

        with pytest.raises(SecretKeyError, match="no ordinary file"):
            Secret.load("s")

    def test_damaged_or_another(self):
        path = self.encrypt()
        before = path.read_text()
        path.write_text("too short")
        with pytest.raises(SecretKeyError, match="holds no key"):
            Secret.load("s")
        path.write_text(("B" if before[0] == "A" else "A") + before[1:])
        with pytest.raises(SecretKeyError, match="another key"):
            Secret.load("s")

    def test_a_flow_that_could_not_keep_its_secrets_does_not_start(self, history: Any):
        self.encrypt().unlink()

        @flow
        def work(token: SecretStr):
            raise AssertionError

        with pytest.raises(SecretKeyError):
            work(CANARY)
        assert history.flow_runs() == []

    def test_a_damaged_value(self):
        cipher = Home.current().cipher
        text = cipher.encrypt(b"value")
        assert cipher.decrypt(text) == b"value"
        assert text != cipher.encrypt(b"value")
        with pytest.raises(SecretKeyError, match="is damaged"):
            cipher.decrypt(text[:-5] + "AAAA=")

    def test_errors_survive_pickling(self):
        assert str(pickle.loads(pickle.dumps(SecretKeyError("why")))) == "why"


def test_a_handler_of_the_users_own_is_left_alone(caplog: pytest.LogCaptureFixture):
    """Redaction is ours: what other handlers do with a record is theirs."""
    redaction.learn(CANARY)
    with caplog.at_level(logging.INFO):
        logging.getLogger("elsewhere").info("%s", CANARY)
    assert CANARY in caplog.text
