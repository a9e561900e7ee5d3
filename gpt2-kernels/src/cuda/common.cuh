// Helpers for Hopper kernels: bf16, shared-memory barriers, TMA, wgmma. Compiled by NVRTC, so nothing is included.

typedef unsigned char u8;
typedef unsigned short u16;
typedef unsigned int u32;
typedef unsigned long long u64;

// A CUtensorMap, passed by value as a __grid_constant__ parameter.
struct alignas(64) TensorMap {
    u64 opaque[16];
};

// ---- bf16 ----

// Rounds to nearest even; `low` goes to the lower address.
__device__ __forceinline__ u32 bf16_pack(float low, float high) {
    u32 pair;
    asm("cvt.rn.bf16x2.f32 %0, %1, %2;" : "=r"(pair) : "f"(high), "f"(low));
    return pair;
}
__device__ __forceinline__ float bf16_low(u32 pair) { return __uint_as_float(pair << 16); }
__device__ __forceinline__ float bf16_high(u32 pair) { return __uint_as_float(pair & 0xffff0000u); }

// ---- shared memory: addresses are 32-bit, in the shared window ----

__device__ __forceinline__ u32 shared_address(const void *p) { return u32(__cvta_generic_to_shared(p)); }

// Byte offset of the 16-byte unit `unit` of row `row` in a tile with rows of 128 bytes and TMA's 128-byte swizzle.
// The tile starts at a multiple of 1024 bytes.
__device__ __forceinline__ u32 swizzle_128(u32 row, u32 unit) { return row * 128 + ((unit ^ (row & 7)) << 4); }

__device__ __forceinline__ float2 load_shared(u32 address) {
    float2 v;
    asm volatile("ld.shared.v2.f32 {%0, %1}, [%2];" : "=f"(v.x), "=f"(v.y) : "r"(address) : "memory");
    return v;
}
__device__ __forceinline__ void store_shared(u32 address, float2 v) {
    asm volatile("st.shared.v2.f32 [%0], {%1, %2};" ::"r"(address), "f"(v.x), "f"(v.y) : "memory");
}

// Four 8x8 matrices of 16-bit elements; lane l gives the address of row l % 8 of matrix l / 8.
__device__ __forceinline__ void load_matrices(u32 address, u32 (&m)[4]) {
    asm volatile("ldmatrix.sync.aligned.m8n8.x4.shared.b16 {%0, %1, %2, %3}, [%4];"
                 : "=r"(m[0]), "=r"(m[1]), "=r"(m[2]), "=r"(m[3])
                 : "r"(address)
                 : "memory");
}
__device__ __forceinline__ void store_matrices(u32 address, const u32 (&m)[4]) {
    asm volatile("stmatrix.sync.aligned.m8n8.x4.shared.b16 [%0], {%1, %2, %3, %4};" ::"r"(address), "r"(m[0]),
                 "r"(m[1]), "r"(m[2]), "r"(m[3])
                 : "memory");
}

// ---- barriers ----

