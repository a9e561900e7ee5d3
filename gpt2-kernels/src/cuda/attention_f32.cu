// Causal attention in true f32 (FFMA), forward and backward, straight from the packed projections
// qkv [B, T, 3C]: query, key and value side by side, each of them H heads of HEAD_SIZE, C = H * HEAD_SIZE.
// Follows common.cuh and warp.cuh. T is arbitrary; nothing of size T x T reaches memory; every sum has a fixed order.
//
// Defines: HEAD_SIZE, a multiple of 8 up to 128; PASS picks the one kernel that is compiled:
//
//   PASS 0  attention_f32_forward         const float *qkv, float *out [B, T, C], float *log_sum [B, H, T], Args
//           log_sum: natural logarithm of the sum of the exponentials of the scores, scaled by 1 / sqrt(HEAD_SIZE).
//   PASS 1  attention_f32_backward_query  const float *qkv, const float *out, const float *d_out, const float *log_sum,
//                                         float *delta [B, H, T], float *d_qkv [B, T, 3C], Args
//           Writes the queries' third of d_qkv, and delta (the sum over a head of d_out * out), scratch for pass 2.
//   PASS 2  attention_f32_backward_key    const float *qkv, const float *d_out, const float *log_sum,
//                                         const float *delta, float *d_qkv, Args
//           Writes the keys' and values' thirds of d_qkv. Runs after pass 1.
//
//   Args {batch, heads, tokens}
//   grid (batch * heads, ceil(tokens / ROWS), 1), block THREADS = 128, dynamic shared memory SHARED bytes:
//     COLUMNS 64 (above 64 channels 32), D: HEAD_SIZE up to a multiple of 32
//     PASS 0     ROWS 128 (above 64 channels 64), SHARED = 4 * ((ROWS + 2 * COLUMNS) * D + ROWS * COLUMNS)
//     PASS 1, 2  ROWS  64 (above 64 channels 32), SHARED = 4 * ((2 * ROWS + 2 * COLUMNS) * D + ROWS * COLUMNS)

struct Args {
    u64 batch, heads, tokens;
};

// A block owns ROWS rows (queries; keys in pass 2) and walks over the other side in tiles of COLUMNS. A warp owns
// whole rows; its lanes form a grid of LANES_M x LANES_N, and a thread holds the rows lane_m, lane_m + LANES_M, ...
// and the columns lane_n, lane_n + LANES_N, ...
constexpr int D = (HEAD_SIZE + 31) / 32 * 32; // channels of a tile, the last of them zeros
constexpr bool WIDE = D > 64;                 // then tiles have fewer rows, so that they fit
constexpr int ROWS = (PASS == 0 ? 128 : 64) / (WIDE ? 2 : 1);
constexpr int COLUMNS = WIDE ? 32 : 64;
constexpr int THREADS = 128;
constexpr int LANES_N = 8, LANES_M = 4;
constexpr int WARP_ROWS = ROWS / (THREADS / 32);
constexpr int RM = WARP_ROWS / LANES_M; // rows per thread
constexpr int CN = COLUMNS / LANES_N;   // columns of a score tile per thread
constexpr int DN = D / LANES_N;         // columns of an output tile per thread, in fours

// Tiles lie in shared memory row by row, in groups of four floats whose order is permuted by the row, so that
// the rows a warp reads together lie in different banks: the offset of a group is combined with one of these.
__device__ __forceinline__ constexpr int tile_swap(int row) { return row % 8 * 4; }
__device__ __forceinline__ constexpr int score_swap(int row) { return row * LANES_N % 32; }

// Where this thread stands in its warp and its block.
struct Place {
    int lane_m, lane_n, warp_row;
    __device__ Place() {
        // Neighbouring lanes share rows and lanes two apart share columns: 16-byte shared loads then take two passes,
        // not four.
        int lane = threadIdx.x % 32;
        lane_m = (lane >> 1 & 1) | lane >> 4 << 1;
        lane_n = (lane & 1) | (lane >> 2 & 3) << 1;
        warp_row = threadIdx.x / 32 * WARP_ROWS;
    }
    __device__ int row(int i) const { return warp_row + i * LANES_M + lane_m; }
    __device__ int column(int j) const { return j * LANES_N + lane_n; }
    __device__ int output_column(int j) const { return j * LANES_N + lane_n * 4; }
};

