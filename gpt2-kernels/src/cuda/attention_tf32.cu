// Causal attention in TF32 on the tensor cores (mma.sync, sm_80 and later), forward and backward, straight from the
// packed projections qkv [B, T, 3C]: query, key and value side by side, each of them H heads of 64, C = 64 H.
// Everything in memory is f32; operands are rounded to TF32 on their way into a product, sums and softmax are f32.
// Follows common.cuh and warp.cuh. Parameters and grids are those of attention_f32.cu. T is arbitrary; nothing of size
// T x T reaches memory; every sum has a fixed order.
//
// Defines: PASS picks the one kernel that is compiled:
//
//   PASS 0  attention_tf32_forward         const float *qkv, float *out [B, T, C], float *log_sum [B, H, T], Args
//           log_sum: natural logarithm of the sum of the exponentials of the scores, scaled by 1/8.
//   PASS 1  attention_tf32_backward_query  const float *qkv, const float *out, const float *d_out,
//                                          const float *log_sum, float *delta [B, H, T], float *d_qkv [B, T, 3C], Args
//           Writes the queries' third of d_qkv, and delta (the sum over a head of out * d_out, rounded), scratch for
//           pass 2.
//   PASS 2  attention_tf32_backward_key    const float *qkv, const float *d_out, const float *log_sum,
//                                          const float *delta, float *d_qkv, Args
//           Writes the keys' and values' thirds of d_qkv. Runs after pass 1.
//
//   Args {batch, heads, tokens}
//   grid (batch * heads, ceil(tokens / ROWS), 1), block 128, dynamic shared memory SHARED bytes:
//     PASS 0  ROWS 128, SHARED  98304 (96 KiB)
//     PASS 1  ROWS  64, SHARED  98560 (96 KiB + 256)
//     PASS 2  ROWS  64, SHARED  99328 (97 KiB)

struct Args {
    u64 batch, heads, tokens;
};

// A warp owns 32 rows of the result, as two tiles of 16, so that what it reads of the other operand serves two
// products.
static_assert(HEAD_SIZE == 64, "the layouts of tiles are made for it");
constexpr u32 D = HEAD_SIZE;
constexpr u32 ROWS = PASS == 0 ? 128 : 64;
constexpr u32 TILE = 64;                             // rows of a tile of the side that is walked over
constexpr u32 COLUMNS = PASS == 0 ? TILE : TILE / 2; // of them, those that one warp looks at
constexpr u32 THREADS = 128;
constexpr u32 ROW_BYTES = D * 4, TILE_BYTES = TILE * ROW_BYTES;
constexpr float SCALE = 0.125f; // 1 / sqrt(D)

// Accumulators of 32 rows by N columns. A thread's element [m][n][2 h + e] is row 16 m + 8 h + lane / 4; its column is
// 8 n + 2 (lane % 4) + e in a matrix of scores, and as column() says in a result.
template <u32 N> using Sums = float[2][N / 8][4];
// Left operand of the products along 8 channels.
using Operand = u32[2][4];

// A product cuts off the last 13 bits of its operands. After this it sees one of the two neighbours of x in TF32,
// mostly the nearer one and on average neither too small nor too large, and x itself if that is in TF32; NaN stays NaN.
// This is one instruction; cvt.rna.tf32 is two.
constexpr float TO_TF32 = 1.0f + 0x1p-11f * 2.0f / 3.0f;
__device__ __forceinline__ float to_tf32(float x) { return x * TO_TF32; }
__device__ __forceinline__ float4 to_tf32(float4 v) { return v * TO_TF32; }
__device__ __forceinline__ u32 operand(float x) { return __float_as_uint(to_tf32(x)); }
// What a product sees of x.
__device__ __forceinline__ float cut(float x) { return __uint_as_float(__float_as_uint(x) & 0xffffe000u); }

