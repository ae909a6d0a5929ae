"""The measuring tools: their arithmetic by hand-made timelines, their workloads on real servers."""

import asyncio
import json
import random
import sys
from itertools import takewhile
from pathlib import Path

import httpx
import pytest
from typer.testing import CliRunner

from api import cli
from benchmarks import BenchmarkError, engine, limits, peers
from benchmarks.bars import BARS, judge
from benchmarks.client import Answer, Client, Server, discover
from benchmarks.figures import Outcome, Result, Targets, figures
from benchmarks.processes import running
from benchmarks.report import Report
from benchmarks.rounds import Rounds, Scenario, measure
from benchmarks.workloads import Arrivals, Cancel, Chat, Overload, Speculation, Steady
from inference import (
    BadRequest,
    Overloaded,
    Pool,
    Started,
    TextDelta,
    Wishes,
    WorkerLost,
    load_config,
    prepare,
)
from tests.fake_pool import FakePool, hello, serving


def answer(*chunks: float, role: str = "", prompt: int = 10, cached: int = 4, **kwargs) -> Answer:
    """An answer sent at 0 that came whole, a token in each chunk."""
    made = Answer(role, len(chunks), sent=0.0, ended=chunks[-1], chunks=list(chunks), status=200)
    made.tokens, made.prompt_tokens, made.cached_tokens = len(chunks), prompt, cached
    made.finished = True
    for name, value in kwargs.items():
        setattr(made, name, value)
    return made


def test_figures_of_a_timeline():
    quick, slow = answer(0.1, 0.2, 0.3, 0.4), answer(0.5, 0.6, 1.6, cached=0)
    refused = Answer("", 4, status=429, error="429: the queue is full")
    broken = Answer("", 4, status=200, error="it broke")
    found = figures(Outcome([quick, slow, refused, broken], 2.0), Targets(0.5, 0.2))
    expected = {
        "failed": 1,
        "refused": 1,
        "output tok/s": 3.5,
        "good answers/s": 0.5,
        "prompt tokens computed": 16,
        "prompt tokens cached": 4,
        "TTFT mean ms": 300,
        "TTFT p50 ms": 300,
        "TTFT p90 ms": 460,
        "TTFT p99 ms": 496,
        "TTFT max ms": 500,
        "gap p50 ms": 100,
        "gap p90 ms": 640,
        "gap p99 ms": 964,
        "gap max ms": 1000,
    }
    assert found == pytest.approx(expected)
    assert list(found) == list(expected)


def test_a_good_answer_meets_both_targets():
    late, stalled = answer(0.6, 0.7), answer(0.1, 0.9)
    outcome = Outcome([late, stalled, answer(0.5, 0.6)], 1.0)
    assert figures(outcome, Targets(0.5, 0.2))["good answers/s"] == 1


def test_roles_are_told_apart_and_only_streams_are_plotted():
    outcome = Outcome([answer(1, 2, role="stream"), answer(3, 7, role="new")])
    found = figures(outcome, Targets())
    assert (found["stream TTFT max ms"], found["new gap max ms"]) == (1000, 4000)
    assert outcome.gaps == [1]


def test_what_a_server_does_not_count_is_unknown():
    blind = answer(0.1, 0.2, tokens=None, prompt_tokens=None, cached_tokens=None)
    found = figures(Outcome([blind, answer(0.1)], 1.0), Targets())
    assert not {"output tok/s", "prompt tokens computed"} & set(found)
    assert found["failed"] == 0 and found["TTFT p50 ms"] == pytest.approx(100)


def test_medians_leave_out_rounds_without_the_figure():
    result = Result("a")
    for found in ({"x": 1.0}, {"x": 5.0, "y": 2.0}, {"x": 2.0}):
        result.add("s", found)
    assert result.medians("s") == {"x": 2.0, "y": 2.0}


def test_one_round_with_faults_is_enough():
    result = Result("overload")
    for failed in (0, 3, 0):
        result.add("s", {"failed": failed, "refusal max ms": 20})
    assert result.medians("s")["failed"] == 3
    assert [row[-1] for row in judge([result])] == ["no", "not measured", "no"]


def test_every_bar_is_on_something_that_is_measured():
    titles = {case.scenario.title for case in peers.CASES.values()}
    titles |= {f"engine B={size}" for size in engine.BATCHES} | {"limits"}
    assert {bar.scenario for bar in BARS} <= titles


def test_peers_starts_what_it_measures(tmp_path):
    """With Onebox as the only one, for llama-server is not built here."""
    demo = Path(prepare(load_config(), "qwen3-demo").engine.path)
    onebox = peers.Peer("Onebox", peers.onebox_command, "/ready")
    bench = peers.Bench(peers.Box(demo, 1, tmp_path), [onebox], tmp_path)
    case = Scenario(Steady(clients=1, prompt=8, answer=4, each=1))
    for setting in (peers.Setting(2, 512), peers.Setting(2, 512, unified=True)):
        commands, [result] = bench.measure(setting, [case], Rounds(count=1))
        assert "--no-tuned" in commands[f"Onebox, {setting}"]
        assert result.medians("Onebox")["failed"] == 0


