// Cross-entropy and its derivative, in place of the logits. Follows elementwise.cuh, warp.cuh
// and hopper.cuh.
//
// Defines: LOSS_ONLY   the logits are only read
//
// softmax_loss(logits, targets, losses, {rows, columns, vocabulary, scale})
//     logits bf16 [rows, columns], targets i32 [rows] in 0..vocabulary (not checked), scale an f64 -> losses f32
//     [rows], each -log softmax(row)[target], and the logits become (softmax(row) - onehot(target)) * scale. Only the
//     first `vocabulary` columns take part; the derivative of the others is 0. columns is a multiple of 8, at most
//     112 K. grid rows, block SOFTMAX_THREADS = 512, dynamic shared memory 2 * columns bytes: a block holds its row
//     there, so that two blocks a multiprocessor overlap one's arithmetic with the other's loads and stores.
// softmax_loss_f32(logits, targets, losses, {rows, columns, vocabulary, scale})
//     the same for logits in f32, which are read three times, mostly from the cache. grid rows, block SOFTMAX_THREADS.
// mean_loss(losses, mean, {count, scale})
//     sum of f32 [count] * scale -> f32 [1]. grid 1, block 1024.

constexpr int SOFTMAX_THREADS = 512;
constexpr int WARPS = SOFTMAX_THREADS / 32;

struct SoftmaxArgs {
    u64 rows, columns, vocabulary;
    double scale;
};

// NaN where one of the two is.
__device__ __forceinline__ float max_nan(float a, float b) {
    float c;
    asm("max.NaN.f32 %0, %1, %2;" : "=f"(c) : "f"(a), "f"(b));
    return c;
}
__device__ __forceinline__ u32 max_pair(u32 a, u32 b) {
    u32 c;
    asm("max.NaN.bf16x2 %0, %1, %2;" : "=r"(c) : "r"(a), "r"(b));
    return c;
}

// Copies `bytes` (a multiple of 16) from global to shared memory, on Hopper and later with the bulk copy engine.
__device__ __forceinline__ void load_row(void *shared, const void *global, u32 bytes) {
#if __CUDA_ARCH__ < 900
#pragma unroll 8
    for (u32 i = threadIdx.x; i < bytes / 16; i += SOFTMAX_THREADS)
        static_cast<uint4 *>(shared)[i] = static_cast<const uint4 *>(global)[i];
    __syncthreads();
#else
    __shared__ u64 arrival;
    constexpr u32 PIECE = 16384;
    const u32 barrier = shared_address(&arrival);
    if (threadIdx.x == 0) {
        barrier_init(barrier, 1);
        barrier_init_fence();
        barrier_expect(barrier, bytes);
        for (u32 at = 0; at < bytes; at += PIECE)
            bulk_load(shared_address(shared) + at, __cvta_generic_to_global(static_cast<const u8 *>(global) + at),
                      min(PIECE, bytes - at), barrier);
    }
    __syncthreads();
    barrier_wait(barrier, 0);
#endif
}

