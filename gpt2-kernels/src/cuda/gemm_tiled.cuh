// What the products in square tiles, gemm_portable.cu and gemm_f32.cu, share. Follows common.cuh.

struct Args {
    u64 m, n, k, k_split;
};

struct Corner {
    u64 row, column;
};

// The first row and column of this block's tile. Tiles of the output are visited in bands of BAND tiles of rows, so
// that neighbours share operands in L2.
template <u64 ROWS, u64 COLUMNS> __device__ __forceinline__ Corner corner_of_tile(const Args &args) {
    constexpr u64 BAND = 16;
    const u64 rows = (args.m + ROWS - 1) / ROWS, columns = (args.n + COLUMNS - 1) / COLUMNS;
    const u64 band = blockIdx.x / (BAND * columns), in_band = blockIdx.x % (BAND * columns);
    const u64 height = min(BAND, rows - band * BAND);
    return {(band * BAND + in_band % height) * ROWS, in_band / height * COLUMNS};
}

// GELU, tanh form: x / (1 + exp(-2u)) with u = sqrt(2 / pi) (x + 0.044715 x^3). gemm_hopper.cuh has a version of fewer
// instructions, which rounds a little differently.
__device__ __forceinline__ float gelu_gate(float x) {
    const float u = 0.7978845608028654f * x * fmaf(0.044715f * x, x, 1.0f);
    return __fdividef(1.0f, 1.0f + __expf(-2.0f * u));
}
__device__ __forceinline__ float gelu(float x) { return x * gelu_gate(x); }
__device__ __forceinline__ float gelu_derivative(float x) {
    const float gate = gelu_gate(x), slope = 1.5957691216057308f * fmaf(3.0f * 0.044715f * x, x, 1.0f);
    return fmaf(x * gate * (1.0f - gate), slope, gate);
}
