// Causal multi-head attention with mma.sync, for sm_80 and later, straight from the packed projection. Follows
// common.cuh and warp.cuh.
//
// Defines: HEAD_SIZE, a multiple of 8 up to 128.
//
// Tensors    qkv, d_qkv  bf16 [batch, length, 3, heads, HEAD_SIZE]   (query, key, value side by side)
//            out, d_out  bf16 [batch, length, heads, HEAD_SIZE]
//            log_sum     f32  [batch, heads, length]    (natural log of the sum of exp(score / sqrt(HEAD_SIZE)))
//            stats       f32  written by attention_delta: [2, batch * heads, padded], padded = length rounded up to 64
//
// attention_forward(qkv, out, log_sum, args{batch, length, heads})
//   grid (ceil(length / 128) * batch * heads), block 256, dynamic shared memory (128 + 4 * 64) * ROW_BYTES
// attention_backward_keys(qkv, d_out, stats, d_qkv, args{batch, length, heads})      (writes keys and values of d_qkv)
//   grid (ceil(length / 64) * batch * heads), block 128, dynamic shared memory (128 + 4 * QUERIES) * ROW_BYTES + 1024
// attention_backward_queries(qkv, d_out, stats, d_qkv, args{batch, length, heads})   (writes queries of d_qkv)
//   grid (ceil(length / 64) * batch * heads), block 128, dynamic shared memory 6 * 64 * ROW_BYTES
//
// The length is arbitrary: rows beyond it are read as zeros and never written. Every sum has a fixed order, so results
// repeat bit for bit. A warp owns 16 rows of the result and keeps scores, probabilities and sums in registers; the
// accumulator layout of one product is the operand layout of the next. Longer pieces of work start first.

struct AttentionArgs {
    u64 batch, length, heads;
};

// 1 over the root of x.
__device__ constexpr float inverse_root(double x) {
    double root = x;
    for (int i = 0; i < 32; ++i) root = 0.5 * (root + x / root);
    return float(1.0 / root);
}

// A row of a tile is padded with zeros to what the products take.
constexpr u32 WIDTH = (HEAD_SIZE + 15) / 16 * 16;
constexpr u32 CHUNKS = WIDTH / 8, FILLED = HEAD_SIZE / 8; // 16-byte pieces of a row, and those in memory
// Eight rows of one column touch all banks where their chunks are permuted, or where rows are an odd number of chunks
// apart.
constexpr bool PERMUTED = CHUNKS == 4 || CHUNKS == 8 || CHUNKS == 16;
constexpr u32 ROW_BYTES = (PERMUTED ? CHUNKS : CHUNKS + 1) * 16;
constexpr u32 KEYS = 64;                      // keys of a tile, forward and for the gradient of queries
constexpr u32 QUERIES = WIDTH > 64 ? 32 : 64; // queries of a tile, for the gradients of keys and values
constexpr float SCALE = inverse_root(HEAD_SIZE);
constexpr float SCALE_LOG2 = SCALE * LOG2_E;

// ---- shared memory -------------------------------------------------------------------------------------------------

// Address of a 16-byte chunk.
__device__ __forceinline__ u32 chunk_address(u32 tile, u32 row, u32 chunk) {
    if (PERMUTED) chunk ^= CHUNKS >= 8 ? row % 8 : row / 2 % 4;
    return tile + row * ROW_BYTES + chunk * 16;
}
// ROWS rows of one head from `first` on; `source` is row 0. Rows beyond the length become zeros, and what pads a row.
template <u32 ROWS, u32 THREADS>
__device__ __forceinline__ void load_rows(u32 tile, const bf16 *source, u64 stride, u32 first, u32 length) {
#pragma unroll
    for (u32 i = 0; i < (ROWS * CHUNKS + THREADS - 1) / THREADS; ++i) {
        const u32 at = i * THREADS + threadIdx.x, row = at / CHUNKS, chunk = at % CHUNKS;
        if (ROWS * CHUNKS % THREADS && at >= ROWS * CHUNKS) break;
        const bool valid = first + row < length && chunk < FILLED;
        copy_chunk(chunk_address(tile, row, chunk), source + (valid ? first + row : 0) * stride + chunk * 8, valid);
    }
}

// ---- fragments and products ----------------------------------------------------------------------------------------
// Accumulator element 4 n + 2 h + e of a thread: row lane / 4 + 8 h of the warp, column 8 n + 2 (lane % 4) + e.

