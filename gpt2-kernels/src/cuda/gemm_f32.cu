// Matrix product in true f32 (FFMA on the CUDA cores), for GPT-2's linear layers and their gradients.
//
//   LAYOUT 0 (NN)  out[M,N] = A[M,K] . B[K,N]
//   LAYOUT 1 (NT)  out[M,N] = A[M,K] . B[N,K]^T
//   LAYOUT 2 (TN)  out[M,N] = A[K,M]^T . B[K,N]
//
//   EPILOGUE 0  out = acc                                   (also the partials of a split product)
//   EPILOGUE 1  out = acc + bias
//   EPILOGUE 2  out = acc + bias,  extra = gelu(out)        (extra is written)
//   EPILOGUE 3  out = extra + acc + bias                    (extra is the residual; it may be out itself)
//   EPILOGUE 4  out = acc * gelu'(extra)                    (extra is the input of the GELU)
//   EPILOGUE 5  out = out + acc
//
// Defines: LAYOUT, EPILOGUE; THREAD_N (8, 12 or 16 columns per thread); TILE_M a multiple of 64, TILE_N of
//          4 * THREAD_N. Checked: TILE_M 128 with TILE_N / THREAD_N 128/16, 96/12, 64/8.
//
// Kernel gemm_f32 (REDUCE undefined), after common.cuh, warp.cuh and gemm_tiled.cuh
//   parameters  const float *a, const float *b, float *out, const float *bias, float *extra, Args {m, n, k, k_split}
//               (bias and extra: any valid pointer where the epilogue has none)
//   grid        (ceil(m / TILE_M) * ceil(n / TILE_N), splits, 1), splits = ceil(k / k_split)
//   block       THREADS = TILE_M * TILE_N / (8 * THREAD_N)
//   shared      static, 34 KiB at most
//   One split: k_split >= k. Several: EPILOGUE 0, k_split a multiple of 8, and out is a scratch buffer [splits, M, N].
//
// Kernel gemm_f32_reduce (REDUCE defined): adds the partials up in split order and applies EPILOGUE.
//   parameters  const float *partials, float *out, const float *bias, float *extra, Args {m, n, splits, 0}
//   grid        (ceil(m * n / 1024), 1, 1), block 256
//
// Rows are arbitrary. N is a multiple of 4; so is K in NN and NT, and M in TN.

// Finishes four neighbouring elements: `at` is their offset in the output, `column` their first column.
__device__ __forceinline__ void finish(float4 v, u64 at, u64 column, float *out, const float *bias, float *extra) {
    if (EPILOGUE == 1 || EPILOGUE == 2 || EPILOGUE == 3) v = v + load4(bias + column);
    if (EPILOGUE == 3) v = v + load4(extra + at);
    if (EPILOGUE == 4) {
        float4 h = load4(extra + at);
        v.x *= gelu_derivative(h.x);
        v.y *= gelu_derivative(h.y);
        v.z *= gelu_derivative(h.z);
        v.w *= gelu_derivative(h.w);
    }
    if (EPILOGUE == 5) v = v + load4(out + at);
    store4(out + at, v);
    if (EPILOGUE == 2) store4(extra + at, make_float4(gelu(v.x), gelu(v.y), gelu(v.z), gelu(v.w)));
}

#ifdef REDUCE

extern "C" __global__ void __launch_bounds__(256) gemm_f32_reduce(const float *partials, float *out, const float *bias,
                                                                  float *extra, const __grid_constant__ Args args) {
    u64 size = args.m * args.n;
    u64 splits = args.k;
    u64 at = 4 * (256 * (u64)blockIdx.x + threadIdx.x);
    if (at >= size) return;
    float4 sum = load4(partials + at);
    for (u64 s = 1; s < splits; s++) sum = sum + load4(partials + s * size + at);
    finish(sum, at, at % args.n, out, bias, extra);
}

#else

constexpr int TILE_K = 8;
constexpr int STAGES = 4;
constexpr int THREAD_M = 8;
// A warp is 8 x 4 threads; its threads' tiles are cut into 4 x 4 pieces, 32 rows and 16 columns apart.
constexpr int WARP_M = 8 * THREAD_M;
constexpr int WARP_N = 4 * THREAD_N;
constexpr int WARPS_N = TILE_N / WARP_N;
constexpr int THREADS = 32 * (TILE_M / WARP_M) * WARPS_N;
constexpr int BLOCKS = 4096 / THREADS / THREAD_N; // of a multiprocessor

// Copies an operand's tiles from global to shared memory, where they lie as [TILE_K][TILE] with rows of PITCH.
// ALONG_K: the operand's rows in memory run along k; the tile is transposed on the way, one float at a time, and the
// padding keeps the eight k and four rows of a warp's copy in different banks. Otherwise floats go by fours.
template <int TILE, bool ALONG_K> struct Operand {
    static constexpr int PITCH = ALONG_K ? TILE + 4 : TILE;
    static constexpr int WIDTH = ALONG_K ? 1 : 4;
    static constexpr int APART = THREADS / TILE_K * WIDTH; // between this thread's copies
    static constexpr int COUNT = (TILE + APART - 1) / APART;

    const float *source;
    u64 step, advance;  // in memory: between this thread's copies, between tiles
    int k, side, limit; // this thread's k and its place along the output's side, which ends at limit
    u32 target;         // of this thread's first copy, in bytes within the tile

    // `first`: where the tile starts along the output's side, of `size`; `k0`: where the product starts.
    __device__ Operand(const float *matrix, u64 first, u64 size, u64 k0, u64 pitch) {
        k = ALONG_K ? threadIdx.x % TILE_K : threadIdx.x / (THREADS / TILE_K);
        side = ALONG_K ? threadIdx.x / TILE_K : threadIdx.x % (THREADS / TILE_K) * WIDTH;
        limit = (int)min(size - first, (u64)TILE);
        source = matrix + (ALONG_K ? (first + side) * pitch + k0 + k : (k0 + k) * pitch + first + side);
        step = ALONG_K ? APART * pitch : APART;
        advance = ALONG_K ? TILE_K : TILE_K * pitch;
        target = 4 * (k * PITCH + side);
    }

    // Starts copying the next tile; k_left elements of k remain, from this tile's start. The rest becomes zeros.
    __device__ void fetch(float *tile, int k_left) {
        u32 to = shared_address(tile) + target;
        bool whole = limit == TILE && k_left >= TILE_K;
        const float *from = source;
#pragma unroll
        for (int i = 0; i < COUNT; i++) {
            if (TILE % APART == 0 || side + i * APART < TILE) {
                if (whole) copy_floats<WIDTH>(to + 4 * i * APART, from);
                else {
                    const bool inside = k < k_left && side + i * APART < limit;
                    copy_floats<WIDTH>(to + 4 * i * APART, from, inside);
                }
            }
            from += step;
        }
        source += advance;
    }
};