__device__ __forceinline__ void barrier_init(u32 barrier, u32 arrivals) {
    asm volatile("mbarrier.init.shared::cta.b64 [%0], %1;" ::"r"(barrier), "r"(arrivals) : "memory");
}
__device__ __forceinline__ void barrier_init_fence() {
    asm volatile("fence.mbarrier_init.release.cluster;" ::: "memory");
}
__device__ __forceinline__ void barrier_arrive(u32 barrier) {
    asm volatile("mbarrier.arrive.shared::cta.b64 _, [%0];" ::"r"(barrier) : "memory");
}
// Arrives and announces `bytes` that the copy engine will deliver in this phase.
__device__ __forceinline__ void barrier_expect(u32 barrier, u32 bytes) {
    asm volatile("mbarrier.arrive.expect_tx.shared::cta.b64 _, [%0], %1;" ::"r"(barrier), "r"(bytes) : "memory");
}
// Arrives at the same barrier of block `rank` of this cluster.
__device__ __forceinline__ void barrier_arrive_cluster(u32 barrier, u32 rank) {
    asm volatile("{\n.reg .b32 remote;\n"
                 "mapa.shared::cluster.u32 remote, %0, %1;\n"
                 "mbarrier.arrive.shared::cluster.b64 _, [remote];\n}\n" ::"r"(barrier),
                 "r"(rank)
                 : "memory");
}
__device__ __forceinline__ bool barrier_try_wait(u32 barrier, u32 parity) {
    u32 done;
    asm volatile("{\n.reg .pred p;\n"
                 "mbarrier.try_wait.parity.shared::cta.b64 p, [%1], %2;\n"
                 "selp.b32 %0, 1, 0, p;\n}\n"
                 : "=r"(done)
                 : "r"(barrier), "r"(parity)
                 : "memory");
    return done;
}
// Waits for the end of the phase of this parity. With SPIN_LIMIT a barrier that never opens traps.
__device__ __forceinline__ void barrier_wait(u32 barrier, u32 parity) {
#ifdef SPIN_LIMIT
    for (u32 spins = 0; !barrier_try_wait(barrier, parity); ++spins)
        if (spins > SPIN_LIMIT) asm volatile("trap;");
#else
    while (!barrier_try_wait(barrier, parity)) {}
#endif
}
// Barrier `id` (1 to 15) among `threads` threads of the block.
__device__ __forceinline__ void named_barrier(u32 id, u32 threads) {
    asm volatile("bar.sync %0, %1;" ::"r"(id), "r"(threads) : "memory");
}
__device__ __forceinline__ void named_barrier_arrive(u32 id, u32 threads) {
    asm volatile("bar.arrive %0, %1;" ::"r"(id), "r"(threads) : "memory");
}
// Orders execution only: no memory is made visible (release semantics would cost a device-wide fence).
__device__ __forceinline__ void cluster_sync() {
    asm volatile("barrier.cluster.arrive.relaxed;\nbarrier.cluster.wait;" ::: "memory");
}
__device__ __forceinline__ u32 cluster_rank() {
    u32 rank;
    asm volatile("mov.u32 %0, %%cluster_ctarank;" : "=r"(rank));
    return rank;
}

// ---- TMA: coordinates innermost first, in elements ----

__device__ __forceinline__ void tma_prefetch(const TensorMap &map) {
    asm volatile("prefetch.tensormap [%0];" ::"l"(&map) : "memory");
}
__device__ __forceinline__ void tma_load(u32 to, const TensorMap &map, u32 barrier, u32 x, u32 y) {
    asm volatile("cp.async.bulk.tensor.2d.shared::cluster.global.tile.mbarrier::complete_tx::bytes "
                 "[%0], [%1, {%3, %4}], [%2];" ::"r"(to),
                 "l"(&map), "r"(barrier), "r"(x), "r"(y)
                 : "memory");
}
__device__ __forceinline__ void tma_load(u32 to, const TensorMap &map, u32 barrier, u32 x, u32 y, u32 z) {
    asm volatile("cp.async.bulk.tensor.3d.shared::cluster.global.tile.mbarrier::complete_tx::bytes "
                 "[%0], [%1, {%3, %4, %5}], [%2];" ::"r"(to),
                 "l"(&map), "r"(barrier), "r"(x), "r"(y), "r"(z)
                 : "memory");
}
// Delivers to the same address, and signals the same barrier, in every block of the cluster whose bit is set.
__device__ __forceinline__ void tma_load_multicast(u32 to, const TensorMap &map, u32 barrier, u32 x, u32 y, u32 z,
                                                   u16 blocks) {
    asm volatile("cp.async.bulk.tensor.3d.shared::cluster.global.tile.mbarrier::complete_tx::bytes.multicast::cluster "
                 "[%0], [%1, {%3, %4, %5}], [%2], %6;" ::"r"(to),
                 "l"(&map), "r"(barrier), "r"(x), "r"(y), "r"(z), "h"(blocks)
                 : "memory");
}
__device__ __forceinline__ void tma_store(u32 from, const TensorMap &map, u32 x, u32 y) {
    asm volatile("cp.async.bulk.tensor.2d.global.shared::cta.tile.bulk_group [%1, {%2, %3}], [%0];" ::"r"(from),
                 "l"(&map), "r"(x), "r"(y)
                 : "memory");
}
__device__ __forceinline__ void tma_store(u32 from, const TensorMap &map, u32 x, u32 y, u32 z) {
    asm volatile("cp.async.bulk.tensor.3d.global.shared::cta.tile.bulk_group [%1, {%2, %3, %4}], [%0];" ::"r"(from),
                 "l"(&map), "r"(x), "r"(y), "r"(z)
                 : "memory");
}
// Adds to what is in memory; one addition per element, so the result does not depend on any order.
__device__ __forceinline__ void tma_add(u32 from, const TensorMap &map, u32 x, u32 y, u32 z) {
    asm volatile("cp.reduce.async.bulk.tensor.3d.global.shared::cta.add.tile.bulk_group [%1, {%2, %3, %4}], [%0];" ::"r"(from),
                 "l"(&map), "r"(x), "r"(y), "r"(z)
                 : "memory");
}
__device__ __forceinline__ void tma_commit() { asm volatile("cp.async.bulk.commit_group;" ::: "memory"); }
// Waits until at most PENDING of this thread's committed stores still have to read shared memory.
template <int PENDING> __device__ __forceinline__ void tma_wait_read() {
    asm volatile("cp.async.bulk.wait_group.read %0;" ::"n"(PENDING) : "memory");
}
__device__ __forceinline__ void tma_wait_all() { asm volatile("cp.async.bulk.wait_group 0;" ::: "memory"); }
// Makes ordinary shared-memory writes visible to the copy engine and the tensor cores.
__device__ __forceinline__ void async_proxy_fence() { asm volatile("fence.proxy.async.shared::cta;" ::: "memory"); }

