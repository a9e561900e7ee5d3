// Matrix product on the tensor cores through mma.sync, for every GPU from sm_80 on: operands in bf16, or (TF32 defined)
// in f32. Sums are f32 either way.
//
//   TF32 1  operands are rounded to TF32, which keeps 11 bits
//   TF32 3  operands are split into two numbers of TF32, which together keep all but a bit or two, and three products
//           are added up: that of the two lesser parts would be smaller than the rounding of the sum. The tensor cores
//           cut sums off instead of rounding them, so each tile along k has sums of its own, which are then added with
//           rounding; without that the error grows with k, to 1e-4 for k = 50,304
//
//   LAYOUT 0 (NN)  acc[M,N] = A[M,K] . B[K,N]
//   LAYOUT 1 (NT)  acc[M,N] = A[M,K] . B[N,K]^T
//   LAYOUT 2 (TN)  acc[M,N] = A[K,M]^T . B[K,N]
//
// T is the operands' type, bf16 or f32; bias is f32.
//   EPILOGUE 0  T   out = acc
//   EPILOGUE 1  T   out = acc + bias
//   EPILOGUE 2  T   out = acc + bias,  T extra = gelu(out)     (extra is written)
//   EPILOGUE 3  f32 out = f32 extra + acc + bias               (extra is the residual; it may be out itself)
//   EPILOGUE 4  T   out = acc * gelu'(T extra)                 (extra is the input of the GELU)
//   EPILOGUE 5  f32 out = out + acc
//   EPILOGUE 6  f32 out = acc                                  (also the partials of a split product)
//
// Defines: LAYOUT, EPILOGUE, TF32; TILE_M, TILE_N (multiples of 64), WARP_N (32 or 64 columns per warp), STAGES.
//          Checked: 128 x 128 with WARP_N 64 and 32, 128 x 256 with WARP_N 64, three stages.
//
// Kernel gemm_portable (REDUCE undefined), after common.cuh, warp.cuh and gemm_tiled.cuh
//   parameters  const T *a, const T *b, void *out, const float *bias, void *extra, Args {m, n, k, k_split}
//               (bias and extra: any valid pointer where the epilogue has none)
//   grid        (ceil(m / TILE_M) * ceil(n / TILE_N), splits, 1), splits = ceil(k / k_split)
//   block       THREADS = TILE_M * TILE_N / (2 * WARP_N)
//   shared      dynamic, STAGES * (TILE_M + TILE_N) * 128 bytes: 96 KiB for three stages of 128 x 128
//   One split: k_split >= k. Several: EPILOGUE 6, k_split a multiple of 64, and out is a scratch buffer [splits, M, N].
//
// Kernel gemm_portable_reduce (REDUCE defined): adds the partials up in split order and applies EPILOGUE.
//   parameters  const float *partials, void *out, const float *bias, void *extra, Args {m, n, splits, 0}
//   grid        (ceil(m * n / 2048), 1, 1), block 256
//
// Rows are arbitrary. N is a multiple of 8; so is K in NN and NT, and M in TN.

#ifdef TF32
typedef float Element;
#else
typedef bf16 Element;
#endif

// Eight neighbouring elements of a row, in f32; in memory either f32 or bf16.
struct Eight {
    float x[8];
};

__device__ __forceinline__ Eight load8(const float *p) {
    float4 a = load4(p), b = load4(p + 4);
    return {a.x, a.y, a.z, a.w, b.x, b.y, b.z, b.w};
}

__device__ __forceinline__ Eight load8(const bf16 *p) {
    uint4 v = *reinterpret_cast<const uint4 *>(p);
    u32 words[4] = {v.x, v.y, v.z, v.w};
    Eight e;
#pragma unroll
    for (int i = 0; i < 4; i++) {
        e.x[2 * i] = bf16_low(words[i]);
        e.x[2 * i + 1] = bf16_high(words[i]);
    }
    return e;
}

__device__ __forceinline__ void store8(float *p, Eight e) {
    store4(p, make_float4(e.x[0], e.x[1], e.x[2], e.x[3]));
    store4(p + 4, make_float4(e.x[4], e.x[5], e.x[6], e.x[7]));
}

__device__ __forceinline__ void store8(bf16 *p, Eight e) {
    u32 words[4];
#pragma unroll
    for (int i = 0; i < 4; i++) words[i] = bf16_pack(e.x[2 * i], e.x[2 * i + 1]);
    *reinterpret_cast<uint4 *>(p) = make_uint4(words[0], words[1], words[2], words[3]);
}

__device__ __forceinline__ Eight operator+(Eight a, Eight b) {
#pragma unroll
    for (int i = 0; i < 8; i++) a.x[i] += b.x[i];
    return a;
}