typedef Operand<TILE_M, LAYOUT != 2> OperandA;
typedef Operand<TILE_N, LAYOUT == 1> OperandB;

// COUNT floats, in fours that lie APART floats from each other.
template <int COUNT, int APART> __device__ __forceinline__ void read(float (&to)[COUNT], const float *from) {
#pragma unroll
    for (int i = 0; i < COUNT; i += 4) {
        float4 v = load4(from + i / 4 * APART);
        to[i] = v.x, to[i + 1] = v.y, to[i + 2] = v.z, to[i + 3] = v.w;
    }
}

extern "C" __global__ void __launch_bounds__(THREADS, BLOCKS)
    gemm_f32(const float *a, const float *b, float *out, const float *bias, float *extra,
             const __grid_constant__ Args args) {
    __shared__ __align__(16) float tiles_a[STAGES][TILE_K * OperandA::PITCH];
    __shared__ __align__(16) float tiles_b[STAGES][TILE_K * OperandB::PITCH];

    const Corner corner = corner_of_tile<TILE_M, TILE_N>(args);
    u64 m0 = corner.row, n0 = corner.column;
    u64 k0 = blockIdx.y * args.k_split;
    int k_size = (int)min(args.k_split, args.k - k0);

    OperandA operand_a(a, m0, args.m, k0, LAYOUT == 2 ? args.m : args.k);
    OperandB operand_b(b, n0, args.n, k0, LAYOUT == 1 ? args.k : args.n);

    // Neighbouring lanes share rows and lanes two apart share columns: a 16-byte shared load then takes two passes, not
    // four.
    int lane = threadIdx.x % 32, warp = threadIdx.x / 32;
    int row = warp / WARPS_N * WARP_M + ((lane >> 1 & 3) | (lane >> 4 << 2)) * 4;
    int column = warp % WARPS_N * WARP_N + ((lane & 1) | (lane >> 3 & 1) << 1) * 4;

    // Every tile, there or not, commits one group of copies, so that the count of groups in flight is constant.
    auto fetch = [&](int k, int stage) {
        if (k < k_size) {
            operand_a.fetch(tiles_a[stage], k_size - k);
            operand_b.fetch(tiles_b[stage], k_size - k);
        }
        copies_commit();
    };
    auto wait = [] {
        copies_wait<STAGES - 2>();
        __syncthreads();
    };
    for (int stage = 0; stage < STAGES - 1; stage++) fetch(stage * TILE_K, stage);
    wait();

    float sum[THREAD_M][THREAD_N] = {};
    float part_a[2][THREAD_M], part_b[2][THREAD_N];
    const float *from_a = tiles_a[0] + row, *from_b = tiles_b[0] + column;
    read<THREAD_M, 32>(part_a[0], from_a);
    read<THREAD_N, 16>(part_b[0], from_b);
    int stage = 0, ahead = STAGES - 1;
    for (int k0 = 0; k0 < k_size; k0 += TILE_K) {
        fetch(k0 + (STAGES - 1) * TILE_K, ahead);
        ahead = stage;
        stage = stage + 1 == STAGES ? 0 : stage + 1;
#pragma unroll
        for (int k = 0; k < TILE_K; k++) {
            // The next k is read while this one is multiplied; the last of a tile reads the first of the next tile.
            int next = (k + 1) % TILE_K;
            if (next == 0) {
                wait();
                from_a = tiles_a[stage] + row, from_b = tiles_b[stage] + column;
            }
            read<THREAD_M, 32>(part_a[(k + 1) % 2], from_a + next * OperandA::PITCH);
            read<THREAD_N, 16>(part_b[(k + 1) % 2], from_b + next * OperandB::PITCH);
#pragma unroll
            for (int i = 0; i < THREAD_M; i++)
#pragma unroll
                for (int j = 0; j < THREAD_N; j++) sum[i][j] = fmaf(part_a[k % 2][i], part_b[k % 2][j], sum[i][j]);
        }
    }

    out += blockIdx.y * args.m * args.n;
#pragma unroll
    for (int i = 0; i < THREAD_M; i++) {
        u64 r = m0 + row + i / 4 * 32 + i % 4;
        if (r >= args.m) continue;
#pragma unroll
        for (int j = 0; j < THREAD_N; j += 4) {
            u64 c = n0 + column + j / 4 * 16;
            if (c >= args.n) continue;
            float4 v = make_float4(sum[i][j], sum[i][j + 1], sum[i][j + 2], sum[i][j + 3]);
            finish(v, r * args.n + c, c, out, bias, extra);
        }
    }
}

#endif