// ---- wgmma ----

// Descriptor of a bf16 operand with 128-byte swizzle. `group_stride`: bytes between groups of 8 rows of 128 bytes;
// `panel_stride`: bytes between panels 64 elements wide (MN-major operands only).
__device__ __forceinline__ u64 wgmma_descriptor(u32 address, u32 group_stride, u32 panel_stride) {
    return u64((address & 0x3ffff) >> 4) | u64(panel_stride >> 4) << 16 | u64(group_stride >> 4) << 32 | 1ull << 62;
}
__device__ __forceinline__ void wgmma_fence() { asm volatile("wgmma.fence.sync.aligned;" ::: "memory"); }
__device__ __forceinline__ void wgmma_commit() { asm volatile("wgmma.commit_group.sync.aligned;" ::: "memory"); }
template <int PENDING> __device__ __forceinline__ void wgmma_wait() {
    asm volatile("wgmma.wait_group.sync.aligned %0;" ::"n"(PENDING) : "memory");
}
// Keeps the compiler from moving uses of an accumulator across this point.
template <int N> __device__ __forceinline__ void wgmma_pin(float (&d)[N]) {
#pragma unroll
    for (int i = 0; i < N; ++i) asm volatile("" : "+f"(d[i])::"memory");
}

// The registers of an accumulator of 64 by 128, and of 64 by 192.
#define D64 \
    "%0, %1, %2, %3, %4, %5, %6, %7, %8, %9, %10, %11, %12, %13, %14, %15, " \
    "%16, %17, %18, %19, %20, %21, %22, %23, %24, %25, %26, %27, %28, %29, %30, %31, " \
    "%32, %33, %34, %35, %36, %37, %38, %39, %40, %41, %42, %43, %44, %45, %46, %47, " \
    "%48, %49, %50, %51, %52, %53, %54, %55, %56, %57, %58, %59, %60, %61, %62, %63"
#define D96 D64 \
    ", %64, %65, %66, %67, %68, %69, %70, %71, %72, %73, %74, %75, %76, %77, %78, %79, " \
    "%80, %81, %82, %83, %84, %85, %86, %87, %88, %89, %90, %91, %92, %93, %94, %95"

// D[64, N] (+)= A.B over 16 k, f32 accumulators; TRANS 1: that operand is MN-major.
#define ACC4(d, i) "+f"(d[i]), "+f"(d[i + 1]), "+f"(d[i + 2]), "+f"(d[i + 3])
#define ACC16(d, i) ACC4(d, i), ACC4(d, i + 4), ACC4(d, i + 8), ACC4(d, i + 12)
#define ACC32(d, i) ACC16(d, i), ACC16(d, i + 16)

