// f32 matrix product in TF32 for Hopper (sm_90a): GPT-2's linear layers and their gradients. Sums and results are f32.
//
//   LAYOUT 0 (NN)  acc[M,N] = A[M,K] . B[K,N]        forward; dH = dlogits . wte
//   LAYOUT 1 (NT)  acc[M,N] = A[M,K] . B[N,K]^T      dX = dY . W^T; logits = H . wte^T
//   LAYOUT 2 (TN)  acc[M,N] = A[K,M]^T . B[K,N]      dW = X^T . dY
//
//   EPILOGUE 0  out = acc, one matrix per split
//   EPILOGUE 1  out = acc + bias
//   EPILOGUE 2  out = acc + bias, extra = gelu(out)            (extra is written)
//   EPILOGUE 3  out = extra + acc + bias                       (extra is the residual; it may be out itself)
//   EPILOGUE 4  out = acc * gelu'(extra)                       (extra is the input of the GELU)
//   EPILOGUE 5  out = out + acc
//
// Defines: LAYOUT, EPILOGUE; TOGETHER (0: the two warpgroups take tiles of 192 x 128 in turn, 1: each half of a tile of
// 192 x 256; NT has 0, TN has 1, NN either); COLUMN_SUMS (EPILOGUE 4: also the sums of the result's columns over each
// 192 rows).
//
// Kernel gemm_tf32, after common.cuh, warp.cuh, hopper.cuh and gemm_hopper.cuh; TILE_N = TOGETHER ? 256 : 128,
// STAGES = TOGETHER ? 4 : 5
//   maps        f32, 128-byte swizzle
//               A  NN, NT [M, K], box [192, 32]
//                  TN     [K, M] seen as panels [M / 32, K, 32] with strides [32, M, 1], box [6, 32, 32]
//               B  NN, TN [K, N] seen as panels [N / 32, K, 32] with strides [32, N, 1], box [TILE_N / 32, 32, 32]
//                  NT     [N, K] seen as [2, N / 32, 2, 8, K] with strides [2 K, 32 K, K, 4 K, 1], box [2, 4, 2, 8, 32]
//   pointers    one for each map's tensor, unused
//   buffers     float *out, const float *bias, float *extra (any valid pointer where the epilogue has none)
//               COLUMN_SUMS: float *column_sums [ceil(M / 192), N]
//   args        m, n, k_tiles = ceil(K / 32), splits (1, but for EPILOGUE 0; at most k_tiles), group
//   grid        min(units, SMs), units = ceil(M / 192) ceil(N / TILE_N) splits
//   block       384
//   shared      1024 + STAGES * ((192 + TILE_N) * 128 + 24)
//
// Rows (M in NN and NT, K in TN) are arbitrary; all widths are multiples of 64. `group` rows of tiles are made together
// for reuse in L2: 8, for the logits 4. Results do not depend on the order of execution.
//
// TF32 operands of wgmma must lie along k in shared memory, unless they come from registers. So the product that is
// made is the transposed one, B^T . A^T: B^T comes from registers, to which a tile that lies across k can be read just
// as well, and A^T from shared memory, where TN has helper warps transpose it first. A thread's part of the result is
// then four neighbouring columns of several rows: the epilogue works on global memory straight from registers. NT, with
// both operands along k, needs no registers; its map of B orders the rows such that a thread's columns are neighbours
// there too.
//
// What passes through registers is rounded to TF32; of the rest the tensor cores ignore the low bits.

static_assert(LAYOUT == 1 ? TOGETHER == 0 : LAYOUT == 0 || TOGETHER == 1, "see above");

constexpr bool TRANSPOSES = LAYOUT == 2, FROM_REGISTERS = LAYOUT != 1;
constexpr bool READS_EXTRA = EPILOGUE == 3 || EPILOGUE == 4, HAS_BIAS = EPILOGUE >= 1 && EPILOGUE <= 3;

// A stage of the ring holds 32 k, 128 bytes, of both operands.
constexpr u32 TILE_M = 192, TILE_N = TOGETHER ? 256 : 128, TILE_K = 32, STAGES = TOGETHER ? 4 : 5;
constexpr u32 B_BYTES = TILE_N * 128, A_BYTES = TILE_M * 128, STAGE_BYTES = A_BYTES + B_BYTES;
// What lies across k comes in panels of 32 columns.
constexpr u32 PANEL_BYTES = 32 * 128;

