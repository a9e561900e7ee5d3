// Token and position embeddings and their gradients. Follows elementwise.cuh.
//
// Defines: CHANNELS    row length, a multiple of 4 up to 4096
//
// embedding_forward(tokens, token_table, position_table, x, {rows, sequence, offset})
//     x[b, t] = token_table[tokens[b, t]] + position_table[offset + t], rows = B * T, sequence = T.
//     grid ceil(rows / 4), block 128.
//
// The gradients take three launches, without floating-point atomics; equal tokens' rows are added in the order of their
// positions, grouped by `span` of the sorted rows.
// embedding_sort(tokens, dx, order, sorted, d_positions, {rows, sort_blocks, sequence, positions})
//     stable sort: order u32 [rows] the row numbers by token, sorted i32 [rows] their tokens. And d_positions f32
//     [positions, CHANNELS]: the sums of dx over the batch, 0 from row `sequence` on.
//     sort_blocks = ceil(vocabulary / 256), over every token that occurs.
//     grid sort_blocks + ceil(positions * CHANNELS / 4096), block 1024.
// embedding_spans(order, sorted, dx, d_tokens, partials, {rows, span})
//     a block sums `span` sorted rows: tokens that lie within the span are added to their rows of d_tokens, sums that
//     cross a border go to partials f32 [2, spans, CHANNELS], uninitialised scratch. grid spans = ceil(rows / span),
//     block ROW_THREADS = CHANNELS / 4 rounded up to 32. span 8 up to 4 K rows, 16 up to 16 K, 32 above.
// embedding_finish(sorted, partials, d_tokens, {rows, span})
//     adds the sums that crossed a border to d_tokens. grid spans, block ROW_THREADS.

constexpr int FORWARD_WARPS = 4;

struct ForwardArgs {
    u64 rows, sequence, offset;
};

extern "C" __global__ void __launch_bounds__(32 * FORWARD_WARPS)
    embedding_forward(const int *__restrict__ tokens, const float *__restrict__ token_table,
                      const float *__restrict__ position_table, float *__restrict__ x,
                      const __grid_constant__ ForwardArgs args) {
    constexpr int QUADS = (CHANNELS + 127) / 128;
    const u64 row = u64(blockIdx.x) * FORWARD_WARPS + threadIdx.x / 32;
    if (row >= args.rows) return;
    const float *const token = token_table + u64(tokens[row]) * CHANNELS;
    const float *const position = position_table + (args.offset + row % args.sequence) * CHANNELS;
    float4 v[QUADS];
#pragma unroll
    for (int i = 0; i < QUADS; ++i) {
        const int channel = 128 * i + 4 * (threadIdx.x % 32);
        v[i] = channel < CHANNELS ? load4(token + channel) + load4(position + channel) : zero4();
    }
#pragma unroll
    for (int i = 0; i < QUADS; ++i) {
        const int channel = 128 * i + 4 * (threadIdx.x % 32);
        if (channel < CHANNELS) store4(x + row * CHANNELS + channel, v[i]);
    }
}

constexpr int SORT_WARPS = 32;
constexpr int SORT_BINS = 256; // tokens a block sorts
constexpr int BATCH = 8;       // loads in flight

struct SortArgs {
    u64 rows, sort_blocks, sequence, positions;
};

// Four channels of the sums over the batch; `quad` counts groups of four channels.
__device__ __forceinline__ void sum_positions(const float *dx, float *d_positions, u64 quad, const SortArgs &args) {
    constexpr int BATCH = 4; // what the registers of two blocks a multiprocessor leave room for
    const u64 position = quad / (CHANNELS / 4);
    if (position >= args.positions) return;
    float4 sum = zero4();
    if (position < args.sequence) {
        const u64 step = args.sequence * CHANNELS;
        const float *at = dx + 4 * quad, *const end = dx + args.rows * CHANNELS;
        for (; at < end; at += BATCH * step) {
            float4 v[BATCH];
#pragma unroll
            for (int i = 0; i < BATCH; ++i) v[i] = at + i * step < end ? load4(at + i * step) : zero4();
#pragma unroll
            for (int i = 0; i < BATCH; ++i) sum = sum + v[i];
        }
    }
    store4(d_positions + 4 * quad, sum);
}