extern "C" __global__ void __launch_bounds__(SOFTMAX_THREADS, 2)
    softmax_loss(bf16 *logits, const int *__restrict__ targets, float *__restrict__ losses,
                 const __grid_constant__ SoftmaxArgs args) {
    extern __shared__ __align__(128) uint4 row[]; // eight logits each
    __shared__ float warp_max[WARPS], warp_total[WARPS];
    const int columns = args.columns, groups = columns / 8;
    const int target = targets[blockIdx.x];
    bf16 *const global_row = logits + u64(blockIdx.x) * columns;

    load_row(row, global_row, 2 * columns);
    if ((int)args.vocabulary < columns) {
        // Minus infinity: no part in the maximum and the sum, and a derivative of 0.
        for (int i = args.vocabulary + threadIdx.x; i < columns; i += SOFTMAX_THREADS)
            reinterpret_cast<bf16 *>(row)[i] = 0xff80;
        __syncthreads();
    }

    u32 pair = 0xff80ff80u;
#pragma unroll 4
    for (int i = threadIdx.x; i < groups; i += SOFTMAX_THREADS) {
        const uint4 v = row[i];
        pair = max_pair(pair, max_pair(max_pair(v.x, v.y), max_pair(v.z, v.w)));
    }
#pragma unroll
    for (int mask = 16; mask > 0; mask >>= 1) pair = max_pair(pair, __shfl_xor_sync(~0u, pair, mask));
    pair = max_pair(pair, pair >> 16 | pair << 16);
    if (threadIdx.x % 32 == 0) warp_max[threadIdx.x / 32] = bf16_low(pair);
    __syncthreads();
    float maximum = warp_max[0];
#pragma unroll
    for (int w = 1; w < WARPS; ++w) maximum = max_nan(maximum, warp_max[w]);

    float sum = 0.f;
#pragma unroll 2
    for (int i = threadIdx.x; i < groups; i += SOFTMAX_THREADS) {
        const uint4 v = row[i];
        const u32 pairs[4] = {v.x, v.y, v.z, v.w};
#pragma unroll
        for (int j = 0; j < 4; ++j) {
            sum += exp2_fast((bf16_low(pairs[j]) - maximum) * LOG2_E) +
                   exp2_fast((bf16_high(pairs[j]) - maximum) * LOG2_E);
        }
    }
    sum = block_sum(sum, warp_total);
    if (threadIdx.x == 0) {
        const float logit = bf16_low(reinterpret_cast<const bf16 *>(row)[target]);
        losses[blockIdx.x] = logf(sum) - (logit - maximum);
    }

#ifndef LOSS_ONLY
    const float scale = args.scale, factor = scale / sum;
#pragma unroll 2
    for (int i = threadIdx.x; i < groups; i += SOFTMAX_THREADS) {
        const uint4 v = row[i];
        const u32 pairs[4] = {v.x, v.y, v.z, v.w};
        float d[8];
#pragma unroll
        for (int j = 0; j < 4; ++j) {
            d[2 * j] = exp2_fast((bf16_low(pairs[j]) - maximum) * LOG2_E) * factor;
            d[2 * j + 1] = exp2_fast((bf16_high(pairs[j]) - maximum) * LOG2_E) * factor;
        }
        reinterpret_cast<uint4 *>(global_row)[i] =
            make_uint4(bf16_pack(d[0], d[1]), bf16_pack(d[2], d[3]), bf16_pack(d[4], d[5]), bf16_pack(d[6], d[7]));
    }
    if (threadIdx.x == target / 8 % SOFTMAX_THREADS) { // the thread that has just written this group
        const float logit = bf16_low(reinterpret_cast<const bf16 *>(row)[target]);
        global_row[target] = bf16_pack(exp2_fast((logit - maximum) * LOG2_E) * factor - scale, 0.f);
    }
#endif
}

extern "C" __global__ void __launch_bounds__(SOFTMAX_THREADS)
    softmax_loss_f32(float *logits, const int *__restrict__ targets, float *__restrict__ losses,
                     const __grid_constant__ SoftmaxArgs args) {
    __shared__ float warp_max[WARPS], warp_total[WARPS];
    const int vocabulary = args.vocabulary, target = targets[blockIdx.x];
    float *const row = logits + blockIdx.x * args.columns;

    float maximum = NEGATIVE_INFINITY;
#pragma unroll 4
    for (int i = threadIdx.x; i < vocabulary; i += SOFTMAX_THREADS) maximum = max_nan(maximum, row[i]);
#pragma unroll
    for (int mask = 16; mask > 0; mask >>= 1) maximum = max_nan(maximum, __shfl_xor_sync(~0u, maximum, mask));
    if (threadIdx.x % 32 == 0) warp_max[threadIdx.x / 32] = maximum;
    __syncthreads();
#pragma unroll
    for (int w = 0; w < WARPS; ++w) maximum = max_nan(maximum, warp_max[w]);

    float sum = 0.f;
#pragma unroll 4
    for (int i = threadIdx.x; i < vocabulary; i += SOFTMAX_THREADS) sum += expf(row[i] - maximum);
    sum = block_sum(sum, warp_total);
    if (threadIdx.x == 0) losses[blockIdx.x] = logf(sum) - (row[target] - maximum);

#ifndef LOSS_ONLY
    __syncthreads(); // the loss has been read before the logits go
    const float scale = args.scale, factor = scale / sum;
#pragma unroll 4
    for (int i = threadIdx.x; i < vocabulary; i += SOFTMAX_THREADS) {
        const float derivative = expf(row[i] - maximum) * factor;
        row[i] = i == target ? derivative - scale : derivative;
    }
    for (int i = vocabulary + threadIdx.x; i < (int)args.columns; i += SOFTMAX_THREADS) row[i] = 0.f;
#endif
}

struct MeanArgs {
    u64 count;
    double scale;
};

extern "C" __global__ void __launch_bounds__(1024)
    mean_loss(const float *__restrict__ losses, float *__restrict__ mean, const __grid_constant__ MeanArgs args) {
    __shared__ double warp_total[32];
    double sum = 0.;
#pragma unroll 8
    for (u64 i = threadIdx.x; i < args.count; i += 1024) sum += losses[i];
    sum = block_sum(sum, warp_total);
    if (threadIdx.x == 0) *mean = sum * args.scale;
}