// What a block works on: a head of the batch, and which rows of it. The heads come in groups, one group after the
// other, so that what the blocks of a head share is still in the L2 cache. On an H100, for 1024 tokens, this saves 10 %
// of the time of 384 heads and 3 % of that of 192; it costs 2 % at 96, where there is one group only.
constexpr u32 GROUP = 96;
struct Work {
    u32 head, piece;
    __device__ Work() {
        u32 at = blockIdx.y * gridDim.x + blockIdx.x, first = at / (GROUP * gridDim.y) * GROUP;
        u32 width = min(GROUP, gridDim.x - first);
        at -= first * gridDim.y;
        head = first + at % width;
        piece = at / width;
    }
};

// ---- shared memory -------------------------------------------------------------------------------------------------

// Address of 16 bytes of a tile; they are permuted within a row so that 8 rows of one column touch all banks.
__device__ __forceinline__ u32 chunk_address(u32 tile, u32 row, u32 chunk) {
    return tile + row * ROW_BYTES + (chunk ^ row % 8) * 16;
}

// Starts copying COUNT rows of a head, from row `first`, into a tile; rows from `tokens` on become zeros.
template <u32 COUNT>
__device__ __forceinline__ void copy_rows(u32 tile, const float *head, u32 pitch, u32 first, u32 tokens) {
#pragma unroll
    for (u32 i = 0; i < COUNT * (D / 4) / THREADS; i++) {
        u32 at = i * THREADS + threadIdx.x, row = at / (D / 4), chunk = at % (D / 4);
        bool inside = first + row < tokens;
        const float *from = head + (u64)(inside ? first + row : 0) * pitch + chunk * 4;
        copy_chunk(chunk_address(tile, row, chunk), from, inside);
    }
}

// Rounds the pieces of a tile that this thread has copied.
template <u32 COUNT> __device__ __forceinline__ void round_rows(u32 tile) {
#pragma unroll
    for (u32 i = 0; i < COUNT * (D / 4) / THREADS; i++) {
        u32 at = i * THREADS + threadIdx.x, address = chunk_address(tile, at / (D / 4), at % (D / 4));
        store_shared(address, to_tf32(load_shared<float4>(address)));
    }
}

// ---- products ------------------------------------------------------------------------------------------------------

// The 32 rows of a tile from `row` on as a left operand along channels 8 k to 8 k + 7.
__device__ __forceinline__ void load_operand(Operand &a, u32 tile, u32 row, u32 k) {
    u32 lane = threadIdx.x % 32;
#pragma unroll
    for (u32 m = 0; m < 2; m++) load_matrices(a[m], chunk_address(tile, row + 16 * m + lane % 16, 2 * k + lane / 16));
}

// sum += a b, or sum = a b; unlike mma_tf32, it may start from zeros that are in no register.
__device__ __forceinline__ void mma(float (&sum)[4], const u32 (&a)[4], u32 b0, u32 b1, bool add = true) {
    float c[4] = {};
    if (add)
#pragma unroll
        for (u32 i = 0; i < 4; i++) c[i] = sum[i];
    asm("mma.sync.aligned.m16n8k8.row.col.f32.tf32.tf32.f32 "
        "{%0, %1, %2, %3}, {%4, %5, %6, %7}, {%8, %9}, {%10, %11, %12, %13};"
        : "=f"(sum[0]), "=f"(sum[1]), "=f"(sum[2]), "=f"(sum[3])
        : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b0), "r"(b1), "f"(c[0]), "f"(c[1]), "f"(c[2]), "f"(c[3]));
}

// s += a B^T along the channels 8 k to 8 k + 7 (s = ... for the first of them), for the rows of the tile B from `row`
// on.
__device__ __forceinline__ void add_scores(Sums<COLUMNS> &s, const Operand &a, u32 tile, u32 row, u32 k) {
    u32 lane = threadIdx.x % 32;
#pragma unroll
    for (u32 n = 0; n < COLUMNS / 8; n += 2) {
        u32 b[4];
        load_matrices(b, chunk_address(tile, row + 8 * n + lane / 16 * 8 + lane % 8, 2 * k + lane / 8 % 2));
#pragma unroll
        for (u32 i = 0; i < 4; i++) b[i] = operand(__uint_as_float(b[i]));
#pragma unroll
        for (u32 m = 0; m < 2; m++) {
            mma(s[m][n], a[m], b[0], b[1], k > 0);
            mma(s[m][n + 1], a[m], b[2], b[3], k > 0);
        }
    }
}