// Shared memory, from a multiple of 1024: the stages, the barriers. TURNED: A has been transposed.
constexpr u32 FULL = STAGES * STAGE_BYTES, EMPTY = FULL + 8 * STAGES, TURNED = EMPTY + 8 * STAGES;
constexpr u32 READY = TRANSPOSES ? TURNED : FULL;
constexpr u32 TURNERS = 3; // warps

struct Args {
    u64 m, n, k_tiles, splits, group;
};

__device__ __forceinline__ uint4 round_tf32(float4 v) {
    return make_uint4(round_tf32(v.x), round_tf32(v.y), round_tf32(v.z), round_tf32(v.w));
}

// Transposes a panel, 32 k by 32 columns, in place; by one warp, in four passes that each take 16 squares of 4 by 4,
// two lanes to a square. Lanes that access shared memory together have squares on a diagonal, so in different banks
// both when they read k and when they write columns; and such a diagonal is mapped to itself, which is why it can be
// done in place.
__device__ __forceinline__ void transpose(u32 from, u32 to, u32 flip_2, u32 flip_4) {
#pragma unroll
    for (u32 pass = 0; pass < 4; ++pass) {
        // The diagonals' distances: 0, 2, 6, 4.
        if (pass == 1) from ^= 32, to += flip_2;
        if (pass == 2) from ^= 64, to += flip_4;
        if (pass == 3) from ^= 32, to -= flip_2;
        float2 v[4];
#pragma unroll
        for (u32 i = 0; i < 4; ++i) v[i] = load_shared<float2>((from ^ i * 16) + i * 128);
        __syncwarp();
        store_shared(to, round_tf32(make_float4(v[0].x, v[1].x, v[2].x, v[3].x)));
        store_shared((to ^ 16) + 128, round_tf32(make_float4(v[0].y, v[1].y, v[2].y, v[3].y)));
    }
}

