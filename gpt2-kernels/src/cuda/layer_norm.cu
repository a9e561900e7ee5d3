// LayerNorm over rows of CHANNELS f32 values, eps = 1e-5. Follows elementwise.cuh.
//
// Defines: CHANNELS          row length, a multiple of 4 up to 4096
//          OUTPUT_F32        forward: y is f32, else bf16
//          GRAD_OUTPUT_F32   backward: dy is f32, else bf16
//          ADD_RESIDUAL      backward: `residual` is added to the result, else it is not read
//          OPERAND           backward: the result is also written in bf16, and the sums of its columns
//
// layer_norm_forward(x, gain, offset, y, mean, rstd, {rows})
//     a warp a row: grid ceil(rows / 4), block 128.
// layer_norm_backward(dy, x, gain, mean, rstd, residual, dx, gain_partials, offset_partials,
//                     with OPERAND operand, sum_partials, {rows})
//     block BACKWARD_THREADS = CHANNELS / 4 rounded up to 32; any grid G >= 1, best BACKWARD_BLOCKS a multiprocessor.
//     The partials are f32 [G, CHANNELS], every element written; the sums over their rows (sum_rows in columns.cu) are
//     the gradients of gain and offset, and the sums of dx's columns. dx may be `residual`. `residual` without
//     ADD_RESIDUAL may be any valid pointer.

constexpr float EPSILON = 1e-5f;

struct Args {
    u64 rows;
};

#ifdef OUTPUT_F32
typedef float Output;
#else
typedef bf16 Output;
#endif
#ifdef GRAD_OUTPUT_F32
typedef float GradOutput;
#else
typedef bf16 GradOutput;
#endif

constexpr int FORWARD_WARPS = 4;

extern "C" __global__ void __launch_bounds__(32 * FORWARD_WARPS)
    layer_norm_forward(const float *__restrict__ x, const float *__restrict__ gain, const float *__restrict__ offset,
                       Output *__restrict__ y, float *__restrict__ mean_out, float *__restrict__ rstd_out,
                       const __grid_constant__ Args args) {
    constexpr int QUADS = (CHANNELS + 127) / 128; // groups of four channels a lane holds
    const int lane = threadIdx.x % 32;
    const u64 row = u64(blockIdx.x) * FORWARD_WARPS + threadIdx.x / 32;
    if (row >= args.rows) return;

    float4 v[QUADS];
    float sum = 0.f;
#pragma unroll
    for (int i = 0; i < QUADS; ++i) {
        const int channel = 128 * i + 4 * lane;
        v[i] = channel < CHANNELS ? load4(x + row * CHANNELS + channel) : zero4();
    }
#pragma unroll
    for (int i = 0; i < QUADS; ++i) sum += sum4(v[i]);
    const float mean = warp_sum(sum) * (1.f / CHANNELS);

    float squares = 0.f;
#pragma unroll
    for (int i = 0; i < QUADS; ++i) {
        if (128 * i + 4 * lane >= CHANNELS) break;
        v[i] = v[i] - mean;
        squares += sum4(v[i] * v[i]);
    }
    const float rstd = rsqrtf(warp_sum(squares) * (1.f / CHANNELS) + EPSILON);

#pragma unroll
    for (int i = 0; i < QUADS; ++i) {
        const int channel = 128 * i + 4 * lane;
        if (channel >= CHANNELS) break;
        store4(y + row * CHANNELS + channel, v[i] * rstd * load4(gain + channel) + load4(offset + channel));
    }
    if (lane == 0) {
        mean_out[row] = mean;
        rstd_out[row] = rstd;
    }
}

constexpr int BACKWARD_ROWS = CHANNELS <= 1280 ? 4 : 2;                         // rows a block has in flight
constexpr int BACKWARD_BLOCKS = CHANNELS <= 512 ? 3 : CHANNELS <= 2560 ? 2 : 1; // blocks a multiprocessor holds
constexpr int BACKWARD_WARPS = (CHANNELS + 127) / 128;
constexpr int BACKWARD_THREADS = 32 * BACKWARD_WARPS;