// The sum or the maximum over the lanes that share a row, in a fixed order.
template <typename Operation> __device__ __forceinline__ float over_row(float x, Operation operation) {
    x = operation(x, __shfl_xor_sync(~0u, x, 1));
    x = operation(x, __shfl_xor_sync(~0u, x, 4));
    return operation(x, __shfl_xor_sync(~0u, x, 8));
}
__device__ __forceinline__ float row_sum(float x) {
    return over_row(x, [](float a, float b) { return a + b; });
}
__device__ __forceinline__ float row_max(float x) {
    return over_row(x, [](float a, float b) { return fmaxf(a, b); });
}

// Starts copying COUNT rows of a head, from row `first`, into a tile; rows from `tokens` on become zeros, and what pads
// a row.
template <int COUNT>
__device__ __forceinline__ void copy_tile(float *tile, const float *head, u64 pitch, int first, int tokens) {
#pragma unroll
    for (int v = threadIdx.x; v < COUNT * D / 4; v += THREADS) {
        int row = v / (D / 4), column = v % (D / 4) * 4;
        bool inside = first + row < tokens && column < HEAD_SIZE;
        const float *from = head + (inside ? first + row : 0) * pitch + column;
        copy_chunk(shared_address(tile + row * D + (column ^ tile_swap(row))), from, inside);
    }
    copies_commit();
}

// Waits for all but the last PENDING copies of this block.
template <int PENDING> __device__ __forceinline__ void wait_copies() {
    copies_wait<PENDING>();
    __syncthreads();
}

// s = A . B^T, for the tiles A [ROWS][D] and B [COLUMNS][D].
__device__ __forceinline__ void scores(float (&s)[RM][CN], const float *a, const float *b, const Place &at) {
    constexpr int SWAPS = 8 / LANES_M; // a thread's rows repeat their permutation after this many
    a += at.row(0) * D;
    b += at.column(0) * D;
#pragma unroll
    for (int i = 0; i < RM; i++)
#pragma unroll
        for (int j = 0; j < CN; j++) s[i][j] = 0.0f;
#pragma unroll 4
    for (int d = 0; d < D; d += 4) {
        float4 x[RM];
#pragma unroll
        for (int i = 0; i < RM; i++)
            x[i] = load4(a + (d ^ tile_swap(at.lane_m) ^ tile_swap(i % SWAPS * LANES_M)) + i * LANES_M * D);
        const float *from = b + (d ^ tile_swap(at.lane_n));
#pragma unroll
        for (int j = 0; j < CN; j++) {
            float4 y = load4(from + j * LANES_N * D);
#pragma unroll
            for (int i = 0; i < RM; i++) s[i][j] = fmaf(x[i].x, y.x, s[i][j]);
#pragma unroll
            for (int i = 0; i < RM; i++) s[i][j] = fmaf(x[i].y, y.y, s[i][j]);
#pragma unroll
            for (int i = 0; i < RM; i++) s[i][j] = fmaf(x[i].z, y.z, s[i][j]);
#pragma unroll
            for (int i = 0; i < RM; i++) s[i][j] = fmaf(x[i].w, y.w, s[i][j]);
        }
    }
}

// o += P . B, for the tiles P [ROWS][COLUMNS] of scores and B [COLUMNS][D].
__device__ __forceinline__ void weigh(float (&o)[RM][DN], const float *p, const float *b, const Place &at) {
    p += at.row(0) * COLUMNS;
#pragma unroll 2
    for (int n = 0; n < COLUMNS; n += 4) {
        float x[RM][4];
        const float *from = p + (n ^ score_swap(at.lane_m));
#pragma unroll
        for (int i = 0; i < RM; i++) {
            float4 v = load4(from + i * LANES_M * COLUMNS);
            x[i][0] = v.x, x[i][1] = v.y, x[i][2] = v.z, x[i][3] = v.w;
        }
#pragma unroll
        for (int k = 0; k < 4; k++)
#pragma unroll
            for (int j = 0; j < DN; j += 4) {
                float4 y = load4(b + (at.lane_n * 4 ^ tile_swap(n + k)) + (n + k) * D + j * LANES_N);
#pragma unroll
                for (int i = 0; i < RM; i++) {
                    o[i][j] = fmaf(x[i][k], y.x, o[i][j]);
                    o[i][j + 1] = fmaf(x[i][k], y.y, o[i][j + 1]);
                    o[i][j + 2] = fmaf(x[i][k], y.z, o[i][j + 2]);
                    o[i][j + 3] = fmaf(x[i][k], y.w, o[i][j + 3]);
                }
            }
    }
}