// s = A B^T for a left operand in registers, or of the rows of tile A from row_a on.
__device__ __forceinline__ void scores(Sums<COLUMNS> &s, const Operand (&a)[D / 8], u32 b, u32 row_b) {
#pragma unroll
    for (u32 k = 0; k < D / 8; k++) add_scores(s, a[k], b, row_b, k);
}
__device__ __forceinline__ void scores(Sums<COLUMNS> &s, u32 a, u32 row_a, u32 b, u32 row_b) {
#pragma unroll
    for (u32 k = 0; k < D / 8; k++) {
        Operand rows;
        load_operand(rows, a, row_a, k);
        add_scores(s, rows, b, row_b, k);
    }
}

// o += P B, for the rows of the tile B from `row` on. A thread's elements of P are its elements of the left operand if
// the products take the keys of every eight in the order 0 2 4 6 1 3 5 7. It loads four neighbouring channels of B at
// once, for four products: the columns of a product are four apart.
__device__ __forceinline__ void weigh(Sums<D> &o, const Sums<COLUMNS> &p, u32 tile, u32 row) {
    u32 lane = threadIdx.x % 32;
#pragma unroll
    for (u32 k = 0; k < COLUMNS / 8; k++) {
        Operand a;
#pragma unroll
        for (u32 m = 0; m < 2; m++)
#pragma unroll
            for (u32 i = 0; i < 4; i++) a[m][i] = operand(p[m][k][i % 2 * 2 + i / 2]);
#pragma unroll
        for (u32 half = 0; half < 2; half++) {
            float4 even = load_shared<float4>(chunk_address(tile, row + 8 * k + lane % 4 * 2, 8 * half + lane / 4));
            float4 odd = load_shared<float4>(chunk_address(tile, row + 8 * k + lane % 4 * 2 + 1, 8 * half + lane / 4));
            u32 b[4][2] = {{operand(even.x), operand(odd.x)},
                           {operand(even.y), operand(odd.y)},
                           {operand(even.z), operand(odd.z)},
                           {operand(even.w), operand(odd.w)}};
#pragma unroll
            for (u32 n = 0; n < 4; n++)
#pragma unroll
                for (u32 m = 0; m < 2; m++) mma(o[m][4 * half + n], a[m], b[n][0], b[n][1]);
        }
    }
}

// Takes out the scores that `hidden` says of their row and column, both counted from the warp's first.
template <typename Predicate> __device__ __forceinline__ void mask(Sums<COLUMNS> &s, Predicate hidden) {
    u32 lane = threadIdx.x % 32;
#pragma unroll
    for (u32 m = 0; m < 2; m++)
#pragma unroll
        for (u32 n = 0; n < COLUMNS / 8; n++)
#pragma unroll
            for (u32 i = 0; i < 4; i++)
                if (hidden(16 * m + i / 2 * 8 + lane / 4, 8 * n + lane % 4 * 2 + i % 2)) s[m][n][i] = NEGATIVE_INFINITY;
}

// Of a thread's elements [m][4 half ..][2 h + e] of a result: four neighbours, from this column on.
__device__ __forceinline__ u32 column(u32 half, u32 e) { return 32 * half + threadIdx.x % 4 * 8 + 4 * e; }
__device__ __forceinline__ float4 neighbours(const float (&o)[D / 8][4], u32 half, u32 h, u32 e) {
    return make_float4(o[4 * half][2 * h + e], o[4 * half + 1][2 * h + e], o[4 * half + 2][2 * h + e],
                       o[4 * half + 3][2 * h + e]);
}

#if PASS == 0

constexpr float SLACK = 64.0f; // a weight may grow to e^(SLACK * SCALE) before the sums are scaled down

