"""Asks Onebox with Ollama's own package: python ollama_client.py URL KEY QUESTION [CERTIFICATE]

Written by docs/coming/ollama.md and docs/api.md alone. CERTIFICATE is a file that says whom to
trust, where the server's is not known to the system.
"""

import ssl
import sys

import ollama


def main(url: str, key: str, question: str, certificate: str = "") -> None:
    verify = ssl.create_default_context(cafile=certificate) if certificate else True
    client = ollama.Client(host=url, headers={"Authorization": f"Bearer {key}"}, verify=verify)
    print("models:", ", ".join(model.model for model in client.list().models))
    said = [{"role": "user", "content": question}]
    options = {"temperature": 0}
    print("whole:", client.chat("qwen3-demo", said, options=options).message.content)
    parts = client.chat("qwen3-demo", said, stream=True, options=options)
    print("stream:", "|".join(part.message.content for part in parts))
    print("prompt:", client.generate("qwen3-demo", question, options=options).response)
    try:
        client.chat("llama3", said)
    except ollama.ResponseError as error:
        print("refused:", error.status_code, error.error)


if __name__ == "__main__":
    main(*sys.argv[1:])