// A thread's element of a tile of scores.
__device__ __forceinline__ float &score(float *p, int i, int j, const Place &at) {
    return p[at.row(0) * COLUMNS + (at.column(j) ^ score_swap(at.lane_m)) + i * LANES_M * COLUMNS];
}

__device__ __forceinline__ void put_scores(float *p, const float (&s)[RM][CN], const Place &at) {
    __syncwarp();
#pragma unroll
    for (int i = 0; i < RM; i++)
#pragma unroll
        for (int j = 0; j < CN; j++) score(p, i, j, at) = s[i][j];
    __syncwarp();
}

// Writes the rows below `tokens` of an output tile, each times its factor.
__device__ __forceinline__ void write_rows(float *head, u64 pitch, int first, int tokens, const float (&o)[RM][DN],
                                           const float (&factor)[RM], const Place &at) {
#pragma unroll
    for (int i = 0; i < RM; i++) {
        int row = first + at.row(i);
        if (row >= tokens) continue;
#pragma unroll
        for (int j = 0; j < DN; j += 4)
            if (at.output_column(j) < HEAD_SIZE)
                store4(head + row * pitch + at.output_column(j),
                       make_float4(o[i][j], o[i][j + 1], o[i][j + 2], o[i][j + 3]) * factor[i]);
    }
}

#if PASS == 0

extern "C" __global__ void __launch_bounds__(THREADS, 2)
    attention_f32_forward(const float *qkv, float *out, float *log_sum, const __grid_constant__ Args args) {
    extern __shared__ __align__(1024) float shared[];
    float *query = shared, *key = query + ROWS * D, *value = key + COLUMNS * D, *weights = value + COLUMNS * D;
    const Place at;
    int tokens = (int)args.tokens, head = blockIdx.x % args.heads;
    u64 batch = blockIdx.x / args.heads, channels = args.heads * HEAD_SIZE, pitch = 3 * channels;
    int first = (gridDim.y - 1 - blockIdx.y) * ROWS; // the longest blocks start first
    const float *queries = qkv + batch * args.tokens * pitch + head * HEAD_SIZE;
    const float *keys = queries + channels, *values = keys + channels;

    copy_tile<ROWS>(query, queries, pitch, first, tokens);
    copy_tile<COLUMNS>(key, keys, pitch, 0, tokens);
    copy_tile<COLUMNS>(value, values, pitch, 0, tokens);

    float scale = LOG2_E * rsqrtf((float)HEAD_SIZE); // scores count powers of two
    float o[RM][DN] = {}, highest[RM], sum[RM];
#pragma unroll
    for (int i = 0; i < RM; i++) highest[i] = NEGATIVE_INFINITY, sum[i] = 0.0f;

    int end = min(first + ROWS, tokens);
    for (int column = 0; column < end; column += COLUMNS) {
        bool active = column < first + at.warp_row + WARP_ROWS; // otherwise all of it lies in the warp's future
        float s[RM][CN];
        wait_copies<1>();
        if (active) scores(s, query, key, at);
        __syncthreads();
        copy_tile<COLUMNS>(key, keys, pitch, column + COLUMNS, tokens);
        if (active) {
            bool whole = column + COLUMNS <= first + at.warp_row + 1;
#pragma unroll
            for (int i = 0; i < RM; i++) {
                float top = highest[i];
#pragma unroll
                for (int j = 0; j < CN; j++) {
                    if (!whole && column + at.column(j) > first + at.row(i)) s[i][j] = NEGATIVE_INFINITY;
                    top = fmaxf(top, s[i][j]);
                }
                top = row_max(top);
                float shift = top * scale, shrink = exp2_fast(fmaf(highest[i], scale, -shift));
                highest[i] = top;
                sum[i] *= shrink;
#pragma unroll
                for (int j = 0; j < CN; j++) {
                    s[i][j] = exp2_fast(fmaf(s[i][j], scale, -shift));
                    sum[i] += s[i][j];
                }
#pragma unroll
                for (int j = 0; j < DN; j++) o[i][j] *= shrink;
            }
            put_scores(weights, s, at);
        }
        wait_copies<1>();
        if (active) weigh(o, weights, value, at);
        __syncthreads();
        copy_tile<COLUMNS>(value, values, pitch, column + COLUMNS, tokens);
    }

    float inverse[RM];
#pragma unroll
    for (int i = 0; i < RM; i++) {
        sum[i] = row_sum(sum[i]);
        inverse[i] = 1.0f / sum[i];
        int row = first + at.row(i);
        if (at.lane_n == 0 && row < tokens)
            log_sum[blockIdx.x * args.tokens + row] = fmaf(highest[i], rsqrtf((float)HEAD_SIZE), logf(sum[i]));
    }
    write_rows(out + batch * args.tokens * channels + head * HEAD_SIZE, channels, first, tokens, o, inverse, at);
}