extern "C" __global__ void __launch_bounds__(THREADS, 2)
    attention_tf32_forward(const float *qkv, float *out, float *log_sum, const __grid_constant__ Args args) {
    extern __shared__ __align__(128) u8 shared[];
    const u32 query_tile = shared_address(shared), ring = query_tile + 2 * TILE_BYTES;
    const Work work;
    const u32 tokens = args.tokens, head = work.head % (u32)args.heads, lane = threadIdx.x % 32;
    const u32 row = threadIdx.x / 32 * 32;
    const u32 batch = work.head / (u32)args.heads, channels = args.heads * D, pitch = 3 * channels;
    const u32 first = (gridDim.y - 1 - work.piece) * ROWS; // the longest blocks start first
    const float *queries = qkv + (u64)batch * tokens * pitch + head * D;
    const float *keys = queries + channels, *values = keys + channels;
    const u32 end = min(first + ROWS, tokens);
    const auto copy = [&](u32 start) {
        u32 target = ring + start / TILE % 2 * 2 * TILE_BYTES;
        copy_rows<TILE>(target, keys, pitch, start, tokens);
        copy_rows<TILE>(target + TILE_BYTES, values, pitch, start, tokens);
        copies_commit();
    };

    copy_rows<ROWS>(query_tile, queries, pitch, first, tokens);
    copies_commit();
    copy(0);
    copies_wait<1>();
    round_rows<ROWS>(query_tile);
    __syncthreads();
    Operand query[D / 8];
#pragma unroll
    for (u32 k = 0; k < D / 8; k++) load_operand(query[k], query_tile, row, k);
    Sums<D> o = {};
    float shift[2][2], total[2][2] = {};
#pragma unroll
    for (u32 i = 0; i < 4; i++) shift[i / 2][i % 2] = NEGATIVE_INFINITY;

    for (u32 start = 0; start < end; start += TILE) {
        copies_wait<0>();
        __syncthreads();
        if (start + TILE < end) copy(start + TILE);
        if (start > first + row + 31) continue; // all of it lies in the warp's future
        const u32 key_tile = ring + start / TILE % 2 * 2 * TILE_BYTES;
        Sums<TILE> s;
        scores(s, query, key_tile, 0);
        if (start + TILE - 1 > first + row)
            mask(s, [&](u32 query, u32 key) { return start + key > first + row + query; });
        float top[2][2];
        bool exceeded = false;
#pragma unroll
        for (u32 m = 0; m < 2; m++)
#pragma unroll
            for (u32 h = 0; h < 2; h++) {
                float &x = top[m][h] = shift[m][h];
#pragma unroll
                for (u32 n = 0; n < TILE / 8; n++) x = fmaxf(x, fmaxf(s[m][n][2 * h], s[m][n][2 * h + 1]));
                x = fmaxf(x, __shfl_xor_sync(~0u, x, 1));
                x = fmaxf(x, __shfl_xor_sync(~0u, x, 2));
                exceeded |= x > shift[m][h] + SLACK;
            }
        if (__any_sync(~0u, exceeded))
#pragma unroll
            for (u32 m = 0; m < 2; m++)
#pragma unroll
                for (u32 h = 0; h < 2; h++) {
                    float shrink = exp2_fast((shift[m][h] - top[m][h]) * (SCALE * LOG2_E));
                    shift[m][h] = top[m][h];
                    total[m][h] *= shrink;
#pragma unroll
                    for (u32 n = 0; n < D / 8; n++) o[m][n][2 * h] *= shrink, o[m][n][2 * h + 1] *= shrink;
                }
#pragma unroll
        for (u32 m = 0; m < 2; m++)
#pragma unroll
            for (u32 n = 0; n < TILE / 8; n++)
#pragma unroll
                for (u32 i = 0; i < 4; i++) {
                    float &x = s[m][n][i];
                    x = exp2_fast(fmaf(x, SCALE * LOG2_E, shift[m][i / 2] * (-SCALE * LOG2_E)));
                    total[m][i / 2] += x;
                }
        weigh(o, s, key_tile + TILE_BYTES, 0);
    }

    out += (u64)batch * tokens * channels + head * D;
#pragma unroll
    for (u32 m = 0; m < 2; m++)
#pragma unroll
        for (u32 h = 0; h < 2; h++) {
            float sum = total[m][h] + __shfl_xor_sync(~0u, total[m][h], 1);
            sum += __shfl_xor_sync(~0u, sum, 2);
            u32 at = first + row + 16 * m + 8 * h + lane / 4;
            if (at >= tokens) continue;
            if (lane % 4 == 0) log_sum[(u64)work.head * tokens + at] = fmaf(shift[m][h], SCALE, logf(sum));
            float inverse = 1.0f / sum;
#pragma unroll
            for (u32 i = 0; i < 4; i++) {
                float4 v = neighbours(o[m], i / 2, h, i % 2);
                *(float4 *)(out + (u64)at * channels + column(i / 2, i % 2)) = v * inverse;
            }
        }
}