template <u32 N> __device__ __forceinline__ void pack_operand(u32 (&a)[N / 16][4], const float (&sum)[N / 2]) {
#pragma unroll
    for (u32 i = 0; i < N / 4; ++i) a[i / 4][i % 4] = bf16_pack(sum[2 * i], sum[2 * i + 1]);
}
// 16 rows from `row` on as a left operand.
__device__ __forceinline__ void load_operand(u32 (&a)[WIDTH / 16][4], u32 tile, u32 row) {
    const u32 lane = threadIdx.x % 32;
#pragma unroll
    for (u32 k = 0; k < WIDTH / 16; ++k) load_matrices(a[k], chunk_address(tile, row + lane % 16, 2 * k + lane / 16));
}
// scores = a * tile^T: the rows of the tile are the columns of the result.
template <u32 N>
__device__ __forceinline__ void multiply_scores(float (&scores)[N / 2], const u32 (&a)[WIDTH / 16][4], u32 tile) {
    const u32 lane = threadIdx.x % 32;
#pragma unroll
    for (u32 i = 0; i < N / 2; ++i) scores[i] = 0.0f;
#pragma unroll
    for (u32 k = 0; k < WIDTH / 16; ++k)
#pragma unroll
        for (u32 n = 0; n < N / 16; ++n) {
            u32 b[4];
            load_matrices(b, chunk_address(tile, 16 * n + lane % 8 + lane / 16 * 8, 2 * k + lane / 8 % 2));
            mma_bf16(scores + 8 * n, a[k], b[0], b[1]);
            mma_bf16(scores + 8 * n + 4, a[k], b[2], b[3]);
        }
}
// sum += a * tile: the rows of the tile are summed over.
template <u32 N>
__device__ __forceinline__ void multiply_add(float (&sum)[WIDTH / 2], const u32 (&a)[N / 16][4], u32 tile) {
    const u32 lane = threadIdx.x % 32;
#pragma unroll
    for (u32 k = 0; k < N / 16; ++k)
#pragma unroll
        for (u32 n = 0; n < WIDTH / 16; ++n) {
            u32 b[4];
            load_matrices_transposed(b, chunk_address(tile, 16 * k + lane % 16, 2 * n + lane / 16));
            mma_bf16(sum + 8 * n, a[k], b[0], b[1]);
            mma_bf16(sum + 8 * n + 4, a[k], b[2], b[3]);
        }
}
// Writes the warp's 16 rows, scaled and rounded, to rows first.. of `target`, through its rows of a tile.
__device__ __forceinline__ void store_rows(u32 tile, u32 row, const float (&sum)[WIDTH / 2], float scale_low,
                                           float scale_high, bf16 *target, u64 stride, u32 first, u32 length) {
    const u32 lane = threadIdx.x % 32;
    __syncwarp();
#pragma unroll
    for (u32 n = 0; n < CHUNKS; ++n) {
        const u32 low = bf16_pack(sum[4 * n] * scale_low, sum[4 * n + 1] * scale_low);
        const u32 high = bf16_pack(sum[4 * n + 2] * scale_high, sum[4 * n + 3] * scale_high);
        store_shared(chunk_address(tile, row + lane / 4, n) + lane % 4 * 4, low);
        store_shared(chunk_address(tile, row + lane / 4 + 8, n) + lane % 4 * 4, high);
    }
    __syncwarp();
#pragma unroll
    for (u32 i = 0; i < CHUNKS / 2; ++i) {
        const u32 at = i * 32 + lane, r = at / CHUNKS, chunk = at % CHUNKS;
        const float4 v = load_shared<float4>(chunk_address(tile, row + r, chunk));
        if (first + r < length && chunk < FILLED) *(float4 *)(target + (first + r) * stride + chunk * 8) = v;
    }
}

// ---- forward -------------------------------------------------------------------------------------------------------

