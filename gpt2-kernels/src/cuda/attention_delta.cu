// Row statistics for the backward pass of attention, in the form its kernels consume. Follows common.cuh.
//
// Defines: HEAD_SIZE, a multiple of 8 up to 128.
//
// attention_delta(out, d_out, log_sum, stats, args{batch, length, heads})
//   out, d_out  bf16 [batch, length, heads * HEAD_SIZE]
//   log_sum     f32  [batch, heads, length]
//   stats       f32  [2, batch * heads, padded + 1 word], padded = length rounded up to 64:
//                 stats[0] = log_sum * log2(e)        (+infinity beyond the length: probability 0)
//                 stats[1] = rowsum(out * d_out)      (0 beyond the length)
//               followed by one 32-bit word, the work counter of attention_backward, set to zero here.
//   grid (padded / 64 * batch * heads), block 256

struct AttentionArgs {
    u64 batch, length, heads;
};

extern "C" __global__ void __launch_bounds__(256)
    attention_delta(const uint4 *out, const uint4 *d_out, const float *log_sum, float *stats,
                    const __grid_constant__ AttentionArgs args) {
    // Threads per row, of which the first FILLED take 16 bytes each.
    constexpr int FILLED = HEAD_SIZE / 8, LANES = FILLED <= 4 ? 4 : FILLED <= 8 ? 8 : 16;
    constexpr int ROWS = 64;
    constexpr int STEPS = ROWS * LANES / 256;
    const u32 length = args.length, heads = args.heads, batch_heads = args.batch * args.heads;
    const u32 blocks = (length + ROWS - 1) / ROWS, padded = blocks * ROWS;
    const u32 head = blockIdx.x / blocks, first = blockIdx.x % blocks * ROWS;
    const u32 lane = threadIdx.x % LANES;

    if (blockIdx.x == 0 && threadIdx.x == 0) ((u32 *)stats)[2 * (u64)batch_heads * padded] = 0;

#pragma unroll
    for (int step = 0; step < STEPS; ++step) {
        const u32 row = first + (step * 256 + threadIdx.x) / LANES;
        float sum = 0.0f;
        if (row < length && lane < FILLED) {
            const u64 at = (((u64)(head / heads) * length + row) * heads + head % heads) * FILLED + lane;
            const uint4 a = out[at], b = d_out[at];
            sum = bf16_low(a.x) * bf16_low(b.x) + bf16_high(a.x) * bf16_high(b.x) + bf16_low(a.y) * bf16_low(b.y) +
                  bf16_high(a.y) * bf16_high(b.y) + bf16_low(a.z) * bf16_low(b.z) + bf16_high(a.z) * bf16_high(b.z) +
                  bf16_low(a.w) * bf16_low(b.w) + bf16_high(a.w) * bf16_high(b.w);
        }
#pragma unroll
        for (int distance = LANES / 2; distance > 0; distance /= 2) sum += __shfl_xor_sync(~0u, sum, distance);
        if (lane == 0) {
            const u64 at = (u64)head * padded + row;
            stats[at] = row < length ? log_sum[(u64)head * length + row] * LOG2_E : POSITIVE_INFINITY;
            stats[(u64)batch_heads * padded + at] = sum;
        }
    }
}
