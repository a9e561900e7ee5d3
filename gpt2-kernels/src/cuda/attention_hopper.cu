// Causal multi-head attention for Hopper (sm_90a), head size 64: wgmma fed by TMA, straight from the packed projection.
// Follows common.cuh, warp.cuh and hopper.cuh.
//
// Tensors    qkv, d_qkv  bf16 [batch, length, 3, heads, 64]   (query, key, value side by side)
//            out, d_out  bf16 [batch, length, heads, 64]
//            log_sum     f32  [batch, heads, length]          (natural log of the sum of exp(score / 8))
//            stats       f32  written by attention_delta: [2, batch * heads, padded] and one counter word;
//                        padded = length rounded up to 64
// Tensor maps, all bf16, box [1, 64, 1, 64], swizzle 128:
//            qkv, d_qkv  shape [batch, length, 3 * heads, 64], strides [length * 192 * heads, 192 * heads, 64, 1]
//            out, d_out  shape [batch, length, heads, 64],     strides [length * 64 * heads, 64 * heads, 64, 1]
//
// attention_forward(map qkv, map out, qkv, out, log_sum, args{batch, length, heads})
//   grid (ceil(length / 128) * batch * heads), block 256, dynamic shared memory FORWARD_SHARED bytes
// attention_backward(map qkv, map d_out, map d_qkv, qkv, d_out, d_qkv, stats, args{batch, length, heads})
//   grid (number of multiprocessors), block 384, dynamic shared memory BACKWARD_SHARED bytes
//   attention_delta must run before every call: it fills stats and resets the counter.
//
// The length is arbitrary: rows beyond it are read as zeros and never written. Nothing depends on the order in which
// blocks run, so results repeat bit for bit.
//
// Every operand tile is 64 rows of one head: 64 rows of 128 bytes, the 16-byte chunks of row r permuted by r % 8 (the
// 128-byte swizzle of TMA and wgmma). A warpgroup owns 64 rows of the result and keeps scores, probabilities and sums
// in registers; the accumulator layout of one product is the operand layout of the next.

struct AttentionArgs {
    u64 batch, length, heads;
};

static_assert(HEAD_SIZE == 64, "tiles are square");
constexpr u32 TILE = HEAD_SIZE; // rows of a tile, and the head size
constexpr u32 TILE_BYTES = TILE * 128;
constexpr u32 BLOCK_ROWS = 2 * TILE; // two warpgroups
constexpr float SCALE = 0.125f;      // 1 / sqrt(64)
constexpr float SCALE_LOG2 = SCALE * LOG2_E;

// ---- barriers and copies -------------------------------------------------------------------------------------------

// barrier_wait as one piece of assembly: with hopper.cuh's loop around it, ptxas allots these kernels' registers
// differently.
__device__ __forceinline__ void wait_for(u32 barrier, u32 parity) {
    asm volatile("{\n.reg .pred done;\n"
                 "AGAIN:\n"
                 "mbarrier.try_wait.parity.shared::cta.b64 done, [%0], %1;\n"
                 "@!done bra AGAIN;\n}" ::"r"(barrier),
                 "r"(parity)
                 : "memory");
}
// One arrival per warp, after all its lanes are done.
__device__ __forceinline__ void warp_arrive(u32 barrier) {
    __syncwarp();
    if (threadIdx.x % 32 == 0) barrier_arrive(barrier);
}
__device__ __forceinline__ void warpgroup_sync(u32 warpgroup) { named_barrier(1 + warpgroup, 128); }
// 64 rows of a head; `slot` counts heads, of the query first where a map has all three.
__device__ __forceinline__ void load_tile(u32 to, const TensorMap &map, u32 slot, u32 row, u32 batch, u32 barrier) {
    tma_load(to, map, barrier, 0, slot, row, batch);
}
__device__ __forceinline__ void store_tile(u32 from, const TensorMap &map, u32 slot, u32 row, u32 batch) {
    tma_store(from, map, 0, slot, row, batch);
}

