"""The README's blocks on exported nets and on serving them, from their records; readme.py fills them in."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path

from hw4fast import record
from hw4fast.stats import wilson

BOUNDS = ("copy of as many bytes", "sgemm 1024", "autograd alone")  # beside a kernel, and no rivals
RESULTS = Path(__file__).parents[1] / "benchmarks" / "results"


def where(entry: dict, isas: list[str]) -> str:
    """The machine, the instruction sets of our kernels that ran, torch's version."""
    machine, versions = entry["machine"], entry["versions"]
    ran = f", {' and '.join(isas)}" if isas else ""
    return f"{machine['processor']}, {machine['cores']} cores{ran}; torch {versions['torch']}"


def markdown(head: Sequence[str], rows: Iterable[Sequence[str]]) -> list[str]:
    return [f"| {' | '.join(head)} |", "|---" * len(head) + "|", *(f"| {' | '.join(row)} |" for row in rows)]


def engines() -> str:
    entry = record.read(RESULTS / "bench.jsonl")[-1]
    lines = ["| engine | batch | p50 | p90 | p99 | images/s |", "|---|---|---|---|---|---|"]
    for row in entry["results"]["timings"]:
        times = " | ".join(f"{row[key]:.2f} ms" for key in ("p50_ms", "p90_ms", "p99_ms"))
        lines.append(f"| {row['engine']} | {row['batch']} | {times} | {row['images_per_s']:,.0f} |")
    return "\n".join(lines) + (
        f"\n\n{entry['results']['threads']} threads, engines taking turns.{same_answers(entry)} {where(entry, [])}."
    )


def same_answers(entry: dict) -> str:
    """Who answers otherwise than the first engine, and how often; nothing where a record doesn't know."""
    rows = entry["results"].get("answers")
    if not rows:
        return ""
    other = ", ".join(f"{row['engine']} on {row['same']}" for row in rows if row["same"] < row["n"])
    return f" On {rows[0]['n']} pictures all give the same answers{f', {other} of them' if other else ''}."


def cold_start() -> str:
    entry = record.read(RESULTS / "cold_start.jsonl")[-1]
    lines = []
    for name, row in entry["results"].items():
        low, high = row["quartiles_s"]
        lines.append(f"- `{name}`: {row['median_s']:.2f} s (quartiles {low:.2f} … {high:.2f}, n = {row['n']})")
    return "\n".join(lines) + f"\n\nWhole processes, files in the page cache. {where(entry, [])}."


class OldRecordError(ValueError):
    """The newest record is of an older form, or of some parts alone; the text says what to run."""


def photographs() -> str:
    """Photographs, and the digits' net on its small files: from files to answers."""
    lines = []
    for name, what in PHOTOGRAPHED.items():
        entry = record.read(RESULTS / f"{name}.jsonl")[-1]
        rows = entry["results"]["files"]
        ways = {row["way"]: row for row in rows}
        if not {"hw4fast classify", *ALONE} <= ways.keys():
            raise OldRecordError(f"{OLD} `hw4fast bench {what} --out benchmarks/results/{name}.jsonl`")
        ours = ways["hw4fast classify"]
        theirs = fastest_torch(rows)
        alone = [ways[way] for way in ALONE]
        rates = [f"{row['images_per_s']:.0f} ({row['low']:.0f} … {row['high']:.0f})" for row in (ours, *alone, theirs)]
        allowed = 1 / sum(1 / row["images_per_s"] for row in alone)
        share = f"{100 * ours['images_per_s'] / allowed:.0f} %"
        lines.append([entry["results"]["model"], *rates, share, f"{theirs['ratio_to_ours']:.2f}×"])
    head = ("model", "hw4fast classify", *ALONE, "torchvision + torch")
    columns = (*head, "of the three one after the other", "over torch")
    files, count = ours["files"], entry["results"]["threads"]
    return "\n".join(markdown(columns, lines)) + (
        f"\n\nPictures per second from {files} files, {count} threads: medians (slowest … fastest) of {ours['rounds']}"
        " passes that take turns. Photographs are JPEG files of 500 × 375 or so; the digits' net (runs/digits) reads"
        " PNG files of 28 × 28, of which opening and checking each takes `classify` most of its time. A pass of"
        " `classify` opens its model, torch's net is in memory; torch reads on threads of its own where that is faster"
        f" for it, and the ratio is the median of paired ones. {where(entry, [])}."
    )