// Finishes eight neighbouring elements: `at` is their offset in the output, `column` their first column.
__device__ __forceinline__ void finish(Eight v, u64 at, u64 column, void *out, const float *bias, void *extra) {
    Element *element = (Element *)out + at, *extra_element = (Element *)extra + at;
    float *single = (float *)out + at;
    if (EPILOGUE == 1 || EPILOGUE == 2 || EPILOGUE == 3) v = v + load8(bias + column);
    if (EPILOGUE == 4) {
        Eight h = load8(extra_element);
#pragma unroll
        for (int i = 0; i < 8; i++) v.x[i] *= gelu_derivative(h.x[i]);
    }
    if (EPILOGUE == 0 || EPILOGUE == 1 || EPILOGUE == 2 || EPILOGUE == 4) store8(element, v);
    if (EPILOGUE == 2) {
#ifndef TF32
#pragma unroll
        for (int i = 0; i < 8; i++) { // the GELU of what was stored
            unsigned short rounded;
            asm("cvt.rn.bf16.f32 %0, %1;" : "=h"(rounded) : "f"(v.x[i]));
            v.x[i] = __uint_as_float((u32)rounded << 16);
        }
#endif
#pragma unroll
        for (int i = 0; i < 8; i++) v.x[i] = gelu(v.x[i]);
        store8(extra_element, v);
    }
    if (EPILOGUE == 3) store8(single, v + load8((const float *)extra + at));
    if (EPILOGUE == 5) store8(single, v + load8(single));
    if (EPILOGUE == 6) store8(single, v);
}

#ifdef REDUCE

extern "C" __global__ void __launch_bounds__(256)
    gemm_portable_reduce(const float *partials, void *out, const float *bias, void *extra,
                         const __grid_constant__ Args args) {
    u64 size = args.m * args.n;
    u64 splits = args.k;
    u64 at = 8 * (256 * (u64)blockIdx.x + threadIdx.x);
    if (at >= size) return;
    Eight sum = load8(partials + at);
    for (u64 s = 1; s < splits; s++) sum = sum + load8(partials + s * size + at);
    finish(sum, at, at % args.n, out, bias, extra);
}

#else

// Shared memory is handled in chunks of 16 bytes, which is what one lane gives to ldmatrix and to cp.async.
constexpr int CHUNK = 16 / sizeof(Element);
constexpr int TILE_K = 8 * CHUNK; // elements, in four steps of one mma each
constexpr int WARP_M = 64;
constexpr int WARPS_N = TILE_N / WARP_N;
constexpr int THREADS = 32 * (TILE_M / WARP_M) * WARPS_N;
constexpr int MM = WARP_M / 16, NN = WARP_N / 8; // mma tiles of a warp
constexpr int STAGE_BYTES = (TILE_M + TILE_N) * 128;

// One operand's tile. ALONG_K: its rows in memory run along k and it lies as [TILE][TILE_K], else as [TILE_K][TILE].
// The chunks of a row are permuted by the row, so that the rows that are read together lie in different banks.
template <int TILE, bool ALONG_K> struct Operand {
    static constexpr int PER_ROW = ALONG_K ? 8 : TILE / CHUNK; // chunks
    static constexpr int COUNT = 8 * TILE / THREADS;           // chunks per thread
    static constexpr int ROWS_APART = THREADS / PER_ROW;

    const Element *source;
    u64 apart, advance; // between this thread's chunks, between tiles
    int row, column;    // of this thread's first chunk, within the tile as it lies in memory
    int limit;          // how far the matrix reaches from the tile's first row (ALONG_K) or column
    u32 target;         // of this thread's first chunk, in bytes within the tile

#ifdef TF32
    static constexpr int PERIOD = ALONG_K ? 8 : 4, SWAP = ALONG_K ? 1 : 2; // across, elements are read one by one
#else
    static constexpr int PERIOD = 8, SWAP = 1;
#endif
    static_assert(ROWS_APART % PERIOD == 0, "a thread's chunks share their permutation");

    // `first`: where the tile starts along the output's side, of `size`; `k0`: where the product starts.
    __device__ Operand(const Element *matrix, u64 first, u64 size, u64 k0, u64 pitch) {
        row = threadIdx.x / PER_ROW;
        int chunk = threadIdx.x % PER_ROW;
        column = chunk * CHUNK;
        limit = (int)min(size - first, (u64)TILE);
        u64 r = ALONG_K ? first : k0, c = ALONG_K ? k0 : first;
        source = matrix + (r + row) * pitch + c + column;
        apart = ROWS_APART * pitch;
        advance = ALONG_K ? TILE_K : TILE_K * pitch;
        target = (row * PER_ROW + (chunk ^ row % PERIOD * SWAP)) * 16;
    }

    // Starts copying the next tile; k_left elements of k remain, from this tile's start. The rest becomes zeros.
    __device__ void fetch(u32 tile, int k_left) {
#pragma unroll
        for (int i = 0; i < COUNT; i++) {
            int r = row + i * ROWS_APART;
            bool inside = ALONG_K ? (r < limit && column < k_left) : (r < k_left && column < limit);
            copy_chunk(tile + target + i * ROWS_APART * PER_ROW * 16, source + i * apart, inside);
        }
        source += advance;
    }
};