extern "C" __global__ void __launch_bounds__(256, WIDTH > 64 ? 1 : 2)
    attention_forward(const bf16 *qkv, bf16 *out, float *log_sum, const __grid_constant__ AttentionArgs args) {
    extern __shared__ __align__(128) u8 shared[];
    const u32 query_tile = shared_address(shared), ring = query_tile + 128 * ROW_BYTES;
    const u32 length = args.length, heads = args.heads, batch_heads = args.batch * args.heads;
    const u32 block = gridDim.x / batch_heads - 1 - blockIdx.x / batch_heads, batch_head = blockIdx.x % batch_heads;
    const u32 batch = batch_head / heads, head = batch_head % heads, lane = threadIdx.x % 32;
    const u32 row = threadIdx.x / 32 * 16;
    const u64 stride = (u64)heads * HEAD_SIZE;
    const bf16 *const source = qkv + batch * length * 3 * stride + head * HEAD_SIZE;
    const u32 tiles = min(2 * block + 2, (length + KEYS - 1) / KEYS);
    const auto load = [&](u32 tile) {
        const u32 target = ring + tile % 2 * 2 * KEYS * ROW_BYTES;
        load_rows<KEYS, 256>(target, source + stride, 3 * stride, tile * KEYS, length);
        load_rows<KEYS, 256>(target + KEYS * ROW_BYTES, source + 2 * stride, 3 * stride, tile * KEYS, length);
        copies_commit();
    };

    load_rows<128, 256>(query_tile, source, 3 * stride, block * 128, length);
    load(0);
    u32 query[WIDTH / 16][4], probability[KEYS / 16][4];
    float scores[KEYS / 2], sum[WIDTH / 2];
    float maximum[2] = {NEGATIVE_INFINITY, NEGATIVE_INFINITY}, total[2] = {0.0f, 0.0f};
#pragma unroll
    for (u32 i = 0; i < WIDTH / 2; ++i) sum[i] = 0.0f;

    for (u32 tile = 0; tile < tiles; ++tile) {
        copies_wait<0>();
        __syncthreads();
        if (tile == 0) load_operand(query, query_tile, row);
        if (tile + 1 < tiles) load(tile + 1);
        const int limit = block * 128 + row + lane / 4 - tile * KEYS;  // last visible column of the thread's first row
        if ((int)(block * 128 + row + 15 - tile * KEYS) < 0) continue; // nothing visible to this warp
        const u32 keys = ring + tile % 2 * 2 * KEYS * ROW_BYTES;
        multiply_scores<KEYS>(scores, query, keys);
        if (block * 128 + row < tile * KEYS + KEYS - 1) {
#pragma unroll
            for (int i = 0; i < (int)KEYS / 2; ++i)
                if (i / 4 * 8 + (int)lane % 4 * 2 + i % 2 > limit + i / 2 % 2 * 8) scores[i] = NEGATIVE_INFINITY;
        }
        float top[2] = {maximum[0], maximum[1]};
#pragma unroll
        for (u32 i = 0; i < KEYS / 2; ++i) top[i / 2 % 2] = fmaxf(top[i / 2 % 2], scores[i]);
#pragma unroll
        for (u32 h = 0; h < 2; ++h) {
            top[h] = fmaxf(top[h], __shfl_xor_sync(~0u, top[h], 1));
            top[h] = fmaxf(top[h], __shfl_xor_sync(~0u, top[h], 2));
        }
        if (__any_sync(~0u, top[0] > maximum[0] || top[1] > maximum[1])) {
            const float keep[2] = {exp2_fast((maximum[0] - top[0]) * SCALE_LOG2),
                                   exp2_fast((maximum[1] - top[1]) * SCALE_LOG2)};
#pragma unroll
            for (u32 i = 0; i < WIDTH / 2; ++i) sum[i] *= keep[i / 2 % 2];
#pragma unroll
            for (u32 h = 0; h < 2; ++h) {
                maximum[h] = top[h];
                total[h] *= keep[h];
            }
        }
#pragma unroll
        for (u32 i = 0; i < KEYS / 2; ++i) {
            scores[i] = exp2_fast(scores[i] * SCALE_LOG2 - maximum[i / 2 % 2] * SCALE_LOG2);
            total[i / 2 % 2] += scores[i];
        }
        pack_operand<KEYS>(probability, scores);
        multiply_add<KEYS>(sum, probability, keys + KEYS * ROW_BYTES);
    }

    const u32 first = block * 128 + row;
#pragma unroll
    for (u32 h = 0; h < 2; ++h) {
        total[h] += __shfl_xor_sync(~0u, total[h], 1);
        total[h] += __shfl_xor_sync(~0u, total[h], 2);
        const u32 at = first + lane / 4 + 8 * h;
        if (lane % 4 == 0 && at < length)
            log_sum[(u64)batch_head * length + at] = maximum[h] * SCALE + __logf(total[h]);
    }
    store_rows(query_tile, row, sum, 1.0f / total[0], 1.0f / total[1], out + batch * length * stride + head * HEAD_SIZE,
               stride, first, length);
}

// ---- backward ------------------------------------------------------------------------------------------------------
// Seven products instead of five: gradients of keys and values sum over queries, the gradient of queries over keys,
// each in registers of its own block, so no partial sums pass through memory. With
// p = exp2(score * SCALE_LOG2 - stats[0]), dv = p^T d_out, dp = d_out v^T, ds = p * (dp - stats[1]),
// dk = SCALE ds^T q, dq = SCALE ds k.