class Scripted(Client):
    """Answers at once: text is counted in words, and words in the cache are those asked before."""

    def __init__(self, **kwargs: dict[str, float]) -> None:
        super().__init__(Server("scripted", "", "", None))
        self.seen: list[str] = []
        self.seconds = kwargs

    async def ask(self, prompt, tokens, *, role="", begun=None, fields=None):
        said = prompt.split()
        known = max((_common(said, seen.split()) for seen in self.seen), default=0)
        self.seen.append(prompt)
        seconds = self.seconds.get(role or "plainly", 1.0)
        made = answer(seconds, role=role, prompt=len(said), cached=min(known, len(said) - 1))
        made.tokens = tokens
        return made


def _common(one: list[str], other: list[str]) -> int:
    """How many first words are equal."""
    return sum(1 for _ in takewhile(lambda pair: pair[0] == pair[1], zip(one, other, strict=False)))


async def test_chat_knows_the_least_that_must_be_computed():
    """One after the other on a server that never forgets, nothing is computed twice."""
    chat = Chat(users=3, turns=2, system=20, turn=5, answer=4)
    outcome = await chat.run(Scripted(), random.Random(1))
    history = 2 * (5 + 2) + 4  # two turns with both speakers' names, and the answer between them
    shared = 20 + 1  # the system prompt, and that a user speaks
    assert outcome.own["minimum prompt tokens"] == shared + 3 * (history - 1)
    assert outcome.own["prompt tokens computed / minimum"] == 1
    assert len(outcome.answers) == 6


async def test_speculation_is_compared_on_the_same_prompts():
    client = Scripted(plainly=1.0, plain=2.0)
    workload = Speculation("repeat", repeats=True, prompts=2, prompt=12, pattern=3, answer=8)
    outcome = await workload.run(client, random.Random(1))
    assert outcome.own == {"output tok/s": 8, "plain output tok/s": 4, "speculation gain": 2}
    first, second = client.seen[:3], client.seen[3:]
    assert len(set(first)) == len(set(second)) == 1 and first != second
    words = first[0].split()
    assert words == words[:3] * 4


SMALL = [
    Steady(clients=2, prompt=16, answer=4),
    Arrivals("mixed", arrivals=2, new_prompt=200, new_answer=4, streams=2, prompt=16, answer=24),
    Chat(users=2, turns=2, system=40, turn=8, answer=4),
    Cancel(streams=3, prompt=64, answer=200, probes=2, probe=8),
    Overload(requests=12, prompt=8, answer=4),
    Speculation("repeat", repeats=True, prompts=1, prompt=16, answer=8),
    Speculation("novel", repeats=False, prompts=1, prompt=16, answer=8),
]


async def test_every_workload_runs_on_a_real_server(deployment):
    async with serving(Pool(deployment)) as url:
        await until_ready(url)
        server = await discover(url, "here")
        assert server.model == "qwen3-demo" and server.ids is not None
        scenarios = [Scenario(workload) for workload in SMALL]
        results = await measure([server], scenarios, Rounds(count=1))
    found = {result.title: result.medians("here") for result in results}
    assert all(figures["failed"] == figures["refused"] == 0 for figures in found.values()), found
    assert found["steady n=2"]["prompt tokens computed"] == 2 * 3 * 16
    assert {"stream gap p99 ms", "new TTFT mean ms"} <= set(found["mixed"])
    assert found["chat"]["prompt tokens computed / minimum"] >= 1
    wanted = {(bar.scenario, bar.figure) for bar in BARS if bar.scenario in found}
    assert {title for title, _ in wanted} >= {"mixed", "chat", "cancel", "repeat", "novel"}
    missing = {title for title, figure in wanted if figure not in found[title]}
    assert missing <= {"overload"}  # nothing is refused here


async def test_bench_prints_tables_and_writes_a_report(deployment, tmp_path):
    async with serving(Pool(deployment)) as url:
        await until_ready(url)
        options = ["--rounds", "1", "--clients", "1,2", "--prompt", "16", "--answer", "6"]
        arguments = ["bench", f"{url}/v1", *options, "--out", str(tmp_path / "out")]
        ran = await asyncio.to_thread(CliRunner().invoke, cli.app, arguments)
    assert ran.exit_code == 0, ran.output
    assert "steady n=1" in ran.stdout and "TTFT p50 ms" in ran.stdout
    report = json.loads((tmp_path / "out" / "report.json").read_text())
    [(name, found)] = report["scenarios"]["steady n=2"].items()
    assert url.endswith(name) and len(found["rounds"]) == 1
    assert found["medians"]["failed"] == 0 and found["medians"]["output tok/s"] > 0
    assert report["about"][name] == "qwen3-demo" and report["bars"] == []
    names = {path.name for path in (tmp_path / "out").iterdir()}
    plots = {"gaps-steady-n-1.png", "gaps-steady-n-2.png", "ttft-over-load.png"}
    assert names == plots | {"report.md", "report.json"}
    text = (tmp_path / "out" / "report.md").read_text()
    assert all(f"]({plot})" in text for plot in plots)