// Every block reads all tokens: those below its own tell where its part of the order begins. Each warp counts, then
// places, one contiguous share of the rows, which keeps the sort stable. The sort leaves the memory idle: further
// blocks use it for the positions.
extern "C" __global__ void __launch_bounds__(32 * SORT_WARPS, 2)
    embedding_sort(const int *__restrict__ tokens, const float *__restrict__ dx, u32 *__restrict__ order,
                   int *__restrict__ sorted, float *__restrict__ d_positions, const __grid_constant__ SortArgs args) {
    if (blockIdx.x >= args.sort_blocks) {
        sum_positions(dx, d_positions, (blockIdx.x - args.sort_blocks) * 32 * SORT_WARPS + threadIdx.x, args);
        return;
    }
    __shared__ u32 cursor[SORT_WARPS][SORT_BINS]; // counts, then the next place of a warp's token
    __shared__ u32 warp_below[SORT_WARPS], bin_total[SORT_BINS / 32];
    const int warp = threadIdx.x / 32, lane = threadIdx.x % 32;
    const int rows = args.rows, low = blockIdx.x * SORT_BINS;
    const int share = (rows + 32 * SORT_WARPS - 1) / (32 * SORT_WARPS) * 32;
    const int begin = warp * share, end = min(begin + share, rows);

    for (int bin = lane; bin < SORT_BINS; bin += 32) cursor[warp][bin] = 0;
    __syncwarp();
    u32 below = 0;
    for (int first = begin + lane; first < end; first += 32 * BATCH) {
        int token[BATCH];
#pragma unroll
        for (int i = 0; i < BATCH; ++i) token[i] = first + 32 * i < end ? tokens[first + 32 * i] : 0x7fffffff;
#pragma unroll
        for (int i = 0; i < BATCH; ++i) {
            below += token[i] < low;
            if ((u32)(token[i] - low) < SORT_BINS) atomicAdd(&cursor[warp][token[i] - low], 1u);
        }
    }
    below = block_sum(below, warp_below); // its barrier also completes the counts

    // Exclusive sums over bins, and within a bin over warps.
    u32 total = 0, inclusive;
    if (threadIdx.x < SORT_BINS) {
#pragma unroll
        for (int w = 0; w < SORT_WARPS; ++w) total += cursor[w][threadIdx.x];
        inclusive = total;
#pragma unroll
        for (int step = 1; step < 32; step *= 2) {
            const u32 left = __shfl_up_sync(~0u, inclusive, step);
            if (lane >= step) inclusive += left;
        }
        if (lane == 31) bin_total[warp] = inclusive;
    }
    __syncthreads();
    if (threadIdx.x < SORT_BINS) {
        u32 place = below + inclusive - total;
        for (int w = 0; w < warp; ++w) place += bin_total[w];
#pragma unroll
        for (int w = 0; w < SORT_WARPS; ++w) {
            const u32 count = cursor[w][threadIdx.x];
            cursor[w][threadIdx.x] = place;
            place += count;
        }
    }
    __syncthreads();

    for (int first = begin; first < end; first += 32 * BATCH) {
        int token[BATCH];
#pragma unroll
        for (int i = 0; i < BATCH; ++i) {
            const int row = first + 32 * i + lane;
            token[i] = row < end ? tokens[row] : 0x7fffffff;
        }
#pragma unroll
        for (int i = 0; i < BATCH; ++i) {
            const int bin = token[i] - low;
            const bool mine = (u32)bin < SORT_BINS;
            if (!__any_sync(~0u, mine)) continue;
            const u32 equal = __match_any_sync(~0u, mine ? bin : -1);
            const u32 earlier = equal & ((1u << lane) - 1);
            u32 place = 0;
            if (mine) {
                place = cursor[warp][bin] + __popc(earlier);
                order[place] = first + 32 * i + lane;
                sorted[place] = token[i];
            }
            __syncwarp();
            if (mine && equal >> lane == 1) cursor[warp][bin] = place + 1; // the last of its token
            __syncwarp();
        }
    }
}