#elif PASS == 1

extern "C" __global__ void __launch_bounds__(THREADS, 2)
    attention_f32_backward_query(const float *qkv, const float *out, const float *d_out, const float *log_sum,
                                 float *delta, float *d_qkv, const __grid_constant__ Args args) {
    extern __shared__ __align__(1024) float shared[];
    float *query = shared, *slope = query + ROWS * D, *key = slope + ROWS * D, *value = key + COLUMNS * D;
    float *weights = value + COLUMNS * D;
    const Place at;
    int tokens = (int)args.tokens, head = blockIdx.x % args.heads;
    u64 batch = blockIdx.x / args.heads, channels = args.heads * HEAD_SIZE, pitch = 3 * channels;
    int first = (gridDim.y - 1 - blockIdx.y) * ROWS; // the longest blocks start first
    const float *queries = qkv + batch * args.tokens * pitch + head * HEAD_SIZE;
    const float *keys = queries + channels, *values = keys + channels;
    const float *slopes = d_out + batch * args.tokens * channels + head * HEAD_SIZE;
    out += batch * args.tokens * channels + head * HEAD_SIZE;
    log_sum += blockIdx.x * args.tokens;
    delta += blockIdx.x * args.tokens;

    copy_tile<ROWS>(query, queries, pitch, first, tokens);
    copy_tile<ROWS>(slope, slopes, channels, first, tokens);
    copy_tile<COLUMNS>(key, keys, pitch, 0, tokens);

    float scale = rsqrtf((float)HEAD_SIZE);
    float shift[RM], dot[RM];
#pragma unroll
    for (int i = 0; i < RM; i++) {
        int row = first + at.row(i);
        shift[i] = row < tokens ? log_sum[row] * LOG2_E : 0.0f;
        dot[i] = 0.0f;
        if (row < tokens)
#pragma unroll
            for (int j = 0; j < DN; j += 4) {
                if (at.output_column(j) >= HEAD_SIZE) continue;
                float4 x = load4(out + row * channels + at.output_column(j));
                float4 y = load4(slopes + row * channels + at.output_column(j));
                dot[i] += x.x * y.x + x.y * y.y + (x.z * y.z + x.w * y.w);
            }
        dot[i] = row_sum(dot[i]);
        if (at.lane_n == 0 && row < tokens) delta[row] = dot[i];
    }

    float d_query[RM][DN] = {};
    int end = min(first + ROWS, tokens);
    for (int column = 0; column < end; column += COLUMNS) {
        bool active = column < first + at.warp_row + WARP_ROWS;
        float s[RM][CN];
        copy_tile<COLUMNS>(value, values, pitch, column, tokens);
        wait_copies<1>();
        if (active) {
            scores(s, query, key, at);
            bool whole = column + COLUMNS <= first + at.warp_row + 1;
#pragma unroll
            for (int i = 0; i < RM; i++)
#pragma unroll
                for (int j = 0; j < CN; j++) {
                    bool past = whole || column + at.column(j) <= first + at.row(i);
                    s[i][j] = past ? exp2_fast(fmaf(s[i][j], scale * LOG2_E, -shift[i])) : 0.0f;
                }
            put_scores(weights, s, at);
        }
        wait_copies<0>();
        if (active) {
            scores(s, slope, value, at);
#pragma unroll
            for (int i = 0; i < RM; i++)
#pragma unroll
                for (int j = 0; j < CN; j++) s[i][j] = score(weights, i, j, at) * (s[i][j] - dot[i]);
            put_scores(weights, s, at);
            weigh(d_query, weights, key, at);
        }
        __syncthreads();
        copy_tile<COLUMNS>(key, keys, pitch, column + COLUMNS, tokens);
    }

    float factor[RM];
#pragma unroll
    for (int i = 0; i < RM; i++) factor[i] = scale;
    write_rows(d_qkv + batch * args.tokens * pitch + head * HEAD_SIZE, pitch, first, tokens, d_query, factor, at);
}