// ---- tensor cores --------------------------------------------------------------------------------------------------

// wgmma_descriptor(address, 1024, 16) without its mask, which clears no bit here and changes what ptxas makes.
__device__ __forceinline__ u64 descriptor(u32 address) { return 1ull << 62 | 64ull << 32 | 1ull << 16 | address >> 4; }

// scores = rows * tile^T: the rows of the tile are the columns of the result. `rows` stay the same through a loop, but
// are not held in registers: ptxas of CUDA 13.0 reuses the registers of such an operand of wgmma inside the loop.
__device__ __forceinline__ void multiply_scores(float (&scores)[32], u32 rows, u32 tile) {
    const u64 a = descriptor(rows), b = descriptor(tile);
#pragma unroll
    for (int k = 0; k < 4; ++k) wgmma<0, 0>(scores, a + k * 2, b + k * 2, k > 0);
    wgmma_commit();
}
// sum += a * tile: the rows of the tile are summed over.
__device__ __forceinline__ void multiply_add(float (&sum)[32], const u32 (&a)[4][4], u32 tile) {
    const u64 b = descriptor(tile);
#pragma unroll
    for (int k = 0; k < 4; ++k) wgmma<1>(sum, a[k], b + k * 128);
    wgmma_commit();
}

// ---- fragments -----------------------------------------------------------------------------------------------------
// Accumulator element 4 n + 2 h + e of a thread: row 16 (warp % 4) + lane / 4 + 8 h, column 8 n + 2 (lane % 4) + e.

// An accumulator, rounded, as the left operand of the next product.
__device__ __forceinline__ void pack_operand(u32 (&a)[4][4], const float (&sum)[32]) {
#pragma unroll
    for (int i = 0; i < 16; ++i) a[i / 4][i % 4] = bf16_pack(sum[2 * i], sum[2 * i + 1]);
}
// Rounds an accumulator into a tile, the thread's two rows multiplied by the two scales.
__device__ __forceinline__ void write_tile(u32 tile, const float (&sum)[32], float scale_low, float scale_high) {
    const u32 lane = threadIdx.x % 32, row = threadIdx.x / 32 % 4 * 16 + lane / 4;
#pragma unroll
    for (int n = 0; n < 8; ++n) {
        const u32 address = tile + swizzle_128(row, n) + lane % 4 * 4;
        store_shared(address, bf16_pack(sum[4 * n] * scale_low, sum[4 * n + 1] * scale_low));
        store_shared(address + 1024, bf16_pack(sum[4 * n + 2] * scale_high, sum[4 * n + 3] * scale_high));
    }
}

// ---- order of the work ---------------------------------------------------------------------------------------------

// Position in the list of work: groups of heads small enough for the second-level cache, one after the other; within a
// group the longest pieces first. rank counts pieces of one head from the longest.
struct Piece {
    u32 head, rank;
};
__device__ __forceinline__ Piece locate(u32 index, u32 heads, u32 ranks, u32 group_limit) {
    const u32 groups = (heads + group_limit - 1) / group_limit, size = (heads + groups - 1) / groups;
    const u32 group = index / (size * ranks), within = index % (size * ranks);
    const u32 here = min(size, heads - group * size);
    return {group * size + within % here, within / here};
}

// ---- forward -------------------------------------------------------------------------------------------------------

constexpr u32 FORWARD_STAGES = 5;              // key and value tiles in flight
constexpr u32 FORWARD_RING = BLOCK_ROWS * 128; // after the queries
constexpr u32 FORWARD_BARRIERS = FORWARD_RING + FORWARD_STAGES * 2 * TILE_BYTES;
constexpr u32 FORWARD_SHARED = FORWARD_BARRIERS + 128 + 1024;
static_assert(2 * (FORWARD_SHARED + 1024) <= 228 * 1024, "two blocks share a multiprocessor");

