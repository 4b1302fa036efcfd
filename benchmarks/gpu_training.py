"""Training on one GPU: python benchmarks/gpu_training.py [--json FILE] [--only fast,seed_cnn,profile]

fast: the recipe fast on MNIST with 20 seeds, from arrays on the host to the trained net: transfer, the net's making,
capture and steps; kernels are warmed by a seed that doesn't count. seed_cnn: an epoch of the homework's recipe sgd on
our kernels, on torch's in the same CUDA graph, and on torch's in the loop that a torch user writes, in turns.
"""

from __future__ import annotations

import argparse
import json
import statistics
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from torch import nn
from torch.nn import functional as F

from hw4fast.data import Dataset, load
from hw4fast.files import data_folder
from hw4fast.training import loop
from hw4fast.training.models import MODELS
from hw4fast.training.optimizers import Optimizer
from hw4fast.training.progress import Bar
from hw4fast.training.recipes import RECIPES
from hw4fast.training.settings import Settings

SEEDS = 20


def dataset() -> Dataset:
    return load("mnist" if data_folder() else "digits")


def net_of(settings: Settings, data: Dataset) -> nn.Module:
    torch.manual_seed(settings.seed)
    p = data.preprocessing
    return MODELS.get(settings.model)(
        (p.channels, *p.crop),
        len(data.class_names),
        channels=settings.channels,
        dropout=settings.dropout,
        kernels=settings.kernels,
    )


def now() -> float:
    torch.cuda.synchronize()
    return time.perf_counter()


def fast() -> dict[str, Any]:
    data, found = dataset(), []
    for seed in (10**6, *range(SEEDS)):
        settings = Settings(**RECIPES.get("fast").settings, device="cuda", seed=seed)
        device = torch.device("cuda")
        begin = now()
        train = loop.Pictures(data, data.train, device)
        moved = now()
        net = net_of(settings, data).to(device)
        steps = loop.graphed_steps(settings, net, Optimizer(settings, net.parameters()), train)
        with Bar(len(train), 1, 0, False) as bar:
            loop._graphed_epoch(settings, net, steps, 1, bar)
        trained = now()
        test = loop.Pictures(data, data.test, device)
        _, logits = loop.evaluate(net, test, settings.loss)
        right = int((logits.argmax(1) == test.labels).sum())
        tested = now()
        found.append((trained - begin, moved - begin, tested - trained, right / len(test)))
    seconds, transfer, testing, accuracy = zip(*found[1:], strict=True)
    result = {
        "dataset": data.name,
        "seeds": SEEDS,
        "seconds": statistics.mean(seconds),
        "seconds_least": min(seconds),
        "seconds_most": max(seconds),
        "transfer": statistics.mean(transfer),
        "test": statistics.mean(testing),
        "accuracy": statistics.mean(accuracy),
        "accuracy_least": min(accuracy),
        "accuracy_most": max(accuracy),
        "first_seconds": found[0][0],
    }
    print(
        f"fast on {data.name}: {result['seconds']:.3f} s ({min(seconds):.3f} … {max(seconds):.3f}), of which transfer"
        f" {result['transfer']:.3f}; the test takes {result['test']:.3f} more; accuracy"
        f" {100 * result['accuracy']:.3f} % ({100 * min(accuracy):.2f} … {100 * max(accuracy):.2f}) over {SEEDS} seeds;"
        f" the first, cold: {found[0][0]:.2f} s",
        flush=True,
    )
    return result


def plain_epoch(net: nn.Module, optimizer: torch.optim.Optimizer, train: loop.Pictures, size: int) -> None:
    """As a torch user writes it: nothing is asked of the GPU on the way."""
    net.train()
    for rows in torch.randperm(len(train), device="cuda").split(size):
        x, y = train[rows]
        optimizer.zero_grad(set_to_none=True)
        loss = F.cross_entropy(net(x), y)
        loss.backward()
        optimizer.step()


