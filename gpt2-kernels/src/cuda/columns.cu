// Column sums (bias gradients) and casts to bf16. Follows elementwise.cuh. Column counts are multiples of 4 (8 where
// the source is bf16), counts of elements are multiples of 4. Sums are taken in two stages, in a fixed order.
//
// column_partials_f32(source, copy, partials, {rows, columns, rows_per_block})
//     f32 [rows, columns] -> its bf16 copy, unless SUMS_ONLY is defined, and partial column sums f32 [grid.y, columns].
//     grid (ceil(columns / 128), ceil(rows / rows_per_block)), block 256.
//     A multiple of 64 as rows_per_block keeps eight rows of each warp in flight.
// column_partials_bf16(source, partials, {rows, columns, rows_per_block})
//     bf16 [rows, columns] -> partial column sums, likewise.
//     grid (ceil(columns / 256), ceil(rows / rows_per_block)), block 256.
// sum_rows(source 0.., destination 0.., {rows[MATRICES], columns[MATRICES], first_blocks[MATRICES]})
//     MATRICES (1, 2, 3 or 8) matrices f32 [rows, columns] -> their column sums f32 [columns] (the second stage of every
//     partial sum). A matrix takes ceil(columns / SUM_COLUMNS = 32) blocks; grid: all of them, block 256. first_blocks are the
//     running sums of the blocks, from 0.
// cast_bf16(source, destination, {count})
//     f32 -> bf16. grid ceil(count / CAST_CHUNK = 8192), block 256.

constexpr int THREADS = 256;
constexpr int WARPS = THREADS / 32;

struct PartialArgs {
    u64 rows, columns, rows_per_block;
};

// Adds up the warps' sums of WIDTH columns a lane and writes the block's row of partials.
template <int WIDTH>
__device__ __forceinline__ void write_partials(const float (&sum)[WIDTH], float *partials, u64 columns) {
    __shared__ float scratch[WARPS][32 * WIDTH];
    const int warp = threadIdx.x / 32, lane = threadIdx.x % 32;
#pragma unroll
    for (int i = 0; i < WIDTH; ++i) scratch[warp][WIDTH * lane + i] = sum[i];
    __syncthreads();
    const u64 column = u64(blockIdx.x) * 32 * WIDTH + threadIdx.x;
    if (threadIdx.x >= 32 * WIDTH || column >= columns) return;
    float total = 0.f;
#pragma unroll
    for (int w = 0; w < WARPS; ++w) total += scratch[w][threadIdx.x];
    partials[blockIdx.y * columns + column] = total;
}

extern "C" __global__ void __launch_bounds__(THREADS)
    column_partials_f32(const float *source, bf16 *copy, float *partials, const __grid_constant__ PartialArgs args) {
    constexpr int BATCH = 8; // rows a thread has in flight
    const u64 column = u64(blockIdx.x) * 128 + 4 * (threadIdx.x % 32);
    const u64 begin = blockIdx.y * args.rows_per_block, end = min(begin + args.rows_per_block, args.rows);
    float4 sum = zero4();
    if (column < args.columns) {
        u64 row = begin + threadIdx.x / 32;
        for (; row + (BATCH - 1) * WARPS < end; row += BATCH * WARPS) {
            float4 v[BATCH];
#pragma unroll
            for (int i = 0; i < BATCH; ++i) v[i] = load4(source + (row + i * WARPS) * args.columns + column);
#pragma unroll
            for (int i = 0; i < BATCH; ++i) {
#ifndef SUMS_ONLY
                store4(copy + (row + i * WARPS) * args.columns + column, v[i]);
#endif
                sum = sum + v[i];
            }
        }
        for (; row < end; row += WARPS) {
            const float4 v = load4(source + row * args.columns + column);
#ifndef SUMS_ONLY
            store4(copy + row * args.columns + column, v);
#endif
            sum = sum + v;
        }
    }
    const float sums[4] = {sum.x, sum.y, sum.z, sum.w};
    write_partials(sums, partials, args.columns);
}