// 128 queries a block. The first thread refills the ring: at tile i the stage of tile i - 2, so that the warpgroups may
// drift apart by a tile.
extern "C" __global__ void __launch_bounds__(256, 2)
    attention_forward(const __grid_constant__ TensorMap qkv_map, const __grid_constant__ TensorMap out_map,
                      const bf16 *, bf16 *, float *log_sum, const __grid_constant__ AttentionArgs args) {
    extern __shared__ __align__(1024) u8 shared[];
    const u32 base = (shared_address(shared) + 1023) & ~1023u;
    const u32 length = args.length, heads = args.heads, batch_heads = args.batch * args.heads;
    const u32 blocks = (length + BLOCK_ROWS - 1) / BLOCK_ROWS;
    const Piece piece = locate(blockIdx.x, batch_heads, blocks, max(1u, (20u << 20) / (length * 256)));
    const u32 block = blocks - 1 - piece.rank, batch = piece.head / heads, head = piece.head % heads;
    const u32 warpgroup = threadIdx.x / 128, lane = threadIdx.x % 32;
    const u32 tiles = min(2 * block + 2, (length + TILE - 1) / TILE);

    const u32 query_full = base + FORWARD_BARRIERS;
    const auto key_tile = [&](u32 stage) { return base + FORWARD_RING + stage * 2 * TILE_BYTES; };
    const auto full = [&](u32 stage) { return query_full + 8 + stage * 8; };
    const auto empty = [&](u32 stage) { return full(stage) + FORWARD_STAGES * 8; };
    const auto load = [&](u32 tile, u32 stage) {
        barrier_expect(full(stage), 2 * TILE_BYTES);
        load_tile(key_tile(stage), qkv_map, heads + head, tile * TILE, batch, full(stage));
        load_tile(key_tile(stage) + TILE_BYTES, qkv_map, 2 * heads + head, tile * TILE, batch, full(stage));
    };

    if (threadIdx.x == 0) {
        barrier_init(query_full, 1);
        for (u32 stage = 0; stage < FORWARD_STAGES; ++stage) {
            barrier_init(full(stage), 1);
            barrier_init(empty(stage), 8);
        }
        barrier_init_fence();
        barrier_expect(query_full, 2 * TILE_BYTES);
        for (u32 half = 0; half < 2; ++half)
            load_tile(base + half * TILE_BYTES, qkv_map, head, block * BLOCK_ROWS + half * TILE, batch, query_full);
        for (u32 tile = 0; tile < min(tiles, FORWARD_STAGES); ++tile) load(tile, tile);
    }
    __syncthreads();

    u32 probability[4][4];
    float scores[32], sum[32], maximum[2] = {NEGATIVE_INFINITY, NEGATIVE_INFINITY}, total[2] = {0.0f, 0.0f};
#pragma unroll
    for (int i = 0; i < 32; ++i) sum[i] = 0.0f;
    const u32 own = base + warpgroup * TILE_BYTES;
    wait_for(query_full, 0);

    const u32 diagonal = 2 * block + warpgroup;
    u32 tile = 0, stage = 0, phase = 0, done = 0; // done: the stage of the tile before
    do {
        wait_for(full(stage), phase);
        wgmma_fence();
        multiply_scores(scores, own, key_tile(stage));
        wgmma_wait<0>(); // and the product with the values of the tile before
        wgmma_pin(scores);
        wgmma_pin(sum);
        if (tile > 0) warp_arrive(empty(done));
        if (tile > 1 && tile + FORWARD_STAGES - 2 < tiles && threadIdx.x < 32) {
            const u32 old = done == 0 ? FORWARD_STAGES - 1 : done - 1;
            if (lane == 0) {
                wait_for(empty(old), (tile - 2) / FORWARD_STAGES & 1);
                load(tile + FORWARD_STAGES - 2, old);
            }
            __syncwarp();
        }
        if (tile == diagonal) {
#pragma unroll
            for (int i = 0; i < 32; ++i)
                if (i / 4 * 8 + lane % 4 * 2 + i % 2 > threadIdx.x % 128 / 32 * 16 + lane / 4 + i / 2 % 2 * 8)
                    scores[i] = NEGATIVE_INFINITY;
        }
        float top[2] = {maximum[0], maximum[1]};
#pragma unroll
        for (int i = 0; i < 32; ++i) top[i / 2 % 2] = fmaxf(top[i / 2 % 2], scores[i]);
#pragma unroll
        for (int h = 0; h < 2; ++h) {
            top[h] = fmaxf(top[h], __shfl_xor_sync(~0u, top[h], 1));
            top[h] = fmaxf(top[h], __shfl_xor_sync(~0u, top[h], 2));
        }
        if (__any_sync(~0u, top[0] > maximum[0] || top[1] > maximum[1])) {
            const float keep[2] = {exp2_fast((maximum[0] - top[0]) * SCALE_LOG2),
                                   exp2_fast((maximum[1] - top[1]) * SCALE_LOG2)};
#pragma unroll
            for (int i = 0; i < 32; ++i) sum[i] *= keep[i / 2 % 2];
#pragma unroll
            for (int h = 0; h < 2; ++h) {
                maximum[h] = top[h];
                total[h] *= keep[h];
            }
        }
        const float shift[2] = {maximum[0] * SCALE_LOG2, maximum[1] * SCALE_LOG2};
#pragma unroll
        for (int i = 0; i < 32; ++i) {
            scores[i] = exp2_fast(scores[i] * SCALE_LOG2 - shift[i / 2 % 2]);
            total[i / 2 % 2] += scores[i];
        }
        pack_operand(probability, scores);
        wgmma_pin(sum);
        wgmma_fence();
        multiply_add(sum, probability, key_tile(stage) + TILE_BYTES);
        done = stage;
        if (++stage == FORWARD_STAGES) {
            stage = 0;
            phase ^= 1;
        }
    } while (++tile < min(tiles, diagonal + 1));
    wgmma_wait<0>();
    wgmma_pin(sum);

    const u32 row = block * BLOCK_ROWS + threadIdx.x / 32 * 16 + lane / 4;
#pragma unroll
    for (int h = 0; h < 2; ++h) {
        total[h] += __shfl_xor_sync(~0u, total[h], 1);
        total[h] += __shfl_xor_sync(~0u, total[h], 2);
        if (lane % 4 == 0 && row + 8 * h < length)
            log_sum[(u64)piece.head * length + row + 8 * h] = maximum[h] * SCALE + __logf(total[h]);
    }
    warpgroup_sync(warpgroup); // every warp is done with the queries
    write_tile(own, sum, 1.0f / total[0], 1.0f / total[1]);
    async_proxy_fence();
    warpgroup_sync(warpgroup);
    if (threadIdx.x % 128 == 0) {
        store_tile(own, out_map, head, block * BLOCK_ROWS + warpgroup * TILE, batch);
        tma_commit();
        tma_wait_read<0>();
    }
}

