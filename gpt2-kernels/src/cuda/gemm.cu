// bf16 matrix product with f32 accumulation for Hopper (sm_90a): GPT-2's linear layers and their gradients.
//
//   LAYOUT 0 (NN)  out[M,N] = A[M,K] . B[K,N]        forward; dH = dlogits . wte
//   LAYOUT 1 (NT)  out[M,N] = A[M,K] . B[N,K]^T      dX = dY . W^T; logits = H . wte^T
//   LAYOUT 2 (TN)  out[M,N] = A[K,M]^T . B[K,N]      dW = X^T . dY
//
//   EPILOGUE 0  out bf16 = acc [+ bias]                                  flag: there is a bias
//   EPILOGUE 1  out bf16 = acc [+ bias], extra bf16 = gelu(out)          flag: there is a bias
//   EPILOGUE 2  out f32  = extra + acc [+ bias]; extra: f32 residual     flag: there is a bias
//   EPILOGUE 3  out bf16 = acc * gelu'(extra); extra: bf16 input of the GELU
//   EPILOGUE 4  out f32  = acc, one matrix per split                     flag: adds to what is there instead
//
// Defines: LAYOUT, EPILOGUE; TILE_N (192; 128 for few tiles), STAGES (4; 5 with TILE_N 128), COLUMN_SUMS
// (EPILOGUE 3: also the sums of the rounded result's columns over each 128 rows).
//
// Kernel gemm, after common.cuh, warp.cuh, hopper.cuh and gemm_hopper.cuh; tensor maps with 128-byte swizzle
//   maps        A, B         bf16, [R, C] seen as panels [C / 64, R, 64] with strides [64, C, 1]; boxes
//                            A  NN, NT [1, 128, 64], TN [2, 64, 64]
//                            B  NT [1, TILE_N / 2, 64], NN and TN [TILE_N / 64, 32, 64]
//               out          [M, N], box [64, 64] (bf16) or [64, 32] (f32); EPILOGUE 4: [splits, M, N], box [1, 64, 32]
//               extra        EPILOGUE 1 to 3: [M, N], box as that of out
//   pointers    one for each map's tensor, unused
//   buffers     EPILOGUE 0 to 2: const float *bias [N] (any valid pointer without one)
//               COLUMN_SUMS: float *column_sums [ceil(M / 128), N]
//   args        m, n, k_tiles = ceil(K / 64), splits (1, but for EPILOGUE 4; at most k_tiles), group, flag
//   grid        min(units, SMs), units = ceil(M / 128) ceil(N / TILE_N) splits
//   block       384
//   shared      1024 + STAGES * (128 + TILE_N) * 128 + 16 * STAGES + BOXES * (16384 + 32), with 4 BOXES;
//               with COLUMN_SUMS 3 BOXES and 4096 bytes more
//
// Rows (M in NN and NT, K in TN) are arbitrary; all widths are multiples of 64. `group` rows of tiles are made
// together for reuse in L2: 8 suits all shapes, 32 the logits. Results do not depend on the order of execution.

constexpr bool A_MAJOR_M = LAYOUT == 2, B_MAJOR_N = LAYOUT != 1;
constexpr bool GELU = EPILOGUE == 1, READS_EXTRA = EPILOGUE == 2 || EPILOGUE == 3;
constexpr bool OUT_F32 = EPILOGUE == 2 || EPILOGUE == 4;

// A stage of the ring holds both operands of 64 k: rows of 128 bytes.
constexpr u32 TILE_M = 128, TILE_K = 64;
constexpr u32 A_BYTES = TILE_M * TILE_K * 2, B_BYTES = TILE_N * TILE_K * 2, STAGE_BYTES = A_BYTES + B_BYTES;

// The epilogue works on boxes of 64 rows of 128 bytes, each in a slot of its warpgroup's ring.
constexpr u32 BOX_BYTES = 8192, BOX_COLS = OUT_F32 ? 32 : 64, STEPS = TILE_N / BOX_COLS * 2;
#ifdef COLUMN_SUMS
constexpr u32 BOXES = 3;
#else
constexpr u32 BOXES = 4;
#endif
constexpr u32 STEP_BOXES = GELU ? 2 : 1, RING = BOXES / STEP_BOXES; // GELU writes two boxes at a time

// Shared memory, from a multiple of 1024: the stages, the boxes, the barriers.
constexpr u32 SHARED_BOXES = STAGES * STAGE_BYTES;
constexpr u32 FULL = SHARED_BOXES + 2 * BOXES * BOX_BYTES, EMPTY = FULL + 8 * STAGES;
constexpr u32 BOX_FULL = EMPTY + 8 * STAGES, BOX_EMPTY = BOX_FULL + 8 * 2 * BOXES;
#ifdef COLUMN_SUMS
constexpr u32 SHARED_SUMS = BOX_EMPTY + 8 * 2 * BOXES; // f32 [2 warpgroups][2][4 warps][64 columns]
#endif