// A thread owns four channels, so the column sums stay in its registers from row to row.
extern "C" __global__ void __launch_bounds__(BACKWARD_THREADS, BACKWARD_BLOCKS)
    layer_norm_backward(const GradOutput *__restrict__ dy, const float *__restrict__ x, const float *__restrict__ gain,
                        const float *__restrict__ mean, const float *__restrict__ rstd, const float *residual,
                        float *dx, float *__restrict__ gain_partials, float *__restrict__ offset_partials,
#ifdef OPERAND
                        bf16 *__restrict__ operand, float *__restrict__ sum_partials,
#endif
                        const __grid_constant__ Args args) {
    // The sums of two successive groups of rows, so that one barrier a group is enough.
    __shared__ float2 scratch[2][BACKWARD_WARPS][BACKWARD_ROWS];
    const int warp = threadIdx.x / 32, lane = threadIdx.x % 32;
    const int channel = 4 * threadIdx.x;
    const bool active = channel < CHANNELS;
    const float4 weight = active ? load4(gain + channel) : zero4();

    float4 d_gain = zero4(), d_offset = zero4();
#ifdef OPERAND
    float4 sum_out = zero4();
#endif
    int phase = 0;
    for (u64 first = u64(blockIdx.x) * BACKWARD_ROWS; first < args.rows; first += u64(gridDim.x) * BACKWARD_ROWS) {
        float4 grad_output[BACKWARD_ROWS], normal[BACKWARD_ROWS];
        float scale[BACKWARD_ROWS];
#ifdef ADD_RESIDUAL
        float4 skip[BACKWARD_ROWS];
#endif
#pragma unroll
        for (int r = 0; r < BACKWARD_ROWS; ++r) {
            const bool valid = active && first + r < args.rows;
            const u64 at = (first + r) * CHANNELS + channel;
            normal[r] = valid ? load4(x + at) : zero4();
            grad_output[r] = valid ? load4(dy + at) : zero4();
#ifdef ADD_RESIDUAL
            skip[r] = valid ? load4(residual + at) : zero4();
#endif
        }
#pragma unroll
        for (int r = 0; r < BACKWARD_ROWS; ++r) {
            const bool valid = first + r < args.rows;
            const float shift = valid ? mean[first + r] : 0.f;
            scale[r] = valid ? rstd[first + r] : 0.f;
            normal[r] = (normal[r] - shift) * scale[r];
            d_gain = d_gain + grad_output[r] * normal[r];
            d_offset = d_offset + grad_output[r];
            grad_output[r] = grad_output[r] * weight;
            const float sum = warp_sum(sum4(grad_output[r]));
            const float product = warp_sum(sum4(grad_output[r] * normal[r]));
            if (lane == 0) scratch[phase][warp][r] = make_float2(sum, product);
        }
        __syncthreads();
#pragma unroll
        for (int r = 0; r < BACKWARD_ROWS; ++r) {
            float2 total = make_float2(0.f, 0.f);
#pragma unroll
            for (int w = 0; w < BACKWARD_WARPS; ++w) {
                total.x += scratch[phase][w][r].x;
                total.y += scratch[phase][w][r].y;
            }
            if (!active || first + r >= args.rows) continue;
            const float base = total.x * (1.f / CHANNELS), slope = total.y * (1.f / CHANNELS);
            float4 out = make_float4(scale[r] * (grad_output[r].x - base - normal[r].x * slope),
                                     scale[r] * (grad_output[r].y - base - normal[r].y * slope),
                                     scale[r] * (grad_output[r].z - base - normal[r].z * slope),
                                     scale[r] * (grad_output[r].w - base - normal[r].w * slope));
#ifdef ADD_RESIDUAL
            out = out + skip[r];
#endif
            const u64 at = (first + r) * CHANNELS + channel;
            store4(dx + at, out);
#ifdef OPERAND
            store4(operand + at, out);
            sum_out = sum_out + out;
#endif
        }
        phase ^= 1;
    }
    if (!active) return;
    const u64 at = u64(blockIdx.x) * CHANNELS + channel;
    store4(gain_partials + at, d_gain);
    store4(offset_partials + at, d_offset);
#ifdef OPERAND
    store4(sum_partials + at, sum_out);
#endif
}