// ---- backward ------------------------------------------------------------------------------------------------------
// Seven products instead of five: gradients of keys and values sum over queries, the gradient of queries over keys,
// each in registers of its own piece of work, so no partial sums pass through memory. With
// p = exp2(score * SCALE_LOG2 - stats[0]), dv = p^T d_out, dp = d_out v^T, ds = p * (dp - stats[1]),
// dk = SCALE ds^T q, dq = SCALE ds k.
//
// A piece of 128 rows keeps two tensors fixed (keys and values, or queries and output gradients) and streams 64-row
// tiles of the other two through a ring, which a producer thread fills; it also fetches the fixed tiles of the piece
// after. Pieces of both kinds are handed out from one list through a counter.

constexpr u32 BACKWARD_STAGES = 6;
constexpr u32 FIXED = 0;                                        // 2 pieces x 2 tensors x 2 tiles
constexpr u32 RING = FIXED + 8 * TILE_BYTES;                    // 2 tiles a stage
constexpr u32 STAGED = RING + BACKWARD_STAGES * 2 * TILE_BYTES; // results, 2 tiles per warpgroup
constexpr u32 RING_STATS = STAGED + 4 * TILE_BYTES;             // 2 x 64 floats a stage
constexpr u32 BARRIERS = RING_STATS + BACKWARD_STAGES * 2 * TILE * 4;
constexpr u32 BACKWARD_SHARED = BARRIERS + 256 + 1024;
static_assert(BACKWARD_SHARED <= 226 * 1024, "shared memory of a block");
constexpr u32 NO_WORK = ~0u;