struct Args {
    u64 m, n, k_tiles, splits, group, flag;
};

// The bias of this lane's columns of a box, the same in all rows.
__device__ __forceinline__ void load_bias(float2 (&v)[BOX_COLS / 8], const float *bias, u32 col, u32 cols) {
#pragma unroll
    for (u32 j = 0; j < BOX_COLS / 8; ++j) {
        const u32 c = col + j * 8 + threadIdx.x % 4 * 2;
        v[j] = bias && c < cols ? __ldg(reinterpret_cast<const float2 *>(bias + c)) : make_float2(0.0f, 0.0f);
    }
}

// barrier_arrive, through the address that the barrier has in the cluster, which is this block alone: the machine code
// differs.
__device__ __forceinline__ void release_stage(u32 barrier) {
    asm volatile("{\n.reg .b32 remote;\n"
                 "mapa.shared::cluster.u32 remote, %0, 0;\n"
                 "mbarrier.arrive.shared::cluster.b64 _, [remote];\n}\n" ::"r"(barrier)
                 : "memory");
}

// Adds the sums of the lanes `lane` and `lane ^ 2 HALF`; each keeps half of them, the upper lane the upper half.
template <u32 HALF> __device__ __forceinline__ void fold(float (&s)[16], u32 lane) {
#pragma unroll
    for (u32 c = 0; c < HALF; ++c) {
        const bool upper = lane & HALF * 2;
        const float low = s[c], high = s[c + HALF];
        s[c] = (upper ? high : low) + __shfl_xor_sync(~0u, upper ? low : high, HALF * 2);
    }
}