typedef Operand<TILE_M, LAYOUT != 2> OperandA;
typedef Operand<TILE_N, LAYOUT == 1> OperandB;

// Rounds to TF32, unless the operand is split later on.
__device__ __forceinline__ u32 to_tf32(u32 x) {
#if TF32 == 1
    x = round_tf32(__uint_as_float(x));
#endif
    return x;
}

// Four 8 x 8 fragments (TF32: 8 x 4) of a tile that lies as [TILE][TILE_K]: 16 rows from `side` by the two chunks of
// `step`. SIDE_FIRST: neighbouring fragments differ in rows first (as mma wants them of A), else in k first (as of B).
template <bool SIDE_FIRST> __device__ __forceinline__ void read_along(u32 (&to)[4], u32 tile, int side, int step) {
    int lane = threadIdx.x % 32, low = lane >> 3 & 1, high = lane >> 4;
    int row = side + lane % 8 + 8 * (SIDE_FIRST ? low : high), chunk = 2 * step + (SIDE_FIRST ? high : low);
    load_matrices(to, tile + row * 128 + ((chunk ^ lane % 8) << 4));
#ifdef TF32
#pragma unroll
    for (int i = 0; i < 4; i++) to[i] = to_tf32(to[i]);
#endif
}

// The same of a tile that lies as [TILE_K][TILE]; the rows start at `side`, a multiple of 32, plus `offset`.
template <bool SIDE_FIRST, int TILE>
__device__ __forceinline__ void read_across(u32 (&to)[4], u32 tile, int side, int offset, int step) {
    int lane = threadIdx.x % 32;
#ifdef TF32
    tile += (lane % 4 * TILE + side + lane / 4) * 4;
#pragma unroll
    for (int i = 0; i < 4; i++) {
        int low = i % 2, high = i / 2;
        int k = 8 * step + 4 * (SIDE_FIRST ? high : low), column = offset + 8 * (SIDE_FIRST ? low : high);
        u32 address = tile + ((column % 32 ^ lane % 4 * 8) + column / 32 * 32 + k * TILE) * 4;
        to[i] = to_tf32(load_shared<u32>(address));
    }
#else
    int low = lane >> 3 & 1, high = lane >> 4;
    int k = 16 * step + lane % 8 + 8 * (SIDE_FIRST ? high : low);
    int chunk = (side + offset) / 8 + (SIDE_FIRST ? low : high);
    load_matrices_transposed(to, tile + k * TILE * 2 + ((chunk ^ lane % 8) << 4));
#endif
}

__device__ __forceinline__ void mma(float (&sum)[4], const u32 (&a)[4], u32 b0, u32 b1) {
#ifdef TF32
    mma_tf32(sum, a, b0, b1);
#else
    mma_bf16(sum, a, b0, b1);
#endif
}

// Leaves of each element its first 11 bits and gives the rest, which is exact; of that the product reads 11 bits more,
// the last rounded by the addition.
template <int N> __device__ __forceinline__ void split(u32 (&x)[N][4], u32 (&rest)[N][4]) {
#pragma unroll
    for (int i = 0; i < N; i++)
#pragma unroll
        for (int j = 0; j < 4; j++) {
            u32 first = x[i][j] & 0xffffe000u;
            rest[i][j] = __float_as_uint(__uint_as_float(x[i][j]) - __uint_as_float(first)) + 0x1000u;
            x[i][j] = first;
        }
}

// Adds the products of a step of k to the sums of a warp.
__device__ __forceinline__ void multiply(float (&sum)[MM][NN][4], const u32 (&a)[MM][4], const u32 (&b)[NN / 2][4]) {
#pragma unroll
    for (int i = 0; i < MM; i++)
#pragma unroll
        for (int j = 0; j < NN; j++) mma(sum[i][j], a[i], b[j / 2][j % 2 * 2], b[j / 2][j % 2 * 2 + 1]);
}

// The fragments of one step of k.
struct Fragments {
    u32 a[MM][4], b[NN / 2][4];

