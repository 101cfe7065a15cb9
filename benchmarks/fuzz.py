"""Ten thousand damaged model files: each must be read, or refused with an error of our own.

    python benchmarks/fuzz.py [--tries 10000] [--seed 0] [--formats keras h5 onnx snn savedmodel] [--json FILE]

Small models of each format are damaged (`mutations.py`) and read by `snnc.load`, in worker processes that are replaced
when they die. A violation is: any other exception, a crash, more than 10 seconds of computing (of the worker and its
children; or ten minutes of the clock, on a machine that others use too), more than 2 GB more memory than before the try
(of the worker or a child of its), code of a file that is run, a file outside the model's folder that is
opened, and a hostile file that is read. Files that made violations are kept in --keep. Exits with 1 if there are any.

`--tries 5000 2000` gives a number for each format; one number is dealt out to them.
"""

import argparse
import json
import multiprocessing
import os
import queue
import random
import resource
import shutil
import signal
import sys
import tempfile
import threading
import time
import warnings
from collections import Counter
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import machine
import mutations

FORMATS = tuple(mutations.SUFFIXES)
SHARES = {"keras": 15, "h5": 13, "onnx": 50, "snn": 20, "savedmodel": 2}  # of a hundred; TensorFlow is slow
SECONDS = 10.0
CLOCK = 600.0
MEMORY = 2 * 10**9
LIFE = 500  # tries of one worker: TensorFlow forgets little of what it reads
OUTSIDE = ("/etc/passwd", "outside.bin", "/dev/zero")

SPAWN = multiprocessing.get_context("spawn")


@dataclass(frozen=True)
class Try:
    """One damaged file, and what became of it. `violation` is None where it was read or refused as it should be."""

    format: str
    number: int
    mutation: str
    outcome: str
    violation: str | None
    seconds: float
    growth: int


def main() -> None:
    options = parse_arguments()
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    os.environ.setdefault("CUDA_VISIBLE_DEVICES", "-1")
    counts = counted(options.tries, options.formats)
    with tempfile.TemporaryDirectory(prefix="snnc-fuzz-") as folder:
        maker = SPAWN.Process(target=mutations.make, args=(Path(folder), options.formats))
        maker.start()
        maker.join()
        if maker.exitcode:
            sys.exit("the models could not be made")
        tries = run_all(Path(folder), counts, options)
    print(markdown(tries, options.seed))
    if options.json:
        report = {"machine": machine.describe(), "seed": options.seed, "tries": [asdict(done) for done in tries]}
        options.json.write_text(json.dumps(report, indent=1))
    sys.exit(any(done.violation for done in tries))


def parse_arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--tries", type=int, nargs="+", default=[10000])
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--first", type=int, default=0, help="the number of the first try, to repeat one")
    parser.add_argument("--formats", nargs="+", choices=FORMATS, default=list(FORMATS))
    parser.add_argument("--minutes", type=float, default=1e6, help="begin no try after so long")
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--keep", type=Path, help="folder for the files that made violations")
    parser.add_argument("--json", type=Path)
    return parser.parse_args()


def counted(tries: Sequence[int], formats: Sequence[str]) -> dict[str, int]:
    if len(tries) == len(formats):
        return dict(zip(formats, tries, strict=True))
    if len(tries) > 1:
        sys.exit("give one number of tries, or one for each format")
    total = sum(SHARES[format] for format in formats)
    return {format: round(tries[0] * SHARES[format] / total) for format in formats}


def run_all(folder: Path, counts: dict[str, int], options: argparse.Namespace) -> list[Try]:
    """Every try, format by format, dealt to the workers."""
    todo: queue.SimpleQueue[tuple[str, int] | None] = queue.SimpleQueue()
    for format, count in counts.items():
        for number in range(options.first, options.first + count):
            todo.put((format, number))
    for _ in range(options.workers):
        todo.put(None)
    tries: list[Try] = []
    drivers = [
        threading.Thread(target=drive, args=(folder, index, todo, tries, options)) for index in range(options.workers)
    ]
    for driver in drivers:
        driver.start()
    for driver in drivers:
        driver.join()
    return tries


def drive(folder: Path, index: int, todo: queue.SimpleQueue, tries: list[Try], options: argparse.Namespace) -> None:
    """Hand tries to one worker at a time, until there are none left."""
    place, worker, age = folder / f"worker{index}", None, 0
    last = time.monotonic() + 60 * options.minutes
    while (task := todo.get()) is not None and time.monotonic() < last:
        if worker is None or not worker.is_alive() or age == LIFE:
            if worker is not None:
                worker.kill()
            worker, age = Worker(folder, place, options.seed), 0
        done = worker.attempt(*task)
        age += 1
        tries.append(done)
        if done.violation:
            print(f"{done.format} {done.number} ({done.mutation}): {done.violation}", file=sys.stderr, flush=True)
            keep(place, done, options)
    if worker is not None:
        worker.kill()


def keep(place: Path, done: Try, options: argparse.Namespace) -> None:
    if options.keep:
        target = options.keep / f"{done.format}-{options.seed}-{done.number}"
        shutil.rmtree(target, ignore_errors=True)
        shutil.copytree(place / "try", target, symlinks=True)