extern "C" __global__ void __launch_bounds__(384, 1)
    gemm(const __grid_constant__ TensorMap map_a, const __grid_constant__ TensorMap map_b,
         const __grid_constant__ TensorMap map_out,
#if EPILOGUE >= 1 && EPILOGUE <= 3
         const __grid_constant__ TensorMap map_extra,
#endif
         const void *, const void *, const void *,
#if EPILOGUE >= 1 && EPILOGUE <= 3
         const void *,
#endif
#if EPILOGUE < 3
         const float *__restrict__ bias,
#endif
#ifdef COLUMN_SUMS
         float *__restrict__ column_sums,
#endif
         const __grid_constant__ Args args) {
    extern __shared__ u8 shared[];
    const u32 base = (shared_address(shared) + 1023) & ~1023u;
    const u32 warp = threadIdx.x / 32, lane = threadIdx.x % 32;
    const u32 warpgroup = __shfl_sync(~0u, threadIdx.x / 128, 0);
    const u32 first = blockIdx.x, stride = gridDim.x;
    const Schedule<TILE_M, TILE_N> schedule(args);

    if (threadIdx.x == 256) {
        tma_prefetch(map_a);
        tma_prefetch(map_b);
        for (u32 i = 0; i < STAGES; ++i) {
            barrier_init(base + FULL + 8 * i, 1);
            barrier_init(base + EMPTY + 8 * i, 4);
        }
        for (u32 i = 0; i < 2 * BOXES; ++i) {
            barrier_init(base + BOX_FULL + 8 * i, 1);
            barrier_init(base + BOX_EMPTY + 8 * i, 1);
        }
        barrier_init_fence();
    }
    __syncthreads();

    if (warpgroup == 2) {
        give_registers<24>();
        if (warp == 8 && lane == 0) {
            // Fills the ring with the operands of one tile after the other.
            Cursor<STAGES> stage;
            for (u32 unit = first; unit < schedule.count; unit += stride) {
                const Tile t = schedule.tile(unit);
                for (u32 k = t.k_begin; k < t.k_end; ++k, stage.next()) {
                    const u32 full = base + FULL + 8 * stage.slot, a = base + stage.slot * STAGE_BYTES, b = a + A_BYTES;
                    barrier_wait(base + EMPTY + 8 * stage.slot, stage.phase ^ 1);
                    barrier_expect(full, STAGE_BYTES);
                    if (A_MAJOR_M) tma_load(a, map_a, full, 0, k * TILE_K, t.row / 64);
                    else tma_load(a, map_a, full, 0, t.row, k);
#pragma unroll
                    for (u32 half = 0; half < 2; ++half) {
                        const u32 to = b + half * (B_BYTES / 2);
                        const u32 y = B_MAJOR_N ? k * TILE_K + half * (TILE_K / 2) : t.col + half * (TILE_N / 2);
                        const u32 z = B_MAJOR_N ? t.col / 64 : k;
                        tma_load(to, map_b, full, 0, y, z);
                    }
                }
            }
        }
#if EPILOGUE == 2 || EPILOGUE == 3
        if ((warp == 9 || warp == 10) && lane == 0) {
            // Fills the boxes of warpgroup `of` with the extra operand of its tiles.
            const u32 of = warp - 9;
            tma_prefetch(map_extra);
            Cursor<BOXES> box;
            for (u32 unit = first, i = 0; unit < schedule.count; unit += stride, ++i) {
                if (i % 2 != of) continue;
                const Tile t = schedule.tile(unit);
                for (u32 step = 0; step < STEPS; ++step, box.next()) {
                    const u32 at = of * BOXES + box.slot, full = base + BOX_FULL + 8 * at;
                    barrier_wait(base + BOX_EMPTY + 8 * at, box.phase ^ 1);
                    barrier_expect(full, BOX_BYTES);
                    tma_load(base + SHARED_BOXES + at * BOX_BYTES, map_extra, full, t.col + step / 2 * BOX_COLS,
                             t.row + step % 2 * 64);
                }
            }
        }
#endif
    } else {
        take_registers<240>();
        // The two warpgroups take the tiles in turn: one multiplies while the other finishes its tile.
        const bool leader = threadIdx.x % 128 == 0;
        const u32 warp_row = warp % 4 * 16;
        float acc[2][TILE_N / 2]; // two blocks of 64 rows
#ifdef COLUMN_SUMS
        float2 sum;
        const u32 sums = base + SHARED_SUMS + warpgroup * 2048;
#endif
#if EPILOGUE < 3
        float2 v[BOX_COLS / 8];
#endif
        Cursor<STAGES> stage;
        Cursor<RING> ring;
        // K-major: 16 k are 32 bytes further on. MN-major: 16 rows; B comes in two halves of 32 k each.
        const u64 a_descriptor = wgmma_descriptor(base, 1024, 0);
        const u64 b_descriptor = wgmma_descriptor(base + A_BYTES, 1024, B_MAJOR_N ? 32 * 128 : 16);

        for (u32 unit = first, turn = 0; unit < schedule.count; unit += stride, ++turn) {
            const Tile t = schedule.tile(unit);
            if (turn % 2 != warpgroup) {
                stage.skip(t.k_end - t.k_begin);
                continue;
            }
            // A wait tells only odd passes over the ring from even ones, so it starts when the other warpgroup's waits
            // are over.
            if (turn > 0) named_barrier(3 + warpgroup, 256);
            u32 last = 0;
            for (u32 k = t.k_begin; k < t.k_end; ++k, stage.next()) {
                barrier_wait(base + FULL + 8 * stage.slot, stage.phase);
                wgmma_fence();
                const u64 a = a_descriptor + stage.slot * (STAGE_BYTES / 16);
                const u64 b = b_descriptor + stage.slot * (STAGE_BYTES / 16);
#pragma unroll
                for (u32 kk = 0; kk < TILE_K / 16; ++kk)
#pragma unroll
                    for (u32 block = 0; block < 2; ++block)
                        wgmma<A_MAJOR_M, B_MAJOR_N>(
                            acc[block], a + (A_MAJOR_M ? kk * 128 : kk * 2) + block * (8192 / 16),
                            b + (B_MAJOR_N ? kk / 2 * (B_BYTES / 32) + kk % 2 * 128 : kk * 2), kk > 0 || k > t.k_begin);
                wgmma_commit();
                wgmma_wait<1>();
                if (k > t.k_begin && lane == 0) release_stage(base + EMPTY + 8 * last);
                last = stage.slot;
            }
            if (unit + stride < schedule.count) named_barrier_arrive(4 - warpgroup, 256);
            wgmma_wait<0>();
            if (lane == 0) release_stage(base + EMPTY + 8 * last);
            wgmma_pin(acc[0]);
            wgmma_pin(acc[1]);

#pragma unroll
            for (u32 step = 0; step < STEPS; ++step) {
                const u32 block = step % 2, chunk = step / 2;
                const u32 col = t.col + chunk * BOX_COLS, row = t.row + block * 64;
                const u32 slot = warpgroup * BOXES + ring.slot * STEP_BOXES;
                const u32 box = base + SHARED_BOXES + slot * BOX_BYTES;
#if EPILOGUE < 3
                if (block == 0) load_bias(v, args.flag ? bias : 0, col, u32(args.n));
#endif
                if (READS_EXTRA) barrier_wait(base + BOX_FULL + 8 * slot, ring.phase);

#if EPILOGUE == 2 || EPILOGUE == 4
                {
                    const u32 quad = lane % 4, r = warp_row + lane / 4;
#pragma unroll
                    for (u32 j = 0; j < BOX_COLS / 8; ++j) {
                        const float *d = acc[block] + chunk * (BOX_COLS / 2) + j * 4;
                        float2 low = make_float2(d[0], d[1]), high = make_float2(d[2], d[3]);
                        const u32 at_low = box + swizzle_128(r, j * 2 + quad / 2) + quad % 2 * 8;
                        const u32 at_high = at_low + 8 * 128;
#if EPILOGUE == 2
                        const float2 e = load_shared<float2>(at_low), f = load_shared<float2>(at_high);
                        low.x += e.x + v[j].x, low.y += e.y + v[j].y, high.x += f.x + v[j].x, high.y += f.y + v[j].y;
#endif
                        store_shared(at_low, low);
                        store_shared(at_high, high);
                    }
                }
#else
                {
                    const u32 r = warp_row + lane % 16;
#ifdef COLUMN_SUMS
                    float s[16];
#endif
#pragma unroll
                    for (u32 j = 0; j < BOX_COLS / 8; j += 2) {
                        const float *d = acc[block] + chunk * (BOX_COLS / 2) + j * 4;
                        const u32 at = box + swizzle_128(r, j + lane / 16);
                        u32 out[4];
#if EPILOGUE == 3
                        u32 h[4];
                        load_matrices(h, at);
#pragma unroll
                        for (u32 q = 0; q < 4; ++q)
                            out[q] = bf16_pack(d[q * 2] * gelu_derivative(bf16_low(h[q])),
                                               d[q * 2 + 1] * gelu_derivative(bf16_high(h[q])));
#else
                        out[0] = bf16_pack(d[0] + v[j].x, d[1] + v[j].y);
                        out[1] = bf16_pack(d[2] + v[j].x, d[3] + v[j].y);
                        out[2] = bf16_pack(d[4] + v[j + 1].x, d[5] + v[j + 1].y);
                        out[3] = bf16_pack(d[6] + v[j + 1].x, d[7] + v[j + 1].y);
#endif
                        store_matrices(at, out);
#ifdef COLUMN_SUMS
                        s[j * 2] = bf16_low(out[0]) + bf16_low(out[1]);
                        s[j * 2 + 1] = bf16_high(out[0]) + bf16_high(out[1]);
                        s[j * 2 + 2] = bf16_low(out[2]) + bf16_low(out[3]);
                        s[j * 2 + 3] = bf16_high(out[2]) + bf16_high(out[3]);
#endif
                        if (GELU) {
                            u32 g[4];
#pragma unroll
                            for (u32 q = 0; q < 4; ++q)
                                g[q] = bf16_pack(gelu(bf16_low(out[q])), gelu(bf16_high(out[q])));
                            store_matrices(at + BOX_BYTES, g);
                        }
                    }
#ifdef COLUMN_SUMS
                    // Eight lanes hold each column's rows: halve the columns at each exchange until lane l has columns
                    // 2l and 2l + 1.
                    fold<8>(s, lane);
                    fold<4>(s, lane);
                    fold<2>(s, lane);
                    if (block == 0) sum = make_float2(s[0], s[1]);
                    else sum.x += s[0], sum.y += s[1];
                    if (block == 1) store_shared(sums + chunk % 2 * 1024 + warp % 4 * 256 + lane * 8, sum);
#endif
                }
#endif
                async_proxy_fence();
                // The slot of the next step must be free once all warps are past the barrier.
                if (!READS_EXTRA && leader) tma_wait_read<RING - 2>();
                named_barrier(1 + warpgroup, 128);
                if (leader) {
#if EPILOGUE == 4
                    if (args.flag) tma_add(box, map_out, col, row, t.split);
                    else tma_store(box, map_out, col, row, t.split);
#else
                    tma_store(box, map_out, col, row);
#endif
#if EPILOGUE == 1
                    tma_store(box + BOX_BYTES, map_extra, col, row);
#endif
                    tma_commit();
                    if (READS_EXTRA) {
                        tma_wait_read<1>();
                        if (turn >= 2 || step > 0)
                            barrier_arrive(base + BOX_EMPTY +
                                           8 * (warpgroup * BOXES + (ring.slot + BOXES - 1) % BOXES));
                    }
                }
#ifdef COLUMN_SUMS
                const u32 pair = threadIdx.x % 128;
                if (block == 1 && pair < 32 && t.row < u32(args.m) && col + pair * 2 < u32(args.n)) {
                    float2 total = make_float2(0.0f, 0.0f);
#pragma unroll
                    for (u32 w = 0; w < 4; ++w) {
                        const float2 v = load_shared<float2>(sums + chunk % 2 * 1024 + w * 256 + pair * 8);
                        total.x += v.x, total.y += v.y;
                    }
                    float *to = column_sums + u64(t.row / TILE_M) * args.n + col + pair * 2;
                    *reinterpret_cast<float2 *>(to) = total;
                }
#endif
                ring.next();
            }
        }
        if (leader) tma_wait_all();
    }
}
