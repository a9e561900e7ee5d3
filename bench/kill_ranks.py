#!/usr/bin/env python3
"""Kills random ranks of a run at random moments, resumes it each time, and compares it with one that was left alone.

    bench/kill_ranks.py target/release/gpt2 --kills 100 --ranks 2 -- --backend flex --threads 1 --model d3 --batch 2 --seq 32

What follows `--` is for `gpt2 train`. Each time: how long until the last process is gone, the exit status, which must be 3,
the one line that says which rank was lost, and that the newest checkpoint is whole, as `--resume` goes on from it. At the
end: whether both runs have equal losses and gradient norms in every step, to the last bit.
"""
import argparse, json, pathlib, random, statistics, subprocess, sys, tempfile, time


def arguments():
    parser = argparse.ArgumentParser(description="Kills random ranks of a run at random moments.")
    parser.add_argument("gpt2")
    parser.add_argument("--kills", type=int, default=100)
    parser.add_argument("--ranks", type=int, default=2)
    parser.add_argument("--steps", type=int, default=2000)
    parser.add_argument("--longest", type=float, default=1.0, help="seconds of a life after its first step, at most")
    parser.add_argument("--seed", type=int, default=1)
    split = sys.argv.index("--") if "--" in sys.argv else len(sys.argv)
    args = parser.parse_args(sys.argv[1:split])
    args.flags = sys.argv[split + 1 :]
    return args


def ranks_of(launcher):
    """Processes that the launcher has started."""
    tasks = pathlib.Path(f"/proc/{launcher}/task").glob("*/children")
    return [int(child) for task in tasks for child in task.read_text().split()]


def is_there(process):
    try:
        state = pathlib.Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()[0]
    except OSError:
        return False
    return state != "Z"


def steps(run):
    try:
        lines = (run / "metrics.jsonl").read_text().splitlines(keepends=True)
    except OSError:
        return []
    return [json.loads(line) for line in lines if line.endswith("\n")]


def main():
    args = arguments()
    chance = random.Random(args.seed)
    work = pathlib.Path(tempfile.mkdtemp(prefix="kill-ranks-"))
    settings = ["--devices", str(args.ranks), "--steps", str(args.steps), "--checkpoint-every", "5", "--eval-every", "50"]
    settings += ["--eval-batches", "2", "--sample-every", "0", "--quiet", *args.flags]

    def train(run, *more):
        command = [args.gpt2, "train", "--run", str(run), *settings, *more]
        return subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True)

    killed, times, bad = work / "killed", [], []
    while len(times) < args.kills:
        before = len(steps(killed))
        launcher = train(killed, "--auto-resume")
        began = time.monotonic()
        while launcher.poll() is None and time.monotonic() - began < 60:
            now = steps(killed)
            # A resumed log is cut first: it has begun when a line follows a step that was there.
            if now and now[-1]["step"] > 0 and len(now) != before:
                break
            time.sleep(0.01)
        time.sleep(chance.uniform(0.0, args.longest))
        if launcher.poll() is not None:
            sys.exit(f"it ended by itself, after {len(times)} kills: {launcher.stderr.read()}; take more --steps")
        processes = ranks_of(launcher.pid)
        victim = chance.randrange(args.ranks)
        subprocess.run(["kill", "-KILL", str(processes[victim])], check=True)
        at = time.monotonic()
        while launcher.poll() is None or any(map(is_there, processes)):
            time.sleep(0.005)
            if time.monotonic() - at > 30:
                break
        times.append(time.monotonic() - at)
        step = now[-1]["step"] if now else 0
        print(f"kill {len(times)}: rank {victim} after step {step}, gone after {times[-1]:.2f} s", file=sys.stderr)
        said = [line for line in launcher.stderr.read().splitlines() if line.strip()]
        names = [line for line in said if "is gone" in line]
        if launcher.returncode != 3 or len(names) != 1 or f"rank {victim} " not in names[0] or any(map(is_there, processes)):
            bad.append((launcher.returncode, victim, said))
    last = train(killed, "--auto-resume")
    if last.wait() != 0:
        sys.exit(f"it could not be finished: {last.stderr.read()}")
    alone = work / "alone"
    if train(alone).wait() != 0:
        sys.exit("the run that was left alone has failed")
    of = lambda run: [(step["step"], step.get("loss"), step.get("grad_norm"), step.get("val_loss")) for step in steps(run)]
    print(json.dumps({
        "kills": len(times),
        "gone_after_s": {"median": round(statistics.median(times), 3), "max": round(max(times), 3)},
        "bad": bad,
        "steps": len(of(alone)),
        "equal": of(killed) == of(alone),
    }))
    sys.exit(0 if not bad and of(killed) == of(alone) else 1)


if __name__ == "__main__":
    main()