def fastest_torch(rows: list[dict]) -> dict:
    """Of the ways to read pictures for torch the one that comes nearest to ours."""
    return min((row for row in rows if row["way"].startswith("torchvision")), key=lambda row: row["ratio_to_ours"])


OLD = "a newest record has another form than is written now, measure it again:"
PHOTOGRAPHED = {
    "bench-shufflenet": "shufflenet_v2_x1_0 --batches 1,2,4,8,16,32",
    "bench-squeezenet": "squeezenet1_1 --batches 1",
    "bench": "runs/digits --seconds 5",
}
ALONE = ("opening the model alone", "reading and fitting alone", "the net alone")
PARTS = ("overhead", "processes", "fused", "torch")

PARITY_HEAD = (
    "net", "weights", "megabytes", "inputs equal to torchvision's", "answers equal to torch's",
    "top-1, imagenet-sample", "top-1, nips2017", "largest logit", "error to torch", "error to float64", "torch's own",
)  # fmt: skip


def parity() -> str:
    """The newest record of each net and file: its inputs, answers and logits beside torchvision's and torch's."""
    entries = {entry["results"]["subject"]: entry for entry in record.read(RESULTS / "parity.jsonl")}
    assert len({where(entry, []) for entry in entries.values()}) == 1, "records of several machines"
    rows = [entry["results"] for entry in entries.values()]
    batches = {tuple(sorted(row["batches"])) for row in rows if "batches" in row}
    assert len(batches) == 1, batches
    bare = [row["subject"] for row in rows if row.get("answers_compared_with", "torch") != "torch"]
    *few, last = sorted(*batches)
    fused = [row for row in rows if isinstance(row.get("fused"), dict)]
    worst = max(row["fused"]["max_error_to_float64"] / row["largest_logit"] for row in fused)
    assert all("no convolution" in row["fused"] for row in rows if "fused" in row and row not in fused)
    isas = sorted({isa for row in fused for isa in row["fused"]["kernels"]})
    return "\n".join(markdown(PARITY_HEAD, map(parity_row, rows))) + (
        "\n\nInputs: photographs whose tensor, from the JPEG file on, is that of torchvision's own transforms to the"
        " last bit. Answers: the top-1 class, as torchvision's transforms and torch give it, and how often it is right"
        " (95 % Wilson intervals; imagenet-sample is probably of the training set, nips2017 isn't); of random weights"
        f" those of {last} photographs. Logits: of {last} photographs, in batches of {', '.join(map(str, few))} and"
        f" {last}. With `--fused` the error of {len(fused)} of these nets to float64 is at most {worst:.1g} of the"
        " largest logit, too; the others have no block that our kernels do faster. For"
        f" {' and '.join(bare)} torch's weights aren't here: its answers are compared with those of the same file in a"
        f" bare onnxruntime to torchvision's inputs. {where(next(iter(entries.values())), isas)}."
    )


def parity_row(row: dict) -> list[str]:
    answers = {each["folder"]: each for each in row.get("answers", ())}
    total = sum(each["n"] for each in answers.values()) or row["images"]
    same = sum(each["same_answers"] for each in answers.values()) or row["same_answers"]
    mark = "" if row.get("answers_compared_with", "torch") == "torch" else " (see below)"
    tops = [short_percent(answers[name]) if name in answers else "" for name in ("imagenet-sample", "nips2017")]
    errors = ("max_error_to_torch", "max_error_to_float64", "torch_max_error_to_float64")
    logits = [f"{row['largest_logit']:.3g}", *(f"{row[key]:.1e}" for key in errors)] if "images" in row else [""] * 4
    weights = "random" if row["weights"] == "random" else "trained"
    inputs = f"{row['inputs_equal_to_torchvision']} of {row['photos']}"
    return [row["subject"], weights, f"{row['megabytes']:.1f}", inputs, f"{same} of {total}{mark}", *tops, *logits]