async def until_ready(url: str) -> None:
    async with httpx.AsyncClient(base_url=url) as http:
        while (await http.get("/ready")).status_code != 200:
            pass


async def test_refusals_are_counted_apart_from_failures():
    full = [[Overloaded("the queue is full", retry_after=2)] for _ in range(3)]
    lost = [Started(7), TextDelta(0, "Hel"), WorkerLost("the worker died")]
    async with serving(FakePool(hello(), *full, lost)) as url:
        client = Client(Server("fake", url, "fake", None))
        outcome = await Overload(requests=6, answer=2).run(client, random.Random(1))
    found = figures(outcome, Targets())
    assert (found["refused"], found["failed"], found["refused without Retry-After"]) == (3, 1, 0)
    assert outcome.error == "the worker died"
    assert 0 < found["refusal p50 ms"] <= found["refusal max ms"]


async def test_an_answer_of_another_length_is_a_failure():
    async with serving(FakePool()) as url:
        short = await Client(Server("fake", url, "fake", None)).ask("Hi", 3)
    assert short.error == "the answer has 2 tokens instead of 3" and not short.ok


async def test_a_server_that_refuses_token_ids_is_asked_in_words():
    pool = FakePool([BadRequest("only text here", "prompt")])
    async with serving(pool) as url:
        server = await discover(url)
        await Client(server).ask(server.prompt(random.Random(1), 5), 2)
    assert server.ids is None
    assert len(pool.requests[-1].prompt.split()) == 5


@pytest.mark.parametrize(
    ("arguments", "status", "says"),
    [
        (["http://127.0.0.1:1"], 1, "http://127.0.0.1:1 does not answer"),
        (["--clients", "few"], 2, "few"),
        (["-w", "nap"], 2, "nap"),
    ],
)
def test_what_cannot_be_measured_is_said(arguments, status, says):
    ran = CliRunner().invoke(cli.app, ["bench", *arguments])
    assert ran.exit_code == status
    assert says in ran.stderr and "Traceback" not in ran.stderr


def test_bars_are_on_ratios_or_on_the_figure_itself():
    chat, cancel = Result("chat"), Result("cancel")
    figure = "prompt tokens computed / minimum"
    chat.add("Onebox", {"TTFT p90 ms": 30, figure: 1.2})
    chat.add("llama-server", {"TTFT p90 ms": 100})
    cancel.add("Onebox", {})
    assert judge([chat, cancel]) == [
        ("chat", "TTFT p90 ms", "30", "100", "0.3", "<= 0.35x", "yes"),
        ("chat", figure, "1.2", "-", "-", "<= 1.15", "no"),
        ("cancel", "TTFT after / idle", "-", "-", "-", "<= 1.1", "not measured"),
    ]


def test_tables_show_ratios_of_the_first_server_and_why_answers_failed():
    result = Result("a|b")
    result.add("x", {"tok/s": 1500.4, "failed": 0})
    result.add("y", {"tok/s": 3000.8}, error="it broke")
    tables = Report({}, [result]).tables
    assert "| tok/s | 1,500 | 3,001 | 0.5 |" in tables
    assert "| failed | 0 | - | - |" in tables
    assert "Failed on y: it broke" in tables


def test_a_server_that_ends_at_once_is_one_sentence_with_its_log(tmp_path):
    command = [sys.executable, "-c", "raise SystemExit('no model')"]
    log = tmp_path / "log"
    with running("peer", command, log) as server, pytest.raises(BenchmarkError) as caught:
        server.until_answers("http://127.0.0.1:1")
    assert caught.value.message == f"peer ended before it was ready; {log} says why."
    assert log.read_text() == "no model\n"


def test_the_api_alone_is_measured_with_a_fake_worker_behind_it():
    result = limits.measure(streams=3, tokens=8, rounds=1)
    assert list(result.rounds) == ["onebox", "bare"]
    for server in result.rounds:
        found = result.medians(server)
        assert found["API CPU per token us"] >= 0 and found["tokens in a chunk"] >= 1


def test_the_engine_alone_counts_whole_decode_steps():
    config = prepare(load_config(), "qwen3-demo", Wishes(context=1024, slots=4)).engine
    found = engine.ours(config, random.Random(1))
    assert found["decode tok/s"] > 0 and found["tok/s"] > 0