struct Ring {
    u32 base, stage, phase;
    __device__ __forceinline__ u32 tile() const { return base + RING + stage * 2 * TILE_BYTES; }
    __device__ __forceinline__ u32 stats() const { return base + RING_STATS + stage * 2 * TILE * 4; }
    __device__ __forceinline__ u32 full() const { return base + BARRIERS + stage * 8; }
    __device__ __forceinline__ u32 empty() const { return full() + BACKWARD_STAGES * 8; }
    __device__ __forceinline__ void advance() {
        if (++stage == BACKWARD_STAGES) {
            stage = 0;
            phase ^= 1;
        }
    }
};

// What one piece of work covers.
struct alignas(16) Work {
    u32 batch_head, batch, head;
    u32 block_and_kind; // of queries where the lowest bit is set

    __device__ __forceinline__ bool queries() const { return block_and_kind & 1; }
    __device__ __forceinline__ u32 block() const { return block_and_kind >> 1; }
    // Tiles first() <= i < last() are streamed.
    __device__ __forceinline__ u32 first() const { return queries() ? 0 : 2 * block(); }
    __device__ __forceinline__ u32 last(u32 length) const {
        const u32 tiles = (length + TILE - 1) / TILE;
        return queries() ? min(2 * block() + 2, tiles) : tiles;
    }
};
// Even indices of the list sum keys and values, odd ones queries.
__device__ __forceinline__ Work find_work(u32 index, u32 length, u32 heads, u32 batch_heads) {
    const u32 blocks = (length + BLOCK_ROWS - 1) / BLOCK_ROWS;
    const Piece piece = locate(index, batch_heads, 2 * blocks, max(1u, (28u << 20) / (length * 512)));
    const u32 queries = piece.rank % 2, block = queries ? blocks - 1 - piece.rank / 2 : piece.rank / 2;
    return {piece.head, piece.head / heads, piece.head % heads, 2 * block + queries};
}

// The tensor cores work through a queue of products that the warpgroup keeps filled while it computes p and ds:
//     dp i | dv i | score i + 1 | dk or dq i | dp i + 1 | ...        (no dv in pieces of queries)
// The product with the scores of the tile after the last repeats the last tile and is not used; a branch around it
// would make ptxas serialise all of them. For the same reason every wait stands in the iteration of the product it
// waits for.

// What belongs to the columns of an accumulator, from 64 floats. It is asked for well before it is needed: shared
// memory is busy with the products' operands.
__device__ __forceinline__ void load_columns(float2 (&columns)[8], u32 from) {
#pragma unroll
    for (int n = 0; n < 8; ++n) columns[n] = load_shared<float2>(from + (8 * n + threadIdx.x % 4 * 2) * 4);
}

