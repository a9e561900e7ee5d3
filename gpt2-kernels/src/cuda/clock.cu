// The device's clock, which all multiprocessors share. Follows common.cuh.
//
// now(at)
//     at[0] = nanoseconds, u64. grid 1, block 1.
//
// lap(before, at, out)
//     at[0] = nanoseconds, u64; out[0] = milliseconds since before[0], which may be at[0], f32. grid 1, block 1.
// milliseconds_since(at, out)
//     out[0] = milliseconds since at[0], f32. grid 1, block 1.
// No time is less than 0, though a clock was set back.

__device__ u64 nanoseconds() {
    u64 time;
    asm volatile("mov.u64 %0, %%globaltimer;" : "=l"(time));
    return time;
}

extern "C" __global__ void __launch_bounds__(1) now(u64 *at) { *at = nanoseconds(); }

__device__ float milliseconds(u64 begin, u64 end) { return end > begin ? float(end - begin) * 1e-6f : 0.f; }

extern "C" __global__ void __launch_bounds__(1) lap(const u64 *before, u64 *at, float *out) {
    const u64 begin = *before, end = nanoseconds();
    *at = end;
    *out = milliseconds(begin, end);
}

extern "C" __global__ void __launch_bounds__(1) milliseconds_since(const u64 *at, float *out) {
    *out = milliseconds(*at, nanoseconds());
}