#else

// The warps of a block stand two by two: `row` is where a warp's half of the block's rows starts, `part` where its half
// of the columns of every tile. In the end the two warps of a row share out what they have to add and write.

#if PASS == 1

extern "C" __global__ void __launch_bounds__(THREADS, 2)
    attention_tf32_backward_query(const float *qkv, const float *out, const float *d_out, const float *log_sum,
                                  float *delta, float *d_qkv, const __grid_constant__ Args args) {
    extern __shared__ __align__(128) u8 shared[];
    const u32 query_tile = shared_address(shared), slope_tile = query_tile + TILE_BYTES, ring = slope_tile + TILE_BYTES;
    float *const dots = (float *)(shared + 6 * TILE_BYTES);
    const Work work;
    const u32 tokens = args.tokens, head = work.head % (u32)args.heads, lane = threadIdx.x % 32;
    const u32 warp = threadIdx.x / 32;
    const u32 row = warp % 2 * 32, part = warp / 2 * 32;
    const u32 batch = work.head / (u32)args.heads, channels = args.heads * D, pitch = 3 * channels;
    const u32 first = (gridDim.y - 1 - work.piece) * ROWS; // the longest blocks start first
    const float *queries = qkv + (u64)batch * tokens * pitch + head * D;
    const float *keys = queries + channels, *values = keys + channels;
    const float *slopes = d_out + (u64)batch * tokens * channels + head * D;
    out += (u64)batch * tokens * channels + head * D;
    log_sum += (u64)work.head * tokens;
    delta += (u64)work.head * tokens;
    const auto copy = [&](u32 start) {
        u32 target = ring + start / TILE % 2 * 2 * TILE_BYTES;
        copy_rows<TILE>(target, keys, pitch, start, tokens);
        copy_rows<TILE>(target + TILE_BYTES, values, pitch, start, tokens);
        copies_commit();
    };

    copy_rows<ROWS>(query_tile, queries, pitch, first, tokens);
    copy_rows<ROWS>(slope_tile, slopes, channels, first, tokens);
    copies_commit();
    copy(0);
    float4 x[ROWS / 8];
#pragma unroll
    for (u32 i = 0; i < ROWS / 8; i++) {
        u32 at = min(first + 8 * i + threadIdx.x / 16, tokens - 1);
        x[i] = load4(out + (u64)at * channels + lane % 16 * 4);
    }
    copies_wait<1>();
    round_rows<ROWS>(query_tile);
#pragma unroll
    for (u32 i = 0; i < ROWS / 8; i++) {
        u32 r = 8 * i + threadIdx.x / 16, address = chunk_address(slope_tile, r, threadIdx.x % 16);
        float4 y = to_tf32(load_shared<float4>(address));
        store_shared(address, y);
        float dot = x[i].x * cut(y.x) + x[i].y * cut(y.y) + (x[i].z * cut(y.z) + x[i].w * cut(y.w));
#pragma unroll
        for (u32 distance = 8; distance > 0; distance /= 2) dot += __shfl_xor_sync(~0u, dot, distance);
        if (lane % 16 == 0) {
            dots[r] = dot;
            if (first + r < tokens) delta[first + r] = dot;
        }
    }
    __syncthreads();
    Operand query[D / 8];
#pragma unroll
    for (u32 k = 0; k < D / 8; k++) load_operand(query[k], query_tile, row, k);
    Sums<D> d_query = {};
    float shift[2][2], dot[2][2];
#pragma unroll
    for (u32 i = 0; i < 4; i++) {
        u32 at = first + row + 8 * i + lane / 4;
        shift[i / 2][i % 2] = at < tokens ? log_sum[at] * LOG2_E : 0.0f;
        dot[i / 2][i % 2] = dots[row + 8 * i + lane / 4];
    }

    for (u32 start = 0; start <= first; start += TILE) {
        copies_wait<0>();
        __syncthreads();
        if (start < first) copy(start + TILE);
        if (start + part > first + row) continue; // all of it lies in the warp's future
        const u32 key_tile = ring + start / TILE % 2 * 2 * TILE_BYTES;
        Sums<COLUMNS> p, ds;
        scores(p, query, key_tile, part);
        if (start + part == first + row) mask(p, [](u32 query, u32 key) { return key > query; });
        scores(ds, slope_tile, row, key_tile + TILE_BYTES, part);
#pragma unroll
        for (u32 m = 0; m < 2; m++)
#pragma unroll
            for (u32 n = 0; n < COLUMNS / 8; n++)
#pragma unroll
                for (u32 i = 0; i < 4; i++)
                    ds[m][n][i] =
                        exp2_fast(fmaf(p[m][n][i], SCALE * LOG2_E, -shift[m][i / 2])) * (ds[m][n][i] - dot[m][i / 2]);
        weigh(d_query, ds, key_tile, part);
    }

    // A warp finishes half of the channels.
    const u32 half = warp / 2, slot = ring + lane * 16;
    __syncthreads();
#pragma unroll
    for (u32 i = 0; i < 8; i++) {
        float4 low = neighbours(d_query[i / 4], 0, i / 2 % 2, i % 2);
        float4 high = neighbours(d_query[i / 4], 1, i / 2 % 2, i % 2);
        store_shared(slot + (warp * 8 + i) * 512, half ? low : high);
    }
    __syncthreads();
    float *const target = d_qkv + (u64)batch * tokens * pitch + head * D;
#pragma unroll
    for (u32 i = 0; i < 8; i++) {
        float4 low = neighbours(d_query[i / 4], 0, i / 2 % 2, i % 2);
        float4 high = neighbours(d_query[i / 4], 1, i / 2 % 2, i % 2);
        float4 v = ((half ? high : low) + load_shared<float4>(slot + ((warp ^ 2) * 8 + i) * 512)) * SCALE;
        u32 at = first + row + i / 2 * 8 + lane / 4;
        if (at < tokens) store4(target + (u64)at * pitch + column(half, i % 2), v);
    }
}

