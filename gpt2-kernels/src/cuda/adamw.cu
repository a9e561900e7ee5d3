// AdamW over many tensors, and the global norm of the gradients. Follows elementwise.cuh. Counts are multiples of 4.
//
// square_sums(gradient 0..31, partials, {counts[32], first_blocks[32], first_partial})
//     one f32 partial sum of squares a block, from partials[first_partial] on. A tensor takes
//     ceil(count / SQUARE_CHUNK = 16384) blocks; grid: all of them, block 256.
// sum_partials(partials, sum, {count})
//     adds up all partials in f64: the squared norm of the gradients -> f32 [1]. grid 1, block 1024.
// add_gradients(sum 0..15, gradient 0..15, {counts[16], first_blocks[16]})
//     sum = sum + gradient, in place. A tensor takes ceil(count / ADD_CHUNK = 4096) blocks; grid: all of them, block 256.
// gradient_scale(loss, squared_norm, before, scale, {has_before, max_norm, micro_steps, epsilon})
//     min(1, max_norm / (norm / micro_steps + epsilon)) / micro_steps -> f32 [1], in f64; max_norm 0: no clip. 0 if the loss or
//     the norm is not finite, or *before is 0. grid 1, block 32.
// adamw(parameter 0..15, gradient 0..15, m 0..15, v 0..15, with OPERANDS operand 0..15, scale,
//       {counts[16], first_blocks[16], decays[16], beta1, beta2, epsilon, square_correction, step_size, shrink})
//     in place, with g' = g * scale, unless that is 0:
//         m = beta1 * m + (1 - beta1) * g',  v = beta2 * v + (1 - beta2) * g'^2,
//         p = p * (decays ? shrink : 1) - step_size * m / (sqrt(v) / square_correction + epsilon),
//         operand = p in bf16.
//     The last six words are f64; the arithmetic is f32. A tensor takes ceil(count / ADAMW_CHUNK = 1024) blocks; grid:
//     all of them, block 256.
// first_blocks are the running sums of the blocks, from 0. An unused slot repeats any valid pointer, comes last and has
// the grid as its first block.

constexpr int THREADS = 256;

constexpr int SQUARE_SLOTS = 32;
constexpr int SQUARE_BATCH = 16;
constexpr int SQUARE_CHUNK = 4 * THREADS * SQUARE_BATCH; // 16384

struct SquareArgs {
    u64 counts[SQUARE_SLOTS], first_blocks[SQUARE_SLOTS], first_partial;
};

extern "C" __global__ void __launch_bounds__(THREADS)
    square_sums(PARAMETERS_16(const float *, g), PARAMETERS_16(const float *, h), float *__restrict__ partials,
                const __grid_constant__ SquareArgs args) {
    const u32 slot = slot_of_block(args.first_blocks);
    const float *gradient = nullptr;
    switch (slot) {
#define SLOT(i) \
    case i: gradient = g##i; break; \
    case 16 + i: gradient = h##i; break;
        EACH_OF_16(SLOT)
#undef SLOT
    }
    const u64 count = args.counts[slot];
    const u32 chunk = blockIdx.x - (u32)args.first_blocks[slot];

    const u64 first = u64(chunk) * SQUARE_CHUNK + 4 * threadIdx.x;
    float4 v[SQUARE_BATCH], sum = zero4();
#pragma unroll
    for (int i = 0; i < SQUARE_BATCH; ++i) {
        const u64 at = first + 4 * THREADS * i;
        v[i] = at < count ? load4(gradient + at) : zero4();
    }
#pragma unroll
    for (int i = 0; i < SQUARE_BATCH; ++i) sum = sum + v[i] * v[i];
    __shared__ float warp_total[THREADS / 32];
    const float total = block_sum(sum4(sum), warp_total);
    if (threadIdx.x == 0) partials[args.first_partial + blockIdx.x] = total;
}

struct PartialArgs {
    u64 count;
};

extern "C" __global__ void __launch_bounds__(1024)
    sum_partials(const float *__restrict__ partials, float *__restrict__ total,
                 const __grid_constant__ PartialArgs args) {
    __shared__ double warp_total[32];
    double sum = 0.;
#pragma unroll 8
    for (u64 i = threadIdx.x; i < args.count; i += 1024) sum += partials[i];
    sum = block_sum(sum, warp_total);
    if (threadIdx.x == 0) *total = (float)sum;
}

struct ScaleArgs {
    u64 has_before;
    double max_norm, micro_steps, epsilon;
};