class TorchGraph:
    """As a torch user writes it with a CUDA graph: normalised pictures lie on the GPU, the order of the batches and
    their number, too, and eight steps are replayed at a time."""

    def __init__(
        self, net: nn.Module, optimizer: torch.optim.Optimizer, train: loop.Pictures, size: int, half: bool
    ) -> None:
        self.x, self.y = train[slice(None)]
        self.x = self.x.contiguous()
        self.net, self.optimizer, self.size, self.half = net, optimizer, size, half
        self.order = torch.arange(len(self.x), device="cuda")
        self.at, self.places = torch.zeros(1, dtype=torch.int64, device="cuda"), torch.arange(size, device="cuda")
        self.total = torch.zeros((), device="cuda")
        self.stream = torch.cuda.Stream()
        net.train()
        self.stream.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(self.stream):
            for _ in range(3):
                self.step()
        torch.cuda.synchronize()
        optimizer.zero_grad(set_to_none=True)
        self.graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(self.graph, stream=self.stream):
            for _ in range(8):
                self.step()

    def step(self) -> None:
        rows = self.order.index_select(0, self.at * self.size + self.places)
        x, y = self.x.index_select(0, rows), self.y.index_select(0, rows)
        self.optimizer.zero_grad(set_to_none=True)
        with torch.autocast("cuda", torch.bfloat16, enabled=self.half):
            loss = F.cross_entropy(self.net(x), y)
        loss.backward()
        self.optimizer.step()
        self.total += loss.detach()
        self.at += 1

    def epoch(self, number: int) -> float:
        self.net.train()
        self.order.copy_(torch.randperm(len(self.x), device="cuda"))
        self.at.zero_()
        self.total.zero_()
        for _ in range(len(self.x) // self.size // 8):
            self.graph.replay()
        return self.total.item()


def seed_cnn(turns: int = 5) -> dict[str, Any]:
    data = dataset()
    settings = Settings(**RECIPES.get("sgd").settings, device="cuda")
    train = loop.Pictures(data, data.train, torch.device("cuda"))
    result: dict[str, Any] = {"dataset": data.name}
    for precision in ("float32", "bfloat16"):
        own = replace(settings, precision=precision)
        net = net_of(own, data).cuda()
        steps = loop.graphed_steps(own, net, Optimizer(own, net.parameters()), train)

        def epoch(number: int, own: Settings = own, net: nn.Module = net, steps: Any = steps) -> float:
            with Bar(len(train), 10, 0, False) as bar:
                return loop._graphed_epoch(own, net, steps, number, bar)[0]

        theirs = net_of(replace(settings, kernels="torch"), data).cuda()
        sgd = torch.optim.SGD(theirs.parameters(), lr=0.1, fused=True)
        graph = TorchGraph(theirs, sgd, train, settings.batch_size, precision == "bfloat16")
        sides: dict[str, Any] = {"hw4fast": epoch, "torch, CUDA graph": graph.epoch}
        eager = net_of(replace(settings, kernels="torch"), data).cuda()
        optimizer = torch.optim.SGD(eager.parameters(), lr=0.1, fused=True)

        def ordinary(number: int, eager: nn.Module = eager, optimizer: Any = optimizer) -> None:
            plain_epoch(eager, optimizer, train, settings.batch_size)

        if precision == "float32":
            sides["torch"] = ordinary
        times: dict[str, list[float]] = {name: [] for name in sides}
        for turn in range(turns + 1):
            for name, run in sides.items():
                begin = now()
                run(turn + 1)
                if turn:
                    times[name].append(now() - begin)
        entry: dict[str, Any] = {}
        for name, each in times.items():
            entry[name] = {"seconds": statistics.median(each), "least": min(each), "most": max(each)}
            if name != "hw4fast":
                ratios = sorted(t / o for t, o in zip(each, times["hw4fast"], strict=True))
                entry[name] |= {"ratio": statistics.median(ratios), "ratio_least": ratios[0], "ratio_most": ratios[-1]}
        test = loop.Pictures(data, data.test, torch.device("cuda"))
        for number in range(turns + 2, 11):
            sides["hw4fast"](number)
        _, logits = loop.evaluate(net, test, "cross-entropy")
        entry["accuracy"] = (logits.argmax(1) == test.labels).float().mean().item()
        result[precision] = entry
        told = "; ".join(
            f"{name} {each['seconds']:.4f} s an epoch"
            + (
                f" ({each['ratio']:.2f} × ours, {each['ratio_least']:.2f} … {each['ratio_most']:.2f})"
                if "ratio" in each
                else ""
            )
            for name, each in entry.items()
            if isinstance(each, dict)
        )
        print(f"seed_cnn, batch 100, {precision}: {told}; after 10 epochs {100 * entry['accuracy']:.2f} %", flush=True)
    return result


def profile() -> dict[str, Any]:
    """The kernels of a step, by their time."""
    data = dataset()
    found: dict[str, Any] = {}
    for whose in ("hw4fast", "torch"):
        settings = Settings(**RECIPES.get("sgd").settings, device="cuda", kernels=whose)
        train = loop.Pictures(data, data.train, torch.device("cuda"))
        net = net_of(settings, data).cuda()
        steps = loop.graphed_steps(settings, net, Optimizer(settings, net.parameters()), train, capture=False)
        for _ in range(3):
            steps._step(100)
        torch.cuda.synchronize()
        with torch.profiler.profile(activities=[torch.profiler.ProfilerActivity.CUDA]) as profiler:
            for _ in range(10):
                steps._step(100)
            torch.cuda.synchronize()
        rows = sorted(profiler.key_averages(), key=lambda e: -e.self_device_time_total)
        total = sum(e.self_device_time_total for e in rows) / 10
        print(f"a step of seed_cnn on {whose}'s kernels: {total:.0f} µs in {sum(e.count for e in rows) // 10} kernels")
        found[whose] = [(e.key[:110], e.count / 10, e.self_device_time_total / 10) for e in rows[:30]]
        for name, count, us in found[whose]:
            print(f"  {us:7.1f} µs {count:4.1f} × {name}")
    return found


PARTS = {"seed_cnn": seed_cnn, "fast": fast, "profile": profile}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--json", type=Path)
    parser.add_argument("--only", default="seed_cnn,fast")
    arguments = parser.parse_args()
    torch.backends.cudnn.benchmark = True
    results: dict[str, Any] = {}
    for name in arguments.only.split(","):
        results[name] = PARTS[name]()
        if arguments.json:
            arguments.json.write_text(json.dumps(results, indent=1), encoding="utf-8")


if __name__ == "__main__":
    main()
