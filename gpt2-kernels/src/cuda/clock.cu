// The device's clock, which all multiprocessors share. Follows common.cuh.
//
// now(at)
//     at[0] = nanoseconds, u64. grid 1, block 1.
//
// milliseconds_since(at, out)
//     out[0] = the time since at[0], f32; 0 if the clock was set back. grid 1, block 1.

__device__ u64 nanoseconds() {
    u64 time;
    asm volatile("mov.u64 %0, %%globaltimer;" : "=l"(time));
    return time;
}

extern "C" __global__ void __launch_bounds__(1) now(u64 *at) { *at = nanoseconds(); }

extern "C" __global__ void __launch_bounds__(1) milliseconds_since(const u64 *at, float *out) {
    const u64 end = nanoseconds();
    *out = end > *at ? float(end - *at) * 1e-6f : 0.f;
}
