"""Cards written by a language model, over a real HTTP server on the loopback."""

import json
import threading
import time
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from vrft.cli.main import app
from vrft.errors import UserError
from vrft.knowledge import read_card
from vrft.knowledge.write import CardRequest, card_prompt, endpoint, write_card

REQUEST = CardRequest("Spots", "photograph", ["red", "blue"])
CONTENT = {
    "sources": {"atlas": "An atlas of spots. Publisher, 2020."},
    "biases": ["One person's view."],
    "classes": {
        "red": {"synonyms": ["crimson"], "description": {"colour": "Red all over. [atlas]"}},
        "blue": {"synonyms": [], "description": {"colour": "Blue. [atlas]", "shape": "Round. [atlas]"}},
    },
}
GOOD = f"Here it is:\n```json\n{json.dumps(CONTENT)}\n```"
Answer = tuple[int, Any] | float
"""A status and a body (a text is what the model says), or seconds of silence."""


class Server:
    """Answers one request after another as it is given, and keeps the requests."""

    def __init__(self, answers: list[Answer]) -> None:
        self.answers, self.asked = list(answers), list[dict[str, Any]]()
        outer = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                body = json.loads(self.rfile.read(int(self.headers["content-length"])))
                outer.asked.append(body | {"path": self.path, "key": self.headers["authorization"]})
                answer = outer.answers.pop(0)
                if isinstance(answer, float):
                    time.sleep(answer)
                    return
                status, content = answer
                if isinstance(content, str) and status == 200:
                    content = {"choices": [{"index": 0, "message": {"role": "assistant", "content": content}}]}
                self.send_response(status)
                self.send_header("content-type", "application/json")
                self.send_header("retry-after-ms", "1")
                self.end_headers()
                self.wfile.write(content if isinstance(content, bytes) else json.dumps(content).encode())

            def log_message(self, *arguments: Any) -> None:
                pass

        self.http = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self.http.server_port}/v1"
        threading.Thread(target=self.http.serve_forever, daemon=True).start()


@pytest.fixture
def serve() -> Iterator[Callable[..., Server]]:
    servers: list[Server] = []

    def start(*answers: Answer) -> Server:
        servers.append(Server(list(answers)))
        return servers[-1]

    yield start
    for server in servers:
        server.http.shutdown()
        server.http.server_close()


def write(server: Server, folder: Path, **options: Any) -> Path:
    ask = endpoint("small-llm", server.url, **{"retries": 2, "timeout": 20.0, **options})
    return write_card(ask, REQUEST, folder / "spots.yaml", model="small-llm", licence="CC0-1.0")


def test_a_card_is_written_with_its_prompt_and_reply_and_stays_unchecked(tmp_path: Path, serve):
    server = serve((200, GOOD))
    card = read_card(write(server, tmp_path, key="secret"))
    assert (card.written_by.kind, card.written_by.name, card.checked_by) == ("model", "small-llm", None)
    assert card.text_of("blue") == "Blue. Round."
    assert (tmp_path / "spots.prompt.txt").read_text() == card_prompt(REQUEST)
    assert (tmp_path / "spots.reply-1.txt").read_text() == GOOD
    (asked,) = server.asked
    assert (asked["path"], asked["key"], asked["model"]) == ("/v1/chat/completions", "Bearer secret", "small-llm")
    assert asked["messages"][0]["content"] == card_prompt(REQUEST)


@pytest.mark.parametrize(
    ("bad", "words"),
    [
        ("I cannot do that.", "holds no JSON object"),
        (GOOD.replace("Blue. [atlas]", "Blue."), "has no source"),
        (GOOD.replace('"blue"', '"green"'), "says nothing about 'blue'"),
        (GOOD.replace('"biases": ["One person\'s view."]', '"biases": []'), "biases"),
        ('{"classes": ' + "[" * 5000, "holds no JSON object"),
    ],
)
def test_a_reply_that_does_not_fit_goes_back_with_what_is_wrong(tmp_path: Path, serve, bad: str, words: str):
    server = serve((200, bad), (200, GOOD))
    assert write(server, tmp_path).exists()
    assert words in server.asked[1]["messages"][0]["content"]