// Gradients of 64 keys and values.
__device__ __forceinline__ void backward_keys(const Work &work, Ring &ring, u32 fixed, u32 warpgroup, u32 length,
                                              float (&d_key)[32], float (&d_value)[32]) {
    const u32 lane = threadIdx.x % 32, key = fixed + warpgroup * TILE_BYTES, value = key + 2 * TILE_BYTES;
    const u32 diagonal = 2 * work.block() + warpgroup, last = work.last(length);
    u32 tile = work.first();
#pragma unroll
    for (int i = 0; i < 32; ++i) d_key[i] = d_value[i] = 0.0f;

    if (tile < diagonal) { // queries before the keys
        wait_for(ring.full(), ring.phase);
        warp_arrive(ring.empty());
        ring.advance();
        ++tile;
    }
    if (tile >= last) return;

    u32 left[4][4], right[4][4], busy = 0; // busy: barrier of the stage that pending products still read
    float scores[32], p[32], dp[32];
    float2 shift[8], delta[8];
    wait_for(ring.full(), ring.phase);
    load_columns(shift, ring.stats());
    wgmma_fence();
    multiply_scores(scores, key, ring.tile());
    wgmma_wait<0>();
    wgmma_pin(scores);
    do {
        wgmma_fence();
        multiply_scores(dp, value, ring.tile() + TILE_BYTES);
#pragma unroll
        for (int i = 0; i < 32; ++i)
            p[i] = exp2_fast(scores[i] * SCALE_LOG2 - (i % 2 ? shift[i / 4].y : shift[i / 4].x));
        if (tile == diagonal) {
#pragma unroll
            for (int i = 0; i < 32; ++i)
                if (i / 4 * 8 + lane % 4 * 2 + i % 2 < threadIdx.x % 128 / 32 * 16 + lane / 4 + i / 2 % 2 * 8)
                    p[i] = 0.0f;
        }
        pack_operand(left, p);
        const Ring now = ring;
        load_columns(delta, now.stats() + TILE * 4);
        if (tile + 1 < last) ring.advance();
        wait_for(ring.full(), ring.phase);
        wgmma_fence();
        multiply_add(d_value, left, now.tile() + TILE_BYTES);
        multiply_scores(scores, key, ring.tile());
        wgmma_wait<2>();
        wgmma_pin(dp);
        if (busy) warp_arrive(busy);
        busy = now.empty();
#pragma unroll
        for (int i = 0; i < 32; ++i) dp[i] = p[i] * (dp[i] - (i % 2 ? delta[i / 4].y : delta[i / 4].x));
        pack_operand(right, dp);
        wgmma_fence();
        multiply_add(d_key, right, now.tile());
        load_columns(shift, ring.stats());
        wgmma_wait<1>();
        wgmma_pin(scores);
    } while (++tile < last);
    ring.advance();
    wgmma_wait<0>();
    wgmma_pin(d_key);
    wgmma_pin(d_value);
    warp_arrive(busy);
}

// Gradients of 64 queries.
__device__ __forceinline__ void backward_queries(const Work &work, Ring &ring, u32 fixed, u32 warpgroup,
                                                 const float *stats, u32 length, u32 stats_size, float (&d_query)[32]) {
    const u32 lane = threadIdx.x % 32, query = fixed + warpgroup * TILE_BYTES, d_out = query + 2 * TILE_BYTES;
    const u32 diagonal = 2 * work.block() + warpgroup, padded = (length + TILE - 1) / TILE * TILE;
    u32 tile = 0;
#pragma unroll
    for (int i = 0; i < 32; ++i) d_query[i] = 0.0f;

    if (diagonal * TILE < length) {
        float shift[2], delta[2];
        stats += (u64)work.batch_head * padded + diagonal * TILE + threadIdx.x % 128 / 32 * 16 + lane / 4;
#pragma unroll
        for (int h = 0; h < 2; ++h) {
            shift[h] = stats[8 * h];
            delta[h] = stats[stats_size + 8 * h];
        }

        u32 left[4][4], busy = 0;
        float scores[32], p[32], dp[32];
        wait_for(ring.full(), ring.phase);
        wgmma_fence();
        multiply_scores(scores, query, ring.tile());
        wgmma_wait<0>();
        wgmma_pin(scores);
        do {
            wgmma_fence();
            multiply_scores(dp, d_out, ring.tile() + TILE_BYTES);
#pragma unroll
            for (int i = 0; i < 32; ++i) p[i] = exp2_fast(scores[i] * SCALE_LOG2 - shift[i / 2 % 2]);
            if (tile == diagonal) {
#pragma unroll
                for (int i = 0; i < 32; ++i)
                    if (i / 4 * 8 + lane % 4 * 2 + i % 2 > threadIdx.x % 128 / 32 * 16 + lane / 4 + i / 2 % 2 * 8)
                        p[i] = 0.0f;
            }
            const Ring now = ring;
            if (tile < diagonal) ring.advance();
            wait_for(ring.full(), ring.phase);
            wgmma_fence();
            multiply_scores(scores, query, ring.tile());
            wgmma_wait<1>();
            wgmma_pin(dp);
            if (busy) warp_arrive(busy);
            busy = now.empty();
#pragma unroll
            for (int i = 0; i < 32; ++i) dp[i] = p[i] * (dp[i] - delta[i / 2 % 2]);
            pack_operand(left, dp);
            wgmma_fence();
            multiply_add(d_query, left, now.tile());
            wgmma_wait<1>();
            wgmma_pin(scores);
        } while (++tile <= diagonal);
        ring.advance();
        wgmma_wait<0>();
        wgmma_pin(d_query);
        warp_arrive(busy);
    }
    for (const u32 last = work.last(length); tile < last; ++tile, ring.advance()) { // keys after the queries
        wait_for(ring.full(), ring.phase);
        warp_arrive(ring.empty());
    }
}