extern "C" __global__ void __launch_bounds__(128, 2)
    attention_backward_keys(const bf16 *qkv, const bf16 *d_out, const float *stats, bf16 *d_qkv,
                            const __grid_constant__ AttentionArgs args) {
    extern __shared__ __align__(128) u8 shared[];
    const u32 key_tile = shared_address(shared), value_tile = key_tile + 64 * ROW_BYTES;
    const u32 ring = value_tile + 64 * ROW_BYTES, ring_stats = ring + 4 * QUERIES * ROW_BYTES;
    const u32 length = args.length, heads = args.heads, batch_heads = args.batch * args.heads;
    const u32 padded = gridDim.x / batch_heads * 64;
    const u32 block = blockIdx.x / batch_heads, batch_head = blockIdx.x % batch_heads;
    const u32 batch = batch_head / heads, head = batch_head % heads, lane = threadIdx.x % 32;
    const u32 row = threadIdx.x / 32 * 16;
    const u64 stride = (u64)heads * HEAD_SIZE, offset = batch * length * 3 * stride + head * HEAD_SIZE;
    const bf16 *const source = qkv + offset;
    const bf16 *const gradient = d_out + batch * length * stride + head * HEAD_SIZE;
    const u32 begin = block * 64 / QUERIES, end = (length + QUERIES - 1) / QUERIES;
    const auto load = [&](u32 tile) {
        const u32 target = ring + tile % 2 * 2 * QUERIES * ROW_BYTES, part = threadIdx.x / (QUERIES / 4);
        const u32 chunk = threadIdx.x % (QUERIES / 4);
        load_rows<QUERIES, 128>(target, source, 3 * stride, tile * QUERIES, length);
        load_rows<QUERIES, 128>(target + QUERIES * ROW_BYTES, gradient, stride, tile * QUERIES, length);
        if (part < 2)
            copy_chunk(ring_stats + ((tile % 2 * 2 + part) * QUERIES + chunk * 4) * 4,
                       stats + ((u64)part * batch_heads + batch_head) * padded + tile * QUERIES + chunk * 4, true);
        copies_commit();
    };

    load_rows<64, 128>(key_tile, source + stride, 3 * stride, block * 64, length);
    load_rows<64, 128>(value_tile, source + 2 * stride, 3 * stride, block * 64, length);
    load(begin);
    u32 key[WIDTH / 16][4], value[WIDTH / 16][4], left[QUERIES / 16][4];
    float p[QUERIES / 2], dp[QUERIES / 2], d_key[WIDTH / 2], d_value[WIDTH / 2];
#pragma unroll
    for (u32 i = 0; i < WIDTH / 2; ++i) d_key[i] = d_value[i] = 0.0f;

    for (u32 tile = begin; tile < end; ++tile) {
        copies_wait<0>();
        __syncthreads();
        if (tile == begin) {
            load_operand(key, key_tile, row);
            load_operand(value, value_tile, row);
        }
        if (tile + 1 < end) load(tile + 1);
        const u32 queries = ring + tile % 2 * 2 * QUERIES * ROW_BYTES;
        const u32 statistics = ring_stats + tile % 2 * 2 * QUERIES * 4 + lane % 4 * 8;
        multiply_scores<QUERIES>(p, key, queries);
#pragma unroll
        for (u32 n = 0; n < QUERIES / 8; ++n) {
            const float2 shift = load_shared<float2>(statistics + n * 32);
#pragma unroll
            for (u32 i = 0; i < 4; ++i)
                p[4 * n + i] = exp2_fast(p[4 * n + i] * SCALE_LOG2 - (i % 2 ? shift.y : shift.x));
        }
        const int limit = block * 64 + row + lane / 4 - tile * QUERIES; // first column that sees the thread's first row
        if (block * 64 + row + 15 > tile * QUERIES) {
#pragma unroll
            for (int i = 0; i < (int)QUERIES / 2; ++i)
                if (i / 4 * 8 + (int)lane % 4 * 2 + i % 2 < limit + i / 2 % 2 * 8) p[i] = 0.0f;
        }
        pack_operand<QUERIES>(left, p);
        multiply_add<QUERIES>(d_value, left, queries + QUERIES * ROW_BYTES);
        multiply_scores<QUERIES>(dp, value, queries + QUERIES * ROW_BYTES);
#pragma unroll
        for (u32 n = 0; n < QUERIES / 8; ++n) {
            const float2 delta = load_shared<float2>(statistics + QUERIES * 4 + n * 32);
#pragma unroll
            for (u32 i = 0; i < 4; ++i) dp[4 * n + i] = p[4 * n + i] * (dp[4 * n + i] - (i % 2 ? delta.y : delta.x));
        }
        pack_operand<QUERIES>(left, dp);
        multiply_add<QUERIES>(d_key, left, queries);
    }

    const u32 first = block * 64 + row;
    store_rows(key_tile, row, d_key, SCALE, SCALE, d_qkv + offset + stride, 3 * stride, first, length);
    store_rows(value_tile, row, d_value, 1.0f, 1.0f, d_qkv + offset + 2 * stride, 3 * stride, first, length);
}

