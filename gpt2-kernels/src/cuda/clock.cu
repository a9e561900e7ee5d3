// The device's clock, which all multiprocessors share. Follows common.cuh.
//
// lap(before, at, out)
//     at[0] = nanoseconds, u64; out[0] = milliseconds since before[0], f32; 0 if the clock was set back. before may be at.
//     grid 1, block 1.

extern "C" __global__ void __launch_bounds__(1) lap(const u64 *before, u64 *at, float *out) {
    const u64 begin = *before;
    u64 end;
    asm volatile("mov.u64 %0, %%globaltimer;" : "=l"(end));
    *at = end;
    *out = end > begin ? float(end - begin) * 1e-6f : 0.f;
}
