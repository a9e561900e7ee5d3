#!/usr/bin/env python3
"""Times the training step of GPT-2 in PyTorch, on the same work as `gpt2 bench step`. Prints one line of JSON.

    step.py --device cuda --dtype bf16 --compile default --model gpt2 --batch 8 --seq 1024 --steps 20 --warmup 5
    torchrun --standalone --nproc-per-node 2 step.py --device cuda --dtype bf16 --batch 4 --seq 512 --grad-accum 2

The keys are those of `gpt2 bench step`, where `peer` names PyTorch, and `step_ms` has every step from the first, warm-up
included, so that a study computes its figures by one rule for all programs.
A step is zero_grad, forward, backward, clip to the norm 1 and AdamW, on new random tokens each time. It ends when the
device has finished. The model is GPT-2 as published, without dropout, its vocabulary padded to 50,304 rows; attention
is scaled_dot_product_attention. `bf16` is autocast over f32 weights, `tf32` PyTorch's allow_tf32.

Under torchrun the processes train one model by DistributedDataParallel, each on `--batch` sequences in a micro-step, and
reduce gradients in a step's last micro-step. Rank 0 prints the line: a step takes as long as on the slowest rank.

PyTorch is all that it needs: `pip install torch`.
"""
import argparse, contextlib, json, math, os, resource, statistics, time

import torch
from torch import distributed, nn
from torch.nn import functional as F
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.nn.parallel import DistributedDataParallel

VOCAB_SIZE, PADDED_VOCAB_SIZE = 50257, 50304
MODELS = {  # n_layer, n_head, n_embd, block_size
    "d6": (6, 6, 384, 1024),
    "gpt2": (12, 12, 768, 1024),
    "gpt2-medium": (24, 16, 1024, 1024),
    "gpt2-large": (36, 20, 1280, 1024),
    "gpt2-xl": (48, 25, 1600, 1024),
}
ATTENTION = {"any": None, "flash": SDPBackend.FLASH_ATTENTION, "cudnn": SDPBackend.CUDNN_ATTENTION}


class Attention(nn.Module):
    def __init__(self, n_head, n_embd):
        super().__init__()
        self.n_head = n_head
        self.c_attn = nn.Linear(n_embd, 3 * n_embd)
        self.c_proj = nn.Linear(n_embd, n_embd)

    def forward(self, x):
        # [B, T, 3C] -> three of [B, H, T, D]
        query, key, value = self.c_attn(x).unflatten(2, (3, self.n_head, -1)).permute(2, 0, 3, 1, 4)
        mixed = F.scaled_dot_product_attention(query, key, value, is_causal=True)
        return self.c_proj(mixed.transpose(1, 2).flatten(2))


class Block(nn.Module):
    def __init__(self, n_head, n_embd):
        super().__init__()
        self.ln_1 = nn.LayerNorm(n_embd)
        self.attn = Attention(n_head, n_embd)
        self.ln_2 = nn.LayerNorm(n_embd)
        self.mlp = nn.Sequential(
            nn.Linear(n_embd, 4 * n_embd), nn.GELU(approximate="tanh"), nn.Linear(4 * n_embd, n_embd)
        )

    def forward(self, x):
        x = x + self.attn(self.ln_1(x))
        return x + self.mlp(self.ln_2(x))


class Gpt2(nn.Module):
    """Gives the mean cross-entropy of `targets`, [B, T], after `tokens`, [B, T]."""

    def __init__(self, n_layer, n_head, n_embd, block_size):
        super().__init__()
        self.wte = nn.Embedding(PADDED_VOCAB_SIZE, n_embd)
        self.wpe = nn.Embedding(block_size, n_embd)
        self.h = nn.Sequential(*(Block(n_head, n_embd) for _ in range(n_layer)))
        self.ln_f = nn.LayerNorm(n_embd)
        residual = [weight for block in self.h for weight in (block.attn.c_proj.weight, block.mlp[2].weight)]
        with torch.no_grad():
            for parameter in self.parameters():
                if parameter.dim() == 2:
                    scaled = any(parameter is weight for weight in residual)
                    parameter.normal_(std=0.02 / math.sqrt(2 * n_layer) if scaled else 0.02)
            for module in self.modules():
                if isinstance(module, nn.Linear):
                    module.bias.zero_()

    def forward(self, tokens, targets):
        positions = torch.arange(tokens.shape[1], device=tokens.device)
        x = self.ln_f(self.h(self.wte(tokens) + self.wpe(positions)))
        logits = F.linear(x, self.wte.weight)
        return F.cross_entropy(logits.flatten(0, 1).float(), targets.flatten())


def arguments():
    parser = argparse.ArgumentParser(description="Times PyTorch's training step of GPT-2.")
    parser.add_argument("--device", choices=["cpu", "cuda"], required=True)
    parser.add_argument("--dtype", choices=["f32", "tf32", "bf16"], default="f32")
    parser.add_argument("--compile", default="none", help="a mode of torch.compile, or none")
    parser.add_argument("--attention", choices=ATTENTION, default="any", help="PyTorch's kernel of it")
    parser.add_argument("--model", choices=MODELS, default="gpt2")
    parser.add_argument("--n-head", type=int, help="heads of a block; the model's without")
    parser.add_argument("--batch", type=int, default=4)
    parser.add_argument("--seq", type=int, default=1024)
    parser.add_argument("--grad-accum", type=int, default=1)
    parser.add_argument("--threads", type=int, help="CPU threads; PyTorch's own choice without")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--steps", type=int, default=20)
    parser.add_argument("--warmup", type=int, default=5)
    return parser.parse_args()


