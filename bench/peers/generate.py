#!/usr/bin/env python3
"""Times generation by Hugging Face transformers, to compare with `gpt2 sample`. Prints one line of JSON a run.

    hellaswag.py model random                                      # a random GPT-2 124M
    gpt2 import random --out models/random                         # and with a tokenizer
    gpt2 sample --init models/random --max-tokens 500              # ours says tokens/s at the end
    generate.py models/random --tokens 500 --dtype f32 --compile   # theirs

A batch of one, a prompt of one token, temperature 0.8 and the 200 most probable tokens, which are `gpt2 sample`'s. All runs
are of one process; the first includes what happens once, with --compile the compilation for a cache of a fixed size.

    pip install torch transformers
"""
import argparse, json, time


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model")
    parser.add_argument("--tokens", type=int, default=500)
    parser.add_argument("--dtype", choices=["f32", "bf16"], default="f32")
    parser.add_argument("--device", default="cuda")
    parser.add_argument("--compile", action="store_true")
    parser.add_argument("--runs", type=int, default=4)
    args = parser.parse_args()
    import torch
    from transformers import GPT2LMHeadModel

    dtype = {"f32": torch.float32, "bf16": torch.bfloat16}[args.dtype]
    model = GPT2LMHeadModel.from_pretrained(args.model, dtype=dtype).to(args.device).eval()
    prompt = torch.tensor([[50256]], device=args.device)
    options = dict(do_sample=True, temperature=0.8, top_k=200, pad_token_id=50256, attention_mask=torch.ones_like(prompt))
    if args.compile:
        options["cache_implementation"] = "static"
    for run in range(args.runs):
        torch.manual_seed(run)
        began = time.perf_counter()
        # As many tokens in each run: it does not end early.
        out = model.generate(prompt, min_new_tokens=args.tokens, max_new_tokens=args.tokens, **options)
        seconds = time.perf_counter() - began
        made = out.shape[1] - 1
        line = {"run": run, "tokens": made, "seconds": round(seconds, 3), "tokens_per_second": round(made / seconds, 1)}
        print(json.dumps({"dtype": args.dtype, "compiled": args.compile} | line), flush=True)


main()
