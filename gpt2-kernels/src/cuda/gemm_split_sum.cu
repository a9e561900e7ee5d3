// Adds up the partial results of a split matrix product, in split order: out = part[0] + part[1] + ...
// Follows common.cuh.
//
//   parameters  const float *parts [splits, count], float *out [count], Args {count, splits}
//   grid        (ceil(count / 1024), 1, 1), block 256; count is a multiple of 4

struct Args {
    u64 count, splits;
};

extern "C" __global__ void __launch_bounds__(256)
    gemm_split_sum(const float4 *__restrict__ parts, float4 *__restrict__ out, const __grid_constant__ Args args) {
    const u64 i = u64(blockIdx.x) * 256 + threadIdx.x, count = args.count / 4;
    if (i >= count) return;
    float4 sum = parts[i];
    for (u64 split = 1; split < args.splits; ++split) {
        const float4 part = parts[split * count + i];
        sum.x += part.x, sum.y += part.y, sum.z += part.z, sum.w += part.w;
    }
    out[i] = sum;
}