template <int TRANS_A, int TRANS_B>
__device__ __forceinline__ void wgmma(float (&d)[64], u64 a, u64 b, u32 accumulate) {
    asm volatile(
        "{\n.reg .pred p;\nsetp.ne.b32 p, %66, 0;\n"
        "wgmma.mma_async.sync.aligned.m64n128k16.f32.bf16.bf16 {" D64 "}, %64, %65, p, 1, 1, %67, %68;\n}\n"
        : ACC32(d, 0), ACC32(d, 32)
        : "l"(a), "l"(b), "r"(accumulate), "n"(TRANS_A), "n"(TRANS_B));
}

template <int TRANS_A, int TRANS_B>
__device__ __forceinline__ void wgmma(float (&d)[96], u64 a, u64 b, u32 accumulate) {
    asm volatile(
        "{\n.reg .pred p;\nsetp.ne.b32 p, %98, 0;\n"
        "wgmma.mma_async.sync.aligned.m64n192k16.f32.bf16.bf16 {" D96 "}, %96, %97, p, 1, 1, %99, %100;\n}\n"
        : ACC32(d, 0), ACC32(d, 32), ACC32(d, 64)
        : "l"(a), "l"(b), "r"(accumulate), "n"(TRANS_A), "n"(TRANS_B));
}

// ---- products ----

struct Tile {
    u32 row, col, split, k_begin, k_end;
};

// The units of work: a split of BLOCKS tiles, one below the other, that a cluster of as many blocks makes at once.
template <u32 ROWS, u32 COLUMNS, u32 BLOCKS = 1> struct Schedule {
    u32 rows, cols, k_tiles, splits, group, count;

    template <typename Args> __device__ __forceinline__ Schedule(const Args &args) {
        rows = (u32(args.m) + ROWS * BLOCKS - 1) / (ROWS * BLOCKS);
        cols = (u32(args.n) + COLUMNS - 1) / COLUMNS;
        k_tiles = u32(args.k_tiles);
        splits = u32(args.splits);
        group = u32(args.group);
        count = rows * cols * splits;
    }
    __device__ __forceinline__ Tile tile(u32 unit, u32 rank) const {
        u32 split = unit / (rows * cols), rest = unit % (rows * cols);
        u32 first = rest / (group * cols) * group, height = min(group, rows - first);
        rest -= first * cols;
        Tile t;
        t.row = ((first + rest % height) * BLOCKS + rank) * ROWS;
        t.col = rest / height * COLUMNS;
        t.split = split;
        t.k_begin = split * k_tiles / splits;
        t.k_end = (split + 1) * k_tiles / splits;
        return t;
    }
};

// Position in a ring of slots; `phase` is the parity of the pass over it.
template <u32 SLOTS> struct Cursor {
    u32 slot = 0, phase = 0;
    __device__ __forceinline__ void next() {
        if (++slot == SLOTS) {
            slot = 0;
            phase ^= 1;
        }
    }
    __device__ __forceinline__ void skip(u32 n) {
        u32 at = slot + n;
        slot = at % SLOTS;
        phase ^= at / SLOTS & 1;
    }
};

// GELU, tanh form: x / (1 + exp(-2u)) with u = sqrt(2 / pi) (x + 0.044715 x^3).
__device__ __forceinline__ float gelu_gate(float x, float x2) {
    float e, gate;
    asm("ex2.approx.ftz.f32 %0, %1;" : "=f"(e) : "f"(x * fmaf(x2, -0.10294324f, -2.3022082f)));
    asm("rcp.approx.ftz.f32 %0, %1;" : "=f"(gate) : "f"(1.0f + e));
    return gate;
}
__device__ __forceinline__ float gelu(float x) { return x * gelu_gate(x, x * x); }
__device__ __forceinline__ float gelu_grad(float x) {
    float x2 = x * x, gate = gelu_gate(x, x2);
    return fmaf(x * fmaf(x2, 0.21406445f, 1.5957691f), fmaf(-gate, gate, gate), gate);
}
