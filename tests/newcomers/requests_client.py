"""Asks Onebox over HTTP with the package `requests`: python requests_client.py URL KEY QUESTION

Written by docs/chat.md and docs/api.md alone, as somebody would who reads them for the first time.
"""

import json
import sys

import requests


def main(url: str, key: str, question: str) -> None:
    with requests.Session() as http:
        http.headers["Authorization"] = f"Bearer {key}"
        models = http.get(f"{url}/api/v1/models", timeout=10).json()["data"]
        print("models:", ", ".join(model["id"] for model in models))

        body = {"messages": [{"role": "user", "content": question}], "temperature": 0}
        answer = http.post(f"{url}/api/v1/chat/completions", json=body, timeout=600)
        answer.raise_for_status()
        print("whole:", answer.json()["choices"][0]["message"]["content"])

        print("stream: ", end="")
        print("|".join(pieces(http, url, body | {"stream": True})))

        session = http.post(f"{url}/api/v1/sessions", json={}, timeout=10).json()
        turn = {"session_id": session["id"], "message": question, "temperature": 0}
        http.post(f"{url}/api/v1/chat/completions", json=turn, timeout=600).raise_for_status()
        stored = http.get(f"{url}/api/v1/sessions/{session['id']}", timeout=10).json()
        print("stored:", stored["title"], [message["role"] for message in stored["messages"]])

        wrong = http.post(
            f"{url}/api/v1/chat/completions", json=body | {"temperature": 9}, timeout=9
        )
        print("refused:", wrong.status_code, wrong.json()["error"]["message"])


def pieces(http, url, body):
    """The text of a streamed answer as it comes."""
    with http.post(f"{url}/api/v1/chat/completions", json=body, stream=True, timeout=60) as answer:
        for line in answer.iter_lines():
            data = line.removeprefix(b"data: ")
            if data in (line, b"[DONE]"):
                continue  # an empty line, a comment, the end
            for choice in json.loads(data)["choices"]:
                if text := choice["delta"].get("content"):
                    yield text


if __name__ == "__main__":
    main(*sys.argv[1:])
