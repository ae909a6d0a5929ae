"""The exported file in llama.cpp, asked one prompt at a time with the likeliest token each step."""

from pathlib import Path

from llama_cpp import Llama

END = "<|im_end|>"


class Runtime:
    def __init__(self, path: Path, context: int) -> None:
        self.llama = Llama(str(path), n_ctx=context, n_threads=2, verbose=False)
        (self.end,) = self.tokenize(END)

    def tokenize(self, text: str) -> list[int]:
        return list(self.llama.tokenize(text.encode(), add_bos=False, special=True))

    def text(self, ids: list[int]) -> str:
        return self.llama.detokenize(ids, special=True).decode(errors="replace")

    def greedy(self, prompt: list[int], limit: int) -> list[int]:
        """Continuation ids, the end token included; nothing is reused from the prompt before."""
        self.llama.reset()
        out: list[int] = []
        for token in self.llama.generate(prompt, temp=0.0, repeat_penalty=1.0):
            out.append(token)
            if token == self.end or len(out) == limit:
                break
        return out

    def answer(self, prompt: str, limit: int = 700) -> str:
        """What a client would see, think block included and end of turn excluded."""
        return self.text(self.greedy(self.tokenize(prompt), limit)).removesuffix(END)