def main():
    args = arguments()
    on_gpu = args.device == "cuda"
    if args.threads:
        torch.set_num_threads(args.threads)
    rank, ranks, device = int(os.environ.get("RANK", 0)), int(os.environ.get("WORLD_SIZE", 1)), args.device
    if ranks > 1:
        distributed.init_process_group("nccl" if on_gpu else "gloo")
    if on_gpu:
        device = f"cuda:{os.environ.get('LOCAL_RANK', 0)}"
        torch.cuda.set_device(device)
    torch.manual_seed(args.seed)
    torch.backends.cuda.matmul.allow_tf32 = args.dtype == "tf32"
    n_layer, n_head, n_embd, block_size = MODELS[args.model]
    name = args.model
    if args.n_head and args.n_head != n_head:
        n_head, name = args.n_head, f"{name} with {args.n_head} heads"
    model = Gpt2(n_layer, n_head, n_embd, max(block_size, args.seq)).to(device)
    parameters = list(model.parameters())
    groups = [
        {"params": [p for p in parameters if p.dim() >= 2], "weight_decay": 0.1},
        {"params": [p for p in parameters if p.dim() < 2], "weight_decay": 0.0},
    ]
    optimizer = torch.optim.AdamW(groups, lr=6e-4, betas=(0.9, 0.95), eps=1e-8, fused=True)
    autocast = torch.autocast(args.device, dtype=torch.bfloat16, enabled=args.dtype == "bf16")
    replica = DistributedDataParallel(model, gradient_as_bucket_view=True) if ranks > 1 else model
    loss_of = replica if args.compile == "none" else torch.compile(replica, mode=args.compile)
    torch.manual_seed(args.seed + rank)

    def step():
        optimizer.zero_grad(set_to_none=True)
        for micro_step in range(args.grad_accum):
            rows = torch.randint(VOCAB_SIZE, (args.batch, args.seq + 1)).to(device)
            if args.compile in ("reduce-overhead", "max-autotune"):
                torch.compiler.cudagraph_mark_step_begin()
            waits = ranks > 1 and micro_step < args.grad_accum - 1
            kernel = ATTENTION[args.attention]
            with replica.no_sync() if waits else contextlib.nullcontext():
                with autocast, sdpa_kernel(kernel) if kernel else contextlib.nullcontext():
                    loss = loss_of(rows[:, :-1], rows[:, 1:]) / args.grad_accum
                loss.backward()
        nn.utils.clip_grad_norm_(parameters, 1.0)
        optimizer.step()
        return loss.item() * args.grad_accum  # waits for all that is queued on the device

    def timed():
        start = time.perf_counter()
        loss = step()
        return (time.perf_counter() - start) * 1e3, loss

    warmup = [timed()[0] for _ in range(args.warmup)]
    began = time.time()
    results = [timed() for _ in range(args.steps)]
    ended = time.time()
    all_ms = warmup + [ms for ms, _ in results]
    if ranks > 1:
        slowest = torch.tensor(all_ms, dtype=torch.float64, device=device)
        distributed.all_reduce(slowest, op=distributed.ReduceOp.MAX)
        loss = torch.tensor(results[-1][1], device=device)
        distributed.all_reduce(loss)
        distributed.destroy_process_group()
        all_ms, results[-1] = slowest.tolist(), (results[-1][0], loss.item() / ranks)
    times = sorted(all_ms[args.warmup :])
    median = statistics.median(times)
    line = {
        "peer": f"pytorch {torch.__version__}" + (" ddp" if ranks > 1 else ""),
        "backend": "pytorch",
        "device": torch.cuda.get_device_name() if on_gpu else "cpu",
        "model": name,
        "threads": torch.get_num_threads(),
        "dtype": args.dtype,
        "compile": args.compile,
        "batch": args.batch,
        "seq": args.seq,
        "grad_accum": args.grad_accum,
        "ranks": ranks,
        "data": "random",
        "steps": len(times),
        "step_ms_median": round(median, 3),
        "step_ms_p95": round(times[math.ceil(0.95 * len(times)) - 1], 3),
        "step_ms_min": round(times[0], 3),
        "step_ms_max": round(times[-1], 3),
        "tokens_per_sec": round(args.batch * args.seq * args.grad_accum * ranks / median * 1e3, 3),
        "warmup_s": round(sum(all_ms[: args.warmup]) / 1e3, 3),
        "first_step_s": round(all_ms[0] / 1e3, 3),
        "loss_last": results[-1][1],
        "step_ms": [round(ms, 3) for ms in all_ms],
        "timed": [began, ended],
        "params": sum(p.numel() for p in parameters),
    }
    if on_gpu:
        line["peak_mem_mib"] = torch.cuda.max_memory_allocated() >> 20
        line["peak_reserved_mib"] = torch.cuda.max_memory_reserved() >> 20
    else:
        line["peak_mem_mib"] = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss >> 10
    if rank == 0:
        print(json.dumps(line), flush=True)


if __name__ == "__main__":
    main()