extern "C" __global__ void __launch_bounds__(384, 1)
    attention_backward(const __grid_constant__ TensorMap qkv_map, const __grid_constant__ TensorMap d_out_map,
                       const __grid_constant__ TensorMap d_qkv_map, const bf16 *, const bf16 *, bf16 *, float *stats,
                       const __grid_constant__ AttentionArgs args) {
    extern __shared__ __align__(1024) u8 shared[];
    const u32 base = (shared_address(shared) + 1023) & ~1023u;
    const u32 length = args.length, heads = args.heads, batch_heads = args.batch * args.heads;
    const u32 padded = (length + TILE - 1) / TILE * TILE, stats_size = batch_heads * padded;
    // Of the fixed tiles of alternate pieces.
    const auto fixed_tile = [&](u32 slot) { return base + FIXED + slot * 4 * TILE_BYTES; };
    const auto fixed_full = [&](u32 slot) { return base + BARRIERS + BACKWARD_STAGES * 16 + slot * 8; };
    const auto fixed_empty = [&](u32 slot) { return fixed_full(slot) + 16; };
    Work *const works = (Work *)(shared + (fixed_full(4) - shared_address(shared)));
    const u32 warpgroup = __shfl_sync(~0u, threadIdx.x / 128, 0);
    Ring ring = {base, 0, 0};

    if (threadIdx.x == 0) {
        Ring each = ring;
        for (; each.phase == 0; each.advance()) {
            barrier_init(each.full(), 1);
            barrier_init(each.empty(), 8);
        }
        for (u32 slot = 0; slot < 2; ++slot) {
            barrier_init(fixed_full(slot), 1);
            barrier_init(fixed_empty(slot), 8);
        }
        barrier_init_fence();
    }
    __syncthreads();

    if (warpgroup == 2) {
        give_registers<24>();
        if (threadIdx.x != 256) return;
        const u32 count = 2 * ((length + BLOCK_ROWS - 1) / BLOCK_ROWS) * batch_heads;
#pragma unroll 1
        for (u32 slot = 0, parity = 1;; slot ^= 1, parity ^= slot == 0) {
            const u32 index = atomicAdd((u32 *)(stats + 2 * (u64)stats_size), 1);
            wait_for(fixed_empty(slot), parity);
            if (index >= count) {
                works[slot].batch_head = NO_WORK;
                barrier_arrive(fixed_full(slot));
                return;
            }
            const Work work = find_work(index, length, heads, batch_heads);
            works[slot] = work;
            // Slots of qkv: query, key, value of the head; d_out has a map of its own.
            barrier_expect(fixed_full(slot), 4 * TILE_BYTES);
            for (u32 half = 0; half < 2; ++half) {
                const u32 row = work.block() * BLOCK_ROWS + half * TILE, target = fixed_tile(slot) + half * TILE_BYTES;
                load_tile(target, qkv_map, work.queries() ? work.head : heads + work.head, row, work.batch,
                          fixed_full(slot));
                load_tile(target + 2 * TILE_BYTES, work.queries() ? d_out_map : qkv_map,
                          work.queries() ? work.head : 2 * heads + work.head, row, work.batch, fixed_full(slot));
            }
#pragma unroll 1
            for (u32 tile = work.first(), last = work.last(length); tile < last; ++tile, ring.advance()) {
                wait_for(ring.empty(), ring.phase ^ 1);
                if (work.queries()) {
                    barrier_expect(ring.full(), 2 * TILE_BYTES);
                    load_tile(ring.tile(), qkv_map, heads + work.head, tile * TILE, work.batch, ring.full());
                    load_tile(ring.tile() + TILE_BYTES, qkv_map, 2 * heads + work.head, tile * TILE, work.batch,
                              ring.full());
                } else {
                    const float *source = stats + (u64)work.batch_head * padded + tile * TILE;
                    barrier_expect(ring.full(), 2 * TILE_BYTES + 2 * TILE * 4);
                    load_tile(ring.tile(), qkv_map, work.head, tile * TILE, work.batch, ring.full());
                    load_tile(ring.tile() + TILE_BYTES, d_out_map, work.head, tile * TILE, work.batch, ring.full());
                    bulk_load(ring.stats(), u64(source), TILE * 4, ring.full());
                    bulk_load(ring.stats() + TILE * 4, u64(source + stats_size), TILE * 4, ring.full());
                }
            }
        }
    } else {
        take_registers<240>();
        const u32 staged = base + STAGED + warpgroup * 2 * TILE_BYTES;
        const bool leader = threadIdx.x % 128 == 0;
        for (u32 slot = 0, parity = 0;; slot ^= 1, parity ^= slot == 0) {
            wait_for(fixed_full(slot), parity);
            // From one lane: the same for all of them, as the compiler is to know.
            const volatile u32 *const words = (const volatile u32 *)&works[slot];
            u32 word[4];
#pragma unroll
            for (int i = 0; i < 4; ++i) word[i] = __shfl_sync(~0u, words[i], 0);
            if (word[0] == NO_WORK) break;
            const Work work = {word[0], word[1], word[2], word[3]};
            const u32 row = work.block() * BLOCK_ROWS + warpgroup * TILE;
            if (work.queries()) {
                float d_query[32];
                backward_queries(work, ring, fixed_tile(slot), warpgroup, stats, length, stats_size, d_query);
                warp_arrive(fixed_empty(slot));
                if (leader) tma_wait_read<0>(); // the staged results of the piece before have left
                warpgroup_sync(warpgroup);
                write_tile(staged, d_query, SCALE, SCALE);
            } else {
                float d_key[32], d_value[32];
                backward_keys(work, ring, fixed_tile(slot), warpgroup, length, d_key, d_value);
                warp_arrive(fixed_empty(slot));
                if (leader) tma_wait_read<0>();
                warpgroup_sync(warpgroup);
                write_tile(staged, d_key, SCALE, SCALE);
                write_tile(staged + TILE_BYTES, d_value, 1.0f, 1.0f);
            }
            async_proxy_fence();
            warpgroup_sync(warpgroup);
            if (leader) {
                store_tile(staged, d_qkv_map, work.queries() ? work.head : heads + work.head, row, work.batch);
                if (!work.queries()) store_tile(staged + TILE_BYTES, d_qkv_map, 2 * heads + work.head, row, work.batch);
                tma_commit();
            }
        }
        if (leader) tma_wait_read<0>();
    }
}
