// Multiplication by a number that is on the device, in place. Follows elementwise.cuh.
//
// Defines: ELEMENT_F32    values are f32, else bf16
//
// scale(x, factor, {count})
//     x[i] *= factor[0], f32 [1]; nothing is read or written where the factor is 1. count is a multiple of 4.
//     grid ceil(count / 4096), block 256.

#ifdef ELEMENT_F32
typedef float Element;
#else
typedef bf16 Element;
#endif

constexpr int THREADS = 256;
constexpr int BATCH = 4;

struct Args {
    u64 count;
};

extern "C" __global__ void __launch_bounds__(THREADS)
    scale(Element *x, const float *__restrict__ factor, const __grid_constant__ Args args) {
    const float f = *factor;
    if (f == 1.f) return;
    const u64 first = u64(blockIdx.x) * 4 * THREADS * BATCH + 4 * threadIdx.x;
#pragma unroll
    for (int i = 0; i < BATCH; ++i) {
        const u64 at = first + 4 * THREADS * i;
        if (at < args.count) store4(x + at, load4(x + at) * f);
    }
}