constexpr int ROW_THREADS = (CHANNELS + 127) / 128 * 32;

struct SpanArgs {
    u64 rows, span;
};

extern "C" __global__ void __launch_bounds__(ROW_THREADS)
    embedding_spans(const u32 *__restrict__ order, const int *__restrict__ sorted, const float *__restrict__ dx,
                    float *__restrict__ d_tokens, float *__restrict__ partials, const __grid_constant__ SpanArgs args) {
    const int channel = 4 * threadIdx.x;
    if (channel >= CHANNELS) return;
    const int rows = args.rows, begin = blockIdx.x * args.span, end = min(begin + (int)args.span, rows);
    float *const head = partials + u64(blockIdx.x) * CHANNELS + channel;
    float *const tail = head + u64(gridDim.x) * CHANNELS;

    int token = sorted[begin];
    bool crosses = begin > 0 && sorted[begin - 1] == token; // the token began in an earlier span
    float4 sum = zero4();
    const auto add = [&]() {
        float *const at = d_tokens + u64(token) * CHANNELS + channel;
        store4(at, load4(at) + sum);
    };
    for (int first = begin; first < end; first += BATCH) {
        int next[BATCH];
        float4 v[BATCH];
#pragma unroll
        for (int i = 0; i < BATCH; ++i) {
            const bool valid = first + i < end;
            next[i] = valid ? sorted[first + i] : 0;
            v[i] = valid ? load4(dx + (u64)order[first + i] * CHANNELS + channel) : zero4();
        }
#pragma unroll
        for (int i = 0; i < BATCH; ++i) {
            if (first + i >= end) break;
            if (next[i] != token) {
                if (crosses) store4(head, sum);
                else add();
                token = next[i];
                crosses = false;
                sum = zero4();
            }
            sum = sum + v[i];
        }
    }
    if (crosses) store4(head, sum);
    else if (end < rows && sorted[end] == token) store4(tail, sum);
    else add();
}

extern "C" __global__ void __launch_bounds__(ROW_THREADS)
    embedding_finish(const int *__restrict__ sorted, const float *__restrict__ partials, float *__restrict__ d_tokens,
                     const __grid_constant__ SpanArgs args) {
    const int channel = 4 * threadIdx.x;
    if (channel >= CHANNELS) return;
    const int rows = args.rows, span = args.span, spans = gridDim.x;

    // The token whose rows begin in this span and go on in the next, if there is one.
    const int begin = blockIdx.x * span, end = begin + span;
    if (end >= rows) return;
    const int token = sorted[end];
    if (sorted[end - 1] != token || (begin > 0 && sorted[begin - 1] == token)) return;
    const float *const heads = partials + channel, *const tails = heads + (u64)spans * CHANNELS;
    float4 sum = load4(tails + u64(blockIdx.x) * CHANNELS);
    bool more = true;
    for (int first = blockIdx.x + 1; more && first < spans; first += BATCH) {
        float4 v[BATCH];
        int next[BATCH];
#pragma unroll
        for (int i = 0; i < BATCH; ++i) {
            const bool valid = first + i < spans;
            next[i] = valid ? sorted[(first + i) * span] : -1;
            v[i] = valid ? load4(heads + (u64)(first + i) * CHANNELS) : zero4(); // perhaps unwritten, then not used
        }
#pragma unroll
        for (int i = 0; i < BATCH; ++i) {
            more = more && next[i] == token;
            if (more) sum = sum + v[i];
        }
    }
    float *const at = d_tokens + u64(token) * CHANNELS + channel;
    store4(at, load4(at) + sum);
}