extern "C" __global__ void __launch_bounds__(THREADS)
    column_partials_bf16(const bf16 *__restrict__ source, float *__restrict__ partials,
                         const __grid_constant__ PartialArgs args) {
    constexpr int BATCH = 8;
    const u64 column = u64(blockIdx.x) * 256 + 8 * (threadIdx.x % 32);
    const u64 begin = blockIdx.y * args.rows_per_block, end = min(begin + args.rows_per_block, args.rows);
    float sums[8] = {};
    const auto add = [&](uint4 v) {
        const u32 pairs[4] = {v.x, v.y, v.z, v.w};
#pragma unroll
        for (int j = 0; j < 4; ++j) {
            sums[2 * j] += bf16_low(pairs[j]);
            sums[2 * j + 1] += bf16_high(pairs[j]);
        }
    };
    const auto load = [&](u64 row) { return *reinterpret_cast<const uint4 *>(source + row * args.columns + column); };
    if (column < args.columns) {
        u64 row = begin + threadIdx.x / 32;
        for (; row + (BATCH - 1) * WARPS < end; row += BATCH * WARPS) {
            uint4 v[BATCH];
#pragma unroll
            for (int i = 0; i < BATCH; ++i) v[i] = load(row + i * WARPS);
#pragma unroll
            for (int i = 0; i < BATCH; ++i) add(v[i]);
        }
        for (; row < end; row += WARPS) add(load(row));
    }
    write_partials(sums, partials, args.columns);
}

#ifdef MATRICES
constexpr int SUM_COLUMNS = 32;

struct SumArgs {
    u64 rows[MATRICES], columns[MATRICES], first_blocks[MATRICES];
};

extern "C" __global__ void __launch_bounds__(THREADS)
    sum_rows(OF_MATRICES(PARAMETERS_)(const float *, s), OF_MATRICES(PARAMETERS_)(float *, d),
             const __grid_constant__ SumArgs args) {
    constexpr int QUADS = SUM_COLUMNS / 4;
    constexpr int LINES = THREADS / QUADS; // rows a block reads at a time
    constexpr int BATCH = 4;               // of those, in flight
    const u32 slot = slot_of_block(args.first_blocks);
    const float *source = nullptr;
    float *destination = nullptr;
    switch (slot) {
#define SLOT(i) \
    case i: source = s##i, destination = d##i; break;
        OF_MATRICES(EACH_OF_)(SLOT)
#undef SLOT
    }
    const u64 rows = args.rows[slot], columns = args.columns[slot];
    const u32 block = blockIdx.x - (u32)args.first_blocks[slot];

    const int quad = threadIdx.x % QUADS;
    const u64 column = block * SUM_COLUMNS + 4 * quad;
    const bool active = column < columns;
    float4 sum = zero4();
    for (u64 first = threadIdx.x / QUADS; first < rows; first += BATCH * LINES) {
        float4 v[BATCH];
#pragma unroll
        for (int i = 0; i < BATCH; ++i) {
            const u64 row = first + i * LINES;
            v[i] = active && row < rows ? load4(source + row * columns + column) : zero4();
        }
#pragma unroll
        for (int i = 0; i < BATCH; ++i) sum = sum + v[i];
    }
    // The lines of a warp, then the warps.
#pragma unroll
    for (int mask = QUADS; mask < 32; mask *= 2) {
        sum = sum + make_float4(__shfl_xor_sync(~0u, sum.x, mask), __shfl_xor_sync(~0u, sum.y, mask),
                                __shfl_xor_sync(~0u, sum.z, mask), __shfl_xor_sync(~0u, sum.w, mask));
    }
    __shared__ float4 scratch[WARPS][QUADS];
    if (threadIdx.x % 32 < QUADS) scratch[threadIdx.x / 32][quad] = sum;
    __syncthreads();
    if (threadIdx.x >= QUADS || !active) return;
    float4 total = scratch[0][quad];
#pragma unroll
    for (int warp = 1; warp < WARPS; ++warp) total = total + scratch[warp][quad];
    store4(destination + column, total);
}
#endif

struct CastArgs {
    u64 count;
};

constexpr int CAST_BATCH = 8;
constexpr int CAST_CHUNK = 4 * THREADS * CAST_BATCH; // 8192

extern "C" __global__ void __launch_bounds__(THREADS)
    cast_bf16(const float *__restrict__ source, bf16 *__restrict__ destination, const __grid_constant__ CastArgs args) {
    const u64 first = u64(blockIdx.x) * CAST_CHUNK + 4 * threadIdx.x;
    float4 v[CAST_BATCH];
#pragma unroll
    for (int i = 0; i < CAST_BATCH; ++i) {
        const u64 at = first + 4 * THREADS * i;
        v[i] = at < args.count ? load4(source + at) : zero4();
    }
#pragma unroll
    for (int i = 0; i < CAST_BATCH; ++i) {
        const u64 at = first + 4 * THREADS * i;
        if (at < args.count) store4(destination + at, v[i]);
    }
}