class Worker:
    """A process that reads files, seen from outside."""

    def __init__(self, folder: Path, place: Path, seed: int):
        self.ours, theirs = SPAWN.Pipe()
        self.process = SPAWN.Process(target=work, args=(folder, place, seed, theirs), daemon=True)
        self.process.start()
        theirs.close()

    def is_alive(self) -> bool:
        return self.process.is_alive()

    def kill(self) -> None:
        self.process.kill()
        self.process.join()

    def attempt(self, format: str, number: int) -> Try:
        """One try: the worker says when it begins to read, and what came of it."""
        self.ours.send((format, number))
        try:
            mutation = self.ours.recv()
        except EOFError:
            self.kill()
            return Try(format, number, "?", "died", "the worker died before it read", 0, 0)
        before, spent, began = resident(self.process.pid), computed(self.process.pid), time.monotonic()
        died: str | None = None
        while not self.ours.poll(0.05):
            seconds = computed(self.process.pid) - spent
            if resident(self.process.pid) - before > MEMORY:
                died = "memory above 2 GB"
            elif seconds > SECONDS or time.monotonic() - began > CLOCK:
                died = "hang of more than 10 s"
            if died:
                self.kill()
                return Try(format, number, mutation, "killed", died, seconds, MEMORY)
        try:
            outcome, violation, seconds, growth = self.ours.recv()
        except EOFError:
            self.process.join()
            code = self.process.exitcode or 0
            died = f"crash: {signal.Signals(-code).name if code < 0 else f'exit status {code}'}"
            return Try(format, number, mutation, "died", died, time.monotonic() - began, 0)
        return Try(format, number, mutation, outcome, violation, seconds, growth)


def computed(process: int | None) -> float:
    """Seconds that a process and its children have computed for; 0 if it is gone."""
    try:
        fields = Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()
        children = Path(f"/proc/{process}/task/{process}/children").read_text().split()
    except OSError:
        return 0.0
    return sum(map(int, fields[11:15])) / os.sysconf("SC_CLK_TCK") + sum(computed(int(child)) for child in children)


def resident(process: int | None) -> int:
    """Bytes of memory that a process has now; 0 if it is gone."""
    try:
        return int(Path(f"/proc/{process}/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")
    except OSError:
        return 0


# In the worker.


def work(folder: Path, place: Path, seed: int, pipe: Connection) -> None:
    """Damage and read files as they are asked for."""
    import snnc

    place.mkdir(exist_ok=True)
    log = os.open(place / "log", os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
    os.dup2(log, 1)
    os.dup2(log, 2)
    warnings.simplefilter("ignore")
    sys.path.append(str(folder))  # where code that a file names would be found
    opened = watched()
    warm: set[str] = set()
    while True:
        format, number = pipe.recv()
        models = mutations.samples(folder, format)
        if format not in warm:  # imports take time and memory
            snnc.load(models[0])
            warm.add(format)
        shutil.rmtree(place / "try", ignore_errors=True)
        (place / "try").mkdir()
        (folder / mutations.MARK).unlink(missing_ok=True)
        rng = random.Random(f"{seed}/{format}/{number}")
        path, mutation = mutations.mutate(rng.choice(models), format, place / "try", rng)
        opened.clear()
        pipe.send(mutation.name)
        before, began = peak(reset=True), computed(os.getpid())
        outcome, violation = read(path)
        seconds, growth = computed(os.getpid()) - began, peak() - before
        violation = violation or suspicious(folder, opened, outcome, mutation, seconds, growth)
        pipe.send((outcome, violation, seconds, growth))


def read(path: Path) -> tuple[str, str | None]:
    """What becomes of a file, and what is wrong with that."""
    import snnc

    try:
        snnc.load(path, verify=False)
    except snnc.SnncError as error:
        return type(error).__name__, None
    except BaseException as error:
        return type(error).__name__, f"{type(error).__name__}: {str(error)[:200]}"
    return "read", None


def suspicious(
    folder: Path, opened: list[str], outcome: str, mutation: mutations.Mutation, seconds: float, growth: int
) -> str | None:
    if (folder / mutations.MARK).exists():
        return "code of the file was run"
    if opened:
        return f"opened {opened[0]}"
    if outcome == "read" and mutation.hostile:
        return "was read, but is hostile"
    if seconds > SECONDS:
        return "took more than 10 s"
    return "memory above 2 GB" if growth > MEMORY else None


def watched() -> list[str]:
    """The forbidden files that this process opens, and globals that it unpickles, as they come."""
    found: list[str] = []

    def audit(event: str, arguments: tuple[Any, ...]) -> None:
        if event == "pickle.find_class":
            found.append(f"a pickle: {arguments[0]}.{arguments[1]}")
        elif event == "open" and isinstance(arguments[0], str) and arguments[0].endswith(OUTSIDE):
            found.append(arguments[0])

    sys.addaudithook(audit)
    return found


def peak(reset: bool = False) -> int:
    """The most bytes of memory that this process had since it was last reset, or that a child of its had."""
    own = machine.peak_from_here() if reset else machine.peak()
    return max(own, resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss * 1024)


# The report.


def markdown(tries: Sequence[Try], seed: int) -> str:
    formats = list(dict.fromkeys(done.format for done in tries))
    outcomes = sorted({done.outcome for done in tries if not done.violation} - {"read"})
    lines = [
        ", ".join(f"{key} {value}" for key, value in machine.describe().items()),
        "",
        f"| Format (seed {seed}) | Tries | read | {' | '.join(outcomes)} | violations | longest, s | most memory, MB |",
        "| --- |" + " ---: |" * (len(outcomes) + 5),
    ]
    for format in formats:
        own = [done for done in tries if done.format == format]
        counts = Counter(done.outcome for done in own if not done.violation)
        cells = [len(own), counts["read"], *(counts[name] for name in outcomes), sum(bool(d.violation) for d in own)]
        longest, most = max(done.seconds for done in own), max(done.growth for done in own) / 1e6
        lines.append(f"| {format} | {' | '.join(map(str, cells))} | {longest:.1f} | {most:.0f} |")
    found = Counter(f"{done.format}, {done.mutation}: {done.violation}" for done in tries if done.violation)
    lines += ["", *(f"- {count}× {text}" for text, count in found.most_common())]
    return "\n".join(lines)


if __name__ == "__main__":
    main()
