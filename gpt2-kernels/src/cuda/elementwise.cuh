// What the memory-bound kernels share: sums in a fixed order, and launches over several tensors. Follows common.cuh.

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

// ---- launches over several tensors, each of which has a slot ----

// One to three, eight or sixteen parameters, from name0 on; and X(0), X(1) and so on, for the cases of a switch that picks one.
// OF_MATRICES(PARAMETERS_) is that of as many as MATRICES says.
// clang-format off
#define JOINED(name, number) name##number
#define OF(name, number) JOINED(name, number)
#define OF_MATRICES(name) OF(name, MATRICES)
#define PARAMETERS_1(TYPE, name) TYPE name##0
#define PARAMETERS_2(TYPE, name) TYPE name##0, TYPE name##1
#define PARAMETERS_3(TYPE, name) TYPE name##0, TYPE name##1, TYPE name##2
#define PARAMETERS_8(TYPE, name) \
    TYPE name##0, TYPE name##1, TYPE name##2, TYPE name##3, TYPE name##4, TYPE name##5, TYPE name##6, TYPE name##7
#define PARAMETERS_16(TYPE, name) \
    TYPE name##0, TYPE name##1, TYPE name##2, TYPE name##3, TYPE name##4, TYPE name##5, TYPE name##6, TYPE name##7, \
    TYPE name##8, TYPE name##9, TYPE name##10, TYPE name##11, TYPE name##12, TYPE name##13, TYPE name##14, TYPE name##15
// clang-format on
#define EACH_OF_1(X) X(0)
#define EACH_OF_2(X) X(0) X(1)
#define EACH_OF_3(X) X(0) X(1) X(2)
#define EACH_OF_8(X) X(0) X(1) X(2) X(3) X(4) X(5) X(6) X(7)
#define EACH_OF_16(X) X(0) X(1) X(2) X(3) X(4) X(5) X(6) X(7) X(8) X(9) X(10) X(11) X(12) X(13) X(14) X(15)

// The slot whose blocks include this one, a lane looking at each. To find the slot first and then fetch its pointers
// alone is cheaper than to choose among all of them: parameters come through a small, cold cache.
template <int SLOTS> __device__ __forceinline__ u32 slot_of_block(const u64 (&first_blocks)[SLOTS]) {
    static_assert(SLOTS <= 32, "a lane a slot");
    const u32 lane = threadIdx.x % 32;
    return __popc(__ballot_sync(~0u, lane < SLOTS && blockIdx.x >= first_blocks[lane])) - 1;
}