    __device__ void read(u32 stage, int row, int column, int step) {
#pragma unroll
        for (int i = 0; i < MM; i++) {
            if (LAYOUT == 2) read_across<true, TILE_M>(a[i], stage, row, 16 * i, step);
            else read_along<true>(a[i], stage, row + 16 * i, step);
        }
#pragma unroll
        for (int j = 0; j < NN / 2; j++) {
            if (LAYOUT == 1) read_along<false>(b[j], stage + TILE_M * 128, column + 16 * j, step);
            else read_across<false, TILE_N>(b[j], stage + TILE_M * 128, column, 16 * j, step);
        }
    }
};

extern "C" __global__ void __launch_bounds__(THREADS, 256 / THREADS)
    gemm_portable(const Element *a, const Element *b, void *out, const float *bias, void *extra,
                  const __grid_constant__ Args args) {
    extern __shared__ __align__(1024) u8 shared[];
    u32 stages = shared_address(shared);

    const Corner corner = corner_of_tile<TILE_M, TILE_N>(args);
    u64 m0 = corner.row, n0 = corner.column;
    u64 k0 = blockIdx.y * args.k_split;
    int k_size = (int)min(args.k_split, args.k - k0);
    int tiles = (k_size + TILE_K - 1) / TILE_K;

    OperandA operand_a(a, m0, args.m, k0, LAYOUT == 2 ? args.m : args.k);
    OperandB operand_b(b, n0, args.n, k0, LAYOUT == 1 ? args.k : args.n);
    int lane = threadIdx.x % 32, warp = threadIdx.x / 32;
    int row = warp / WARPS_N * WARP_M, column = warp % WARPS_N * WARP_N;

    // Every tile, there or not, commits one group of copies, so that the count of groups in flight is constant.
    auto fetch = [&](int tile) {
        if (tile < tiles) {
            u32 stage = stages + tile % STAGES * STAGE_BYTES;
            operand_a.fetch(stage, k_size - tile * TILE_K);
            operand_b.fetch(stage + TILE_M * 128, k_size - tile * TILE_K);
        }
        copies_commit();
    };
    for (int tile = 0; tile < STAGES - 1; tile++) fetch(tile);

    float sum[MM][NN][4] = {};
    for (int tile = 0; tile < tiles; tile++) {
        copies_wait<STAGES - 2>();
        __syncthreads();
        u32 stage = stages + tile % STAGES * STAGE_BYTES;
#if TF32 == 3
        float of_tile[MM][NN][4] = {};
#else
        float (&of_tile)[MM][NN][4] = sum;
#endif
        Fragments part[2];
        part[0].read(stage, row, column, 0);
        fetch(tile + STAGES - 1);
#pragma unroll
        for (int step = 0; step < 4; step++) {
            if (step < 3) part[(step + 1) % 2].read(stage, row, column, step + 1);
            Fragments &now = part[step % 2];
#if TF32 == 3
            Fragments rest;
            split(now.a, rest.a);
            split(now.b, rest.b);
            multiply(of_tile, rest.a, now.b);
            multiply(of_tile, now.a, rest.b);
#endif
            multiply(of_tile, now.a, now.b);
        }
#if TF32 == 3
#pragma unroll
        for (int i = 0; i < MM; i++)
#pragma unroll
            for (int j = 0; j < NN; j++)
#pragma unroll
                for (int e = 0; e < 4; e++) sum[i][j][e] += of_tile[i][j][e];
#endif
    }
    __syncthreads();

    // Through shared memory, 16 rows of a warp at a time, so that a lane holds eight neighbouring elements.
    constexpr int PITCH = WARP_N + 8, LANES = WARP_N / 8;
    float *slab = reinterpret_cast<float *>(shared) + warp * 16 * PITCH;
    if (EPILOGUE == 6) out = (float *)out + blockIdx.y * args.m * args.n;
#pragma unroll
    for (int i = 0; i < MM; i++) {
#pragma unroll
        for (int j = 0; j < NN; j++)
#pragma unroll
            for (int half = 0; half < 2; half++)
                *reinterpret_cast<float2 *>(slab + (lane / 4 + 8 * half) * PITCH + 8 * j + lane % 4 * 2) =
                    make_float2(sum[i][j][2 * half], sum[i][j][2 * half + 1]);
        __syncwarp();
#pragma unroll
        for (int pass = 0; pass < 16 * LANES / 32; pass++) {
            int r = pass * (32 / LANES) + lane / LANES, c = lane % LANES * 8;
            u64 to_row = m0 + row + 16 * i + r, to_column = n0 + column + c;
            if (to_row < args.m && to_column < args.n)
                finish(load8(slab + r * PITCH + c), to_row * args.n + to_column, to_column, out, bias, extra);
        }
        __syncwarp();
    }
}

#endif