def test_after_three_bad_replies_it_gives_up_and_keeps_them(tmp_path: Path, serve):
    with pytest.raises(UserError, match="no sound card in 3 replies"):
        write(serve((200, "no"), (200, "no"), (200, "never")), tmp_path)
    assert (tmp_path / "spots.reply-3.txt").read_text() == "never"
    assert not (tmp_path / "spots.yaml").exists()


def test_a_second_try_leaves_nothing_of_the_first_and_keeps_what_was_said(tmp_path: Path):
    path = tmp_path / "my.yaml"
    for replies in (["x", "y", "z"], ["again", "once more"]):
        left = iter(replies)
        with pytest.raises(UserError):
            write_card(lambda said: next(left), REQUEST, path, model="M", licence="CC0-1.0", attempts=len(replies))  # noqa: B023
    kept = sorted(one.name for one in tmp_path.glob("my.*.txt"))
    assert kept == ["my.prompt-2.txt", "my.prompt.txt", "my.reply-1.txt", "my.reply-2.txt"]
    assert "Your last reply was:\nagain" in (tmp_path / "my.prompt-2.txt").read_text()


def test_rate_limits_and_faults_of_the_server_are_waited_out(tmp_path: Path, serve):
    server = serve((429, {"error": "slow down"}), (503, b"busy"), (200, GOOD))
    assert write(server, tmp_path).exists()
    assert len(server.asked) == 3


@pytest.mark.parametrize(
    ("answers", "options", "words"),
    [
        ([(429, {})] * 3, {}, "refuses more requests, 3 times"),
        ([3.0, 3.0], {"timeout": 0.2, "retries": 1}, "did not reply within 0.2 s, 2 times"),
        ([(401, {"error": {"message": "no key"}})], {}, "refuses the request: 401"),
        ([(200, b"<html>")], {}, "does not answer as an OpenAI-compatible endpoint"),
        ([(200, {"choices": []})], {}, "does not answer as an OpenAI-compatible endpoint"),
    ],
)
def test_what_the_endpoint_does_wrong_is_said(tmp_path: Path, serve, answers: list, options: dict, words: str):
    with pytest.raises(UserError, match=words):
        write(serve(*answers), tmp_path, **options)


def test_an_endpoint_that_is_not_there_is_named(tmp_path: Path):
    ask = endpoint("m", "http://127.0.0.1:9/v1", retries=0)
    with pytest.raises(UserError, match="cannot be reached"):
        write_card(ask, REQUEST, tmp_path / "a.yaml", model="m", licence="CC0-1.0")


def test_a_card_is_never_overwritten(tmp_path: Path):
    path = tmp_path / "spots.yaml"
    path.write_text("mine")
    with pytest.raises(UserError, match="exists already"):
        write_card(lambda prompt: GOOD, REQUEST, path, model="m", licence="CC0-1.0")
    assert path.read_text() == "mine"


def test_the_command_takes_the_classes_of_a_recipe(tmp_path: Path, small_recipe: Path, serve):
    told = CONTENT | {"classes": {str(grade): CONTENT["classes"]["red"] | {"synonyms": []} for grade in range(5)}}  # type: ignore[index]
    server = serve((200, json.dumps(told)))
    options = [
        "--model",
        "m",
        "--title",
        "Spots",
        "--modality",
        "photograph",
        "--url",
        server.url,
        "--out",
        str(tmp_path),
    ]
    result = CliRunner().invoke(app, ["knowledge", "write", "spots", "--recipe", str(small_recipe), *options])
    assert result.exit_code == 0, result.output
    assert list(read_card(tmp_path / "spots.yaml").classes) == ["0", "1", "2", "3", "4"]


def test_a_model_cannot_sign_its_card_or_change_its_author(tmp_path: Path):
    signed = CONTENT | {
        "checked_by": {"by": "A. Doctor", "date": "2020-01-01"},
        "written_by": {"kind": "person", "name": "A. Doctor"},
        "licence": "none",
    }
    path = write_card(lambda _: json.dumps(signed), REQUEST, tmp_path / "my.yaml", model="m-1", licence="CC0-1.0")
    card = read_card(path)
    assert (card.checked_by, card.written_by.kind, card.written_by.name) == (None, "model", "m-1")
    assert card.licence == "CC0-1.0"