def short_percent(answers: dict) -> str:
    low, high = wilson(answers["right"], answers["n"])
    return f"{100 * answers['right'] / answers['n']:.1f} % ({100 * low:.1f} … {100 * high:.1f})"


def serving() -> str:
    entry = record.read(RESULTS / "serving.jsonl")[-1]
    found = entry["results"]
    if not set(PARTS) <= found.keys() or "over" not in found["overhead"][0] or "ratios" not in found["torch"]:
        raise OldRecordError(f"{OLD} `python benchmarks/serving.py --record` (all parts)")
    starts, corn, fused = found["processes"]["resnet50"], found["processes"], found["fused"]
    lines = [
        f"- `hw4fast classify corn.jpg`, whole process: {corn['hw4fast classify']['median_s']:.2f} s, the shortest"
        f" script with torch and torchvision for the same answers {corn['torch and torchvision']['median_s']:.2f} s:"
        f" {told(corn['ratio'])} times as long",
        f"- with resnet50: {starts['first start']['median_s']:.2f} s at the first start, in which the file is tried and"
        f" optimised, {starts['second start']['median_s']:.2f} s from then on",
        f"- `Classifier.logits` of tensors over its own session's `run`: {times_as_long(found, 'the same session')}",
        "- over `run` of a session that onnxruntime opens by itself, with as many threads:"
        f" {times_as_long(found, OWN)} (shufflenet's weights are stored in int8; our session unpacks them once"
        " and rewrites its graph)",
        f"- `--fused`, the homework's net: {told(fused['100']['ratio'])} times onnxruntime's own speed at batch 100,"
        f" {told(fused['1']['ratio'])} at batch 1",
        f"- a net in torch and one in onnxruntime by turns in one process: {beside_torch(found['torch'])}",
    ]
    return "\n".join(lines) + f"\n\nMedians, and of ratios 95 % bootstrap intervals. {where(entry, [])}."


OWN = "onnxruntime's own session"


def fuzz() -> str:
    entry = record.read(RESULTS / "fuzz.jsonl")[-1]
    lines = []
    for kind, found in entry["results"].items():
        outcomes = dict(found["outcomes"])
        answered, refused = outcomes.pop("answered", 0), outcomes.pop("refused", 0)
        bad = ", ".join(f"{count:,} {name}" for name, count in outcomes.items()) or "none crashed, hung or said more"
        lines.append(
            f"- {found['files']:,} damaged {kind}s: {answered:,} answered, {refused:,} refused in one line, {bad};"
            f" the slowest took {found['slowest_s']:.1f} s, the largest process {found['peak_mib']:,.0f} MiB"
        )
    return "\n".join(lines) + f"\n\nonnxruntime {entry['versions']['onnxruntime-gpu']}. {where(entry, [])}."


def told(ratio: dict) -> str:
    return f"{ratio['median']:.2f} ({ratio['low']:.2f} … {ratio['high']:.2f})"


def times_as_long(found: dict, over: str) -> str:
    """squeezenet1_1 takes 1.01 (…) times as long at batch 1, 1.00 (…) at batch 32, …"""
    nets: dict[str, list[str]] = {}
    for row in found["overhead"]:
        if row["what"] == "tensors" and row["over"] == over:
            nets.setdefault(row["net"], []).append(f"{told(row['times_as_long'])} at batch {row['batch']}")
    return "; ".join(f"{net} takes {' and '.join(cells)} times as long" for net, cells in nets.items())


def beside_torch(found: dict) -> str:
    ratios, times = found["ratios"], found["times"]

    def ms(name: str) -> str:
        return f"{times[f'{name} alone']['median_s'] * 1e3:.1f} ms"

    def beside(who: str, other: str) -> str:
        return f"{told(ratios[f'{who} beside {other} over {who} alone'])} times as long as alone ({ms(who)})"

    rounds = ratios["Classifier alone over InferenceSession as it comes alone"]["n"]
    sentences = [
        f"beside {name} torch takes {beside('torch', name)}, and that {beside(name, 'torch')}"
        for name in ("InferenceSession as it comes", "Classifier")
    ]
    price = told(ratios["Classifier alone over Classifier that spins alone"])
    return "; ".join(
        [*sentences, f"alone Classifier takes {price} times as long as one whose threads spin ({rounds} rounds)"]
    )