extern "C" __global__ void __launch_bounds__(384, 1)
    gemm_tf32(const __grid_constant__ TensorMap map_a, const __grid_constant__ TensorMap map_b, const void *,
              const void *, float *out, const float *__restrict__ bias, float *extra,
#ifdef COLUMN_SUMS
              float *__restrict__ column_sums,
#endif
              const __grid_constant__ Args args) {
    extern __shared__ u8 shared[];
    const u32 base = (shared_address(shared) + 1023) & ~1023u;
    const u32 warp = threadIdx.x / 32, lane = threadIdx.x % 32;
    const u32 warpgroup = __shfl_sync(~0u, threadIdx.x / 128, 0);
    const Schedule<TILE_M, TILE_N> schedule(args);

    if (threadIdx.x == 256) {
        tma_prefetch(map_a);
        tma_prefetch(map_b);
        for (u32 i = 0; i < STAGES; ++i) {
            barrier_init(base + FULL + 8 * i, 1);
            barrier_init(base + EMPTY + 8 * i, TOGETHER ? 8 : 4);
            barrier_init(base + TURNED + 8 * i, TURNERS);
        }
        barrier_init_fence();
    }
    __syncthreads();

    if (warpgroup == 2) {
        give_registers<24>();
        Cursor<STAGES> stage;
        if (warp == 8 && lane == 0) {
            // Fills the ring with the operands of one tile after the other.
            for (u32 unit = blockIdx.x; unit < schedule.count; unit += gridDim.x) {
                const Tile t = schedule.tile(unit);
                for (u32 k = t.k_begin; k < t.k_end; ++k, stage.next()) {
                    const u32 full = base + FULL + 8 * stage.slot, b = base + stage.slot * STAGE_BYTES, a = b + B_BYTES;
                    barrier_wait(base + EMPTY + 8 * stage.slot, stage.phase ^ 1);
                    barrier_expect(full, STAGE_BYTES);
                    if (FROM_REGISTERS) tma_load(b, map_b, full, 0, k * TILE_K, t.col / 32);
                    else tma_load(b, map_b, full, k * TILE_K, 0, 0, t.col / 32, 0);
                    if (TRANSPOSES) tma_load(a, map_a, full, 0, k * TILE_K, t.row / 32);
                    else tma_load(a, map_a, full, k * TILE_K, t.row);
                    if (READS_EXTRA && k < TILE_M / 8) {
                        // Has the extra operand in L2 by the time that the epilogue wants it.
                        const u32 row = t.row + k * 8, bytes = min(TILE_N, u32(args.n) - t.col) * 4;
                        for (u32 r = row; r < min(row + 8, u32(args.m)); ++r)
                            asm volatile("cp.async.bulk.prefetch.L2.global [%0], %1;" ::"l"(extra + r * args.n + t.col),
                                         "r"(bytes)
                                         : "memory");
                    }
                }
            }
        } else if (TRANSPOSES && warp > 8) {
            u32 steps = 0;
            for (u32 unit = blockIdx.x; unit < schedule.count; unit += gridDim.x) {
                const Tile t = schedule.tile(unit);
                steps += t.k_end - t.k_begin;
            }
            // The square's place in units of 4 k and of 4 columns, and the lane's half of it.
            const u32 k = lane % 8, column = k ^ lane / 16, half = lane / 8 % 2;
            const u32 panel = base + B_BYTES + (warp - 9) * PANEL_BYTES;
            const u32 from = panel + swizzle_128(k * 4, column) + half * 8;
            const u32 to = panel + swizzle_128(column * 4 + half * 2, k);
            // From a column to the one whose number differs in the bit 2, or 4.
            const u32 flip_2 = column & 2 ? -1024 : 1024, flip_4 = column & 4 ? -2048 : 2048;
            for (; steps > 0; --steps, stage.next()) {
                barrier_wait(base + FULL + 8 * stage.slot, stage.phase);
                u32 offset = stage.slot * STAGE_BYTES;
#pragma unroll 1
                for (u32 i = 0; i < TILE_M / 32 / TURNERS; ++i, offset += TURNERS * PANEL_BYTES)
                    transpose(from + offset, to + offset, flip_2, flip_4);
                async_proxy_fence();
                __syncwarp();
                if (lane == 0) barrier_arrive(base + TURNED + 8 * stage.slot);
            }
        }
    } else {
        take_registers<240>();
        // Unless TOGETHER, the two warpgroups take the tiles in turn: one multiplies while the other finishes its tile.
        float acc[2][96]; // two blocks of 64 columns of the result
        Cursor<STAGES> stage;
        const u64 a_descriptor = wgmma_descriptor(base + B_BYTES, 1024, 0);
        const u64 b_descriptor = wgmma_descriptor(base, 1024, 0);

        // A warp has 32 columns of the result, a lane four neighbouring ones, the `quad`th four: two of each block.
        const u32 g = lane / 4, pair = lane % 4 * 2;
        const u32 quad = FROM_REGISTERS ? g % 2 * 4 + g / 2 : g; // such that eight lanes read from different banks
        const u32 fragments = base + (TOGETHER * warpgroup * 4 + warp % 4) * PANEL_BYTES;

        for (u32 unit = blockIdx.x, turn = 0; unit < schedule.count; unit += gridDim.x, ++turn) {
            const Tile t = schedule.tile(unit);
            if (!TOGETHER && turn % 2 != warpgroup) {
                stage.skip(t.k_end - t.k_begin);
                continue;
            }
            // A wait tells only odd passes over the ring from even ones, so it starts when the other warpgroup's waits
            // are over.
            if (!TOGETHER && turn > 0) named_barrier(3 + warpgroup, 256);
            u32 last = 0;
            for (u32 k = t.k_begin; k < t.k_end; ++k, stage.next()) {
                barrier_wait(base + READY + 8 * stage.slot, stage.phase);
                const u64 a = a_descriptor + stage.slot * (STAGE_BYTES / 16);
                const u64 b = b_descriptor + stage.slot * (STAGE_BYTES / 16);
#pragma unroll
                for (u32 kk = 0; kk < TILE_K / 8; ++kk) {
                    const u32 accumulate = kk > 0 || k > t.k_begin;
                    if (FROM_REGISTERS) {
                        const u32 row = kk * 8 + lane % 4, from = fragments + stage.slot * STAGE_BYTES;
                        const uint4 v = round_tf32(load_shared<float4>(from + swizzle_128(row, quad)));
                        const uint4 w = round_tf32(load_shared<float4>(from + swizzle_128(row + 4, quad)));
                        const u32 low[4] = {v.x, v.y, w.x, w.y}, high[4] = {v.z, v.w, w.z, w.w};
                        wgmma_fence();
                        wgmma_tf32(acc[0], low, a + kk * 2, accumulate);
                        wgmma_tf32(acc[1], high, a + kk * 2, accumulate);
                        wgmma_commit();
                        wgmma_wait<1>();
                    } else {
                        if (kk == 0) wgmma_fence();
                        wgmma_tf32(acc[0], b + kk * 2, a + kk * 2, accumulate);
                        wgmma_tf32(acc[1], b + 8192 / 16 + kk * 2, a + kk * 2, accumulate);
                        if (kk == TILE_K / 8 - 1) {
                            wgmma_commit();
                            wgmma_wait<1>();
                        }
                    }
                    // The previous stage's products are over.
                    if (kk == (FROM_REGISTERS ? 0 : TILE_K / 8 - 1) && k > t.k_begin && lane == 0)
                        barrier_arrive(base + EMPTY + 8 * last);
                }
                last = stage.slot;
            }
            if (!TOGETHER && unit + gridDim.x < schedule.count) named_barrier_arrive(4 - warpgroup, 256);
            wgmma_wait<0>();
            if (lane == 0) barrier_arrive(base + EMPTY + 8 * last);
            wgmma_pin(acc[0]);
            wgmma_pin(acc[1]);

            const u32 col = t.col + (TOGETHER * warpgroup * 4 + warp % 4) * 32 + quad * 4;
            if (col >= u32(args.n)) continue;
            float4 offset = zero4();
            if (HAS_BIAS) offset = load4(bias + col);
            const u32 row = t.row + pair, rows = u32(args.m);
            u64 at = (t.split * args.m + row) * args.n + col;
#ifdef COLUMN_SUMS
            float4 sum = zero4();
#endif
            constexpr u32 BATCH = 2; // pairs of rows whose extra operand is read at once
#pragma unroll
            for (u32 first = 0; first < TILE_M / 8; first += BATCH) {
                float4 e[BATCH][2];
                if (READS_EXTRA) {
#pragma unroll
                    for (u32 i = 0; i < BATCH * 2; ++i) {
                        const u32 down = i / 2 * 8 + i % 2;
                        if (row + first * 8 + down < rows) e[i / 2][i % 2] = load4(extra + at + down * args.n);
                    }
                }
#pragma unroll
                for (u32 i = 0; i < BATCH * 2; ++i) {
                    const u32 j = (first + i / 2) * 4 + i % 2, down = i / 2 * 8 + i % 2;
                    if (row + first * 8 + down >= rows) continue;
                    float4 v = make_float4(acc[0][j], acc[0][j + 2], acc[1][j], acc[1][j + 2]);
                    float *to = out + at + down * args.n;
                    const float4 x = e[i / 2][i % 2];
                    if (HAS_BIAS) v = v + offset;
                    if (EPILOGUE == 3) v = v + x;
                    if (EPILOGUE == 4)
                        v.x *= gelu_derivative(x.x), v.y *= gelu_derivative(x.y), v.z *= gelu_derivative(x.z),
                            v.w *= gelu_derivative(x.w);
#ifdef COLUMN_SUMS
                    sum = sum + v;
#endif
                    // One addition per element, so the result does not depend on any order.
                    if (EPILOGUE == 5)
                        asm volatile("red.global.add.v4.f32 [%0], {%1, %2, %3, %4};" ::"l"(to), "f"(v.x), "f"(v.y),
                                     "f"(v.z), "f"(v.w)
                                     : "memory");
                    else store4(to, v);
                    if (EPILOGUE == 2)
                        store4(extra + at + down * args.n, make_float4(gelu(v.x), gelu(v.y), gelu(v.z), gelu(v.w)));
                }
                at += BATCH * 8 * args.n;
                // Else all the addresses are computed in advance, and take too many registers.
                asm volatile("" : "+l"(at));
            }
#ifdef COLUMN_SUMS
#pragma unroll
            for (u32 apart = 1; apart < 4; apart *= 2) {
                sum.x += __shfl_xor_sync(~0u, sum.x, apart), sum.y += __shfl_xor_sync(~0u, sum.y, apart);
                sum.z += __shfl_xor_sync(~0u, sum.z, apart), sum.w += __shfl_xor_sync(~0u, sum.w, apart);
            }
            if (pair == 0) store4(column_sums + t.row / TILE_M * args.n + col, sum);
#endif
        }
    }
}
