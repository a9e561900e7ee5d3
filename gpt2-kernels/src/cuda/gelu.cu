// GELU, tanh form, element by element. Follows elementwise.cuh.
//
// Defines: ELEMENT_F32    values are f32, else bf16 (the arithmetic is f32)
//
// gelu_forward(x, y, {count}), gelu_backward(x, dy, dx, {count})
//     count a multiple of 4; dx may be dy. grid ceil(count / 4096), block 256.

#ifdef ELEMENT_F32
typedef float Element;
#else
typedef bf16 Element;
#endif

constexpr int THREADS = 256;
constexpr int BATCH = 4;
constexpr int CHUNK = 4 * THREADS * BATCH;

struct Args {
    u64 count;
};

constexpr float SQRT_2_OVER_PI = 0.7978845608028654f;
constexpr float CUBIC = 0.044715f;

// gelu(x) = x / (1 + exp(-2 u)) with u = sqrt(2 / pi) (x + 0.044715 x^3), which loses no digits in either tail. The
// products' GELU (gemm_hopper.cuh, gemm_tiled.cuh) takes fewer instructions and is less exact there.
__device__ __forceinline__ float exp_minus_2u(float x) {
    const float u = x * (SQRT_2_OVER_PI + SQRT_2_OVER_PI * CUBIC * x * x);
    return exp2_fast(-2.0f * LOG2_E * u);
}

__device__ __forceinline__ float gelu(float x) { return __fdividef(x, 1.f + exp_minus_2u(x)); }

__device__ __forceinline__ float gelu_derivative(float x) {
    x = x > 9.f ? 9.f : x < -9.f ? -9.f : x; // beyond, the derivative is 1 or 0 to the last bit
    const float e = exp_minus_2u(x);
    const float gate = __fdividef(1.f, 1.f + e); // (1 + tanh u) / 2, and 1 - gate is e * gate
    const float two_du = 2.f * SQRT_2_OVER_PI + 6.f * SQRT_2_OVER_PI * CUBIC * x * x;
    return gate + x * gate * (e * gate) * two_du;
}

extern "C" __global__ void __launch_bounds__(THREADS)
    gelu_forward(const Element *__restrict__ x, Element *__restrict__ y, const __grid_constant__ Args args) {
    const u64 first = u64(blockIdx.x) * CHUNK + 4 * threadIdx.x;
    float4 v[BATCH];
#pragma unroll
    for (int i = 0; i < BATCH; ++i) {
        const u64 at = first + 4 * THREADS * i;
        v[i] = at < args.count ? load4(x + at) : zero4();
    }
#pragma unroll
    for (int i = 0; i < BATCH; ++i) {
        const u64 at = first + 4 * THREADS * i;
        if (at < args.count) store4(y + at, make_float4(gelu(v[i].x), gelu(v[i].y), gelu(v[i].z), gelu(v[i].w)));
    }
}

extern "C" __global__ void __launch_bounds__(THREADS)
    gelu_backward(const Element *__restrict__ x, const Element *dy, Element *dx, const __grid_constant__ Args args) {
    const u64 first = u64(blockIdx.x) * CHUNK + 4 * threadIdx.x;
    float4 v[BATCH], d[BATCH];
#pragma unroll
    for (int i = 0; i < BATCH; ++i) {
        const u64 at = first + 4 * THREADS * i;
        v[i] = at < args.count ? load4(x + at) : zero4();
        d[i] = at < args.count ? load4(dy + at) : zero4();
    }
#pragma unroll
    for (int i = 0; i < BATCH; ++i) {
        const u64 at = first + 4 * THREADS * i;
        if (at < args.count)
            store4(dx + at, d[i] * make_float4(gelu_derivative(v[i].x), gelu_derivative(v[i].y),
                                               gelu_derivative(v[i].z), gelu_derivative(v[i].w)));
    }
}