#else

extern "C" __global__ void __launch_bounds__(THREADS, 2)
    attention_tf32_backward_key(const float *qkv, const float *d_out, const float *log_sum, const float *delta,
                                float *d_qkv, const __grid_constant__ Args args) {
    extern __shared__ __align__(128) u8 shared[];
    const u32 key_tile = shared_address(shared), value_tile = key_tile + TILE_BYTES, ring = value_tile + TILE_BYTES;
    // log_sum and delta of a tile's rows; zeros, like the rows, from `tokens` on.
    const u32 ring_stats = ring + 4 * TILE_BYTES;
    const Work work;
    const u32 tokens = args.tokens, head = work.head % (u32)args.heads, lane = threadIdx.x % 32;
    const u32 warp = threadIdx.x / 32;
    const u32 row = warp % 2 * 32, part = warp / 2 * 32;
    const u32 batch = work.head / (u32)args.heads, channels = args.heads * D, pitch = 3 * channels;
    const u32 first = work.piece * ROWS;
    const float *queries = qkv + (u64)batch * tokens * pitch + head * D;
    const float *keys = queries + channels, *values = keys + channels;
    const float *slopes = d_out + (u64)batch * tokens * channels + head * D;
    const float *stats = (threadIdx.x < TILE ? log_sum : delta) + (u64)work.head * tokens;
    const auto copy = [&](u32 start) {
        u32 stage = start / TILE % 2, target = ring + stage * 2 * TILE_BYTES, at = start + threadIdx.x % TILE;
        bool inside = at < tokens;
        copy_rows<TILE>(target, queries, pitch, start, tokens);
        copy_rows<TILE>(target + TILE_BYTES, slopes, channels, start, tokens);
        copy_floats<1>(ring_stats + (stage * THREADS + threadIdx.x) * 4, stats + (inside ? at : 0), inside);
        copies_commit();
    };

    copy_rows<ROWS>(key_tile, keys, pitch, first, tokens);
    copy_rows<ROWS>(value_tile, values, pitch, first, tokens);
    copies_commit();
    copy(first);
    copies_wait<1>();
    round_rows<ROWS>(key_tile);
    round_rows<ROWS>(value_tile);
    Sums<D> d_key = {}, d_value = {};
    for (u32 start = first; start < tokens; start += TILE) {
        copies_wait<0>();
        __syncthreads();
        if (start + TILE < tokens) copy(start + TILE);
        if (start + part < first + row) continue; // all of it lies in the warp's past
        const u32 stage = start / TILE % 2, query_tile = ring + stage * 2 * TILE_BYTES;
        const u32 slope_tile = query_tile + TILE_BYTES;
        const float *const log_sums = (const float *)(shared + 6 * TILE_BYTES) + stage * THREADS + part + lane % 4 * 2;
        const float *const dots = log_sums + TILE;
        Sums<COLUMNS> p, ds;
        scores(p, key_tile, row, query_tile, part);
        if (start + part == first + row) mask(p, [](u32 key, u32 query) { return query < key; });
#pragma unroll
        for (u32 n = 0; n < COLUMNS / 8; n++) {
            float2 shift = *(const float2 *)(log_sums + 8 * n);
            shift.x *= LOG2_E, shift.y *= LOG2_E;
#pragma unroll
            for (u32 m = 0; m < 2; m++)
#pragma unroll
                for (u32 i = 0; i < 4; i++)
                    p[m][n][i] = exp2_fast(fmaf(p[m][n][i], SCALE * LOG2_E, i % 2 ? -shift.y : -shift.x));
        }
        weigh(d_value, p, slope_tile, part);
        scores(ds, value_tile, row, slope_tile, part);
#pragma unroll
        for (u32 n = 0; n < COLUMNS / 8; n++) {
            float2 dot = *(const float2 *)(dots + 8 * n);
#pragma unroll
            for (u32 m = 0; m < 2; m++)
#pragma unroll
                for (u32 i = 0; i < 4; i++) ds[m][n][i] = p[m][n][i] * (ds[m][n][i] - (i % 2 ? dot.y : dot.x));
        }
        weigh(d_key, ds, query_tile, part);
    }

    // A warp finishes keys or values.
    const u32 half = warp / 2, slot = ring + lane * 16;
    __syncthreads();
#pragma unroll
    for (u32 i = 0; i < 16; i++) {
        float4 k = neighbours(d_key[i / 8], i / 2 % 2, i / 4 % 2, i % 2);
        float4 v = neighbours(d_value[i / 8], i / 2 % 2, i / 4 % 2, i % 2);
        store_shared(slot + (warp * 16 + i) * 512, half ? k : v);
    }
    __syncthreads();
    float *const target = d_qkv + (u64)batch * tokens * pitch + (1 + half) * channels + head * D;
#pragma unroll
    for (u32 i = 0; i < 16; i++) {
        float4 k = neighbours(d_key[i / 8], i / 2 % 2, i / 4 % 2, i % 2);
        float4 v = neighbours(d_value[i / 8], i / 2 % 2, i / 4 % 2, i % 2);
        v = ((half ? v : k) + load_shared<float4>(slot + ((warp ^ 2) * 16 + i) * 512)) * (half ? 1.0f : SCALE);
        u32 at = first + row + i / 4 * 8 + lane / 4;
        if (at < tokens) store4(target + (u64)at * pitch + column(i / 2 % 2, i % 2), v);
    }
}

#endif
#endif
