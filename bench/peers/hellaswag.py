#!/usr/bin/env python3
"""Scores HellaSwag with Hugging Face transformers, to time against `gpt2 eval`. Prints one line of JSON.

    hellaswag.py make made-up.jsonl                       # 10,042 examples of HellaSwag's format and lengths
    hellaswag.py model random                             # a random GPT-2 124M, without tokenizer
    gpt2 import random --out models/random                # and with
    hellaswag.py score models/random made-up.jsonl --device cuda --dtype bf16 --batch 128

`score` takes `--batch` sequences at once, those of similar length together, padded on the right; an example has four. An
ending's score is the mean loss of its tokens, as in llm.c. `seconds` is that of the scoring alone: the texts are encoded
before, and the first batch is computed once before.

    pip install torch transformers
"""
import argparse, json, random, statistics, time


def make(path, examples):
    """Words of one token each: HellaSwag's validation split has 3,243 examples of ActivityNet and 6,799 of WikiHow."""
    words = "the a man woman is are in on of and to then with it they she he people water ball room down up start".split()
    draw = random.Random(1)
    text = lambda low, high: " ".join(draw.choices(words, k=draw.randint(low, high)))
    with open(path, "w") as file:
        for number in range(examples):
            short = number * 10042 < examples * 3243
            ctx, ending = ((25, 60), (6, 20)) if short else ((40, 110), (15, 40))
            example = {"ctx": text(*ctx), "label": draw.randrange(4), "endings": [text(*ending) for _ in range(4)]}
            file.write(json.dumps(example) + "\n")


def score(args):
    import torch
    from torch.nn import functional as F
    from transformers import GPT2LMHeadModel, GPT2TokenizerFast

    encode = GPT2TokenizerFast.from_pretrained(args.model).encode
    examples = [json.loads(line) for line in open(args.file)]
    rows = []
    for number, example in enumerate(examples):
        ctx = encode(example["ctx"])
        for nth, ending in enumerate(example["endings"]):
            ending = encode(" " + ending)
            rows.append((number, nth, len(ctx), ctx + ending))
    rows.sort(key=lambda row: -len(row[3]))
    dtype = torch.bfloat16 if args.dtype == "bf16" else torch.float32
    model = GPT2LMHeadModel.from_pretrained(args.model, dtype=dtype).to(args.device).eval()
    losses = [[0.0] * 4 for _ in examples]

    @torch.inference_mode()
    def batch(rows):
        length = len(rows[0][3])
        tokens = torch.tensor([row[3] + [0] * (length - len(row[3])) for row in rows]).to(args.device)
        logits = model(tokens).logits[:, :-1].float()
        loss = F.cross_entropy(logits.flatten(0, 1), tokens[:, 1:].flatten(), reduction="none").view(len(rows), -1)
        at = torch.arange(length - 1, device=args.device)
        ctx, end = (torch.tensor(values, device=args.device)[:, None] for values in
                    ([row[2] for row in rows], [len(row[3]) for row in rows]))
        mask = (at >= ctx - 1) & (at < end - 1)
        means = (loss * mask).sum(1) / mask.sum(1)
        for row, mean in zip(rows, means.tolist()):
            losses[row[0]][row[1]] = mean

    batch(rows[: args.batch])
    began = time.perf_counter()
    for first in range(0, len(rows), args.batch):
        batch(rows[first : first + args.batch])
    seconds = time.perf_counter() - began
    predictions = [min(range(4), key=row.__getitem__) for row in losses]
    right = [prediction == int(example["label"]) for prediction, example in zip(predictions, examples)]
    line = {"peer": "transformers", "dtype": args.dtype, "batch": args.batch, "examples": len(examples),
            "tokens": sum(len(row[3]) for row in rows), "seconds": round(seconds, 3),
            "examples_per_sec": round(len(examples) / seconds, 1), "acc_norm": statistics.mean(right)}
    if args.per_example:
        with open(args.per_example, "w") as file:
            file.writelines(json.dumps({"losses": row}) + "\n" for row in losses)
    print(json.dumps(line))


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    commands = parser.add_subparsers(dest="command", required=True)
    command = commands.add_parser("make")
    command.add_argument("file")
    command.add_argument("--examples", type=int, default=10042)
    command = commands.add_parser("model")
    command.add_argument("model")
    command = commands.add_parser("score")
    command.add_argument("model")
    command.add_argument("file")
    command.add_argument("--device", default="cpu")
    command.add_argument("--dtype", default="f32", choices=["f32", "bf16"])
    command.add_argument("--batch", type=int, default=128)
    command.add_argument("--per-example", metavar="FILE")
    args = parser.parse_args()
    if args.command == "make":
        make(args.file, args.examples)
    elif args.command == "model":
        import torch
        from transformers import GPT2Config, GPT2LMHeadModel

        torch.manual_seed(1)
        GPT2LMHeadModel(GPT2Config()).save_pretrained(args.model)
    else:
        score(args)


if __name__ == "__main__":
    main()