extern "C" __global__ void __launch_bounds__(128, 2)
    attention_backward_queries(const bf16 *qkv, const bf16 *d_out, const float *stats, bf16 *d_qkv,
                               const __grid_constant__ AttentionArgs args) {
    extern __shared__ __align__(128) u8 shared[];
    const u32 query_tile = shared_address(shared), gradient_tile = query_tile + 64 * ROW_BYTES;
    const u32 ring = gradient_tile + 64 * ROW_BYTES;
    const u32 length = args.length, heads = args.heads, batch_heads = args.batch * args.heads;
    const u32 padded = gridDim.x / batch_heads * 64;
    const u32 block = gridDim.x / batch_heads - 1 - blockIdx.x / batch_heads, batch_head = blockIdx.x % batch_heads;
    const u32 batch = batch_head / heads, head = batch_head % heads, lane = threadIdx.x % 32;
    const u32 row = threadIdx.x / 32 * 16;
    const u64 stride = (u64)heads * HEAD_SIZE, offset = batch * length * 3 * stride + head * HEAD_SIZE;
    const bf16 *const source = qkv + offset;
    const auto load = [&](u32 tile) {
        const u32 target = ring + tile % 2 * 2 * KEYS * ROW_BYTES;
        load_rows<KEYS, 128>(target, source + stride, 3 * stride, tile * KEYS, length);
        load_rows<KEYS, 128>(target + KEYS * ROW_BYTES, source + 2 * stride, 3 * stride, tile * KEYS, length);
        copies_commit();
    };

    load_rows<64, 128>(query_tile, source, 3 * stride, block * 64, length);
    load_rows<64, 128>(gradient_tile, d_out + batch * length * stride + head * HEAD_SIZE, stride, block * 64, length);
    load(0);
    u32 query[WIDTH / 16][4], gradient[WIDTH / 16][4], left[KEYS / 16][4];
    float p[KEYS / 2], dp[KEYS / 2], d_query[WIDTH / 2], shift[2], delta[2];
#pragma unroll
    for (u32 i = 0; i < WIDTH / 2; ++i) d_query[i] = 0.0f;
#pragma unroll
    for (u32 h = 0; h < 2; ++h) {
        const u64 at = (u64)batch_head * padded + block * 64 + row + lane / 4 + 8 * h;
        shift[h] = stats[at];
        delta[h] = stats[(u64)batch_heads * padded + at];
    }

    for (u32 tile = 0; tile <= block; ++tile) {
        copies_wait<0>();
        __syncthreads();
        if (tile == 0) {
            load_operand(query, query_tile, row);
            load_operand(gradient, gradient_tile, row);
        }
        if (tile < block) load(tile + 1);
        const u32 keys = ring + tile % 2 * 2 * KEYS * ROW_BYTES;
        multiply_scores<KEYS>(p, query, keys);
        multiply_scores<KEYS>(dp, gradient, keys + KEYS * ROW_BYTES);
#pragma unroll
        for (u32 i = 0; i < KEYS / 2; ++i) p[i] = exp2_fast(p[i] * SCALE_LOG2 - shift[i / 2 % 2]);
        if (tile == block) {
#pragma unroll
            for (u32 i = 0; i < KEYS / 2; ++i)
                if (i / 4 * 8 + lane % 4 * 2 + i % 2 > row + lane / 4 + i / 2 % 2 * 8) p[i] = 0.0f;
        }
#pragma unroll
        for (u32 i = 0; i < KEYS / 2; ++i) dp[i] = p[i] * (dp[i] - delta[i / 2 % 2]);
        pack_operand<KEYS>(left, dp);
        multiply_add<KEYS>(d_query, left, keys);
    }
    store_rows(query_tile, row, d_query, SCALE, SCALE, d_qkv + offset, 3 * stride, block * 64 + row, length);
}
