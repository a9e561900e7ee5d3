// Shared by the memory-bound kernels: bf16 conversion, groups of four channels, sums in a fixed order.

typedef unsigned long long u64;
typedef unsigned short bf16; // raw bits

__device__ __forceinline__ float bf16_low(unsigned pair) { return __uint_as_float(pair << 16); }
__device__ __forceinline__ float bf16_high(unsigned pair) { return __uint_as_float(pair & 0xffff0000u); }

// Rounds to nearest even; `low` goes to the lower address.
__device__ __forceinline__ unsigned bf16_pair(float low, float high) {
    unsigned pair;
    asm("cvt.rn.bf16x2.f32 %0, %1, %2;" : "=r"(pair) : "f"(high), "f"(low));
    return pair;
}

__device__ __forceinline__ float4 load4(const float *p) { return *reinterpret_cast<const float4 *>(p); }
__device__ __forceinline__ float4 load4(const bf16 *p) {
    const uint2 v = *reinterpret_cast<const uint2 *>(p);
    return make_float4(bf16_low(v.x), bf16_high(v.x), bf16_low(v.y), bf16_high(v.y));
}

__device__ __forceinline__ void store4(float *p, float4 v) { *reinterpret_cast<float4 *>(p) = v; }
__device__ __forceinline__ void store4(bf16 *p, float4 v) {
    // One word, which the compiler does not split into two stores.
    *reinterpret_cast<u64 *>(p) = (u64)bf16_pair(v.z, v.w) << 32 | bf16_pair(v.x, v.y);
}

__device__ __forceinline__ float4 zero4() { return make_float4(0.f, 0.f, 0.f, 0.f); }
__device__ __forceinline__ float4 operator+(float4 a, float4 b) {
    return make_float4(a.x + b.x, a.y + b.y, a.z + b.z, a.w + b.w);
}
__device__ __forceinline__ float4 operator*(float4 a, float4 b) {
    return make_float4(a.x * b.x, a.y * b.y, a.z * b.z, a.w * b.w);
}
__device__ __forceinline__ float sum4(float4 v) { return (v.x + v.y) + (v.z + v.w); }

// Every lane gets the sum over the warp.
template <typename T> __device__ __forceinline__ T warp_sum(T v) {
#pragma unroll
    for (int mask = 16; mask > 0; mask >>= 1) v += __shfl_xor_sync(~0u, v, mask);
    return v;
}

// Every thread gets the sum over a block of WARPS whole warps; `scratch` may be reused after the caller's next barrier.
template <int WARPS, typename T> __device__ __forceinline__ T block_sum(T v, T (&scratch)[WARPS]) {
    v = warp_sum(v);
    if (threadIdx.x % 32 == 0) scratch[threadIdx.x / 32] = v;
    __syncthreads();
    T total = scratch[0];
#pragma unroll
    for (int warp = 1; warp < WARPS; ++warp) total += scratch[warp];
    return total;
}

// Launches over several tensors: the slot whose blocks include this one, a lane looking at each. To find the slot first and
// then fetch its pointers alone is cheaper than to choose among all of them: parameters come through a small, cold cache.
template <int SLOTS> __device__ __forceinline__ unsigned slot_of_block(const u64 (&first_blocks)[SLOTS]) {
    static_assert(SLOTS <= 32, "a lane a slot");
    const unsigned lane = threadIdx.x % 32;
    return __popc(__ballot_sync(~0u, lane < SLOTS && blockIdx.x >= first_blocks[lane])) - 1;
}
