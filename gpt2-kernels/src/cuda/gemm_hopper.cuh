// What the products for Hopper, gemm.cu and gemm_tf32.cu, share. Follows common.cuh.

struct Tile {
    u32 row, col, split, k_begin, k_end;
};

// The units of work: tiles of ROWS by COLUMNS, once for each split.
template <u32 ROWS, u32 COLUMNS> struct Schedule {
    u32 rows, cols, k_tiles, splits, group, count;

    template <typename Args> __device__ __forceinline__ Schedule(const Args &args) {
        rows = (u32(args.m) + ROWS - 1) / ROWS;
        cols = (u32(args.n) + COLUMNS - 1) / COLUMNS;
        k_tiles = u32(args.k_tiles);
        splits = u32(args.splits);
        group = u32(args.group);
        count = rows * cols * splits;
    }
    __device__ __forceinline__ Tile tile(u32 unit) const {
        u32 split = unit / (rows * cols), rest = unit % (rows * cols);
        u32 first = rest / (group * cols) * group, height = min(group, rows - first);
        rest -= first * cols;
        Tile t;
        t.row = (first + rest % height) * ROWS;
        t.col = rest / height * COLUMNS;
        t.split = split;
        t.k_begin = split * k_tiles / splits;
        t.k_end = (split + 1) * k_tiles / splits;
        return t;
    }
};

// Position in a ring of slots; `phase` is the parity of the pass over it.
template <u32 SLOTS> struct Cursor {
    u32 slot = 0, phase = 0;
    __device__ __forceinline__ void next() {
        if (++slot == SLOTS) {
            slot = 0;
            phase ^= 1;
        }
    }
    __device__ __forceinline__ void skip(u32 n) {
        u32 at = slot + n;
        slot = at % SLOTS;
        phase ^= at / SLOTS & 1;
    }
};

// GELU, tanh form: x / (1 + exp(-2u)) with u = sqrt(2 / pi) (x + 0.044715 x^3), in as few instructions as there can be:
// the warpgroup that multiplies wants the issue slots.
__device__ __forceinline__ float gelu_gate(float x, float x2) {
    float gate;
    const float e = exp2_fast(x * fmaf(x2, -0.10294324f, -2.3022082f));
    asm("rcp.approx.ftz.f32 %0, %1;" : "=f"(gate) : "f"(1.0f + e));
    return gate;
}
__device__ __forceinline__ float gelu(float x) { return x * gelu_gate(x, x * x); }
__device__ __forceinline__ float gelu_derivative(float x) {
    const float x2 = x * x, gate = gelu_gate(x, x2);
    return fmaf(x * fmaf(x2, 0.21406445f, 1.5957691f), fmaf(-gate, gate, gate), gate);
}