extern "C" __global__ void __launch_bounds__(32)
    gradient_scale(const float *__restrict__ loss, const float *__restrict__ squared_norm,
                   const float *__restrict__ before, float *__restrict__ scale,
                   const __grid_constant__ ScaleArgs args) {
    if (threadIdx.x > 0) return;
    const bool fine = isfinite(*loss) && isfinite(*squared_norm) && !(args.has_before && *before == 0.f);
    const double norm = sqrt(double(*squared_norm)) / args.micro_steps;
    const double clip = args.max_norm > 0. ? fmin(args.max_norm / (norm + args.epsilon), 1.) : 1.;
    *scale = fine ? (float)(clip / args.micro_steps) : 0.f;
}

constexpr int SLOTS = 16;

constexpr int ADD_BATCH = 4;
constexpr int ADD_CHUNK = 4 * THREADS * ADD_BATCH; // 4096

struct AddArgs {
    u64 counts[SLOTS], first_blocks[SLOTS];
};

extern "C" __global__ void __launch_bounds__(THREADS)
    add_gradients(PARAMETERS_16(float *, s), PARAMETERS_16(const float *, g), const __grid_constant__ AddArgs args) {
    const u32 slot = slot_of_block(args.first_blocks);
    float *sum = nullptr;
    const float *gradient = nullptr;
    switch (slot) {
#define SLOT(i) \
    case i: sum = s##i, gradient = g##i; break;
        EACH_OF_16(SLOT)
#undef SLOT
    }
    const u64 count = args.counts[slot];
    const u32 chunk = blockIdx.x - (u32)args.first_blocks[slot];

    const u64 first = u64(chunk) * ADD_CHUNK + 4 * threadIdx.x;
    float4 v[ADD_BATCH];
#pragma unroll
    for (int i = 0; i < ADD_BATCH; ++i) {
        const u64 at = first + 4 * THREADS * i;
        v[i] = at < count ? load4(sum + at) + load4(gradient + at) : zero4();
    }
#pragma unroll
    for (int i = 0; i < ADD_BATCH; ++i) {
        const u64 at = first + 4 * THREADS * i;
        if (at < count) store4(sum + at, v[i]);
    }
}

constexpr int ADAMW_CHUNK = 4 * THREADS; // 1024

struct AdamwArgs {
    u64 counts[SLOTS], first_blocks[SLOTS], decays[SLOTS];
    double beta1, beta2, epsilon, square_correction, step_size, shrink;
};

struct Rule {
    float scale, beta1, beta2, rest1, rest2, epsilon, square_correction, step_size, shrink;
    __device__ __forceinline__ void apply(float &p, float g, float &m, float &v) const {
        g *= scale;
        m = beta1 * m + rest1 * g;
        v = beta2 * v + rest2 * g * g;
        p = p * shrink - step_size * m / (sqrtf(v) / square_correction + epsilon);
    }
};

extern "C" __global__ void __launch_bounds__(THREADS)
    adamw(PARAMETERS_16(float *, p), PARAMETERS_16(const float *, g), PARAMETERS_16(float *, m),
          PARAMETERS_16(float *, v),
#ifdef OPERANDS
          PARAMETERS_16(bf16 *, o),
#endif
          const float *__restrict__ scale_at, const __grid_constant__ AdamwArgs args) {
    const float scale = *scale_at;
    if (scale == 0.f) return;
    const u32 slot = slot_of_block(args.first_blocks);
    float *parameter = nullptr, *m_at = nullptr, *v_at = nullptr;
    const float *gradient = nullptr;
#ifdef OPERANDS
    bf16 *operand = nullptr;
#define OPERAND(i) operand = o##i
#else
#define OPERAND(i)
#endif
    switch (slot) {
#define SLOT(i) \
    case i: \
        parameter = p##i, gradient = g##i, m_at = m##i, v_at = v##i; \
        OPERAND(i); \
        break;
        EACH_OF_16(SLOT)
#undef SLOT
#undef OPERAND
    }
    const u64 count = args.counts[slot];
    const u32 chunk = blockIdx.x - (u32)args.first_blocks[slot];

    const u64 at = u64(chunk) * ADAMW_CHUNK + 4 * threadIdx.x;
    if (at >= count) return;
    float4 p = load4(parameter + at), m = load4(m_at + at), v = load4(v_at + at);
    const float4 g = load4(gradient + at);
    const Rule rule = {scale,
                       (float)args.beta1,
                       (float)args.beta2,
                       (float)(1. - args.beta1),
                       (float)(1. - args.beta2),
                       (float)args.epsilon,
                       (float)args.square_correction,
                       (float)args.step_size,
                       args.decays[slot] ? (float)args.shrink : 1.f};
    rule.apply(p.x, g.x, m.x, v.x);
    rule.apply(p.y, g.y, m.y, v.y);
    rule.apply(p.z, g.z, m.z, v.z);
    rule.apply(p.w, g.w, m.w, v.w);
    store4(parameter + at, p);
#ifdef OPERANDS
    store4(operand + at, p);
#endif
    store4(m_at + at, m);
    store4(v_at + at, v);
}