#else

extern "C" __global__ void __launch_bounds__(THREADS, 2)
    attention_f32_backward_key(const float *qkv, const float *d_out, const float *log_sum, const float *delta,
                               float *d_qkv, const __grid_constant__ Args args) {
    extern __shared__ __align__(1024) float shared[];
    float *key = shared, *value = key + ROWS * D, *query = value + ROWS * D, *slope = query + COLUMNS * D;
    float *weights = slope + COLUMNS * D;
    const Place at;
    int tokens = (int)args.tokens, head = blockIdx.x % args.heads;
    u64 batch = blockIdx.x / args.heads, channels = args.heads * HEAD_SIZE, pitch = 3 * channels;
    int first = blockIdx.y * ROWS;
    const float *queries = qkv + batch * args.tokens * pitch + head * HEAD_SIZE;
    const float *keys = queries + channels, *values = keys + channels;
    const float *slopes = d_out + batch * args.tokens * channels + head * HEAD_SIZE;
    log_sum += blockIdx.x * args.tokens;
    delta += blockIdx.x * args.tokens;

    int start = first / COLUMNS * COLUMNS;
    copy_tile<ROWS>(key, keys, pitch, first, tokens);
    copy_tile<ROWS>(value, values, pitch, first, tokens);
    copy_tile<COLUMNS>(query, queries, pitch, start, tokens);

    float scale = rsqrtf((float)HEAD_SIZE);
    float d_key[RM][DN] = {}, d_value[RM][DN] = {};
    for (int column = start; column < tokens; column += COLUMNS) {
        bool active = column + COLUMNS > first + at.warp_row; // otherwise all of it lies in the warp's past
        float s[RM][CN], shift[CN], dot[CN];
        copy_tile<COLUMNS>(slope, slopes, channels, column, tokens);
#pragma unroll
        for (int j = 0; j < CN; j++) {
            int c = column + at.column(j);
            shift[j] = c < tokens ? log_sum[c] * LOG2_E : POSITIVE_INFINITY; // weights of no query are zero
            dot[j] = c < tokens ? delta[c] : 0.0f;
        }
        wait_copies<1>();
        if (active) {
            scores(s, key, query, at);
            bool whole = column + 1 >= first + at.warp_row + WARP_ROWS;
#pragma unroll
            for (int i = 0; i < RM; i++)
#pragma unroll
                for (int j = 0; j < CN; j++) {
                    bool past = whole || column + at.column(j) >= first + at.row(i);
                    s[i][j] = past ? exp2_fast(fmaf(s[i][j], scale * LOG2_E, -shift[j])) : 0.0f;
                }
            put_scores(weights, s, at);
        }
        wait_copies<0>();
        if (active) {
            weigh(d_value, weights, slope, at);
            scores(s, value, slope, at);
#pragma unroll
            for (int i = 0; i < RM; i++)
#pragma unroll
                for (int j = 0; j < CN; j++) s[i][j] = score(weights, i, j, at) * (s[i][j] - dot[j]);
            put_scores(weights, s, at);
            weigh(d_key, weights, query, at);
        }
        __syncthreads();
        copy_tile<COLUMNS>(query, queries, pitch, column + COLUMNS, tokens);
    }

    float factor[RM], one[RM];
#pragma unroll
    for (int i = 0; i < RM; i++) factor[i] = scale, one[i] = 1.0f;
    float *target = d_qkv + batch * args.tokens * pitch + channels + head * HEAD_SIZE;
    write_rows(target, pitch, first, tokens, d_key, factor, at);
    write_rows(target + channels, pitch, first, tokens, d_value, one, at);
}

#endif
